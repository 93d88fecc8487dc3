//! The command line.

use lexopt::prelude::*;
use moorgate_demo::wire::is_name;
use std::path::PathBuf;

/// What `--help` says.
pub(crate) const HELP: &str = "\
moorgate-chat - chat in the terminal, over a gateway with the demo services

Usage: moorgate-chat [--gateway ADDR[,ADDR...]] [--user NAME]
                     [--state FILE] [--plain]

  --gateway ADDR[,...]  where gateways listen; the first that answers is used
                        (default: 127.0.0.1:7000)
  --user NAME           who you are; else you are asked
  --state FILE          where the session is written down (keep it secret): the
                        next start goes on with it, without a password
  --plain               lines in, lines out: no screen. So it is by itself where
                        input or output is no terminal
  -h, --help            this
  -V, --version         the version

It asks for your password, and offers to register you. /help tells what else
there is. The variable NO_COLOR takes the colours away.
";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Help,
    Version,
    Chat(Options),
}

/// How to chat.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) gateways: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) is_plain: bool,
}

/// Reads the command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(mut arguments: lexopt::Parser) -> Result<Wanted, lexopt::Error> {
    let mut options =
        Options { gateways: vec!["127.0.0.1:7000".to_owned()], user: None, state: None, is_plain: false };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("gateway") => options.gateways = gateways(&arguments.value()?.string()?)?,
            Long("user") => {
                let user = arguments.value()?.string()?;
                if !is_name(&user) {
                    return Err(format!("`{user}` is no name: {}", crate::command::NAMES).into());
                }
                options.user = Some(user);
            }
            Long("state") => options.state = Some(arguments.value()?.into()),
            Long("plain") => options.is_plain = true,
            Short('h') | Long("help") => return Ok(Wanted::Help),
            Short('V') | Long("version") => return Ok(Wanted::Version),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Wanted::Chat(options))
}

fn gateways(list: &str) -> Result<Vec<String>, lexopt::Error> {
    let gateways: Vec<String> = list.split(',').map(|one| one.trim().to_owned()).collect();
    // A port is what is forgotten most.
    match gateways.iter().find(|one| !has_port(one)) {
        Some(one) => Err(format!("`{one}` is no address; write for example 127.0.0.1:7000").into()),
        None => Ok(gateways),
    }
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Result<Wanted, String> {
        read(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn gateways_and_users_are_read() {
        let Ok(Wanted::Chat(options)) = of(&["--gateway", "a:1, [::1]:2", "--user", "alice"]) else {
            panic!("it is good");
        };
        assert_eq!(options.gateways, ["a:1", "[::1]:2"]);
        assert_eq!((options.user.as_deref(), options.is_plain), (Some("alice"), false));
        assert!(matches!(of(&[]), Ok(Wanted::Chat(options)) if options.gateways == ["127.0.0.1:7000"]));
        assert!(
            matches!(of(&["--state", "f"]), Ok(Wanted::Chat(options)) if options.state == Some("f".into()))
        );
        assert_eq!(of(&["--plain", "-h"]), Ok(Wanted::Help));
        assert_eq!(of(&["--version"]), Ok(Wanted::Version));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (arguments, hint) in [
            (&["--gateway", "localhost"][..], "`localhost` is no address"),
            (&["--gateway", "a:1,"], "`` is no address"),
            (&["--gateway", ":1"], "is no address"),
            (&["--user", "böb"], "is no name"),
            (&["--gatewy"], "gatewy"),
            (&["alice"], "alice"),
        ] {
            let said = of(arguments).unwrap_err();
            assert!(said.contains(hint), "{said}");
        }
    }
}

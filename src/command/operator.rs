//! `moorgate operator`: asks a running gateway, over its operator's address, so that nobody needs another program.

use super::{Failure, failed, help, print, usage};
use lexopt::{Arg, ValueExt};
use moorgate::admin::encode;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The operator's address in the sample configuration, and of `serve --dev`.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7001);
/// For the gateway to be reached, and then for each part of its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A longer answer is none.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One thing that may be asked for.
struct Command {
    name: &'static str,
    method: &'static str,
    /// Its parameters, which are flags here.
    parameters: &'static [&'static str],
}

const COMMANDS: [Command; 5] = [
    Command { name: "kick", method: "POST", parameters: &["user", "session", "message"] },
    Command { name: "revoke", method: "POST", parameters: &["user", "token"] },
    Command { name: "bans", method: "GET", parameters: &[] },
    Command { name: "ban", method: "POST", parameters: &["address", "for"] },
    Command { name: "unban", method: "POST", parameters: &["address", "user"] },
];

pub(super) fn run(mut words: lexopt::Parser) -> Result<(), Failure> {
    const ALL: &str = "kick, revoke, bans, ban and unban";
    let command = match words.next()? {
        Some(Arg::Short('h') | Arg::Long("help")) => {
            return print(help::OPERATOR);
        }
        Some(Arg::Value(word)) => match COMMANDS.iter().find(|command| word == command.name) {
            Some(command) => command,
            None => {
                let word = word.to_string_lossy();
                return usage(format!("there is no `operator {word}`; there are {ALL}"));
            }
        },
        Some(other) => return Err(other.unexpected().into()),
        None => return usage(format!("say what to do: there are {ALL}")),
    };
    let mut admin = ADMIN;
    let mut query = String::new();
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => return print(help::OPERATOR),
            Arg::Long("admin") => admin = super::address(&mut words, "--admin")?,
            Arg::Long(flag) => match command.parameters.iter().find(|parameter| **parameter == flag) {
                Some(parameter) => {
                    let mark = if query.is_empty() { '?' } else { '&' };
                    let value = words.value()?.string()?;
                    query.push_str(&format!("{mark}{parameter}={}", encode(&value)));
                }
                None => return Err(Arg::Long(flag).unexpected().into()),
            },
            other => return Err(other.unexpected().into()),
        }
    }
    // What the parameters must be is the gateway's to judge: it does so for everybody who asks.
    let answer = ask(admin, command.method, &format!("/{}{query}", command.name));
    let answer = answer.map_err(|error| {
        failed(format!("no answer from the gateway at {admin}: {error}; is it running, is that its [admin]?"))
    })?;
    match answer {
        Answer { status: 200, body } => print(&body),
        Answer { status, body } => Err(failed(refusal(status, &body))),
    }
}

struct Answer {
    status: u16,
    body: String,
}

fn ask(admin: SocketAddr, method: &str, target: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\r\n")?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    match (status, text.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok(Answer { status, body: body.to_owned() }),
        _ => Err(std::io::Error::other("what answers there does not speak HTTP")),
    }
}

/// Why the gateway has not done it, in its own words.
fn refusal(status: u16, body: &str) -> String {
    let error = serde_json::from_str(body).ok();
    let error = error.and_then(|value: serde_json::Value| Some(value.get("error")?.as_str()?.to_owned()));
    error.unwrap_or_else(|| format!("the gateway answers {status}: {}", body.trim().escape_debug()))
}

//! What a line means.

use moorgate_demo::wire::is_name;
use std::fmt;

/// Who gets a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// One user.
    User(String),
    /// Everybody in a group.
    Group(String),
}

/// As it is written: a group with a `#`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::User(user) => f.write_str(user),
            Target::Group(group) => write!(f, "#{group}"),
        }
    }
}

/// A line that was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Nothing.
    Empty,
    /// A message to whoever is spoken to.
    Text(String),
    /// A command.
    Command(Command),
    /// Something else; what is wrong with it.
    Wrong(String),
}

/// What a command asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    /// Speak to them from now on, and say this if it is not empty.
    To(Target, String),
    Join(String),
    /// The group that is spoken to, if none is named.
    Leave(Option<String>),
    Who,
    Logout,
    Quit,
}

/// The commands, and what the help says of each.
pub(crate) const COMMANDS: [(&str, &str, &str); 7] = [
    ("/to", "/to USER|#GROUP [TEXT]", "speak to somebody, or to a group; so does /msg"),
    ("/join", "/join GROUP", "join a group, and speak to it"),
    ("/leave", "/leave [GROUP]", "leave a group"),
    ("/who", "/who", "who is online"),
    ("/logout", "/logout", "log out, and log in as somebody else"),
    ("/quit", "/quit", "leave; so do /exit, /q and Ctrl-C"),
    ("/help", "/help", "this, as /h and /?; //TEXT says what begins with a slash"),
];

/// What names may be.
pub(crate) const NAMES: &str = "a name has 1 to 32 letters (a to z), digits, '-', '_' or '.'";

/// Reads a line.
pub(crate) fn read(line: &str) -> Line {
    let line = line.trim();
    let Some(rest) = line.strip_prefix('/') else {
        return if line.is_empty() { Line::Empty } else { Line::Text(line.to_owned()) };
    };
    if rest.starts_with('/') {
        return Line::Text(rest.to_owned());
    }
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = rest.trim();
    let command = match word {
        "help" | "h" | "?" => Ok(Command::Help),
        "to" | "msg" => {
            let (name, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            target(name).map(|target| Command::To(target, text.trim().to_owned()))
        }
        "join" => group(rest).map(Command::Join),
        "leave" if rest.is_empty() => Ok(Command::Leave(None)),
        "leave" => group(rest).map(|group| Command::Leave(Some(group))),
        "who" => Ok(Command::Who),
        "logout" => Ok(Command::Logout),
        "quit" | "exit" | "q" => Ok(Command::Quit),
        _ => Err(format!("there is no /{word}; /help tells what there is")),
    };
    command.map_or_else(Line::Wrong, Line::Command)
}

fn target(name: &str) -> Result<Target, String> {
    match name.strip_prefix('#') {
        Some(group) => self::group(group).map(Target::Group),
        None => self::name(name, "/to USER").map(Target::User),
    }
}

/// With or without its `#`.
fn group(text: &str) -> Result<String, String> {
    name(text.strip_prefix('#').unwrap_or(text), "for example /join friends")
}

fn name(text: &str, usage: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("say which: {usage}"));
    }
    if is_name(text) { Ok(text.to_owned()) } else { Err(NAMES.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(target: Target, text: &str) -> Line {
        Line::Command(Command::To(target, text.to_owned()))
    }

    #[test]
    fn lines_are_texts_or_commands() {
        let user = || Target::User("bob".to_owned());
        let group = || Target::Group("team".to_owned());
        for (line, meaning) in [
            ("  ", Line::Empty),
            (" hello, /bob ", Line::Text("hello, /bob".to_owned())),
            ("//etc/hosts", Line::Text("/etc/hosts".to_owned())),
            ("/to bob", to(user(), "")),
            ("/to  bob  how are you? ", to(user(), "how are you?")),
            ("/msg #team", to(group(), "")),
            ("/join team", Line::Command(Command::Join("team".to_owned()))),
            ("/join #team", Line::Command(Command::Join("team".to_owned()))),
            ("/leave", Line::Command(Command::Leave(None))),
            ("/leave #team", Line::Command(Command::Leave(Some("team".to_owned())))),
            ("/who", Line::Command(Command::Who)),
            ("/logout", Line::Command(Command::Logout)),
            ("/quit", Line::Command(Command::Quit)),
            ("/?", Line::Command(Command::Help)),
        ] {
            assert_eq!(read(line), meaning, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, hint) in [
            ("/to", "/to USER"),
            ("/to #", "/join friends"),
            ("/to böb", "letters"),
            ("/join two words", "letters"),
            ("/jion team", "there is no /jion"),
            ("/", "there is no /;"),
        ] {
            assert!(matches!(read(line), Line::Wrong(said) if said.contains(hint)), "{line}");
        }
    }

    #[test]
    fn every_command_of_the_help_is_one() {
        for (word, _, _) in COMMANDS {
            assert!(!matches!(read(&format!("{word} x")), Line::Wrong(said) if said.contains("there is no")));
        }
        assert_eq!(Target::Group("team".to_owned()).to_string(), "#team");
    }

    #[test]
    fn every_command_is_in_the_help() {
        let help = COMMANDS.map(|(_, usage, what)| format!("{usage} {what} ")).concat();
        for word in ["to", "msg", "join", "leave", "who", "logout", "quit", "exit", "q", "help", "h", "?"] {
            assert!(
                !matches!(read(&format!("/{word} x")), Line::Wrong(said) if said.contains("there is no"))
            );
            let is_told = |mark: &str| help.contains(&format!("/{word}{mark}"));
            assert!([" ", ",", ";"].into_iter().any(is_told), "/{word}");
        }
    }
}

//! `moorgate operator`: asks a running gateway to do something, or what there is.

use super::ask::{ADMIN, Request};
use super::endpoint::{CELL_BYTES_MAX, Endpoint, HEAD};
use super::{Failure, failed, help, print, usage};
use lexopt::{Arg, ValueExt};
use moorgate::base::text::shown;
use serde::Deserialize;

/// One thing that may be asked for.
struct Command {
    name: &'static str,
    method: &'static str,
    /// Its parameters, which are flags here.
    parameters: &'static [&'static str],
    /// Parameters that are words in their place.
    positions: &'static [&'static str],
    /// Flags that must be written: of each list exactly one.
    required: &'static [&'static [&'static str]],
    /// How it is written.
    usage: &'static str,
    /// The count in its answer, and what a count of zero means.
    none: Option<(&'static str, &'static str)>,
}

impl Command {
    const fn new(name: &'static str, method: &'static str, usage: &'static str) -> Command {
        Command { name, method, parameters: &[], positions: &[], required: &[], usage, none: None }
    }
}

const COMMANDS: [Command; 7] = [
    Command {
        parameters: &["user", "session", "message"],
        required: &[&["user", "session"]],
        none: Some(("sessions", "this gateway has no such session: nothing was ended")),
        ..Command::new("kick", "POST", "kick (--user U | --session HEX) [--message TEXT]`")
    },
    Command {
        parameters: &["user", "token"],
        required: &[&["user", "token"]],
        ..Command::new("revoke", "POST", "revoke (--user U | --token ID)`")
    },
    Command::new("bans", "GET", "bans`"),
    Command {
        parameters: &["address", "for"],
        required: &[&["address"], &["for"]],
        ..Command::new("ban", "POST", "ban --address A --for TIME`")
    },
    Command {
        parameters: &["address", "user"],
        required: &[&["address", "user"]],
        none: Some((
            "changed",
            "there is no such ban: nothing was lifted; `moorgate operator bans` lists those there are",
        )),
        ..Command::new("unban", "POST", "unban (--address A | --user U)`")
    },
    Command::new("endpoints", "GET", "endpoints`"),
    Command {
        positions: &["service", "share"],
        ..Command::new("canary", "POST", "canary SERVICE SHARE`, as `canary chat 5%`")
    },
];

pub(super) fn run(mut words: lexopt::Parser) -> Result<(), Failure> {
    const ALL: &str = "kick, revoke, bans, ban, unban, endpoints and canary";
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
    let mut request = Request::new(command.method, command.name);
    let mut positions = command.positions.iter();
    let mut written = Vec::new();
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => return print(help::OPERATOR),
            Arg::Long("admin") => admin = super::address(&mut words, "--admin")?,
            Arg::Long(flag) => match command.parameters.iter().find(|parameter| **parameter == flag) {
                Some(parameter) => {
                    request.add(parameter, &words.value()?.string()?);
                    written.push(*parameter);
                }
                None => return Err(Arg::Long(flag).unexpected().into()),
            },
            Arg::Value(value) => match positions.next() {
                Some(parameter) => request.add(parameter, &value.string()?),
                None => return Err(Arg::Value(value).unexpected().into()),
            },
            other => return Err(other.unexpected().into()),
        }
    }
    let is_written = |flags: &&[&str]| flags.iter().filter(|flag| written.contains(flag)).count() == 1;
    if positions.next().is_some() || !command.required.iter().all(is_written) {
        return usage(format!("write `moorgate operator {}", command.usage));
    }
    let body = request.send(admin)?;
    if let Some((count, message)) = command.none
        && serde_json::from_str::<serde_json::Value>(&body)
            .is_ok_and(|body| body.get(count) == Some(&0.into()))
    {
        return Err(failed(message));
    }
    match command.name {
        "endpoints" => print(&table(&body)?),
        _ => print(&body),
    }
}

/// The endpoints in columns.
fn table(body: &str) -> Result<String, Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| failed(format!("the gateway's answer is not understood: {error}"));
    let answer: Endpoints = serde_json::from_str(body).map_err(|error| wrong(&error))?;
    let mut rows = vec![HEAD.map(str::to_owned)];
    let count = answer.endpoints.len() as u64;
    rows.extend(answer.endpoints.into_iter().map(Endpoint::row));
    let mut text = columns(&rows);
    if count < answer.total {
        text.push_str(&format!("{} more\n", answer.total.saturating_sub(count)));
    }
    for note in &answer.notes {
        text.push_str(&format!("{}\n", shown(note, CELL_BYTES_MAX)));
    }
    Ok(text)
}

/// Rows of words, each column as wide as it has to be.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|word| word.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|at| width(at).unwrap_or_default()).collect();
    let line = |row: &[String; N]| {
        let words: Vec<String> =
            row.iter().zip(&widths).map(|(word, width)| format!("{word:<width$}", width = *width)).collect();
        format!("{}\n", words.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[derive(Deserialize)]
struct Endpoints {
    endpoints: Vec<Endpoint>,
    total: u64,
    notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_moves_no_terminal() {
        let long = "x".repeat(2 << 20);
        let body = serde_json::json!({ "total": 2, "notes": ["a thread\u{1b}"], "endpoints": [
            { "service": "chat", "id": 1, "address": "10.0.0.1:7100", "weight": 100, "zone": "\u{1b}[2J\r\neu",
              "tags": ["a\u{7}", "b\nchat  2  10.0.0.9:1"], "standing": "in", "links": 1, "ejected_ms": null, "calls": 0, "failed": {},
              "sources": ["consul", "\u{9b}31mheld"] },
            { "service": "chat", "id": 2, "address": "10.0.0.2:7100", "weight": 100, "zone": long,
              "tags": [long, long], "standing": "in", "links": 1, "ejected_ms": null, "calls": 0, "failed": {}, "sources": [long] },
        ] });
        let text = table(&body.to_string()).ok().unwrap();
        assert_eq!(text.lines().count(), 4, "a head, a line for each, and a note: {text:?}");
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
        assert!(text.contains("\\u{1b}[2J\\r\\neu") && text.len() < 8 * 1024, "{} bytes", text.len());
    }
}

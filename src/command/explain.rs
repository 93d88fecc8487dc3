//! `moorgate explain`: where a call goes, and why.

use super::ask::{ADMIN, Request};
use super::endpoint::Endpoint;
use super::{Failure, failed, help, line, logged, print, usage};
use lexopt::{Arg, ValueExt};
use moorgate::telemetry::{time_of, why_in_words};
use serde::Deserialize;
use std::fmt::Write;

/// Flags that go to the gateway as they are, with their names there.
const CALLER: [(&str, &str); 10] = [
    ("command", "command"),
    ("version", "version"),
    ("user", "user"),
    ("session", "session"),
    ("role", "role"),
    ("application", "application"),
    ("app-version", "app_version"),
    ("platform", "platform"),
    ("device", "device"),
    ("address", "address"),
];

#[derive(Default)]
struct Options {
    admin: Option<std::net::SocketAddr>,
    /// What goes to the gateway.
    caller: Vec<(&'static str, String)>,
    log: Option<String>,
    request: Option<String>,
}

pub(super) fn run(mut words: lexopt::Parser) -> Result<(), Failure> {
    let mut options = Options::default();
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => return print(help::EXPLAIN),
            Arg::Long("admin") => options.admin = Some(super::address(&mut words, "--admin")?),
            Arg::Long("log") => options.log = Some(words.value()?.string()?),
            Arg::Long("request") => options.request = Some(words.value()?.string()?),
            Arg::Long(flag) => match CALLER.iter().find(|(name, _)| *name == flag) {
                Some((_, parameter)) => options.caller.push((parameter, words.value()?.string()?)),
                None => return Err(Arg::Long(flag).unexpected().into()),
            },
            other => return Err(other.unexpected().into()),
        }
    }
    let asks = !options.caller.is_empty() || options.admin.is_some();
    match options {
        Options { log: Some(_), .. } if asks => {
            usage("a line of the log needs no gateway: leave --log out, or the call and --admin")
        }
        Options { log: Some(log), request, .. } => logged::explain(&log, request.as_deref()),
        Options { request: Some(_), .. } => usage("say in which access log: --log FILE"),
        Options { caller, admin, .. } => ask(&caller, admin.unwrap_or(ADMIN)),
    }
}

fn ask(caller: &[(&'static str, String)], admin: std::net::SocketAddr) -> Result<(), Failure> {
    let value = |name: &str| caller.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
    let Some(command) = value("command") else {
        return usage("say which call: --command 0x0201, or --log FILE --request SESSION:SEQ");
    };
    let mut request = Request::new("GET", "explain");
    caller.iter().for_each(|(name, value)| request.add(name, value));
    let body = request.send(admin)?;
    let answer: Answer = serde_json::from_str(&body)
        .map_err(|error| failed(format!("the gateway's answer is not understood: {error}")))?;
    let who =
        value("user").map_or_else(|| "of an anonymous session".to_owned(), |user| format!("of user {user}"));
    let version = value("version").unwrap_or("1");
    print(&format!("command {command}, version {version}, {who}\n{}", answer.in_words()))
}

/// The gateway's answer.
#[derive(Deserialize)]
struct Answer {
    route: String,
    terms: Vec<String>,
    service: String,
    refused: Option<String>,
    canary_share: Option<String>,
    workers: Vec<Worker>,
    silent: Vec<u16>,
    endpoints: Vec<Endpoint>,
    sources: Vec<String>,
}

#[derive(Deserialize)]
struct Worker {
    worker: u16,
    chosen: Option<String>,
    none: Option<String>,
    why: String,
    canary: bool,
    retry: String,
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Candidate {
    address: String,
    usable: bool,
    notes: Vec<String>,
    outstanding: u32,
    weight_percent: u32,
    latency_us: u32,
    cost_us: u32,
}

impl Answer {
    fn in_words(&self) -> String {
        let mut text = String::new();
        line(&mut text, "route", &format!("{}: {}", self.route, self.terms.join(", ")));
        line(&mut text, "service", &self.service);
        if let Some(refused) = &self.refused {
            line(&mut text, "refused", refused);
        }
        if let Some(share) = &self.canary_share {
            line(&mut text, "canary", &format!("{share} of users"));
        }
        self.workers.iter().for_each(|worker| worker.write(&mut text));
        for worker in &self.silent {
            line(
                &mut text,
                &format!("worker {worker}"),
                "did not answer within a second: it is busy, or stuck",
            );
        }
        if self.endpoints.is_empty() {
            line(&mut text, "endpoints", "none");
        }
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            line(&mut text, if at == 0 { "endpoints" } else { "" }, &endpoint.in_words());
        }
        for (at, source) in self.sources.iter().enumerate() {
            line(&mut text, if at == 0 { "sources" } else { "" }, source);
        }
        text
    }
}

impl Worker {
    fn write(&self, text: &mut String) {
        let name = format!("worker {}", self.worker);
        let none = self.none.as_deref().unwrap_or("nothing");
        line(text, &name, self.chosen.as_deref().unwrap_or(none));
        if self.chosen.is_some() {
            for word in why_in_words(&self.why).unwrap_or_else(|_| vec![self.why.clone()]) {
                line(text, "", &word);
            }
        }
        if self.canary && self.chosen.is_none() {
            line(text, "", "the caller goes to the canary");
        }
        line(text, "", &self.retry);
        self.candidates.iter().for_each(|candidate| line(text, "", &candidate.in_words()));
    }
}

impl Candidate {
    fn in_words(&self) -> String {
        let can = if self.usable { "can take it" } else { "cannot take it" };
        let mut text = format!("- {} {can}: {} outstanding", self.address, self.outstanding);
        if self.usable && self.weight_percent != 100 {
            let _ = write!(text, ", {}% of its weight", self.weight_percent);
        }
        if self.latency_us > 0 {
            let _ = write!(text, ", latency {}", time_of(self.latency_us));
        }
        if self.cost_us > 0 {
            let _ = write!(text, ", cost {}", time_of(self.cost_us));
        }
        for note in &self.notes {
            let _ = write!(text, ", {note}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_moves_no_terminal() {
        let long = "x".repeat(2 << 20);
        let hostile = "\u{1b}[2J\r\n  sources    consul lists 9";
        let body = serde_json::json!({
            "route": "echo", "terms": ["timeout 5s"], "service": "echo", "refused": null, "canary_share": null,
            "workers": [{ "worker": 0, "chosen": "10.0.0.1:7100", "none": null, "why": hostile, "canary": false,
                "retry": long, "candidates": [{ "address": hostile, "usable": true, "notes": [hostile, long],
                "outstanding": 0, "weight_percent": 100, "latency_us": 0, "cost_us": 0 }] }],
            "silent": [], "sources": [hostile, long],
            "endpoints": [{ "service": "echo", "id": 1, "address": "10.0.0.1:7100", "weight": 100, "zone": hostile, "tags": [hostile, long],
                "standing": "in", "links": 1, "ejected_ms": null, "calls": 0, "failed": {}, "sources": [hostile] }],
        });
        let answer: Answer = serde_json::from_str(&body.to_string()).unwrap();
        let text = answer.in_words();
        assert_eq!(text.lines().count(), 9, "{text:?}");
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()));
        assert!(text.len() < 16 * 1024, "{} bytes", text.len());
    }
}

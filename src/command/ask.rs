//! Asks a running gateway over its operator's address, so that nobody needs another program.

use super::{Failure, failed};
use moorgate::admin::encode;
use moorgate::base::text::shown;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The operator's address in the sample configuration, and of `serve --dev`.
pub(super) const ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7001);
/// For the gateway to be reached, and then for each part of its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A longer answer is none.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is asked for, with its parameters.
pub(super) struct Request {
    method: &'static str,
    target: String,
}

impl Request {
    pub(super) fn new(method: &'static str, name: &str) -> Request {
        Request { method, target: format!("/{name}") }
    }

    /// Another parameter.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        let mark = if self.target.contains('?') { '&' } else { '?' };
        self.target.push_str(&format!("{mark}{name}={}", encode(value)));
    }

    /// The body of the gateway's answer when it is what was asked for. What the parameters must be is the gateway's to
    /// judge: it does so for everybody who asks.
    pub(super) fn send(&self, admin: SocketAddr) -> Result<String, Failure> {
        let answer = ask(admin, self.method, &self.target);
        let answer = answer.map_err(|error| {
            failed(format!(
                "no answer from the gateway at {admin}: {error}; is it running, is that its [admin]?"
            ))
        })?;
        match answer {
            Answer { status: 200, body } => Ok(body),
            Answer { status, body } => Err(failed(refusal(status, &body))),
        }
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
    let error = error.map(|error| shown(&error, super::LINE_BYTES_MAX));
    error.unwrap_or_else(|| {
        format!("the gateway answers {status}: {}", shown(body.trim(), super::LINE_BYTES_MAX))
    })
}

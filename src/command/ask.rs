//! Asks a running gateway over its operator's address, so that nobody needs another program.

use super::{Failure, failed};
use moorgate::admin::encode;
use moorgate::base::clock::Clock;
use moorgate::base::text::shown;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The operator's address in the sample configuration, and of `serve --dev`.
pub(super) const ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7001);
/// For the gateway to be reached, to take the request, and to give its whole answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A longer answer is none.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

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
    /// judge: it does so for everybody who asks. What it cannot read is an error of usage.
    pub(super) fn send(&self, admin: SocketAddr) -> Result<String, Failure> {
        let answer = ask(admin, (self.method, &self.target), TIMEOUT);
        let answer = answer.map_err(|error| {
            failed(format!(
                "no answer from the gateway at {admin}: {error}; is it running, is that its [admin]?"
            ))
        })?;
        match answer {
            Answer { status: 200, body } => Ok(body),
            Answer { status, body } => Err(match (status, error_of(&body)) {
                (400, Some(error)) => Failure::Usage(error),
                (_, Some(error)) => failed(error),
                (_, None) => {
                    let body = shown(body.trim(), super::LINE_BYTES_MAX);
                    failed(format!("the gateway answers {status}: {body}"))
                }
            }),
        }
    }
}

struct Answer {
    status: u16,
    body: String,
}

fn ask(admin: SocketAddr, (method, target): (&str, &str), timeout: Duration) -> io::Result<Answer> {
    let clock = Clock::start();
    let until = clock.read().mono + timeout;
    let late = || io::Error::new(ErrorKind::TimedOut, "no whole answer in time");
    // A timeout of zero would mean none.
    let left = || Some(until.since(clock.read().mono)).filter(|left| !left.is_zero()).ok_or_else(late);
    let mut stream = TcpStream::connect_timeout(&admin, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\r\n")?;
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    while bytes.len() < ANSWER_BYTES_MAX {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    match (status, text.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok(Answer { status, body: body.to_owned() }),
        _ => Err(io::Error::other("what answers there does not speak HTTP")),
    }
}

/// Why the gateway has not done it, in its own words.
fn error_of(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(shown(body.get("error")?.as_str()?, super::LINE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn answer_that_never_ends_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap();
        let dripping = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Each part comes soon, the whole never does.
            while stream.write_all(b"H").is_ok() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        let error = ask(admin, ("GET", "/bans"), Duration::from_millis(100)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        dripping.join().unwrap();
    }
}

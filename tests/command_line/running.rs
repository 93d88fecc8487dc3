//! A gateway in a process of its own.

use crate::{Ended, moorgate};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Far longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway; killed when the test ends before it.
pub(crate) struct Running {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    /// What was read of standard output and of standard error.
    seen: (String, String),
}

impl Running {
    pub(crate) fn start(words: &[&str]) -> Running {
        let (out_reader, out) = std::io::pipe().unwrap();
        let (err_reader, err) = std::io::pipe().unwrap();
        let child = moorgate(words).stdout(out).stderr(err).spawn().unwrap();
        Running { child, out: lines(out_reader), err: lines(err_reader), seen: Default::default() }
    }

    /// `serve --dev` on ports of the system's choice.
    pub(crate) fn dev() -> Running {
        let any = "127.0.0.1:0";
        Running::start(&["serve", "--dev", "--listen", any, "--admin-listen", any, "--bench-listen", any])
    }

    /// Reads standard output up to a line that has this in it.
    pub(crate) fn out_until(&mut self, part: &str) -> String {
        until(&self.out, part, &mut self.seen.0)
    }

    /// Reads standard error up to a line that has this in it.
    pub(crate) fn err_until(&mut self, part: &str) -> String {
        until(&self.err, part, &mut self.seen.1)
    }

    /// The addresses that standard error tells: for clients, and for the operator.
    pub(crate) fn addresses(&mut self) -> (SocketAddr, SocketAddr) {
        let word = |line: String| line.rsplit([' ', '/']).next().unwrap().parse().unwrap();
        (word(self.err_until("clients connect to ")), word(self.err_until("operator's pages on ")))
    }

    pub(crate) fn signal(&self, signal: &str) {
        // The shell's own: not every machine has the program.
        let kill = format!("kill {signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the end.
    pub(crate) fn ended(mut self) -> Ended {
        // Both pipes close when the process ends.
        rest(&self.out, &mut self.seen.0);
        rest(&self.err, &mut self.seen.1);
        let code = self.child.wait().unwrap().code();
        let (out, err) = std::mem::take(&mut self.seen);
        Ended { code, out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails when the process has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

fn until(lines: &Receiver<String>, part: &str, seen: &mut String) -> String {
    loop {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{part}` in:\n{seen}"));
        seen.push_str(&line);
        seen.push('\n');
        if line.contains(part) {
            return line;
        }
    }
}

fn rest(lines: &Receiver<String>, seen: &mut String) {
    use std::sync::mpsc::RecvTimeoutError::Timeout;
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                seen.push_str(&line);
                seen.push('\n');
            }
            Err(Timeout) => panic!("it does not end:\n{seen}"),
            Err(_) => return,
        }
    }
}

/// One page of the operator.
pub(crate) fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asks for a page until it is as it should be.
#[expect(clippy::disallowed_methods, reason = "tests with real processes wait in real time")]
pub(crate) fn page_until(address: SocketAddr, path: &str, is_right: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    let mut answer = page(address, path);
    while !is_right(&answer) {
        assert!(begun.elapsed() < PATIENCE, "{answer}");
        std::thread::yield_now();
        answer = page(address, path);
    }
}

/// Asks until the gateway has links to all its services.
pub(crate) fn ready(address: SocketAddr) {
    page_until(address, "/readyz", |answer| {
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nready\n")
    });
}

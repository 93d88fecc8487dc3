//! The fault-injection proxy on real sockets: what it forwards is whole, its faults happen where they are planned, and what
//! it counts is what the peers see.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A program of the tester, with its address.
struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    input: Option<ChildStdin>,
    address: SocketAddr,
}

impl Program {
    fn start(words: &str) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate-bench"));
        command.args(words.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        Program { input: child.stdin.take(), child, output, address }
    }

    /// Ends a proxy; its counts.
    fn counts(mut self) -> Value {
        drop(self.input.take());
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn echo() -> Program {
    Program::start("bare-echo --listen 127.0.0.1:0")
}

fn proxy(echo: &Program, words: &str) -> Program {
    Program::start(&format!("cut --until-eof --target {} {words}", echo.address))
}

/// How a connection has ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// Sends so many bytes and reads their echo until the end; how many were echoed, and how it has ended.
fn exchange(address: SocketAddr, count: usize) -> (usize, End) {
    let mut stream = TcpStream::connect(address).unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(count).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || {
        let is_sent = writer.write_all(&sent).is_ok();
        let _ = writer.shutdown(std::net::Shutdown::Write);
        is_sent
    });
    let (mut echoed, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break End::Closed,
            Ok(count) => echoed.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break End::Reset,
        }
    };
    let _ = writing.join();
    assert!(echoed.len() <= bytes.len() && bytes[..echoed.len()] == echoed, "what is forwarded is a prefix");
    (echoed.len(), end)
}

#[test]
fn forwarding_without_faults_keeps_every_byte() {
    let echo = echo();
    for words in ["--split 0", "--split 1", "--split 7 --delay 1ms"] {
        let proxy = proxy(&echo, &format!("--fault-percent 0 {words}"));
        let count = 5000;
        for _ in 0..3 {
            assert_eq!(exchange(proxy.address, count), (count, End::Closed), "{words}");
        }
        let counts = proxy.counts();
        for (name, expected) in
            [("accepted", 3), ("ended", 3), ("bytes_to_server", 15_000), ("bytes_to_client", 15_000)]
        {
            assert_eq!(counts[name], expected, "{name}: {counts}");
        }
        let writes = counts["writes_to_client"].as_u64().unwrap();
        assert!(!words.starts_with("--split 1") || writes == 15_000, "{counts}");
    }
}

#[test]
fn faults_happen_at_their_byte_and_are_counted() {
    let echo = echo();
    let words = "--fault-bytes 6000 --fault-within 60s --half-open 100ms --split 100 --seed 5";
    let of = |kinds: &str| {
        let proxy = proxy(&echo, &format!("{words} --faults {kinds}"));
        let ends: Vec<(usize, End)> = (0..12).map(|_| exchange(proxy.address, 5000)).collect();
        (ends, proxy.counts())
    };
    let mut totals = Vec::new();
    for (kinds, name) in [("reset", "reset"), ("close", "closed"), ("half-open", "half_open")] {
        let (ends, counts) = of(kinds);
        assert_eq!(counts[name], 12, "{counts}");
        assert!(ends.iter().all(|(count, _)| *count < 5000), "{kinds}: {ends:?}");
        // With unread bytes in its buffer a socket that is closed is reset as well.
        assert!(kinds != "reset" || ends.iter().all(|(_, end)| *end == End::Reset), "{ends:?}");
        totals.push(
            ["bytes_to_server", "bytes_to_client"]
                .map(|name| counts[name].as_u64().unwrap())
                .iter()
                .sum::<u64>(),
        );
    }
    assert!(totals.iter().all(|total| *total == totals[0] && *total < 12 * 6000), "to the byte: {totals:?}");
}

#[test]
fn faults_and_connections_are_bounded() {
    let echo = echo();
    let few = proxy(&echo, "--faults reset --fault-bytes 1 --faults-max 2");
    let ends: Vec<(usize, End)> = (0..6).map(|_| exchange(few.address, 100)).collect();
    assert_eq!(ends.iter().filter(|end| **end == (100, End::Closed)).count(), 4, "{ends:?}");
    assert_eq!(few.counts()["reset"], 2);
    let narrow = proxy(&echo, "--fault-percent 0 --connections-max 1");
    let mut first = TcpStream::connect(narrow.address).unwrap();
    first.write_all(b"x").unwrap();
    first.read_exact(&mut [0]).unwrap();
    assert_eq!(exchange(narrow.address, 0), (0, End::Closed));
    drop(first);
    assert_eq!(narrow.counts()["refused"], 1);
}

#[test]
fn server_that_is_not_there_is_a_reset_and_counted() {
    let address = echo().address;
    let proxy = Program::start(&format!("cut --until-eof --target {address}"));
    assert_eq!(exchange(proxy.address, 0).0, 0);
    assert_eq!(proxy.counts()["unconnected"], 1);
}

//! The tester against bare servers, each in a process of its own: every load ends well, and planted faults are found.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

fn tester(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate-bench"));
    command.args(words).stdout(Stdio::piped());
    command
}

/// A server that ends with the test.
struct Server {
    child: Child,
    /// Where it listens, in the order in which it says so.
    addresses: Vec<String>,
}

impl Server {
    fn start(words: &[&str]) -> Server {
        let mut child = tester(words).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let words = line.split([' ', ',', '\n']);
        let addresses = words.filter(|word| word.parse::<SocketAddr>().is_ok()).map(str::to_owned).collect();
        Server { child, addresses }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a load to its end: whether it was good, and its figures.
fn run(words: &str) -> (bool, Value) {
    let words: Vec<&str> = words.split(' ').chain(["--raw", "--json"]).collect();
    let output = tester(&words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), serde_json::from_str(&text).unwrap_or_default())
}

fn zeros(figures: &Value, names: &[&str]) -> bool {
    names.iter().all(|name| figures[name] == 0)
}

const FAULTS: [&str; 8] =
    ["errors", "wrong", "missing", "not_sent", "lost", "duplicated", "reordered", "gaps"];

#[test]
fn pushes_to_every_audience_arrive_once_and_in_order() {
    let server = Server::start(&["bare-push", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
    let [listen, control] = [&server.addresses[0], &server.addresses[1]];
    let pid = server.child.id();
    for audience in [
        "--to everyone",
        "--to everyone --rate 500 --threads 2",
        "--to group --groups 3 --group-size 2 --pushes-in-flight 4",
        "--to group --groups 7 --payload 16",
        "--to users --users-per-push 7 --threads 2",
    ] {
        let (is_good, figures) = run(&format!(
            "push {audience} --target {listen} --control {control} --connections 7 --duration 1s --warmup 1ms \
             --quiet 1ms --watch-pid {pid}"
        ));
        assert!(is_good && zeros(&figures, &FAULTS), "{audience}: {figures}");
        for name in ["pushes", "deliveries"] {
            assert!(figures[name].as_u64().unwrap() > 0, "{audience}: {figures}");
        }
        assert!(figures["rss_bytes"]["after"].as_u64().unwrap() > 0);
    }
}

#[test]
fn requests_and_connections_are_served() {
    let server = Server::start(&["bare-echo", "--listen", "127.0.0.1:0"]);
    let target = &server.addresses[0];
    for load in [
        "requests --in-flight 3 --threads 2 --warmup 1ms",
        "requests --rate 1000 --warmup 1ms",
        "connect",
        "idle",
    ] {
        let (is_good, figures) = run(&format!("{load} --target {target} --connections 5 --duration 500ms"));
        assert!(is_good && zeros(&figures, &FAULTS[..4]), "{load}: {figures}");
        assert_eq!(load == "idle", figures["completed"] == 0, "{load}: {figures}");
    }
}

fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(payload)
}

fn write_frame(stream: &mut TcpStream, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), payload].concat()).unwrap();
}

/// As `bare-push` for one client, but the fifth push is dropped, the tenth comes twice, and the fifteenth is overtaken.
fn faulty_server() -> ([SocketAddr; 2], JoinHandle<()>) {
    let [clients, controls] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [&clients, &controls].map(|listener| listener.local_addr().unwrap());
    let serve = move || {
        let mut client = clients.accept().unwrap().0;
        let join = read_frame(&mut client).unwrap();
        write_frame(&mut client, &join);
        let mut control = controls.accept().unwrap().0;
        let mut late = None;
        for number in 0.. {
            let Some(order) = read_frame(&mut control) else { return };
            let payload = &order[4..];
            match number {
                5 => {}
                10 => [payload, payload].iter().for_each(|payload| write_frame(&mut client, payload)),
                15 => late = Some(payload.to_vec()),
                _ => {
                    write_frame(&mut client, payload);
                    late.take().into_iter().for_each(|late| write_frame(&mut client, &late));
                }
            }
            control.write_all(&[0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
        }
    };
    (addresses, std::thread::spawn(serve))
}

#[test]
fn pushes_that_are_lost_doubled_or_overtaken_are_found() {
    let ([listen, control], server) = faulty_server();
    let (is_good, figures) = run(&format!(
        "push --target {listen} --control {control} --connections 1 --rate 1000 --duration 2s --warmup 1ms \
         --quiet 1ms"
    ));
    server.join().unwrap();
    let faults: Vec<u64> = FAULTS.iter().map(|name| figures[name].as_u64().unwrap()).collect();
    assert_eq!((is_good, faults), (false, vec![0, 0, 0, 0, 1, 1, 1, 0]), "{figures}");
}

/// Echoes frames on two connections, and closes one of them instead of its third echo.
fn closing_server() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = |mut stream: TcpStream, count: usize| {
        for _ in 0..count {
            let Some(frame) = read_frame(&mut stream) else { return };
            write_frame(&mut stream, &frame);
        }
        let _ = read_frame(&mut stream);
    };
    let serve = move || {
        let [first, second] = [(); 2].map(|()| listener.accept().unwrap().0);
        let first = std::thread::spawn(move || echo(first, 2));
        echo(second, usize::MAX);
        first.join().unwrap();
    };
    (address, std::thread::spawn(serve))
}

#[test]
fn requests_due_on_a_lost_connection_are_counted_as_not_sent() {
    let (target, server) = closing_server();
    let load = "requests --rate 400 --connections 2 --duration 500ms --warmup 1ms";
    let (is_good, figures) = run(&format!("{load} --target {target}"));
    server.join().unwrap();
    let count = |name: &str| figures[name].as_u64().unwrap();
    assert!(!is_good && count("not_sent") > 0 && count("errors") == 1, "{figures}");
    // Of what is due each connection has half: all that was not sent was due on the lost one.
    assert!(count("not_sent").abs_diff(count("completed")) <= 5, "{figures}");
}

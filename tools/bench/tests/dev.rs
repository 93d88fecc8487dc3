//! Every mode of the tester against `moorgate serve --dev`, which is the program beside the tester's own.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../../../tests/loopback/mod.rs"]
mod loopback;

use moorgate_service::{Directive, Reply, Service};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const TESTER: &str = env!("CARGO_BIN_EXE_moorgate-bench");

/// A development gateway that ends with the test.
struct Gateway {
    child: Child,
    clients: String,
    operator: String,
    bench: String,
}

/// Runs the tester to its failure; what it says on standard error.
fn failure(words: &str) -> String {
    let output = Command::new(TESTER).args(words.split(' ')).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}: {error}");
    error
}

impl Gateway {
    /// `None`: the program is not built.
    fn start() -> Option<Gateway> {
        let program = Path::new(TESTER).with_file_name("moorgate");
        if !program.exists() {
            eprintln!(
                "!! LEFT OUT: there is no {}; build it with `cargo build --bin moorgate` and the same profile !!",
                program.display()
            );
            return None;
        }
        let any = "127.0.0.1:0";
        let mut command = Command::new(program);
        command.args(["serve", "--dev", "--listen", any, "--admin-listen", any, "--bench-listen", any]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut address = |start: &str| {
            let line = lines.find(|line| line.trim_start().starts_with(start)).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let (clients, bench) = (address("clients"), address("bench"));
        let operator =
            lines.find_map(|line| Some(line.split_once("http://")?.1.split_once('/')?.0.to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        Some(Gateway { child, clients, operator: operator.unwrap(), bench })
    }

    /// Runs the tester to its end: whether it was good, and its figures.
    fn run(&self, mode: &str, target: &str) -> (bool, Value) {
        let mut command = Command::new(TESTER);
        command.args(mode.split(' ')).args(["--json", "--target", target]);
        if ["push", "resume", "storm"].iter().any(|own| mode.starts_with(own)) {
            command.args(["--service-listen", &self.bench]);
        }
        let output = command.stderr(Stdio::inherit()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), serde_json::from_str(&text).unwrap_or_default())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_mode_works_against_the_development_gateway() {
    let Some(gateway) = Gateway::start() else { return };
    for mode in [
        "requests --connections 8 --in-flight 4 --duration 500ms --warmup 100ms",
        "requests --connections 8 --rate 500 --duration 500ms --warmup 100ms --newcomers-per-s 20",
        "idle --connections 8 --duration 100ms",
        "connect --connections 4 --duration 200ms",
        "login --connections 2 --duration 200ms --warmup 1ms",
        "push --connections 8 --duration 300ms --warmup 1ms --quiet 1ms",
        "push --connections 8 --to group --groups 2 --rate 200 --duration 300ms --warmup 1ms --quiet 1ms",
        "push --connections 8 --to users --receipts --duration 300ms --warmup 1ms --quiet 1ms",
        "resume --connections 20 --cuts 2 --duration 1s --rate 10/s",
        "storm --connections 20 --steady 3 --duration 300ms",
        "storm --connections 20 --steady 3 --duration 300ms --fresh",
    ] {
        let (is_good, figures) = gateway.run(mode, &gateway.clients);
        assert!(is_good, "{mode}: {figures}");
    }
}

#[test]
fn sessions_survive_the_fault_injection_proxy() {
    let Some(gateway) = Gateway::start() else { return };
    let mut command = Command::new(TESTER);
    command.args(["cut", "--until-eof", "--target", &gateway.clients, "--fault-bytes", "3000"]);
    command.args(["--fault-within", "800ms", "--half-open", "300ms", "--split", "50", "--delay", "2ms"]);
    let mut proxy = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(proxy.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let target = line.trim().rsplit(' ').next().unwrap();
    // The proxy cuts, not the tester.
    let mode = "resume --connections 20 --cuts 0 --duration 2s --rate 10/s";
    let (_, figures) = gateway.run(mode, target);
    drop(proxy.stdin.take());
    line.clear();
    output.read_line(&mut line).unwrap();
    let counts: Value = serde_json::from_str(&line).unwrap();
    let _ = proxy.wait();
    for name in ["lost", "duplicated", "reordered", "wrong"] {
        assert_eq!(figures[name], 0, "{name}: {figures}");
    }
    for name in ["closed", "reset", "half_open"] {
        assert!(counts[name].as_u64().unwrap() > 0, "{name}: {counts}");
    }
    assert!(figures["resumed"].as_u64().unwrap() > 0, "{figures}");
}

#[test]
fn load_without_a_route_fails_with_the_reason() {
    let Some(gateway) = Gateway::start() else { return };
    let error = failure(&format!("requests --command 0x7777 --connections 3 --target {}", gateway.clients));
    let expected = "of 3 connections are served: a request was answered UNIMPLEMENTED, NO_ROUTE";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn load_without_a_link_says_what_it_waits_for_and_fails() {
    let Some(gateway) = Gateway::start() else { return };
    let service = loopback::nobody();
    for mode in ["push", "push --to group", "resume", "storm --steady 2"] {
        let load = format!("--connections 4 --ramp-timeout 2s --service-listen {service}");
        let error = failure(&format!("{mode} {load} --target {}", gateway.clients));
        let what = format!("the service `bench` at {service}");
        assert!(error.contains(&format!("waiting for a gateway to link to {what}")), "{mode}: {error}");
        assert!(error.contains(&format!("no gateway has linked to {what} within 2s")), "{mode}: {error}");
    }
}

/// The gateway's service is another process: everything is answered, and nothing has run here.
#[test]
fn resume_with_another_service_behind_the_gateway_fails() {
    let Some(gateway) = Gateway::start() else { return };
    let other = Service::named("bench")
        .handle(0x0100..=0x0100, |_, responder| {
            responder.reply(Reply::ok(b"").with(Directive::join("group")))
        })
        .handle(0x0102..=0x0102, |call, responder| responder.reply(Reply::ok(call.payload())))
        .listen(gateway.bench.parse().unwrap())
        .unwrap()
        .spawn()
        .unwrap();
    let service = loopback::nobody();
    let load =
        format!("--connections 4 --cuts 1 --duration 500ms --ramp-timeout 2s --service-listen {service}");
    let error = failure(&format!("resume {load} --target {}", gateway.clients));
    assert!(error.contains("no gateway has linked"), "{error}");
    other.stop();
    other.join();
}

#[test]
fn load_at_the_address_of_the_operator_is_told_so() {
    let Some(gateway) = Gateway::start() else { return };
    for mode in ["requests", "idle", "connect", "login", "push", "resume", "storm --steady 2"] {
        let service = match mode {
            "push" | "resume" | "storm --steady 2" => format!(" --service-listen {}", gateway.bench),
            _ => String::new(),
        };
        let load = format!("--connections 2 --ramp-timeout 2s{service}");
        let error = failure(&format!("{mode} {load} --target {}", gateway.operator));
        assert!(
            error.contains("what answers there speaks HTTP, not the gateway's protocol"),
            "{mode}: {error}"
        );
    }
}

#[test]
fn silent_server_is_told_while_it_is_waited_for() {
    // It accepts, and answers nothing.
    let server = TcpListener::bind(loopback::own_address()).unwrap();
    let target = server.local_addr().unwrap();
    for mode in ["requests", "idle"] {
        let error = failure(&format!("{mode} --connections 2 --ramp-timeout 2s --target {target}"));
        let waits = "waiting for all connections to be served: 0 of 2 connections are served";
        assert!(error.contains(waits), "{mode}: {error}");
        assert!(error.contains("0 of 2 connections are served within 2s"), "{mode}: {error}");
    }
}

//! Every mode of the tester against `moorgate serve --dev`, which is the program beside the tester's own.

#![expect(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const TESTER: &str = env!("CARGO_BIN_EXE_moorgate-bench");

/// A development gateway that ends with the test.
struct Gateway {
    child: Child,
    clients: String,
    bench: String,
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
        std::thread::spawn(move || lines.for_each(drop));
        Some(Gateway { child, clients, bench })
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

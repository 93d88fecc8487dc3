//! The tester against a real gateway, which is the program beside the tester's own: connections are cut, and every session
//! is had back; where sessions end with their connections, the tester says so.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../../../tests/loopback/mod.rs"]
mod loopback;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

const TESTER: &str = env!("CARGO_BIN_EXE_moorgate-bench");

/// The gateway's program: of the same build as the tester. `None`: nobody has built it.
fn gateway_program() -> Option<PathBuf> {
    let path = Path::new(TESTER).with_file_name("moorgate");
    let is_there = path.exists();
    if !is_there {
        eprintln!(
            "!! LEFT OUT: there is no {}; build it with `cargo build --bin moorgate` and the same profile !!",
            path.display()
        );
    }
    is_there.then_some(path)
}

/// A gateway that ends with the test, with a folder for its configuration.
struct Gateway {
    child: Child,
    folder: PathBuf,
    targets: String,
    service: SocketAddr,
}

impl Gateway {
    /// With the configuration that comes with the tester, and this change to it; `None`: there is no program.
    fn start(name: &str, change: (&str, &str)) -> Option<Gateway> {
        let program = gateway_program()?;
        let kept = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = std::env::temp_dir().join(format!("moorgate-bench-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        for secret in ["access.secret", "link.secret"] {
            std::fs::copy(kept.join(secret), folder.join(secret)).unwrap();
        }
        let service = loopback::nobody();
        let text = std::fs::read_to_string(kept.join("resume.toml")).unwrap();
        assert!(text.contains(change.0), "{}", change.0);
        let text = text.replace(":7000\"", ":0\"").replace(":7001\"", ":0\"");
        let text = text.replace("127.0.0.1:7003", &service.to_string()).replace(change.0, change.1);
        let config = folder.join("resume.toml");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        let mut child = command.arg("serve").arg("-c").arg(&config).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let gateway = Gateway { child, folder, targets: targets(said), service };
        Some(gateway)
    }

    /// Runs the tester to its end: whether it was good, and its figures.
    fn run(&self, words: &str) -> (bool, Value) {
        let mut command = Command::new(TESTER);
        command.args(words.split(' ')).args(["--json", "--target", &self.targets]);
        command.args(["--service-listen", &self.service.to_string()]);
        command.arg("--watch-pid").arg(self.child.id().to_string());
        for (option, file) in [("--key-file", "link.secret"), ("--token-secret-file", "access.secret")] {
            command.arg(option).arg(self.folder.join(file));
        }
        let output = command.stderr(Stdio::inherit()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), serde_json::from_str(&text).unwrap_or_default())
    }
}

/// Where clients connect, as the gateway says before it names the operator's pages; what it says is shown.
fn targets(said: BufReader<ChildStderr>) -> String {
    let mut lines = said.lines().map(Result::unwrap).inspect(|line| eprintln!("{line}"));
    let mut targets = Vec::new();
    for line in &mut lines {
        if line.contains("operator's pages on") {
            break;
        }
        targets.extend(line.split_once("clients connect to ").map(|(_, address)| address.to_owned()));
    }
    assert!(!targets.is_empty(), "the gateway does not listen");
    std::thread::spawn(move || lines.for_each(drop));
    targets.join(",")
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn count(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("{name}: {figures}"))
}

const SAME: (&str, &str) = ("detached_ttl", "detached_ttl");
const FAULTS: [&str; 5] = ["lost", "duplicated", "reordered", "gaps", "wrong"];

#[test]
fn nothing_is_lost_doubled_or_overtaken_when_connections_are_cut() {
    // With two shards, half of those who come back are first with the one that has not their session.
    let Some(gateway) = Gateway::start("resume", ("shards = 1", "shards = 2")) else { return };
    let (is_good, figures) = gateway.run(
        "resume --connections 50 --cuts 3 --duration 2s --rate 10/s --pushes-per-s 60/s --threads 2 --delay 100ms",
    );
    assert!(is_good && FAULTS.iter().all(|name| figures[*name] == 0), "{figures}");
    // On a busy machine some are not back when they are to be cut again.
    assert!((100..=150).contains(&count(&figures, "cuts")), "{figures}");
    assert_eq!(figures["fresh"], serde_json::json!({}), "{figures}");
    let (resumes, resumed) = (count(&figures, "resumes"), count(&figures, "resumed"));
    assert!(resumed > 50 && resumed <= resumes, "{figures}");
    for name in ["requests", "pushes", "deliveries", "cuts_reset", "cuts_half_open"] {
        assert!(count(&figures, name) > 0, "{name}: {figures}");
    }
    assert!(figures["resume_ms"]["p99"].as_f64().unwrap() > 0.0, "{figures}");
}

#[test]
fn sessions_that_are_gone_and_pushes_that_were_given_up_are_found() {
    let words = "resume --connections 50 --cuts 3 --duration 1s --rate 10/s --pushes-per-s 300/s";
    let Some(gateway) = Gateway::start("forgetful", ("\"120s\"", "\"0s\"")) else { return };
    let (is_good, figures) = gateway.run(words);
    assert!(!is_good && count(&figures, "lost") > 0, "{figures}");
    assert_eq!(count(&figures, "resumed"), 0, "{figures}");
    assert!(figures["fresh"]["NONE"].as_u64().unwrap() > 0, "{figures}");
    let Some(gateway) = Gateway::start("narrow", ("\npushes = 1024", "\npushes = 1")) else { return };
    let (is_good, figures) = gateway.run(words);
    assert!(!is_good && count(&figures, "gaps") > 0, "{figures}");
    assert!(count(&figures, "lost") >= count(&figures, "gaps"), "{figures}");
}

#[test]
fn all_come_back_from_a_storm() {
    let Some(gateway) = Gateway::start("storm", SAME) else { return };
    for (words, resumed) in [("", 50), (" --fresh", 0)] {
        let words = format!("storm --connections 50 --steady 5 --duration 1s{words}");
        let (is_good, figures) = gateway.run(&words);
        assert!(is_good, "{figures}");
        assert_eq!((count(&figures, "back"), count(&figures, "resumed")), (50, resumed), "{figures}");
        assert!(count(&figures["steady"], "requests") > 0, "{figures}");
        // So few are back before another request of the steady ones is due, at times.
        let steady = |name: &str| figures["steady"].pointer(name).and_then(Value::as_f64).unwrap();
        assert!(steady("/before_ms/p99") > 0.0, "{figures}");
        assert_eq!(steady("/p99_ratio") > 0.0, steady("/during_ms/p99") > 0.0, "{figures}");
    }
}

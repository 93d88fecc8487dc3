//! A whole gateway beside a real Consul: it finds its service there, lists itself, and leaves first.

use crate::bench::{PATIENCE, eventually};
use crate::programs::{Consul, Folder};
use moorgate::config::{self, Settings};
use moorgate::gateway::Gateway;
use moorgate_client::{Connection, Options, RequestOptions};
use moorgate_service::{Reply, Service};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ID: &str = "moorgate-gate-1-192.0.2.9-7000";

fn settings(consul: &Consul, more: &str) -> Settings {
    config::parse("gate.toml", &text(consul, more), Path::new(""), &|_| None).unwrap()
}

fn text(consul: &Consul, more: &str) -> String {
    format!(
        r#"[gateway]
id = "gate-1"
shards = 1
[[listener]]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[[service]]
name = "echo"
without_proofs = true
[service.consul]
[[route]]
commands = "0x0001-0x00ff"
service = "echo"
anonymous = true
[discovery]
state_file = "off"
[consul]
address = "{}"
[register]
address = "192.0.2.9:7000"
tags = ["edge"]
metadata = {{ zone = "eu-1" }}
consul = true
{more}
"#,
        consul.address
    )
}

/// A gateway in a process of its own.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("sh").args(["-c", "kill -$0 $1", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the agent says of the gateway; `None`: it is not listed.
fn listed(consul: &Consul) -> Option<serde_json::Value> {
    let services: serde_json::Value = serde_json::from_str(&asked(consul, "/v1/agent/services")).unwrap();
    services.get(ID).cloned()
}

fn asked(consul: &Consul, path: &str) -> String {
    let mut answer = ureq::get(format!("{}{path}", consul.address)).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

fn is_passing(consul: &Consul) -> bool {
    let checks: serde_json::Value =
        serde_json::from_str(&asked(consul, "/v1/health/checks/moorgate")).unwrap();
    checks.as_array().unwrap().iter().all(|check| check["Status"] == "passing")
}

#[test]
fn a_gateway_lists_itself_when_it_is_ready_and_leaves_before_it_drains() {
    let Some(mut consul) = Consul::start() else { return };
    let gateway = Gateway::start(settings(&consul, "")).unwrap();
    eventually("it knows that it knows nobody", || {
        gateway.metrics().contains("moorgate_source_up{service=\"echo\",source=\"consul\"} 1\n")
    });
    assert_eq!(gateway.readiness(), Err("service echo has no endpoints".to_owned()));
    assert_eq!(listed(&consul), None, "nobody is to be sent to a gateway without services");

    let service = Service::named("echo").handle(0..=u32::MAX, |call, responder| {
        responder.reply(Reply::ok(call.payload()));
    });
    let service = service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    consul.register("echo", service.address(), "");
    eventually("it is ready", || gateway.readiness().is_ok());
    let mut client = Connection::connect(gateway.client_addresses()[0], Options::default(), "").unwrap();
    let answer = client.request(1, b"hello", PATIENCE).unwrap();
    assert_eq!(answer.payload, b"hello");
    eventually("it is listed", || listed(&consul).is_some() && is_passing(&consul));
    let itself = listed(&consul).unwrap();
    assert_eq!((&itself["Service"], &itself["Address"]), (&"moorgate".into(), &"192.0.2.9".into()));
    assert_eq!((&itself["Port"], &itself["Tags"][0]), (&7000.into(), &"edge".into()));
    let meta = &itself["Meta"];
    assert_eq!((&meta["zone"], &meta["gateway"]), (&"eu-1".into(), &"gate-1".into()));
    assert_eq!(meta["version"], env!("CARGO_PKG_VERSION"));

    // An agent that has forgotten everything: the service is held, and the gateway lists itself again.
    consul.kill();
    consul.start_again();
    eventually("it is listed again", || listed(&consul).is_some());
    assert_eq!(client.request(1, b"again", PATIENCE).unwrap().payload, b"again");

    gateway.drain();
    assert_eq!(listed(&consul), None, "the drain begins with it");
    client.bye().unwrap();
    assert!(gateway.join().is_clean);
    service.stop();
    service.join();
}

#[test]
fn consul_may_ask_the_gateway_itself() {
    let Some(consul) = Consul::start() else { return };
    let service = Service::named("echo").listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    consul.register("echo", service.address(), "");
    let gateway = Gateway::start(settings(&consul, "check = \"http\"\nttl = \"3s\"")).unwrap();
    eventually("Consul has asked, and it was ready", || listed(&consul).is_some() && is_passing(&consul));
    gateway.stop();
    gateway.join();
    assert_eq!(listed(&consul), None, "an end without a drain leaves too");
    service.stop();
    service.join();
}

#[test]
fn registration_is_renewed_after_a_pause() {
    let Some(consul) = Consul::start() else { return };
    let service = Service::named("echo").listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    consul.register("echo", service.address(), "");
    let folder = Folder::new();
    let file = folder.file("gate.toml", &text(&consul, "ttl = \"3s\""));
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate"));
    command.args(["serve", "-c"]).arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process(command.spawn().unwrap());
    eventually("it is listed", || listed(&consul).is_some() && is_passing(&consul));
    process.signal("STOP");
    eventually("its check has failed", || !is_passing(&consul));
    process.signal("CONT");
    eventually("it passes again", || listed(&consul).is_some() && is_passing(&consul));
    drop(process);
    service.stop();
    service.join();
}

#[test]
fn a_registry_that_is_down_keeps_nobody_from_starting_or_ending() {
    let Some(mut consul) = Consul::start() else { return };
    consul.kill();
    let gateway = Gateway::start(settings(&consul, "")).unwrap();
    eventually("its source is down", || {
        gateway.metrics().contains("moorgate_source_up{service=\"echo\",source=\"consul\"} 0\n")
    });
    let mut client = Connection::connect(gateway.client_addresses()[0], Options::default(), "").unwrap();
    // It waits for a first answer of the registry and a first link, for as long as it may.
    let options = RequestOptions { timeout: Duration::from_millis(10), ..RequestOptions::command(1) };
    let id = client.start(&options, b"hello").unwrap();
    let answer = client.answer(id, PATIENCE).unwrap();
    assert_eq!(answer.reason.as_str_name(), "REASON_TIMEOUT");
    client.bye().unwrap();
    gateway.drain();
    assert!(gateway.join().is_clean);
}

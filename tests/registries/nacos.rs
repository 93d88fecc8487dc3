//! A whole gateway beside a real server of Nacos' interface: it finds its service there, lists itself, and leaves first.

use crate::asked::rnacos::Rnacos;
use crate::bench::{PATIENCE, eventually};
use moorgate::config;
use moorgate::gateway::Gateway;
use moorgate_client::{Connection, Options};
use moorgate_registry::{
    Listed, NacosQuery, NacosWatch, Registrar, Registration, RegistryError, Stop, Target, Watch,
};
use moorgate_service::{Reply, Service};
use std::path::Path;

fn listed(rnacos: &Rnacos, name: &str) -> Result<Vec<Listed>, RegistryError> {
    let query = NacosQuery { name: name.to_owned(), ..NacosQuery::default() };
    NacosWatch::new(&rnacos.settings, query).next(&Stop::new()).unwrap().map(|listing| listing.instances)
}

#[test]
fn a_gateway_finds_its_service_and_is_found() {
    let Some(rnacos) = Rnacos::start(&[]) else { return };
    let text = format!(
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
[service.nacos]
[[route]]
commands = "0x0001-0x00ff"
service = "echo"
anonymous = true
[discovery]
state_file = "off"
[nacos]
servers = ["{}"]
[register]
address = "192.0.2.9:7000"
tags = ["edge"]
nacos = true
"#,
        rnacos.settings.servers[0]
    );
    let gateway =
        Gateway::start(config::parse("gate.toml", &text, Path::new(""), &|_| None).unwrap()).unwrap();
    let service = Service::named("echo").handle(0..=u32::MAX, |call, responder| {
        responder.reply(Reply::ok(call.payload()));
    });
    let service = service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    let [group, namespace, cluster] = ["", "", ""].map(str::to_owned);
    let target = Target::Nacos { settings: rnacos.settings.clone(), group, namespace, cluster };
    let registrar = Registrar::start(target, Registration::new("echo", service.address())).unwrap();
    eventually("it is ready", || gateway.readiness().is_ok());
    let mut client = Connection::connect(gateway.client_addresses()[0], Options::default(), "").unwrap();
    assert_eq!(client.request(1, b"hello", PATIENCE).unwrap().payload, b"hello");
    eventually("it is listed", || listed(&rnacos, "moorgate").is_ok_and(|list| !list.is_empty()));
    let itself = listed(&rnacos, "moorgate").unwrap().remove(0);
    assert_eq!(
        (itself.address.to_string(), itself.tags),
        ("192.0.2.9:7000".to_owned(), vec!["edge".to_owned()])
    );

    // The registry has nobody left; the service answers, and stays.
    assert!(registrar.deregister(PATIENCE));
    eventually("it is held", || {
        gateway.metrics().contains("moorgate_source_held_endpoints{service=\"echo\",source=\"nacos\"} 1\n")
    });
    assert_eq!(client.request(1, b"still", PATIENCE).unwrap().payload, b"still");

    gateway.drain();
    assert_eq!(listed(&rnacos, "moorgate"), Ok(Vec::new()), "the drain begins with it");
    client.bye().unwrap();
    assert!(gateway.join().is_clean);
    service.stop();
    service.join();
}

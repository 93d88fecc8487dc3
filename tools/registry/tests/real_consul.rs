//! The clients against a real Consul agent, which each test starts.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod programs;

use moorgate_registry::{
    Check, ConsulQuery, ConsulSettings, ConsulWatch, Health, Listed, Registrar, Registration, RegistryError,
    Target,
};
use programs::consul::Consul;
use programs::{Folder, PATIENCE, Watcher, eventually, free_ports};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const MASTER: &str = "00000000-0000-0000-0000-00000000000a";

fn query(name: &str) -> ConsulQuery {
    ConsulQuery { name: name.to_owned(), zone_meta: "zone".to_owned(), ..ConsulQuery::default() }
}

fn watch(settings: &ConsulSettings, query: ConsulQuery) -> Watcher {
    Watcher::new(ConsulWatch::new(settings, query))
}

fn registration(name: &str, port: u16, ttl: Duration) -> Registration {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Registration {
        id: Registration::unique_id(name, address),
        name: name.to_owned(),
        address,
        weight: 300,
        tags: vec!["fast".to_owned(), "canary".to_owned()],
        metadata: [("zone".to_owned(), "eu-1".to_owned()), ("version".to_owned(), "2".to_owned())].into(),
        check: Check::Ttl(ttl),
        deregister_after: 60 * S,
    }
}

fn register(consul: &Consul, registration: &Registration) -> Registrar {
    Registrar::start(Target::Consul(consul.settings.clone()), registration.clone()).unwrap()
}

fn health_is(list: &[Listed], health: Health) -> bool {
    list.len() == 1 && list.iter().all(|listed| listed.health == health)
}

#[test]
fn an_instance_comes_and_goes() {
    let Some(consul) = Consul::start() else { return };
    let watcher = watch(&consul.settings, query("chat"));
    assert_eq!(watcher.next(), Ok(Vec::new()));
    let registration = registration("chat", 7100, 10 * S);
    let registrar = register(&consul, &registration);
    let list = watcher.list("good", |list| health_is(list, Health::Good));
    let expected = Listed {
        id: registration.id.clone(),
        address: registration.address,
        weight: 300,
        zone: "eu-1".to_owned(),
        tags: vec!["canary".to_owned(), "fast".to_owned()],
        health: Health::Good,
    };
    assert_eq!(list, [expected]);
    eventually("the registrar knows it", || registrar.is_registered() && registrar.failure().is_none());
    assert!(registrar.deregister(PATIENCE), "Consul confirms it");
    watcher.list("gone", <[Listed]>::is_empty);
    // A query is under way, and the server would hold it for a minute and longer.
    assert!(watcher.end() < 50 * S);
}

#[test]
fn one_that_says_nothing_is_doubted_and_still_listed() {
    let Some(consul) = Consul::start() else { return };
    let registrar = register(&consul, &registration("chat", 7100, S));
    let watcher = watch(&consul.settings, query("chat"));
    watcher.list("good", |list| health_is(list, Health::Good));
    // As in a crash: no farewell, and no more beats.
    drop(registrar);
    let list = watcher.list("doubted", |list| health_is(list, Health::Doubted));
    assert_eq!(list.first().unwrap().weight, 300);
}

#[test]
fn beats_keep_it_alive() {
    let Some(consul) = Consul::start() else { return };
    let _registrar = register(&consul, &registration("chat", 7100, 5 * S));
    // An answer in a second at least: together longer than the check's life.
    let watcher = Watcher::new(ConsulWatch::with_wait(&consul.settings, query("chat"), S));
    watcher.list("good", |list| health_is(list, Health::Good));
    for _ in 0..8 {
        let list = watcher.next().unwrap();
        assert!(health_is(&list, Health::Good), "it does not flap: {list:?}");
    }
}

#[test]
fn maintenance_means_leaving() {
    let Some(consul) = Consul::start() else { return };
    let registration = registration("chat", 7100, 10 * S);
    let _registrar = register(&consul, &registration);
    let watcher = watch(&consul.settings, query("chat"));
    watcher.list("good", |list| health_is(list, Health::Good));
    for of in [format!("service/maintenance/{}", registration.id), "maintenance".to_owned()] {
        consul.put(&format!("/v1/agent/{of}?enable=true&reason=test"), "");
        watcher.list("leaving", |list| health_is(list, Health::Leaving));
        consul.put(&format!("/v1/agent/{of}?enable=false"), "");
        watcher.list("good again", |list| health_is(list, Health::Good));
    }
}

#[test]
fn an_agent_that_has_lost_its_state_is_told_again() {
    let Some(mut consul) = Consul::start() else { return };
    // Its index is far ahead of that of a new one.
    for number in 0..20 {
        consul.put("/v1/kv/x", &number.to_string());
    }
    let registrar = register(&consul, &registration("chat", 7100, S));
    let watcher = watch(&consul.settings, query("chat"));
    watcher.list("good", |list| health_is(list, Health::Good));
    consul.program.kill();
    watcher.until("an error", |told| matches!(told, Err(RegistryError::Unreachable { .. })));
    eventually("the registrar has noticed", || registrar.failure().is_some());
    assert!(!registrar.is_registered());
    consul.program.start_again();
    watcher.list("good again", |list| health_is(list, Health::Good));
    eventually("the registrar says so", || registrar.is_registered() && registrar.failure().is_none());
}

#[test]
fn an_agent_that_has_forgotten_one_instance_is_told_again() {
    let Some(consul) = Consul::start() else { return };
    let registration = registration("chat", 7100, S);
    let registrar = register(&consul, &registration);
    eventually("it is registered", || registrar.is_registered());
    assert!(consul.knows(&registration.id));
    consul.put(&format!("/v1/agent/service/deregister/{}", registration.id), "");
    eventually("it is registered again", || consul.knows(&registration.id));
}

#[test]
fn tags_and_filters_choose() {
    let Some(consul) = Consul::start() else { return };
    let canary = registration("chat", 7101, 10 * S);
    let tags = vec!["it's \"quoted\"".to_owned()];
    let metadata = [("version".to_owned(), "1".to_owned())].into();
    let other = Registration { tags: tags.clone(), metadata, ..registration("chat", 7102, 10 * S) };
    let _registrars = [register(&consul, &canary), register(&consul, &other)];
    watch(&consul.settings, query("chat")).list("both", |list| list.len() == 2);
    let canaries = ["canary".to_owned(), "fast".to_owned()].into();
    let newer = r#"Service.Meta.version == "2" or Service.Meta.version == "3""#.to_owned();
    let chosen = [
        (ConsulQuery { tags: canaries, ..query("chat") }, &canary),
        (ConsulQuery { tags, ..query("chat") }, &other),
        (ConsulQuery { filter: newer.clone(), tags: vec!["fast".to_owned()], ..query("chat") }, &canary),
    ];
    for (query, expected) in chosen {
        let list = watch(&consul.settings, query.clone()).next().unwrap();
        assert_eq!(
            list.iter().map(|listed| listed.address).collect::<Vec<_>>(),
            [expected.address],
            "{query:?}"
        );
    }
    let nobody = ConsulQuery { filter: newer, tags: vec!["slow".to_owned()], ..query("chat") };
    assert_eq!(watch(&consul.settings, nobody).next(), Ok(Vec::new()));
    let broken = ConsulQuery { filter: "junk(".to_owned(), ..query("chat") };
    let error = watch(&consul.settings, broken).next().unwrap_err();
    assert!(
        matches!(&error, RegistryError::Refused { .. }) && error.to_string().contains("expression"),
        "{error}"
    );
    let elsewhere = ConsulQuery { datacenter: "dc9".to_owned(), ..query("chat") };
    let error = watch(&consul.settings, elsewhere).next().unwrap_err();
    assert!(error.to_string().contains("datacenter"), "{error}");
}

#[test]
fn a_denial_is_no_empty_list() {
    let hcl = format!(
        "acl {{ enabled = true default_policy = \"deny\" tokens {{ master = \"{MASTER}\" agent = \"{MASTER}\" }} }}"
    );
    let Some(consul) = Consul::with(&hcl, Some(MASTER)) else { return };
    let nobody = ConsulSettings { token: None, ..consul.settings.clone() };
    // The master token comes into force a little after the leader does.
    let watcher = watch(&consul.settings, query("chat"));
    watcher.list("allowed", <[Listed]>::is_empty);
    let registrar = register(&consul, &registration("chat", 7100, 10 * S));
    watcher.list("good", |list| health_is(list, Health::Good));
    for token in [None, Some("no such token".to_owned())] {
        let error = watch(&ConsulSettings { token, ..nobody.clone() }, query("chat")).next().unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    }
    let denied = Registrar::start(Target::Consul(nobody), registration("chat", 7101, 10 * S)).unwrap();
    eventually("it is denied", || matches!(denied.failure(), Some(RegistryError::Denied { .. })));
    assert!(registrar.deregister(PATIENCE));
}

#[test]
fn an_agent_may_ask_the_instance_itself() {
    let Some(consul) = Consul::start() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/livez", listener.local_addr().unwrap());
    let check = Check::Http { url, interval: S };
    let registrar = register(&consul, &Registration { check, ..registration("chat", 7100, S) });
    let watcher = watch(&consul.settings, query("chat"));
    watcher.list("good", |list| health_is(list, Health::Good));
    let mut asked = listener.accept().unwrap().0;
    let mut request = [0; 512];
    let count = asked.read(&mut request).unwrap();
    assert!(String::from_utf8_lossy(&request[..count]).starts_with("GET /livez "));
    asked.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").unwrap();
    watcher.list("doubted", |list| health_is(list, Health::Doubted));
    assert!(registrar.deregister(PATIENCE));
}

#[test]
fn tls_trusts_the_houses_own_certificates_only() {
    let house = authority();
    let certificate = signed(&house);
    let folder = Folder::new();
    let ca_file = folder.file("ca.pem", &house.0.pem());
    let [https] = free_ports();
    let hcl = format!(
        "ports {{ https = {https} }}\naddresses {{ https = \"127.0.0.1\" }}\ncert_file = {:?}\nkey_file = {:?}\n",
        folder.file("cert.pem", &certificate.0),
        folder.file("key.pem", &certificate.1)
    );
    let Some(consul) = Consul::with(&hcl, None) else { return };
    let _registrar = register(&consul, &registration("chat", 7100, 10 * S));
    let address = format!("https://127.0.0.1:{https}");
    let settings = ConsulSettings { address, ca_file: Some(ca_file), ..ConsulSettings::default() };
    watch(&settings, query("chat")).list("good", |list| health_is(list, Health::Good));
    let stranger = folder.file("stranger.pem", &authority().0.pem());
    let error = watch(&ConsulSettings { ca_file: Some(stranger), ..settings.clone() }, query("chat")).next();
    assert!(matches!(&error, Err(RegistryError::Unreachable { .. })), "{error:?}");
    let error = watch(&ConsulSettings { ca_file: None, ..settings }, query("chat")).next();
    assert!(matches!(&error, Err(RegistryError::Settings { what }) if what.contains("ca_file")), "{error:?}");
}

fn authority() -> (rcgen::Certificate, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    (parameters.self_signed(&key).unwrap(), rcgen::Issuer::new(parameters, key))
}

/// A certificate for this machine, and its key.
fn signed(authority: &(rcgen::Certificate, rcgen::Issuer<'static, rcgen::KeyPair>)) -> (String, String) {
    let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    (parameters.signed_by(&key, &authority.1).unwrap().pem(), key.serialize_pem())
}

//! The clients against a real server with the HTTP interface of Nacos (rnacos, v1), which each test starts.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod programs;

use moorgate_registry::{
    Check, Health, Listed, NacosQuery, NacosSettings, NacosWatch, Registrar, Registration, RegistryError,
    Target,
};
use programs::rnacos::Rnacos;
use programs::{PATIENCE, Watcher, eventually, free_ports};
use std::net::SocketAddr;
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
/// Less patient than Nacos is by default, but no beat comes later than after 5 s.
const HASTY: [(&str, &str); 2] =
    [("RNACOS_NAMING_HEALTH_TIMEOUT_SECOND", "10"), ("RNACOS_NAMING_INSTANCE_TIMEOUT_SECOND", "11")];

fn query(name: &str) -> NacosQuery {
    NacosQuery { name: name.to_owned(), zone_meta: "zone".to_owned(), ..NacosQuery::default() }
}

fn watch(settings: &NacosSettings, query: NacosQuery) -> Watcher {
    Watcher::new(NacosWatch::with_poll_max(settings, query, S))
}

fn registration(name: &str, port: u16) -> Registration {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Registration {
        id: Registration::unique_id(name, address),
        name: name.to_owned(),
        address,
        weight: 150,
        tags: vec!["fast".to_owned(), "canary".to_owned()],
        metadata: [("zone".to_owned(), "eu-1".to_owned())].into(),
        check: Check::Ttl(15 * S),
        deregister_after: 60 * S,
    }
}

fn register(settings: &NacosSettings, registration: Registration) -> Registrar {
    let [group, namespace, cluster] = ["", "", "c1"].map(str::to_owned);
    let target = Target::Nacos { settings: settings.clone(), group, namespace, cluster };
    Registrar::start(target, registration).unwrap()
}

fn health_is(list: &[Listed], health: Health) -> bool {
    list.len() == 1 && list.iter().all(|listed| listed.health == health)
}

#[test]
fn an_instance_comes_and_goes() {
    let Some(rnacos) = Rnacos::start(&[]) else { return };
    let watcher = watch(&rnacos.settings, query("chat"));
    assert_eq!(watcher.next(), Ok(Vec::new()));
    let registrar = register(&rnacos.settings, registration("chat", 7100));
    let list = watcher.list("good", |list| health_is(list, Health::Good));
    let expected = Listed {
        id: list[0].id.clone(),
        address: "127.0.0.1:7100".parse().unwrap(),
        weight: 150,
        zone: "eu-1".to_owned(),
        tags: vec!["canary".to_owned(), "fast".to_owned()],
        health: Health::Good,
    };
    assert_eq!(list, [expected]);
    eventually("the registrar knows it", || registrar.is_registered());
    for (clusters, count) in [(vec!["c1".to_owned()], 1), (vec!["c2".to_owned()], 0)] {
        let list = watch(&rnacos.settings, NacosQuery { clusters, ..query("chat") }).next().unwrap();
        assert_eq!(list.len(), count);
    }
    for elsewhere in [
        NacosQuery { group: "other".to_owned(), ..query("chat") },
        NacosQuery { namespace: "other".to_owned(), ..query("chat") },
    ] {
        assert_eq!(watch(&rnacos.settings, elsewhere).next(), Ok(Vec::new()));
    }
    assert!(registrar.deregister(PATIENCE), "the server confirms it");
    watcher.list("gone", <[Listed]>::is_empty);
    watcher.end();
}

#[test]
fn beats_keep_it_alive_and_silence_ends_it() {
    let Some(rnacos) = Rnacos::start(&HASTY) else { return };
    let registrar = register(&rnacos.settings, registration("chat", 7100));
    let watcher = watch(&rnacos.settings, query("chat"));
    watcher.list("good", |list| health_is(list, Health::Good));
    // About one a second: longer than it would live without a beat.
    for _ in 0..13 {
        let list = watcher.next().unwrap();
        assert!(health_is(&list, Health::Good), "it does not flap: {list:?}");
        assert_eq!(list.first().unwrap().weight, 150, "a beat leaves it as it is");
    }
    drop(registrar);
    // This server takes it out without having called it unhealthy first.
    watcher.list("not good", |list| list.iter().all(|listed| listed.health == Health::Doubted));
}

#[test]
fn a_server_that_has_lost_its_state_is_told_again() {
    let Some(mut rnacos) = Rnacos::start(&[]) else { return };
    let registrar = register(&rnacos.settings, registration("chat", 7100));
    let watcher = watch(&rnacos.settings, query("chat"));
    let before = watcher.list("good", |list| health_is(list, Health::Good));
    rnacos.program.kill();
    watcher.until("an error", |told| matches!(told, Err(RegistryError::Unreachable { .. })));
    eventually("the registrar has noticed", || registrar.failure().is_some());
    rnacos.program.start_again();
    // As it was, with weight and tags.
    watcher.list("as before", |list| list == before);
    eventually("the registrar says so", || registrar.is_registered());
}

#[test]
fn a_user_logs_in() {
    let user = [
        ("RNACOS_ENABLE_OPEN_API_AUTH", "true"),
        ("RNACOS_INIT_ADMIN_USERNAME", "admin"),
        ("RNACOS_INIT_ADMIN_PASSWORD", "admin"),
    ];
    let Some(rnacos) = Rnacos::start(&user) else { return };
    let logs_in = NacosSettings {
        username: "admin".to_owned(),
        password: Some("admin".to_owned()),
        ..rnacos.settings.clone()
    };
    let _registrar = register(&logs_in, registration("chat", 7100));
    watch(&logs_in, query("chat")).list("good", |list| health_is(list, Health::Good));
    let wrong = NacosSettings { password: Some("wrong".to_owned()), ..logs_in };
    for settings in [wrong, rnacos.settings.clone()] {
        let told = watch(&settings, query("chat")).next();
        assert!(matches!(&told, Err(RegistryError::Denied { .. })), "{told:?}");
    }
}

#[test]
fn another_server_answers_for_one_that_is_down() {
    let Some(rnacos) = Rnacos::start(&[]) else { return };
    let [nobody] = free_ports();
    let mut settings = rnacos.settings.clone();
    settings.servers.push(format!("http://127.0.0.1:{nobody}"));
    // The order is drawn: of eight watches, some begin with the one that is down.
    for _ in 0..8 {
        assert_eq!(watch(&settings, query("chat")).next(), Ok(Vec::new()));
    }
}

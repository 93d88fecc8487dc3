//! The Nacos clients against a double, for what no server at hand has.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod double;
mod programs;

use double::{Double, State};
use moorgate_registry::{
    Health, Listed, NacosQuery, NacosSettings, NacosWatch, Registrar, Registration, RegistryError, Target,
};
use programs::{PATIENCE, Watcher, eventually};
use std::time::Duration;

const HOST: &str = r#"{"ip": "10.0.0.1", "port": 80, "weight": 1.0, "healthy": false, "enabled": true}"#;
const LIST_V3: &str = "GET /nacos/v3/client/ns/instance/list";
const LIST_V1: &str = "GET /nacos/v1/ns/instance/list";
const LOGIN_V3: &str = "POST /nacos/v3/auth/user/login";

fn with_host(state: State) -> State {
    State { instances: [("10.0.0.1:80".to_owned(), HOST.to_owned())].into(), cache_millis: 10, ..state }
}

fn watch(settings: &NacosSettings) -> Watcher {
    let query = NacosQuery { name: "chat".to_owned(), ..NacosQuery::default() };
    Watcher::new(NacosWatch::with_poll_max(settings, query, Duration::from_secs(1)))
}

fn register(double: &Double, port: u16) -> Registrar {
    let target = Target::Nacos {
        settings: double.settings.clone(),
        group: String::new(),
        namespace: String::new(),
        cluster: String::new(),
    };
    Registrar::start(target, Registration::new("chat", ([127, 0, 0, 1], port).into())).unwrap()
}

fn is_one(list: &[Listed], health: Health) -> bool {
    list.len() == 1 && list.iter().all(|listed| listed.health == health)
}

#[test]
fn v3_is_asked_first_and_v1_where_there_is_no_other() {
    for v3 in [true, false] {
        let double = Double::start(with_host(State { v3, ..State::default() }));
        let watcher = watch(&double.settings);
        for _ in 0..2 {
            assert!(is_one(&watcher.next().unwrap(), Health::Doubted));
        }
        // The probe is not repeated.
        assert_eq!(double.count(LIST_V3) == 1, !v3);
        assert_eq!(double.count(LIST_V1) >= 2, !v3);
    }
}

#[test]
fn a_server_that_was_upgraded_is_probed_again() {
    let double = Double::start(with_host(State::default()));
    let watcher = watch(&double.settings);
    watcher.next().unwrap();
    double.state().v3 = true;
    watcher.until("an error", |told| matches!(told, Err(RegistryError::Unexpected { .. })));
    watcher.list("the list by the other interface", |list| is_one(list, Health::Doubted));
}

#[test]
fn under_its_protection_threshold_all_are_good() {
    let double = Double::start(with_host(State { protects: true, ..State::default() }));
    assert!(is_one(&watch(&double.settings).next().unwrap(), Health::Good));
}

#[test]
fn an_empty_list_is_handed_on() {
    let double = Double::start(with_host(State { v3: false, ..State::default() }));
    let watcher = watch(&double.settings);
    watcher.list("one", |list| list.len() == 1);
    // As after a restart.
    double.state().instances.clear();
    watcher.list("none", <[Listed]>::is_empty);
}

fn with_password(double: &Double, password: &str) -> NacosSettings {
    let (username, password) = ("nacos".to_owned(), Some(password.to_owned()));
    NacosSettings { username, password, ..double.settings.clone() }
}

#[test]
fn a_token_that_is_refused_is_replaced_once() {
    for v3 in [true, false] {
        let state = State { v3, password: Some("p&w=ü"), token_ttl: 18_000, ..State::default() };
        let double = Double::start(with_host(state));
        let watcher = watch(&with_password(&double, "p&w=ü"));
        watcher.next().unwrap();
        // The server has begun anew, and knows none of its tokens.
        double.state().tokens_from = 2;
        // What the watch has told before waits in front.
        let told = watcher.until("an answer with a new token", |_| double.state().tokens == 2);
        assert!(told.iter().all(Result::is_ok), "nothing of it is noticed: {told:?}");
        // Not one that it gives is taken: no endless round.
        double.state().tokens_from = u32::MAX;
        watcher.until("a denial", |told| matches!(told, Err(RegistryError::Denied { .. })));
    }
}

#[test]
fn the_token_is_in_no_address_unless_the_server_wants_it_there() {
    for knows_no_headers in [false, true] {
        let state =
            State { v3: true, password: Some("pw"), token_ttl: 18_000, knows_no_headers, ..State::default() };
        let double = Double::start(with_host(state));
        let watcher = watch(&with_password(&double, "pw"));
        (0..2).for_each(|_| assert!(watcher.next().is_ok()));
        assert_eq!(double.state().tokens_in_query > 0, knows_no_headers);
    }
}

#[test]
fn a_token_is_replaced_before_it_ends() {
    let state = State { v3: true, password: Some("pw"), token_ttl: 1, ..State::default() };
    let double = Double::start(with_host(state));
    let watcher = watch(&with_password(&double, "pw"));
    eventually("it logs in again and again", || double.count(LOGIN_V3) >= 3);
    watcher.list("still a list", |list| list.len() == 1);
    assert!(double.count("POST /nacos/v1/auth/login") == 0);
}

#[test]
fn a_wrong_password_is_a_denial() {
    let double = Double::start(State { v3: true, password: Some("pw"), ..State::default() });
    let told = watch(&with_password(&double, "wrong")).next();
    assert!(
        matches!(&told, Err(RegistryError::Denied { words, .. }) if words.contains("unknown user")),
        "{told:?}"
    );
}

#[test]
fn an_instance_that_was_forgotten_is_registered_again() {
    for v3 in [true, false] {
        let double = Double::start(State { v3, ..State::default() });
        let registrar = register(&double, 7100);
        eventually("it is registered", || registrar.is_registered());
        let registered = std::mem::take(&mut double.state().instances);
        assert_eq!(registered.len(), 1);
        eventually("it is registered again", || double.state().instances == registered);
        assert!(registrar.deregister(PATIENCE));
        assert!(double.state().instances.is_empty());
    }
}

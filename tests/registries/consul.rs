//! Services in a real Consul.

use crate::bench::{Bench, Endpoint, addresses, eventually, in_consul};
use crate::programs::{Consul, Folder};
use moorgate::routing::Source;

#[test]
fn two_services_are_found_with_all_that_is_said_of_them() {
    let Some(consul) = Consul::start() else { return };
    let bench = Bench::start(in_consul(&consul, &["chat", "groups"]));
    let [chat, groups, doubted] = [(); 3].map(|()| Endpoint::start());
    let more = r#","Tags":["fast","canary"],"Meta":{"zone":"eu-1"},"Weights":{"Passing":7,"Warning":1}"#;
    consul.register("chat", chat.at, more);
    consul.register("groups", groups.at, "");
    let line = format!("{} weight=700 zone=eu-1 tags=canary,fast", chat.at);
    eventually("chat is there", || bench.published(0) == [line.clone()]);
    bench.until(1, "groups is there", &[groups.at]);
    // A check that nobody has passed yet is critical: it is listed, and doubted.
    consul.register("groups", doubted.at, r#","Check":{"TTL":"60s"}"#);
    bench.until(1, "the doubted one is there", &[groups.at, doubted.at]);
    let standing = bench.published(1).into_iter().find(|line| line.starts_with(&doubted.at.to_string()));
    assert!(standing.unwrap().ends_with(" Doubted"));
    assert_eq!(bench.published(0), [line]);
}

#[test]
fn an_agent_that_dies_and_comes_back_empty_empties_nothing() {
    let Some(mut consul) = Consul::start() else { return };
    let bench = Bench::start(in_consul(&consul, &["chat"]));
    let mut endpoints = [(); 3].map(|()| Endpoint::start());
    let all = addresses(&endpoints);
    all.iter().for_each(|at| consul.register("chat", *at, ""));
    bench.until_answering(0, "all are there", &all);
    consul.kill();
    eventually("the source is down", || !bench.source(0, Source::Consul).is_up);
    assert!(bench.source(0, Source::Consul).error.is_some());
    bench.until(0, "they stay", &all);

    consul.start_again();
    eventually("it says that there is nobody", || {
        let source = bench.source(0, Source::Consul);
        source.is_up && source.endpoints == 0
    });
    bench.until(0, "they answer, and stay", &all);
    eventually("they are held", || bench.source(0, Source::Consul).held == 3);
    endpoints[0].kill();
    bench.until(0, "who does not answer goes", &all[1..]);
    all[1..].iter().for_each(|at| consul.register("chat", *at, ""));
    eventually("nobody is held any more", || bench.source(0, Source::Consul).held == 0);
    bench.until(0, "they are listed again", &all[1..]);
}

#[test]
fn a_restart_with_the_registry_down_has_the_last_list() {
    let Some(mut consul) = Consul::start() else { return };
    let folder = Folder::new();
    let mut settings = in_consul(&consul, &["chat"]);
    settings.state_file = Some(folder.0.join("endpoints.json"));
    let endpoints = [(); 2].map(|()| Endpoint::start());
    let all = addresses(&endpoints);
    all.iter().for_each(|at| consul.register("chat", *at, r#","Meta":{"zone":"eu-1"}"#));
    let mut bench = Bench::start(settings.clone());
    bench.until(0, "all are there", &all);
    let published = bench.published(0);
    bench.stop();
    consul.kill();

    let bench = Bench::start(settings.clone());
    assert_eq!(bench.published(0), published, "before anybody was asked");
    eventually("the source is down", || bench.source(0, Source::Consul).error.is_some());
    bench.until_answering(0, "they stay", &all);
    consul.start_again();
    eventually("they are held", || bench.source(0, Source::Consul).held == 2);
    assert_eq!(bench.published(0), published);
    drop(bench);
    // Held ones live through another restart.
    let bench = Bench::start(settings.clone());
    assert_eq!(bench.published(0), published);
    drop(bench);
    // Somebody else's list is of no use.
    settings.services[0].consul.as_mut().unwrap().name = "other".to_owned();
    assert!(Bench::start(settings).published(0).is_empty());
}

#[test]
fn one_of_three_leaves_at_once() {
    let Some(consul) = Consul::start() else { return };
    let bench = Bench::start(in_consul(&consul, &["chat"]));
    let endpoints = [(); 3].map(|()| Endpoint::start());
    let all = addresses(&endpoints);
    all.iter().for_each(|at| consul.register("chat", *at, ""));
    bench.until_answering(0, "all are there", &all);
    bench.link(0);
    // It still listens; shrunken lists are believed after an hour here, so this is the ordinary removal.
    consul.deregister("chat", all[0]);
    bench.until(0, "it has left", &all[1..]);
    assert_eq!(bench.source(0, Source::Consul).held, 0);
}

#[test]
fn maintenance_sends_away_and_back() {
    let Some(consul) = Consul::start() else { return };
    let bench = Bench::start(in_consul(&consul, &["chat"]));
    let endpoints = [(); 3].map(|()| Endpoint::start());
    let all = addresses(&endpoints);
    all.iter().for_each(|at| consul.register("chat", *at, ""));
    bench.until_answering(0, "all are there", &all);
    bench.link(0);
    let leaving = || {
        let lines = bench.published(0);
        lines.into_iter().filter(|line| line.ends_with(" Leaving")).collect::<Vec<_>>()
    };
    consul.maintain("chat", all[1], true);
    eventually("it leaves", || leaving().iter().any(|line| line.starts_with(&all[1].to_string())));
    assert_eq!(bench.published(0).len(), 3, "it is known, so that its calls are finished");
    consul.maintain("chat", all[1], false);
    eventually("it is back", || leaving().is_empty());
}

#[test]
fn one_instance_without_a_usable_port_leaves_the_others() {
    let Some(consul) = Consul::start() else { return };
    let endpoints = [(); 2].map(|()| Endpoint::start());
    let all = addresses(&endpoints);
    all.iter().for_each(|at| consul.register("chat", *at, ""));
    // The agent accepts it.
    consul.register_raw(r#"{"ID":"bad-1","Name":"chat","Address":"127.0.0.1","Port":-1}"#);
    let bench = Bench::start(in_consul(&consul, &["chat"]));
    bench.until_answering(0, "the others are there", &all);
    let source = bench.source(0, Source::Consul);
    assert_eq!((source.is_up, source.endpoints, source.rejected), (true, 2, 1));
}

#[test]
fn an_instance_with_a_warning_has_its_weight_for_warnings() {
    let Some(consul) = Consul::start() else { return };
    let endpoint = Endpoint::start();
    let bench = Bench::start(in_consul(&consul, &["chat"]));
    let more = r#","Weights":{"Passing":3,"Warning":1},"Check":{"TTL":"600s","Status":"passing"}"#;
    consul.register("chat", endpoint.at, more);
    let is = |line: String| bench.published(0) == [line];
    eventually("it has its whole weight", || is(format!("{} weight=300", endpoint.at)));
    consul.check("chat", endpoint.at, "warn");
    eventually("it has the other weight", || is(endpoint.at.to_string()));
    consul.check("chat", endpoint.at, "fail");
    eventually("it is doubted", || is(format!("{} weight=300 Doubted", endpoint.at)));
}

#[test]
fn dead_instances_hold_no_removal_of_a_live_one() {
    let Some(consul) = Consul::start() else { return };
    let live = [(); 3].map(|()| Endpoint::start());
    let mut dead = [(); 5].map(|()| Endpoint::start());
    dead.iter_mut().for_each(Endpoint::kill);
    let (live, dead) = (addresses(&live), addresses(&dead));
    live.iter().chain(&dead).for_each(|at| consul.register("chat", *at, ""));
    let bench = Bench::start(in_consul(&consul, &["chat"]));
    bench.until(0, "all are there", &[&live[..], &dead].concat());
    eventually("the live ones answer, and the dead ones do not", || {
        let reports = bench.report(0).catalog.endpoints;
        reports.iter().all(|report| report.answers == Some(live.contains(&report.instance.address)))
    });
    // Workers have links to those that answer.
    bench.link_to(0, &live);
    // By time a shrunken list is believed after an hour here.
    consul.deregister("chat", live[0]);
    bench.until(0, "it has left", &[&live[1..], &dead].concat());
    assert_eq!(bench.source(0, Source::Consul).held, 0);
}

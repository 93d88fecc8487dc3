//! Names in real name servers: Consul's own, and dnsmasq.

use crate::bench::{Bench, Endpoint, addresses, eventually, hosts, settings, time_of};
use crate::programs::{Consul, Dnsmasq};
use moorgate::base::ids::ServiceId;
use moorgate::control::discovery::{DnsQuery, DnsSettings, ServiceSources, Settings};
use moorgate::routing::{Catalog, Source};
use moorgate_registry::{ConsulQuery, ConsulSettings};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

fn host(name: &str, port: u16) -> DnsQuery {
    DnsQuery::Host { name: name.to_owned(), port }
}

fn srv(name: &str) -> DnsQuery {
    DnsQuery::Srv { name: name.to_owned() }
}

fn in_dns(servers: &[SocketAddr], queries: &[DnsQuery]) -> Settings {
    let services = queries.iter().zip(0u16..).map(|(query, id)| ServiceSources {
        service: ServiceId(id),
        name: format!("service-{id}"),
        dns: Some(query.clone()),
        ..ServiceSources::default()
    });
    let dns = DnsSettings {
        servers: servers.to_vec(),
        timeout: Duration::from_secs(1),
        ttl_min: Duration::from_millis(200),
        ttl_max: Duration::from_secs(1),
    };
    Settings { services: services.collect(), dns, ..settings() }
}

#[test]
fn consul_is_a_name_server_too() {
    let Some(consul) = Consul::start() else { return };
    // More than Consul puts into an answer over UDP, without saying so.
    let endpoints = Endpoint::on_one_port(100);
    let all = addresses(&endpoints);
    all.iter().for_each(|at| consul.register("chat", *at, ""));
    let queries = [host("chat.service.consul", all[0].port()), srv("_chat._tcp.service.consul")];
    let bench = Bench::start(in_dns(&[consul.dns], &queries));
    bench.until_answering(0, "by its addresses", &all);
    bench.until_answering(1, "by its service records", &all);
    (0..2).for_each(|service| bench.link(service));
    consul.deregister("chat", all[3]);
    let others: Vec<SocketAddr> = all.iter().filter(|at| **at != all[3]).copied().collect();
    bench.until(0, "one has left", &others);
    bench.until(1, "one has left", &others);
    // Consul says that there is no such name, and the endpoints answer.
    others.iter().for_each(|at| consul.deregister("chat", *at));
    eventually("it is an empty list", || {
        let source = bench.source(0, Source::Dns);
        source.is_up && source.endpoints == 0 && source.held > 0
    });
    assert!(!bench.published(0).is_empty());
}

#[test]
fn names_are_looked_up_again_and_a_server_that_fails_changes_nothing() {
    let endpoints = Endpoint::on_one_port(3);
    let (all, port) = (addresses(&endpoints), endpoints[0].at.port());
    let lines = |count: usize| hosts("chat.internal", all[..count].iter().map(SocketAddr::ip));
    let Some(mut dnsmasq) = Dnsmasq::start(&lines(2), &["--local-ttl=1"]) else { return };
    // The first server says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let servers = [silent.local_addr().unwrap(), dnsmasq.address];
    let bench = Bench::start(in_dns(&servers, &[host("chat.internal", port)]));
    bench.until_answering(0, "both are there", &all[..2]);
    dnsmasq.change(&lines(3));
    bench.until_answering(0, "a third one has come", &all);
    dnsmasq.change("");
    eventually("there is no such name", || bench.source(0, Source::Dns).held == 3);
    bench.until(0, "they answer, and stay", &all);
    dnsmasq.change(&lines(3));
    eventually("the name is back", || bench.source(0, Source::Dns).held == 0);
    dnsmasq.kill();
    eventually("nobody answers", || !bench.source(0, Source::Dns).is_up);
    bench.until(0, "they stay", &all);
}

#[test]
fn an_answer_that_does_not_fit_comes_over_tcp() {
    let many: Vec<IpAddr> = (1..=250).map(|host| Ipv4Addr::new(192, 0, 2, host).into()).collect();
    let text = hosts("many.internal", many.iter().copied());
    let Some(dnsmasq) = Dnsmasq::start(&text, &["--local-ttl=60"]) else { return };
    let bench = Bench::start(in_dns(&[dnsmasq.address], &[host("many.internal", 7100)]));
    let all: Vec<SocketAddr> = many.iter().map(|ip| SocketAddr::new(*ip, 7100)).collect();
    bench.until(0, "all are there", &all);
    assert!(all.len() < Catalog::ENDPOINTS_MAX);
}

#[test]
fn service_records_go_by_priority_and_weight_and_both_families() {
    let text = "192.0.2.1 a.internal\n192.0.2.2 b.internal\n2001:db8::2 b.internal\n";
    let records = ["a.internal,7100,1,30", "b.internal,7200,1,10", "a.internal,7300,2,5"];
    let records = records.map(|record| format!("--srv-host=_chat._tcp.internal,{record}"));
    let mut options: Vec<&str> = records.iter().map(String::as_str).collect();
    options.push("--local-ttl=1");
    let Some(dnsmasq) = Dnsmasq::start(text, &options) else { return };
    let bench = Bench::start(in_dns(&[dnsmasq.address], &[srv("_chat._tcp.internal")]));
    let expected = [
        "192.0.2.1:7100 weight=30",
        "192.0.2.1:7300 weight=5 Doubted",
        "192.0.2.2:7200 weight=10",
        "[2001:db8::2]:7200 weight=10",
    ];
    eventually("all are there", || bench.published(0) == expected);
}

#[test]
fn one_srv_target_with_a_failure_leaves_the_others() {
    let text = "192.0.2.1 a.internal\n192.0.2.2 b.internal\n";
    // The server has no upstream for names outside of `internal`, and refuses them.
    let records = ["a.internal,7100,1,10", "gone.example,7100,1,10", "b.internal,7100,1,10"];
    let records = records.map(|record| format!("--srv-host=_chat._tcp.internal,{record}"));
    let mut options: Vec<&str> = records.iter().map(String::as_str).collect();
    options.push("--local-ttl=1");
    let Some(dnsmasq) = Dnsmasq::start(text, &options) else { return };
    let bench = Bench::start(in_dns(&[dnsmasq.address], &[srv("_chat._tcp.internal")]));
    let others = ["192.0.2.1:7100", "192.0.2.2:7100"];
    eventually("the others are there", || bench.published(0) == others);
    let source = bench.source(0, Source::Dns);
    assert_eq!((source.is_up, source.rejected), (true, 1));
    dnsmasq.change("192.0.2.1 a.internal\n192.0.2.3 b.internal\n");
    eventually("they are looked up again", || bench.published(0).contains(&"192.0.2.3:7100".to_owned()));
}

#[test]
fn srv_target_without_addresses_is_rejected_until_it_has_some() {
    let records = ["a.internal,7100,1,10", "gone.internal,7100,1,10"];
    let records = records.map(|record| format!("--srv-host=_chat._tcp.internal,{record}"));
    let mut options: Vec<&str> = records.iter().map(String::as_str).collect();
    options.push("--local-ttl=1");
    let Some(dnsmasq) = Dnsmasq::start("192.0.2.1 a.internal\n", &options) else { return };
    let bench = Bench::start(in_dns(&[dnsmasq.address], &[srv("_chat._tcp.internal")]));
    eventually("the other is there", || bench.published(0) == ["192.0.2.1:7100"]);
    assert_eq!(bench.source(0, Source::Dns).rejected, 1);
    dnsmasq.change("192.0.2.1 a.internal\n192.0.2.2 gone.internal\n");
    eventually("it has an address", || bench.published(0) == ["192.0.2.1:7100", "192.0.2.2:7100"]);
    assert_eq!(bench.source(0, Source::Dns).rejected, 0);
}

#[test]
fn it_ends_at_once_whatever_it_waits_for() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut settings = in_dns(&[silent.local_addr().unwrap()], &[host("chat.internal", 7100)]);
    settings.dns.timeout = Duration::from_secs(60);
    // A registry that takes a connection and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    settings.consul = Some(ConsulSettings { address, ..ConsulSettings::default() });
    settings.services[0].consul = Some(ConsulQuery { name: "chat".to_owned(), ..ConsulQuery::default() });
    let mut bench = Bench::start(settings);
    silent.set_nonblocking(true).unwrap();
    eventually("it asks", || silent.recv_from(&mut [0; 512]).is_ok());
    let _asked = listener.accept().unwrap();
    let took = time_of(|| bench.stop());
    assert!(took < Duration::from_secs(40), "{took:?}: a minute would be an end of its own");
}

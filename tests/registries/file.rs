//! Endpoints in files.

use crate::bench::{Bench, Endpoint, addresses, eventually, settings};
use crate::programs::Folder;
use moorgate::base::ids::ServiceId;
use moorgate::control::discovery::{Discovery, DiscoveryError, ServiceSources, Settings};
use moorgate::routing::{Instance, Source};
use moorgate_registry::ConsulQuery;
use std::net::SocketAddr;
use std::path::PathBuf;

fn in_file(path: PathBuf) -> Settings {
    let service = ServiceSources {
        service: ServiceId(0),
        name: "chat".to_owned(),
        file: Some(path),
        ..ServiceSources::default()
    };
    Settings { services: vec![service], ..settings() }
}

fn lines(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|at| format!("{at}\n")).collect()
}

#[test]
fn edits_are_seen_however_they_are_made() {
    let folder = Folder::new();
    let path = folder.0.join("chat.endpoints");
    let endpoints = [(); 3].map(|()| Endpoint::start());
    let all = addresses(&endpoints);
    let bench = Bench::start(in_file(path.clone()));
    eventually("it is missing", || {
        bench.source(0, Source::File).error.is_some_and(|error| error.contains("chat.endpoints"))
    });
    std::fs::write(&path, format!("# the first\n{}", lines(&all[..2]))).unwrap();
    bench.until_answering(0, "two are there", &all[..2]);
    assert_eq!(bench.source(0, Source::File).error, None);
    // Replaced, as editors and deployments do.
    let new = folder.0.join("new");
    std::fs::write(&new, lines(&all)).unwrap();
    std::fs::rename(&new, &path).unwrap();
    bench.until_answering(0, "a third one has come", &all);
    bench.link(0);
    // A line that is wrong takes nothing from the others, and is counted.
    std::fs::write(&path, format!("{}{} weight=many\n{}", lines(&all[..1]), all[1], lines(&all[2..])))
        .unwrap();
    bench.until(0, "the others are used", &[all[0], all[2]]);
    assert_eq!((bench.source(0, Source::File).rejected, bench.source(0, Source::File).is_up), (1, true));
    std::fs::write(&path, lines(&all)).unwrap();
    bench.until(0, "all are back", &all);
    bench.link(0);
    std::fs::write(&path, lines(&all[1..])).unwrap();
    bench.until(0, "one has left", &all[1..]);
    std::fs::remove_file(&path).unwrap();
    eventually("it is gone", || !bench.source(0, Source::File).is_up);
    bench.until(0, "the last good list stays", &all[1..]);
    std::fs::write(&path, "# nobody\n").unwrap();
    eventually("nobody is listed", || bench.source(0, Source::File).held == 2);
}

#[test]
fn the_configuration_and_a_file_are_one_list() {
    let folder = Folder::new();
    let path = folder.0.join("chat.endpoints");
    let endpoints = [(); 2].map(|()| Endpoint::start());
    let [fixed, other] = [endpoints[0].at, endpoints[1].at];
    std::fs::write(&path, format!("{fixed} weight=5\n{other} weight=6\n")).unwrap();
    let mut settings = in_file(path);
    settings.services[0].fixed = vec![Instance::at(fixed)];
    let bench = Bench::start(settings);
    bench.until(0, "both are there", &[fixed, other]);
    let mut expected = [fixed.to_string(), format!("{other} weight=6")];
    expected.sort_by_key(|line| line.split(' ').next().unwrap().parse::<SocketAddr>().unwrap());
    assert_eq!(bench.published(0), expected, "what the configuration says comes first");
    assert_eq!(bench.report(0).name, "chat");
}

#[test]
fn what_cannot_work_is_refused_before_anything_runs() {
    let start = |settings: Settings| {
        let clock = moorgate::base::clock::Clock::start();
        Discovery::prepare(settings, clock).err().expect("it is refused")
    };
    let service = |id: u16| ServiceSources {
        service: ServiceId(id),
        name: format!("s{id}"),
        consul: Some(ConsulQuery { name: "chat".to_owned(), ..ConsulQuery::default() }),
        ..ServiceSources::default()
    };
    let error = start(Settings { services: vec![service(0)], ..settings() });
    assert!(matches!(error, DiscoveryError::NoRegistry { .. }));
    assert!(error.to_string().contains("there is no [consul]"), "{error}");
    let many = (0..191).map(service).collect();
    let error = start(Settings { services: many, consul: Some(Default::default()), ..settings() });
    assert!(error.to_string().contains("191 services are to be found in consul, and 190 can be"), "{error}");
    let name = "a..b".to_owned();
    let dns = Some(moorgate::control::discovery::DnsQuery::Srv { name });
    let service = ServiceSources { consul: None, dns, ..service(0) };
    let error = start(Settings { services: vec![service], ..settings() });
    assert!(error.to_string().contains("service s0: `a..b` is no name for DNS"), "{error}");
}

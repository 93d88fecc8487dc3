//! What the operator sees: health, metrics, the access log.

use crate::child::{Directory, http};
use crate::link::{QUICK_LINKS, RawLink, listener};
use crate::site::{Site, command, until};
use crate::token::{token, token_with};
use crate::wire::{PATIENCE, RawClient, hello, hello_frame};
use moorgate_client::Options;
use moorgate_proto::v1::{self, Reason};
use std::collections::{HashMap, HashSet};

/// Checks Prometheus' text format, version 0.0.4, and gives the samples.
fn samples(page: &str) -> HashMap<String, f64> {
    assert!(page.ends_with('\n'));
    let mut samples = HashMap::new();
    let (mut helped, mut typed) = (HashSet::new(), HashMap::new());
    let mut current = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (metric, help) = rest.split_once(' ').expect(line);
            assert!(is_metric(metric) && !help.is_empty(), "{line}");
            assert!(helped.insert(metric), "helped twice: {line}");
            current = metric;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (metric, kind) = rest.split_once(' ').expect(line);
            assert_eq!(metric, current, "a TYPE without its HELP: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(typed.insert(metric, kind).is_none(), "typed twice: {line}");
            assert!(kind != "counter" || metric.ends_with("_total"), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect(line);
            let (name, labels) = match sample.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
                None => (sample, ""),
            };
            assert!(is_metric(name) && are_labels(labels), "{line}");
            let kind = typed.get(current).expect(line);
            let base = match *kind {
                "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)),
                _ => Some(name),
            };
            assert_eq!(base, Some(current), "it stands under another's head: {line}");
            assert!(samples.insert(sample.to_owned(), value.parse().expect(line)).is_none(), "twice: {line}");
        }
    }
    assert_eq!(helped.len(), typed.len());
    samples
}

fn is_metric(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(good) && !name.as_bytes()[0].is_ascii_digit()
}

/// `key="value"`, with commas between several, without anything to escape: all that this page needs.
fn are_labels(labels: &str) -> bool {
    let is_label = |label: &str| {
        let Some((key, value)) = label.split_once('=') else { return false };
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        is_metric(key) && quoted.is_some_and(|value| !value.contains(['"', '\\', '\n']))
    };
    labels.is_empty() || labels.split(',').all(is_label)
}

/// The buckets of a histogram rise to its count.
fn check_histogram(page: &str, metric: &str, samples: &HashMap<String, f64>) {
    let prefix = format!("{metric}_bucket{{le=\"");
    let buckets: Vec<(f64, f64)> = page
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix)?.split_once("\"} "))
        .map(|(bound, count)| (bound.parse().unwrap(), count.parse().unwrap()))
        .collect();
    assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{buckets:?}");
    let last = buckets.last().unwrap();
    assert_eq!((last.0, last.1), (f64::INFINITY, samples[&format!("{metric}_count")]));
}

#[test]
fn metrics_are_prometheus_text_and_count_what_was_done() {
    let site = Site::start("");
    let admin = site.gateway().admin_address().unwrap();
    let mut client = site.client();
    for _ in 0..3 {
        client.request(command::OPEN, b"12345", PATIENCE).unwrap();
    }
    client.request(command::NOWHERE, b"", PATIENCE).unwrap();
    client.request(command::USER, b"", PATIENCE).unwrap();
    let mut broken = site.open();
    broken.send(&[0, 0, 0, 1, 0xff]);
    broken.error();
    drop(broken);
    site.metric_becomes("moorgate_connections", 1);
    let (status, page) = http::get(admin, "/metrics");
    assert_eq!(status, 200);
    let samples = samples(&page);
    check_histogram(&page, "moorgate_request_seconds", &samples);
    let expected = [
        ("moorgate_connections_accepted_total", 2.0),
        ("moorgate_connections_closed_total", 1.0),
        ("moorgate_connections", 1.0),
        ("moorgate_sessions", 1.0),
        ("moorgate_sessions_opened_total", 2.0),
        ("moorgate_sessions_anonymous_total", 2.0),
        ("moorgate_requests_admitted_total", 5.0),
        ("moorgate_requests_forwarded_total", 3.0),
        ("moorgate_requests_outstanding", 0.0),
        ("moorgate_requests_total{status=\"OK\"}", 3.0),
        ("moorgate_requests_total{status=\"UNIMPLEMENTED\"}", 1.0),
        ("moorgate_requests_total{status=\"UNAUTHENTICATED\"}", 1.0),
        ("moorgate_request_seconds_count", 5.0),
        ("moorgate_close_reasons_total{reason=\"protocol\"}", 1.0),
        ("moorgate_service_links{service=\"echo\"}", 1.0),
        ("moorgate_calls_sent_total", 3.0),
        ("moorgate_replies_received_total", 3.0),
    ];
    for (sample, value) in expected {
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
    assert!(samples["moorgate_bytes_received_total"] > 0.0 && samples["moorgate_bytes_sent_total"] > 0.0);
    client.bye().unwrap();
    site.end();
}

#[test]
fn readyz_follows_the_links_and_livez_does_not() {
    let listener = listener();
    let site = Site::beside(&listener, QUICK_LINKS);
    let admin = site.gateway().admin_address().unwrap();
    let not_ready = (503, "not ready: service echo has no ready link\n".to_owned());
    assert_eq!(http::get(admin, "/readyz"), not_ready);
    let link = RawLink::open(&listener);
    until("it is ready", || http::get(admin, "/readyz") == (200, "ready\n".to_owned()));
    drop(link);
    until("it is not ready", || http::get(admin, "/readyz") == not_ready);
    assert_eq!(http::get(admin, "/livez"), (200, "live\n".to_owned()));
    assert_eq!(http::get(admin, "/nothing").0, 404);
    site.end();
}

#[test]
fn operations_of_web_pages_and_bad_ones_are_refused() {
    let site = Site::start("");
    let admin = site.gateway().admin_address().unwrap();
    let mut client = site.client();
    assert_eq!(http::post(admin, "/kick?user=alice", "Origin: http://localhost\r\n").0, 403);
    let (status, body) = http::post(admin, "/kick?usr=alice", "");
    assert_eq!((status, body.contains("`usr` is not known here; write user=U")), (400, true), "{body}");
    assert_eq!(http::get(admin, "/kick?user=alice").0, 405);
    client.request(command::OPEN, b"still here", PATIENCE).unwrap();
    client.bye().unwrap();
    site.end();
}

// spec
#[test]
fn the_operator_ends_sessions_and_revokes_tokens() {
    let site = Site::start("");
    let admin = site.gateway().admin_address().unwrap();
    let log_in = |user: &str, device: &str| RawClient::log_in(site.address(), token(user, &[]), device);
    let (mut phone, mut laptop, mut bob) =
        (log_in("alice", "phone"), log_in("alice", "laptop"), log_in("bob", ""));
    let mut named =
        RawClient::log_in(site.address(), token_with("carol", "jti", serde_json::json!("t-1")), "");
    let (status, body) = http::post(admin, "/kick?user=alice&message=pay%20your%20bill", "");
    assert_eq!((status, body.contains('2')), (200, true), "{body}");
    for client in [&mut phone, &mut laptop] {
        let error = client.error();
        assert_eq!((error.reason(), error.message.as_str()), (Reason::Kicked, "pay your bill"));
    }
    assert_eq!(http::post(admin, "/kick?user=nobody", "").0, 200);
    assert_eq!(http::post(admin, "/revoke?token=t-1", "").0, 200);
    assert_eq!(named.error_reason(), Reason::TokenRevoked);
    let (status, body) = http::post(admin, "/revoke?user=bob", "");
    assert_eq!((status, body.contains('1')), (200, true), "{body}");
    assert_eq!(bob.error_reason(), Reason::TokenRevoked);
    let mut again = site.connect();
    again.send(&hello_frame(&v1::Hello { access_token: token("bob", &[]), ..hello() }));
    assert_eq!(again.error_reason(), Reason::TokenRevoked);
    let mut other = site.connect();
    other.send(&hello_frame(&hello()));
    let session: String = other.welcome().session_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(http::post(admin, &format!("/kick?session={session}"), "").0, 200);
    assert_eq!(other.error_reason(), Reason::Kicked);
    site.end();
}

/// The `key=value` pairs of a line, values as they stand.
fn pairs(line: &str) -> HashMap<&str, String> {
    let mut pairs = HashMap::new();
    let mut rest = line;
    while let Some((key, after)) = rest.split_once('=') {
        let value = if let Some(quoted) = after.strip_prefix('"') {
            let escaped = |at: &usize| quoted[..*at].ends_with('\\');
            let end = quoted.match_indices('"').map(|(at, _)| at).find(|at| !escaped(at)).expect(line);
            &after[..end + 2]
        } else {
            after.split(' ').next().unwrap()
        };
        assert!(pairs.insert(key, value.to_owned()).is_none(), "twice in {line}");
        rest = after[value.len()..].strip_prefix(' ').unwrap_or_default();
    }
    pairs
}

#[test]
fn the_access_log_has_one_line_per_request_and_nobody_else_writes_lines() {
    let directory = Directory::new();
    let path = directory.path().join("access.log");
    let site = Site::start(&format!("[log]\naccess = \"{}\"\n", path.display()));
    let evil = "eve\" status=OK\nuser=root \u{1b}[31m\u{2028}";
    let hello = v1::Hello {
        access_token: token(evil, &[]),
        application: "a\nuser=root".to_owned(),
        device_id: "d\nuser=root".to_owned(),
        ..hello()
    };
    let mut eve = site.connect();
    eve.send(&hello_frame(&hello));
    let session: String = eve.welcome().session_id.iter().map(|byte| format!("{byte:02x}")).collect();
    eve.ask(1, command::USER, b"12345");
    eve.ask(2, command::NOWHERE, b"678");
    eve.send(&crate::wire::cancel(3));
    eve.response();
    let mut anonymous = site.client_with(Options::default(), "");
    anonymous.request(command::USER, b"", PATIENCE).unwrap();
    anonymous.bye().unwrap();
    drop(eve);
    let endpoint = {
        site.is_empty_again();
        site.end();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text}");
        let lines: Vec<HashMap<&str, String>> = text.lines().map(pairs).collect();
        let of = |at: usize, key: &str| lines[at].get(key).map(String::as_str).unwrap_or_default();
        for at in 0..3 {
            assert_eq!((of(at, "session"), of(at, "seq")), (session.as_str(), (at + 1).to_string().as_str()));
            assert_eq!(of(at, "user"), "\"eve\\\" status=OK\\nuser=root \\u{1b}[31m\\u{2028}\"");
            assert_eq!(of(at, "peer"), "127.0.0.1");
        }
        assert_eq!((of(0, "command"), of(0, "service"), of(0, "status")), ("0x0100", "echo", "OK"));
        assert_eq!((of(0, "execution"), of(0, "bytes_in"), of(0, "bytes_out")), ("executed", "5", "5"));
        assert_eq!((of(1, "status"), of(1, "reason")), ("UNIMPLEMENTED", "NO_ROUTE"));
        assert_eq!((of(1, "service"), of(1, "endpoint"), of(1, "source")), ("-", "-", "gateway"));
        assert_eq!((of(1, "execution"), of(1, "bytes_in")), ("not_executed", "3"));
        assert_eq!((of(2, "status"), of(2, "reason")), ("CANCELLED", "CANCELLED"));
        assert_eq!((of(3, "user"), of(3, "reason")), ("-", "LOGIN_REQUIRED"));
        assert_ne!(of(3, "session"), session);
        of(0, "endpoint").to_owned()
    };
    assert!(endpoint.starts_with("127.") && endpoint.contains(':'), "{endpoint}");
}

//! New sessions that a service has to confirm, and applications that have to prove themselves.

use crate::link::{RawLink, listener, site_and_link};
use crate::site::{Site, command, echo_service, settings};
use crate::token::token;
use crate::wire::{RawClient, hello, hello_frame, request};
use moorgate::auth::{Application, Applications, Authority, Revocations};
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::proof::{ApplicationFacts, ApplicationKey};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Reason};
use std::sync::Arc;
use std::time::Duration;

const CHECKED: &str = "[session_check]\nservice = \"echo\"\ntimeout = \"10s\"\n";

fn asks(site: &Site, user: &str) -> RawClient {
    let mut client = site.connect();
    let access_token = token(user, &[]);
    client.send(&hello_frame(&v1::Hello { access_token, device_id: "phone".to_owned(), ..hello() }));
    client
}

fn says(link: &mut RawLink, verdict: v1::SessionVerdict) -> v1::Caller {
    let check = link.session_check();
    link.send(to_gateway::SESSION_VERDICT, &v1::SessionVerdict { check_id: check.check_id, ..verdict });
    check.caller.unwrap()
}

fn admitted(cache_ms: u32) -> v1::SessionVerdict {
    v1::SessionVerdict { admitted: true, cache_ms, ..v1::SessionVerdict::default() }
}

// spec: L-63, L-67, O-27
#[test]
fn a_session_opens_when_the_service_admits_it_and_not_before() {
    let (site, mut link) = site_and_link(CHECKED);
    let mut alice = asks(&site, "alice");
    let caller = says(&mut link, admitted(60_000));
    assert_eq!((caller.user_id.as_str(), caller.device_id.as_str()), ("alice", "phone"));
    assert_eq!((caller.application.as_str(), caller.session_id.is_empty()), ("tests", true));
    assert_eq!(alice.welcome().user_id, "alice");
    drop(alice);
    // What it said holds for a minute.
    let mut alice = asks(&site, "alice");
    alice.welcome();
    let mut bob = asks(&site, "bob");
    let refused = v1::SessionVerdict {
        reason: Reason::Banned.into(),
        message: "until tomorrow".to_owned(),
        ..v1::SessionVerdict::default()
    };
    says(&mut link, refused);
    let error = bob.error();
    assert_eq!((Code::from_wire(error.status), error.reason()), (Code::PermissionDenied, Reason::Banned));
    assert_eq!((error.message.as_str(), error.reconnect.unwrap().allowed), ("until tomorrow", false));
    let mut bob = asks(&site, "bob");
    says(&mut link, v1::SessionVerdict { cache_ms: 60_000, ..v1::SessionVerdict::default() });
    assert_eq!(bob.error_reason(), Reason::SessionRefused);
    assert_eq!(asks(&site, "bob").error_reason(), Reason::SessionRefused, "it holds too");
    // Nobody asks about a session without a user.
    let mut anonymous = site.open();
    anonymous.nothing_else();
    link.nothing_else();
    let count = |result| site.metric(&format!("moorgate_session_checks_total{{result=\"{result}\"}}"));
    assert_eq!(["asked", "admitted", "refused", "cached"].map(count), [3, 1, 2, 2]);
    drop((alice, anonymous));
    site.end();
}

// spec: O-27, S-11
#[test]
fn check_waits_for_the_first_link_of_its_service() {
    let listener = listener();
    let site = Site::beside(&listener, CHECKED);
    let mut alice = asks(&site, "alice");
    let mut bob = asks(&site, "bob");
    let mut link = RawLink::open(&listener);
    for _ in 0..2 {
        says(&mut link, admitted(0));
    }
    alice.welcome();
    bob.welcome();
    // Once there was a link, a check without one fails at once.
    drop(link);
    site.metric_becomes("moorgate_service_links{service=\"echo\"}", 0);
    assert_eq!(asks(&site, "carol").error_reason(), Reason::NoEndpoint);
    drop((alice, bob));
    site.end();
}

// spec: O-2, O-27, O-32
#[test]
fn early_request_is_held_during_a_session_check() {
    let (site, mut link) = site_and_link(CHECKED);
    let access_token = token("alice", &[]);
    let early = [hello_frame(&v1::Hello { access_token, ..hello() }), request(1, command::USER, b"first")];
    let mut client = site.connect();
    client.send(&early.concat());
    let check = link.session_check();
    // The second comes in two parts, before and behind the verdict.
    let second = request(2, command::USER, b"second");
    client.send(&second[..7]);
    site.metric_becomes("moorgate_bytes_received_total", early.concat().len() as u64 + 7);
    link.send(to_gateway::SESSION_VERDICT, &v1::SessionVerdict { check_id: check.check_id, ..admitted(0) });
    assert_eq!(client.welcome().user_id, "alice");
    client.send(&second[7..]);
    for payload in [&b"first"[..], b"second"] {
        let call = link.call();
        assert_eq!(call.payload, payload);
        link.reply(call.call_id, payload);
        assert_eq!(client.response().payload, payload);
    }
    // Refused: it is not executed, and nothing of it stays.
    let access_token = token("bob", &[]);
    let early = [hello_frame(&v1::Hello { access_token, ..hello() }), request(1, command::USER, b"first")];
    let mut refused = site.connect();
    refused.send(&early.concat());
    says(&mut link, v1::SessionVerdict::default());
    let error = refused.error();
    assert_eq!((error.reason(), error.admitted), (Reason::SessionRefused, 0));
    link.nothing_else();
    drop((client, refused));
    site.end();
}

// spec: O-2, O-32
#[test]
fn early_frames_beyond_their_bound_end_the_connection() {
    let (site, mut link) = site_and_link(CHECKED);
    let overhead = request(1, command::USER, &[7; 4000]).len() - 4000;
    for (bytes, ends) in [(4097, true), (4096, false)] {
        let before = site.metric("moorgate_bytes_received_total");
        let mut client = asks(&site, "alice");
        let check = link.session_check();
        let hello = site.metric("moorgate_bytes_received_total") - before;
        let early = request(1, command::USER, &vec![7; bytes - overhead]);
        assert_eq!(early.len(), bytes);
        client.send(&early);
        if ends {
            assert_eq!(client.error_reason(), Reason::ProtocolViolation);
            continue;
        }
        site.metric_becomes("moorgate_bytes_received_total", before + hello + bytes as u64);
        link.send(
            to_gateway::SESSION_VERDICT,
            &v1::SessionVerdict { check_id: check.check_id, ..admitted(0) },
        );
        client.welcome();
        let call = link.call();
        link.reply(call.call_id, b"");
        client.response();
    }
    link.nothing_else();
    site.end();
}

// spec: O-27
#[test]
fn verdict_of_nobody_is_ignored() {
    let (site, mut link) = site_and_link(CHECKED);
    let mut client = asks(&site, "alice");
    let check = link.session_check();
    client.finish();
    client.closed();
    let mut gone = asks(&site, "alice");
    let of_gone = link.session_check();
    gone.finish();
    gone.closed();
    // Verdicts about whom nobody waits for, and about nobody.
    for check_id in [check.check_id, of_gone.check_id, of_gone.check_id, u64::MAX, 0] {
        link.send(to_gateway::SESSION_VERDICT, &v1::SessionVerdict { check_id, ..admitted(0) });
    }
    link.nothing_else();
    site.end();
}

// spec: O-28
#[test]
fn without_a_verdict_the_deployment_s_choice_counts() {
    for (choice, opens) in [("refuse", false), ("admit", true)] {
        let table =
            format!("[session_check]\nservice = \"echo\"\ntimeout = \"1s\"\non_failure = \"{choice}\"\n");
        let (site, mut link) = site_and_link(&table);
        let judge = |mut client: RawClient| {
            if opens {
                client.welcome();
                return;
            }
            let error = client.error();
            assert_eq!(
                (Code::from_wire(error.status), error.reason()),
                (Code::Unavailable, Reason::NoEndpoint)
            );
            assert!(error.reconnect.unwrap().allowed);
        };
        let client = asks(&site, "alice");
        link.session_check();
        judge(client);
        // A link that is lost with the question, and none at all.
        let client = asks(&site, "alice");
        link.session_check();
        drop(link);
        judge(client);
        judge(asks(&site, "alice"));
        assert!(site.metric("moorgate_session_checks_total{result=\"failed\"}") >= 3);
        site.is_empty_again();
    }
}

/// A gateway that lets one application in.
fn site_of_applications() -> Site {
    let service = echo_service();
    let mut settings = settings(service.address(), "");
    let known = [("im", Application::Known(key())), ("old", Application::Revoked)];
    let known = known.map(|(name, application)| (name.to_owned(), application));
    let authority = Authority {
        keys: settings.authority.keys.clone(),
        issuer: None,
        applications: Applications::new(known.into()),
        revocations: Revocations::new(Duration::from_secs(60)),
    };
    settings.authority = Arc::new(authority);
    Site::of(settings)
}

fn key() -> ApplicationKey {
    ApplicationKey::new(b"application key of the tests").unwrap()
}

fn proved(application: &str, time_ms: u64) -> v1::Hello {
    let nonce = vec![4; 16];
    let facts = ApplicationFacts { application, device_id: "phone", time_ms, nonce: &nonce };
    let mac = facts.prove(&key()).to_vec().into();
    v1::Hello {
        application: application.to_owned(),
        device_id: "phone".to_owned(),
        application_proof: Some(v1::ApplicationProof { time_ms, mac, nonce: nonce.into() }),
        ..hello()
    }
}

// spec: O-25, O-26
#[test]
fn only_applications_that_prove_themselves_are_let_in() {
    let site = site_of_applications();
    let now = crate::token::unix_s() * 1000;
    let mut client = site.connect();
    client.send(&hello_frame(&proved("im", now)));
    client.welcome();
    let without = v1::Hello { application_proof: None, ..proved("im", now) };
    let of_another = v1::Hello { device_id: "laptop".to_owned(), ..proved("im", now) };
    for bad in [
        hello(),
        proved("unknown", now),
        proved("old", now),
        proved("im", now - 400_000),
        without,
        of_another,
    ] {
        let mut client = site.connect();
        client.send(&hello_frame(&bad));
        let error = client.error();
        assert_eq!(Code::from_wire(error.status), Code::PermissionDenied);
        assert_eq!((error.reason(), error.reconnect.unwrap().allowed), (Reason::ApplicationRefused, false));
    }
    drop(client);
    site.end();
}

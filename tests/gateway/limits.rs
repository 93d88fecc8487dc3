//! Who may do how much: rates, outstanding requests, frames, accepting, bans, the reserve, over real sockets.

use crate::child::{Process, http};
use crate::link::site_and_link;
use crate::site::{Site, command, echo_service, text, until};
use crate::token::{claims, token, token_with, unsigned};
use crate::wire::{RawClient, cancel, hello, hello_frame, ping, request};
use moorgate::auth::{SigningKey, mint};
use moorgate::base::clock::Clock;
use moorgate::limit::{Subject, User};
use moorgate::reactor::AcceptMode;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source, gateway_frame::Member};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Three at once, and so slow that nothing comes back while a test runs.
const THREE: &str = "\"6/h, burst 3\"";
/// Commands of a route with a rate, before those of every site.
const RATED: u32 = 0x0801;

/// A connection from this address of the machine.
fn connect_from(site: &Site, last: u8) -> RawClient {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
    socket.connect(&site.address().into()).unwrap();
    RawClient::over(socket.into())
}

fn open_from(site: &Site, last: u8, hello: &v1::Hello) -> RawClient {
    let mut client = connect_from(site, last);
    client.send(&hello_frame(hello));
    client.welcome();
    client
}

fn of_user(user: &str, device: &str) -> v1::Hello {
    v1::Hello { access_token: token(user, &[]), device_id: device.to_owned(), ..hello() }
}

/// Waits for as long as the gateway has said.
fn wait_out(ms: u32) {
    let clock = Clock::start();
    let begun = clock.read().mono;
    let wait = Duration::from_millis(u64::from(ms));
    until("the hint is over", || clock.read().mono.since(begun) >= wait);
}

fn is_ok(response: &v1::Response) -> bool {
    response.status == Code::Ok.to_wire()
}

/// It was refused for a limit; the hint.
fn limited(response: &v1::Response) -> u32 {
    let said = (Code::from_wire(response.status), response.reason());
    assert_eq!(said, (Code::ResourceExhausted, Reason::RateLimited));
    assert_eq!((response.source(), response.execution()), (Source::Gateway, Execution::NotExecuted));
    assert!(response.retry_after_ms > 0);
    response.retry_after_ms
}

/// Two shards that share what comes, in turn: no client of a pair is on the shard of the other.
fn two_shards(tables: &str) -> Site {
    Site::start_with(tables, |settings| {
        settings.reactor.shards = 2;
        settings.reactor.listeners[0].accept = AcceptMode::Shared;
    })
}

/// The first clients share something, of which each request of theirs takes one; the last ones have their own.
fn three_are_served(site: &Site, limit: &str, same: &mut [&mut RawClient], others: &mut [&mut RawClient]) {
    let mut up_seqs = vec![0; same.len()];
    for number in 0..3 {
        let at = number % same.len();
        up_seqs[at] += 1;
        assert!(is_ok(&same[at].ask(up_seqs[at], command::OPEN, b"x")), "{limit}: {number}");
    }
    for (client, up_seq) in same.iter_mut().zip(up_seqs) {
        let hint = limited(&client.ask(up_seq + 1, command::OPEN, b"x"));
        assert!((1..=600_000).contains(&hint), "{limit}: {hint}");
    }
    for client in others {
        assert!(is_ok(&client.ask(1, command::OPEN, b"x")), "{limit}: others are served");
    }
    let refused = u64::try_from(same.len()).unwrap();
    assert_eq!(site.metric(&format!("moorgate_limited_total{{limit=\"{limit}\"}}")), refused, "{limit}");
    let of_route = "moorgate_route_refused_total{route=\"0x0001-0x00ff\",why=\"rate\"}";
    assert_eq!(site.metric(of_route), refused);
}

// spec: U-22
#[test]
fn a_connection_has_its_rate() {
    let site = two_shards(&format!("[rates]\nconnection = {THREE}\n"));
    let (mut one, mut other) = (site.open(), site.open());
    three_are_served(&site, "connection", &mut [&mut one], &mut [&mut other]);
    drop((one, other));
    site.end();
}

// spec: U-22
#[test]
fn a_user_has_its_rate_over_all_connections_and_shards() {
    let site = two_shards(&format!("[rates]\nuser = {THREE}\n"));
    let mut phone = open_from(&site, 1, &of_user("alice", "phone"));
    let mut laptop = open_from(&site, 2, &of_user("alice", "laptop"));
    let mut bob = open_from(&site, 1, &of_user("bob", "phone"));
    let mut nobody = open_from(&site, 1, &hello());
    three_are_served(&site, "user", &mut [&mut phone, &mut laptop], &mut [&mut bob, &mut nobody]);
    drop((phone, laptop, bob, nobody));
    site.end();
}

// spec: U-22
#[test]
fn an_address_has_its_rate_whoever_comes_from_it() {
    let site = two_shards(&format!("[rates]\naddress = {THREE}\n"));
    let mut nobody = open_from(&site, 3, &hello());
    let mut alice = open_from(&site, 3, &of_user("alice", "phone"));
    let mut elsewhere = open_from(&site, 4, &of_user("alice", "laptop"));
    three_are_served(&site, "address", &mut [&mut nobody, &mut alice], &mut [&mut elsewhere]);
    drop((nobody, alice, elsewhere));
    site.end();
}

// spec: U-22
#[test]
fn an_application_has_its_rate() {
    let site = two_shards(&format!("[rates]\napplication = {THREE}\n"));
    let mut one = open_from(&site, 3, &hello());
    let mut other = open_from(&site, 4, &of_user("alice", "phone"));
    let mut another = open_from(&site, 3, &v1::Hello { application: "games".to_owned(), ..hello() });
    three_are_served(&site, "application", &mut [&mut one, &mut other], &mut [&mut another]);
    drop((one, other, another));
    site.end();
}

// spec: U-22
#[test]
fn a_route_has_its_rate_whoever_asks() {
    let route = "[[route]]\ncommands = \"0x0801\"\nservice = \"echo\"\nanonymous = true\n";
    let site = two_shards(&format!("{route}rate = {THREE}\n"));
    let (mut one, mut other) = (site.open(), open_from(&site, 3, &of_user("alice", "phone")));
    assert!(is_ok(&one.ask(1, RATED, b"x")) && is_ok(&one.ask(2, RATED, b"x")));
    assert!(is_ok(&other.ask(1, RATED, b"x")));
    limited(&one.ask(3, RATED, b"x"));
    limited(&other.ask(2, RATED, b"x"));
    assert!(is_ok(&one.ask(4, command::OPEN, b"x")), "other routes go on");
    assert_eq!(site.metric("moorgate_limited_total{limit=\"route\"}"), 2);
    assert_eq!(site.metric("moorgate_route_refused_total{route=\"0x0801\",why=\"rate\"}"), 2);
    drop((one, other));
    site.end();
}

#[test]
fn refusals_are_counted_by_route_and_reason() {
    let site = Site::start("");
    let mut client = site.open();
    for (up_seq, command) in
        [(1, command::USER), (2, command::ADMIN), (3, command::USER), (4, command::NOWHERE)]
    {
        assert!(!is_ok(&client.ask(up_seq, command, b"x")));
    }
    assert!(!is_ok(&client.ask(5, command::SMALL, &[0; 1025])));
    let refused = |route: &str, why: &str| {
        site.metric(&format!("moorgate_route_refused_total{{route=\"{route}\",why=\"{why}\"}}"))
    };
    assert_eq!((refused("0x0100-0x01ff", "login"), refused("0x0200", "login")), (2, 1));
    assert_eq!(refused("0x0400", "payload"), 1);
    let mut alice = open_from(&site, 1, &of_user("alice", "phone"));
    assert!(!is_ok(&alice.ask(1, command::ADMIN, b"x")));
    assert_eq!(refused("0x0200", "role"), 1);
    drop((client, alice));
    site.end();
}

// spec: U-22
#[test]
fn a_request_passes_after_the_hint() {
    let site = Site::start("[rates]\nconnection = \"4/s, burst 1\"\nuser = \"3/s, burst 1\"\n");
    let mut alice = open_from(&site, 1, &of_user("alice", "phone"));
    let mut up_seq = 0;
    for _ in 0..3 {
        // As long as the machine is too slow to be above the rate.
        let hint = loop {
            up_seq += 1;
            let response = alice.ask(up_seq, command::OPEN, b"x");
            if !is_ok(&response) {
                break limited(&response);
            }
        };
        wait_out(hint);
        up_seq += 1;
        let response = alice.ask(up_seq, command::OPEN, b"x");
        if !is_ok(&response) {
            // Of the two limits the other may still have to be waited for.
            wait_out(limited(&response));
            up_seq += 1;
            assert!(is_ok(&alice.ask(up_seq, command::OPEN, b"x")));
        }
    }
    drop(alice);
    site.end();
}

// spec: U-23, U-24
#[test]
fn users_addresses_and_applications_have_so_many_unanswered_requests() {
    for owner in ["user", "address", "application"] {
        let (site, mut link) = site_and_link(&format!("[rates]\noutstanding_{owner} = 2\n"));
        let mut one = open_from(&site, 3, &of_user("alice", "phone"));
        let mut other = open_from(&site, 3, &of_user("alice", "laptop"));
        one.send(&request(1, command::USER, b"x"));
        other.send(&request(1, command::USER, b"x"));
        let calls = [link.call(), link.call()];
        limited(&one.ask(2, command::USER, b"x"));
        // Cancelled is not yet done with, and neither is what a client has left behind.
        other.send(&cancel(1));
        let cancelled = link.cancel().call_id;
        limited(&other.ask(2, command::USER, b"x"));
        drop(other);
        site.metric_becomes("moorgate_sessions", 1);
        limited(&one.ask(3, command::USER, b"x"));
        link.reply(cancelled, b"");
        site.metric_becomes("moorgate_replies_orphaned_total", 1);
        one.send(&request(4, command::USER, b"x"));
        let last = link.call();
        limited(&one.ask(5, command::USER, b"x"));
        let first = calls.iter().map(|call| call.call_id).find(|call| *call != cancelled).unwrap();
        for (call_id, up_seq) in [(first, 1), (last.call_id, 4)] {
            link.reply(call_id, b"");
            assert_eq!(one.response().up_seq, up_seq);
        }
        let metric = format!("moorgate_limited_total{{limit=\"outstanding_{owner}\"}}");
        assert_eq!(site.metric(&metric), 4, "{owner}");
        drop(one);
        site.end();
    }
}

// spec: F-15
#[test]
fn a_connection_that_sends_too_many_frames_ends_and_the_others_do_not() {
    let site = Site::start("[rates]\nconnection = \"off\"\nframes = \"6/h, burst 20\"\n");
    let (mut client, mut other) = (site.open(), site.open());
    for nonce in 0..19 {
        client.send(&ping(nonce));
        assert!(matches!(client.member(), Member::Pong(_)));
    }
    client.send(&ping(19));
    let error = client.error();
    let said = (Code::from_wire(error.status), error.reason());
    assert_eq!(said, (Code::ResourceExhausted, Reason::RateLimited));
    let reconnect = error.reconnect.unwrap();
    assert!(reconnect.allowed && (1..=600_000).contains(&reconnect.after_ms), "{reconnect:?}");
    assert_eq!(site.metric("moorgate_limited_total{limit=\"frames\"}"), 1);
    assert_eq!(site.metric("moorgate_close_reasons_total{reason=\"rate_limited\"}"), 1);
    assert!(is_ok(&other.ask(1, command::OPEN, b"x")));
    drop((client, other));
    site.end();
}

#[test]
fn connections_above_the_accept_rate_wait_and_none_is_lost() {
    for accept in [AcceptMode::ReusePort, AcceptMode::Shared] {
        let site = Site::start_with("[rates]\naccepts = \"50/s, burst 5\"\n", |settings| {
            settings.reactor.listeners[0].accept = accept;
        });
        let mut rounds = 0;
        // Thirty are more than the rate, unless the machine is too slow to bring them at once.
        until("it has rested", || {
            rounds += 1;
            let mut clients: Vec<RawClient> = (0..30).map(|_| site.connect()).collect();
            for client in &mut clients {
                client.send(&hello_frame(&hello()));
            }
            for client in &mut clients {
                client.welcome();
            }
            site.metric("moorgate_accept_rests_total") > 0
        });
        assert_eq!(site.metric("moorgate_connections_accepted_total"), 30 * rounds);
        site.end();
    }
}

fn bad_token() -> v1::Hello {
    v1::Hello { access_token: unsigned("mallory"), ..hello() }
}

/// What a client with a bad token hears from this address.
fn attack(site: &Site, last: u8) -> v1::Error {
    let mut client = connect_from(site, last);
    client.try_send(&hello_frame(&bad_token()));
    client.error()
}

// spec: O-29
#[test]
fn a_thousand_bad_tokens_lead_to_a_ban_of_their_address_alone() {
    // So slowly that nothing is forgotten, and no ban is over, while the test runs.
    let site =
        Site::start("[limits]\nconnections_per_address = 0\n[bans]\nwindow = \"1h\"\nfirst = \"1h\"\n");
    let mut good = open_from(&site, 3, &of_user("alice", "phone"));
    let (mut refused, mut banned) = (0, 0);
    for number in 1..=1_000 {
        let error = attack(&site, 5);
        match error.reason() {
            Reason::TokenInvalid => refused += 1,
            Reason::Banned => {
                banned += 1;
                assert_eq!(Code::from_wire(error.status), Code::PermissionDenied);
                let reconnect = error.reconnect.unwrap();
                assert!(reconnect.allowed && (1..=3_600_000).contains(&reconnect.after_ms), "{reconnect:?}");
            }
            other => panic!("{other:?}"),
        }
        if number % 100 == 0 {
            assert!(is_ok(&good.ask(number / 100, command::USER, b"x")));
            drop(open_from(&site, 3, &hello()));
        }
    }
    // A user with a token is admitted from there all the same.
    let mut bob = loop {
        let mut client = connect_from(&site, 5);
        client.try_send(&hello_frame(&of_user("bob", "phone")));
        match client.member() {
            Member::Welcome(_) => break client,
            // The attacker has used up what may connect from there, for a moment.
            Member::Error(error) => wait_out(error.reconnect.unwrap().after_ms),
            other => panic!("{other:?}"),
        }
        banned += 1;
    };
    assert!(is_ok(&bob.ask(1, command::USER, b"x")));
    drop(bob);
    // More than a hundred and one only as far as they were forgotten meanwhile.
    assert!((101..110).contains(&refused) && banned > 700, "{refused} refused, {banned} banned");
    let subject = Subject::address(IpAddr::from([127, 0, 0, 5]));
    let bans = site.gateway().bans().list(site.gateway().now());
    assert!(bans.len() == 1 && bans[0].subject == subject, "{bans:?}");
    assert_eq!(site.metric("moorgate_bans"), 1);
    assert_eq!(site.metric("moorgate_bans_given_total"), 1);
    assert_eq!(site.metric("moorgate_connections_refused_total{why=\"banned\"}"), banned);
    // A hand lifts it.
    assert!(site.gateway().bans().lift(site.gateway().now(), &subject));
    assert_eq!(attack(&site, 5).reason(), Reason::TokenInvalid);
    drop(open_from(&site, 5, &hello()));
    drop(good);
    site.end();
}

// spec: O-29
#[test]
fn a_ban_ends_by_itself() {
    let site = Site::start("[bans]\noffences = 2\nfirst = \"1s\"\n");
    let error = loop {
        let error = attack(&site, 5);
        if error.reason() == Reason::Banned {
            break error;
        }
    };
    wait_out(error.reconnect.unwrap().after_ms);
    let mut back = open_from(&site, 5, &hello());
    assert!(is_ok(&back.ask(1, command::OPEN, b"x")));
    drop(back);
    site.end();
}

// spec: O-29
#[test]
fn an_operator_bans_users_and_addresses_by_hand() {
    let site = Site::start("[bans]\nenabled = false\n");
    let admin = site.gateway().admin_address().unwrap();
    let post = |operation: &str| {
        let (status, body) = http::post(admin, operation, "");
        assert_eq!(status, 200, "{operation}: {body}");
        body
    };
    let mallory = Subject::User(Arc::new(User { application: "".into(), user_id: "mallory".into() }));
    assert!(site.gateway().bans().ban(site.gateway().now(), &mallory, Duration::from_secs(3600)));
    assert!(post("/ban?address=127.0.0.6&for=1h").contains("\"changed\":1"));
    let (status, page) = http::get(admin, "/bans");
    assert_eq!(status, 200);
    for word in ["\"total\":2", "\"address\":\"127.0.0.6\"", "\"user\":\"mallory\"", "\"reason\":\"by hand\""]
    {
        assert!(page.contains(word), "{word} in {page}");
    }
    for (last, hello) in [(1, of_user("mallory", "phone")), (6, of_user("alice", "phone"))] {
        let mut client = connect_from(&site, last);
        client.try_send(&hello_frame(&hello));
        let error = client.error();
        assert_eq!((Code::from_wire(error.status), error.reason()), (Code::PermissionDenied, Reason::Banned));
        assert!((3_500_000..=3_600_000).contains(&error.reconnect.unwrap().after_ms));
    }
    let alice = open_from(&site, 1, &of_user("alice", "phone"));
    assert!(post("/unban?user=mallory").contains("\"changed\":1"));
    let mallory = open_from(&site, 1, &of_user("mallory", "phone"));
    assert!(post("/unban?address=127.0.0.6").contains("\"changed\":1"));
    assert!(post("/unban?address=127.0.0.6").contains("\"changed\":0"));
    let neighbour = open_from(&site, 6, &hello());
    drop((alice, mallory, neighbour));
    site.end();
}

// spec: X-20
#[test]
fn a_user_that_goes_on_asking_above_its_rate_is_banned_and_its_neighbours_are_not() {
    let site = Site::start(&format!("[rates]\nuser = {THREE}\n[bans]\noffences = 2\nwindow = \"1h\"\n"));
    let mut mallory = open_from(&site, 5, &of_user("mallory", "phone"));
    let mut alice = open_from(&site, 5, &of_user("alice", "phone"));
    let mut up_seq = 0;
    let error = loop {
        up_seq += 1;
        assert!(up_seq < 100, "there is no ban");
        mallory.send(&request(up_seq, command::USER, b"x"));
        match mallory.member() {
            Member::Response(response) if up_seq <= 3 => assert!(is_ok(&response)),
            Member::Response(response) => drop(limited(&response)),
            Member::Error(error) => break error,
            other => panic!("{other:?}"),
        }
        if up_seq == 24 {
            // The last answer, and then the end.
            let Member::Error(error) = mallory.member() else { panic!("an Error") };
            break error;
        }
    };
    assert_eq!((error.reason(), error.admitted), (Reason::Banned, 24));
    assert!(is_ok(&alice.ask(1, command::USER, b"x")));
    let mut again = connect_from(&site, 1);
    again.send(&hello_frame(&of_user("mallory", "laptop")));
    assert_eq!(again.error().reason(), Reason::Banned);
    drop((mallory, alice, again));
    site.end();
}

// spec: O-30
#[test]
fn when_room_runs_out_clients_with_a_token_come_first() {
    let site = Site::start("[limits]\nconnections = 10\nreserve = 20\n");
    let mut clients: Vec<RawClient> = (0..8).map(|_| site.open()).collect();
    let mut refused = site.connect();
    refused.send(&hello_frame(&hello()));
    let error = refused.error();
    let said = (Code::from_wire(error.status), error.reason());
    assert_eq!(said, (Code::ResourceExhausted, Reason::ConnectionLimit));
    let reconnect = error.reconnect.unwrap();
    assert!(reconnect.allowed && reconnect.after_ms > 0);
    drop(refused);
    site.metric_becomes("moorgate_connections", 8);
    assert_eq!(site.metric("moorgate_connections_refused_total{why=\"reserve\"}"), 1);
    clients.push(open_from(&site, 1, &of_user("alice", "phone")));
    clients.push(open_from(&site, 1, &of_user("bob", "phone")));
    assert!(is_ok(&clients[9].ask(1, command::USER, b"x")));
    clients.truncate(7);
    site.metric_becomes("moorgate_connections", 7);
    clients.push(site.open());
    drop(clients);
    site.end();
}

// spec: O-30
#[test]
fn near_the_limit_of_descriptors_clients_with_a_token_come_first() {
    let service = echo_service();
    let process = Process::with_descriptors(&text(service.address(), "[limits]\nreserve = 25\n"), 128);
    process.ready();
    let open = |hello: &v1::Hello| {
        let mut client = RawClient::connect(process.address);
        client.try_send(&hello_frame(hello));
        match client.member() {
            Member::Welcome(_) => Some(client),
            Member::Error(error) => {
                assert_eq!(error.reason(), Reason::ConnectionLimit);
                None
            }
            other => panic!("{other:?}"),
        }
    };
    let mut clients: Vec<RawClient> = std::iter::from_fn(|| open(&hello())).take(128).collect();
    assert!((20..100).contains(&clients.len()), "{} clients", clients.len());
    for number in 0..4 {
        let user = format!("user-{number}");
        clients.extend(open(&of_user(&user, "phone")));
        assert!(open(&hello()).is_none(), "still not for anybody");
    }
    let last = clients.last_mut().unwrap();
    assert!(is_ok(&last.ask(1, command::USER, b"x")));
    assert_eq!(process.metric("moorgate_connections_refused_total{why=\"reserve\"}"), 5);
    assert_eq!(process.metric("moorgate_connections_refused_total{why=\"descriptors\"}"), 0);
    drop((clients, process));
    service.stop();
    service.join();
}

// spec: O-22
#[test]
fn silent_connections_have_their_bound_and_make_room() {
    let bounds = [
        ("handshakes", "handshakes = 3"),
        ("address", "connections_per_address = 3"),
        ("limit", "connections = 3"),
    ];
    for (why, bound) in bounds {
        let site = Site::start(&format!("[limits]\n{bound}\nreserve = 0\n"));
        let silent: Vec<RawClient> = (0..3).map(|_| site.connect()).collect();
        site.metric_becomes("moorgate_connections", 3);
        // They may still be about to send Hello; a second later they make room.
        let mut refused = 0;
        let mut client = loop {
            let mut client = site.connect();
            client.try_send(&hello_frame(&hello()));
            match client.member() {
                Member::Welcome(_) => break client,
                Member::Error(error) => assert_eq!(error.reason(), Reason::ConnectionLimit),
                other => panic!("{other:?}"),
            }
            refused += 1;
            wait_out(50);
        };
        let of_why = format!("moorgate_connections_refused_total{{why=\"{why}\"}}");
        assert_eq!(site.metric(&of_why), refused, "{why}");
        assert_eq!(site.metric("moorgate_openings_ousted_total"), 1, "{why}");
        assert!(is_ok(&client.ask(1, command::OPEN, b"x")));
        drop((silent, client));
        site.metric_becomes("moorgate_connections", 0);
        let clients: Vec<RawClient> = (0..3).map(|_| site.open()).collect();
        drop(clients);
        site.end();
    }
}

// spec: O-29
#[test]
fn foreign_protocols_and_misconfigured_applications_cause_no_ban() {
    let site = Site::start("[bans]\noffences = 3\nwindow = \"1h\"\nfirst = \"1h\"\n");
    let next_key = SigningKey::new("next", &[7; 32]).unwrap();
    let unknown_key = v1::Hello { access_token: mint(&next_key, &claims("alice")), ..hello() };
    let fractional = v1::Hello { access_token: token_with("alice", "exp", json!(1.9e9)), ..hello() };
    for _ in 0..10 {
        let mut client = connect_from(&site, 5);
        client.try_send(b"GET / HTTP/1.1\r\nHost: moorgate\r\n\r\n");
        let error = client.error();
        assert_eq!(error.reason(), Reason::FrameTooLarge);
        assert!(error.message.contains("HTTP"), "{}", error.message);
        for hello in [&unknown_key, &fractional] {
            let mut client = connect_from(&site, 5);
            client.send(&hello_frame(hello));
            assert_eq!(client.error().reason(), Reason::TokenInvalid);
        }
    }
    assert_eq!(site.metric("moorgate_close_reasons_total{reason=\"foreign_protocol\"}"), 10);
    drop(open_from(&site, 5, &hello()));
    site.end();
}

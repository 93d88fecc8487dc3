//! Pushes: to users, sessions, groups and everyone; in order, within bounds, with results and receipts.

use crate::link::{RawLink, granted_site, listener, site_and_granted_link, site_and_link};
use crate::site::{Site, command, settings, until};
use crate::token::{token, unix_ms, unix_s};
use crate::wire::{Raw, RawClient, assert_gateway_says, bare, frame, hello, hello_frame, request};
use moorgate::routing::{Grants, Right};
use moorgate_proto::envelope::member::{client, to_gateway};
use moorgate_proto::status::Code;
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::link_notice::Kind;
use moorgate_proto::v1::push_result::Target;
use moorgate_proto::v1::service_push::Target as To;
use moorgate_proto::v1::{self, Execution, Priority, Reason};
use prost::Message;

fn users(ids: &[&str]) -> Option<To> {
    Some(To::Users(v1::Users { user_ids: ids.iter().map(|id| (*id).to_owned()).collect() }))
}

fn group(name: &str) -> Option<To> {
    Some(To::Group(name.to_owned()))
}

fn everyone() -> Option<To> {
    Some(To::Everyone(v1::Everyone {}))
}

fn push(id: u8, target: Option<To>) -> v1::ServicePush {
    let payload = vec![id; 3].into();
    v1::ServicePush {
        push_id: vec![id].into(),
        target,
        command: 0x1001,
        payload,
        ..v1::ServicePush::default()
    }
}

/// The Response to a request by which a client joins groups, or leaves them.
fn changes(client: &mut RawClient, link: &mut RawLink, up_seq: u64, actions: Vec<Action>) {
    client.send(&request(up_seq, command::OPEN, b"groups"));
    let call = link.call();
    link.direct(call.call_id, actions);
    assert_eq!(client.response().up_seq, up_seq);
}

fn join(group: &str) -> Action {
    Action::JoinGroup(v1::JoinGroup { group: group.to_owned(), session_id: bytes::Bytes::new() })
}

fn leave(group: &str) -> Action {
    Action::LeaveGroup(v1::LeaveGroup { group: group.to_owned(), session_id: bytes::Bytes::new() })
}

// spec: L-13, L-49, L-53, D-1
#[test]
fn a_push_reaches_every_session_of_the_users_that_are_named() {
    let listener = listener();
    let site = granted_site(&listener, "");
    let mut link = RawLink::accept(&listener);
    let hello = link.hello();
    assert_eq!(hello.pushes_max, 1024);
    let ack = crate::link::acknowledgement(&hello, crate::site::LINK_SECRET);
    link.send(to_gateway::HELLO_ACK, &ack);
    link.member();
    site.ready();
    let mut phone = RawClient::log_in(site.address(), token("alice", &[]), "phone");
    let mut laptop = RawClient::log_in(site.address(), token("alice", &[]), "laptop");
    let mut bob = RawClient::log_in(site.address(), token("bob", &[]), "");
    let mut anonymous = site.open();
    let result = link.push(&push(1, users(&["alice", "nobody", "bob", "", &"x".repeat(129), "alice"])));
    assert_eq!((result.status, result.reason()), (0, Reason::Unspecified));
    let targets: Vec<Target> = result.targets().collect();
    let (queued, refused) = (Target::Queued, Target::Refused);
    assert_eq!(targets, [queued, Target::Offline, queued, refused, refused, queued]);
    for client in [&mut phone, &mut laptop, &mut bob] {
        let (down_seq, push) = client.push();
        assert_eq!((down_seq, push.command, &push.push_id[..]), (1, 0x1001, &[1][..]));
        assert_eq!((&push.payload[..], push.group.as_str()), (&[1, 1, 1][..], ""));
    }
    for client in [&mut phone, &mut laptop, &mut bob, &mut anonymous] {
        client.nothing_else();
    }
    drop((phone, laptop, bob, anonymous));
    site.end();
}

// spec: L-53
#[test]
fn a_push_reaches_sessions_by_their_ids_and_everyone() {
    let (site, mut link) = site_and_granted_link("");
    let mut one = site.connect();
    one.send(&hello_frame(&hello()));
    let session_id = one.welcome().session_id;
    let mut other = site.open();
    let session_ids = vec![session_id.clone(), vec![7; 16].into(), vec![7; 3].into()];
    let sessions = Some(To::Sessions(v1::Sessions { session_ids }));
    let result = link.push(&push(1, sessions.clone()));
    let targets: Vec<Target> = result.targets().collect();
    assert_eq!(targets, [Target::Queued, Target::Offline, Target::Refused]);
    assert_eq!(one.push().0, 1);
    other.nothing_else();
    let result = link.push(&push(2, everyone()));
    assert!(result.status == 0 && result.targets.is_empty());
    assert_eq!((one.push().0, other.push().0), (2, 1));
    drop(one);
    site.metric_becomes("moorgate_sessions", 1);
    // The id is of this gateway, and nobody has it any more.
    let targets: Vec<Target> = link.push(&push(3, sessions)).targets().collect();
    assert_eq!(targets, [Target::Offline, Target::Offline, Target::Refused]);
    drop(other);
    site.end();
}

// spec: L-57, D-10
#[test]
fn whoever_joins_a_group_gets_what_is_pushed_to_it_from_then_on() {
    let (site, mut link) = site_and_granted_link("");
    let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
    let mut bob = RawClient::log_in(site.address(), token("bob", &[]), "");
    link.push(&push(1, group("g")));
    changes(&mut alice, &mut link, 1, vec![join("g"), join("g"), join("h")]);
    // In one segment: the Reply that lets him in, and pushes right behind it.
    bob.send(&request(1, command::OPEN, b"join"));
    let call = link.call();
    link.direct(call.call_id, [join("g")]);
    for id in 2..=20 {
        link.push(&push(id, group("g")));
    }
    assert_eq!(bob.response().up_seq, 1);
    for (client, first) in [(&mut alice, 2), (&mut bob, 2)] {
        for id in 2..=20 {
            let (down_seq, push) = client.push();
            assert_eq!((down_seq, &push.push_id[..]), (first + u64::from(id) - 2, &[id][..]));
            assert_eq!(push.group, "g");
        }
    }
    changes(&mut bob, &mut link, 2, vec![leave("g"), leave("never")]);
    link.push(&push(30, group("g")));
    assert_eq!(alice.push().1.push_id[..], [30]);
    bob.nothing_else();
    // The session itself is the end of its memberships.
    drop(alice);
    site.metric_becomes("moorgate_sessions", 1);
    site.metric_becomes("moorgate_group_changes_total{what=\"left\"}", 3);
    link.push(&push(31, group("g")));
    link.push(&push(32, group("h")));
    bob.nothing_else();
    drop(bob);
    site.end();
}

// spec: L-57
#[test]
fn a_service_puts_another_session_into_a_group_also_by_a_push() {
    let (site, mut link) = site_and_granted_link("[session]\ngroups = 2\n");
    let mut alice = site.connect();
    alice.send(&hello_frame(&hello()));
    let session_id = alice.welcome().session_id;
    let joins = |group: &str, session_id: &bytes::Bytes| {
        let join = v1::JoinGroup { group: group.to_owned(), session_id: session_id.clone() };
        v1::Directive { action: Some(Action::JoinGroup(join)) }
    };
    let directives = vec![joins("g", &session_id), joins("g", &vec![7; 16].into()), joins("", &session_id)];
    let result = link.push(&v1::ServicePush { directives, ..push(1, group("g")) });
    assert_eq!(result.status, 0);
    assert_eq!(alice.push().1.push_id[..], [1]);
    let count = |result| site.metric(&format!("moorgate_directives_total{{result=\"{result}\"}}"));
    assert_eq!((count("done"), count("stale"), count("invalid")), (1, 1, 1));
    // The third group is one too many.
    changes(&mut alice, &mut link, 1, vec![join("h"), join("i")]);
    assert_eq!(site.metric("moorgate_group_changes_total{what=\"refused\"}"), 1);
    link.push(&push(2, group("i")));
    alice.nothing_else();
    // A login or a group for nobody in particular makes no sense in a push.
    let login = v1::Login { user_id: "root".to_owned(), ..v1::Login::default() };
    let directives =
        vec![v1::Directive { action: Some(Action::Login(login)) }, joins("g", &bytes::Bytes::new())];
    link.push(&v1::ServicePush { directives, ..push(3, everyone()) });
    assert_eq!((alice.push().1.push_id[..] == [3], count("invalid")), (true, 3));
    drop(alice);
    site.end();
}

// spec: L-45, L-46, L-49
#[test]
fn every_push_of_a_draining_service_is_delivered_and_has_its_result() {
    const PUSHES: u8 = 250;
    // Before the drain, behind it, behind the last Reply; in one write, or one frame at a time.
    for (before, between, at_once) in [(0, 0, true), (PUSHES, 0, true), (80, 80, true), (80, 80, false)] {
        let (site, mut link) = site_and_granted_link("");
        let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
        alice.send(&request(1, command::USER, b"x"));
        let call_id = link.call().call_id;
        let mut frames: Vec<Vec<u8>> =
            (1..=PUSHES).map(|id| frame(0, 0, to_gateway::PUSH, &push(id, users(&["alice"])))).collect();
        let reply = v1::Reply { call_id, ..v1::Reply::default() };
        frames.insert((before + between).into(), frame(0, 0, to_gateway::REPLY, &reply));
        frames.insert(before.into(), frame(0, 0, to_gateway::DRAIN, &v1::LinkDrain::default()));
        match at_once {
            true => link.send_bytes(&frames.concat()),
            false => frames.iter().for_each(|frame| link.send_bytes(frame)),
        }
        for id in 1..=PUSHES {
            let result = link.push_result();
            assert_eq!((&result.push_id[..], result.status), (&[id][..], 0), "{before}, {between}");
        }
        assert_eq!(link.ends(), None, "a drain is no fault");
        let mut delivered = 0;
        while delivered < PUSHES {
            let frame = alice.frame();
            alice.send(&bare(0, frame.down_seq));
            match frame.member {
                Some(v1::gateway_frame::Member::Push(_)) => delivered += 1,
                Some(v1::gateway_frame::Member::Response(response)) => assert_eq!(response.status, 0),
                other => panic!("{other:?} after {delivered}"),
            }
        }
        drop(alice);
        site.end();
    }
}

// spec: L-59, L-66
#[test]
fn millions_of_empty_elements_are_counted_and_not_decoded() {
    let (site, mut link) = site_and_granted_link("");
    let mut client = site.open();
    // Each is two bytes on the wire.
    let many = |field: u8| [field << 3 | 2, 0].repeat(300_000);
    let within = |field: u8, inner: &[u8]| frame_field(field, inner);
    let everyone = within(5, &[]);
    for body in [
        within(2, &many(1)),
        within(3, &many(1)),
        [everyone.clone(), many(13)].concat(),
        [everyone.clone(), within(13, &within(1, &many(2)))].concat(),
    ] {
        link.send(to_gateway::PUSH, &Raw(&[within(1, &[7]), body].concat()));
        let result = link.push_result();
        assert_eq!((result.reason(), &result.push_id[..]), (Reason::ProtocolViolation, &[7][..]));
    }
    // Of too many directives none is carried out, and the Reply is delivered.
    client.send(&request(1, command::OPEN, b"x"));
    let call_id = link.call().call_id;
    let head = v1::Reply { call_id, ..v1::Reply::default() }.encode_to_vec();
    link.send(to_gateway::REPLY, &Raw(&[head, many(7)].concat()));
    assert_eq!(client.response().status, 0);
    let notice = link.notice();
    assert_eq!((notice.kind(), notice.call_id, notice.count), (Kind::DirectivesTooMany, call_id, 1));
    // A login with more roles than any token has is a bad Reply.
    client.send(&request(2, command::OPEN, b"x"));
    let call_id = link.call().call_id;
    let head = v1::Reply { call_id, ..v1::Reply::default() }.encode_to_vec();
    link.send(to_gateway::REPLY, &Raw(&[head, within(7, &within(1, &many(2)))].concat()));
    let response = client.response();
    assert_gateway_says(&response, Code::Internal, Reason::ReplyInvalid, Execution::Executed);
    let notice = link.notice();
    assert_eq!(notice.kind(), Kind::DirectiveInvalid);
    link.nothing_else();
    drop(client);
    site.end();
}

/// A length-delimited field.
fn frame_field(field: u8, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    prost::encoding::encode_varint(inner.len() as u64, &mut out);
    out.extend_from_slice(inner);
    out
}

// spec: L-81
#[test]
fn pushes_of_one_link_reach_every_member_in_their_order() {
    let listener = listener();
    let site = crate::link::granted_site_with(&listener, "", |settings| {
        (settings.reactor.shards, settings.reactor.workers) = (2, 2);
    });
    // A link of each worker; all pushes go on one of them.
    let mut links = [RawLink::open(&listener), RawLink::open(&listener)];
    site.ready();
    let mut members: Vec<RawClient> = ["a", "b", "c", "d"]
        .iter()
        .map(|user| RawClient::log_in(site.address(), token(user, &[]), ""))
        .collect();
    (1..=100).for_each(|id| links[0].send(to_gateway::PUSH, &push(id, everyone())));
    for member in &mut members {
        for id in 1..=100 {
            assert_eq!(member.push().1.push_id[..], [id]);
        }
    }
    drop(members);
    site.end();
}

// spec: L-36, L-64, L-82, L-83
#[test]
fn a_service_gets_notices_of_what_it_has_no_grant_for() {
    let (site, mut link) = site_and_link("");
    link.send(to_gateway::PRESENCE_SUBSCRIBE, &v1::PresenceSubscribe::default());
    let notice = link.notice();
    assert_eq!((notice.kind(), notice.count), (Kind::PresenceRefused, 1));
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    let call_id = link.call().call_id;
    let kick = || Action::KickUser(v1::KickUser { user_id: "alice".to_owned(), message: String::new() });
    // Of one kind there is one notice a second, whatever their number.
    link.direct(call_id, (0..16).map(|_| kick()));
    assert_eq!(client.response().status, 0, "the Reply is delivered");
    let notice = link.notice();
    assert_eq!((notice.kind(), notice.call_id, notice.count), (Kind::DirectiveRefused, call_id, 1));
    // Neither is an answer of a service to one, which it must not send.
    link.send(to_gateway::NOTICE, &v1::LinkNotice::default());
    link.nothing_else();
    drop(client);
    site.end();
}

// spec: L-50, L-51
#[test]
fn a_repeat_is_answered_from_memory_and_not_pushed_again() {
    let (site, mut link) = site_and_granted_link("");
    let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
    let first = link.push(&push(1, users(&["alice", "bob"])));
    let again = link.push(&push(1, users(&["alice", "bob"])));
    assert_eq!(first, again);
    alice.push();
    alice.nothing_else();
    assert_eq!(site.metric("moorgate_pushes_total{result=\"repeated\"}"), 1);
    // Without an id each is a new one.
    let unnamed = v1::ServicePush { push_id: bytes::Bytes::new(), ..push(1, users(&["alice"])) };
    link.push(&unnamed);
    link.push(&unnamed);
    assert_eq!((alice.push().0, alice.push().0), (2, 3));
    drop(alice);
    site.end();
}

// spec: L-54, W-4
#[test]
fn a_receipt_says_that_the_client_has_taken_it_or_that_it_is_lost() {
    let (site, mut link) = site_and_granted_link("");
    let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
    let wanted = |id| v1::ServicePush { want_receipt: true, ..push(id, users(&["alice"])) };
    link.push(&wanted(1));
    link.push(&push(2, users(&["alice"])));
    link.push(&wanted(3));
    for number in 1..=3 {
        assert_eq!(alice.push().0, number);
    }
    link.nothing_else();
    alice.send(&bare(0, 2));
    let receipt = link.push_receipt();
    assert_eq!((&receipt.push_id[..], receipt.acknowledged), (&[1][..], true));
    assert_eq!((receipt.user_id.as_str(), receipt.session_id.len()), ("alice", 16));
    link.nothing_else();
    drop(alice);
    let receipt = link.push_receipt();
    assert_eq!((&receipt.push_id[..], receipt.acknowledged), (&[3][..], false));
    assert_eq!(receipt.reason(), Reason::ResumeUnknownSession);
    site.end();
}

// spec: L-65
#[test]
fn a_receipt_for_an_instance_without_a_link_is_dropped_and_counted() {
    let (site, mut link) = site_and_granted_link("");
    let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
    link.push(&v1::ServicePush { want_receipt: true, ..push(1, users(&["alice"])) });
    alice.push();
    drop(link);
    until("the link is gone", || site.gateway().readiness().is_err());
    alice.send(&bare(0, 1));
    site.metric_becomes("moorgate_push_receipts_total{result=\"dropped\"}", 1);
    drop(alice);
    site.end();
}

// spec: L-59, D-5
#[test]
fn a_push_that_cannot_be_carried_says_why() {
    let listener = listener();
    let mut settings = settings(listener.local_addr().unwrap(), "");
    settings.services[0].grants = Grants::NONE.with(Right::Push).with(Right::Groups);
    let site = Site::of(settings);
    let mut link = RawLink::open(&listener);
    site.ready();
    let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
    let plain = push(1, users(&["alice"]));
    let kick = Action::KickUser(v1::KickUser { user_id: "alice".to_owned(), message: String::new() });
    let directives = vec![v1::Directive { action: Some(kick) }];
    let cases = [
        (push(1, everyone()), Reason::GrantMissing),
        (v1::ServicePush { directives, ..plain.clone() }, Reason::GrantMissing),
        (push(1, None), Reason::ProtocolViolation),
        (push(1, group("")), Reason::ProtocolViolation),
        (push(1, group(&"g".repeat(129))), Reason::ProtocolViolation),
        (push(1, users(&["u"; 10_001])), Reason::ProtocolViolation),
        (v1::ServicePush { collapse_key: "k".repeat(65), ..plain.clone() }, Reason::ProtocolViolation),
        (
            v1::ServicePush { fragment: Some(v1::Fragment::default()), ..plain.clone() },
            Reason::FeatureNotNegotiated,
        ),
        (v1::ServicePush { payload: vec![0; 65_000].into(), ..plain.clone() }, Reason::PayloadTooLarge),
    ];
    for (bad, reason) in cases {
        let result = link.push(&bad);
        assert_eq!(result.reason(), reason, "{:?}", bad.target);
        assert!(result.status != 0 && result.targets.is_empty());
    }
    let mut long = v1::ServicePush { push_id: vec![1; 65].into(), ..plain.clone() };
    link.send(to_gateway::PUSH, &long);
    assert_eq!(link.push_result().push_id.len(), 64);
    // None of these took the id, or ended the link.
    alice.nothing_else();
    assert_eq!(link.push(&plain).status, 0);
    alice.push();
    // What fits into no frame of this client is a gap for it, and reaches others.
    let mut small = site.connect();
    let access_token = token("bob", &[]);
    small.send(&hello_frame(&v1::Hello { frame_bytes_max: 4096, access_token, ..hello() }));
    small.welcome();
    long = v1::ServicePush { payload: vec![0; 10_000].into(), ..push(2, users(&["alice", "bob"])) };
    assert_eq!(link.push(&long).status, 0);
    assert_eq!(alice.push().1.payload.len(), 10_000);
    let (down_seq, gap) = small.gap();
    assert_eq!((down_seq, gap.count, gap.reason()), (1, 1, Reason::PushOverflow));
    drop((alice, small));
    site.end();
}

// spec: D-11, D-12, D-15, D-16, L-55, L-56
#[test]
fn a_client_that_does_not_acknowledge_gets_a_window_full_and_a_gap_for_the_rest() {
    // Four that are sent and not acknowledged, and three that wait.
    let tables = "[session]\nwindow = 4\nin_flight = 2\npushes = 7\n";
    let (site, mut link) = site_and_granted_link(tables);
    let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
    let to_alice = |id| push(id, users(&["alice"]));
    for id in 1..=4 {
        link.push(&to_alice(id));
    }
    // Four wait for three places: the one of low priority goes.
    link.push(&v1::ServicePush { want_receipt: true, ttl_ms: 1, ..to_alice(5) });
    link.push(&v1::ServicePush { want_receipt: true, priority: Priority::Low.into(), ..to_alice(6) });
    link.push(&v1::ServicePush { want_receipt: true, collapse_key: "k".to_owned(), ..to_alice(7) });
    link.push(&to_alice(8));
    let receipt = link.push_receipt();
    assert_eq!((receipt.push_id[0], receipt.reason()), (6, Reason::PushOverflow));
    link.push(&v1::ServicePush { collapse_key: "k".to_owned(), ..to_alice(9) });
    let receipt = link.push_receipt();
    assert_eq!((receipt.push_id[0], receipt.reason()), (7, Reason::PushCollapsed));
    let begun = unix_ms();
    until("the time of the fifth is over", || unix_ms() > begun + 2);
    // A Response waits too, when the window is full.
    alice.send(&request(1, command::USER, b"x"));
    let call = link.call();
    link.reply(call.call_id, b"reply");
    site.metric_becomes("moorgate_requests_outstanding", 0);
    for number in 1..=4 {
        assert_eq!(alice.push().0, number);
    }
    alice.nothing_else();
    alice.send(&bare(0, 4));
    let frame = alice.frame();
    let Some(v1::gateway_frame::Member::Response(response)) = frame.member else { panic!("{frame:?}") };
    assert_eq!((frame.down_seq, response.up_seq), (5, 1));
    let (number, gap) = alice.gap();
    assert_eq!((number, gap.count, gap.reason()), (6, 1, Reason::PushExpired));
    let receipt = link.push_receipt();
    assert_eq!((receipt.push_id[0], receipt.reason()), (5, Reason::PushExpired));
    let (number, gap) = alice.gap();
    assert_eq!((number, gap.count, gap.reason()), (7, 1, Reason::PushOverflow));
    let (number, last) = alice.push();
    assert_eq!(
        (number, last.push_id[0]),
        (8, 8),
        "and the newer of those with one key is still behind the window"
    );
    alice.nothing_else();
    alice.send(&bare(0, 8));
    assert_eq!(alice.push().1.push_id[0], 9);
    drop(alice);
    site.end();
}

// spec: K-4
#[test]
fn a_push_carries_what_it_came_with() {
    let (site, mut link) = site_and_granted_link("");
    let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
    let trace = v1::Trace { parent: "00-1".to_owned(), state: "s".to_owned() };
    let rich = v1::ServicePush {
        priority: Priority::High.into(),
        ttl_ms: 60_000,
        content_encoding: "zstd".to_owned(),
        trace: Some(trace.clone()),
        ..push(1, users(&["alice"]))
    };
    let before = unix_s() * 1000;
    link.push(&rich);
    let got = alice.push().1;
    assert_eq!((got.priority(), got.content_encoding.as_str()), (Priority::High, "zstd"));
    assert_eq!(got.trace, Some(trace));
    assert!((before + 60_000..before + 90_000).contains(&got.expires_ms));
    drop(alice);
    site.end();
}

// spec: L-52
#[test]
fn a_push_without_room_reaches_nobody_and_may_be_repeated() {
    let (site, mut link) = site_and_granted_link("[limits]\npush_deliveries = 2\n");
    let mut clients: Vec<RawClient> =
        ["a", "b", "c"].iter().map(|user| RawClient::log_in(site.address(), token(user, &[]), "")).collect();
    let result = link.push(&push(1, everyone()));
    assert_eq!(
        (Code::from_wire(result.status), result.reason()),
        (Code::ResourceExhausted, Reason::GatewayOverloaded)
    );
    clients.iter_mut().for_each(RawClient::nothing_else);
    clients.pop();
    site.metric_becomes("moorgate_sessions", 2);
    assert_eq!(link.push(&push(1, everyone())).status, 0);
    for client in &mut clients {
        client.push();
    }
    assert_eq!(site.metric("moorgate_pushes_total{result=\"shed\"}"), 1);
    drop(clients);
    site.end();
}

#[test]
fn pushes_reach_clients_of_every_shard_by_every_worker() {
    let listener = listener();
    let mut settings = settings(listener.local_addr().unwrap(), "");
    settings.services[0].grants = Grants::NONE.with(Right::Push).with(Right::PushAll);
    (settings.reactor.shards, settings.reactor.workers) = (4, 2);
    let site = Site::of(settings);
    let mut links = [RawLink::open(&listener), RawLink::open(&listener)];
    site.ready();
    let names: Vec<String> = (0..32).map(|at| format!("user-{at}")).collect();
    let mut clients: Vec<RawClient> =
        names.iter().map(|user| RawClient::log_in(site.address(), token(user, &[]), "")).collect();
    let ids: Vec<&str> = names.iter().map(String::as_str).collect();
    for (id, link) in (1..).zip(&mut links) {
        let result = link.push(&v1::ServicePush { want_receipt: true, ..push(id, users(&ids)) });
        assert!(result.targets().all(|target| target == Target::Queued));
        for client in &mut clients {
            assert_eq!(client.push().1.push_id[..], [id]);
            client.send(&frame(0, u64::from(id), client::PONG, &v1::Pong::default()));
        }
        for _ in &clients {
            let receipt = link.push_receipt();
            assert!(receipt.acknowledged && receipt.push_id[..] == [id]);
        }
        link.nothing_else();
    }
    drop(clients);
    site.end();
}

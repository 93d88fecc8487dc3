//! Who a session belongs to: logins that a service asks for, refresh, logout, kicks, revocation.

use crate::child::Process;
use crate::link::{RawLink, site_and_granted_link, site_and_link};
use crate::site::{Site, command, text, until};
use crate::token::{claims, current_key, token, token_with, unix_s};
use crate::wire::{RawClient, bare, frame, hello, hello_frame, request};
use moorgate::auth::mint;
use moorgate_proto::envelope::member::{client, to_gateway};
use moorgate_proto::status::Code;
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::gateway_frame::Member;
use moorgate_proto::v1::{self, Execution, Reason, Source};
use moorgate_proto::view::Encoded;
use prost::Message;
use serde_json::json;
use std::time::Duration;

fn login(user: &str, roles: &[&str]) -> Action {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    Action::Login(v1::Login { user_id: user.to_owned(), roles, access_ttl_ms: 0 })
}

/// A client on a device logs in as a user by way of the service.
fn logged_in(site: &Site, link: &mut RawLink, user: &str, device: &str) -> (RawClient, v1::LoginResult) {
    let mut client = site.connect();
    client.send(&hello_frame(&v1::Hello { device_id: device.to_owned(), ..hello() }));
    client.welcome();
    client.send(&request(1, command::OPEN, b"password"));
    let call = link.call();
    assert_eq!(call.caller.unwrap().user_id, "");
    link.direct(call.call_id, [login(user, &["admin"])]);
    let login = client.response().login.expect("logged in");
    (client, login)
}

fn authenticate(client: &mut RawClient, access_token: String) -> v1::Authenticated {
    client.send(&frame(0, 0, client::AUTHENTICATE, &v1::Authenticate { access_token }));
    match client.member() {
        Member::Authenticated(answer) => answer,
        other => panic!("no Authenticated: {other:?}"),
    }
}

// spec: A-23, L-57
#[test]
fn a_service_logs_a_session_in_and_the_token_opens_others() {
    let (site, mut link) = site_and_granted_link("");
    let (mut client, login) = logged_in(&site, &mut link, "alice", "phone");
    assert_eq!(login.user_id, "alice");
    assert!(login.access_expires_ms > (unix_s() + 3500) * 1000);
    client.send(&request(2, command::ADMIN, b"x"));
    let call = link.call();
    let caller = call.caller.unwrap();
    assert_eq!((caller.user_id.as_str(), caller.roles), ("alice", vec!["admin".to_owned()]));
    assert_eq!(caller.device_id, "phone");
    link.reply(call.call_id, b"");
    assert_eq!(client.response().status, Code::Ok.to_wire());
    // The token is bound to the device that it was made for, whatever Hello says.
    let mut other = site.connect();
    let access_token = login.access_token;
    other.send(&hello_frame(&v1::Hello { access_token, device_id: "laptop".to_owned(), ..hello() }));
    assert_eq!(other.welcome().user_id, "alice");
    // So the new session is on the same device, and takes the place of the first.
    assert_eq!(client.error_reason(), Reason::Superseded);
    assert_eq!(site.metric("moorgate_logins_total{result=\"done\"}"), 1);
    drop(other);
    site.end();
}

// spec: L-57
#[test]
fn a_login_and_what_it_brings_may_stand_in_one_reply() {
    let (site, mut link) = site_and_granted_link("");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"login"));
    let call = link.call();
    let join = Action::JoinGroup(v1::JoinGroup { group: "g".to_owned(), session_id: bytes::Bytes::new() });
    link.direct(call.call_id, [login("alice", &[]), join]);
    assert!(client.response().login.is_some());
    let target = Some(v1::service_push::Target::Group("g".to_owned()));
    link.push(&v1::ServicePush { push_id: vec![1].into(), target, ..v1::ServicePush::default() });
    assert_eq!(client.push().1.group, "g");
    drop(client);
    site.end();
}

// spec: A-22
#[test]
fn a_login_is_for_anonymous_sessions_only() {
    let (site, mut link) = site_and_granted_link("");
    let mut client = RawClient::log_in(site.address(), token("alice", &[]), "phone");
    client.send(&request(1, command::USER, b"x"));
    let call = link.call();
    let join = Action::JoinGroup(v1::JoinGroup { group: "g".to_owned(), session_id: bytes::Bytes::new() });
    link.direct(call.call_id, [login("mallory", &["admin"]), join]);
    let response = client.response();
    assert_eq!(Code::from_wire(response.status), Code::FailedPrecondition);
    assert_eq!((response.reason(), response.source()), (Reason::AlreadyAuthenticated, Source::Gateway));
    assert_eq!((response.execution(), response.login), (Execution::Executed, None));
    assert_eq!(client.ask(2, command::ADMIN, b"x").reason(), Reason::RoleRequired, "she is still alice");
    assert_eq!(site.metric("moorgate_logins_total{result=\"refused\"}"), 1);
    assert_eq!(site.metric("moorgate_directives_total{result=\"stale\"}"), 1, "what mallory was to join");
    assert_eq!(site.metric("moorgate_group_changes_total{what=\"joined\"}"), 0);
    drop(client);
    site.end();
}

// spec: L-57
#[test]
fn what_stands_behind_a_login_that_is_not_done_is_for_nobody() {
    let (site, mut link) = site_and_granted_link("");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"login"));
    let call = link.call();
    let join = Action::JoinGroup(v1::JoinGroup { group: "g".to_owned(), session_id: bytes::Bytes::new() });
    let directives =
        [login("alice", &[]), join].map(|action| v1::Directive { action: Some(action) }).to_vec();
    let status = Code::NotFound.to_wire();
    let reply = v1::Reply { call_id: call.call_id, status, directives, ..v1::Reply::default() };
    link.send(to_gateway::REPLY, &reply);
    assert_eq!(Code::from_wire(client.response().status), Code::NotFound);
    assert_eq!(site.metric("moorgate_group_changes_total{what=\"joined\"}"), 0);
    assert_eq!(site.metric("moorgate_groups"), 0, "nor is it known to the directory");
    drop(client);
    site.end();
}

// spec: A-24, A-26
#[test]
fn a_logout_ends_the_other_sessions_that_live_by_the_same_token() {
    let (site, mut link) = site_and_granted_link("");
    let shared = token_with("alice", "jti", json!("t-1"));
    let mut phone = RawClient::log_in(site.address(), shared.clone(), "phone");
    let mut laptop = RawClient::log_in(site.address(), shared, "laptop");
    phone.send(&request(1, command::USER, b"bye"));
    let call = link.call();
    link.direct(call.call_id, [Action::Logout(v1::Logout {})]);
    phone.response();
    assert_eq!(phone.error_reason(), Reason::LoggedOut);
    assert_eq!(laptop.error_reason(), Reason::TokenRevoked);
    site.end();
}

// spec: A-24
#[test]
fn a_logout_revokes_no_token_of_another_user_with_the_same_id() {
    let (site, mut link) = site_and_granted_link("");
    let [hers, his] = ["alice", "bob"].map(|user| token_with(user, "jti", json!("1")));
    let mut bob = RawClient::log_in(site.address(), his.clone(), "phone");
    let mut alice = RawClient::log_in(site.address(), hers.clone(), "phone");
    alice.send(&request(1, command::USER, b"bye"));
    let call = link.call();
    link.direct(call.call_id, [Action::Logout(v1::Logout {})]);
    alice.response();
    assert_eq!(alice.error_reason(), Reason::LoggedOut);
    assert_eq!(site.metric("moorgate_revocations"), 1);
    let mut again = site.connect();
    again.send(&hello_frame(&v1::Hello { access_token: hers, ..hello() }));
    assert_eq!(again.error_reason(), Reason::TokenRevoked);
    bob.nothing_else();
    drop(RawClient::log_in(site.address(), his, "laptop"));
    drop(bob);
    site.end();
}

// spec: A-34
#[test]
fn logins_of_one_user_have_a_rate_and_others_are_logged_in() {
    let (site, mut link) = site_and_granted_link("[rates]\nlogins = \"6/h, burst 2\"\n");
    let mut clients: Vec<RawClient> =
        ["phone", "laptop"].map(|device| logged_in(&site, &mut link, "alice", device).0).into();
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"password"));
    let call = link.call();
    link.direct(call.call_id, [login("alice", &[])]);
    let response = client.response();
    let said = (Code::from_wire(response.status), response.reason(), response.execution());
    assert_eq!(said, (Code::ResourceExhausted, Reason::RateLimited, Execution::Executed));
    assert!((1..=600_000).contains(&response.retry_after_ms) && response.login.is_none());
    assert_eq!(site.metric("moorgate_limited_total{limit=\"logins\"}"), 1);
    client.nothing_else();
    clients.push(logged_in(&site, &mut link, "bob", "phone").0);
    drop((clients, client));
    site.end();
}

/// A service that asks for logins that cannot be, and clients that bring it to: one line for each of them.
// spec: L-66
#[test]
fn logins_that_no_token_can_say_fill_no_log() {
    let service = moorgate_service::Service::named("echo").key(crate::site::link_key());
    let long = "r".repeat(65);
    let service = service.handle(0..=u32::MAX, move |_, responder| {
        responder.reply(moorgate_service::Reply::ok(b"").with_login("alice", &[&long], Duration::ZERO));
    });
    let service = service.listen(crate::site::own_address()).unwrap().spawn().unwrap();
    let grants = "[rates]\nconnection = \"off\"\nlogins = \"off\"\n";
    let text = text(service.address(), grants)
        .replace("key_env = \"LINK\"", "key_env = \"LINK\"\ngrants = [\"login\"]");
    let mut process = Process::start(&text);
    process.ready();
    let mut client = process.open();
    for up_seq in 1..=300 {
        let asked = [bare(0, up_seq - 1), request(up_seq, command::OPEN, b"x")].concat();
        client.send(&asked);
        assert_eq!(client.response().reason(), Reason::ReplyInvalid);
    }
    drop(client);
    process.signal("TERM");
    process.ended();
    let lines = process.rest_of_log();
    let of_logins = lines.iter().filter(|line| line.contains("cannot be logged in")).count();
    assert_eq!(of_logins, 1, "{lines:?}");
    service.stop();
    service.join();
}

// spec: A-24
#[test]
fn a_logout_waits_for_room_for_its_answer() {
    let (site, mut link) = site_and_granted_link("[session]\nwindow = 2\nin_flight = 2\n");
    let mut alice = RawClient::log_in(site.address(), token_with("alice", "jti", json!("t-1")), "");
    for push_id in [[1], [2]] {
        let users = v1::Users { user_ids: vec!["alice".to_owned()] };
        let target = Some(v1::service_push::Target::Users(users));
        let push_id = push_id.to_vec().into();
        link.push(&v1::ServicePush { push_id, target, ..v1::ServicePush::default() });
    }
    alice.send(&request(1, command::USER, b"bye"));
    let call = link.call();
    link.direct(call.call_id, [Action::Logout(v1::Logout {})]);
    site.metric_becomes("moorgate_requests_outstanding", 0);
    assert_eq!((alice.push().0, alice.push().0), (1, 2));
    alice.nothing_else();
    alice.send(&bare(0, 2));
    assert_eq!(alice.response().up_seq, 1);
    assert_eq!(alice.error_reason(), Reason::LoggedOut);
    site.end();
}

// spec: L-16
#[test]
fn directives_that_cannot_be_read_end_the_link_and_nothing_is_done() {
    let (site, mut link) = site_and_granted_link("");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"login"));
    let call = link.call();
    // A Reply with one directive that is no message: field 7, one byte, which is no key.
    let mut reply = v1::Reply { call_id: call.call_id, ..v1::Reply::default() }.encode_to_vec();
    reply.extend([7 << 3 | 2, 1, 0xff]);
    link.send(to_gateway::REPLY, &Encoded(&reply));
    let response = client.response();
    assert_eq!((response.source(), response.execution()), (Source::Gateway, Execution::Unknown));
    drop(client);
    site.end();
}

// spec: A-29, L-58
#[test]
fn what_was_asked_before_a_login_stays_anonymous_and_asks_nothing_for_the_user() {
    let (site, mut link) = site_and_granted_link("");
    let mut client = site.open();
    client.send(&[request(1, command::OPEN, b"early"), request(2, command::OPEN, b"login")].concat());
    let (early, entering) = (link.call(), link.call());
    link.direct(entering.call_id, [login("alice", &[])]);
    assert!(client.response().login.is_some());
    // A second login finds a user, and what the early call asks of the session is not asked by her.
    let join = Action::JoinGroup(v1::JoinGroup { group: "g".to_owned(), session_id: bytes::Bytes::new() });
    link.direct(early.call_id, [Action::Logout(v1::Logout {}), join]);
    assert_eq!(client.response().up_seq, 1);
    client.nothing_else();
    assert_eq!(site.metric("moorgate_directives_total{result=\"stale\"}"), 2);
    drop(client);
    site.end();
}

// spec: L-66
#[test]
fn a_login_that_no_token_can_say_is_an_error_of_the_service() {
    let (site, mut link) = site_and_granted_link("");
    let long = "r".repeat(65);
    for (user, role) in [("", "admin"), ("alice", long.as_str())] {
        let mut client = site.open();
        client.send(&request(1, command::OPEN, b"x"));
        let call = link.call();
        link.direct(call.call_id, [login(user, &[role])]);
        let response = client.response();
        assert_eq!(
            (Code::from_wire(response.status), response.reason()),
            (Code::Internal, Reason::ReplyInvalid)
        );
        assert_eq!((response.execution(), response.login), (Execution::Executed, None));
        client.nothing_else();
    }
    until("all are gone", || site.metric("moorgate_sessions") == 0);
    site.end();
}

// spec: A-19, A-20, A-21
#[test]
fn a_refresh_takes_the_same_user_and_device_only() {
    let (site, mut link) = site_and_granted_link("");
    let mut client = RawClient::log_in(site.address(), token("alice", &[]), "phone");
    for (bad, code, reason) in [
        ("rubbish".to_owned(), Code::Unauthenticated, Reason::TokenInvalid),
        (token("bob", &["admin"]), Code::PermissionDenied, Reason::IdentityMismatch),
        (token_with("alice", "device", json!("laptop")), Code::PermissionDenied, Reason::IdentityMismatch),
    ] {
        let answer = authenticate(&mut client, bad);
        assert_eq!((Code::from_wire(answer.status), answer.reason()), (code, reason));
    }
    assert_eq!(client.ask(1, command::ADMIN, b"x").reason(), Reason::RoleRequired);
    let mut more = claims("alice");
    (more["roles"], more["exp"], more["device"]) = (json!(["admin"]), json!(unix_s() + 7200), json!("phone"));
    let answer = authenticate(&mut client, mint(&current_key(), &more));
    assert_eq!(Code::from_wire(answer.status), Code::Ok);
    assert_eq!(answer.access_expires_ms, more["exp"].as_u64().unwrap() * 1000);
    client.send(&request(2, command::ADMIN, b"x"));
    let call = link.call();
    assert_eq!(call.caller.unwrap().roles, ["admin"]);
    link.reply(call.call_id, b"");
    assert_eq!(client.response().status, Code::Ok.to_wire());
    let mut anonymous = site.open();
    assert_eq!(authenticate(&mut anonymous, token("alice", &[])).reason(), Reason::IdentityMismatch);
    assert_eq!(site.metric("moorgate_access_refreshes_total{result=\"done\"}"), 1);
    drop((client, anonymous));
    site.end();
}

// spec: A-17, A-20
#[test]
fn a_refresh_after_the_warning_saves_the_session() {
    let site = Site::start("[auth]\nleeway = \"0s\"\n[session]\nexpiry_grace = \"1m\"\n");
    let mut client = RawClient::log_in(site.address(), token_with("alice", "exp", json!(unix_s() + 4)), "");
    assert_eq!(client.notice().reason(), Reason::TokenExpired);
    assert_eq!(client.ask(1, command::USER, b"x").reason(), Reason::TokenExpired);
    assert_eq!(authenticate(&mut client, token("alice", &[])).status, Code::Ok.to_wire());
    assert_eq!(client.ask(2, command::USER, b"x").status, Code::Ok.to_wire());
    drop(client);
    site.end();
}

// spec: A-24, A-26
#[test]
fn a_logout_answers_ends_the_session_and_makes_its_token_worthless() {
    let (site, mut link) = site_and_granted_link("");
    let (mut client, login) = logged_in(&site, &mut link, "alice", "phone");
    client.send(&request(2, command::USER, b"logout"));
    let call = link.call();
    link.direct(call.call_id, [Action::Logout(v1::Logout {})]);
    assert_eq!(client.response().status, Code::Ok.to_wire());
    let error = client.error();
    assert_eq!((Code::from_wire(error.status), error.reason()), (Code::Unauthenticated, Reason::LoggedOut));
    assert!(!error.reconnect.unwrap().allowed);
    let mut again = site.connect();
    again.send(&hello_frame(&v1::Hello { access_token: login.access_token, ..hello() }));
    let error = again.error();
    assert_eq!(
        (Code::from_wire(error.status), error.reason()),
        (Code::Unauthenticated, Reason::TokenRevoked)
    );
    site.end();
}

// spec: X-17, X-18
#[test]
fn a_kick_ends_all_sessions_of_a_user_or_one() {
    let (site, mut link) = site_and_granted_link("");
    let mut phone = RawClient::log_in(site.address(), token("alice", &[]), "phone");
    let mut laptop = RawClient::log_in(site.address(), token("alice", &[]), "laptop");
    let mut bob = RawClient::log_in(site.address(), token("bob", &[]), "phone");
    bob.send(&request(1, command::USER, b"kick"));
    let call = link.call();
    let session_id = call.caller.as_ref().unwrap().session_id.clone();
    let kick = v1::KickUser { user_id: "alice".to_owned(), message: "é".repeat(200) };
    link.direct(call.call_id, [Action::KickUser(kick)]);
    assert_eq!(bob.response().status, Code::Ok.to_wire());
    for kicked in [&mut phone, &mut laptop] {
        let error = kicked.error();
        assert_eq!((Code::from_wire(error.status), error.reason()), (Code::PermissionDenied, Reason::Kicked));
        assert_eq!((error.message, error.reconnect.unwrap().allowed), ("é".repeat(128), false));
    }
    bob.send(&request(2, command::USER, b"kick me"));
    let call = link.call();
    let forged = v1::KickSession { session_id: vec![7; 16].into(), message: String::new() };
    let own = v1::KickSession { session_id, message: "bye".to_owned() };
    link.direct(call.call_id, [Action::KickSession(forged), Action::KickSession(own)]);
    // Before the Reply is delivered: it finds nobody.
    assert_eq!(bob.error().message, "bye");
    assert_eq!(site.metric("moorgate_directives_total{result=\"stale\"}"), 1);
    site.end();
}

// spec: A-26, A-28
#[test]
fn a_revocation_of_a_user_or_of_one_token_ends_sessions_and_holds_for_new_ones() {
    let (site, mut link) = site_and_granted_link("");
    let (mut phone, login) = logged_in(&site, &mut link, "alice", "phone");
    let mut laptop = RawClient::log_in(site.address(), token_with("alice", "jti", json!("t-1")), "laptop");
    let mut other = RawClient::log_in(site.address(), token_with("alice", "jti", json!("t-2")), "watch");
    let mut bob = RawClient::log_in(site.address(), token("bob", &[]), "");
    bob.send(&request(1, command::USER, b"revoke"));
    let call = link.call();
    let of_token = |user: &str, id: &str| {
        Action::Revoke(v1::Revoke { user_id: user.to_owned(), token_id: id.to_owned() })
    };
    link.direct(call.call_id, [of_token("", "t-1")]);
    bob.response();
    assert_eq!(laptop.error_reason(), Reason::TokenRevoked);
    bob.send(&request(2, command::USER, b"revoke"));
    let call = link.call();
    link.direct(call.call_id, [of_token("alice", "t-2"), of_token("alice", "t-3")]);
    bob.response();
    assert_eq!(other.error_reason(), Reason::TokenRevoked);
    phone.nothing_else();
    bob.send(&request(3, command::USER, b"revoke"));
    let call = link.call();
    link.direct(call.call_id, [of_token("alice", "")]);
    bob.response();
    assert_eq!(phone.error_reason(), Reason::TokenRevoked);
    for access_token in [login.access_token, token("alice", &[])] {
        let mut again = site.connect();
        again.send(&hello_frame(&v1::Hello { access_token, ..hello() }));
        assert_eq!(again.error_reason(), Reason::TokenRevoked);
    }
    // A new login is good at once, within the same second too.
    let (mut client, login) = logged_in(&site, &mut link, "alice", "phone");
    client.nothing_else();
    drop(client);
    let mut again = RawClient::log_in(site.address(), login.access_token, "");
    again.nothing_else();
    drop((again, bob));
    site.end();
}

// spec: A-25
#[test]
fn the_newer_session_of_a_device_takes_the_place_of_the_older() {
    let site = Site::start("");
    let mut first = RawClient::log_in(site.address(), token("alice", &[]), "phone");
    let mut unnamed = RawClient::log_in(site.address(), token("alice", &[]), "");
    let mut second = RawClient::log_in(site.address(), token("alice", &[]), "phone");
    let error = first.error();
    assert_eq!((Code::from_wire(error.status), error.reason()), (Code::Aborted, Reason::Superseded));
    assert!(!error.reconnect.unwrap().allowed);
    let mut other = RawClient::log_in(site.address(), token("alice", &[]), "");
    for client in [&mut unnamed, &mut second, &mut other] {
        client.nothing_else();
    }
    drop((unnamed, second, other));
    site.end();
}

// spec: L-36
#[test]
fn a_service_without_grants_is_refused_each_directive() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    let call = link.call();
    let revoke = Action::Revoke(v1::Revoke { user_id: "alice".to_owned(), token_id: String::new() });
    let kick = Action::KickUser(v1::KickUser { user_id: "alice".to_owned(), message: String::new() });
    let leave = Action::LeaveGroup(v1::LeaveGroup { group: "g".to_owned(), session_id: bytes::Bytes::new() });
    link.direct(call.call_id, [login("root", &["admin"]), revoke, kick, leave]);
    let response = client.response();
    assert_eq!((Code::from_wire(response.status), response.login), (Code::Ok, None));
    assert_eq!(site.metric("moorgate_directives_total{result=\"refused\"}"), 4);
    // More than there may be are all dropped.
    client.send(&request(2, command::OPEN, b"x"));
    let call = link.call();
    let directives = vec![v1::Directive { action: Some(login("root", &[])) }; 17];
    link.send(to_gateway::REPLY, &v1::Reply { call_id: call.call_id, directives, ..v1::Reply::default() });
    assert_eq!(client.response().login, None);
    assert_eq!(site.metric("moorgate_directives_total{result=\"invalid\"}"), 17);
    let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
    alice.nothing_else();
    drop((client, alice));
    site.end();
}

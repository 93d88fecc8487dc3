//! Limits as clients meet them: who is refused what, for how long, and that nothing is kept of it.

use super::*;
use crate::auth::{ACCESS_TTL_DEFAULT, Application, Applications, Issuer};
use crate::base::ids::RouteId;
use crate::base::route_counts::{RouteCounts, Why};
use crate::limit::{self, BanSettings, Bans, Limits, OwnerSettings, Rate, Reserve, Shared, SharedRoom};
use crate::relay::Directive;
use moorgate_proto::limits::FRAME_BYTES_OPENING;
use moorgate_proto::proof::{ApplicationFacts, ApplicationKey};

pub(super) fn rate(count: u32, burst: u32) -> Option<Rate> {
    Rate::new(count, SECOND, burst)
}

pub(super) fn limited(settings: limit::Settings) -> Shared {
    Shared { requests: Arc::new(Limits::new(settings, 1, 1)), ..Shared::unlimited() }
}

pub(super) fn banning(offences: u32) -> Shared {
    let minute = 60 * SECOND;
    let settings = BanSettings { offences, window: minute, first: minute, ..BanSettings::default() };
    Shared { bans: Arc::new(Bans::new(settings, 1)), ..Shared::unlimited() }
}

pub(super) fn hello_of(user_id: &str) -> v1::Hello {
    let expires = BEGIN_UNIX_MS / 1000 + 86_400;
    let claims = serde_json::json!({"sub": user_id, "exp": expires});
    v1::Hello { access_token: mint(&SigningKey::new("k", SECRET).unwrap(), &claims), ..hello() }
}

pub(super) fn nobody() -> v1::Hello {
    v1::Hello { access_token: String::new(), ..hello() }
}

impl World {
    pub(super) fn accept_from(&mut self, last: u8) -> ConnectionKey {
        while self.shard.next_ended().is_some() {}
        self.shard.accepted(self.now, SocketAddr::from(([192, 0, 2, last], 999))).unwrap()
    }

    /// The first thing that a client hears after its Hello.
    pub(super) fn greeted(&mut self, last: u8, hello: v1::Hello) -> (ConnectionKey, gateway_frame::Member) {
        let client = self.accept_from(last);
        self.say(client, 0, client_frame::Member::Hello(hello));
        (client, self.member(client))
    }

    pub(super) fn join_as(&mut self, last: u8, hello: v1::Hello) -> ConnectionKey {
        let (client, member) = self.greeted(last, hello);
        assert!(matches!(member, gateway_frame::Member::Welcome(_)), "{member:?}");
        client
    }

    /// The client's next request, and what it hears at once; `None`: the worker has it.
    pub(super) fn asks(&mut self, client: ConnectionKey, up_seq: u64) -> Option<v1::Response> {
        self.say(client, up_seq, request(OPEN, b"hi"));
        let mut got = self.got(client);
        assert!(got.len() <= 1, "{got:?}");
        match got.pop()?.member {
            Some(gateway_frame::Member::Response(response)) => Some(response),
            other => panic!("a Response, not {other:?}"),
        }
    }
}

fn is_limited(response: &v1::Response, retry_after_ms: u32) {
    let said = (Code::from_wire(response.status), response.reason(), response.execution());
    assert_eq!(said, (Code::ResourceExhausted, Reason::RateLimited, Execution::NotExecuted));
    assert_eq!((response.source(), response.retry_after_ms), (Source::Gateway, retry_after_ms));
}

// spec: U-22
#[test]
fn a_request_above_a_rate_is_refused_with_the_time_after_which_it_passes() {
    let settings = limit::Settings { connection: rate(10, 2), ..limit::Settings::unlimited() };
    let (mut world, client) = World::joined_with(|parts| {
        parts.limits = limited(settings);
        parts.cells = Arc::new(Cells::with_routes(3));
    });
    world.cells = world.shard.cells.clone();
    assert!(world.asks(client, 1).is_none() && world.asks(client, 2).is_none());
    let response = world.asks(client, 3).expect("it is refused");
    is_limited(&response, 100);
    assert_eq!(response.up_seq, 3, "it has taken its number");
    world.pass(Duration::from_millis(u64::from(response.retry_after_ms)));
    assert!(world.asks(client, 4).is_none(), "after the hint it passes");
    assert_eq!(world.tickets().len(), 3);
    assert_eq!(world.count(Count::LimitedConnection), 1);
    let refused = |why| RouteCounts::sum([&world.cells.routes], RouteId(1), why);
    assert_eq!((refused(Why::Rate), refused(Why::Role)), (1, 0));
}

// spec: U-22
#[test]
fn what_is_refused_otherwise_is_charged_nothing() {
    let settings = limit::Settings { connection: rate(10, 1), ..limit::Settings::unlimited() };
    let mut world = World::with(|parts| {
        parts.limits = limited(settings);
        parts.cells = Arc::new(Cells::with_routes(3));
    });
    let client = world.join_as(1, nobody());
    for (up_seq, command, reason) in [(1, CHAT, Reason::LoginRequired), (2, 99, Reason::NoRoute)] {
        world.say(client, up_seq, request(command, b"hi"));
        assert_eq!(world.response(client).reason(), reason);
    }
    assert!(world.asks(client, 3).is_none());
    let counts = &world.shard.cells.routes;
    let refused = |route, why| RouteCounts::sum([counts], RouteId(route), why);
    assert_eq!((refused(0, Why::Login), refused(1, Why::Rate)), (1, 0));
}

// spec: U-23, U-24
#[test]
fn a_request_is_unanswered_until_the_service_is_done_whatever_its_client_does() {
    let owner = OwnerSettings { rate: None, outstanding_max: Some(2) };
    let settings = limit::Settings { user: owner, ..limit::Settings::unlimited() };
    let (mut world, client) = World::joined_with(|parts| parts.limits = limited(settings));
    let other = world.join_as(2, hello());
    assert!(world.asks(client, 1).is_none() && world.asks(client, 2).is_none());
    let tickets = world.tickets();
    world.say(client, 0, cancel(1));
    assert_eq!(world.forwards().cancels, [tickets[0]]);
    is_limited(&world.asks(other, 1).expect("a cancel gives nothing back"), 200);
    world.shard.peer_closed(world.now, client);
    is_limited(&world.asks(other, 2).expect("nor does the end of a session"), 200);
    world.settle(tickets[0], b"");
    assert!(world.asks(other, 3).is_none());
    is_limited(&world.asks(other, 4).unwrap(), 200);
    let third = world.tickets()[0];
    world.settle(tickets[1], b"");
    world.settle(third, b"");
    assert_eq!(world.count(Count::LimitedOutstandingUser), 3);
    world.shard.peer_closed(world.now, other);
    assert_eq!(world.shard.limits.shares(), 0, "nothing is left");
}

#[test]
fn a_session_that_rests_holds_nothing() {
    let shared = limited(limit::Settings {
        application: OwnerSettings { rate: rate(10, 5), outstanding_max: Some(5) },
        ..limit::Settings::default()
    });
    let requests = shared.requests.clone();
    let (mut world, client) = World::joined_with(|parts| parts.limits = shared);
    assert_eq!((world.shard.limits.shares(), requests.accounts()), (0, 0), "it has asked for nothing yet");
    assert!(world.asks(client, 1).is_none());
    let ticket = world.tickets()[0];
    world.settle(ticket, b"");
    world.got(client);
    assert_eq!((world.shard.limits.shares(), requests.accounts()), (3, 3));
    // The next deadline of the connection finds it idle.
    world.pass(2 * session::Settings::default().heartbeat - SECOND);
    world.say(client, 0, ping(0));
    world.got(client);
    world.pass(2 * SECOND);
    assert_eq!((world.shard.limits.shares(), requests.accounts(), world.shard.sessions()), (0, 0, 1));
    assert!(world.asks(client, 2).is_none());
}

// spec: F-15
#[test]
fn too_many_frames_end_the_connection_whatever_is_in_them() {
    let settings = limit::Settings { frames: rate(10, 3), ..limit::Settings::unlimited() };
    let (mut world, client) = World::joined_with(|parts| parts.limits = limited(settings));
    // The Hello was the first.
    (0..2).for_each(|_| world.say(client, 0, ping(0)));
    assert_eq!(world.got(client).len(), 2);
    world.pass(Duration::from_millis(40));
    world.say(client, 0, ping(0));
    let gateway_frame::Member::Error(error) = world.member(client) else { panic!("an Error") };
    assert_eq!(
        (Code::from_wire(error.status), error.reason()),
        (Code::ResourceExhausted, Reason::RateLimited)
    );
    let reconnect = error.reconnect.unwrap();
    assert_eq!((reconnect.allowed, reconnect.after_ms), (true, 60));
    assert_eq!((world.count(Count::CloseLimited), world.count(Count::LimitedFrames)), (1, 1));
}

// spec: O-29
#[test]
fn an_address_with_too_many_bad_tokens_is_banned_and_the_others_are_not() {
    let mut world = World::with(|parts| parts.limits = banning(3));
    let forged = || v1::Hello { access_token: token(SECOND).replace('.', ".A"), ..hello() };
    for _ in 0..4 {
        let (_, member) = world.greeted(7, forged());
        let gateway_frame::Member::Error(error) = member else { panic!("an Error") };
        assert_eq!(error.reason(), Reason::TokenInvalid);
    }
    world.pass(10 * SECOND);
    let (_, member) = world.greeted(7, nobody());
    let gateway_frame::Member::Error(error) = member else { panic!("an Error") };
    assert_eq!((Code::from_wire(error.status), error.reason()), (Code::PermissionDenied, Reason::Banned));
    let reconnect = error.reconnect.unwrap();
    assert_eq!((reconnect.allowed, reconnect.after_ms), (true, 50_000), "what is left of the ban");
    assert_eq!((world.count(Count::RefusedBanned), world.count(Count::OffencesToken)), (1, 4));
    world.join_as(8, hello());
    world.pass(50 * SECOND);
    world.join_as(7, hello());
}

#[test]
fn clients_whose_tokens_have_only_expired_are_not_banned() {
    let mut world = World::with(|parts| parts.limits = banning(1));
    for _ in 0..10 {
        let (_, member) = world.greeted(7, v1::Hello { access_token: token(Duration::ZERO), ..hello() });
        let gateway_frame::Member::Error(error) = member else { panic!("an Error") };
        assert_eq!(error.reason(), Reason::TokenExpired);
    }
    world.join_as(7, hello());
}

#[test]
fn a_user_is_banned_for_what_it_does_and_its_address_is_not() {
    let mut world = World::with(|parts| parts.limits = banning(1));
    for _ in 0..2 {
        let client = world.join_as(7, hello_of("mallory"));
        world.shard.received(world.now, client, &[0, 0, 0, 1, 0xff]);
        assert_eq!(world.error(client).0, Reason::FrameMalformed);
    }
    let (_, member) = world.greeted(9, hello_of("mallory"));
    let gateway_frame::Member::Error(error) = member else { panic!("an Error") };
    assert_eq!((error.reason(), error.reconnect.unwrap().after_ms), (Reason::Banned, 60_000));
    world.join_as(7, hello_of("alice"));
    world.join_as(7, nobody());
    // Whoever names another application is still the same: anybody can.
    let (_, member) = world.greeted(9, v1::Hello { application: "games".to_owned(), ..hello_of("mallory") });
    assert!(matches!(member, gateway_frame::Member::Error(error) if error.reason() == Reason::Banned));
}

/// A Hello with the proof that it is of this application.
pub(super) fn proved(application: &str, key: &ApplicationKey, hello: v1::Hello) -> v1::Hello {
    let (time_ms, nonce) = (BEGIN_UNIX_MS, [9; 16]);
    let facts = ApplicationFacts { application, device_id: "", time_ms, nonce: &nonce };
    let mac = facts.prove(key).to_vec().into();
    let proof = v1::ApplicationProof { time_ms, mac, nonce: nonce.to_vec().into() };
    v1::Hello { application: application.to_owned(), application_proof: Some(proof), ..hello }
}

/// Lets in only the applications "im" and "games", which have this key.
pub(super) fn of_proved_applications(key: &ApplicationKey) -> Arc<Authority> {
    let known = ["im", "games"].map(|name| (name.to_owned(), Application::Known(key.clone())));
    let keys = KeyRing::new(vec![SigningKey::new("k", SECRET).unwrap()], None, None, 0).unwrap();
    let applications = Applications::new(known.into());
    Arc::new(Authority { applications, ..Authority::of_keys(keys) })
}

#[test]
fn where_applications_prove_themselves_a_user_is_one_of_each() {
    let key = ApplicationKey::new(&[5; 16]).unwrap();
    let mut world = World::with(|parts| {
        parts.limits = banning(1);
        parts.authority = of_proved_applications(&key);
    });
    let forged = proved("im", &ApplicationKey::new(&[6; 16]).unwrap(), nobody());
    let (_, member) = world.greeted(8, forged);
    assert!(
        matches!(member, gateway_frame::Member::Error(error) if error.reason() == Reason::ApplicationRefused)
    );
    assert_eq!(world.count(Count::OffencesProof), 1);
    let (_, member) = world.greeted(8, v1::Hello { application: "old".to_owned(), ..nobody() });
    assert!(matches!(member, gateway_frame::Member::Error(_)));
    assert_eq!(
        world.count(Count::OffencesProof),
        1,
        "of an unknown one nothing is believed or held against it"
    );
    for _ in 0..2 {
        let client = world.join_as(7, proved("im", &key, hello_of("mallory")));
        world.shard.received(world.now, client, &[0, 0, 0, 1, 0xff]);
        assert_eq!(world.error(client).0, Reason::FrameMalformed);
    }
    let (_, member) = world.greeted(7, proved("im", &key, hello_of("mallory")));
    assert!(matches!(member, gateway_frame::Member::Error(error) if error.reason() == Reason::Banned));
    world.join_as(7, proved("games", &key, hello_of("mallory")));
}

// spec: X-20
#[test]
fn an_address_that_tries_passwords_is_banned_on_its_open_connection() {
    let mut world = World::with(|parts| {
        parts.limits = banning(2);
        parts.settings.login_services = vec![ServiceId(0)];
    });
    let (client, other) = (world.join_as(7, nobody()), world.join_as(7, hello()));
    let refused =
        Outcome { source: Source::Service, ..Outcome::refused(Code::Unauthenticated, Reason::Unspecified) };
    let fail = |world: &mut World, client, up_seq| {
        assert!(world.asks(client, up_seq).is_none());
        let ticket = world.tickets()[0];
        let mut batch = DeliveryBatch::default();
        batch.deliveries.push(Delivery::Settled(Settled::bare(ticket, refused)));
        world.shard.delivered(world.now, batch);
        world.got(client)
    };
    for up_seq in 1..=9 {
        assert_eq!(fail(&mut world, other, up_seq).len(), 1);
    }
    assert_eq!(world.count(Count::OffencesLogin), 0, "who is logged in does not log in");
    assert_eq!([1, 2].map(|up_seq| fail(&mut world, client, up_seq).len()), [1, 1]);
    let last = fail(&mut world, client, 3);
    let members: Vec<_> = last.into_iter().filter_map(|frame| frame.member).collect();
    let [gateway_frame::Member::Response(_), gateway_frame::Member::Error(error)] = &members[..] else {
        panic!("{members:?}")
    };
    assert_eq!((error.reason(), world.count(Count::OffencesLogin)), (Reason::Banned, 3));
    // Others of the address go on; new ones need a token.
    assert_eq!(fail(&mut world, other, 10).len(), 1);
    let (_, member) = world.greeted(7, nobody());
    assert!(matches!(member, gateway_frame::Member::Error(error) if error.reason() == Reason::Banned));
    world.join_as(7, hello());
}

#[test]
fn who_logs_in_is_counted_as_a_user_from_then_on() {
    let owner = OwnerSettings { rate: rate(1, 2), outstanding_max: None };
    let settings = limit::Settings { user: owner, ..limit::Settings::unlimited() };
    let (mut world, alice) = World::joined_with(|parts| {
        parts.limits = limited(settings);
        let key = SigningKey::new("k", SECRET).unwrap();
        let issuer = Issuer {
            key: key.clone(),
            issuer: None,
            audience: None,
            ttl: ACCESS_TTL_DEFAULT,
            ttl_max: ACCESS_TTL_DEFAULT,
        };
        let keys = KeyRing::new(vec![key], None, None, 0).unwrap();
        parts.authority = Arc::new(Authority { issuer: Some(issuer), ..Authority::of_keys(keys) });
    });
    (1..=2).for_each(|up_seq| assert!(world.asks(alice, up_seq).is_none()));
    world.tickets();
    let client = world.join_as(7, nobody());
    (1..=5).for_each(|up_seq| assert!(world.asks(client, up_seq).is_none(), "nobody is no user"));
    let ticket = world.tickets()[4];
    let login = Directive::Login { user_id: "alice".into(), roles: Vec::new().into(), ttl: SECOND * 60 };
    let mut batch = DeliveryBatch::default();
    let settled = Settled { directives: Some([login].into()), ..Settled::bare(ticket, ok()) };
    batch.deliveries.push(Delivery::Settled(settled));
    world.shard.delivered(world.now, batch);
    world.got(client);
    is_limited(&world.asks(client, 6).expect("she has used up her rate"), 1000);
}

// spec: X-20
#[test]
fn who_goes_on_asking_above_its_rate_is_banned_and_its_connection_ends() {
    let settings = limit::Settings { connection: rate(1, 1), ..limit::Settings::unlimited() };
    let shared = Shared { requests: limited(settings).requests, ..banning(2) };
    let mut world = World::with(|parts| parts.limits = shared);
    let client = world.join_as(7, nobody());
    assert!(world.asks(client, 1).is_none());
    for up_seq in 2..=21 {
        is_limited(&world.asks(client, up_seq).unwrap(), 1000);
    }
    world.say(client, 22, request(OPEN, b"hi"));
    let mut got = world.got(client);
    let Some(gateway_frame::Member::Error(error)) = got.pop().unwrap().member else { panic!("an Error") };
    assert_eq!((error.reason(), error.admitted), (Reason::Banned, 22));
    let Some(gateway_frame::Member::Response(response)) = got.pop().unwrap().member else {
        panic!("a Response")
    };
    is_limited(&response, 1000);
    assert_eq!((world.count(Count::OffencesRate), world.count(Count::CloseBanned)), (21, 1));
}

#[test]
fn a_limit_that_others_have_used_up_is_no_offence() {
    let owner = |burst| OwnerSettings { rate: rate(1, burst), outstanding_max: None };
    let settings =
        limit::Settings { address: owner(3), application: owner(5), ..limit::Settings::unlimited() };
    let shared = Shared { requests: limited(settings).requests, ..banning(1) };
    let mut world = World::with(|parts| parts.limits = shared);
    let alice = world.join_as(7, hello());
    (1..=3).for_each(|up_seq| assert!(world.asks(alice, up_seq).is_none()));
    let client = world.join_as(7, hello_of("bob"));
    for up_seq in 1..=50 {
        assert!(world.asks(client, up_seq).is_some(), "of the address there is nothing left");
    }
    assert_eq!((world.count(Count::LimitedAddress), world.count(Count::OffencesRate)), (50, 0));
    let nobody = world.join_as(8, nobody());
    (1..=2).for_each(|up_seq| assert!(world.asks(nobody, up_seq).is_none()));
    assert!(world.asks(nobody, 3).is_some(), "nor of the application");
    assert_eq!((world.count(Count::LimitedApplication), world.count(Count::OffencesRate)), (1, 0));
}

// spec: O-22
#[test]
fn connections_without_a_session_have_their_bound_and_give_it_back() {
    let mut world = World::with(|parts| parts.settings.handshakes_max = 2);
    let (first, _second) = (world.accept_from(1), world.accept_from(1));
    let third = world.accept_from(1);
    assert_eq!(world.error(third), (Reason::ConnectionLimit, true));
    assert_eq!(world.count(Count::RefusedHandshakes), 1);
    world.say(first, 0, client_frame::Member::Hello(hello()));
    assert_eq!(world.got(first).len(), 1);
    let fourth = world.accept_from(1);
    assert!(world.got(fourth).is_empty(), "there is room for it");
    world.shard.peer_closed(world.now, fourth);
    let mut half = u32::try_from(FRAME_BYTES_OPENING).unwrap().to_be_bytes().to_vec();
    half.push(0);
    let fifth = world.accept_from(1);
    world.shard.received(world.now, fifth, &half);
    world.pass(Settings::default().handshake_timeout + TICK);
    assert_eq!(world.error(fifth).0, Reason::HandshakeTimeout);
    world.join_as(1, hello());
}

// spec: O-30
#[test]
fn the_last_places_are_for_clients_with_a_token() {
    let reserve = Reserve { percent: 20 };
    let of_shard = World::with(|parts| {
        (parts.settings.reserve, parts.settings.connections_max) = (reserve, 10);
    });
    let of_process = World::with(|parts| {
        parts.settings.reserve = reserve;
        parts.limits.room = Arc::new(SharedRoom::new(10));
    });
    for mut world in [of_shard, of_process] {
        let clients: Vec<ConnectionKey> = (0..8).map(|_| world.join_as(1, nobody())).collect();
        let (_, member) = world.greeted(1, nobody());
        let gateway_frame::Member::Error(error) = member else { panic!("an Error") };
        assert_eq!(
            (Code::from_wire(error.status), error.reason()),
            (Code::ResourceExhausted, Reason::ConnectionLimit)
        );
        assert_eq!(
            error.reconnect.map(|reconnect| (reconnect.allowed, reconnect.after_ms > 0)),
            Some((true, true))
        );
        assert_eq!(world.count(Count::RefusedReserve), 1);
        world.join_as(1, hello());
        world.pass(Settings::default().linger + TICK);
        world.shard.peer_closed(world.now, clients[0]);
        world.shard.peer_closed(world.now, clients[1]);
        world.join_as(1, nobody());
    }
}

/// Of many that connect before the first of them sends its Hello those that find room are served.
// spec: O-30
#[test]
fn connections_without_a_session_use_none_of_the_room_for_clients_without_a_token() {
    let mut world = World::with(|parts| {
        (parts.settings.reserve, parts.settings.connections_max) = (Reserve { percent: 20 }, 10);
        parts.limits.room = Arc::new(SharedRoom::new(10));
    });
    let clients: Vec<ConnectionKey> = (0..10).map(|_| world.accept_from(1)).collect();
    let answers = clients.into_iter().map(|client| {
        world.say(client, 0, client_frame::Member::Hello(nobody()));
        matches!(world.member(client), gateway_frame::Member::Welcome(_))
    });
    assert_eq!(answers.collect::<Vec<_>>(), [[true; 8].as_slice(), &[false; 2]].concat());
    assert_eq!(world.count(Count::RefusedReserve), 2);
}

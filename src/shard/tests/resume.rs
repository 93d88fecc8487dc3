//! Sessions that lose their connections, and clients that come back.

use super::limits::hello_of;
use super::*;
use crate::auth::{Issuer, ResumeTokens};
use crate::base::ids::{SessionKey, ShardId};
use crate::directory::{self, Directory, Kick, Life};
use crate::limit::{BanSettings, Bans, Offence, Shared, SharedRoom, Subject};
use crate::relay::{Audience, Directive, PushOrder};
use crate::session::Fault;
use crate::session::test_push::PushDraft;
use crate::shard::resume::TOMBSTONES_MAX;
use crate::shard::{DetachedCaps, HandOver};
use moorgate_proto::v1::{Action, ResumeResult};

/// What a client knows of its session.
#[derive(Clone)]
struct Client {
    key: ConnectionKey,
    token: bytes::Bytes,
    attempt: u64,
    /// What it has taken.
    down_seq: u64,
}

impl World {
    /// One whose services may log users in.
    fn that_logs_in() -> World {
        World::with(|parts| {
            let key = SigningKey::new("k", SECRET).unwrap();
            let mut authority = Authority::of_keys(KeyRing::new(vec![key.clone()], None, None, 0).unwrap());
            let (ttl, ttl_max) = (60 * SECOND, 60 * SECOND);
            authority.issuer = Some(Issuer { key, issuer: None, audience: None, ttl, ttl_max });
            parts.authority = Arc::new(authority);
        })
    }

    /// The service answers a request by logging alice in.
    fn log_in(&mut self, ticket: Ticket) {
        let login = Directive::Login { user_id: "alice".into(), roles: [].into(), ttl: 60 * SECOND };
        let settled = Settled { directives: Some([login].into()), ..Settled::bare(ticket, ok()) };
        let batch =
            DeliveryBatch { deliveries: vec![Delivery::Settled(settled)], ..DeliveryBatch::default() };
        self.shard.delivered(self.now, batch);
    }

    fn comer(&mut self, hello: v1::Hello) -> Client {
        let key = self.accept();
        self.say(key, 0, client_frame::Member::Hello(hello));
        let welcome = welcome(self.member(key));
        assert_eq!(welcome.detached_ttl_ms, 120_000);
        Client { key, token: welcome.resume_token, attempt: 0, down_seq: 0 }
    }

    fn lose(&mut self, client: &Client) {
        self.shard.peer_closed(self.now, client.key);
    }

    /// The client comes back and says this Hello; what it got.
    fn back_with(&mut self, client: &mut Client, hello: v1::Hello) -> Vec<v1::GatewayFrame> {
        client.attempt += 1;
        let (resume_token, attempt, down_seq) = (client.token.clone(), client.attempt, client.down_seq);
        let resume = Some(v1::Resume { resume_token, attempt, down_seq });
        client.key = self.accept();
        self.say(client.key, 0, client_frame::Member::Hello(v1::Hello { resume, ..hello }));
        self.got(client.key)
    }

    /// The same; the Welcome that it must have got, and what stands behind it. It has the new token.
    fn back(&mut self, client: &mut Client) -> (v1::Welcome, Vec<v1::GatewayFrame>) {
        let mut got = self.back_with(client, hello());
        let welcome = welcome(got.remove(0).member.unwrap());
        client.token = welcome.resume_token.clone();
        (welcome, got)
    }

    /// A client with a token of before, and the attempt to go with it.
    fn result_of(&mut self, client: &Client, token: &bytes::Bytes) -> ResumeResult {
        let mut copy = Client { key: client.key, token: token.clone(), ..*client };
        welcome(self.back_with(&mut copy, hello()).remove(0).member.unwrap()).resume_result()
    }

    fn push(&mut self, body: &v1::Push) {
        let push = PushDraft::of(&body.encode_to_vec()).push();
        let order = PushOrder { push, audience: Audience::Everyone, reserved: 0 };
        let mut batch = DeliveryBatch::default();
        batch.deliveries.push(Delivery::Push(order));
        self.shard.delivered(self.now, batch);
        self.shard.fan_out(self.now);
    }

    fn session_key(&self) -> SessionKey {
        self.shard.sessions.keys().next().unwrap()
    }
}

fn welcome(member: gateway_frame::Member) -> v1::Welcome {
    match member {
        gateway_frame::Member::Welcome(welcome) => welcome,
        other => panic!("a Welcome, not {other:?}"),
    }
}

fn error(frames: &[v1::GatewayFrame]) -> (Reason, v1::Reconnect) {
    match frames {
        [v1::GatewayFrame { member: Some(gateway_frame::Member::Error(error)), .. }] => {
            (error.reason(), error.reconnect.clone().unwrap())
        }
        other => panic!("an Error, not {other:?}"),
    }
}

/// Number, and what it is: the request of a Response, or the command of a push.
fn numbered(frames: &[v1::GatewayFrame]) -> Vec<(u64, u64)> {
    let number = |frame: &v1::GatewayFrame| match frame.member.as_ref().unwrap() {
        gateway_frame::Member::Response(response) => (frame.down_seq, response.up_seq),
        gateway_frame::Member::Push(push) => (frame.down_seq, u64::from(push.command)),
        other => panic!("{other:?}"),
    };
    frames.iter().map(number).collect()
}

// spec, U-3
#[test]
fn what_was_not_acknowledged_comes_again_and_what_came_meanwhile_behind_it() {
    let mut world = World::new();
    let mut client = world.comer(hello());
    for up_seq in 1..=3 {
        world.request(client.key, up_seq);
    }
    let tickets = world.tickets();
    world.settle(tickets[0], b"one");
    world.push(&v1::Push { command: 77, ..v1::Push::default() });
    assert_eq!(numbered(&world.got(client.key)), [(1, 1), (2, 77)]);
    client.down_seq = 1;
    world.lose(&client);
    assert_eq!((world.shard.sessions(), world.shard.detached(), world.shard.connections()), (1, 1, 0));
    world.settle(tickets[2], b"three");
    world.push(&v1::Push { command: 78, ..v1::Push::default() });
    let (welcome, behind) = world.back(&mut client);
    assert_eq!((welcome.resume_result(), welcome.admitted), (ResumeResult::Resumed, 3));
    assert_eq!(numbered(&behind), [(2, 77), (3, 3), (4, 78)], "replayed, then what waited, answers first");
    world.request(client.key, 3);
    assert_eq!(world.count(Count::RequestsRepeated), 1, "it was admitted before");
    world.settle(tickets[1], b"two");
    assert_eq!(numbered(&world.got(client.key)), [(5, 2)]);
    world.request(client.key, 4);
    assert_eq!(world.tickets().len(), 1);
}

// spec
#[test]
fn lost_welcomes_lock_nobody_out_and_old_tokens_die_when_the_client_has_spoken() {
    let mut world = World::new();
    let mut client = world.comer(hello());
    let first = client.token.clone();
    for _ in 0..3 {
        world.lose(&client);
        let got = world.back_with(&mut client, hello());
        assert_eq!(welcome(got[0].member.clone().unwrap()).resume_result(), ResumeResult::Resumed);
        // The Welcome is lost: the client still has its first token.
    }
    world.lose(&client);
    let (_, _) = world.back(&mut client);
    world.say(client.key, 0, ping(0));
    world.lose(&client);
    let mut copy = Client { token: first, ..client.clone() };
    assert_eq!(error(&world.back_with(&mut copy, hello())), not_resumed(Reason::ResumeStale, true));
    let left_alone = (world.count(Count::ResumesStale), world.shard.sessions(), world.shard.detached());
    assert_eq!(left_alone, (1, 1, 1), "no fresh session in its place");
    let (welcome, _) = world.back(&mut Client { attempt: 9, ..client });
    assert_eq!(welcome.resume_result(), ResumeResult::Resumed);
}

// spec
#[test]
fn a_take_over_discards_what_the_old_connection_had_begun() {
    let mut world = World::new();
    let mut client = world.comer(hello());
    let old = client.key;
    world.request(old, 1);
    world.shard.received(world.now, old, &[0, 0, 0]);
    assert_eq!(world.shard.partial_bytes(), 3);
    let (welcome, _) = world.back(&mut client);
    assert_eq!((welcome.resume_result(), welcome.admitted), (ResumeResult::Resumed, 1));
    assert_eq!(world.shard.partial_bytes(), 0);
    let (reason, reconnect) = error(&world.got(old));
    assert_eq!((reason, reconnect.allowed, reconnect.resumable), (Reason::Superseded, false, false));
    world.request(old, 2);
    world.shard.peer_closed(world.now, old);
    assert_eq!((world.shard.sessions(), world.shard.detached(), world.count(Count::TakeOvers)), (1, 0, 1));
    world.request(client.key, 2);
    assert_eq!(world.tickets().len(), 2, "the first, and the second from where the client is");
}

// spec
#[test]
fn access_is_judged_when_the_client_comes_back() {
    let mut world = World::new();
    let short = v1::Hello { access_token: token(60 * SECOND), ..hello() };
    let mut client = world.comer(short.clone());
    world.lose(&client);
    world.pass(70 * SECOND);
    let bare = || v1::Hello { access_token: String::new(), ..hello() };
    let got = world.back_with(&mut client, bare());
    let (reason, reconnect) = error(&got);
    assert_eq!((reason, reconnect.allowed, reconnect.resumable), (Reason::TokenExpired, false, true));
    let claims = serde_json::json!({"sub": "mallory", "exp": BEGIN_UNIX_MS / 1000 + 9_999});
    let mallory = mint(&SigningKey::new("k", SECRET).unwrap(), &claims);
    let (reason, _) = error(&world.back_with(&mut client, v1::Hello { access_token: mallory, ..hello() }));
    assert_eq!((reason, world.shard.detached()), (Reason::IdentityMismatch, 1));
    let (welcome, _) = world.back(&mut client);
    assert_eq!(welcome.resume_result(), ResumeResult::Resumed);
    assert_eq!(welcome.access_expires_ms, BEGIN_UNIX_MS + 86_400_000);
    world.lose(&client);
    let got = world.back_with(&mut client, bare());
    assert_eq!(welcome_of(&got).user_id, "alice", "without a token, as long as its access lasts");
}

fn welcome_of(frames: &[v1::GatewayFrame]) -> v1::Welcome {
    welcome(frames[0].member.clone().unwrap())
}

// spec
#[test]
fn a_session_that_was_ended_is_remembered_and_one_whose_time_was_over_is_not() {
    let mut world = World::new();
    let client = world.comer(hello());
    world.lose(&client);
    let session = world.session_key();
    let session = world.shard.session_ref(session);
    let id = world.shard.directory.id_of(session);
    assert!(world.shard.directory.kick_session(id, Kick::Kicked("enough".into())));
    world.shard.orders(world.now);
    assert_eq!((world.shard.sessions(), world.shard.directory.life(session)), (0, Life::Ended));
    let mut kicked = Client { token: client.token.clone(), ..client };
    let (reason, reconnect) = error(&world.back_with(&mut kicked, hello()));
    assert_eq!((reason, reconnect.allowed), (Reason::Kicked, false), "as if it had been there");
    let mut world = World::new();
    let client = world.comer(hello());
    let revocations = &world.shard.authority.revocations;
    revocations.revoke_user(BEGIN_UNIX_MS / 1000, "alice");
    world.lose(&client);
    world.shard.directory.kick_user("alice", &Kick::Revoked);
    world.shard.orders(world.now);
    let claims = serde_json::json!({"sub": "bob", "exp": BEGIN_UNIX_MS / 1000 + 9_999});
    let access_token = mint(&SigningKey::new("k", SECRET).unwrap(), &claims);
    let mut other = Client { token: client.token.clone(), ..client };
    let got = world.back_with(&mut other, v1::Hello { access_token, ..hello() });
    assert_eq!(welcome_of(&got).resume_result(), ResumeResult::Ended, "with another token a fresh one");
    let mut world = World::new();
    let client = world.comer(hello());
    world.lose(&client);
    world.pass(120 * SECOND + TICK);
    assert_eq!((world.shard.sessions(), world.count(Count::DetachedExpired)), (0, 1));
    assert_eq!(world.result_of(&client, &client.token), ResumeResult::UnknownSession);
}

// spec
#[test]
fn refused_resume_displaces_no_session() {
    let mut world = World::new();
    let mut client = world.comer(hello());
    let first = client.token.clone();
    world.back(&mut client);
    world.say(client.key, 0, ping(0));
    world.got(client.key);
    let resume = |token: &bytes::Bytes, attempt, down_seq| v1::Resume {
        resume_token: token.clone(),
        attempt,
        down_seq,
    };
    let no_token = b"no token".as_slice().into();
    let cases = [
        (resume(&client.token, 0, 0), Reason::ResumeStale, false),
        (resume(&client.token, 1, 0), Reason::ResumeStale, true),
        (resume(&first, 9, 0), Reason::ResumeStale, true),
        (resume(&client.token, 9, 1), Reason::ResumeStale, true),
        (resume(&no_token, 9, 0), Reason::ResumeInvalid, true),
    ];
    for (resume, reason, allowed) in cases {
        let key = world.accept();
        world.say(key, 0, client_frame::Member::Hello(v1::Hello { resume: Some(resume), ..hello() }));
        assert_eq!(error(&world.got(key)), not_resumed(reason, allowed));
        world.say(client.key, 0, ping(1));
        assert!(matches!(world.member(client.key), gateway_frame::Member::Pong(_)), "{reason:?}");
    }
    assert_eq!((world.count(Count::ResumesStale), world.count(Count::ResumesInvalid)), (4, 1));
    assert_eq!(world.shard.sessions(), 1);
}

fn not_resumed(reason: Reason, allowed: bool) -> (Reason, v1::Reconnect) {
    (reason, v1::Reconnect { allowed, ..v1::Reconnect::default() })
}

// spec: R-32
#[test]
fn welcome_in_place_of_a_lost_session_has_an_action() {
    let mut world = World::new();
    for (access_token, user, action) in
        [(hello().access_token, "alice", Action::Resync), (String::new(), "", Action::Reauthenticate)]
    {
        let client = world.comer(hello());
        world.lose(&client);
        world.pass(120 * SECOND + TICK);
        let got = world.back_with(&mut client.clone(), v1::Hello { access_token, ..hello() });
        let welcome = welcome_of(&got);
        assert_eq!((&*welcome.user_id, welcome.action()), (user, action));
    }
    let mut client = world.comer(hello());
    world.lose(&client);
    assert_eq!(world.back(&mut client).0.action(), Action::Unspecified);
}

// spec: X-15
#[test]
fn a_bye_may_keep_the_session_for_a_while() {
    let mut world = World::new();
    let mut client = world.comer(hello());
    world.say(client.key, 0, client_frame::Member::Bye(v1::Bye { keep_for_ms: 5_000 }));
    assert!(matches!(world.member(client.key), gateway_frame::Member::ByeAck(_)));
    assert_eq!(world.shard.detached(), 1);
    assert_eq!(world.back(&mut client).0.resume_result(), ResumeResult::Resumed);
    world.say(client.key, 0, client_frame::Member::Bye(v1::Bye { keep_for_ms: 5_000 }));
    world.pass(5 * SECOND + TICK);
    assert_eq!(world.shard.sessions(), 0);
}

// spec
#[test]
fn a_login_s_token_is_newer_and_the_older_one_is_good_until_the_answer_was_acknowledged() {
    let mut world = World::that_logs_in();
    let mut client = world.comer(v1::Hello { access_token: String::new(), ..hello() });
    let before = client.token.clone();
    world.say(client.key, 1, request(OPEN, b"login"));
    let ticket = world.tickets()[0];
    world.log_in(ticket);
    let login = world.response(client.key).login.unwrap();
    assert!(!login.resume_token.is_empty() && login.resume_token != before);
    world.say(client.key, 0, ping(0));
    world.lose(&client);
    let access_token = login.access_token.clone();
    let got = world.back_with(&mut client, v1::Hello { access_token, ..hello() });
    assert_eq!(welcome_of(&got).resume_result(), ResumeResult::Resumed, "the answer may have been lost");
    // The answer comes again behind the Welcome: the client may take the login's token for the newer one.
    world.ack(client.key, 1);
    world.lose(&client);
    let bare = || v1::Hello { access_token: String::new(), ..hello() };
    let mut copy = Client { token: before.clone(), ..client };
    let got = world.back_with(&mut copy, bare());
    assert_eq!(error(&got), not_resumed(Reason::ResumeStale, true));
    client.token = login.resume_token.clone();
    client.down_seq = 1;
    let got = world.back_with(&mut client, bare());
    assert_eq!(welcome_of(&got).resume_result(), ResumeResult::Resumed);
    client.token = welcome_of(&got).resume_token;
    world.say(client.key, 0, ping(0));
    world.lose(&client);
    let mut copy = Client { token: login.resume_token, ..client };
    let got = world.back_with(&mut copy, bare());
    assert_eq!(error(&got), not_resumed(Reason::ResumeStale, true), "that Welcome came after it");
}

// spec
#[test]
fn what_cannot_be_replayed_is_refused() {
    let mut world = World::new();
    let mut client = world.comer(hello());
    world.push(&v1::Push { command: 77, ..v1::Push::default() });
    world.got(client.key);
    world.lose(&client);
    client.down_seq = 2;
    let got = world.back_with(&mut client, hello());
    assert_eq!(error(&got), not_resumed(Reason::ResumeStale, true), "it was never sent");
    client.down_seq = 1;
    assert_eq!(world.back(&mut client).0.resume_result(), ResumeResult::Resumed);
    world.request(client.key, 9);
    let (reason, reconnect) = error(&world.got(client.key));
    assert_eq!((reason, reconnect.allowed, reconnect.resumable), (Reason::SequenceGap, true, true));
    client.down_seq = 0;
    let got = world.back_with(&mut client, hello());
    assert_eq!(error(&got), not_resumed(Reason::ResumeStale, true), "it was taken, and is gone");
}

// spec: R-25
#[test]
fn a_user_has_so_many_sessions_without_a_connection() {
    let mut world = World::with(|parts| {
        parts.settings.detached = DetachedCaps { user: 2, ..DetachedCaps::default() };
    });
    let clients: Vec<Client> = (0..3).map(|_| world.comer(hello())).collect();
    clients.iter().for_each(|client| world.lose(client));
    assert_eq!((world.shard.detached(), world.count(Count::DetachedEvicted)), (2, 1));
    assert_eq!(world.result_of(&clients[0], &clients[0].token), ResumeResult::UnknownSession);
    assert_eq!(world.result_of(&clients[1], &clients[1].token), ResumeResult::Resumed);
}

#[test]
fn a_user_is_present_for_a_while_without_a_connection() {
    let mut world = World::new();
    let mut client = world.comer(hello());
    let present = |world: &World| world.shard.directory.presence_of("alice");
    world.lose(&client);
    world.pass(9 * SECOND);
    assert_eq!(present(&world), 1);
    world.pass(2 * SECOND);
    assert_eq!(present(&world), 0);
    world.back(&mut client);
    assert_eq!(present(&world), 1);
    world.lose(&client);
    world.pass(200 * SECOND);
    assert_eq!((present(&world), world.shard.directory.users()), (0, 0));
}

/// One account whose sessions supersede each other fills the table of ended ones. Sessions of others stay, and others whose
/// sessions were ended learn of it.
// spec: R-24
#[test]
fn ended_sessions_of_an_attacker_push_out_its_own() {
    let mut world = World::new();
    let of = |user: &str, device: &str| v1::Hello { device_id: device.to_owned(), ..hello_of(user) };
    let mut kicked = world.comer(of("alice", ""));
    world.lose(&kicked);
    let session = world.shard.session_ref(world.session_key());
    let id = world.shard.directory.id_of(session);
    assert!(world.shard.directory.kick_session(id, Kick::Kicked("enough".into())));
    world.shard.orders(world.now);
    let mut user = world.comer(of("bob", ""));
    world.lose(&user);
    let mallory = of("mallory", "phone");
    for _ in 0..=TOMBSTONES_MAX + TOMBSTONES_MAX / 4 {
        let client = world.accept();
        world.say(client, 0, client_frame::Member::Hello(mallory.clone()));
        world.shard.orders(world.now);
        world.flush();
        world.shard.peer_closed(world.now, client);
        world.written.clear();
    }
    let (remembered, sessions) = (world.shard.tombstones.len(), world.shard.sessions());
    assert!(remembered > TOMBSTONES_MAX / 2 && remembered <= TOMBSTONES_MAX, "{remembered}");
    assert_eq!(sessions, 2);
    assert_eq!(welcome_of(&world.back_with(&mut user, of("bob", ""))).resume_result(), ResumeResult::Resumed);
    let (reason, _) = error(&world.back_with(&mut kicked, of("alice", "")));
    assert_eq!(reason, Reason::Kicked, "not pushed out by the others");
}

/// Two shards of one gateway.
fn two() -> [World; 2] {
    two_with(&Shared::unlimited())
}

fn two_with(limits: &Shared) -> [World; 2] {
    let directory = Arc::new(Directory::unrung_with(2, 1, directory::Settings::default()));
    let tokens = Arc::new(ResumeTokens::new(1, &[3; 32]));
    [0, 1].map(|id| {
        World::with(|parts| {
            parts.id = ShardId(id);
            parts.directory = directory.clone();
            parts.resume_tokens = tokens.clone();
            parts.limits = limits.clone();
        })
    })
}

// spec: R-22, O-22
#[test]
fn connection_between_shards_is_counted_in_the_room() {
    let limits = Shared { room: Arc::new(SharedRoom::new(2)), ..Shared::unlimited() };
    let used = || limits.room.used();
    let [mut home, mut other] = two_with(&limits);
    let mut client = home.comer(hello());
    home.lose(&client);
    assert_eq!(used(), 0);
    let one = other.accept();
    other.back_with(&mut client, hello());
    let HandOver { peer, deadline, hello: said, .. } = other.shard.next_hand_over().unwrap();
    assert_eq!((used(), other.shard.connections(), home.shard.connections()), (2, 1, 0));
    assert!(other.shard.accepted(other.now, PEER).is_err(), "there is no room while it is under way");
    while home.shard.next_ended().is_some() {}
    client.key = home.shard.taken_over(home.now, peer, deadline).unwrap();
    home.shard.received(home.now, client.key, &said);
    assert_eq!(welcome_of(&home.got(client.key)).resume_result(), ResumeResult::Resumed);
    assert_eq!(used(), 2);
    home.lose(&client);
    other.back_with(&mut client, hello());
    assert!(other.shard.next_hand_over().is_some());
    home.shard.not_taken_over(&Fault::Overloaded);
    other.shard.peer_closed(other.now, one);
    assert_eq!(used(), 0);
}

// spec: O-22
#[test]
fn silent_connections_of_each_shard_make_room() {
    let limits = Shared { room: Arc::new(SharedRoom::new(2)), ..Shared::unlimited() };
    let [mut one, mut other] = two_with(&limits);
    let (silent, served) = (other.accept(), other.join());
    for world in [&mut one, &mut other] {
        world.pass(Duration::from_secs(2));
    }
    other.shard.share_room(other.now);
    assert_eq!(limits.room.used(), 2, "no connection was refused");
    assert!(one.shard.accepted(one.now, PEER).is_err());
    other.shard.share_room(other.now);
    assert_eq!(other.shard.next_ended(), Some((silent, End::Close(PEER))));
    assert_eq!((other.shard.next_ended(), limits.room.used()), (None, 1));
    assert_eq!(limits.room.room().served, 1);
    assert!(one.shard.accepted(one.now, PEER).is_ok());
    other.shard.peer_closed(other.now, served);
    other.shard.share_room(other.now);
    assert_eq!(limits.room.room().served, 0);
}

// spec: O-22
#[test]
fn connection_that_another_shard_has_accepted_keeps_its_room() {
    let limits = Shared { room: Arc::new(SharedRoom::new(1)), ..Shared::unlimited() };
    let [one, mut other] = two_with(&limits);
    assert!(one.shard.enter_room() && !one.shard.enter_room());
    let client = other.shard.dealt(other.now, PEER).unwrap();
    assert_eq!(limits.room.used(), 1);
    other.shard.peer_closed(other.now, client);
    while other.shard.next_ended().is_some() {}
    other.shard.drain(other.now, Duration::from_secs(1));
    assert!(one.shard.enter_room());
    let refused = other.shard.dealt(other.now, PEER).unwrap();
    assert_eq!(limits.room.used(), 1, "as long as it takes to say so");
    other.shard.peer_closed(other.now, refused);
    assert_eq!(limits.room.used(), 0);
}

// spec: O-22
#[test]
fn connection_that_moves_is_one_without_a_session_for_its_new_shard() {
    let [mut home, mut other] = two_with(&Shared::unlimited());
    let mut client = home.comer(hello());
    home.lose(&client);
    home.shard.settings.handshakes_max = 1;
    let silent = home.accept();
    other.back_with(&mut client, hello());
    let HandOver { peer, deadline, .. } = other.shard.next_hand_over().unwrap();
    assert!(home.shard.taken_over(home.now, peer, deadline).is_err());
    assert_eq!(home.count(Count::RefusedHandshakes), 1);
    home.shard.peer_closed(home.now, silent);
}

/// The time of a handshake is one, on whichever shards it is.
// spec: O-5, O-29
#[test]
fn hello_that_moves_proves_nothing_before_its_session_is_found() {
    let ban = BanSettings { offences: 1, ..BanSettings::default() };
    let limits = Shared { bans: Arc::new(Bans::new(ban, 1)), ..Shared::unlimited() };
    let [mut home, mut other] = two_with(&limits);
    let mut client = home.comer(hello());
    home.lose(&client);
    let address = Subject::address(PEER.ip());
    let offend = || limits.bans.offend(home.now.mono, &address, Offence::Violation);
    assert!(offend().is_none() && offend().is_some());
    other.pass(SECOND);
    home.pass(SECOND);
    let now = home.now.mono;
    let charged = || (0..100).filter(|_| limits.bans.may_connect(now, &address).is_ok()).count();
    // Its connection is one of the 20 that may come.
    other.back_with(&mut client, hello());
    assert_eq!(charged(), 19, "nothing is given back yet");
    let HandOver { peer, deadline, hello: said, .. } = other.shard.next_hand_over().unwrap();
    assert_eq!(deadline, other.now.mono + Settings::default().handshake_timeout);
    while home.shard.next_ended().is_some() {}
    client.key = home.shard.taken_over(home.now, peer, deadline).unwrap();
    home.shard.received(home.now, client.key, &said);
    assert_eq!(welcome_of(&home.got(client.key)).resume_result(), ResumeResult::Resumed);
    assert_eq!(charged(), 1, "now it is");
}

// spec
#[test]
fn a_client_that_comes_back_elsewhere_goes_to_the_shard_that_has_its_session() {
    let [mut home, mut other] = two();
    let mut client = home.comer(hello());
    let old = client.key;
    assert!(other.back_with(&mut client, hello()).is_empty());
    let HandOver { connection, peer, to, deadline, hello, .. } = other.shard.next_hand_over().unwrap();
    assert_eq!((connection, to, other.shard.next_hand_over()), (client.key, ShardId(0), None));
    assert_eq!((other.shard.connections(), other.shard.handshakes), (0, 0));
    while home.shard.next_ended().is_some() {}
    client.key = home.shard.taken_over(home.now, peer, deadline).unwrap();
    home.shard.received(home.now, client.key, &hello);
    let got = home.got(client.key);
    assert_eq!(welcome_of(&got).resume_result(), ResumeResult::Resumed);
    assert_eq!(error(&home.got(old)).0, Reason::Superseded);
    assert_eq!((home.count(Count::ConnectionsAccepted), other.count(Count::ConnectionsAccepted)), (1, 1));
    // One that goes before it is handed over is nobody's.
    other.back_with(&mut client, super::hello());
    other.shard.peer_closed(other.now, client.key);
    assert_eq!(other.shard.next_hand_over(), None);
}

// spec
#[test]
fn a_login_that_comes_when_its_client_is_away_puts_out_nobody_who_is_here() {
    let mut world = World::that_logs_in();
    let phone = || v1::Hello { device_id: "phone".to_owned(), ..hello() };
    let ghost = world.comer(v1::Hello { access_token: String::new(), ..phone() });
    world.say(ghost.key, 1, request(OPEN, b"login"));
    let ticket = world.tickets()[0];
    world.lose(&ghost);
    let here = world.comer(phone());
    world.log_in(ticket);
    world.shard.orders(world.now);
    world.say(here.key, 0, ping(0));
    assert!(matches!(world.member(here.key), gateway_frame::Member::Pong(_)));
    assert_eq!(
        (world.shard.sessions(), world.shard.detached(), world.count(Count::DetachedEnded)),
        (1, 0, 1)
    );
}

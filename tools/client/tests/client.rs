//! The client against gateways by hand, on loopback.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod peer;

use moorgate_client::{
    Action, ApplicationKey, Backoff, Builder, Client, ClientError, Connection, Ending, Event, Events,
    Execution, Missed, Options, Policy, Reason, RequestOptions, Setback, State, TokenError, TokenNeed,
    fresh_key,
};
use moorgate_proto::envelope::member::gateway;
use moorgate_proto::proof::ApplicationFacts;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, client_frame::Member};
use peer::{Listener, PATIENCE, Peer};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

const HEARTBEAT_MS: u32 = 60_000;

fn builder(address: &str) -> Builder {
    let backoff = Backoff { base: Duration::from_millis(5), max: Duration::from_millis(20) };
    let options = Options { opening_timeout: PATIENCE, ..Options::default() };
    Client::builder(address).options(options).backoff(backoff)
}

/// A client with a session of this user.
fn opened(listener: &Listener, user_id: &str) -> (Client, Events, Peer) {
    let token = if user_id.is_empty() { "" } else { "token" };
    let (client, events) = builder(&listener.address()).access_token(token).start_with_events().unwrap();
    let mut peer = listener.accept();
    assert_eq!(peer.hello().access_token, token);
    peer.welcome_user(user_id, HEARTBEAT_MS, 0);
    assert_eq!(client.opened(PATIENCE), Ok(user_id.to_owned()));
    (client, events, peer)
}

/// The next event that is of this kind.
fn find<T>(events: &Events, of: impl Fn(Event) -> Option<T>) -> T {
    loop {
        let event = events.next_within(PATIENCE).unwrap();
        if let Some(found) = of(event) {
            return found;
        }
    }
}

fn away(event: Event) -> Option<(Duration, Setback)> {
    match event {
        Event::State(State::Away { retry_in, why }) => Some((retry_in, why)),
        _ => None,
    }
}

fn open(event: Event) -> Option<String> {
    match event {
        Event::State(State::Open { user_id, .. }) => Some(user_id),
        _ => None,
    }
}

fn ended(event: Event) -> Option<Ending> {
    match event {
        Event::State(State::Ended(ending)) => Some(ending),
        _ => None,
    }
}

fn resync(event: Event) -> Option<Missed> {
    match event {
        Event::Resync(missed) => Some(missed),
        _ => None,
    }
}

fn error(reason: Reason, allowed: bool) -> v1::Error {
    let reconnect = Some(v1::Reconnect { allowed, ..v1::Reconnect::default() });
    v1::Error { reason: reason.into(), reconnect, ..v1::Error::default() }
}

// spec: U-6
#[test]
fn many_threads_ask_and_each_has_its_own_answer() {
    let listener = Listener::new();
    let (client, _events, mut peer) = opened(&listener, "");
    let threads: Vec<_> = (0..4_u8)
        .map(|number| {
            let client = client.clone();
            std::thread::spawn(move || {
                for _ in 0..50 {
                    let answer = client.request(7, &[number], PATIENCE).unwrap();
                    assert_eq!(answer.payload, [number]);
                }
            })
        })
        .collect();
    for _ in 0..200 {
        let frame = std::iter::from_fn(|| peer.hear()).find(|frame| frame.up_seq > 0).unwrap();
        let Some(Member::Request(request)) = frame.member else { panic!("{frame:?}") };
        let payload = request.payload;
        peer.answer_with(v1::Response { up_seq: frame.up_seq, payload, ..v1::Response::default() });
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn handles_may_cross_threads() {
    fn is_shareable<T: Send + Sync + Clone>() {}
    fn is_movable<T: Send>() {}
    is_shareable::<Client>();
    is_movable::<Events>();
}

// spec: A-23, D-13, W-4
#[test]
fn a_login_binds_the_session_and_then_pushes_come_in_order() {
    let listener = Listener::new();
    let (client, events, mut peer) = opened(&listener, "");
    let pending = client.start(&RequestOptions::command(0x0201), b"alice, secret").unwrap();
    let up_seq = peer.request();
    let login = v1::LoginResult {
        user_id: "alice".to_owned(),
        access_token: "from login".to_owned(),
        ..v1::LoginResult::default()
    };
    peer.answer_with(v1::Response { up_seq, login: Some(login), ..v1::Response::default() });
    assert_eq!(pending.wait().unwrap().login.unwrap().user_id, "alice");
    assert_eq!(find(&events, |event| open(event).filter(|user| !user.is_empty())), "alice");
    let push = |id: &[u8]| v1::Push { push_id: id.to_vec().into(), ..v1::Push::default() };
    peer.say_numbered(gateway::PUSH, &push(b"1"));
    peer.say_numbered(
        gateway::GAP,
        &v1::Gap { count: 3, reason: Reason::PushOverflow.into(), ..v1::Gap::default() },
    );
    peer.say_numbered(gateway::PUSH, &push(b"1"));
    peer.say_numbered(gateway::PUSH, &push(b"2"));
    let taken: Vec<Event> = std::iter::from_fn(|| events.next_within(PATIENCE)).take(3).collect();
    assert!(matches!(&taken[0], Event::Push(push) if push.push_id == b"1"));
    assert_eq!(taken[1], Event::Resync(Missed::Pushes(3, Reason::PushOverflow)));
    assert!(matches!(&taken[2], Event::Push(push) if push.push_id == b"2"));
    peer.acknowledged(5);
    drop(peer);
    assert_eq!(listener.accept().welcome(HEARTBEAT_MS), "from login", "kept for the next connection");
}

// spec: S-16, X-16
#[test]
fn a_gateway_that_is_gone_and_back_finds_its_client_and_what_waited() {
    let listener = Listener::new();
    let (client, events, peer) = opened(&listener, "alice");
    let address = listener.address().parse().unwrap();
    let lost = client.start(&RequestOptions::command(7), b"").unwrap();
    let key = fresh_key();
    let keyed = RequestOptions { idempotency_key: &key, ..RequestOptions::command(8) };
    let again = client.start(&keyed, b"").unwrap();
    let mut peer = peer;
    for _ in 0..2 {
        peer.request();
    }
    drop((listener, peer));
    assert_eq!(lost.wait(), Err(ClientError::Unanswered(Execution::Unknown)));
    find(&events, |event| away(event).filter(|(_, why)| matches!(why, Setback::NotConnected(_))));
    let new = client.start(&RequestOptions::command(9), b"").unwrap();
    let listener = Listener::at(address);
    let mut peer = listener.accept();
    assert_eq!(peer.hello().access_token, "token");
    peer.welcome_user("alice", HEARTBEAT_MS, 0);
    for command in [8, 9] {
        let frame = peer.hear().unwrap();
        let Some(Member::Request(request)) = frame.member else { panic!("{frame:?}") };
        assert_eq!(request.command, command);
        peer.answer(frame.up_seq);
    }
    assert!(again.wait().unwrap().is_ok());
    assert!(new.wait().unwrap().is_ok());
    assert_eq!(find(&events, resync), Missed::Session);
}

/// An address where nobody listens.
fn nowhere() -> String {
    peer::nobody().to_string()
}

#[test]
fn an_address_that_is_dead_is_passed_over() {
    let listener = Listener::new();
    let (dead, alive) = (nowhere(), listener.address());
    let (client, events) = builder("")
        .addresses([dead.clone(), "no address".to_owned(), alive.clone()])
        .policy(Policy::Failover)
        .start_with_events()
        .unwrap();
    let mut peer = listener.accept();
    peer.welcome(HEARTBEAT_MS);
    client.opened(PATIENCE).unwrap();
    let tried = std::iter::from_fn(|| events.poll()).filter_map(|event| match event {
        Event::State(State::Connecting { address }) => Some(address),
        _ => None,
    });
    assert_eq!(tried.collect::<Vec<_>>(), [dead, "no address".to_owned(), alive]);
}

#[test]
fn the_resolver_is_asked_before_each_round() {
    let listener = Listener::new();
    let (address, asked) = (listener.address(), AtomicU32::new(0));
    let resolver = move || match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Err(std::io::Error::other("not yet")),
        1 => panic!("a bug in the application"),
        2 => Ok(vec![nowhere()]),
        _ => Ok(vec![address.clone()]),
    };
    let (_client, events) = builder("").resolver(resolver).start_with_events().unwrap();
    let no_address = |event| away(event).map(|(_, why)| why);
    assert_eq!(find(&events, no_address), Setback::NoAddress("not yet".to_owned()));
    assert_eq!(find(&events, no_address), Setback::NoAddress("it panicked".to_owned()));
    assert!(matches!(find(&events, no_address), Setback::NotConnected(_)));
    let mut peer = listener.accept();
    peer.welcome(HEARTBEAT_MS);
    find(&events, open);
}

// spec
#[test]
fn a_gateway_that_goes_away_says_when_and_where_to_go() {
    let (old, new) = (Listener::new(), Listener::new());
    let (client, events, mut peer) = opened(&old, "alice");
    let early = client.start(&RequestOptions::command(7), b"").unwrap();
    let up_seq = peer.request();
    let go_away = v1::GoAway {
        reason: Reason::Shutdown.into(),
        deadline_ms: 60_000,
        reconnect_after_ms: 300,
        addresses: vec![new.address()],
        ..v1::GoAway::default()
    };
    peer.say(gateway::GO_AWAY, &go_away);
    find(&events, |event| (event == Event::State(State::GoingAway)).then_some(()));
    let late = client.start(&RequestOptions::command(7), b"").unwrap();
    peer.answer(up_seq);
    assert!(early.wait().unwrap().is_ok());
    peer.bye();
    let (retry_in, why) = find(&events, away);
    assert_eq!(why, Setback::GoneAway(Reason::Shutdown));
    assert!(retry_in <= Duration::from_millis(300));
    let mut peer = new.accept();
    assert_eq!(peer.welcome(HEARTBEAT_MS), "token");
    let up_seq = peer.request();
    peer.answer(up_seq);
    assert!(late.wait().unwrap().is_ok());
}

// spec
#[test]
fn a_client_that_may_not_come_back_ends_and_says_so_everywhere() {
    for (reason, action) in [
        (Reason::Kicked, Action::GiveUp),
        (Reason::Shutdown, Action::GiveUp),
        (Reason::TokenExpired, Action::Reauthenticate),
        (Reason::VersionUnsupported, Action::Update),
    ] {
        let listener = Listener::new();
        let (client, events, mut peer) = opened(&listener, "alice");
        let pending = client.start(&RequestOptions::command(7), b"").unwrap();
        peer.request();
        peer.say(gateway::ERROR, &error(reason, false));
        assert!(peer.hear().is_none(), "it closes");
        let ending = find(&events, ended);
        assert_eq!((ending.reason(), ending.action()), (reason, action));
        assert_eq!(events.next_within(PATIENCE), None, "nothing comes after the end");
        assert_eq!(pending.wait(), Err(ClientError::Unanswered(Execution::NotExecuted)));
        let refused = Err(ClientError::Ended(ending.clone()));
        assert_eq!(client.request(7, b"", PATIENCE), refused);
        assert_eq!(client.opened(PATIENCE).map(|_| ()), Err(ClientError::Ended(ending.clone())));
        assert_eq!(client.leave(PATIENCE), Err(ClientError::Ended(ending)));
    }
}

// spec: A-20
#[test]
fn a_token_is_renewed_in_band_while_requests_go_on() {
    let listener = Listener::new();
    let (answer, wanted) = channel();
    let wanted = Mutex::new(wanted);
    let source = move |need| match need {
        TokenNeed::Open => Ok("first".to_owned()),
        // It takes as long as the test likes.
        TokenNeed::Renew => wanted.lock().unwrap().recv().unwrap(),
        TokenNeed::Refused(reason) => panic!("{reason:?}"),
    };
    let (client, events) = builder(&listener.address()).token_source(source).start_with_events().unwrap();
    let mut peer = listener.accept();
    assert_eq!(peer.hello().access_token, "first");
    peer.welcome_user("alice", HEARTBEAT_MS, 200);
    let pending = client.start(&RequestOptions::command(7), b"").unwrap();
    let up_seq = peer.request();
    peer.answer(up_seq);
    assert!(pending.wait().unwrap().is_ok());
    answer.send(Err(TokenError::Later("away".to_owned()))).unwrap();
    let why = find(&events, |event| match event {
        Event::TokenNotRenewed(why) => Some(why),
        _ => None,
    });
    assert_eq!(why, "away");
    answer.send(Ok("second".to_owned())).unwrap();
    assert!(matches!(peer.member(), Member::Authenticate(shown) if shown.access_token == "second"));
    let authenticated = v1::Authenticated {
        access_expires_ms: peer::SERVER_TIME_MS + 3_600_000,
        ..v1::Authenticated::default()
    };
    peer.say(gateway::AUTHENTICATED, &authenticated);
    find(&events, |event| (event == Event::TokenRenewed).then_some(()));
    drop(peer);
    assert_eq!(listener.accept().hello().access_token, "second");
}

// spec: O-25, O-26
#[test]
fn an_application_proves_that_it_holds_its_key() {
    let listener = Listener::new();
    let key = ApplicationKey::new(&[7; 32]);
    let options = Options {
        application: "im".to_owned(),
        device_id: "phone".to_owned(),
        application_key: key.clone(),
        ..Options::default()
    };
    let _client = builder(&listener.address()).options(options.clone()).start().unwrap();
    let mut nonces = Vec::new();
    // The first one's connection is kept: it would come back, and meet the second one's peer.
    let mut peers = Vec::new();
    for connect in [false, true] {
        let address = listener.address().parse().unwrap();
        let options = options.clone();
        let thread = connect.then(|| std::thread::spawn(move || Connection::connect(address, options, "")));
        let mut peer = listener.accept();
        let proof = peer.hello().application_proof.unwrap();
        let (application, device_id, nonce) = ("im", "phone", &proof.nonce[..]);
        let facts = ApplicationFacts { application, device_id, time_ms: proof.time_ms, nonce };
        assert!(facts.verify(key.as_ref().unwrap(), &proof.mac));
        assert!(proof.time_ms > 1_700_000_000_000 && nonce.len() >= 16);
        nonces.push(proof.nonce.clone());
        peer.welcome_user("", HEARTBEAT_MS, 0);
        if let Some(thread) = thread {
            thread.join().unwrap().unwrap();
        }
        peers.push(peer);
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[test]
fn a_source_that_denies_a_token_ends_the_client() {
    let source = |_| Err(TokenError::Denied("log in again".to_owned()));
    let client = builder(&nowhere()).token_source(source).start().unwrap();
    let ending = Ending::NoToken("log in again".to_owned());
    assert_eq!(client.opened(PATIENCE), Err(ClientError::Ended(ending)));
}

#[test]
fn a_token_that_the_application_brings_is_shown() {
    let listener = Listener::new();
    let (client, _events, mut peer) = opened(&listener, "alice");
    client.use_token("newer").unwrap();
    assert!(matches!(peer.member(), Member::Authenticate(shown) if shown.access_token == "newer"));
    assert!(client.use_token(&"x".repeat(4096)).is_err());
}

#[test]
fn callbacks_take_events_and_answers_and_may_wait_for_others() {
    let listener = Listener::new();
    let (tell, told) = channel();
    let client = builder(&listener.address()).on_event(move |event| drop(tell.send(event))).start().unwrap();
    let mut peer = listener.accept();
    peer.welcome(HEARTBEAT_MS);
    client.opened(PATIENCE).unwrap();
    peer.say_numbered(gateway::PUSH, &v1::Push { command: 9, ..v1::Push::default() });
    peer.acknowledged(1);
    let push = loop {
        if let Event::Push(push) = told.recv_timeout(PATIENCE).unwrap() {
            break push;
        }
    };
    assert_eq!(push.command, 9);
    let (tell, told) = channel();
    let inside = client.clone();
    let then = move |result| {
        let another = inside.request(8, b"", PATIENCE);
        tell.send([result, another]).unwrap();
        inside.leave(Duration::ZERO).unwrap();
    };
    client.start_with(&RequestOptions::command(7), b"", then).unwrap();
    for _ in 0..2 {
        let up_seq = peer.request();
        peer.answer(up_seq);
    }
    for result in told.recv_timeout(PATIENCE).unwrap() {
        assert!(result.unwrap().is_ok());
    }
    peer.bye();
}

// spec: P-5, W-4
#[test]
fn slow_callback_loses_no_heartbeat_and_no_push() {
    let listener = Listener::new();
    let (begun, has_begun) = channel();
    let (release, released) = channel::<()>();
    let taken = std::sync::Arc::new(Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&taken);
    let on_event = move |event| {
        if let Event::Push(push) = event {
            begun.send(()).unwrap();
            released.recv_timeout(PATIENCE).unwrap();
            log.lock().unwrap().push(push.command);
        }
    };
    let client = builder(&listener.address()).on_event(on_event).start().unwrap();
    let mut peer = listener.accept();
    peer.welcome(200);
    let push = |command| v1::Push { command, ..v1::Push::default() };
    peer.say_numbered(gateway::PUSH, &push(1));
    has_begun.recv_timeout(PATIENCE).unwrap();
    // The callback blocks, and the client gives signs of life, answers and takes more.
    peer.say_numbered(gateway::PUSH, &push(2));
    for _ in 0..3 {
        let Member::Ping(ping) = peer.member() else { panic!("no Ping") };
        peer.say(gateway::PONG, &v1::Pong { nonce: ping.nonce });
    }
    let waiting = {
        let client = client.clone();
        std::thread::spawn(move || client.request(7, b"", PATIENCE))
    };
    let frame = std::iter::from_fn(|| peer.hear()).find(|frame| frame.up_seq > 0).unwrap();
    assert_eq!(frame.ack, 0, "nothing is taken yet");
    peer.answer(frame.up_seq);
    assert!(waiting.join().unwrap().unwrap().is_ok());
    release.send(()).unwrap();
    release.send(()).unwrap();
    peer.acknowledged(3);
    assert_eq!(*taken.lock().unwrap(), [1, 2]);
    assert!(matches!(client.state(), State::Open { .. }));
}

#[test]
fn a_callback_that_panics_ends_the_client_and_lets_nobody_wait() {
    let listener = Listener::new();
    let client = builder(&listener.address())
        .on_event(|event| assert!(!matches!(event, Event::Push(_)), "a bug in the application"))
        .start()
        .unwrap();
    let mut peer = listener.accept();
    peer.welcome(HEARTBEAT_MS);
    let pending = client.start(&RequestOptions::command(7), b"").unwrap();
    peer.request();
    peer.say_numbered(gateway::PUSH, &v1::Push::default());
    assert_eq!(pending.wait(), Err(ClientError::Ended(Ending::Broken)));
    assert_eq!(client.request(7, b"", PATIENCE), Err(ClientError::Ended(Ending::Broken)));
}

// spec: X-13
#[test]
fn who_leaves_has_its_answers_first_and_says_bye() {
    let listener = Listener::new();
    let (client, events, mut peer) = opened(&listener, "");
    let pending = client.start(&RequestOptions::command(7), b"").unwrap();
    let leaving = {
        let client = client.clone();
        std::thread::spawn(move || client.leave(PATIENCE))
    };
    let up_seq = peer.request();
    peer.answer(up_seq);
    peer.bye();
    assert!(pending.wait().unwrap().is_ok());
    assert_eq!(leaving.join().unwrap(), Ok(()));
    assert_eq!(find(&events, ended), Ending::Left);
    assert_eq!(client.leave(PATIENCE), Ok(()), "again");
}

#[test]
fn the_last_handle_says_bye() {
    let listener = Listener::new();
    let (client, events, mut peer) = opened(&listener, "");
    let other = client.clone();
    drop(client);
    assert!(matches!(other.state(), State::Open { .. }));
    drop(other);
    peer.bye();
    assert_eq!(find(&events, ended), Ending::Left);
    assert!(peer.hear().is_none());
}

// spec: A-24
#[test]
fn a_logout_ends_the_client_whichever_word_comes_first() {
    let logged_out = error(Reason::LoggedOut, false);
    for answer_first in [true, false] {
        let listener = Listener::new();
        let (client, _events, mut peer) = opened(&listener, "alice");
        let thread = std::thread::spawn(move || (client.logout(0x0202, b"", PATIENCE), client.state()));
        let up_seq = peer.request();
        if answer_first {
            peer.answer(up_seq);
        }
        peer.say(gateway::ERROR, &v1::Error { admitted: up_seq, ..logged_out.clone() });
        let (result, state) = thread.join().unwrap();
        assert_eq!(result, Ok(()));
        assert!(matches!(state, State::Ended(_)));
    }
    let listener = Listener::new();
    let (client, _events, mut peer) = opened(&listener, "alice");
    let thread = std::thread::spawn(move || (client.logout(0x0202, b"", PATIENCE), client.state()));
    let up_seq = peer.request();
    let status = Code::NotFound.to_wire();
    peer.answer_with(v1::Response { up_seq, status, ..v1::Response::default() });
    let (result, state) = thread.join().unwrap();
    assert!(matches!(result, Err(ClientError::Answered(answer)) if answer.code == Code::NotFound));
    assert!(matches!(state, State::Open { .. }), "it goes on");
}

#[test]
fn requests_have_their_time_and_can_be_taken_back() {
    let listener = Listener::new();
    let client = builder(&listener.address()).start().unwrap();
    let timeout = Duration::from_millis(20);
    assert_eq!(client.request(7, b"", timeout), Err(ClientError::TimedOut(Execution::NotExecuted)));
    assert!(matches!(client.opened(timeout), Err(ClientError::NoSession(_))));
    let unsent = client.start(&RequestOptions::command(7), b"").unwrap();
    unsent.cancel();
    assert_eq!(unsent.wait().unwrap().code, Code::Cancelled);
    let mut peer = listener.accept();
    peer.welcome(HEARTBEAT_MS);
    let sent = client.start(&RequestOptions::command(7), b"").unwrap();
    let up_seq = peer.request();
    client.cancel(sent.ticket());
    assert!(matches!(peer.member(), Member::Cancel(cancel) if cancel.up_seq == up_seq));
    assert_eq!(sent.poll(), None);
    peer.answer(up_seq);
    assert!(sent.wait().unwrap().is_ok());
}

#[test]
fn a_gateway_that_reads_late_gets_everything() {
    let listener = Listener::new();
    let (client, _events, mut peer) = opened(&listener, "");
    let payload = vec![7; 60_000];
    let pending: Vec<_> =
        (0..200).map(|_| client.start(&RequestOptions::command(7), &payload).unwrap()).collect();
    for _ in 0..200 {
        let frame = std::iter::from_fn(|| peer.hear()).find(|frame| frame.up_seq > 0).unwrap();
        let Some(Member::Request(request)) = frame.member else { panic!("{frame:?}") };
        let payload = request.payload;
        peer.answer_with(v1::Response { up_seq: frame.up_seq, payload, ..v1::Response::default() });
    }
    for pending in pending {
        assert_eq!(pending.wait().unwrap().payload, payload);
    }
    let too_large = client.request(7, &vec![0; 70_000], PATIENCE);
    assert!(matches!(too_large, Err(ClientError::NotTaken(_))));
}

// spec: P-1, P-5
#[test]
fn heartbeats_keep_an_idle_session_and_silence_ends_it() {
    let listener = Listener::new();
    let (_client, events) = builder(&listener.address()).start_with_events().unwrap();
    let mut peer = listener.accept();
    peer.welcome(1000);
    peer.say(gateway::PING, &v1::Ping { nonce: 5, next_ms: 0 });
    assert!(matches!(peer.member(), Member::Pong(pong) if pong.nonce == 5));
    for _ in 0..2 {
        let Member::Ping(ping) = peer.member() else { panic!("no ping") };
        peer.say(gateway::PONG, &v1::Pong { nonce: ping.nonce });
    }
    let (_, why) = find(&events, away);
    assert_eq!(why, Setback::Ended(moorgate_client::core::End::Silence));
}

// spec: P-4
#[test]
fn an_application_in_the_background_announces_its_beats_on_every_connection() {
    let listener = Listener::new();
    let (client, _events, mut peer) = opened(&listener, "alice");
    client.beat_every(Duration::from_secs(300));
    let next_ms = |peer: &mut Peer| match peer.member() {
        Member::Ping(ping) => ping.next_ms,
        other => panic!("no ping but {other:?}"),
    };
    assert_eq!(next_ms(&mut peer), 300_000);
    drop(peer);
    let mut peer = listener.accept();
    peer.hello();
    peer.welcome_user("alice", HEARTBEAT_MS, 0);
    assert_eq!(next_ms(&mut peer), 300_000);
    client.beat_every(Duration::ZERO);
    assert_eq!(next_ms(&mut peer), 0);
}

#[test]
fn events_that_nobody_takes_any_more_hold_nothing_back() {
    let listener = Listener::new();
    let (client, events, mut peer) = opened(&listener, "alice");
    peer.say_numbered(gateway::PUSH, &v1::Push::default());
    drop(events);
    peer.say_numbered(gateway::PUSH, &v1::Push::default());
    peer.acknowledged(2);
    assert!(matches!(client.state(), State::Open { .. }));
    let options = Options { device_id: "d".repeat(8), ..Options::default() };
    let other = builder(&listener.address()).options(options).start().unwrap();
    let mut peer = listener.accept();
    assert_eq!(peer.hello().device_id, "dddddddd");
    peer.welcome_user("", HEARTBEAT_MS, 0);
    peer.say_numbered(gateway::PUSH, &v1::Push::default());
    peer.acknowledged(1);
    assert!(matches!(other.state(), State::Open { .. }));
}

//! Sessions that outlive their connections and their applications, against gateways by hand, on loopback.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod peer;

use moorgate_client::{
    Backoff, Builder, Client, ClientError, Ending, Event, Events, Execution, FileStore, Missed, Options,
    RequestOptions, State, Store,
};
use moorgate_proto::envelope::member::gateway;
use moorgate_proto::v1::{self, ResumeResult, client_frame::Member};
use peer::{Listener, PATIENCE, Peer};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FRESH: ResumeResult = ResumeResult::None;
const RESUMED: ResumeResult = ResumeResult::Resumed;

fn builder(listener: &Listener) -> Builder {
    let backoff = Backoff { base: Duration::from_millis(5), max: Duration::from_millis(20) };
    let options = Options { opening_timeout: PATIENCE, ..Options::default() };
    Client::builder(&listener.address()).options(options).backoff(backoff).access_token("token")
}

fn push(peer: &mut Peer, id: &[u8]) {
    peer.say_numbered(gateway::PUSH, &v1::Push { push_id: id.to_vec().into(), ..v1::Push::default() });
}

/// The next event that is no state.
fn next(events: &Events) -> Event {
    loop {
        match events.next_within(PATIENCE).unwrap() {
            Event::State(State::Ended(ending)) => panic!("{ending}"),
            Event::State(_) => {}
            event => return event,
        }
    }
}

fn id(event: Event) -> Vec<u8> {
    match event {
        Event::Push(push) => push.push_id,
        other => panic!("{other:?}"),
    }
}

/// What is saved, in memory: each state in turn.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<Vec<u8>>>>);

impl Memory {
    fn last(&self) -> Vec<u8> {
        self.0.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

impl Store for Memory {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.last())
    }

    fn save(&mut self, state: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().push(state.to_vec());
        Ok(())
    }
}

/// A file in a folder of its own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("moorgate-resume-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("session")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// spec, W-10
#[test]
fn a_lost_connection_is_a_pause_for_whoever_waits() {
    let listener = Listener::new();
    let (client, events) = builder(&listener).start_with_events().unwrap();
    let mut peer = listener.accept();
    assert_eq!(peer.resume((FRESH, b"first"), 0, 0), None);
    let pending: Vec<_> =
        (0..3).map(|_| client.start(&RequestOptions::command(7), b"content").unwrap()).collect();
    for up_seq in 1..=3 {
        assert_eq!(peer.request(), up_seq);
    }
    push(&mut peer, b"1");
    assert_eq!(id(next(&events)), b"1");
    peer.acknowledged(1);
    push(&mut peer, b"2");
    drop(peer);
    let mut peer = listener.accept();
    let asked = peer.resume((RESUMED, b"second"), 1, 1).unwrap();
    assert_eq!((&asked.0[..], asked.1), (&b"first"[..], 1));
    let first = peer.hear().unwrap();
    assert_eq!((first.ack, first.member), (asked.2, None), "an acknowledgement at once");
    assert_eq!([peer.request(), peer.request()], [2, 3], "what was not admitted");
    for id in [b"2", b"3"] {
        push(&mut peer, id);
    }
    for up_seq in [3, 1, 2] {
        peer.answer(up_seq);
    }
    for (pending, up_seq) in pending.into_iter().zip(1_u64..) {
        assert_eq!(pending.wait().unwrap().payload, up_seq.to_be_bytes());
    }
    assert_eq!(id(next(&events)), b"2");
    assert_eq!(id(next(&events)), b"3");
    peer.acknowledged(6);
    // A Welcome that gets lost, and one more connection.
    drop(peer);
    let mut peer = listener.accept();
    assert_eq!(peer.hello().resume.unwrap().attempt, 2);
    drop(peer);
    let mut peer = listener.accept();
    assert_eq!(peer.resume((RESUMED, b"fourth"), 3, 6).unwrap(), (b"second".to_vec(), 3, 6));
    push(&mut peer, b"4");
    assert_eq!(id(next(&events)), b"4", "nothing of it was a resync");
}

// spec: R-4, S-16
#[test]
fn a_session_that_is_gone_is_told_once() {
    let listener = Listener::new();
    let (client, events) = builder(&listener).start_with_events().unwrap();
    let mut peer = listener.accept();
    peer.resume((FRESH, b"first"), 0, 0);
    let pending = client.start(&RequestOptions::command(7), b"").unwrap();
    peer.request();
    drop(peer);
    let mut peer = listener.accept();
    assert_eq!(peer.resume((ResumeResult::UnknownSession, b"other"), 0, 0).unwrap().1, 1);
    assert_eq!(pending.wait(), Err(ClientError::Unanswered(Execution::Unknown)));
    assert_eq!(next(&events), Event::Resync(Missed::Session));
    let again = client.start(&RequestOptions::command(7), b"").unwrap();
    assert_eq!(peer.request(), 1);
    peer.answer(1);
    assert!(again.wait().unwrap().is_ok());
}

// spec
#[test]
fn an_application_that_comes_again_goes_on() {
    let scratch = Scratch::new("again");
    let listener = Listener::new();
    let store = || FileStore::new(scratch.file());
    let (client, events) = builder(&listener).store(store()).start_with_events().unwrap();
    let mut peer = listener.accept();
    peer.resume((FRESH, b"first"), 0, 0);
    assert_eq!(next(&events), Event::Resync(Missed::Session), "there may have been others before");
    push(&mut peer, b"1");
    assert_eq!(id(next(&events)), b"1");
    peer.acknowledged(1);
    let leaving = std::thread::spawn(move || client.leave_keeping(PATIENCE, Duration::from_secs(30)));
    assert!(matches!(peer.member(), Member::Bye(bye) if bye.keep_for_ms == 30_000));
    peer.say(gateway::BYE_ACK, &v1::ByeAck {});
    leaving.join().unwrap().unwrap();
    let (client, events) = builder(&listener).store(store()).start_with_events().unwrap();
    let mut peer = listener.accept();
    assert_eq!(peer.resume((RESUMED, b"second"), 0, 1).unwrap(), (b"first".to_vec(), 1, 1));
    peer.acknowledged(1);
    push(&mut peer, b"2");
    assert_eq!(id(next(&events)), b"2");
    let leaving = std::thread::spawn(move || client.leave(PATIENCE));
    peer.bye();
    leaving.join().unwrap().unwrap();
    assert!(!scratch.file().exists(), "that was for good");
}

// spec: D-9, R-12, R-14, W-4
#[test]
fn an_application_that_was_killed_goes_on_from_any_state_that_was_written() {
    let listener = Listener::new();
    let memory = Memory::default();
    let (client, events) = builder(&listener).store(memory.clone()).start_with_events().unwrap();
    let mut peer = listener.accept();
    peer.resume((FRESH, b"first"), 0, 0);
    next(&events);
    let _open = client.start(&RequestOptions::command(7), b"").unwrap();
    assert_eq!(peer.request(), 1);
    let mut acked = 0;
    for number in 1..=3 {
        push(&mut peer, &[number]);
        assert_eq!(id(next(&events)), [number]);
        peer.acknowledged(u64::from(number));
        acked = u64::from(number);
    }
    let written = memory.last();
    // It goes on as one that was killed does: without a word.
    let killed = Memory(Arc::new(Mutex::new(vec![written.clone()])));
    let (again, events_again) = builder(&listener).store(killed.clone()).start_with_events().unwrap();
    let mut peer_again = listener.accept();
    let asked = peer_again.resume((RESUMED, b"second"), 1, acked).unwrap();
    assert_eq!(asked, (b"first".to_vec(), 1, acked), "nothing was acknowledged that is not written");
    peer_again.answer(1);
    let pending = again.start(&RequestOptions::command(7), b"").unwrap();
    assert_eq!(peer_again.request(), 2);
    peer_again.answer(2);
    assert_eq!(pending.wait().unwrap().payload, 2_u64.to_be_bytes());
    push(&mut peer_again, &[4]);
    assert_eq!(id(next(&events_again)), [4]);
    // And torn at each place: a fresh session, and a resync.
    for len in [0, 7, 8, written.len() / 2, written.len() - 1] {
        let torn = Memory(Arc::new(Mutex::new(vec![written[..len].to_vec()])));
        let (client, events) = builder(&listener).store(torn).start_with_events().unwrap();
        let mut peer = listener.accept();
        assert_eq!(peer.resume((FRESH, b"other"), 0, 0), None, "{len} bytes");
        assert_eq!(next(&events), Event::Resync(Missed::Session));
        // It ends before its connection does: it would come back to meet the next one's peer.
        drop((client, events));
        peer.bye();
    }
}

/// A store that breaks after the first state.
struct Broken(u32);

impl Store for Broken {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        if self.0 == 0 { Err(io::Error::other("no such disk")) } else { Ok(Vec::new()) }
    }

    fn save(&mut self, _: &[u8]) -> io::Result<()> {
        self.0 -= 1;
        if self.0 == 0 { Err(io::Error::other("the disk is full")) } else { Ok(()) }
    }
}

#[test]
fn a_store_that_breaks_is_told_of_and_the_session_goes_on() {
    let listener = Listener::new();
    assert!(builder(&listener).store(Broken(0)).start().is_err());
    let (client, events) = builder(&listener).store(Broken(2)).start_with_events().unwrap();
    let mut peer = listener.accept();
    peer.resume((FRESH, b"first"), 0, 0);
    next(&events);
    push(&mut peer, b"1");
    next(&events);
    assert!(matches!(next(&events), Event::NotSaved(why) if why.contains("full")));
    peer.acknowledged(1);
    drop((client, events));
    peer.bye();
    assert_eq!(peer.hear(), None);
}

#[test]
fn without_a_connection_who_leaves_for_now_leaves_the_session_written() {
    let listener = Listener::new();
    let memory = Memory::default();
    let (client, mut events) = builder(&listener).store(memory.clone()).start_with_events().unwrap();
    let mut peer = listener.accept();
    peer.resume((FRESH, b"first"), 0, 0);
    next(&events);
    drop((peer, listener));
    while !matches!(events.next_within(PATIENCE).unwrap(), Event::State(State::Away { .. })) {}
    client.leave_keeping(Duration::ZERO, Duration::from_secs(30)).unwrap();
    assert!(!memory.last().is_empty());
    assert!(events.any(|event| event == Event::State(State::Ended(Ending::Left))));
}

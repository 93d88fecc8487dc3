//! Signs of life at the application's own interval.

use super::*;

const LONG: Duration = Duration::from_secs(300);
/// What [`Desk::welcome`] negotiates.
const HEARTBEAT: Duration = Duration::from_secs(3600);

/// What pings have announced since; they are answered.
fn beats(desk: &mut Desk) -> Vec<u32> {
    let members = desk.heard().into_iter().filter_map(|frame| frame.member);
    let pings: Vec<v1::Ping> = members
        .filter_map(|member| match member {
            Member::Ping(ping) => Some(ping),
            _ => None,
        })
        .collect();
    pings.iter().for_each(|ping| desk.say(0, gateway::PONG, &v1::Pong { nonce: ping.nonce }));
    pings.iter().map(|ping| ping.next_ms).collect()
}

// spec: P-4
#[test]
fn it_stays_over_connections_whether_the_session_does_or_not() {
    let mut desk = Desk::resumable(token("mine"));
    desk.act(|session, now| session.beat_every(now, LONG));
    assert_eq!(beats(&mut desk), [300_000]);
    desk.say_numbered(gateway::PUSH, &v1::Push::default());
    let (_, delivery) = desk.events.pop().unwrap();
    desk.act(|session, now| session.taken(now, delivery.unwrap()));
    desk.resume(b"second", 0);
    let frames = desk.heard();
    assert!(
        matches!(
            &frames[..],
            [v1::ClientFrame { ack: 1, member: Some(Member::Ping(v1::Ping { next_ms: 300_000, .. })), .. }]
        ),
        "{frames:?}"
    );
    desk.lose();
    desk.reconnect("a");
    desk.accept("a");
    desk.resumes(ResumeResult::None, b"another", 0);
    desk.welcome("alice", 0);
    assert!(desk.has_missed());
    assert_eq!(beats(&mut desk), [300_000]);
    desk.lose();
    desk.act(|session, now| session.beat_every(now, Duration::ZERO));
    desk.resumes(ResumeResult::Resumed, b"last", 0);
    desk.reopen("alice");
    let frames = desk.heard();
    assert!(matches!(&frames[..], [v1::ClientFrame { member: None, .. }]), "{frames:?}");
}

// spec: P-4, P-5
#[test]
fn beats_come_at_random_before_their_interval_is_over() {
    let mut desk = Desk::open(token("mine"), "alice");
    for (wanted, full) in [(LONG, LONG), (Duration::ZERO, HEARTBEAT)] {
        desk.act(|session, now| session.beat_every(now, wanted));
        beats(&mut desk);
        let mut waits: Vec<Duration> = Vec::new();
        for _ in 0..10 {
            waits.push(desk.wait());
            assert_eq!(beats(&mut desk), [u32::try_from(wanted.as_millis()).unwrap()]);
        }
        assert!(waits.iter().all(|wait| (full * 85 / 100..=full).contains(wait)), "{waits:?}");
        waits.dedup();
        assert!(waits.len() > 5, "{waits:?}");
    }
}

// spec: P-4
#[test]
fn a_session_of_an_earlier_process_beats_as_it_was_told() {
    let session = ClientSession::new(Settings::default(), token("mine"), 1);
    let resumption = crate::core::Resumption {
        resume_token: (&b"first"[..]).into(),
        ..crate::core::Resumption::default()
    };
    let mut desk = Desk::new(token("mine"));
    desk.session = session;
    desk.session.beat_every(desk.now, LONG);
    desk.session = desk.session.writing_down(Some(&resumption));
    desk.asked.clear();
    desk.act(ClientSession::start);
    desk.listed(&["a"]);
    let attempt = desk.attempt("a");
    assert!(desk.act(|session, now| session.connected(now, attempt, None)));
    desk.act(|session, now| session.saved(now, Ok(())));
    desk.heard();
    desk.resumes(ResumeResult::Resumed, b"second", 0);
    desk.welcome("alice", 0);
    assert_eq!(beats(&mut desk), [300_000]);
}

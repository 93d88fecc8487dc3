//! Intervals of the application's own, against the gateway's rule.

use super::*;
use fastrand::Rng;
use moorgate_proto::v1::client_frame::Member;

const HEARTBEAT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(600);

/// A core, and what a gateway makes of its frames.
struct Bench {
    core: ClientCore,
    now: Mono,
    heard: Mono,
    /// `NEVER`: nothing is.
    announced: Mono,
    /// A ping waits for its answer.
    is_asked: bool,
    answers: bool,
    numbered: u64,
    pings: Vec<u32>,
    frames: usize,
    ends: Vec<String>,
}

impl Bench {
    fn new(random: Option<u64>) -> Bench {
        let core = ClientCore::new(Arc::default());
        let core = match random {
            Some(seed) => core.with_random(Rng::with_seed(seed)),
            None => core,
        };
        let mut bench = Bench {
            core,
            now: NOW,
            heard: NOW,
            announced: Mono::NEVER,
            is_asked: false,
            answers: true,
            numbered: 0,
            pings: Vec::new(),
            frames: 0,
            ends: Vec::new(),
        };
        bench.connect();
        bench
    }

    fn connect(&mut self) {
        self.core.connected(self.now, "");
        self.numbered = 0;
        self.gateway_says(&welcome());
    }

    fn lose(&mut self) {
        self.core.disconnected(&mut |_, _| {});
    }

    /// What it is said reaches the core, and what the core says the gateway, until neither says more.
    fn gateway_says(&mut self, bytes: &[u8]) {
        let ends = &mut self.ends;
        self.core.received(self.now, bytes, &mut |_, event| end(ends, &event));
        self.settle();
    }

    fn push(&mut self) {
        self.numbered += 1;
        self.gateway_says(&frame(self.numbered, gateway::PUSH, &PushView::default()));
    }

    /// The gateway's rule (P-3, P-4).
    fn settle(&mut self) {
        let output = std::mem::take(self.core.output());
        let mut rest = &output[..];
        let mut assembler = Assembler::default();
        while let Some(frame) = assembler.next(&mut rest, 1 << 20).unwrap() {
            (self.heard, self.announced) = (self.now, Mono::NEVER);
            self.frames += 1;
            if let Some(Member::Ping(ping)) = v1::ClientFrame::decode(frame).unwrap().member {
                self.pings.push(ping.next_ms);
                self.is_asked = true;
                if ping.next_ms > 0 {
                    let next = Duration::from_millis(u64::from(ping.next_ms)).min(LONGEST);
                    self.announced = self.now + next;
                }
            }
        }
        if self.answers && std::mem::take(&mut self.is_asked) {
            self.gateway_says(&frame(0, gateway::PONG, &v1::Pong { nonce: 1 }));
        }
    }

    fn deadline(&self) -> Mono {
        let usual = self.heard + HEARTBEAT * 2;
        if self.announced == Mono::NEVER { usual } else { usual.max(self.announced + HEARTBEAT) }
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut ClientCore, Mono) -> T) -> T {
        let result = act(&mut self.core, self.now);
        self.settle();
        result
    }

    fn ask(&mut self) {
        assert!(self.act(|core, now| core.request(now, &RequestOptions::command(1), b"hi")).is_ok());
    }

    /// Goes to the core's next deadline, if that is not after `until`. Whether it went.
    fn step(&mut self, until: Mono) -> bool {
        let next = self.core.next_deadline();
        if next > until {
            self.now = until;
            return false;
        }
        self.now = self.now.max(next);
        let ends = &mut self.ends;
        self.core.timers(self.now, &mut |_, event| end(ends, &event));
        self.settle();
        true
    }

    /// Time goes by; the gateway has a whole interval left when it hears the next frame.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let deadline = self.deadline();
            let goes_on = self.step(until);
            assert!(self.now + HEARTBEAT <= deadline, "{} s too late", self.now.since(deadline).as_secs());
            if !goes_on {
                return;
            }
        }
    }

    fn beats(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.pings)
    }
}

fn end(ends: &mut Vec<String>, event: &Event<'_>) {
    if matches!(event, Event::Ended(_)) {
        ends.push(name(event));
    }
}

// spec: P-4, P-5
#[test]
fn each_beat_announces_the_next() {
    let mut bench = Bench::new(None);
    bench.act(|core, now| core.beat_every(now, LONG));
    assert_eq!(bench.beats(), [300_000], "at once");
    bench.pass(LONG - SECOND);
    assert_eq!(bench.beats(), [0; 0]);
    bench.pass(SECOND + LONG * 9);
    assert_eq!(bench.beats(), [300_000; 10]);
    bench.act(|core, now| core.beat_every(now, Duration::ZERO));
    assert_eq!(bench.beats(), [0], "at once, and it takes back what was announced");
    bench.pass(HEARTBEAT * 3);
    assert_eq!(bench.beats(), [0; 3]);
    assert_eq!(bench.ends, [""; 0]);
}

// spec: P-4
#[test]
fn another_frame_ends_what_was_announced_and_one_more_beat_follows_within_an_interval() {
    let mut bench = Bench::new(None);
    bench.act(|core, now| core.beat_every(now, LONG));
    bench.pass(LONG / 2);
    bench.ask();
    bench.pass(HEARTBEAT / 2);
    bench.act(|core, now| core.cancel(now, RequestId(1)));
    bench.beats();
    bench.pass(HEARTBEAT - Duration::from_millis(1));
    assert_eq!(bench.beats(), [0; 0]);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.beats(), [300_000]);
    bench.pass(LONG - SECOND);
    assert_eq!(bench.beats(), [0; 0], "one is enough");
    bench.pass(SECOND);
    assert_eq!(bench.beats(), [300_000]);
}

// spec: P-4, W-7
#[test]
fn what_is_only_acknowledged_costs_no_second_frame() {
    let mut bench = Bench::new(None);
    bench.act(|core, now| core.beat_every(now, LONG));
    bench.pass(LONG / 2);
    (bench.frames, bench.pings) = (0, Vec::new());
    bench.push();
    bench.pass(LONG - SECOND);
    assert_eq!((bench.frames, bench.beats()), (1, vec![300_000]), "the beat acknowledges");
}

// spec: P-4
#[test]
fn each_connection_is_told() {
    let mut core = ClientCore::new(Arc::default());
    core.beat_every(NOW, LONG);
    assert!(core.output().is_empty(), "nothing before Hello");
    let mut bench = Bench::new(None);
    bench.act(|core, now| core.beat_every(now, LONG));
    for _ in 0..3 {
        bench.pass(LONG);
        bench.beats();
        bench.lose();
        bench.connect();
        assert_eq!(bench.beats(), [300_000], "after Welcome");
    }
    bench.lose();
    bench.act(|core, now| core.beat_every(now, Duration::ZERO));
    bench.connect();
    assert_eq!(bench.beats(), [0; 0], "there is nothing to take back");
}

// spec: P-4
#[test]
fn intervals_have_bounds() {
    for (wanted, next_ms) in [
        (Duration::from_nanos(1), 1_000),
        (Duration::from_millis(1_500), 1_500),
        (Duration::from_secs(601), 600_000),
        (Duration::MAX, 600_000),
    ] {
        let mut bench = Bench::new(None);
        bench.act(|core, now| core.beat_every(now, wanted));
        assert_eq!(bench.beats(), [next_ms]);
        bench.pass(Duration::from_millis(u64::from(next_ms)));
        assert_eq!(bench.beats(), [next_ms]);
        bench.ask();
        bench.pass(LONGEST * 3);
    }
}

// spec: P-6
#[test]
fn silence_is_measured_by_the_longer_interval() {
    for (wanted, longer) in [(LONG, LONG), (SECOND, HEARTBEAT)] {
        let mut bench = Bench::new(None);
        bench.act(|core, now| core.beat_every(now, wanted));
        bench.answers = false;
        bench.pass(longer * 2 - Duration::from_millis(1));
        assert_eq!(bench.ends, [""; 0], "{wanted:?}");
        bench.pass(Duration::from_millis(1));
        assert_eq!(bench.ends, ["Silence"], "{wanted:?}");
    }
    let mut bench = Bench::new(None);
    bench.act(|core, now| core.beat_every(now, LONG));
    bench.pass(LONG / 2);
    bench.answers = false;
    bench.act(|core, now| core.beat_every(now, Duration::ZERO));
    bench.pass(HEARTBEAT);
    assert_eq!(bench.ends, ["Silence"], "back in front it is found out soon");
}

// spec: P-4, P-5
#[test]
fn beats_come_a_little_early_and_not_in_step() {
    for interval in [Duration::ZERO, LONG] {
        let full = if interval.is_zero() { HEARTBEAT } else { interval };
        let mut waits = Vec::new();
        for seed in 0..40 {
            let mut bench = Bench::new(Some(seed));
            bench.act(|core, now| core.beat_every(now, interval));
            for _ in 0..5 {
                let before = bench.now;
                assert!(bench.step(Mono::NEVER));
                waits.push(bench.now.since(before));
            }
            assert_eq!(bench.beats().len(), 6);
        }
        assert!(waits.iter().all(|wait| (full * 85 / 100..=full).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < full * 88 / 100));
        assert!(waits.iter().any(|wait| *wait > full * 97 / 100));
    }
}

// spec: P-4
#[test]
fn the_beat_after_another_frame_is_not_in_step_either() {
    let waits: Vec<Duration> = (0..40)
        .map(|seed| {
            let mut bench = Bench::new(Some(seed));
            bench.act(|core, now| core.beat_every(now, LONG));
            bench.pass(LONG / 2);
            bench.ask();
            let before = bench.now;
            assert!(bench.step(Mono::NEVER));
            bench.now.since(before)
        })
        .collect();
    assert!(waits.iter().all(|wait| (HEARTBEAT * 85 / 100..=HEARTBEAT).contains(wait)));
    assert!(waits.iter().any(|wait| *wait < HEARTBEAT * 88 / 100));
}

// spec: P-3, P-4, P-5, P-6
#[test]
fn whatever_it_says_the_gateway_never_finds_it_silent() {
    for seed in 0..500 {
        let mut dice = Rng::with_seed(seed);
        let mut bench = Bench::new(dice.bool().then_some(seed));
        for _ in 0..60 {
            match dice.u32(0..10) {
                0 | 1 => {
                    let interval = Duration::from_millis(dice.u64(0..700_000));
                    bench.act(|core, now| core.beat_every(now, interval));
                }
                2 => bench.act(|core, now| core.beat_every(now, Duration::ZERO)),
                3 if bench.core.places() > 0 => bench.ask(),
                4 => bench.act(|core, now| core.cancel(now, RequestId(1))),
                5 => bench.push(),
                6 => bench.gateway_says(&frame(0, gateway::PING, &v1::Ping::default())),
                7 => drop(bench.act(|core, now| core.authenticate(now, "new"))),
                8 => {
                    bench.lose();
                    bench.now = bench.now + Duration::from_millis(dice.u64(0..60_000));
                    bench.connect();
                }
                _ => {}
            }
            let long = if dice.bool() { 5_000 } else { 1_500_000 };
            bench.pass(Duration::from_millis(dice.u64(0..long)));
        }
        assert_eq!(bench.ends, [""; 0], "seed {seed}");
    }
}

//! Sessions that outlive their process: what is written down, when, and what another process makes of it.

use super::*;
use crate::core::Resumption;

/// A session that is written down, and its store.
struct Pen {
    desk: Desk,
    written: Option<Resumption>,
    writes: u32,
}

impl Pen {
    fn new(restored: Option<Resumption>) -> Pen {
        let settings = Settings { policy: Policy::Failover, ..Settings::default() };
        let mut desk = Desk::with(settings.clone(), Credentials::Anonymous);
        desk.session =
            ClientSession::new(settings, Credentials::Anonymous, 1).writing_down(restored.as_ref());
        desk.asked.clear();
        desk.events.clear();
        desk.act(ClientSession::start);
        desk.listed(&["a"]);
        Pen { desk, written: restored, writes: 0 }
    }

    fn open() -> Pen {
        let mut pen = Pen::new(None);
        pen.desk.accept("a");
        pen.desk.resumes(ResumeResult::None, b"first", 0);
        pen.desk.welcome("alice", 0);
        pen.write();
        pen.desk.events.clear();
        pen
    }

    /// Writes what is to be written. Whether there was something.
    fn write(&mut self) -> bool {
        let mut found = false;
        while let Some(at) = self.desk.asked.iter().position(|output| matches!(output, Output::Save(_))) {
            let Output::Save(resumption) = self.desk.asked.remove(at) else { unreachable!() };
            (found, self.writes) = (true, self.writes + 1);
            self.written = resumption.map(|resumption| *resumption);
            self.desk.act(|session, now| session.saved(now, Ok(())));
        }
        found
    }

    fn push(&mut self, seq: u64) {
        self.desk.say(seq, gateway::PUSH, &v1::Push::default());
    }

    fn take(&mut self) {
        for (_, delivery) in std::mem::take(&mut self.desk.events) {
            if let Some(delivery) = delivery {
                self.desk.act(|session, now| session.taken(now, delivery));
            }
        }
    }

    fn acks(&mut self) -> Vec<u64> {
        self.desk.heard().iter().map(|frame| frame.ack).filter(|ack| *ack > 0).collect()
    }
}

fn written(pen: &Pen) -> (&[u8], u64, u64) {
    let written = pen.written.as_ref().unwrap();
    (written.resume_token.as_bytes(), written.attempt, written.down_seq)
}

// spec: W-4, W-7
#[test]
fn nothing_is_acknowledged_before_it_is_written_and_many_are_written_at_once() {
    let mut pen = Pen::open();
    assert_eq!(written(&pen), (&b"first"[..], 0, 0));
    assert_eq!(pen.written.as_ref().unwrap().user_id, "alice");
    (1..=3).for_each(|seq| pen.push(seq));
    pen.take();
    assert!(!pen.write(), "more may come");
    assert!(pen.desk.wait() <= SECOND);
    assert_eq!(pen.acks(), []);
    assert!(pen.write());
    assert_eq!((pen.acks(), written(&pen).2), (vec![3], 3));
    (4..=7).for_each(|seq| pen.push(seq));
    pen.take();
    assert!(pen.write(), "half a window");
    assert_eq!(pen.acks(), [7]);
    assert_eq!(pen.writes, 3);
    pen.desk.pass(60 * SECOND);
    assert!(!pen.write(), "there is nothing new");
}

#[test]
fn a_busy_session_writes_once_for_all_its_places() {
    let mut pen = Pen::open();
    for round in 0..5 {
        let before = pen.writes;
        let tickets: Vec<Ticket> = (0..IN_FLIGHT).map(|_| pen.desk.ask()).collect();
        for (up_seq, _) in pen.desk.requests() {
            pen.desk.answer(up_seq, v1::Response::default());
        }
        assert!(tickets.iter().all(|ticket| pen.desk.outcomes.contains_key(ticket)), "{round}");
        assert!(pen.write());
        assert_eq!(pen.writes, before + 1, "{round}");
    }
}

// spec: R-12
#[test]
fn an_attempt_is_written_before_it_is_made_and_a_token_before_it_is_proven() {
    let mut pen = Pen::open();
    pen.desk.lose();
    pen.desk.reconnect("a");
    let attempt = pen.desk.attempt("a");
    pen.desk.act(|session, now| session.connected(now, attempt, None));
    assert!(pen.write(), "before the bytes are looked at");
    assert_eq!(written(&pen), (&b"first"[..], 1, 0));
    assert_eq!(pen.desk.heard().len(), 1);
    pen.desk.resumes(ResumeResult::Resumed, b"second", 0);
    pen.desk.welcome("alice", 0);
    assert!(pen.write());
    assert_eq!(written(&pen), (&b"second"[..], 1, 0));
}

// spec, W-10, D-9
#[test]
fn the_next_process_goes_on() {
    let mut pen = Pen::open();
    let _open = [pen.desk.ask(), pen.desk.ask()];
    pen.push(1);
    pen.take();
    pen.desk.wait();
    pen.write();
    pen.push(2);
    let mut next = Pen::new(pen.written);
    let attempt = next.desk.attempt("a");
    next.desk.act(|session, now| session.connected(now, attempt, None));
    assert!(next.write());
    let hello = next.desk.heard().remove(0);
    let Some(Member::Hello(v1::Hello { resume: Some(resume), .. })) = hello.member else {
        panic!("{hello:?}")
    };
    assert_eq!((&resume.resume_token[..], resume.attempt, resume.down_seq), (&b"first"[..], 1, 1));
    next.desk.resumes(ResumeResult::Resumed, b"second", 2);
    next.desk.welcome("alice", 0);
    assert!(next.write());
    assert_eq!(next.acks(), [1]);
    assert!(!next.desk.has_missed());
    next.desk.events.clear();
    next.push(2);
    assert!(matches!(next.desk.events[..], [(Event::Push(_), Some(_))]), "it was not taken");
    next.take();
    next.desk.numbered = 2;
    let ticket = next.desk.ask();
    assert_eq!(next.desk.requests()[0].0, 3);
    for up_seq in 1..=3 {
        next.desk.answer(up_seq, v1::Response::default());
    }
    assert_eq!(next.desk.outcomes.len(), 1, "the answers to the process before are nobody's");
    assert!(answered(&next.desk.outcomes[&ticket]).is_ok());
    assert_eq!(next.desk.session.state(), &open_state("alice"));
}

#[test]
fn what_the_next_process_cannot_resume_is_a_resync() {
    let pen = Pen::open();
    let mut next = Pen::new(pen.written);
    let attempt = next.desk.attempt("a");
    next.desk.act(|session, now| session.connected(now, attempt, None));
    next.write();
    next.desk.resumes(ResumeResult::UnknownSession, b"other", 0);
    next.desk.welcome("", 0);
    next.write();
    assert!(next.desk.has_missed());
    assert_eq!(written(&next), (&b"other"[..], 0, 0));
}

// spec
#[test]
fn who_leaves_for_good_leaves_nothing_behind_and_who_comes_again_leaves_all() {
    for keep_for in [Duration::ZERO, 40 * SECOND] {
        let mut pen = Pen::open();
        pen.push(1);
        pen.take();
        pen.desk.heard();
        pen.desk.act(|session, now| session.leave_keeping(now, SECOND, keep_for));
        let frames = pen.desk.heard();
        let Some(Member::Bye(bye)) = &frames[0].member else { panic!("{frames:?}") };
        assert_eq!(u128::from(bye.keep_for_ms), keep_for.as_millis());
        pen.desk.say(0, gateway::BYE_ACK, &v1::ByeAck {});
        assert_eq!(pen.desk.ending(), Some(&Ending::Left));
        assert!(pen.write());
        if keep_for.is_zero() {
            assert_eq!(pen.written, None);
        } else {
            assert_eq!(written(&pen), (&b"first"[..], 0, 1), "with what was taken up to the end");
        }
    }
    let mut pen = Pen::open();
    pen.desk.lose();
    pen.desk.act(|session, now| session.leave_keeping(now, SECOND, SECOND));
    pen.write();
    assert!(pen.written.is_some(), "the gateway keeps it anyway");
    let mut pen = Pen::open();
    pen.desk.error(Reason::Kicked, v1::Reconnect::default());
    pen.write();
    assert_eq!(pen.written, None, "it is over");
}

#[test]
fn a_store_that_fails_is_told_of_and_not_used_any_more() {
    let mut pen = Pen::open();
    pen.push(1);
    pen.take();
    pen.desk.wait();
    assert!(matches!(pen.desk.asked(), outputs if matches!(outputs[..], [Output::Save(Some(_))])));
    pen.desk.act(|session, now| session.saved(now, Err("the disk is full".to_owned())));
    assert_eq!(pen.acks(), [1], "it goes on");
    assert_eq!(pen.desk.events[0].0, Event::NotSaved("the disk is full".to_owned()));
    pen.push(2);
    pen.take();
    pen.desk.wait();
    assert_eq!(pen.acks(), [2]);
    assert_eq!(pen.desk.asked(), []);
}

#[test]
fn a_session_that_cannot_be_resumed_waits_for_no_store() {
    let mut pen = Pen::new(None);
    pen.desk.accept("a");
    pen.desk.welcome("alice", 0);
    pen.desk.events.clear();
    pen.push(1);
    pen.take();
    pen.desk.wait();
    pen.write();
    assert_eq!((pen.acks(), &pen.written), (vec![1], &None));
    let before = pen.writes;
    pen.push(2);
    pen.take();
    pen.desk.wait();
    assert_eq!((pen.acks(), pen.writes), (vec![2], before));
}

//! When to register and when to beat.
//!
//! ```text
//!   unregistered ── Register: good ──► registered ── Beat: good ──► registered
//!     ▲      └─ failed: after a delay ─┐   ├─ Beat failed: again, after a delay; the third time: Register
//!     └────────────────────────────────┘   └─ forgotten, or it is time to renew: Register, at once ──┐
//!                                  registered ◄── good ──────────────────────────────────────────────┤
//!                                  failing    ◄── failed: Register, after a delay ───────────────────┘
//! ```
//!
//! What is not healthy is not registered, neither for the first time nor again; it beats, to say so.

use crate::error::RegistryError;
use crate::pace::{Backoff, share};
use std::time::{Duration, Instant};

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Beats in a row that fail until it is registered anew all the same.
const BEATS_LOST_MAX: u32 = 3;
/// Until one that is not healthy is looked at again before it is registered.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Beats come no more often, whatever a registry says.
const BEAT_MIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Register,
    Beat,
}

/// What is worth a line in the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// For the first time.
    Registered,
    /// The registry had forgotten it, and has it again: with the words in which it said so.
    Forgotten(RegistryError),
    /// A beat has failed, and is tried again; told once.
    Missed(RegistryError),
    /// Beats arrive again.
    Resumed,
    /// It is registered, and not healthy any more.
    Unwell,
    /// It is healthy again.
    Well,
    /// It cannot be; told once.
    Failing(RegistryError),
    /// It is again.
    Back,
}

#[derive(Debug)]
enum Standing {
    New,
    Registered,
    /// The beat was refused: the next registration tells what it was.
    Lost(RegistryError),
    Failing,
}

/// The course of one registration.
#[derive(Debug)]
pub(crate) struct Course {
    step: Step,
    at: Instant,
    every: Duration,
    /// Registered anew that long after the last time: a beat may leave a registry that has lost half of it content.
    renew: Option<Duration>,
    renew_at: Option<Instant>,
    backoff: Backoff,
    standing: Standing,
    /// Beats in a row that failed.
    lost: u32,
    is_healthy: bool,
}

impl Course {
    /// `renew`: how often to register anew all the same.
    pub(crate) fn new(now: Instant, renew: Option<Duration>) -> Course {
        Course {
            step: Step::Register,
            at: now,
            every: BEAT_MIN,
            renew,
            renew_at: None,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY),
            standing: Standing::New,
            lost: 0,
            is_healthy: true,
        }
    }

    /// What to do next, and when.
    pub(crate) fn next(&self) -> (Step, Instant) {
        (self.step, self.at)
    }

    pub(crate) fn is_registered(&self) -> bool {
        matches!(self.standing, Standing::Registered)
    }

    /// How the instance is, before each step: whether there is something to do, and what there is to tell.
    pub(crate) fn judged(&mut self, now: Instant, is_healthy: bool) -> (bool, Option<News>) {
        let was = std::mem::replace(&mut self.is_healthy, is_healthy);
        let news = match (was, is_healthy) {
            (true, false) => Some(News::Unwell),
            (false, true) => Some(News::Well),
            _ => None,
        };
        if self.step == Step::Register && !is_healthy {
            if self.is_registered() {
                // It was to be renewed: until it is well it beats, and so says that it is not.
                self.step = Step::Beat;
            } else {
                self.at = now + LOOK_EVERY;
                return (false, news);
            }
        }
        (true, news)
    }

    /// What became of registering: how often to beat.
    pub(crate) fn registered(
        &mut self,
        now: Instant,
        result: Result<Duration, RegistryError>,
        random: u64,
    ) -> Option<News> {
        match result {
            Ok(every) => {
                self.every = every.max(BEAT_MIN);
                self.backoff.succeeded();
                self.lost = 0;
                self.renew_at = self.renew.map(|renew| now + renew);
                self.beat_next(now, random);
                match std::mem::replace(&mut self.standing, Standing::Registered) {
                    Standing::New => Some(News::Registered),
                    Standing::Lost(error) => Some(News::Forgotten(error)),
                    Standing::Failing => Some(News::Back),
                    Standing::Registered => None,
                }
            }
            Err(error) => {
                (self.step, self.at) = (Step::Register, now + self.backoff.failed(random));
                match std::mem::replace(&mut self.standing, Standing::Failing) {
                    Standing::Failing => None,
                    _ => Some(News::Failing(error)),
                }
            }
        }
    }

    /// What became of a beat: how often to beat, if the registry says so.
    pub(crate) fn beaten(
        &mut self,
        now: Instant,
        result: Result<Option<Duration>, RegistryError>,
        random: u64,
    ) -> Option<News> {
        match result {
            Ok(every) => {
                self.every = every.unwrap_or(self.every).max(BEAT_MIN);
                self.beat_next(now, random);
                self.backoff.succeeded();
                (std::mem::take(&mut self.lost) > 0).then_some(News::Resumed)
            }
            Err(error) if error.is_forgotten() => {
                self.standing = Standing::Lost(error);
                (self.step, self.at) = (Step::Register, now);
                None
            }
            Err(error) => {
                self.lost = self.lost.saturating_add(1);
                // A registry that does not know it may say so in words that are not known here.
                let is_over = self.lost >= BEATS_LOST_MAX;
                self.step = if is_over { Step::Register } else { Step::Beat };
                self.at = now + self.backoff.failed(random).min(self.every);
                (self.lost == 1).then_some(News::Missed(error))
            }
        }
    }

    fn beat_next(&mut self, now: Instant, random: u64) {
        self.at = now + share(self.every, 80, 100, random);
        let renews = self.renew_at.is_some_and(|renew_at| renew_at <= self.at);
        self.step = if renews { Step::Register } else { Step::Beat };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::now;

    const S: Duration = Duration::from_secs(1);

    fn no() -> RegistryError {
        RegistryError::Refused { server: "http://r".to_owned(), code: 404, words: "unknown".to_owned() }
    }

    #[test]
    fn it_registers_and_beats() {
        let start = now();
        let mut course = Course::new(start, None);
        assert_eq!((course.next(), course.is_registered()), ((Step::Register, start), false));
        assert_eq!(course.registered(start, Ok(5 * S), 0), Some(News::Registered));
        assert_eq!((course.next(), course.is_registered()), ((Step::Beat, start + 4 * S), true));
        course.beaten(start + 4 * S, Ok(Some(10 * S)), 2000);
        assert_eq!(course.next(), (Step::Beat, start + 14 * S), "as the registry says, with jitter");
        course.beaten(start + 14 * S, Ok(Some(Duration::ZERO)), 2000);
        assert_eq!(course.next(), (Step::Beat, start + 14 * S + BEAT_MIN), "and not too often");
    }

    #[test]
    fn what_was_forgotten_is_registered_again_at_once() {
        let start = now();
        let mut course = Course::new(start, None);
        course.registered(start, Ok(5 * S), 0);
        course.beaten(start + 4 * S, Err(no()), 0);
        assert_eq!((course.next(), course.is_registered()), ((Step::Register, start + 4 * S), false));
        assert_eq!(course.registered(start + 4 * S, Ok(5 * S), 0), Some(News::Forgotten(no())));
        assert!(course.is_registered());
    }

    #[test]
    fn a_beat_that_fails_is_tried_again_and_is_no_loss() {
        let start = now();
        let mut course = Course::new(start, None);
        course.registered(start, Ok(5 * S), 0);
        let silent = || RegistryError::unreachable("http://r", "timeout");
        assert_eq!(course.beaten(start, Err(silent()), 5000), Some(News::Missed(silent())));
        assert_eq!((course.next(), course.is_registered()), ((Step::Beat, start + FIRST_DELAY), true));
        assert_eq!(course.beaten(start, Ok(None), 0), Some(News::Resumed));
        assert_eq!(course.next(), (Step::Beat, start + 4 * S));
        let steps = [(); 3].map(|()| {
            course.beaten(start, Err(silent()), 5000);
            course.next().0
        });
        assert_eq!(steps, [Step::Beat, Step::Beat, Step::Register], "whatever it is");
        assert_eq!(course.registered(start, Ok(5 * S), 0), None, "and it was not forgotten");
    }

    #[test]
    fn what_is_not_healthy_beats_and_is_not_registered() {
        let start = now();
        let mut course = Course::new(start, Some(10 * S));
        assert_eq!(course.judged(start, false), (false, Some(News::Unwell)));
        assert_eq!(course.next(), (Step::Register, start + LOOK_EVERY));
        assert_eq!(course.judged(start, true), (true, Some(News::Well)));
        course.registered(start, Ok(5 * S), 2000);
        course.beaten(start + 5 * S, Ok(None), 2000);
        assert_eq!(course.next().0, Step::Register, "to renew it");
        assert_eq!(course.judged(start + 10 * S, false), (true, Some(News::Unwell)));
        assert_eq!(course.next().0, Step::Beat);
        course.beaten(start + 10 * S, Err(no()), 0);
        assert_eq!(
            course.judged(start + 10 * S, false),
            (false, None),
            "forgotten, it stays so until it is well"
        );
        assert_eq!(course.judged(start + 11 * S, true), (true, Some(News::Well)));
        assert_eq!(course.next().0, Step::Register);
    }

    #[test]
    fn failures_are_told_once_and_tried_less_and_less_often() {
        let start = now();
        let mut course = Course::new(start, None);
        assert_eq!(course.registered(start, Err(no()), 5000), Some(News::Failing(no())));
        let mut delays = Vec::new();
        for _ in 0..6 {
            let (step, at) = course.next();
            assert_eq!((step, course.registered(at, Err(no()), 5000)), (Step::Register, None));
            delays.push(course.next().1.duration_since(at).as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 10, 10]);
        assert_eq!(course.registered(start, Ok(S), 0), Some(News::Back));
        course.beaten(start, Err(no()), 0);
        assert_eq!(
            course.registered(start, Err(no()), 0),
            Some(News::Failing(no())),
            "and told again the next time"
        );
        assert_eq!(course.next().1, start + FIRST_DELAY / 2, "from the shortest delay");
    }

    #[test]
    fn it_renews_what_it_registered() {
        let start = now();
        let mut course = Course::new(start, Some(10 * S));
        course.registered(start, Ok(5 * S), 2000);
        let mut steps = Vec::new();
        for _ in 0..5 {
            let (step, at) = course.next();
            steps.push((step, at.duration_since(start).as_secs()));
            match step {
                Step::Register => assert_eq!(course.registered(at, Ok(5 * S), 2000), None, "silently"),
                Step::Beat => assert_eq!(course.beaten(at, Ok(None), 2000), None),
            }
        }
        let (beat, register) = (Step::Beat, Step::Register);
        assert_eq!(steps, [(beat, 5), (register, 10), (beat, 15), (register, 20), (beat, 25)]);
    }
}

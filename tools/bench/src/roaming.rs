//! What a thread finds of clients whose connections are cut.

use crate::ledger::Ledger;
use hdrhistogram::Histogram;
use moorgate_proto::time::Mono;
use std::collections::BTreeMap;
use std::io;

/// The longest time that is told apart, in microseconds.
const US_MAX: u64 = 600_000_000;

/// What one client has asked and had.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) number: u32,
    /// Requests that were made.
    pub(crate) asked: u64,
    /// What came of each stream of pushes.
    pub(crate) ledgers: Vec<Ledger>,
    /// Pushes of which the gateway has said that they will not come.
    pub(crate) gaps: u64,
}

/// Of all clients of a thread.
#[derive(Debug)]
pub(crate) struct Roaming {
    pub(crate) cuts: u64,
    /// Cuts by a reset.
    pub(crate) resets: u64,
    /// Cuts of which the gateway was not told.
    pub(crate) half_open: u64,
    /// Hellos that have asked for a session; some are cut before the answer.
    pub(crate) resumes: u64,
    pub(crate) resumed: u64,
    /// Fresh sessions in place of those that were asked for, by result.
    pub(crate) fresh: BTreeMap<&'static str, u64>,
    /// Requests that have had their own echo.
    pub(crate) echoes: u64,
    /// Requests with an answer that is no success.
    pub(crate) refused: u64,
    pub(crate) answered_twice: u64,
    /// From the start of a connect to its Welcome: of resumes, and of fresh sessions where none is resumed.
    pub(crate) back_us: Histogram<u64>,
    /// Requests before the window.
    pub(crate) calm_us: Histogram<u64>,
    /// When all were cut at once, and when the last one was back.
    pub(crate) cut_at: Mono,
    pub(crate) back_at: Mono,
    pub(crate) accounts: Vec<Account>,
}

/// Of microseconds.
pub(crate) fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, US_MAX, 3).map_err(io::Error::other)
}

impl Roaming {
    pub(crate) fn new() -> io::Result<Roaming> {
        Ok(Roaming {
            cuts: 0,
            resets: 0,
            half_open: 0,
            resumes: 0,
            resumed: 0,
            fresh: BTreeMap::new(),
            echoes: 0,
            refused: 0,
            answered_twice: 0,
            back_us: histogram()?,
            calm_us: histogram()?,
            cut_at: Mono::NEVER,
            back_at: Mono::ZERO,
            accounts: Vec::new(),
        })
    }

    /// Adds another thread's.
    pub(crate) fn add(&mut self, other: Roaming) {
        for (sum, part) in [
            (&mut self.cuts, other.cuts),
            (&mut self.resets, other.resets),
            (&mut self.half_open, other.half_open),
            (&mut self.resumes, other.resumes),
            (&mut self.resumed, other.resumed),
            (&mut self.echoes, other.echoes),
            (&mut self.refused, other.refused),
            (&mut self.answered_twice, other.answered_twice),
        ] {
            *sum = sum.saturating_add(part);
        }
        for (result, count) in other.fresh {
            *self.fresh.entry(result).or_default() += count;
        }
        // They have the same bounds.
        self.back_us.add(&other.back_us).unwrap_or_default();
        self.calm_us.add(&other.calm_us).unwrap_or_default();
        self.cut_at = self.cut_at.min(other.cut_at);
        self.back_at = self.back_at.max(other.back_at);
        self.accounts.extend(other.accounts);
    }
}

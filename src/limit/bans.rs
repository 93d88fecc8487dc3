//! Who is shut out for a time: addresses and users with too many offences, or by an operator's hand.
//!
//! ```text
//!   unknown ── offence ──► watched ── too many within the window ──► banned ── its time is over ──► remembered
//!      ▲                      │ the window passes                       ▲             │ too many again: twice as long
//!      └──────────────────────┴──────── a quiet time passes ────────────┼─────────────┘
//!                                                          by hand ─────┘
//! ```
//!
//! Offences fill a leaky bucket; the one that does not fit into it bans. Each further ban is twice as long as the last,
//! up to a maximum, until its subject has been quiet for the maximum since its last ban.

use super::Rate;
use super::address::network;
use super::gcra::Gcra;
use super::roster::{Hasher, Roster};
use super::user::User;
use moorgate_proto::time::Mono;
use parking_lot::Mutex;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Units of one offence: the least of them weighs one.
const UNITS: u32 = 10;

/// What a deployment chooses of bans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanSettings {
    /// Whether offences lead to bans. Without, there are those by hand only.
    pub enabled: bool,
    /// Offences within the window that are put up with.
    pub offences: u32,
    /// The time in which as many offences are forgotten.
    pub window: Duration,
    /// How long the first ban is.
    pub first: Duration,
    /// How long a ban becomes at the most, and the quiet time after which earlier ones are forgotten.
    pub longest: Duration,
    /// Addresses and users that are watched or banned at once.
    pub subjects_max: usize,
}

impl Default for BanSettings {
    fn default() -> Self {
        BanSettings {
            enabled: true,
            offences: 100,
            window: Duration::from_secs(60),
            first: Duration::from_secs(60),
            longest: Duration::from_secs(3600),
            subjects_max: 1 << 16,
        }
    }
}

/// What somebody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// Showed an access token that nobody has signed, or that was made for somebody else.
    BadToken,
    /// Showed a proof of an application that does not hold.
    BadProof,
    /// Tried to log in, and was not who it said.
    FailedLogin,
    /// Broke the contract.
    Violation,
    /// Went on asking above its rate.
    RateLimited,
}

impl Offence {
    /// Ten requests above a rate weigh as much as one of the others: an impatient client is no attacker yet.
    fn units(self) -> u32 {
        match self {
            Offence::BadToken | Offence::BadProof | Offence::FailedLogin | Offence::Violation => UNITS,
            Offence::RateLimited => 1,
        }
    }
}

/// Who can be banned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A client address, or an IPv6 network of 64 bits; [`Subject::address`] makes it.
    Address(IpAddr),
    /// A user.
    User(Arc<User>),
}

impl Subject {
    /// The address, or the network that an IPv6 client owns.
    pub fn address(address: IpAddr) -> Subject {
        Subject::Address(network(address))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Address(IpAddr::V6(network)) => write!(f, "address {network}/64"),
            Subject::Address(address) => write!(f, "address {address}"),
            Subject::User(user) => write!(f, "user {user}"),
        }
    }
}

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub subject: Subject,
    /// Until when.
    pub until: Mono,
    /// Whether an operator has banned it.
    pub by_hand: bool,
}

/// What an offence has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentence {
    /// The end of the ban.
    pub until: Mono,
    /// Whether it is this offence that has led to it.
    pub is_new: bool,
}

#[derive(Debug, Default)]
struct Record {
    offences: Gcra,
    /// The end of the last ban.
    until: Mono,
    /// Bans for offences, until forgotten.
    times: u32,
    /// The last ban was by hand.
    by_hand: bool,
}

impl Record {
    fn is_banned(&self, now: Mono) -> bool {
        self.until > now
    }

    fn is_over(&self, now: Mono, longest: Duration) -> bool {
        let is_forgotten = self.until == Mono::ZERO || self.until + longest <= now;
        is_forgotten && !self.is_banned(now) && self.offences.is_full(now)
    }
}

/// Everybody who is watched or banned. Shared by all threads.
#[derive(Debug)]
pub struct Bans {
    settings: BanSettings,
    /// Offences, in units; `None`: they do not count.
    rate: Option<Rate>,
    records: Mutex<Roster<Subject, Record>>,
    /// Whether there may be records: mostly there are none, and nobody takes the lock.
    has_records: AtomicBool,
    given: AtomicU64,
    unrecorded: AtomicU64,
}

impl Bans {
    /// Nobody is banned. `seed` is random.
    pub fn new(settings: BanSettings, seed: u64) -> Bans {
        let units = settings.offences.saturating_mul(UNITS);
        let rate = Rate::new(units, settings.window, units).filter(|_| settings.enabled);
        Bans {
            records: Mutex::new(Roster::new(settings.subjects_max, Hasher::with_seed(seed))),
            rate,
            settings,
            has_records: AtomicBool::new(false),
            given: AtomicU64::new(0),
            unrecorded: AtomicU64::new(0),
        }
    }

    /// Until when the subject is banned, if it is.
    pub fn is_banned(&self, now: Mono, subject: &Subject) -> Option<Mono> {
        if !self.has_records.load(Ordering::Relaxed) {
            return None;
        }
        let mut records = self.records.lock();
        records.find(subject).filter(|record| record.is_banned(now)).map(|record| record.until)
    }

    /// Counts an offence: the ban in force, if there is one; an offence during a ban changes nothing.
    pub fn offend(&self, now: Mono, subject: &Subject, offence: Offence) -> Option<Sentence> {
        let rate = self.rate?;
        let (first, longest) = (self.settings.first, self.settings.longest);
        let sentence = self.with_record(now, subject, |record| {
            if record.is_banned(now) {
                return Some(Sentence { until: record.until, is_new: false });
            }
            if record.offences.charge_many(now, rate, offence.units()).is_ok() {
                return None;
            }
            if record.until + longest <= now {
                record.times = 0;
            }
            let doubled = 1u32.checked_shl(record.times).unwrap_or(u32::MAX);
            record.times = record.times.saturating_add(1);
            record.until = now + first.saturating_mul(doubled).min(longest);
            record.by_hand = false;
            record.offences = Gcra::default();
            Some(Sentence { until: record.until, is_new: true })
        })?;
        if sentence.is_some_and(|sentence| sentence.is_new) {
            self.given.fetch_add(1, Ordering::Relaxed);
        }
        sentence
    }

    /// Bans by hand, for at least as long as it is banned already; `false`: there is no room.
    pub fn ban(&self, now: Mono, subject: &Subject, length: Duration) -> bool {
        let until = now + length;
        let ban = |record: &mut Record| {
            record.until = record.until.max(until);
            record.by_hand = true;
        };
        self.with_record(now, subject, ban).is_some()
    }

    /// Forgets everything about a subject; whether it was banned.
    pub fn lift(&self, now: Mono, subject: &Subject) -> bool {
        let mut records = self.records.lock();
        let was_banned = records.find(subject).is_some_and(|record| record.is_banned(now));
        records.remove(subject);
        self.has_records.store(records.len() > 0, Ordering::Relaxed);
        was_banned
    }

    /// All bans in force, in the order of their subjects.
    pub fn list(&self, now: Mono) -> Vec<Ban> {
        let records = self.records.lock();
        let banned = records.iter().filter(|(_, record)| record.is_banned(now));
        let mut bans: Vec<Ban> = banned
            .map(|(subject, record)| Ban {
                subject: subject.clone(),
                until: record.until,
                by_hand: record.by_hand,
            })
            .collect();
        bans.sort_by(|one, other| one.subject.cmp(&other.subject));
        bans
    }

    /// Bans for offences, so far.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// Offences that were not counted since there was no room: nobody was banned for them.
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded.load(Ordering::Relaxed)
    }

    fn with_record<T>(
        &self,
        now: Mono,
        subject: &Subject,
        change: impl FnOnce(&mut Record) -> T,
    ) -> Option<T> {
        let longest = self.settings.longest;
        let mut records = self.records.lock();
        let is_over = |record: &Record| record.is_over(now, longest);
        let changed = records.find_or_insert(subject, is_over, Record::default).map(change);
        if changed.is_none() {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
        self.has_records.store(records.len() > 0, Ordering::Relaxed);
        changed
    }
}

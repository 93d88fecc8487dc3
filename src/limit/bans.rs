//! Bans of addresses and users: for violations, by the gateway itself, and by an operator.
//!
//! ```text
//!   unknown ── violation ──► watched ── too many within the window ──► banned ── the ban ends ─────► remembered
//!      ▲                       │ the window passes                       ▲             │ too many again: twice as long
//!      └───────────────────────┴──────── a quiet time passes ────────────┴─────────────┘
//! ```
//!
//! Violations fill a leaky bucket; the one that does not fit into it bans. Each further ban is twice as long as the last,
//! up to a maximum, until its subject has been quiet for the maximum since its last ban.
//!
//! A ban by an operator is absolute. A ban for violations is one of an address that a whole network may share: clients may
//! connect from it at a low rate, [`Bans::may_connect`], and the caller admits those with a good access token or a session
//! to resume.
//!
//! When the table is full, a record of the least weight is given up for the new one: those who fill it lose their own.
//! Bans by an operator have a table of their own. As the table fills, IPv6 addresses are recorded by wider networks.

use super::Rate;
use super::address::network;
use super::gcra::Gcra;
use super::roster::{Hasher, Roster};
use super::user::User;
use moorgate_proto::time::Mono;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Units of one offence: the least of them weighs one.
const UNITS: u32 = 10;
/// Bans by an operator at once.
pub const OPERATOR_BANS_MAX: usize = 4096;
/// Clients of one address that is banned for violations may connect so often, those that show a good access token or
/// resume a session not counted.
const BANNED_CONNECTS_PER_SECOND: u32 = 10;
const BANNED_CONNECTS_BURST: u32 = 20;
/// Bits of the networks by which IPv6 addresses are recorded: while the table is less than half full, less than three
/// quarters full, and beyond.
const NETWORK_BITS: [u8; 3] = [64, 56, 48];

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
    /// A wider IPv6 network, and its bits.
    Network(Ipv6Addr, u8),
    /// A user.
    User(Arc<User>),
}

impl Subject {
    /// The address, or the network that an IPv6 client owns.
    pub fn address(address: IpAddr) -> Subject {
        Subject::Address(network(address))
    }

    /// The same, or for an IPv6 network the one of so many bits that it lies in.
    fn widened(&self, bits: u8) -> Subject {
        match self {
            Subject::Address(IpAddr::V6(network)) if bits < 64 => {
                let mask = u128::MAX.checked_shl(128u32.saturating_sub(bits.into())).unwrap_or(0);
                Subject::Network((network.to_bits() & mask).into(), bits)
            }
            other => other.clone(),
        }
    }

    /// Everything that is banned with it: itself, and the networks that it lies in.
    fn covers(&self) -> impl Iterator<Item = Subject> + '_ {
        let is_network = matches!(self, Subject::Address(IpAddr::V6(_)));
        let wider = NETWORK_BITS.iter().skip(1).filter(move |_| is_network);
        std::iter::once(self.clone()).chain(wider.map(|bits| self.widened(*bits)))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Address(IpAddr::V6(network)) => write!(f, "address {network}/64"),
            Subject::Address(address) => write!(f, "address {address}"),
            Subject::Network(network, bits) => write!(f, "network {network}/{bits}"),
            Subject::User(user) => write!(f, "user {user}"),
        }
    }
}

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub subject: Subject,
    /// When it began; of one by an operator not kept.
    pub since: Mono,
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
    /// The beginning and the end of the last ban.
    since: Mono,
    until: Mono,
    /// Bans for offences, until forgotten.
    times: u32,
    /// Connections from the address during a ban.
    connects: Gcra,
}

impl Record {
    fn is_banned(&self, now: Mono) -> bool {
        self.until > now
    }

    fn is_over(&self, now: Mono, longest: Duration) -> bool {
        let is_forgotten = self.until == Mono::ZERO || self.until + longest <= now;
        is_forgotten && !self.is_banned(now) && self.offences.is_full(now)
    }

    /// What is given up first is least: who is not banned, with the fewest bans and violations; then the ban that ends
    /// first.
    fn weight(&self, now: Mono) -> (bool, u32, Mono) {
        match self.is_banned(now) {
            true => (true, 0, self.until),
            false => (false, self.times, self.offences.full_at()),
        }
    }
}

#[derive(Debug)]
struct Tables {
    records: Roster<Subject, Record>,
    /// Until when.
    by_operator: HashMap<Subject, Mono, Hasher>,
}

impl Tables {
    fn is_empty(&self) -> bool {
        self.records.len() == 0 && self.by_operator.is_empty()
    }

    /// The ban of a subject or of a network that it lies in; one by an operator before all others.
    fn ban_of(&mut self, now: Mono, subject: &Subject) -> Option<Ban> {
        if let Some(until) = self.by_operator.get(subject).copied().filter(|until| *until > now) {
            return Some(Ban { subject: subject.clone(), since: Mono::ZERO, until, by_hand: true });
        }
        let Tables { records, .. } = self;
        subject.covers().find_map(|subject| {
            let Record { since, until, .. } = *records.find(&subject).filter(|it| it.is_banned(now))?;
            Some(Ban { subject, since, until, by_hand: false })
        })
    }
}

/// Everybody who is watched or banned. Shared by all threads.
#[derive(Debug)]
pub struct Bans {
    settings: BanSettings,
    /// Offences, in units; `None`: they do not count.
    rate: Option<Rate>,
    connects: Option<Rate>,
    tables: Mutex<Tables>,
    /// Whether there may be records: mostly there are none, and nobody takes the lock.
    has_records: AtomicBool,
    given: AtomicU64,
    given_up: AtomicU64,
}

impl Bans {
    /// Nobody is banned. `seed` is random.
    pub fn new(settings: BanSettings, seed: u64) -> Bans {
        let units = settings.offences.saturating_mul(UNITS);
        let rate = Rate::new(units, settings.window, units).filter(|_| settings.enabled);
        let hasher = Hasher::with_seed(seed);
        let records = Roster::new(settings.subjects_max, hasher.clone());
        Bans {
            tables: Mutex::new(Tables { records, by_operator: HashMap::with_hasher(hasher) }),
            rate,
            connects: Rate::new(BANNED_CONNECTS_PER_SECOND, Duration::from_secs(1), BANNED_CONNECTS_BURST),
            settings,
            has_records: AtomicBool::new(false),
            given: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        }
    }

    /// The ban of a subject that is in force, its own or that of a network that it lies in.
    pub fn ban_of(&self, now: Mono, subject: &Subject) -> Option<Ban> {
        if !self.has_records.load(Ordering::Relaxed) {
            return None;
        }
        self.tables.lock().ban_of(now, subject)
    }

    /// Until when the subject is banned, if it is.
    pub fn is_banned(&self, now: Mono, subject: &Subject) -> Option<Mono> {
        self.ban_of(now, subject).map(|ban| ban.until)
    }

    /// Charges a connection from an address: always admitted without a ban, at a low rate during one for violations,
    /// never during one by an operator.
    ///
    /// # Errors
    /// How long until a connection from there may be admitted.
    pub fn may_connect(&self, now: Mono, address: &Subject) -> Result<(), Duration> {
        if !self.has_records.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut tables = self.tables.lock();
        let Some(ban) = tables.ban_of(now, address) else { return Ok(()) };
        let left = ban.until.since(now);
        match (tables.records.find(&ban.subject), self.connects) {
            (Some(record), Some(rate)) if !ban.by_hand => {
                record.connects.charge(now, rate).map_err(|wait| wait.min(left))
            }
            _ => Err(left),
        }
    }

    /// Gives the charge of [`Bans::may_connect`] back to a connection that was accepted then: its client has a good access
    /// token, or resumes a session. One that was accepted before the ban was not charged for it.
    pub fn has_proved(&self, ban: &Ban, accepted: Mono) {
        if accepted < ban.since {
            return;
        }
        let mut tables = self.tables.lock();
        if let (Some(record), Some(rate)) = (tables.records.find(&ban.subject), self.connects) {
            record.connects.give_back(rate);
        }
    }

    /// Counts an offence: the ban in force, if there is one; an offence during a ban changes nothing.
    pub fn offend(&self, now: Mono, subject: &Subject, offence: Offence) -> Option<Sentence> {
        let rate = self.rate?;
        let (first, longest) = (self.settings.first, self.settings.longest);
        let mut tables = self.tables.lock();
        if let Some(ban) = tables.ban_of(now, subject) {
            return Some(Sentence { until: ban.until, is_new: false });
        }
        let is_over = |record: &Record| record.is_over(now, longest);
        let bits = self.network_bits(tables.records.len());
        let mut known =
            |subject: &Subject| tables.records.find(subject).is_some_and(|record| !is_over(record));
        let subject = subject.covers().find(&mut known).unwrap_or_else(|| subject.widened(bits));
        let weight = |record: &Record| record.weight(now);
        let recorded = tables.records.find_or_replace(&subject, is_over, weight, Record::default);
        if recorded.as_ref().is_none_or(|(_, replaced)| *replaced) {
            self.given_up.fetch_add(1, Ordering::Relaxed);
        }
        let (record, _) = recorded?;
        self.has_records.store(true, Ordering::Relaxed);
        if record.offences.charge_many(now, rate, offence.units()).is_ok() {
            return None;
        }
        if record.until + longest <= now {
            record.times = 0;
        }
        let doubled = 1u32.checked_shl(record.times).unwrap_or(u32::MAX);
        record.times = record.times.saturating_add(1);
        record.since = now;
        record.until = now + first.saturating_mul(doubled).min(longest);
        record.offences = Gcra::default();
        record.connects = Gcra::default();
        self.given.fetch_add(1, Ordering::Relaxed);
        Some(Sentence { until: record.until, is_new: true })
    }

    /// By how many bits IPv6 addresses are recorded, with so many records.
    fn network_bits(&self, records: usize) -> u8 {
        let [narrow, wide, widest] = NETWORK_BITS;
        let max = self.settings.subjects_max;
        match records {
            few if few < max / 2 => narrow,
            some if some < max.saturating_mul(3) / 4 => wide,
            _ => widest,
        }
    }

    /// Bans by an operator, for at least as long as an operator has banned it already; `false`: there are
    /// [`OPERATOR_BANS_MAX`].
    pub fn ban(&self, now: Mono, subject: &Subject, length: Duration) -> bool {
        let mut tables = self.tables.lock();
        let bans = &mut tables.by_operator;
        if bans.len() >= OPERATOR_BANS_MAX && !bans.contains_key(subject) {
            bans.retain(|_, until| *until > now);
            if bans.len() >= OPERATOR_BANS_MAX {
                return false;
            }
        }
        let until = bans.entry(subject.clone()).or_insert(Mono::ZERO);
        *until = (now + length).max(*until);
        self.has_records.store(true, Ordering::Relaxed);
        true
    }

    /// Forgets everything about a subject, and about the networks that it lies in; whether it was banned.
    pub fn lift(&self, now: Mono, subject: &Subject) -> bool {
        let mut tables = self.tables.lock();
        let was_banned = tables.ban_of(now, subject).is_some();
        tables.by_operator.remove(subject);
        for subject in subject.covers() {
            tables.records.remove(&subject);
        }
        self.has_records.store(!tables.is_empty(), Ordering::Relaxed);
        was_banned
    }

    /// All bans in force, in the order of their subjects.
    pub fn list(&self, now: Mono) -> Vec<Ban> {
        let tables = self.tables.lock();
        let by_operator =
            tables.by_operator.iter().filter(|(_, until)| **until > now).map(|(subject, until)| Ban {
                subject: subject.clone(),
                since: Mono::ZERO,
                until: *until,
                by_hand: true,
            });
        let for_violations = tables
            .records
            .iter()
            .filter(|(_, record)| record.is_banned(now))
            .filter(|(subject, _)| tables.by_operator.get(subject).is_none_or(|until| *until <= now))
            .map(|(subject, record)| Ban {
                subject: subject.clone(),
                since: record.since,
                until: record.until,
                by_hand: false,
            });
        let mut bans: Vec<Ban> = by_operator.chain(for_violations).collect();
        bans.sort_by(|one, other| one.subject.cmp(&other.subject));
        bans
    }

    /// Bans for offences, so far.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// Records that were given up, or not made, because the table was full.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }
}

//! What is asked of a pool, what it answers, and why it chose as it did.

use super::EndpointId;
use crate::base::ids::RouteId;

/// What a pool has to know of a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask {
    /// Whose call it is, hashed: the same key goes to the same endpoint where that is wanted.
    pub key: u64,
    /// Whether it goes to the canary.
    pub canary: bool,
    /// Where it was sent before: another endpoint is taken if there is one.
    pub avoid: Option<usize>,
}

/// Why no endpoint takes the call now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// None has a ready link.
    NoEndpoint,
    /// All that have one are at their bounds, or the service is: no call of the service can go out.
    NoRoom,
    /// All that this call may go to are at their bounds: those with the canary's tag, or those without it. A call of the
    /// other kind may find room.
    SideFull,
}

/// By which rule an endpoint was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum How {
    /// None was.
    #[default]
    None,
    /// There was only this one.
    Only,
    /// An earlier call of the session went there.
    Pinned,
    /// It was ejected, and is tried once to see whether it is back.
    Probe,
    /// Round robin.
    RoundRobin,
    /// Smooth weighted round robin.
    WeightedRoundRobin,
    /// At random.
    Random,
    /// The least outstanding.
    LeastOutstanding,
    /// The lower cost of two.
    PeakEwma,
    /// The hash of the caller.
    ConsistentHash,
}

/// Why an endpoint was chosen: small enough to travel with every settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decision {
    /// The rule.
    pub how: How,
    /// What was special.
    pub marks: Marks,
    /// How often the call was sent, this time counted.
    pub attempt: u8,
    /// Endpoints that could have been chosen.
    pub candidates: u16,
    /// Endpoints that were ejected.
    pub ejected: u16,
    /// The chosen one's cost, in microseconds of expected waiting; 0 where the rule knows no cost.
    pub cost_us: u32,
    /// The one that it was compared with.
    pub rival: EndpointId,
    /// Its cost.
    pub rival_cost_us: u32,
}

/// What was special about a choice: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u8);

impl Marks {
    /// Too few could be used: ejected and doubted ones were used too.
    pub const PANIC: Marks = Marks(1);
    /// The caller goes to the canary.
    pub const CANARY: Marks = Marks(2);
    /// The canary, or the endpoints that are not the canary, had nobody: the others took it.
    pub const FALLBACK: Marks = Marks(4);
    /// Those that are preferred could not carry it.
    pub const SPILLED: Marks = Marks(8);
    /// The first choice was at its bound.
    pub const FULL: Marks = Marks(16);
    /// A second attempt beside one that is slow.
    pub const HEDGE: Marks = Marks(32);
    /// Another endpoint than the one that had it before.
    pub const RETRY: Marks = Marks(64);

    /// All of them, with their names in the access log.
    pub const NAMES: [(Marks, &'static str); 7] = [
        (Marks::PANIC, "panic"),
        (Marks::CANARY, "canary"),
        (Marks::FALLBACK, "fallback"),
        (Marks::SPILLED, "spilled"),
        (Marks::FULL, "full"),
        (Marks::HEDGE, "hedge"),
        (Marks::RETRY, "retry"),
    ];

    /// These, and those.
    #[must_use]
    pub const fn with(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    /// Whether it has all of those.
    pub const fn has(self, other: Marks) -> bool {
        self.0 & other.0 == other.0
    }
}

impl How {
    /// Its name in the access log.
    pub const fn name(self) -> &'static str {
        match self {
            How::None => "none",
            How::Only => "only",
            How::Pinned => "pinned",
            How::Probe => "probe",
            How::RoundRobin => "round_robin",
            How::WeightedRoundRobin => "weighted_round_robin",
            How::Random => "random",
            How::LeastOutstanding => "least_outstanding",
            How::PeakEwma => "peak_ewma",
            How::ConsistentHash => "consistent_hash",
        }
    }
}

/// What a call's failure may be due to beside its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// A hash of the user; of an anonymous session that of the client's address. One byte, because every call has it.
    pub caller: u8,
    /// The route of its command.
    pub route: RouteId,
}

/// What a call told of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered.
    Good,
    /// It failed, or did not answer in time.
    Failed,
    /// It has too much to do: it is spared, but not ejected; for so many milliseconds if it says so.
    Busy(u32),
    /// Nothing: the call was cancelled, or says nothing of the endpoint.
    Nothing,
}

/// One endpoint in an explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct Standings {
    /// Which.
    pub id: EndpointId,
    /// Whether it could be chosen.
    pub usable: bool,
    /// Why not, or what is special, for people: "ejected for 3 s", "no link", "canary", "slow start 40 %".
    pub notes: Vec<String>,
    /// Calls outstanding.
    pub outstanding: u32,
    /// Its part in the choice, in percent of its weight.
    pub weight: u32,
    /// Smoothed latency, in microseconds.
    pub latency_us: u32,
    /// Its cost now, in microseconds.
    pub cost_us: u32,
}

/// Why a call would go where it would go.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What would be chosen, and why.
    pub chosen: Result<(EndpointId, Decision), Miss>,
    /// Every endpoint of the pool.
    pub endpoints: Vec<Standings>,
}

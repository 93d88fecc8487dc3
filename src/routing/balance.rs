//! Which endpoint takes the next call.

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// Smooth weighted round robin: one after the other, as often as its weight says.
    WeightedRoundRobin,
    /// At random, by weight.
    Random,
    /// The one with the fewest calls outstanding for its weight.
    LeastOutstanding,
    /// Of two drawn by weight, the one with the lower latency times outstanding calls, or with near-equal latencies the one
    /// with fewer outstanding calls.
    #[default]
    PeakEwma,
    /// The caller's hash decides, with bounded loads.
    ConsistentHash,
}

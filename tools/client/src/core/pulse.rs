//! Signs of life: when to ping, when silence is too long, and how long an interval the gateway was told of.
//!
//! Who [has beats of its own](ClientCore::beat_every) announces each interval by a Ping, and any other frame ends what
//! was announced. From then on the gateway counts by the negotiated interval again, so the next Ping comes within one.

use super::upward::millis;
use super::{ClientCore, State};
use fastrand::Rng;
use moorgate_proto::time::Mono;
use std::time::Duration;

/// The shortest interval of [`ClientCore::beat_every`].
pub const BEAT_MIN: Duration = Duration::from_secs(1);
/// The longest interval of [`ClientCore::beat_every`]. A deployment may allow less, which no client can see.
pub const BEAT_MAX: Duration = Duration::from_secs(600);

/// A ping comes after such a share of its interval, in thousandths, so that clients do not beat in step.
const SHARE_MIN: u32 = 850;
const SHARE_MAX: u32 = 1000;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Pulse {
    negotiated: Duration,
    /// What the application wants in its place; zero: nothing.
    wanted: Duration,
    /// The last frame that was sent was a Ping that has announced what is wanted.
    is_announced: bool,
    heard: Mono,
    /// When the first ping since then was sent; `NEVER`: none was.
    pinged: Mono,
    /// When something was last sent; before Welcome when the connection began.
    spoke: Mono,
    /// `None`: pings come after the whole interval.
    random: Option<Rng>,
    /// Of the interval, until the next ping.
    share: u32,
}

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse {
            negotiated: Duration::ZERO,
            wanted: Duration::ZERO,
            is_announced: false,
            heard: Mono::ZERO,
            pinged: Mono::NEVER,
            spoke: Mono::ZERO,
            random: None,
            share: SHARE_MAX,
        }
    }

    fn set_random(&mut self, random: Rng) {
        self.random = Some(random);
        self.draw_share();
    }

    fn draw_share(&mut self) {
        if let Some(random) = &mut self.random {
            self.share = random.u32(SHARE_MIN..=SHARE_MAX);
        }
    }

    /// A connection begins, and says Hello.
    pub(super) fn connected(&mut self, now: Mono) {
        (self.heard, self.spoke, self.pinged) = (now, now, Mono::NEVER);
        self.is_announced = false;
    }

    pub(super) fn negotiated(&mut self, interval: Duration) {
        self.negotiated = interval;
    }

    /// A frame has come.
    pub(super) fn heard(&mut self, now: Mono) {
        (self.heard, self.pinged) = (now, Mono::NEVER);
    }

    /// A frame was written.
    pub(super) fn spoken(&mut self, now: Mono) {
        self.spoke = now;
        self.is_announced = false;
    }

    /// What a Ping says of the next one.
    pub(super) fn next_ms(&self) -> u32 {
        millis(self.wanted)
    }

    /// The frame that was written was a Ping with [`Pulse::next_ms`].
    pub(super) fn pinged(&mut self, now: Mono) {
        self.pinged = self.pinged.min(now);
        self.is_announced = self.has_own();
        self.draw_share();
    }

    pub(super) fn spoke(&self) -> Mono {
        self.spoke
    }

    /// Whether the application has an interval of its own.
    pub(super) fn has_own(&self) -> bool {
        !self.wanted.is_zero()
    }

    /// Whether the gateway counts by another interval than it should.
    pub(super) fn is_unannounced(&self) -> bool {
        self.has_own() && !self.is_announced
    }

    fn interval(&self) -> Duration {
        if self.has_own() { self.wanted } else { self.negotiated }
    }

    /// A gateway that has nothing to say is silent: it is lost only when it has not answered a ping.
    pub(super) fn silence_due(&self) -> Mono {
        let longer = self.wanted.max(self.negotiated);
        (self.heard + longer.saturating_mul(2)).max(self.pinged + longer)
    }

    pub(super) fn ping_due(&self) -> Mono {
        let interval = self.interval();
        let own = if self.is_unannounced() { interval.min(self.negotiated) } else { interval };
        let asked = if self.pinged == Mono::NEVER { self.heard + self.shared(interval) } else { Mono::NEVER };
        (self.spoke + self.shared(own)).min(asked)
    }

    fn shared(&self, interval: Duration) -> Duration {
        interval.saturating_mul(self.share) / SHARE_MAX
    }
}

impl ClientCore {
    /// From now on a Ping at once, and then one each `interval` in place of the negotiated one; each announces the next,
    /// so that the gateway waits for it. An application in the background need not wake its radio so often then. On
    /// every connection to come it is the same, from its Welcome. Zero: the negotiated interval again, by a Ping at once.
    ///
    /// It is taken as [`BEAT_MIN`] at the least and [`BEAT_MAX`] at the most. The gateway has a longest interval of its
    /// own (`session.heartbeat_max`, ten minutes unless the deployment says otherwise), which a client cannot see: where
    /// it is shorter than `interval`, a silent client is taken as lost.
    ///
    /// Any other frame ends what was announced, so there is one more Ping within the negotiated interval after requests
    /// and the like; what is only acknowledged is acknowledged by such a Ping. A gateway that is lost is noticed later,
    /// too: after twice the longer one of the two intervals.
    pub fn beat_every(&mut self, now: Mono, interval: Duration) {
        let is_own = !interval.is_zero();
        self.pulse.wanted = if is_own { interval.clamp(BEAT_MIN, BEAT_MAX) } else { Duration::ZERO };
        if matches!(self.state, State::Open | State::GoingAway) {
            self.ping(now);
        }
    }

    /// Pings come after 85 to 100 % of their interval, at random; without this after the whole interval.
    #[must_use]
    pub(crate) fn with_random(mut self, random: Rng) -> ClientCore {
        self.pulse.set_random(random);
        self
    }

    /// This core in place of `other`, whose pings and whose interval it goes on with.
    #[must_use]
    pub(crate) fn in_place_of(mut self, other: ClientCore) -> ClientCore {
        self.pulse = other.pulse;
        self
    }
}

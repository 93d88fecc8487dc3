//! Two sides of a service: the canary and the others, or the preferred zone and the others. Shares that change while calls
//! go on, a side that is down, and the judge of who goes where.

use crate::dice::Dice;
use crate::governance::backend::State;
use crate::governance::judge::{CallId, Judge};
use crate::governance::scenario::{CHAT, Kind, address};
use crate::governance::world::{Event, World};
use moorgate::routing::{CanarySettings, Instance, PoolSettings, Prefer};
use moorgate_proto::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const MARK: &str = "marked";
/// All users, in hundredths of a percent.
const EVERYBODY: u32 = 10_000;
/// Of the calls that could stay in their zone, so many in a hundred may leave it: a link may be full for a moment.
const LEAVE_PERCENT: u64 = 10;

/// What tells instances apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Split {
    #[default]
    None,
    /// These have the canary's tag.
    Canary(BTreeSet<usize>),
    /// These are in the preferred zone.
    Zone(BTreeSet<usize>),
}

impl Split {
    /// Draws one, and sets the pool up for it.
    pub fn draw(dice: &mut Dice, backends: usize, pool: &mut PoolSettings) -> Split {
        let kind = dice.index(4);
        if backends < 2 || kind > 1 {
            return Split::None;
        }
        let marked: BTreeSet<usize> = (0..dice.between(1, backends as u64 - 1) as usize).collect();
        if kind == 0 {
            let share = draw_share(dice);
            pool.canary =
                Some(CanarySettings { tag: MARK.to_owned(), share, roles: Vec::new(), hello: Vec::new() });
            Split::Canary(marked)
        } else {
            pool.prefer = Some(Prefer::Zone(MARK.to_owned()));
            Split::Zone(marked)
        }
    }

    /// An instance as sources tell of it.
    pub fn instance(&self, at: usize) -> Instance {
        let plain = Instance::at(address(at));
        match self {
            Split::Canary(marked) if marked.contains(&at) => {
                Instance { tags: Instance::sorted_tags([MARK].into_iter()), ..plain }
            }
            Split::Zone(marked) if marked.contains(&at) => Instance { zone: MARK.into(), ..plain },
            _ => plain,
        }
    }

    /// Whether it gets load when all are well.
    pub fn gets_load(&self, at: usize) -> bool {
        !matches!(self, Split::Zone(marked) if !marked.contains(&at))
    }

    fn marked(&self) -> Option<&BTreeSet<usize>> {
        match self {
            Split::None => None,
            Split::Canary(marked) | Split::Zone(marked) => Some(marked),
        }
    }
}

fn draw_share(dice: &mut Dice) -> u32 {
    match dice.index(5) {
        0 => 0,
        1 => EVERYBODY,
        _ => dice.below(u64::from(EVERYBODY) + 1) as u32,
    }
}

/// What was seen of who goes where, while all were well.
#[derive(Debug, Default)]
pub struct Sides {
    share: u32,
    /// Since when it is that.
    since: Mono,
    /// Each user has a number, and goes to the canary at the shares above it: what it is at least, and below what.
    users: BTreeMap<u32, (u32, u32)>,
    stayed: u64,
    left: u64,
}

impl Judge {
    /// The share is another one from now on.
    pub fn shared(&mut self, now: Mono, share: u32) {
        (self.sides.share, self.sides.since) = (share, now);
    }

    /// A call of which its caller heard nothing before has reached an instance, all being well.
    pub fn sided(&mut self, (kind, session): (Kind, u32), asked: Mono, at: usize) {
        // Those of an ordered route follow the calls before them.
        if kind.is_ordered() || kind == Kind::Bystander {
            return;
        }
        let sides = &mut self.sides;
        match &self.split {
            // The share was the same all the while.
            Split::Canary(marked) if asked > sides.since => {
                let (least, below) = sides.users.entry(session).or_insert((0, EVERYBODY));
                let is_there = marked.contains(&at);
                match is_there {
                    true => *below = (*below).min(sides.share),
                    false => *least = (*least).max(sides.share),
                }
                if least >= below {
                    let goes = if is_there { "goes" } else { "does not go" };
                    let (share, known) = (sides.share, (*least, *below));
                    self.violated(format!(
                        "the user of session {session} {goes} to the canary at {share}, and that was otherwise: {known:?}"
                    ));
                }
            }
            Split::Zone(marked) if marked.contains(&at) => sides.stayed += 1,
            Split::Zone(_) => sides.left += 1,
            Split::Canary(_) | Split::None => {}
        }
    }

    /// After all has ended.
    pub fn zone_was_kept_to(&mut self) {
        let Sides { stayed, left, .. } = self.sides;
        if left > 5 && left * 100 > (stayed + left) * LEAVE_PERCENT {
            self.violated(format!("{left} calls left their zone, all being well, and {stayed} stayed"));
        }
    }
}

impl World {
    /// The canary gets another share, and again later.
    pub fn shift(&mut self) {
        let share = draw_share(&mut self.dice);
        self.set_share(share);
        let pause = self.dice.millis(300, 2_000);
        self.schedule(pause, Event::Shift);
    }

    pub fn set_share(&mut self, share: u32) {
        self.pools.set_canary_share(CHAT, share);
        self.judge.shared(self.now, share);
        self.trace.note(self.now, "share", (share.into(), 0), || format!("the canary gets {share}"));
    }

    /// One side is down for a while, all others being well: the other side takes its calls.
    pub fn one_side_fails(&mut self) -> Result<(), String> {
        let Some(marked) = self.scenario.split.marked() else { return Ok(()) };
        let is_marked = self.dice.chance(50);
        let down: Vec<usize> =
            (0..self.scenario.backends).filter(|at| marked.contains(at) == is_marked).collect();
        self.go_on(Duration::from_secs(2))?;
        down.iter().for_each(|at| self.become_(*at, State::Crashed));
        // Until all have heard of it.
        self.go_on(Duration::from_secs(1))?;
        self.judge.one_side_is_well(true);
        self.go_on(Duration::from_secs(4))?;
        self.judge.one_side_is_well(false);
        // What is under way ends while that is so.
        let rest = self.scenario.timeout;
        self.go_on(rest)?;
        down.iter().for_each(|at| self.become_(*at, State::Up));
        Ok(())
    }

    /// A call has reached an instance: it has no more from this worker than the bounds allow. What its caller has heard of
    /// is over, whatever the instance knows; calls of an ordered route go where those before them are.
    pub fn is_within_bound(&mut self, worker: usize, at: usize) {
        let Some(bound) = self.scenario.bound else { return };
        let there =
            self.conns.iter().filter(|conn| conn.alive && (conn.worker, conn.backend) == (worker, at));
        // One that was sent again is on two of its links, of which one has ended.
        let calls: BTreeSet<CallId> = there.flat_map(|conn| conn.open.values().copied()).collect();
        let count = calls.into_iter().filter(|call| self.judge.is_unordered_and_open(*call)).count();
        // One more may be there to show whether it is back.
        if count > bound as usize + 1 {
            self.judge.violated(format!("{at} has {count} calls of worker {worker}, and may have {bound}"));
        }
    }
}

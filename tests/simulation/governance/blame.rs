//! Calls that fail wherever they run, of one caller or one route: no fault of the instances, which answer all others well.

use crate::governance::plant::Plant;
use crate::governance::scenario::{CHAT, Kind};
use crate::governance::world::World;
use std::time::Duration;

/// Which calls fail everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// Those of one caller.
    Caller(u32),
    /// Those of one route.
    Route(Kind),
    /// Those of two callers on one route.
    Callers([u32; 2], Kind),
}

impl Failing {
    pub fn has(self, kind: Kind, session: u32) -> bool {
        match self {
            Failing::Caller(caller) => kind != Kind::Bystander && session == caller,
            Failing::Route(route) => kind == route,
            Failing::Callers(callers, route) => kind == route && callers.contains(&session),
        }
    }
}

/// While some calls fail, all together ask so often.
const CALLS_PER_S: u64 = 60;

impl World {
    /// Some calls fail for a while, all instances being well: none is ejected for it.
    pub fn some_calls_fail(&mut self) -> Result<(), String> {
        // Ejections of before have ended.
        self.go_on(Duration::from_secs(2))?;
        let [one, other] = [self.some_session(), self.some_session()];
        let kinds = [Kind::Plain, Kind::Idempotent, Kind::Ordered, Kind::Hedged];
        let kind = kinds[self.dice.index(kinds.len())];
        let failing = match self.dice.index(3) {
            _ if self.plant == Some(Plant::CallerUnknown) => Failing::Caller(one),
            0 => Failing::Caller(one),
            1 => Failing::Route(kind),
            _ => Failing::Callers([one, other], kind),
        };
        self.trace.note(self.now, "failing", (one.into(), other.into()), || format!("{failing:?} fail"));
        let (calls_per_s, ejections) = (self.scenario.calls_per_s, self.pools.ejections(CHAT));
        (self.scenario.calls_per_s, self.failing) = (CALLS_PER_S, Some(failing));
        self.go_on(Duration::from_secs(6))?;
        if self.pools.ejections(CHAT) != ejections {
            self.judge.violated(format!("an instance was ejected, and only {failing:?} have failed"));
        }
        (self.scenario.calls_per_s, self.failing) = (calls_per_s, None);
        Ok(())
    }

    fn some_session(&mut self) -> u32 {
        self.dice.below(40) as u32
    }

    /// Which session asks next: while some fail, those ask as often as all others together.
    pub fn next_session(&mut self, worker: usize) -> u32 {
        let wanted = match self.failing {
            Some(Failing::Caller(caller)) => Some(caller),
            Some(Failing::Callers(callers, _)) => Some(callers[self.dice.index(2)]),
            Some(Failing::Route(_)) | None => None,
        };
        // Sessions stay with their worker.
        let is_here = |session: &u32| *session as usize % 2 == worker;
        match wanted.filter(is_here) {
            Some(session) if self.dice.chance(50) => session,
            _ => self.dice.below(20) as u32 * 2 + worker as u32,
        }
    }
}

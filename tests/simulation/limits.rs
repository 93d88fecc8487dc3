//! Small limits, and a judge who counts for himself.

use crate::dice::Dice;
use crate::oracle::Asked;
use crate::plant::Plant;
use crate::world::World;
use moorgate::base::ids::RouteId;
use moorgate::limit::{
    Asker, BanSettings, Bans, Limits, Logins, OwnerSettings, Rate, Reserve, Settings, ShardLimits, Shared,
    SharedRoom, Standing,
};
use moorgate::shard;
use moorgate_proto::time::Mono;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn rate(dice: &mut Dice, per_second: (u64, u64), burst: (u64, u64)) -> Option<Rate> {
    let (count, burst) = (dice.between(per_second.0, per_second.1), dice.between(burst.0, burst.1));
    let rate = Rate::new(count as u32, Duration::from_secs(1), burst as u32);
    rate.filter(|_| dice.chance(50))
}

fn owner(dice: &mut Dice) -> OwnerSettings {
    let rate = rate(dice, (2, 20), (1, 40));
    let outstanding_max = Some(dice.between(1, 40) as u32).filter(|_| dice.chance(50));
    OwnerSettings { rate, outstanding_max }
}

/// Half of the runs have limits: the others are to reach what lies behind them.
pub fn draw(dice: &mut Dice, routes: usize) -> Settings {
    if dice.chance(50) {
        return Settings::unlimited();
    }
    Settings {
        connection: rate(dice, (2, 20), (1, 10)),
        // A client that keeps within its other limits is to live in the calm.
        frames: rate(dice, (10, 40), (8, 30)),
        logins: None,
        user: owner(dice),
        address: owner(dice),
        application: owner(dice),
        routes: (0..routes).map(|_| rate(dice, (2, 20), (1, 20))).collect(),
        accounts_max: dice.between(0, 200) as usize,
    }
}

/// All that shards share of them.
pub fn shared(
    dice: &mut Dice,
    settings: &Settings,
    shards: u16,
    (plant, is_gentle): (Option<Plant>, bool),
) -> Shared {
    let mut settings = settings.clone();
    if plant == Some(Plant::NoRate) {
        settings.connection = None;
    }
    let bans = BanSettings {
        // In a gentle run none is drawn that a session may end for before its client could be told.
        enabled: dice.chance(50) && !is_gentle,
        offences: dice.between(1, 5) as u32,
        window: Duration::from_secs(dice.between(1, 10)),
        first: dice.millis(500, 2_000),
        // Everybody is let in again before the calm is over.
        longest: dice.millis(2_000, 6_000),
        subjects_max: dice.between(0, 20) as usize,
    };
    Shared {
        requests: Arc::new(Limits::new(settings, shards, dice.next())),
        bans: Arc::new(Bans::new(bans, dice.next())),
        logins: Arc::new(Logins::new(None, 0)),
        room: Arc::new(SharedRoom::new(usize::MAX)),
    }
}

/// Every client has its place in the calm, also without a token.
pub fn places(dice: &mut Dice, clients: usize, settings: shard::Settings) -> shard::Settings {
    let max = settings.connections_max;
    let percent = (max - clients) * 100 / max;
    let reserve = Reserve { percent: if dice.chance(50) { percent as u8 } else { 0 } };
    shard::Settings { handshakes_max: dice.between(1, max as u64) as usize, reserve, ..settings }
}

/// Counts what services run, against the rate of connections.
#[derive(Default)]
pub struct RateOracle {
    rate: Option<Rate>,
    /// Since when there is a connection, and what was run of its requests.
    ran: BTreeMap<u32, (Mono, u64)>,
}

impl RateOracle {
    pub fn new(rate: Option<Rate>) -> RateOracle {
        RateOracle { rate, ran: BTreeMap::new() }
    }

    pub fn connects(&mut self, now: Mono, incarnation: u32) {
        self.ran.insert(incarnation, (now, 0));
    }

    /// What is wrong, if a request was run that a bucket would not have let through by now.
    pub fn ran(&mut self, now: Mono, asked: Asked) -> Option<String> {
        let rate = self.rate?;
        let (since, ran) = self.ran.get_mut(&asked.incarnation)?;
        *ran += 1;
        let time = now.since(*since);
        let most = u128::from(rate.burst()) + time.as_nanos() / rate.interval().as_nanos();
        (u128::from(*ran) > most)
            .then(|| format!("{ran} requests of {asked:?} ran within {time:?}, not {most}"))
    }
}

impl World {
    /// A request is charged, and nobody takes its place back.
    pub fn leak_a_place(&mut self) {
        if self.plant != Some(Plant::LeakedPlace) || !self.dice.chance(5) {
            return;
        }
        let mut limits = ShardLimits::new(self.scenario.limits.requests.clone());
        let asker = || Asker { application: "im".into(), user: None, address: [10, 1, 0, 1].into() };
        let _ = limits.admit(self.clock().mono, &mut Standing::default(), RouteId(0), asker);
    }

    /// What is left of the limits, once all has ended.
    pub fn left_of_limits(&self) -> Option<String> {
        let Shared { requests, room, .. } = &self.scenario.limits;
        let shares: usize = self.shards.iter().map(|host| host.shard.limit_shares()).sum();
        let left = [
            (shares as u64, "shares of limits"),
            (requests.outstanding(), "places of outstanding requests"),
            (room.used() as u64, "connections in the common room"),
        ];
        let (count, what) = left.iter().find(|(count, _)| *count > 0)?;
        Some(format!("at the end there are {count} {what}"))
    }
}

//! Requests of many sessions on several shards: each limit holds, a refusal charges nothing, nothing leaks.

use super::buckets::Naive;
use super::model::{Keys, Model, kind};
use super::{SECOND, noon, per_second};
use crate::base::ids::RouteId;
use crate::limit::{
    Asker, Charge, Limit, Limits, OwnerSettings, Refusal, Settings, ShardLimits, Standing, User,
};
use moorgate_proto::time::Mono;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const ROUTE: RouteId = RouteId(0);

fn asker(application: &str, user_id: &str, last: u8) -> Asker {
    let user = User { application: application.into(), user_id: user_id.into() };
    let user = (!user_id.is_empty()).then_some(user);
    Asker { application: application.into(), user, address: IpAddr::from([192, 0, 2, last]) }
}

fn alice() -> Asker {
    asker("im", "alice", 1)
}

/// Shards of one gateway.
struct House {
    shared: Arc<Limits>,
    shards: Vec<ShardLimits>,
    now: Mono,
}

impl House {
    fn new(shards: u16, settings: Settings) -> House {
        let shared = Arc::new(Limits::new(settings, shards, 1));
        let shards = (0..shards).map(|_| ShardLimits::new(shared.clone())).collect();
        House { shared, shards, now: noon() }
    }

    fn ask(&mut self, shard: usize, session: &mut Standing, who: &Asker) -> Result<Charge, Refusal> {
        self.shards[shard].admit(self.now, session, ROUTE, || who.clone())
    }

    fn settled(&mut self, shard: usize, charge: Charge) {
        self.shards[shard].settled(self.now, &charge);
    }

    /// How many requests of a session pass now, and are not answered; and what the next one meets.
    fn burst(&mut self, shard: usize, session: &mut Standing, who: &Asker) -> (usize, Refusal) {
        for passed in 0..1_000_000 {
            match self.ask(shard, session, who) {
                Ok(Charge(_)) => {}
                Err(refusal) => return (passed, refusal),
            }
        }
        panic!("there is no limit");
    }
}

fn only(rate: u32, burst: u32) -> OwnerSettings {
    OwnerSettings { rate: Some(per_second(rate, burst)), outstanding_max: None }
}

fn at_once(max: u32) -> OwnerSettings {
    OwnerSettings { rate: None, outstanding_max: Some(max) }
}

#[test]
fn each_limit_refuses_and_says_when_to_come_again() {
    let rate = Some(per_second(10, 5));
    let all = Settings::unlimited();
    let cases = [
        (Settings { connection: rate, ..all.clone() }, Limit::Connection, 100),
        (Settings { user: only(10, 5), ..all.clone() }, Limit::User, 100),
        (Settings { address: only(10, 5), ..all.clone() }, Limit::Address, 100),
        (Settings { application: only(10, 5), ..all.clone() }, Limit::Application, 100),
        (Settings { routes: vec![rate], ..all.clone() }, Limit::Route, 100),
        (Settings { user: at_once(5), ..all.clone() }, Limit::OutstandingUser, 200),
        (Settings { address: at_once(5), ..all.clone() }, Limit::OutstandingAddress, 200),
        (Settings { application: at_once(5), ..all.clone() }, Limit::OutstandingApplication, 200),
    ];
    for (settings, limit, retry_ms) in cases {
        let mut house = House::new(4, settings);
        let mut session = Standing::default();
        let (passed, refusal) = house.burst(1, &mut session, &alice());
        let retry_after = Duration::from_millis(retry_ms);
        assert_eq!((passed, refusal), (5, Refusal { limit, retry_after }));
        house.now = house.now + retry_after;
        let is_rate = retry_ms == 100;
        assert_eq!(house.ask(1, &mut session, &alice()).is_ok(), is_rate, "{limit:?}");
    }
}

#[test]
fn everybody_else_goes_on() {
    let settings = Settings { user: only(10, 5), address: only(10, 8), ..Settings::unlimited() };
    let mut house = House::new(2, settings);
    let mut session = Standing::default();
    assert_eq!(house.burst(0, &mut session, &alice()).0, 5);
    let mut elsewhere = Standing::default();
    assert!(house.ask(1, &mut elsewhere, &alice()).is_err(), "on another shard she is the same user");
    let (mut another_app, mut bob) = (Standing::default(), Standing::default());
    assert!(house.ask(1, &mut another_app, &asker("games", "alice", 2)).is_ok());
    let (passed, refusal) = house.burst(0, &mut bob, &asker("im", "bob", 1));
    assert_eq!((passed, refusal.limit), (3, Limit::Address), "what is left of the address");
    let mut nobody = Standing::default();
    assert_eq!(house.burst(1, &mut nobody, &asker("im", "", 3)).0, 8, "nobody is no user");
}

#[test]
fn ipv6_addresses_of_one_network_are_one() {
    let mut house = House::new(1, Settings { address: only(10, 5), ..Settings::unlimited() });
    let from = |address: &str| Asker { address: address.parse().unwrap(), ..alice() };
    assert_eq!(house.burst(0, &mut Standing::default(), &from("2001:db8::1")).0, 5);
    assert_eq!(house.burst(0, &mut Standing::default(), &from("2001:db8::2")).0, 0);
    assert_eq!(house.burst(0, &mut Standing::default(), &from("2001:db8:0:1::2")).0, 5);
}

#[test]
fn a_place_is_kept_until_the_service_is_done() {
    let mut house = House::new(2, Settings { user: at_once(2), ..Settings::unlimited() });
    let (mut one, mut other) = (Standing::default(), Standing::default());
    let first = house.ask(0, &mut one, &alice()).unwrap();
    let second = house.ask(1, &mut other, &alice()).unwrap();
    assert!(house.ask(1, &mut other, &alice()).is_err());
    // The session ends; its request runs on.
    let now = house.now;
    house.shards[0].leave(now, &mut one);
    assert!(house.ask(1, &mut other, &alice()).is_err());
    house.settled(0, first);
    assert_eq!(house.shards[0].shares(), 0);
    let third = house.ask(1, &mut other, &alice()).unwrap();
    [second, third].into_iter().for_each(|charge| house.settled(1, charge));
    assert_eq!(house.shared.outstanding(), 0);
}

#[test]
fn who_becomes_somebody_else_is_counted_as_that() {
    let mut house = House::new(
        1,
        Settings { user: only(10, 5), connection: Some(per_second(10, 7)), ..Settings::unlimited() },
    );
    let mut session = Standing::default();
    assert_eq!(house.burst(0, &mut session, &alice()).0, 5);
    let now = house.now;
    house.shards[0].leave(now, &mut session);
    let (passed, refusal) = house.burst(0, &mut session, &asker("im", "bob", 1));
    assert_eq!((passed, refusal.limit), (2, Limit::Connection), "its connection is the same");
}

#[test]
fn frames_are_counted_by_themselves() {
    let house = House::new(1, Settings { frames: Some(per_second(10, 3)), ..Settings::unlimited() });
    let mut bucket = crate::limit::Gcra::default();
    let mut frame = |after_ms| house.shards[0].frame(noon() + Duration::from_millis(after_ms), &mut bucket);
    assert!((0..3).all(|_| frame(0).is_ok()));
    assert_eq!(frame(0), Err(Duration::from_millis(100)));
    assert_eq!((frame(100), frame(150)), (Ok(()), Err(Duration::from_millis(50))));
}

#[test]
fn a_full_table_shuts_nobody_out() {
    let settings = Settings { user: only(10, 5), accounts_max: 0, ..Settings::unlimited() };
    let mut house = House::new(1, settings);
    let mut session = Standing::default();
    for _ in 0..100 {
        let charge = house.ask(0, &mut session, &alice()).unwrap();
        house.settled(0, charge);
    }
    assert_eq!(house.shared.uncounted(), 1);
}

#[test]
fn what_a_busy_shard_holds_is_a_small_part() {
    // An eighth over all eight shards: 100 of 6,400 for each, of which a batch has 64 at most.
    let settings = Settings { application: only(1_000, 6_400), ..Settings::unlimited() };
    let mut house = House::new(8, settings);
    let mut sessions: Vec<Standing> = (0..8).map(|_| Standing::default()).collect();
    // One shard stops in the middle of its batch; the others take what there is.
    let first = (0..100).filter(|_| house.ask(0, &mut sessions[0], &alice()).is_ok()).count();
    assert_eq!(first, 100);
    let passed: usize = (1..8).map(|shard| house.burst(shard, &mut sessions[shard], &alice()).0).sum();
    assert!((6_300 - 64..=6_300).contains(&passed), "{passed}");
    // What it held is spent, or given back.
    let (left, _) = house.burst(0, &mut sessions[0], &alice());
    assert_eq!(100 + passed + left, 6_400, "not one more than a burst");
}

#[test]
fn places_that_idle_shards_hold_are_a_small_part() {
    let mut house = House::new(4, Settings { application: at_once(640), ..Settings::unlimited() });
    let mut sessions: Vec<Standing> = (0..4).map(|_| Standing::default()).collect();
    for (shard, session) in sessions.iter_mut().enumerate() {
        let charges: Vec<Charge> = (0..100).map(|_| house.ask(shard, session, &alice()).unwrap()).collect();
        charges.into_iter().for_each(|charge| house.settled(shard, charge));
    }
    assert!(house.shared.outstanding() <= 80, "{} are held", house.shared.outstanding());
    let (passed, _) = house.burst(0, &mut sessions[0], &alice());
    assert!((560..=640).contains(&passed), "{passed}");
    let now = house.now;
    (1..4).for_each(|shard| house.shards[shard].leave(now, &mut sessions[shard]));
    assert_eq!(house.shared.outstanding(), passed as u64, "who leaves holds nothing");
    assert_eq!(house.burst(0, &mut sessions[0], &alice()).0, 640 - passed);
}

#[test]
fn who_rests_leaves_nothing_behind() {
    let mut house = House::new(2, Settings::default());
    let mut sessions: Vec<Standing> = (0..100).map(|_| Standing::default()).collect();
    for (number, session) in sessions.iter_mut().enumerate() {
        let who = asker("im", &format!("user-{number}"), 1);
        let charge = house.ask(number % 2, session, &who).unwrap();
        house.settled(number % 2, charge);
    }
    assert!(house.shared.accounts() > 100);
    house.now = house.now + SECOND;
    let now = house.now;
    for (number, session) in sessions.iter_mut().enumerate() {
        house.shards[number % 2].leave(now, session);
        house.shards[number % 2].leave(now, session);
    }
    assert_eq!(house.shards.iter().map(ShardLimits::shares).sum::<usize>(), 0);
    assert!(house.shared.accounts() < 80, "{} accounts", house.shared.accounts());
}

fn rate() -> impl Strategy<Value = Option<crate::limit::Rate>> {
    proptest::option::weighted(0.7, (5u32..200, 1u32..8).prop_map(|(rate, burst)| per_second(rate, burst)))
}

fn owner() -> impl Strategy<Value = OwnerSettings> {
    (rate(), proptest::option::weighted(0.7, 1u32..6))
        .prop_map(|(rate, outstanding_max)| OwnerSettings { rate, outstanding_max })
}

fn settings() -> impl Strategy<Value = Settings> {
    (rate(), owner(), owner(), owner(), rate()).prop_map(|(connection, user, address, application, route)| {
        Settings { connection, user, address, application, routes: vec![route], ..Settings::unlimited() }
    })
}

proptest! {
    /// With bounds so small that nothing is taken ahead, shards decide exactly as one list of everything would.
    #[test]
    fn small_limits_are_exact(
        settings in settings(),
        steps in proptest::collection::vec((0usize..8, 0u8..8, 0u64..100), 1..200),
    ) {
        let mut house = House::new(2, settings.clone());
        let mut model = Model::new(settings);
        let mut sessions: Vec<Standing> = (0..8).map(|_| Standing::default()).collect();
        let mut under_way: Vec<(usize, Charge, Keys)> = Vec::new();
        // Two applications, three users and nobody, two addresses.
        let who = |session: usize| {
            asker(["im", "games"][session % 2], ["a", "b", "c", ""][session / 2], u8::from(session > 3))
        };
        for (session, action, pause_ms) in steps {
            let shard = session % 2;
            match action {
                0 => house.now = house.now + Duration::from_millis(pause_ms),
                1..=2 => if !under_way.is_empty() {
                    let (shard, charge, keys) = under_way.swap_remove(session % under_way.len());
                    house.settled(shard, charge);
                    model.settled(&keys);
                },
                3 => {
                    let now = house.now;
                    house.shards[shard].leave(now, &mut sessions[session]);
                }
                _ => {
                    let (met, keys) = model.met(house.now, session, &who(session));
                    match house.ask(shard, &mut sessions[session], &who(session)) {
                        Ok(charge) => {
                            prop_assert!(met.is_empty(), "it meets {met:?}");
                            model.charge(house.now, &keys);
                            under_way.push((shard, charge, keys));
                        }
                        Err(refusal) => {
                            let told = (kind(refusal.limit), refusal.retry_after);
                            prop_assert!(met.contains(&told), "{refusal:?}, and it meets {met:?}");
                            prop_assert_eq!(met[0].0, told.0, "the first is told");
                        }
                    }
                }
            }
        }
        for (shard, charge, _) in under_way {
            house.settled(shard, charge);
        }
        let now = house.now;
        for (number, session) in sessions.iter_mut().enumerate() {
            house.shards[number % 2].leave(now, session);
        }
        prop_assert_eq!(house.shared.outstanding(), 0);
        prop_assert_eq!(house.shards.iter().map(ShardLimits::shares).sum::<usize>(), 0);
    }

    /// With batches: never more than the burst and what time brings, and never much less.
    #[test]
    fn batches_keep_within_their_error(
        shards in 1u16..6,
        burst in 1u32..3_000,
        steps in proptest::collection::vec((0usize..6, 1usize..400, 0u64..50), 1..60),
    ) {
        let settings = Settings { application: only(1_000, burst), ..Settings::unlimited() };
        let mut house = House::new(shards, settings);
        let mut naive = Naive::new(per_second(1_000, burst));
        let mut sessions: Vec<Standing> = (0..shards).map(|_| Standing::default()).collect();
        let (mut passed, mut wanted) = (0u64, 0u64);
        for (shard, requests, pause_ms) in steps {
            let shard = shard % usize::from(shards);
            house.now = house.now + Duration::from_millis(pause_ms);
            for _ in 0..requests {
                wanted += u64::from(naive.charge(house.now, 1).is_ok());
                passed += u64::from(house.ask(shard, &mut sessions[shard], &alice()).is_ok());
            }
            let since_ms = u64::try_from(house.now.since(noon()).as_millis()).unwrap();
            prop_assert!(passed <= u64::from(burst) + since_ms, "{passed} in {since_ms} ms of {burst}");
            let held = (u64::from(burst) / 8).max(u64::from(shards));
            prop_assert!(passed + held >= wanted, "{passed} passed where {wanted} would");
        }
    }
}

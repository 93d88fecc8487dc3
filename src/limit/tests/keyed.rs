//! Accounts live while they are needed, and no longer.

use super::{SECOND, noon, per_second};
use crate::limit::gcra::Word;
use crate::limit::{Account, Keyed, Outstanding};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// A rate whose bucket is full again a tenth of a second after a charge.
fn charge(account: &Account, now: moorgate_proto::time::Mono) {
    assert_eq!(account.charge(now, per_second(10, 1), 1), Ok(1));
}

#[test]
fn an_owner_has_one_account_while_somebody_holds_it() {
    let table = Keyed::new(1_000, 1);
    let (one, other) = (table.hold(noon(), &"one").unwrap(), table.hold(noon(), &"other").unwrap());
    assert!(Arc::ptr_eq(&one, &table.hold(noon(), &"one").unwrap()));
    assert!(!Arc::ptr_eq(&one, &other));
    assert_eq!(table.len(), 2);
}

#[test]
fn an_account_is_kept_until_its_bucket_is_full_and_nothing_is_outstanding() {
    let table = Keyed::new(1_000, 1);
    let account = table.hold(noon(), &"one").unwrap();
    charge(&account, noon());
    assert_eq!(account.outstanding().take(5, 2), 2);
    let (known, watch) = (Arc::downgrade(&account), Arc::downgrade(&account));
    table.let_go(noon(), &"one", account);
    assert!(known.upgrade().is_some(), "its bucket is not full");
    let later = noon() + SECOND;
    let again = table.hold(later, &"one").unwrap();
    table.let_go(later, &"one", again);
    let again = watch.upgrade().expect("requests are outstanding");
    again.outstanding().give_back(2);
    drop(again);
    let last = table.hold(later, &"one").unwrap();
    table.let_go(later, &"one", last);
    assert!(watch.upgrade().is_none() && table.is_empty());
}

#[test]
fn a_crowd_that_has_gone_is_forgotten_as_it_goes() {
    let table = Keyed::new(1 << 20, 1);
    let mut crowd: Vec<_> = (0..20_000u32).map(|key| (key, table.hold(noon(), &key).unwrap())).collect();
    assert_eq!(table.len(), 20_000);
    crowd.iter().for_each(|(_, account)| charge(account, noon()));
    let later = noon() + SECOND;
    crowd.drain(..).for_each(|(key, account)| table.let_go(later, &key, account));
    assert!(table.len() < 400, "{} are left", table.len());
}

#[test]
fn a_full_table_shuts_nobody_out_and_counts_it() {
    // One for each stripe.
    let table = Keyed::new(64, 1);
    let crowd: Vec<_> = (0..2_000u32).map(|key| table.hold(noon(), &key)).collect();
    let counted = crowd.iter().flatten().count();
    assert_eq!(counted, 64, "each stripe has one");
    assert_eq!(table.turned_away(), 2_000 - 64);
    // Once the crowd has gone there is room again.
    drop(crowd);
    assert!((0..2_000u32).filter(|key| table.hold(noon(), key).is_some()).count() > 1_900);
    assert_eq!(table.turned_away(), 2_000 - 64);
}

proptest! {
    /// Some hold, some charge, some let go, while time passes: nobody ever gets a second account, none is lost that
    /// still counts, and at the end none is left.
    #[test]
    fn accounts_are_neither_lost_nor_kept(
        steps in proptest::collection::vec((0u8..12, 0u8..4, 0u64..80), 1..200),
    ) {
        let table = Keyed::new(1_000, 1);
        let mut held: HashMap<u8, Vec<Arc<Account>>> = HashMap::new();
        let mut charged_until = HashMap::new();
        let mut now = noon();
        for (key, action, pause_ms) in steps {
            now = now + std::time::Duration::from_millis(pause_ms);
            match action {
                0 | 1 => {
                    let account = table.hold(now, &key).unwrap();
                    let others = held.entry(key).or_default();
                    prop_assert!(others.iter().all(|other| Arc::ptr_eq(other, &account)));
                    let is_busy = charged_until.get(&key).is_some_and(|until| *until > now);
                    prop_assert_eq!(account.charge(now, per_second(10, 1), 1).is_err(), is_busy);
                    if !is_busy {
                        charged_until.insert(key, now + SECOND / 10);
                    }
                    others.push(account);
                }
                _ => if let Some(account) = held.get_mut(&key).and_then(Vec::pop) {
                    table.let_go(now, &key, account);
                },
            }
        }
        let later = now + SECOND;
        for (key, accounts) in held {
            accounts.into_iter().for_each(|account| table.let_go(later, &key, account));
        }
        for key in 0..12 {
            let account = table.hold(later, &key).unwrap();
            table.let_go(later, &key, account);
        }
        prop_assert!(table.is_empty());
    }

    #[test]
    fn places_are_as_many_as_there_are(steps in proptest::collection::vec((1u32..9, 0u32..9), 1..100)) {
        const MAX: u32 = 10;
        let outstanding = Outstanding::<std::sync::atomic::AtomicU64>::default();
        let mut taken = 0;
        for (wanted, back) in steps {
            let got = outstanding.take(MAX, wanted);
            prop_assert_eq!(got, wanted.min(MAX - taken));
            taken += got;
            let back = back.min(taken);
            outstanding.give_back(back);
            taken -= back;
            prop_assert_eq!(outstanding.taken(), u64::from(taken));
        }
    }
}

/// Two threads take places of three, and give them back.
fn three_places<W: Word + Send + Sync + 'static>() {
    loom::model(|| {
        let places = loom::sync::Arc::new(Outstanding::<W>::default());
        let both = |places: &Outstanding<W>| {
            let taken = places.take(3, 2);
            places.give_back(taken);
            taken
        };
        let other = {
            let places = places.clone();
            loom::thread::spawn(move || both(&places))
        };
        let mine = both(&places);
        assert!(mine > 0 && other.join().unwrap() > 0);
        assert_eq!(places.taken(), 0);
    });
}

#[test]
fn no_place_is_lost_between_threads() {
    three_places::<super::buckets::LoomWord>();
}

#[test]
#[should_panic]
fn without_a_compare_one_would_be() {
    three_places::<super::buckets::Careless>();
}

//! Offences add up, bans grow, end, are forgotten, and can be given and lifted by hand.

use super::{SECOND, noon};
use crate::limit::{BanSettings, Bans, OPERATOR_BANS_MAX, Offence, Sentence, Subject, User};
use moorgate_proto::time::Mono;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn settings() -> BanSettings {
    BanSettings { offences: 3, window: MINUTE, first: MINUTE, longest: 8 * MINUTE, ..BanSettings::default() }
}

fn bans() -> Bans {
    Bans::new(settings(), 1)
}

fn address(last: u8) -> Subject {
    Subject::address(IpAddr::from([192, 0, 2, last]))
}

fn user(application: &str, user_id: &str) -> Subject {
    Subject::User(Arc::new(User { application: application.into(), user_id: user_id.into() }))
}

/// Offends until banned; for how long.
fn provoke(bans: &Bans, now: Mono, subject: &Subject) -> Duration {
    for _ in 0..3 {
        assert_eq!(bans.offend(now, subject, Offence::BadToken), None);
    }
    let sentence = bans.offend(now, subject, Offence::BadToken).expect("it is banned");
    assert!(sentence.is_new);
    sentence.until.since(now)
}

#[test]
fn the_offence_that_is_too_many_bans_and_the_others_do_not() {
    let bans = bans();
    assert_eq!(bans.is_banned(noon(), &address(1)), None);
    assert_eq!(provoke(&bans, noon(), &address(1)), MINUTE);
    assert_eq!(bans.is_banned(noon(), &address(1)), Some(noon() + MINUTE));
    assert_eq!(bans.is_banned(noon(), &address(2)), None, "it is somebody else");
    let end = noon() + MINUTE;
    assert!(bans.is_banned(end - Duration::from_nanos(1), &address(1)).is_some());
    assert_eq!(bans.is_banned(end, &address(1)), None);
    // Whoever was banned begins anew.
    assert_eq!(bans.offend(end, &address(1), Offence::Violation), None);
}

#[test]
fn offences_are_forgotten_with_the_window() {
    let bans = bans();
    let mut now = noon();
    for _ in 0..100 {
        // Three in each window, never four.
        assert_eq!(bans.offend(now, &address(1), Offence::FailedLogin), None);
        now = now + MINUTE / 3;
    }
}

#[test]
fn offences_have_their_weights() {
    let passed = |offence| {
        let bans = bans();
        (0..1_000).take_while(|_| bans.offend(noon(), &address(1), offence).is_none()).count()
    };
    let heavy = [Offence::BadToken, Offence::BadProof, Offence::FailedLogin, Offence::Violation];
    assert_eq!(heavy.map(passed), [3; 4]);
    assert_eq!(passed(Offence::RateLimited), 30);
}

#[test]
fn each_ban_is_twice_as_long_until_it_is_forgotten() {
    let bans = bans();
    let mut now = noon();
    for minutes in [1, 2, 4, 8, 8, 8] {
        let length = provoke(&bans, now, &address(1));
        assert_eq!(length, minutes * MINUTE);
        assert_eq!(bans.list(now)[0].until, now + length);
        now = now + length;
    }
    // A moment less than the quiet time, and earlier bans still count.
    now = now + 8 * MINUTE - SECOND;
    assert_eq!(provoke(&bans, now, &address(1)), 8 * MINUTE);
    now = now + 16 * MINUTE;
    assert_eq!(provoke(&bans, now, &address(1)), MINUTE);
}

#[test]
fn offences_during_a_ban_change_nothing() {
    let bans = bans();
    provoke(&bans, noon(), &address(1));
    for second in 0..60 {
        let now = noon() + second * SECOND;
        let sentence = Sentence { until: noon() + MINUTE, is_new: false };
        assert_eq!(bans.offend(now, &address(1), Offence::BadToken), Some(sentence));
    }
    assert_eq!(bans.given(), 1);
    assert_eq!(provoke(&bans, noon() + MINUTE, &address(1)), 2 * MINUTE);
}

#[test]
fn bans_by_hand_are_given_listed_and_lifted() {
    let bans = Bans::new(BanSettings { enabled: false, ..settings() }, 1);
    for _ in 0..1_000 {
        assert_eq!(bans.offend(noon(), &address(1), Offence::BadToken), None, "they do not count here");
    }
    assert!(bans.list(noon()).is_empty());
    assert!(bans.ban(noon(), &user("im", "mallory"), MINUTE) && bans.ban(noon(), &address(7), 2 * MINUTE));
    // A second one does not make it shorter.
    assert!(bans.ban(noon(), &address(7), SECOND));
    let list = |now| -> Vec<String> {
        let line =
            |ban: crate::limit::Ban| format!("{} {:?} {}", ban.subject, ban.until.since(noon()), ban.by_hand);
        bans.list(now).into_iter().map(line).collect()
    };
    assert_eq!(list(noon()), ["address 192.0.2.7 120s true", "user im/mallory 60s true"]);
    assert_eq!(list(noon() + MINUTE), ["address 192.0.2.7 120s true"]);
    assert_eq!(bans.is_banned(noon(), &user("games", "mallory")), None, "another application's");
    assert!(bans.lift(noon(), &user("im", "mallory")) && !bans.lift(noon(), &user("im", "mallory")));
    assert_eq!(bans.is_banned(noon(), &user("im", "mallory")), None);
    assert!(bans.lift(noon(), &address(7)) && bans.list(noon()).is_empty());
}

#[test]
fn a_ban_by_an_operator_is_independent_of_violations() {
    let bans = bans();
    provoke(&bans, noon(), &address(1));
    let by_hand = |now| bans.list(now).iter().map(|ban| ban.by_hand).collect::<Vec<_>>();
    assert_eq!(by_hand(noon()), [false]);
    assert!(bans.ban(noon(), &address(1), MINUTE / 2));
    assert_eq!(by_hand(noon()), [true], "one of a subject is listed");
    assert_eq!(by_hand(noon() + MINUTE / 2), [false], "the other goes on");
    assert!(bans.lift(noon(), &address(1)) && bans.list(noon()).is_empty(), "both are lifted");
}

// spec: O-29
#[test]
fn a_ban_for_violations_admits_connections_at_a_low_rate_and_one_by_an_operator_none() {
    let bans = bans();
    let connects =
        |now, address: &Subject| (0..100).filter(|_| bans.may_connect(now, address).is_ok()).count();
    assert_eq!(connects(noon(), &address(1)), 100, "it is not banned");
    provoke(&bans, noon(), &address(1));
    assert_eq!(connects(noon(), &address(1)), 20);
    let wait = bans.may_connect(noon(), &address(1)).unwrap_err();
    assert!(wait <= SECOND && bans.may_connect(noon() + wait, &address(1)).is_ok());
    assert_eq!(connects(noon() + 10 * SECOND, &address(1)), 20);
    // A client with a token takes nothing from those behind it.
    let later = noon() + 20 * SECOND;
    let ban = bans.ban_of(later, &address(1)).unwrap();
    for _ in 0..1_000 {
        assert!(bans.may_connect(later, &address(1)).is_ok());
        bans.has_proved(&ban, later);
    }
    // One that was accepted before the ban was not charged.
    connects(later, &address(1));
    (0..100).for_each(|_| bans.has_proved(&ban, noon() - SECOND));
    assert_eq!(connects(later, &address(1)), 0);
    assert!(bans.ban(later, &address(1), MINUTE) && bans.ban(later, &address(2), MINUTE));
    assert_eq!((connects(later, &address(1)), connects(later, &address(2))), (0, 0));
    assert_eq!(bans.may_connect(later, &address(2)), Err(MINUTE));
    assert_eq!(connects(noon() + 8 * MINUTE, &address(1)), 100, "all is over");
}

#[test]
fn lifting_forgets_earlier_bans_too() {
    let bans = bans();
    provoke(&bans, noon(), &address(1));
    assert!(bans.lift(noon(), &address(1)));
    assert_eq!(provoke(&bans, noon(), &address(1)), MINUTE);
}

#[test]
fn an_ipv6_network_is_one_subject() {
    let bans = bans();
    let one = Subject::address("2001:db8::1".parse().unwrap());
    assert_eq!(one.to_string(), "address 2001:db8::/64");
    provoke(&bans, noon(), &one);
    let is_banned = |text: &str| bans.is_banned(noon(), &Subject::address(text.parse().unwrap())).is_some();
    assert!(is_banned("2001:db8::ffff") && !is_banned("2001:db8:0:1::1"));
}

#[test]
fn a_name_from_outside_breaks_no_line_of_the_log() {
    assert_eq!(user("i\nm", "x\u{1b}[0m").to_string(), "user i\\nm/x\\u{1b}[0m");
}

fn v6(number: u64) -> Subject {
    Subject::address(IpAddr::from(std::net::Ipv6Addr::from(
        0x2001_0db8_u128 << 96 | u128::from(number) << 64,
    )))
}

/// An attacker with many addresses fills the table; others are banned, and stay so, all the same.
#[test]
fn a_full_table_gives_up_those_that_fill_it() {
    const MAX: u32 = 1000;
    let bans = Bans::new(BanSettings { subjects_max: MAX as usize, ..settings() }, 1);
    let attacker = |number: u32| Subject::address(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    // Banned often, and so for the longest time.
    let (mut now, regular) = (noon(), address(1));
    for _ in 0..4 {
        now = now + provoke(&bans, now, &regular);
    }
    provoke(&bans, now, &regular);
    for number in 0..2 * MAX {
        provoke(&bans, now, &attacker(number));
    }
    assert!(bans.given_up() >= u64::from(MAX) && bans.list(now).len() == MAX as usize);
    assert!(bans.is_banned(now, &regular).is_some(), "its ban ends last");
    // Who comes next is watched and banned, by the gateway and by an operator.
    provoke(&bans, now, &address(7));
    assert!(bans.ban(now, &address(8), MINUTE) && bans.ban(now, &user("im", "eve"), MINUTE));
    for number in 2 * MAX..4 * MAX {
        provoke(&bans, now, &attacker(number));
    }
    for subject in [&regular, &address(8), &user("im", "eve")] {
        assert!(bans.is_banned(now, subject).is_some(), "{subject}");
    }
}

/// Records of watched addresses do not replace those of banned ones.
#[test]
fn watched_addresses_are_given_up_before_banned_ones() {
    let bans = Bans::new(BanSettings { subjects_max: 100, ..settings() }, 1);
    let subject = |number: u32| Subject::address(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    for number in 0..50 {
        provoke(&bans, noon(), &subject(number));
    }
    for number in 50..10_000 {
        assert_eq!(bans.offend(noon(), &subject(number), Offence::BadToken), None);
    }
    assert_eq!(bans.list(noon()).len(), 50);
}

#[test]
fn an_operator_has_room_of_its_own_that_is_bounded() {
    let bans = Bans::new(BanSettings { subjects_max: 0, ..settings() }, 1);
    let max = u32::try_from(OPERATOR_BANS_MAX).unwrap();
    let subject = |number: u32| Subject::address(IpAddr::from(number.to_be_bytes()));
    assert_eq!(bans.offend(noon(), &subject(1), Offence::BadToken), None, "no room for violations");
    assert!((0..max).all(|number| bans.ban(noon(), &subject(number), MINUTE)));
    assert!(!bans.ban(noon(), &subject(max), MINUTE) && bans.ban(noon(), &subject(0), MINUTE));
    assert!(bans.ban(noon() + MINUTE, &subject(max), MINUTE), "those are over");
    assert_eq!(bans.list(noon() + MINUTE).len(), 1);
}

/// A /48 has 65,536 networks of 64 bits: as they fill the table, they become one subject.
#[test]
fn a_filling_table_records_wider_ipv6_networks() {
    let bans = Bans::new(BanSettings { subjects_max: 100, ..settings() }, 1);
    for number in 0..65_536 {
        if bans.is_banned(noon(), &v6(number)).is_none() {
            for _ in 0..4 {
                bans.offend(noon(), &v6(number), Offence::BadToken);
            }
        }
        assert!(bans.is_banned(noon(), &v6(number)).is_some(), "{number}");
    }
    assert_eq!(bans.given_up(), 0, "no record was given up for it");
    assert!(bans.given() < 90, "{}", bans.given());
    let widest = bans.list(noon()).into_iter().filter(|ban| matches!(ban.subject, Subject::Network(_, 48)));
    assert_eq!(widest.map(|ban| ban.subject.to_string()).collect::<Vec<_>>(), ["network 2001:db8::/48"]);
    // Another network and IPv4 clients are not in it.
    assert!(bans.is_banned(noon(), &v6(0x1_0000)).is_none() && bans.is_banned(noon(), &address(1)).is_none());
    provoke(&bans, noon(), &address(1));
    // An operator lifts it by any address in it.
    assert!(bans.lift(noon(), &v6(60_000)) && bans.is_banned(noon(), &v6(60_000)).is_none());
}

proptest! {
    /// Whatever happens, a ban ends when it was said to end, and none is longer than the longest.
    #[test]
    fn bans_keep_their_word(steps in proptest::collection::vec((0u8..3, 0u64..40), 1..300)) {
        let bans = bans();
        let mut ends = [Mono::ZERO; 3];
        let mut now = noon();
        for (who, pause) in steps {
            now = now + Duration::from_secs(pause);
            let subject = address(who);
            let end = &mut ends[usize::from(who)];
            prop_assert_eq!(bans.is_banned(now, &subject), (*end > now).then_some(*end));
            if let Some(Sentence { until, is_new }) = bans.offend(now, &subject, Offence::Violation) {
                prop_assert!(until.since(now) <= 8 * MINUTE);
                prop_assert_eq!((is_new, *end == until), (*end <= now, *end > now));
                *end = until;
            }
        }
    }
}

//! Offences add up, bans grow, end, are forgotten, and can be given and lifted by hand.

use super::{SECOND, noon};
use crate::limit::{BanSettings, Bans, Offence, Sentence, Subject, User};
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
fn the_last_ban_says_whether_it_was_by_hand() {
    let bans = bans();
    provoke(&bans, noon(), &address(1));
    let by_hand = || bans.list(noon())[0].by_hand;
    assert!(!by_hand());
    assert!(bans.ban(noon(), &address(1), MINUTE) && by_hand());
    let later = noon() + 2 * MINUTE;
    provoke(&bans, later, &address(1));
    assert!(!bans.list(later)[0].by_hand);
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

#[test]
fn the_table_is_bounded_and_makes_room_as_it_forgets() {
    let bans = Bans::new(BanSettings { subjects_max: 100, ..settings() }, 1);
    let subject = |number: u32| Subject::address(IpAddr::from(number.to_be_bytes()));
    for number in 0..100 {
        assert_eq!(bans.offend(noon(), &subject(number), Offence::BadToken), None);
    }
    assert!(!bans.ban(noon(), &subject(200), MINUTE), "there is no room");
    for _ in 0..9 {
        assert_eq!(bans.offend(noon(), &subject(200), Offence::BadToken), None, "nor for offences");
    }
    assert_eq!(bans.unrecorded(), 10);
    let later = noon() + MINUTE;
    assert!(bans.ban(later, &subject(200), MINUTE));
    assert!(bans.is_banned(later, &subject(200)).is_some());
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

//! Pushes over several links, driven by hand, and by a model gateway in any order.

use super::core::{Action, LinkId, Pushes};
use super::{EncodedPush, GatewayAnswer, PushId, PushReport, TargetState};
use crate::core::{GatewayKey, Peer};
use bytes::Bytes;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{PushResult, Reason, push_result::Target};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const NOW: Mono = Mono::from_nanos(1_000_000_000);
const TIMEOUT: Duration = Duration::from_secs(10);

fn gateway(name: &str, boot_id: u64) -> GatewayKey {
    GatewayKey { gateway_id: name.into(), boot_id }
}

fn peer(name: &str, pushes_max: u32) -> Peer {
    Peer { gateway: gateway(name, 1), pushes_max, frame_bytes_max: 1000, nonce: Bytes::new(), bulk_of: None }
}

fn link(serial: u64) -> LinkId {
    LinkId { index: 0, serial }
}

fn push(id: u8, targets: usize) -> EncodedPush {
    EncodedPush { id: PushId::new(&[id]).unwrap(), targets, body: vec![id; 10].into() }
}

fn result(id: u8, targets: &[Target]) -> PushResult {
    let targets = targets.iter().map(|&target| target.into()).collect();
    PushResult { push_id: vec![id].into(), targets, ..PushResult::default() }
}

/// By link, the first bytes of pushes.
type Sent = Vec<(u64, u8)>;

/// What is to be done: pushes by link and first byte, reports by waiter.
fn acts(pushes: &mut Pushes<u32>) -> (Sent, Vec<(u32, PushReport)>) {
    let (mut sent, mut reports) = (Vec::new(), Vec::new());
    while let Some(action) = pushes.poll_action() {
        match action {
            Action::Send { link, body } => sent.push((link.serial, body[0])),
            Action::Report { waiters, report } => {
                reports.extend(waiters.into_iter().map(|waiter| (waiter, report.clone())));
            }
        }
    }
    (sent, reports)
}

fn sent(pushes: &mut Pushes<u32>) -> Sent {
    let (sent, reports) = acts(pushes);
    assert!(reports.is_empty(), "{reports:?}");
    sent
}

fn report(pushes: &mut Pushes<u32>) -> PushReport {
    let (sent, mut reports) = acts(pushes);
    assert!(sent.is_empty() && reports.len() == 1, "{sent:?}, {reports:?}");
    reports.remove(0).1
}

fn answers(report: &PushReport) -> Vec<&GatewayAnswer> {
    report.gateways.iter().map(|gateway| &gateway.answer).collect()
}

/// Links 1 and 2 to gateway `a`, 3 to gateway `b`.
fn connected(pushes_max: u32) -> Pushes<u32> {
    let mut pushes = Pushes::new(TIMEOUT);
    for (serial, name) in [(1, "a"), (2, "a"), (3, "b")] {
        pushes.link_ready(link(serial), &peer(name, pushes_max));
    }
    pushes
}

// spec: L-53
#[test]
fn each_gateway_is_told_once_and_the_best_answer_counts_for_each_target() {
    use TargetState::{Offline, Queued, Refused, Waiting};
    let mut pushes = connected(10);
    pushes.submit(NOW, push(7, 4), 0);
    assert_eq!(sent(&mut pushes), [(1, 7), (3, 7)]);
    pushes.result(link(1), &result(7, &[Target::Offline, Target::Waiting, Target::Refused, Target::Refused]));
    assert!(sent(&mut pushes).is_empty());
    pushes.result(link(3), &result(7, &[Target::Queued, Target::Offline, Target::Offline, Target::Refused]));
    let report = report(&mut pushes);
    assert_eq!(report.targets, [Queued, Waiting, Offline, Refused]);
    assert_eq!(answers(&report), [&GatewayAnswer::Accepted; 2]);
    assert!(report.is_accepted() && report.failures().next().is_none() && pushes.is_empty());
}

#[test]
fn a_gateway_that_refuses_is_named_and_says_nothing_of_the_targets() {
    let mut pushes = connected(10);
    pushes.submit(NOW, push(7, 2), 0);
    let refused = PushResult {
        status: Code::PermissionDenied.to_wire(),
        reason: Reason::GrantMissing.into(),
        message: "no".to_owned(),
        ..result(7, &[Target::Queued, Target::Queued])
    };
    pushes.result(link(1), &refused);
    // Too few, as no gateway should.
    pushes.result(link(3), &result(7, &[Target::Offline]));
    let (_, reports) = acts(&mut pushes);
    let report = &reports[0].1;
    assert_eq!(report.targets, [TargetState::Offline, TargetState::Unknown]);
    let failures: Vec<_> = report.failures().collect();
    assert_eq!(failures[0].gateway, gateway("a", 1));
    let (code, reason, message) = (Code::PermissionDenied, Reason::GrantMissing, "no".to_owned());
    assert_eq!(failures[0].answer, GatewayAnswer::Refused { code, reason, message });
}

// spec: L-13
#[test]
fn without_a_gateway_without_a_grant_and_too_large_it_fails_at_once() {
    let mut pushes = Pushes::new(TIMEOUT);
    pushes.submit(NOW, push(1, 1), 0);
    let alone = report(&mut pushes);
    assert_eq!((alone.targets, alone.gateways.len()), (vec![TargetState::Refused], 0));
    pushes.link_ready(link(1), &peer("a", 0));
    pushes.submit(NOW, push(1, 1), 0);
    let ungranted = report(&mut pushes);
    let [GatewayAnswer::Refused { code, reason, .. }] = answers(&ungranted)[..] else { panic!() };
    assert_eq!((*code, *reason), (Code::PermissionDenied, Reason::GrantMissing));
    pushes.link_ready(link(2), &peer("a", 1));
    pushes.submit(NOW, EncodedPush { body: vec![0; 1000].into(), ..push(1, 1) }, 0);
    let large = report(&mut pushes);
    let [GatewayAnswer::Refused { code, reason, .. }] = answers(&large)[..] else { panic!() };
    assert_eq!((*code, *reason), (Code::InvalidArgument, Reason::PayloadTooLarge));
    pushes.submit(NOW, push(1, 1), 0);
    assert_eq!(sent(&mut pushes), [(2, 1)], "on the link that grants it");
}

#[test]
fn no_more_are_unanswered_than_the_gateway_grants() {
    let mut pushes = Pushes::new(TIMEOUT);
    pushes.link_ready(link(1), &peer("a", 2));
    for id in 1..=4 {
        pushes.submit(NOW, push(id, 0), 0);
    }
    assert_eq!(sent(&mut pushes), [(1, 1), (1, 2)]);
    pushes.result(link(1), &result(2, &[]));
    let (sent, reports) = acts(&mut pushes);
    assert_eq!((sent, reports.len()), (vec![(1, 3)], 1));
    pushes.result(link(1), &result(2, &[]));
    pushes.result(link(9), &result(1, &[]));
    assert!(acts(&mut pushes).0.is_empty(), "what answers nothing frees nothing");
}

// spec: L-50, L-51
#[test]
fn what_a_lost_link_has_not_answered_goes_again_in_order_on_another_of_the_same_gateway() {
    let mut pushes = connected(2);
    for id in 1..=3 {
        pushes.submit(NOW, push(id, 0), 0);
    }
    assert_eq!(sent(&mut pushes), [(1, 1), (3, 1), (1, 2), (3, 2)]);
    pushes.link_lost(link(1));
    assert_eq!(sent(&mut pushes), [(2, 1), (2, 2)]);
    pushes.result(link(1), &result(1, &[]));
    assert!(sent(&mut pushes).is_empty(), "nothing is heard from a lost link");
    pushes.link_lost(link(2));
    pushes.link_lost(link(2));
    assert!(sent(&mut pushes).is_empty());
    // Another start of the gateway knows nothing of these, but gets what comes.
    pushes.link_ready(link(4), &Peer { gateway: gateway("a", 2), ..peer("a", 2) });
    pushes.submit(NOW, push(4, 0), 0);
    assert_eq!(sent(&mut pushes), [(4, 4)]);
    pushes.link_ready(link(5), &peer("a", 2));
    assert_eq!(sent(&mut pushes), [(5, 1), (5, 2)]);
    for (serial, id) in [(5, 1), (3, 1)] {
        pushes.result(link(serial), &result(id, &[]));
    }
    let (sent, reports) = acts(&mut pushes);
    assert_eq!(sent, [(5, 3), (3, 3)]);
    assert_eq!(answers(&reports[0].1), [&GatewayAnswer::Accepted; 2]);
}

#[test]
fn what_is_not_answered_in_time_is_unknown_and_what_was_not_sent_says_so() {
    let mut pushes = connected(1);
    pushes.submit(NOW, push(1, 1), 0);
    pushes.submit(NOW + Duration::from_secs(1), push(2, 1), 0);
    pushes.result(link(3), &result(1, &[Target::Offline]));
    assert_eq!(sent(&mut pushes), [(1, 1), (3, 1), (3, 2)]);
    assert_eq!(pushes.next_deadline(), NOW + TIMEOUT);
    pushes.timers(NOW + TIMEOUT);
    let first = report(&mut pushes);
    assert_eq!(answers(&first), [&GatewayAnswer::Unknown, &GatewayAnswer::Accepted]);
    assert_eq!(first.targets, [TargetState::Unknown], "it may be online there");
    // The gateway has still not answered the first: it takes no second.
    pushes.timers(Mono::NEVER);
    let second = report(&mut pushes);
    assert_eq!(answers(&second), [&GatewayAnswer::NotSent, &GatewayAnswer::Unknown]);
    assert_eq!(pushes.next_deadline(), Mono::NEVER);
    pushes.submit(NOW, push(3, 0), 0);
    assert!(sent(&mut pushes).is_empty());
    pushes.result(link(1), &result(1, &[Target::Queued]));
    assert_eq!(sent(&mut pushes), [(1, 3)], "a late answer makes room, and nothing else");
}

#[test]
fn a_push_that_was_sent_on_a_lost_link_may_have_been_taken() {
    let mut pushes = Pushes::new(TIMEOUT);
    pushes.link_ready(link(1), &peer("a", 1));
    pushes.submit(NOW, push(1, 0), 0);
    pushes.submit(NOW, push(2, 0), 1);
    assert_eq!(sent(&mut pushes), [(1, 1)]);
    pushes.link_lost(link(1));
    pushes.end();
    let (_, mut reports) = acts(&mut pushes);
    reports.sort_by_key(|(waiter, _)| *waiter);
    let said: Vec<_> = reports.iter().map(|(_, report)| answers(report)).collect();
    assert_eq!(said, [[&GatewayAnswer::Unknown], [&GatewayAnswer::NotSent]]);
}

// spec: L-50
#[test]
fn the_same_id_while_it_is_pending_is_the_same_push() {
    let mut pushes = connected(10);
    pushes.submit(NOW, push(1, 0), 10);
    pushes.submit(NOW, push(1, 0), 11);
    assert_eq!(sent(&mut pushes), [(1, 1), (3, 1)]);
    pushes.result(link(1), &result(1, &[]));
    pushes.result(link(3), &result(1, &[]));
    let waiters: Vec<u32> = acts(&mut pushes).1.into_iter().map(|(waiter, _)| waiter).collect();
    assert_eq!(waiters, [10, 11]);
    pushes.submit(NOW, push(1, 0), 12);
    assert_eq!(sent(&mut pushes), [(1, 1), (3, 1)], "afterwards it is for the gateway to know");
}

#[test]
fn a_link_that_drains_gives_way_once_its_pushes_are_answered() {
    let mut pushes = connected(10);
    pushes.submit(NOW, push(1, 0), 0);
    pushes.link_draining(link(1));
    pushes.submit(NOW, push(2, 0), 0);
    assert_eq!(sent(&mut pushes), [(1, 1), (3, 1), (3, 2)]);
    pushes.result(link(1), &result(1, &[]));
    assert_eq!(sent(&mut pushes), [(2, 2)], "not before: it would overtake");
    pushes.link_draining(link(3));
    pushes.submit(NOW, push(3, 0), 0);
    assert_eq!(sent(&mut pushes), [(2, 3), (3, 3)], "it still carries where there is no other");
}

/// A gateway that answers what it was sent, in order, on links that come and go.
#[derive(Default)]
struct Model {
    links: BTreeMap<u64, (&'static str, VecDeque<u8>)>,
    /// By gateway, what was sent for the first time.
    firsts: BTreeMap<&'static str, Vec<u8>>,
    submitted: u8,
    opened: u64,
    reported: Vec<u32>,
}

impl Model {
    fn act(&mut self, pushes: &mut Pushes<u32>, pushes_max: usize) {
        let (sent, reports) = acts(pushes);
        for (serial, id) in sent {
            let (gateway, unanswered) = self.links.get_mut(&serial).expect("on a link that lives");
            unanswered.push_back(id);
            assert!(unanswered.len() <= pushes_max, "more than granted");
            let firsts = self.firsts.entry(gateway).or_default();
            if !firsts.contains(&id) {
                firsts.push(id);
            }
        }
        self.reported.extend(reports.into_iter().map(|(waiter, _)| waiter));
    }

    fn step(&mut self, pushes: &mut Pushes<u32>, pushes_max: u32, what: u8, index: prop::sample::Index) {
        let links: Vec<u64> = self.links.keys().copied().collect();
        match what {
            0 if links.len() < 5 => {
                self.opened += 1;
                let name = ["a", "b"][index.index(2)];
                self.links.insert(self.opened, (name, VecDeque::new()));
                pushes.link_ready(link(self.opened), &peer(name, pushes_max));
            }
            1 if !links.is_empty() => {
                let serial = links[index.index(links.len())];
                self.links.remove(&serial);
                pushes.link_lost(link(serial));
            }
            2 if !links.is_empty() => pushes.link_draining(link(links[index.index(links.len())])),
            3..6 if self.submitted < 200 => {
                self.submitted += 1;
                pushes.submit(NOW, push(self.submitted, 0), self.submitted.into());
            }
            _ if !links.is_empty() => {
                let serial = links[index.index(links.len())];
                let id = self.links.get_mut(&serial).and_then(|(_, unanswered)| unanswered.pop_front());
                if let Some(id) = id {
                    pushes.result(link(serial), &result(id, &[]));
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn every_push_has_one_report_and_keeps_its_place_at_each_gateway(
        pushes_max in 1u32..4,
        steps in proptest::collection::vec((0u8..10, any::<prop::sample::Index>()), 1..400),
    ) {
        let (mut pushes, mut model) = (Pushes::new(TIMEOUT), Model::default());
        for (what, index) in steps {
            model.step(&mut pushes, pushes_max, what, index);
            model.act(&mut pushes, pushes_max as usize);
        }
        pushes.timers(NOW + TIMEOUT);
        model.act(&mut pushes, pushes_max as usize);
        prop_assert!(pushes.is_empty() && pushes.next_deadline() == Mono::NEVER);
        model.reported.sort_unstable();
        prop_assert_eq!(model.reported, (1..=u32::from(model.submitted)).collect::<Vec<_>>());
        for firsts in model.firsts.values() {
            prop_assert!(firsts.is_sorted(), "out of order: {:?}", firsts);
        }
    }
}

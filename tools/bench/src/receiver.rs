//! A connection that gets pushes: it joins its group, if the audience has groups, and checks that what comes is for it,
//! once and in order.

use crate::audience::{Audience, PUSH, group_name};
use crate::connection::{Ears, Outcome, Task, failure};
use crate::ledger::Ledger;
use crate::pattern::{Pattern, Stamp};
use crate::pusher::Arrivals;
use moorgate_client::core::RequestId;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Execution, Gap, Welcome};
use moorgate_proto::view::{PushView, ResponseView};
use std::sync::Arc;
use std::time::Duration;

/// The command by which a connection joins its group; the payload is the group's number.
pub(crate) const JOIN: u32 = 0x0100;
/// In a raw frame, in place of a target: none.
pub(crate) const NO_TARGET: u32 = u32::MAX;
/// Until a connection asks again to join, when the gateway has no link to the service yet.
const JOIN_AGAIN: Duration = Duration::from_millis(200);

/// What all receivers share.
#[derive(Debug)]
pub(crate) struct Reception {
    pub(crate) audience: Audience,
    pub(crate) arrivals: Arrivals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Wants to ask at that time; `NEVER`: is told to, or awaits the answer.
    Joining(Mono),
    Listening,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Receiver {
    reception: Arc<Reception>,
    number: u32,
    target: Option<u32>,
    /// What pushes to it name; empty: none.
    group: String,
    /// The payload of its one request.
    join: [u8; 4],
    stage: Stage,
    ledger: Ledger,
}

impl Receiver {
    pub(crate) fn new(reception: Arc<Reception>, number: u32) -> Receiver {
        let target = reception.audience.target_of(number);
        let group = target.filter(|_| reception.audience.joins()).map(group_name).unwrap_or_default();
        let join = target.unwrap_or(NO_TARGET).to_be_bytes();
        let stage = Stage::Joining(Mono::NEVER);
        Receiver { reception, number, target, group, join, stage, ledger: Ledger::default() }
    }

    fn listens(&mut self, ears: Ears<'_>) {
        self.stage = Stage::Listening;
        ears.outcomes.push(Outcome::Ready);
    }

    fn delivered(&mut self, stamp: Option<Stamp>, ears: Ears<'_>) {
        let Some(Stamp { number, at }) = stamp else { return ears.outcomes.push(Outcome::Wrong) };
        let (target, count) = self.reception.audience.place(number);
        if self.target != Some(target) {
            return ears.outcomes.push(Outcome::Wrong);
        }
        let is_first = self.ledger.received() == 0;
        if self.ledger.came(count) {
            ears.outcomes.push(Outcome::Delivered(at));
            if is_first {
                ears.outcomes.push(Outcome::Reached);
            }
        }
    }
}

impl Task for Receiver {
    fn welcomed(&mut self, _welcome: &Welcome, outcomes: &mut Vec<Outcome>) {
        if self.reception.audience.joins() && self.target.is_some() {
            return outcomes.push(Outcome::Ask);
        }
        self.stage = Stage::Listening;
        outcomes.push(Outcome::Ready);
    }

    fn request<'a>(&'a mut self, _pattern: &'a mut Pattern) -> (u32, &'a [u8]) {
        (JOIN, &self.join)
    }

    fn asked(&mut self, _id: RequestId, _at: Mono) {
        self.stage = Stage::Joining(Mono::NEVER);
    }

    fn response(&mut self, now: Mono, (_, view): (RequestId, &ResponseView<'_>), ears: Ears<'_>) {
        if view.status == Code::Ok.to_wire() && self.stage != Stage::Listening {
            self.listens(ears);
        } else if view.status == Code::Unavailable.to_wire()
            && view.execution == i32::from(Execution::NotExecuted)
        {
            self.stage = Stage::Joining(now + JOIN_AGAIN);
            ears.outcomes.push(Outcome::Delayed(failure(view)));
        } else {
            ears.outcomes.push(Outcome::Failed(failure(view)));
        }
    }

    fn frame(&mut self, payload: &[u8], ears: Ears<'_>) {
        match self.stage {
            // The server repeats what it was told.
            Stage::Joining(_) if payload == self.join => {
                self.listens(ears);
            }
            Stage::Joining(_) => ears.outcomes.push(Outcome::Wrong),
            Stage::Listening => self.delivered(ears.pattern.stamped(payload), ears),
        }
    }

    fn push(&mut self, view: &PushView<'_>, ears: Ears<'_>) {
        let is_ours = view.command == PUSH && view.group == self.group;
        let stamp = if is_ours { ears.pattern.stamped(view.payload) } else { None };
        self.delivered(stamp, ears);
    }

    fn gap(&mut self, gap: &Gap, ears: Ears<'_>) {
        let numbered = if gap.first == 0 { 0 } else { gap.last.saturating_sub(gap.first).saturating_add(1) };
        let count = gap.count.saturating_add(numbered);
        self.ledger.gave_up(count);
        ears.outcomes.push(Outcome::GivenUp(count));
    }

    fn ask_due(&self) -> Mono {
        match self.stage {
            Stage::Joining(due) => due,
            Stage::Listening => Mono::NEVER,
        }
    }

    fn outstanding(&self) -> usize {
        0
    }

    fn forget(&mut self) {}

    fn ledger(&mut self) -> Option<(u32, Ledger)> {
        Some((self.number, std::mem::take(&mut self.ledger)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::STAMP_BYTES;

    const SENT: Mono = Mono::from_nanos(5);

    fn receiver(audience: Audience, number: u32) -> Receiver {
        let reception = Reception { audience, arrivals: Arrivals::default() };
        Receiver::new(Arc::new(reception), number)
    }

    /// What the task makes of it.
    fn hear(task: &mut Receiver, hears: impl FnOnce(&mut Receiver, Ears<'_>)) -> Vec<Outcome> {
        let (pattern, mut outcomes) = (Pattern::new(STAMP_BYTES + 9), Vec::new());
        hears(task, Ears { pattern: &pattern, outcomes: &mut outcomes });
        outcomes
    }

    fn payload(number: u64) -> Vec<u8> {
        Pattern::new(STAMP_BYTES + 9).stamp(Stamp { number, at: SENT }).to_vec()
    }

    fn pushed(task: &mut Receiver, number: u64, group: &str) -> Vec<Outcome> {
        let payload = payload(number);
        let view = PushView { command: PUSH, group, payload: &payload, ..PushView::default() };
        hear(task, |task, ears| task.push(&view, ears))
    }

    fn answered(task: &mut Receiver, status: Code, execution: Execution) -> Vec<Outcome> {
        let execution = execution.into();
        let view = ResponseView { status: status.to_wire(), execution, ..ResponseView::default() };
        hear(task, |task, ears| task.response(Mono::ZERO, (RequestId(1), &view), ears))
    }

    #[test]
    fn what_is_for_it_is_delivered_and_nothing_else_is() {
        // Groups 0 and 1; connection 3 is in group 1, whose pushes have odd numbers.
        let mut task = receiver(Audience::groups(4, 2, 2).unwrap(), 3);
        assert_eq!(pushed(&mut task, 1, "group-1"), [Outcome::Delivered(SENT), Outcome::Reached]);
        assert_eq!(pushed(&mut task, 3, "group-1"), [Outcome::Delivered(SENT)]);
        assert_eq!(pushed(&mut task, 3, "group-1"), [], "twice");
        assert_eq!(pushed(&mut task, 4, "group-1"), [Outcome::Wrong], "of another group");
        assert_eq!(pushed(&mut task, 5, "group-0"), [Outcome::Wrong], "by another group");
        assert_eq!(pushed(&mut task, 7, "group-1"), [Outcome::Delivered(SENT)]);
        let wrong = [&payload(9)[..], b"x"].concat();
        let view = PushView { command: PUSH, group: "group-1", payload: &wrong, ..PushView::default() };
        assert_eq!(hear(&mut task, |task, ears| task.push(&view, ears)), [Outcome::Wrong]);
        let gap = Gap { count: 2, ..Gap::default() };
        assert_eq!(hear(&mut task, |task, ears| task.gap(&gap, ears)), [Outcome::GivenUp(2)]);
        let (number, ledger) = task.ledger().unwrap();
        let tally = ledger.closed(6);
        assert_eq!((number, tally.received, tally.duplicated, tally.given_up, tally.lost), (3, 3, 1, 2, 1));
    }

    #[test]
    fn who_is_in_no_group_gets_nothing() {
        let mut task = receiver(Audience::groups(5, 2, 2).unwrap(), 4);
        let mut outcomes = Vec::new();
        task.welcomed(&Welcome::default(), &mut outcomes);
        assert_eq!(outcomes, [Outcome::Ready]);
        assert_eq!(pushed(&mut task, 0, "group-0"), [Outcome::Wrong]);
    }

    #[test]
    fn joins_again_when_the_service_could_not_be_reached() {
        let mut task = receiver(Audience::groups(4, 2, 0).unwrap(), 3);
        let mut outcomes = Vec::new();
        task.welcomed(&Welcome::default(), &mut outcomes);
        assert_eq!(outcomes, [Outcome::Ask]);
        assert_eq!(task.request(&mut Pattern::new(16)), (JOIN, &[0, 0, 0, 1][..]));
        task.asked(RequestId(1), SENT);
        let delayed = answered(&mut task, Code::Unavailable, Execution::NotExecuted);
        assert!(matches!(delayed[..], [Outcome::Delayed(_)]), "{delayed:?}");
        assert_eq!(task.ask_due(), Mono::ZERO + JOIN_AGAIN);
        task.asked(RequestId(2), SENT);
        assert_eq!(task.ask_due(), Mono::NEVER);
        assert!(matches!(
            answered(&mut task, Code::PermissionDenied, Execution::Executed)[..],
            [Outcome::Failed(_)]
        ));
        assert_eq!(answered(&mut task, Code::Ok, Execution::Executed), [Outcome::Ready]);
    }

    #[test]
    fn a_bare_server_repeats_the_target_first() {
        let mut task = receiver(Audience::users(9, 4), 8);
        assert_eq!(hear(&mut task, |task, ears| task.frame(&payload(2), ears)), [Outcome::Wrong]);
        assert_eq!(hear(&mut task, |task, ears| task.frame(&[0, 0, 0, 2], ears)), [Outcome::Ready]);
        let delivered = [Outcome::Delivered(SENT), Outcome::Reached];
        assert_eq!(hear(&mut task, |task, ears| task.frame(&payload(2), ears)), delivered);
    }
}

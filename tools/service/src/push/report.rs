//! What became of a push: what each gateway said, and for each target the best of it.

use crate::core::GatewayKey;
use crate::push::PushId;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{PushResult, Reason, push_result::Target};

/// What became of a push for one explicit target; the greatest over all gateways counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetState {
    /// No gateway took the push for it.
    Refused,
    /// No session at any gateway.
    Offline,
    /// Some gateway did not say.
    Unknown,
    /// Kept for a session that has no connection now.
    Waiting,
    /// On its way to a session that is connected. Not: delivered.
    Queued,
}

/// What one gateway said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayAnswer {
    /// It took the push.
    Accepted,
    /// It did not, or would not have.
    Refused {
        /// How.
        code: Code,
        /// Why: GRANT_MISSING where the service has no right to push.
        reason: Reason,
        /// For people who debug.
        message: String,
    },
    /// The push was sent, and no answer came in time: it may have been taken.
    Unknown,
    /// The push was not sent: others were before it, or the gateway was gone.
    NotSent,
}

/// One gateway's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayReport {
    /// Which gateway.
    pub gateway: GatewayKey,
    /// What it said.
    pub answer: GatewayAnswer,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushReport {
    /// Which push.
    pub push_id: PushId,
    /// One for each explicit target, in order; empty for a group and for everyone.
    pub targets: Vec<TargetState>,
    /// One for each gateway that was connected; empty: none was.
    pub gateways: Vec<GatewayReport>,
}

impl PushReport {
    /// Whether at least one gateway took it.
    pub fn is_accepted(&self) -> bool {
        self.gateways.iter().any(|gateway| gateway.answer == GatewayAnswer::Accepted)
    }

    /// The gateways that did not take it, and those of which it is not known.
    pub fn failures(&self) -> impl Iterator<Item = &GatewayReport> {
        self.gateways.iter().filter(|gateway| gateway.answer != GatewayAnswer::Accepted)
    }
}

/// What one gateway says of the targets, and of the push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) gateway: GatewayAnswer,
    /// In order; what is missing is told by `default`.
    pub(super) targets: Vec<TargetState>,
    pub(super) default: TargetState,
}

impl Answer {
    pub(super) fn of(result: &PushResult) -> Answer {
        if result.status != Code::Ok.to_wire() {
            return Answer::refused(Code::from_wire(result.status), result.reason(), &result.message);
        }
        let state = |target: Target| match target {
            Target::Queued => TargetState::Queued,
            Target::Waiting => TargetState::Waiting,
            Target::Offline => TargetState::Offline,
            Target::Refused => TargetState::Refused,
            Target::Unspecified => TargetState::Unknown,
        };
        Answer {
            gateway: GatewayAnswer::Accepted,
            targets: result.targets().map(state).collect(),
            default: TargetState::Unknown,
        }
    }

    pub(super) fn refused(code: Code, reason: Reason, message: &str) -> Answer {
        let message = message.to_owned();
        Answer {
            gateway: GatewayAnswer::Refused { code, reason, message },
            targets: Vec::new(),
            default: TargetState::Refused,
        }
    }

    /// No answer came.
    pub(super) fn missing(was_sent: bool) -> Answer {
        let (gateway, default) = match was_sent {
            true => (GatewayAnswer::Unknown, TargetState::Unknown),
            false => (GatewayAnswer::NotSent, TargetState::Refused),
        };
        Answer { gateway, targets: Vec::new(), default }
    }
}

/// Joins what the gateways said. Where none was asked, nobody is known to be anywhere.
pub(super) fn join(push_id: PushId, targets: usize, answers: Vec<(GatewayKey, Answer)>) -> PushReport {
    let best = |at: usize| {
        let states =
            answers.iter().map(|(_, answer)| answer.targets.get(at).copied().unwrap_or(answer.default));
        states.max().unwrap_or(TargetState::Refused)
    };
    let targets = (0..targets).map(best).collect();
    let report = |(gateway, answer): (GatewayKey, Answer)| GatewayReport { gateway, answer: answer.gateway };
    PushReport { push_id, targets, gateways: answers.into_iter().map(report).collect() }
}

//! The action of a client on each reason: the table of protocol-spec.md, "Reasons", which tests compare with this.
//!
//! The gateway writes the action beside the reason. A client follows what was written, and this table where nothing was,
//! or what it does not know: [`on_wire`].

use crate::status::Code;
use crate::v1::{Action, Execution, Reason};

/// The action for a reason, given what is known of the execution.
pub fn of(reason: Reason, execution: Execution) -> Action {
    use Reason as R;
    match reason {
        R::TokenInvalid | R::TokenExpired | R::TokenRevoked | R::LoginRequired | R::LoggedOut => {
            Action::Reauthenticate
        }
        R::VersionUnsupported | R::VersionTooLow => Action::Update,
        R::RateLimited
        | R::Banned
        | R::ConnectionLimit
        | R::GatewayOverloaded
        | R::ServiceOverloaded
        | R::NoEndpoint
        | R::TokenNotYetValid
        | R::Shutdown
        | R::Rebalance
        | R::Draining => not_executed(execution, Action::RetryAfter),
        R::EndpointLost
        | R::Timeout
        | R::HandshakeTimeout
        | R::HeartbeatTimeout
        | R::FrameTimeout
        | R::WriteStalled
        | R::SequenceGap
        | R::AckBeyondSent
        | R::InFlightExceeded
        | R::Internal
        | R::ReplyInvalid => not_executed(execution, Action::RetryNow),
        R::ResumeUnknownSession
        | R::ResumeStale
        | R::ResumeInvalid
        | R::ReplyTooLarge
        | R::PushOverflow
        | R::PushExpired
        | R::PushCollapsed => Action::Resync,
        R::Unspecified
        | R::ProtocolViolation
        | R::FrameTooLarge
        | R::FrameMalformed
        | R::UnsupportedFrame
        | R::FeatureNotNegotiated
        | R::ApplicationRefused
        | R::RoleRequired
        | R::IdentityMismatch
        | R::AlreadyAuthenticated
        | R::SessionRefused
        | R::Superseded
        | R::DeviceConflict
        | R::SessionLimit
        | R::Kicked
        | R::NoRoute
        | R::PayloadTooLarge
        | R::Cancelled
        | R::NotSupported
        | R::ProofInvalid
        | R::GrantMissing => Action::GiveUp,
    }
}

/// What was not executed may be repeated; what may have been executed must not be.
fn not_executed(execution: Execution, retry: Action) -> Action {
    match execution {
        Execution::NotExecuted | Execution::Unspecified => retry,
        Execution::Unknown | Execution::Executed => Action::Resync,
    }
}

/// The action on an outcome: [`Action::Unspecified`] for a success without a reason.
#[inline]
pub fn of_outcome(code: Code, reason: Reason, execution: Execution) -> Action {
    if code == Code::Ok && reason == Reason::Unspecified {
        Action::Unspecified
    } else {
        of(reason, execution)
    }
}

/// The action that a message has beside its reason; `None`: it has none that is known here.
pub fn on_wire(number: i32) -> Option<Action> {
    Action::try_from(number).ok().filter(|action| *action != Action::Unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: N-1, N-2
    #[test]
    fn only_what_was_not_executed_is_repeated() {
        assert_eq!(of(Reason::NoEndpoint, Execution::NotExecuted), Action::RetryAfter);
        assert_eq!(of(Reason::EndpointLost, Execution::NotExecuted), Action::RetryNow);
        assert_eq!(of(Reason::EndpointLost, Execution::Unknown), Action::Resync);
        assert_eq!(of(Reason::TokenExpired, Execution::NotExecuted), Action::Reauthenticate);
        assert_eq!(of(Reason::Kicked, Execution::NotExecuted), Action::GiveUp);
    }

    // spec: N-6
    #[test]
    fn success_has_an_action_only_with_a_reason() {
        let executed = Execution::Executed;
        assert_eq!(of_outcome(Code::Ok, Reason::Unspecified, executed), Action::Unspecified);
        assert_eq!(of_outcome(Code::Ok, Reason::ReplyTooLarge, executed), Action::Resync);
        assert_eq!(of_outcome(Code::NotFound, Reason::Unspecified, executed), Action::GiveUp);
        assert_eq!(of_outcome(Code::Internal, Reason::Internal, executed), Action::Resync);
    }

    // spec: E-18, N-7
    #[test]
    fn unknown_and_absent_actions_are_none() {
        assert_eq!([0, 7, -1, 99].map(on_wire), [None; 4]);
        assert_eq!(on_wire(2), Some(Action::RetryAfter));
    }
}

//! What a client does about each outcome, as protocol-spec.md documents it.

use moorgate_proto::v1::{Execution, Reason};

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send it again now, on this or a new connection.
    RetryNow,
    /// Send it again after the hint, or after a backoff.
    RetryAfter,
    /// Get a new access token first.
    Reauthenticate,
    /// It may have run: find out, or repeat it with its idempotency key.
    Resync,
    /// This client is too old.
    Update,
    /// Doing the same again gives the same.
    GiveUp,
}

/// The action for a reason and what is known of the execution.
pub fn action(reason: Reason, execution: Execution) -> Action {
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
        | R::Draining => not_run(execution, Action::RetryAfter),
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
        | R::ReplyInvalid => not_run(execution, Action::RetryNow),
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
        | R::FrameEmpty
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

/// What was not executed may simply be repeated; what may have been must not.
fn not_run(execution: Execution, retry: Action) -> Action {
    match execution {
        Execution::NotExecuted | Execution::Unspecified => retry,
        Execution::Unknown | Execution::Executed => Action::Resync,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: N-1, N-2
    #[test]
    fn only_what_did_not_run_is_repeated() {
        assert_eq!(action(Reason::NoEndpoint, Execution::NotExecuted), Action::RetryAfter);
        assert_eq!(action(Reason::EndpointLost, Execution::NotExecuted), Action::RetryNow);
        assert_eq!(action(Reason::EndpointLost, Execution::Unknown), Action::Resync);
        assert_eq!(action(Reason::TokenExpired, Execution::NotExecuted), Action::Reauthenticate);
        assert_eq!(action(Reason::Kicked, Execution::NotExecuted), Action::GiveUp);
    }
}

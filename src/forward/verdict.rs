//! What an outcome tells of the endpoint it came from, and whether the call may be tried again.

use crate::relay::Outcome;
use crate::routing::{Fault, Verdict};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{Execution, Reason};

/// What a Reply tells of its endpoint. What is wrong with a request says nothing against who answers it.
pub(super) fn verdict(outcome: &Outcome) -> Verdict {
    match (outcome.code, outcome.reason) {
        (_, Reason::ServiceOverloaded | Reason::Draining) => Verdict::Busy(outcome.retry_after_ms),
        // With any other reason, or none, a limit is the caller's (a rate, a quota of the application): it says nothing of
        // how much the endpoint has to do.
        (Code::ResourceExhausted, _) => Verdict::Good,
        (Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss | Code::DeadlineExceeded, _) => {
            Verdict::Failed
        }
        (Code::Cancelled, _) => Verdict::Nothing,
        _ => Verdict::Good,
    }
}

/// What the operator is told of a Reply that says this of its endpoint.
pub(super) fn fault(verdict: Verdict) -> Option<Fault> {
    match verdict {
        Verdict::Failed => Some(Fault::Failure),
        Verdict::Busy(_) => Some(Fault::Busy),
        Verdict::Good | Verdict::Nothing => None,
    }
}

/// Whether a call that ended like this may go to another endpoint. What was not executed may always; what may have been
/// only where running it twice does no harm; what was executed, never. And only where another endpoint may do better: a
/// reason that tells the client to give up, to log in or to slow down is the client's.
pub(super) fn may_try_again(outcome: &Outcome, is_idempotent: bool) -> bool {
    let is_harmless = match outcome.execution {
        Execution::NotExecuted => true,
        Execution::Unknown => is_idempotent,
        Execution::Executed | Execution::Unspecified => false,
    };
    is_harmless
        && match outcome.reason {
            Reason::ServiceOverloaded
            | Reason::GatewayOverloaded
            | Reason::NoEndpoint
            | Reason::EndpointLost
            | Reason::Draining
            | Reason::Shutdown
            | Reason::Internal => true,
            Reason::Unspecified => {
                matches!(outcome.code, Code::Unavailable | Code::Internal | Code::Unknown)
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorgate_proto::v1::Source;

    fn outcome(code: Code, reason: Reason, execution: Execution) -> Outcome {
        Outcome { code, reason, source: Source::Service, execution, retry_after_ms: 70 }
    }

    #[test]
    fn failures_are_the_endpoints_and_refusals_the_callers() {
        let judged = |code, reason| verdict(&outcome(code, reason, Execution::Executed));
        for code in [Code::Ok, Code::NotFound, Code::InvalidArgument, Code::Aborted, Code::Unimplemented] {
            assert_eq!(judged(code, Reason::Unspecified), Verdict::Good, "{code:?}");
        }
        for code in [Code::Unavailable, Code::Internal, Code::Unknown, Code::DataLoss, Code::DeadlineExceeded]
        {
            assert_eq!(judged(code, Reason::Unspecified), Verdict::Failed, "{code:?}");
        }
        assert_eq!(judged(Code::Cancelled, Reason::Cancelled), Verdict::Nothing);
        assert_eq!(judged(Code::ResourceExhausted, Reason::ServiceOverloaded), Verdict::Busy(70));
        for reason in [Reason::Unspecified, Reason::GatewayOverloaded, Reason::ReplyTooLarge] {
            assert_eq!(
                judged(Code::ResourceExhausted, reason),
                Verdict::Good,
                "{reason:?}: somebody's quota"
            );
        }
        assert_eq!(judged(Code::Unavailable, Reason::ServiceOverloaded), Verdict::Busy(70));
        assert_eq!(
            judged(Code::Unavailable, Reason::Draining),
            Verdict::Busy(70),
            "it is spared, not ejected"
        );
        assert_eq!(judged(Code::ResourceExhausted, Reason::RateLimited), Verdict::Good);
    }

    #[test]
    fn only_what_does_no_harm_and_may_help_is_tried_again() {
        use Execution::{Executed, NotExecuted, Unknown};
        let again = |code, reason, execution| {
            let outcome = outcome(code, reason, execution);
            (may_try_again(&outcome, false), may_try_again(&outcome, true))
        };
        assert_eq!(again(Code::Unavailable, Reason::Draining, NotExecuted), (true, true));
        assert_eq!(again(Code::Unavailable, Reason::Unspecified, NotExecuted), (true, true));
        assert_eq!(again(Code::ResourceExhausted, Reason::ServiceOverloaded, NotExecuted), (true, true));
        assert_eq!(again(Code::Aborted, Reason::EndpointLost, Unknown), (false, true));
        assert_eq!(again(Code::Internal, Reason::Unspecified, Unknown), (false, true));
        assert_eq!(again(Code::Internal, Reason::Internal, Executed), (false, false));
        assert_eq!(again(Code::InvalidArgument, Reason::Unspecified, NotExecuted), (false, false));
        assert_eq!(again(Code::ResourceExhausted, Reason::RateLimited, NotExecuted), (false, false));
        assert_eq!(again(Code::DeadlineExceeded, Reason::Timeout, Unknown), (false, false));
    }
}

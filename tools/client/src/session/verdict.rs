//! What the end of a session is answered with: the action of its reason, as the specification documents it.

use moorgate_proto::action;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Action, Execution, Reason};
use std::time::Duration;

/// What comes after a final Error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Connect again.
    Again {
        /// Without a backoff, if it is the first time.
        at_once: bool,
        /// But not before this time is over.
        after: Duration,
    },
    /// Connect again, but only with another access token.
    Renew {
        /// Not before this time is over.
        after: Duration,
    },
    /// Do not connect again. What is left to do is the application's.
    End(Action),
}

/// Judges a final Error; `has_others`: there may be another access token.
pub(super) fn verdict(error: &v1::Error, has_others: bool) -> Verdict {
    let after = after_of(error);
    let is_allowed = error.reconnect.as_ref().is_some_and(|reconnect| reconnect.allowed);
    let reason = error.reason();
    let action = match (action::on_wire(error.action), reason) {
        (Some(action), _) => action,
        (None, Reason::Unspecified) => of_status(Code::from_wire(error.status)),
        (None, reason) => action::of(reason, Execution::Unspecified),
    };
    match action {
        action if is_for_good(reason) => Verdict::End(action),
        Action::RetryNow | Action::RetryAfter | Action::Resync if is_allowed => {
            Verdict::Again { at_once: action == Action::RetryNow, after }
        }
        Action::RetryNow | Action::RetryAfter | Action::Resync | Action::Reauthenticate if has_others => {
            Verdict::Renew { after }
        }
        Action::Reauthenticate => Verdict::End(Action::Reauthenticate),
        Action::Update => Verdict::End(Action::Update),
        Action::Unspecified | Action::RetryNow | Action::RetryAfter | Action::Resync | Action::GiveUp => {
            Verdict::End(Action::GiveUp)
        }
    }
}

/// How long it asks to be left alone.
pub(super) fn after_of(error: &v1::Error) -> Duration {
    let after_ms = error.reconnect.as_ref().map_or(0, |reconnect| reconnect.after_ms);
    Duration::from_millis(u64::from(after_ms))
}

/// Somebody has decided that this user's session ends. That may ask for a new login, which is the user's to make, not
/// the kit's.
fn is_for_good(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Kicked
            | Reason::Superseded
            | Reason::DeviceConflict
            | Reason::SessionLimit
            | Reason::LoggedOut
            | Reason::TokenRevoked
    )
}

/// Neither an action nor a reason that this client knows: the status decides.
fn of_status(code: Code) -> Action {
    match code {
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Unknown => Action::RetryAfter,
        Code::Unauthenticated => Action::Reauthenticate,
        _ => Action::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: Code, reason: i32, allowed: bool) -> v1::Error {
        let reconnect = v1::Reconnect { allowed, after_ms: 70, ..v1::Reconnect::default() };
        v1::Error { status: status.to_wire(), reason, reconnect: Some(reconnect), ..v1::Error::default() }
    }

    const AFTER: Duration = Duration::from_millis(70);

    // spec: N-4, N-5, X-5, A-24, A-26, R-23
    #[test]
    fn every_reason_has_its_verdict() {
        let mut seen = 0;
        for (number, reason) in (1..200).filter_map(|number| Some((number, Reason::try_from(number).ok()?))) {
            let judge =
                |allowed, has_others| verdict(&error(Code::InvalidArgument, number, allowed), has_others);
            let renew = Verdict::Renew { after: AFTER };
            let action = action::of(reason, Execution::Unspecified);
            let [again, alone, others] = match action {
                action if is_for_good(reason) => [Verdict::End(action); 3],
                Action::RetryNow | Action::RetryAfter | Action::Resync => {
                    let at_once = action == Action::RetryNow;
                    [Verdict::Again { at_once, after: AFTER }, Verdict::End(Action::GiveUp), renew]
                }
                Action::Reauthenticate => [Verdict::End(action), Verdict::End(action), renew],
                Action::Unspecified | Action::Update | Action::GiveUp => [Verdict::End(action); 3],
            };
            assert_eq!(judge(true, false), again, "{reason:?}, allowed");
            assert_eq!(judge(false, false), alone, "{reason:?}, not allowed");
            assert_eq!(judge(false, true), others, "{reason:?}, not allowed, with another token");
            seen += 1;
        }
        assert!(seen > 50);
    }

    // spec: N-3, N-7
    #[test]
    fn unknown_reason_follows_the_action_beside_it() {
        for reason in [0, 9_999] {
            let with = |action: i32| v1::Error { action, ..error(Code::PermissionDenied, reason, true) };
            let again = |at_once| Verdict::Again { at_once, after: AFTER };
            assert_eq!(verdict(&with(Action::RetryNow.into()), false), again(true));
            assert_eq!(verdict(&with(Action::RetryAfter.into()), false), again(false));
            assert_eq!(verdict(&with(Action::Resync.into()), false), again(false));
            assert_eq!(verdict(&with(Action::Reauthenticate.into()), true), Verdict::Renew { after: AFTER });
            assert_eq!(verdict(&with(Action::Update.into()), false), Verdict::End(Action::Update));
            assert_eq!(verdict(&with(Action::GiveUp.into()), true), Verdict::End(Action::GiveUp));
        }
        // A known reason too: the gateway may know better.
        let shutdown = error(Code::Unavailable, Reason::Shutdown.into(), true);
        let shutdown = v1::Error { action: Action::GiveUp.into(), ..shutdown };
        assert_eq!(verdict(&shutdown, false), Verdict::End(Action::GiveUp));
    }

    // spec: N-3
    #[test]
    fn unknown_action_and_reason_leave_the_status() {
        let error = |status, reason, allowed| v1::Error { action: 99, ..error(status, reason, allowed) };
        let judge = |status, allowed| verdict(&error(status, 9_999, allowed), false);
        let again = Verdict::Again { at_once: false, after: AFTER };
        assert_eq!(judge(Code::Unavailable, true), again);
        assert_eq!(judge(Code::Unavailable, false), Verdict::End(Action::GiveUp));
        assert_eq!(judge(Code::Unauthenticated, true), Verdict::End(Action::Reauthenticate));
        assert_eq!(judge(Code::PermissionDenied, true), Verdict::End(Action::GiveUp));
        let silent = v1::Error { status: Code::Unavailable.to_wire(), ..v1::Error::default() };
        assert_eq!(verdict(&silent, false), Verdict::End(Action::GiveUp), "absent is false");
    }
}

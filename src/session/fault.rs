//! Why a connection must end, and the one place that says so to the client.

use crate::auth::{ApplicationError, TokenError};
use crate::base::counters::Count;
use crate::directory::Conflict;
use moorgate_proto::action;
use moorgate_proto::codec::FrameError;
use moorgate_proto::envelope::EnvelopeError;
use moorgate_proto::limits::FRAME_BYTES_OPENING;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason};
use std::sync::Arc;
use std::time::Duration;

/// What a client did, or what happened to it, that ends its connection with a final Error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No frame can be cut from what it sends.
    Frame(FrameError),
    /// The peer speaks another protocol, of this name.
    ForeignProtocol(&'static str),
    /// A frame that is no frame of ours.
    Envelope(EnvelopeError),
    /// A member that cannot be decoded, by its number.
    Malformed(u32),
    /// A member that is not legal now, by its number; 0: a frame without one.
    UnexpectedFrame(u32),
    /// A request without its number.
    NumberMissing,
    /// A number on a frame that is not numbered.
    NumberUnexpected(u32),
    /// A request whose predecessor is missing.
    SequenceGap {
        /// The next number.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// An acknowledgement of what was never sent.
    AckBeyondSent {
        /// The highest number given.
        sent: u64,
        /// The number that came.
        got: u64,
    },
    /// A request beyond the in-flight limit.
    InFlightExceeded(u32),
    /// No version in common.
    VersionUnsupported {
        /// The client's lowest.
        min: u32,
        /// The client's highest.
        max: u32,
    },
    /// A field of Hello that breaks its bound, by name.
    HelloInvalid(&'static str),
    /// The access token is no good.
    Token(TokenError),
    /// The access token expired, and so did the grace; or a session whose access has ended is resumed without a new one.
    TokenExpired,
    /// An access token of another user than the session that is resumed.
    IdentityMismatch,
    /// The session that is to be resumed exists, or may exist, and is left alone.
    NotResumed(NotResumed),
    /// More bytes between Hello and Welcome than [`FRAME_BYTES_OPENING`].
    EarlyExceeded,
    /// No complete Hello in time.
    HandshakeTimeout,
    /// A frame was begun and not finished in time.
    FrameTimeout,
    /// Silence for twice the heartbeat interval.
    HeartbeatTimeout,
    /// The client does not read.
    WriteStalled,
    /// Unfinished frames hold too much memory.
    Overloaded,
    /// Too many connections.
    ConnectionLimit,
    /// Too many fresh sessions at once; how long until another try.
    OpeningsLimited(Duration),
    /// More frames than its rate allows; how long until the next one would pass.
    FramesLimited(Duration),
    /// Its address or its user is shut out; for how long still.
    Banned(Duration),
    /// The application is not let in.
    Application(ApplicationError),
    /// A service does not admit the session.
    SessionRefused {
        /// Why, as the service says.
        reason: Reason,
        /// For people who debug.
        message: Box<str>,
    },
    /// No service could say whether the session is admitted.
    SessionUnconfirmed,
    /// A newer session of the same user, application and device.
    Superseded,
    /// Another device of its user stays instead, or its user has too many sessions.
    Conflict(Conflict),
    /// A service or an operator has ended the session; what it says of it.
    Kicked(Arc<str>),
    /// The user has logged out.
    LoggedOut,
    /// The access token was revoked.
    TokenRevoked,
    /// The gateway goes away.
    Shutdown,
}

/// Why a session is not resumed, and no fresh one opened in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotResumed {
    /// An attempt without a number: a client that would repeat it under another.
    Unnumbered,
    /// An attempt or a token older than one that was used, or a `down_seq` outside of the session.
    Stale,
    /// A token that the gateway has not made, or has made for another application or device.
    Invalid,
}

impl NotResumed {
    /// The reason, and whether a Hello without `resume` may open a fresh session.
    fn wire(self) -> (Reason, bool) {
        match self {
            NotResumed::Unnumbered => (Reason::ResumeStale, false),
            NotResumed::Stale => (Reason::ResumeStale, true),
            NotResumed::Invalid => (Reason::ResumeInvalid, true),
        }
    }
}

/// What an Error says of a fault.
struct Wire {
    code: Code,
    reason: Reason,
    /// Whether connecting again with the same credentials may help.
    reconnect: bool,
    after_ms: u32,
}

impl Fault {
    fn wire(&self) -> Wire {
        let broken = |reason| Wire { code: Code::InvalidArgument, reason, reconnect: false, after_ms: 0 };
        let later = |code, reason, after_ms| Wire { code, reason, reconnect: true, after_ms };
        let failed = |code, reason| later(code, reason, 0);
        match self {
            Fault::Frame(FrameError::TooLarge { .. }) | Fault::ForeignProtocol(_) => {
                broken(Reason::FrameTooLarge)
            }
            Fault::Envelope(_) | Fault::Malformed(_) => broken(Reason::FrameMalformed),
            Fault::UnexpectedFrame(_)
            | Fault::NumberMissing
            | Fault::NumberUnexpected(_)
            | Fault::EarlyExceeded
            | Fault::HelloInvalid(_) => broken(Reason::ProtocolViolation),
            Fault::SequenceGap { .. } => failed(Code::FailedPrecondition, Reason::SequenceGap),
            Fault::AckBeyondSent { .. } => failed(Code::FailedPrecondition, Reason::AckBeyondSent),
            Fault::InFlightExceeded(_) => failed(Code::ResourceExhausted, Reason::InFlightExceeded),
            Fault::VersionUnsupported { .. } => {
                Wire { code: Code::FailedPrecondition, ..broken(Reason::VersionUnsupported) }
            }
            Fault::Token(error) => {
                let (code, reason) = error.wire();
                match error {
                    // Clocks differ: the same token is good a moment later.
                    TokenError::NotYetValid => Wire { after_ms: RETRY_MS, ..failed(code, reason) },
                    _ => Wire { code, ..broken(reason) },
                }
            }
            Fault::TokenExpired => Wire { code: Code::Unauthenticated, ..broken(Reason::TokenExpired) },
            Fault::IdentityMismatch => {
                Wire { code: Code::PermissionDenied, ..broken(Reason::IdentityMismatch) }
            }
            Fault::NotResumed(why) => {
                let (reason, reconnect) = why.wire();
                Wire { reconnect, ..failed(Code::FailedPrecondition, reason) }
            }
            Fault::HandshakeTimeout => failed(Code::DeadlineExceeded, Reason::HandshakeTimeout),
            Fault::FrameTimeout => failed(Code::DeadlineExceeded, Reason::FrameTimeout),
            Fault::HeartbeatTimeout => failed(Code::DeadlineExceeded, Reason::HeartbeatTimeout),
            Fault::WriteStalled => failed(Code::ResourceExhausted, Reason::WriteStalled),
            Fault::Overloaded => later(Code::ResourceExhausted, Reason::GatewayOverloaded, RETRY_MS),
            Fault::ConnectionLimit => later(Code::ResourceExhausted, Reason::ConnectionLimit, RETRY_MS),
            Fault::OpeningsLimited(after) => {
                later(Code::ResourceExhausted, Reason::GatewayOverloaded, whole_ms(*after))
            }
            Fault::FramesLimited(after) => {
                later(Code::ResourceExhausted, Reason::RateLimited, whole_ms(*after))
            }
            Fault::Banned(left) => later(Code::PermissionDenied, Reason::Banned, whole_ms(*left)),
            Fault::Application(_) => {
                Wire { code: Code::PermissionDenied, ..broken(Reason::ApplicationRefused) }
            }
            Fault::SessionRefused { reason: Reason::Unspecified, .. } => {
                Wire { code: Code::PermissionDenied, ..broken(Reason::SessionRefused) }
            }
            Fault::SessionRefused { reason, .. } => Wire { code: Code::PermissionDenied, ..broken(*reason) },
            Fault::SessionUnconfirmed => later(Code::Unavailable, Reason::NoEndpoint, RETRY_MS),
            Fault::Superseded => Wire { code: Code::Aborted, ..broken(Reason::Superseded) },
            Fault::Conflict(Conflict::Device) => {
                Wire { code: Code::Aborted, ..broken(Reason::DeviceConflict) }
            }
            Fault::Conflict(Conflict::Limit) => {
                Wire { code: Code::ResourceExhausted, ..broken(Reason::SessionLimit) }
            }
            Fault::Kicked(_) => Wire { code: Code::PermissionDenied, ..broken(Reason::Kicked) },
            Fault::LoggedOut => Wire { code: Code::Unauthenticated, ..broken(Reason::LoggedOut) },
            Fault::TokenRevoked => Wire { code: Code::Unauthenticated, ..broken(Reason::TokenRevoked) },
            Fault::Shutdown => failed(Code::Unavailable, Reason::Shutdown),
        }
    }

    /// Whether the session outlives the connection that ends for this: its client may come back to it.
    pub fn keeps_session(&self) -> bool {
        match self {
            Fault::SequenceGap { .. }
            | Fault::AckBeyondSent { .. }
            | Fault::InFlightExceeded(_)
            | Fault::FrameTimeout
            | Fault::HeartbeatTimeout
            | Fault::WriteStalled
            | Fault::Overloaded
            | Fault::FramesLimited(_)
            | Fault::TokenExpired => true,
            Fault::Frame(_)
            | Fault::ForeignProtocol(_)
            | Fault::Envelope(_)
            | Fault::Malformed(_)
            | Fault::UnexpectedFrame(_)
            | Fault::NumberMissing
            | Fault::NumberUnexpected(_)
            | Fault::VersionUnsupported { .. }
            | Fault::HelloInvalid(_)
            | Fault::Token(_)
            | Fault::IdentityMismatch
            | Fault::NotResumed(_)
            | Fault::EarlyExceeded
            | Fault::HandshakeTimeout
            | Fault::ConnectionLimit
            | Fault::OpeningsLimited(_)
            | Fault::Banned(_)
            | Fault::Application(_)
            | Fault::SessionRefused { .. }
            | Fault::SessionUnconfirmed
            | Fault::Superseded
            | Fault::Conflict(_)
            | Fault::Kicked(_)
            | Fault::LoggedOut
            | Fault::TokenRevoked
            | Fault::Shutdown => false,
        }
    }

    /// The final Error of a session whose highest number admitted is `admitted`, and which is kept or not.
    pub fn error(&self, admitted: u64, resumable: bool) -> v1::Error {
        self.written(admitted, resumable, self.wire().after_ms)
    }

    /// The final Error of a session that is not kept, and whose client is to come back after `after_ms`.
    pub fn error_after(&self, admitted: u64, after_ms: u32) -> v1::Error {
        self.written(admitted, false, after_ms)
    }

    fn written(&self, admitted: u64, resumable: bool, after_ms: u32) -> v1::Error {
        let Wire { code, reason, reconnect: allowed, .. } = self.wire();
        v1::Error {
            status: code.to_wire(),
            reason: reason.into(),
            message: self.to_string(),
            reconnect: Some(v1::Reconnect { allowed, after_ms, addresses: Vec::new(), resumable }),
            admitted,
            action: action::of(reason, Execution::Unspecified).into(),
        }
    }

    /// The counter of connections closed for this.
    pub fn count(&self) -> Count {
        match self {
            Fault::Frame(_)
            | Fault::Envelope(_)
            | Fault::Malformed(_)
            | Fault::UnexpectedFrame(_)
            | Fault::NumberMissing
            | Fault::NumberUnexpected(_)
            | Fault::EarlyExceeded
            | Fault::SequenceGap { .. }
            | Fault::AckBeyondSent { .. }
            | Fault::InFlightExceeded(_) => Count::CloseProtocol,
            Fault::ForeignProtocol(_) => Count::CloseForeignProtocol,
            Fault::VersionUnsupported { .. }
            | Fault::HelloInvalid(_)
            | Fault::Token(_)
            | Fault::Application(_)
            | Fault::SessionRefused { .. }
            | Fault::SessionUnconfirmed
            | Fault::IdentityMismatch
            | Fault::NotResumed(_) => Count::CloseOpening,
            Fault::Superseded => Count::CloseSuperseded,
            Fault::Conflict(_) => Count::CloseConflict,
            Fault::Kicked(_) => Count::CloseKicked,
            Fault::LoggedOut => Count::CloseLoggedOut,
            Fault::TokenRevoked => Count::CloseTokenRevoked,
            Fault::TokenExpired => Count::CloseTokenExpired,
            Fault::HandshakeTimeout => Count::CloseHandshakeTimeout,
            Fault::FrameTimeout => Count::CloseFrameTimeout,
            Fault::HeartbeatTimeout => Count::CloseHeartbeat,
            Fault::WriteStalled => Count::CloseWriteStalled,
            Fault::Overloaded | Fault::ConnectionLimit | Fault::OpeningsLimited(_) => Count::CloseOverload,
            Fault::FramesLimited(_) => Count::CloseLimited,
            Fault::Banned(_) => Count::CloseBanned,
            Fault::Shutdown => Count::CloseDrain,
        }
    }
}

/// What a refused client is told to wait before it tries again.
const RETRY_MS: u32 = 1000;

/// A wait as it is told on the wire: never shorter than it is, and never 0, which would be no hint.
pub fn whole_ms(wait: Duration) -> u32 {
    let ms = wait.as_nanos().div_ceil(1_000_000).max(1);
    u32::try_from(ms).unwrap_or(u32::MAX)
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Frame(error) => error.fmt(f),
            Fault::ForeignProtocol(protocol) => write!(f, "this is {protocol}, not the Moorgate protocol"),
            Fault::Envelope(error) => error.fmt(f),
            Fault::Malformed(member) => write!(f, "member {member} is not the message it should be"),
            Fault::UnexpectedFrame(0) => f.write_str("a frame without a member that has a number"),
            Fault::UnexpectedFrame(member) => write!(f, "member {member} is not legal now"),
            Fault::NumberMissing => f.write_str("a request without up_seq"),
            Fault::NumberUnexpected(member) => {
                write!(f, "member {member} is not numbered, but has an up_seq")
            }
            Fault::SequenceGap { expected, got } => write!(f, "up_seq {got} came where {expected} was next"),
            Fault::AckBeyondSent { sent, got } => {
                write!(f, "ack of {got}, but {sent} is the highest down_seq")
            }
            Fault::InFlightExceeded(max) => write!(f, "more than {max} requests in flight"),
            Fault::VersionUnsupported { min, max } => {
                write!(f, "versions {min} to {max} are not spoken here, only {}", moorgate_proto::VERSION)
            }
            Fault::HelloInvalid(field) => write!(f, "Hello.{field} is out of its bounds"),
            Fault::Token(error) => error.fmt(f),
            Fault::TokenExpired => f.write_str("the access token has expired"),
            Fault::IdentityMismatch => {
                f.write_str("the access token is of another user than the session that was to be resumed")
            }
            Fault::NotResumed(NotResumed::Unnumbered) => f.write_str("Resume.attempt is 0; the first is 1"),
            Fault::NotResumed(NotResumed::Stale) => f.write_str(
                "the attempt or the token is older than one that was used, or down_seq is not in the session: \
                 open a fresh one by a Hello without resume",
            ),
            Fault::NotResumed(NotResumed::Invalid) => f.write_str(
                "the resume token is not one of this gateway, application and device: \
                 open a fresh session by a Hello without resume",
            ),
            Fault::EarlyExceeded => {
                write!(f, "more than {FRAME_BYTES_OPENING} bytes between Hello and Welcome")
            }
            Fault::HandshakeTimeout => f.write_str("no complete Hello in time"),
            Fault::FrameTimeout => f.write_str("a frame was begun and not finished in time"),
            Fault::HeartbeatTimeout => f.write_str("silence for twice the heartbeat interval"),
            Fault::WriteStalled => f.write_str("the client does not read"),
            Fault::Overloaded => f.write_str("unfinished frames hold too much memory"),
            Fault::ConnectionLimit => f.write_str("too many connections"),
            Fault::OpeningsLimited(_) => f.write_str("too many sessions are opened at once"),
            Fault::FramesLimited(_) => f.write_str("too many frames in a short time"),
            Fault::Banned(_) => f.write_str("shut out for a time, after too many offences or by an operator"),
            Fault::Application(error) => error.fmt(f),
            Fault::SessionRefused { message, .. } if message.is_empty() => {
                f.write_str("a service does not admit the session")
            }
            Fault::SessionRefused { message, .. } => f.write_str(message),
            Fault::SessionUnconfirmed => f.write_str("no service can say whether the session is admitted"),
            Fault::Superseded => f.write_str("a newer session has taken this one's place"),
            Fault::Conflict(Conflict::Device) => f.write_str("another device of the user is here instead"),
            Fault::Conflict(Conflict::Limit) => f.write_str("the user has too many sessions"),
            Fault::Kicked(message) if message.is_empty() => f.write_str("the session was ended"),
            Fault::Kicked(message) => f.write_str(message),
            Fault::LoggedOut => f.write_str("the user has logged out"),
            Fault::TokenRevoked => f.write_str("the access token was revoked"),
            Fault::Shutdown => f.write_str("the gateway goes away"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Fault {
        Fault::Frame(error)
    }
}

impl From<EnvelopeError> for Fault {
    fn from(error: EnvelopeError) -> Fault {
        Fault::Envelope(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_full() {
        let ms = |nanos| whole_ms(Duration::from_nanos(nanos));
        assert_eq!([0, 1, 1_000_000, 1_000_001].map(ms), [1, 1, 1, 2]);
        assert_eq!(whole_ms(Duration::MAX), u32::MAX);
        let after = |fault: Fault| fault.error(0, false).reconnect.unwrap().after_ms;
        assert_eq!(after(Fault::Banned(Duration::from_secs(60))), 60_000);
        assert_eq!(after(Fault::FramesLimited(Duration::from_micros(1))), 1);
    }

    // spec
    #[test]
    fn a_broken_contract_is_no_reason_to_reconnect_and_a_lost_race_is() {
        let allowed = |fault: Fault| fault.error(3, false).reconnect.unwrap().allowed;
        assert!(!allowed(Fault::NumberMissing));
        for ended in [Fault::TokenExpired, Fault::Superseded, Fault::LoggedOut, Fault::TokenRevoked] {
            assert!(!allowed(ended));
        }
        assert!(!allowed(Fault::Conflict(Conflict::Device)) && !allowed(Fault::Conflict(Conflict::Limit)));
        assert!(!allowed(Fault::Kicked("enough".into())) && allowed(Fault::SessionUnconfirmed));
        assert!(allowed(Fault::HeartbeatTimeout));
        assert!(allowed(Fault::Banned(Duration::ZERO)) && allowed(Fault::FramesLimited(Duration::ZERO)));
        assert!(allowed(Fault::Shutdown));
        assert_eq!(Fault::Shutdown.error_after(3, 70).reconnect.unwrap().after_ms, 70);
        assert_eq!(Fault::Shutdown.error(3, false).admitted, 3);
    }
}

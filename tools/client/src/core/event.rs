//! What happens to a session, and how it ends.

use crate::answer::reason_name;
use moorgate_proto::codec::FrameError;
use moorgate_proto::envelope::EnvelopeError;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution};
use moorgate_proto::view::{PushView, ResponseView};
use std::fmt;

/// Names a request within its session: its number in the upward stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no session (yet, or any more), or the gateway goes away.
    NotOpen,
    /// Too many requests wait for a slot.
    Full,
    /// The payload fits into no frame that the gateway takes.
    TooLarge,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::NotOpen => "there is no session, or the gateway goes away",
            Refused::Full => "too many requests wait",
            Refused::TooLarge => "it is larger than the gateway takes",
        })
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The gateway said why.
    Error(v1::Error),
    /// After [`ClientCore::bye`](super::ClientCore::bye).
    Bye,
    /// The connection was lost.
    Lost,
    /// No Welcome in time.
    OpeningTimeout,
    /// The gateway was silent for twice the heartbeat interval.
    Silence,
    /// The gateway broke the contract.
    Fault(Fault),
}

/// For logs.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Error(error) => {
                let code = Code::from_wire(error.status).name();
                write!(f, "the gateway says {code}, {}", reason_name(error.reason()))?;
                if error.message.is_empty() { Ok(()) } else { write!(f, ": {}", error.message) }
            }
            End::Bye => f.write_str("the client has left"),
            End::Lost => f.write_str("the connection was lost"),
            End::OpeningTimeout => f.write_str("the gateway did not answer"),
            End::Silence => f.write_str("the gateway was silent"),
            End::Fault(fault) if fault.is_http() => f.write_str(
                "what answers there speaks HTTP, not the gateway's protocol; is it the address for clients?",
            ),
            End::Fault(fault) => write!(f, "what answers there broke the gateway's protocol: {fault}"),
        }
    }
}

/// How a gateway broke the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No frame can be cut from what it sends.
    Frame(FrameError),
    /// A frame that is no frame of ours.
    Envelope(EnvelopeError),
    /// A member that cannot be decoded, by its number.
    Malformed(u32),
    /// A member that is not legal now, by its number.
    Unexpected(u32),
    /// A number is missing in the downward stream.
    SequenceGap {
        /// The next number.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// It chose a version that was not offered.
    Version(u32),
    /// A Response to a request that is not open.
    UnknownRequest(u64),
    /// More pushes than the window has room for, and none of them taken yet.
    WindowExceeded,
    /// What it says that it has admitted of a resumed session cannot be.
    Admitted(u64),
}

/// How an HTTP response begins, read as the length of a frame.
const HTTP: u32 = u32::from_be_bytes(*b"HTTP");

impl Fault {
    /// Whether the other side has answered with HTTP.
    fn is_http(self) -> bool {
        matches!(self, Fault::Frame(FrameError::TooLarge { announced: HTTP, .. }))
    }
}

/// For logs.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Frame(error) => error.fmt(f),
            Fault::Envelope(error) => error.fmt(f),
            Fault::Malformed(member) => write!(f, "member {member} cannot be read"),
            Fault::Unexpected(member) => write!(f, "member {member} is not expected now"),
            Fault::SequenceGap { expected, got } => write!(f, "number {got}, where {expected} is the next"),
            Fault::Version(version) => write!(f, "version {version}, which was not offered"),
            Fault::UnknownRequest(up_seq) => write!(f, "a Response to request {up_seq}, which is not open"),
            Fault::WindowExceeded => f.write_str("more pushes than the window has room for"),
            Fault::Admitted(admitted) => write!(f, "{admitted} admitted requests, which cannot be"),
        }
    }
}

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

/// What happens to a session, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// A session is open, and a fresh one. What a resume was asked for and did not come is said by `resume_result`; the
    /// requests of the session before were [`Event::Unanswered`].
    Welcomed(Box<v1::Welcome>),
    /// The session goes on: all that was open still is, and nothing was missed.
    Resumed(Box<v1::Welcome>),
    /// The answer to a request.
    Response(RequestId, ResponseView<'a>),
    /// The session ended before the answer came.
    Unanswered(RequestId, Execution),
    /// A push.
    Push(PushView<'a>),
    /// Pushes that will not come.
    Gap(v1::Gap),
    /// No new requests; reconnect as it says once all is answered.
    GoingAway(Box<v1::GoAway>),
    /// For the log.
    Notice(Box<v1::Notice>),
    /// The answer to an in-band refresh.
    Authenticated(Box<v1::Authenticated>),
    /// The connection is gone and the session is kept; nothing comes until the next connection. Only of a core that
    /// [resumes](super::ClientCore::resuming).
    Detached(End),
    /// The end; nothing comes after it, unless there is another connection.
    Ended(End),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_without_names_of_the_program() {
        let frame = |announced| End::Fault(Fault::Frame(FrameError::TooLarge { announced, max: 4096 }));
        let http = frame(HTTP).to_string();
        assert!(http.contains("speaks HTTP") && http.contains("address for clients"), "{http}");
        assert_eq!(
            frame(7_000_000).to_string(),
            "what answers there broke the gateway's protocol: a frame of 7000000 bytes, above the maximum of 4096"
        );
        let faults = [
            Fault::Envelope(EnvelopeError::Malformed),
            Fault::Malformed(9),
            Fault::Unexpected(9),
            Fault::SequenceGap { expected: 1, got: 3 },
            Fault::Version(7),
            Fault::UnknownRequest(7),
            Fault::WindowExceeded,
            Fault::Admitted(7),
        ];
        for fault in faults {
            let (text, debug) = (fault.to_string(), format!("{fault:?}"));
            let name = debug.split(['(', ' ']).next().unwrap();
            assert!(!text.contains(name) && !text.contains('{'), "{text}");
        }
    }
}

//! Why a link ends, and what the gateway is told of it.

use moorgate_proto::codec::FrameError;
use moorgate_proto::envelope::EnvelopeError;
use moorgate_proto::status::Code;
use moorgate_proto::v1::Reason;

/// Why a link ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkFault {
    /// No frame can be cut from what the gateway sends.
    Frame(FrameError),
    /// A frame that is no frame of ours.
    Envelope(EnvelopeError),
    /// A member that cannot be decoded, by its number.
    Malformed(u32),
    /// A member that is not legal now, by its number.
    Unexpected(u32),
    /// The gateway speaks no version that is spoken here.
    Version,
    /// The gateway expects another service.
    WrongService(String),
    /// The gateway's proof does not hold.
    Proof,
    /// It is a bulk link, and its main link is not of this instance.
    NoMainLink,
    /// The opening took too long.
    OpeningTimeout,
    /// Silence for twice the heartbeat.
    Silence,
    /// The gateway sent a final error.
    Told(String),
}

impl LinkFault {
    /// What the final LinkError says.
    pub(super) fn wire(&self) -> (Code, Reason) {
        match self {
            LinkFault::Proof => (Code::Unauthenticated, Reason::ProofInvalid),
            LinkFault::Version => (Code::FailedPrecondition, Reason::VersionUnsupported),
            LinkFault::WrongService(_) | LinkFault::NoMainLink => {
                (Code::FailedPrecondition, Reason::IdentityMismatch)
            }
            LinkFault::OpeningTimeout => (Code::DeadlineExceeded, Reason::HandshakeTimeout),
            LinkFault::Silence => (Code::DeadlineExceeded, Reason::HeartbeatTimeout),
            LinkFault::Frame(FrameError::TooLarge { .. }) => (Code::InvalidArgument, Reason::FrameTooLarge),
            LinkFault::Envelope(_) | LinkFault::Malformed(_) => {
                (Code::InvalidArgument, Reason::FrameMalformed)
            }
            LinkFault::Unexpected(_) | LinkFault::Told(_) => {
                (Code::InvalidArgument, Reason::ProtocolViolation)
            }
        }
    }
}

impl std::fmt::Display for LinkFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinkFault::Frame(error) => error.fmt(f),
            LinkFault::Envelope(error) => error.fmt(f),
            LinkFault::Malformed(member) => write!(f, "member {member} is not the message it should be"),
            LinkFault::Unexpected(member) => write!(f, "member {member} is not legal now"),
            LinkFault::Version => f.write_str("no version in common"),
            LinkFault::WrongService(service) => write!(f, "service `{}` is not here", service.escape_debug()),
            LinkFault::Proof => f.write_str("the gateway's proof does not hold: are the keys the same?"),
            LinkFault::NoMainLink => f.write_str("the bulk link belongs to no link of this instance"),
            LinkFault::OpeningTimeout => f.write_str("the opening took too long"),
            LinkFault::Silence => f.write_str("silence for twice the heartbeat interval"),
            LinkFault::Told(message) => write!(f, "the gateway says: {}", message.escape_debug()),
        }
    }
}

impl std::error::Error for LinkFault {}

impl From<FrameError> for LinkFault {
    fn from(error: FrameError) -> LinkFault {
        LinkFault::Frame(error)
    }
}

impl From<EnvelopeError> for LinkFault {
    fn from(error: EnvelopeError) -> LinkFault {
        LinkFault::Envelope(error)
    }
}

//! Who asks: captured when a session opens, encoded once, copied into each of its calls.

use crate::base::ids::SessionId;
use crate::base::rng::mix;
use moorgate_proto::v1;
use prost::Message;
use std::net::IpAddr;
use std::sync::Arc;

/// A session's identity as services and the access log see it.
#[derive(Debug, PartialEq, Eq)]
pub struct Caller {
    /// Empty: anonymous.
    pub user_id: Arc<str>,
    /// The session.
    pub session_id: SessionId,
    /// Where the client connects from.
    pub peer: IpAddr,
    /// A hash of the user; of an anonymous session that of the client's address.
    pub hash: u8,
    /// The encoded [`v1::Caller`].
    pub encoded: Box<[u8]>,
}

/// A hash of the user, or of the address without one.
fn hash(user_id: &str, peer: IpAddr) -> u8 {
    let fold = |bytes: &[u8]| bytes.iter().fold(0, |hash, byte| mix(hash ^ u64::from(*byte)));
    let hash = match peer {
        _ if !user_id.is_empty() => fold(user_id.as_bytes()),
        IpAddr::V4(ip) => fold(&ip.octets()),
        // A client usually has a whole /64.
        IpAddr::V6(ip) => fold(ip.octets().first_chunk::<8>().map_or(&[][..], |prefix| prefix)),
    };
    u8::try_from(hash >> 56).unwrap_or_default()
}

impl Caller {
    /// Encodes who asks.
    pub fn new(session_id: SessionId, peer: IpAddr, caller: &v1::Caller) -> Caller {
        Caller {
            user_id: caller.user_id.as_str().into(),
            session_id,
            peer,
            hash: hash(&caller.user_id, peer),
            encoded: caller.encode_to_vec().into_boxed_slice(),
        }
    }

    /// What services are told of it.
    pub fn who(&self) -> v1::Caller {
        // It was encoded here: it can be read.
        v1::Caller::decode(&*self.encoded).unwrap_or_default()
    }

    /// Whether nobody has logged in.
    pub fn is_anonymous(&self) -> bool {
        self.user_id.is_empty()
    }
}

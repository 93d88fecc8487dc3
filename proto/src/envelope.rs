//! The envelope of a frame: its numbers and its one member, found without decoding the member.
//!
//! Field 1 is the frame's own number, field 2 the acknowledgement; fields 8 to 63 are members, of which a
//! frame has at most one; every other field is unknown and ignored. So a receiver tells a *member* that it
//! does not know (a newer peer's frame: it must be counted or answered) from a *field* that it does not know.

use crate::wire::{Field, Fields, Malformed, Value};

/// Smallest and largest field number of a frame's members.
pub const MEMBERS: std::ops::RangeInclusive<u32> = 8..=63;

/// A frame's own number and its acknowledgement; 0 stands for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// `up_seq` from a client, `down_seq` from the gateway.
    pub seq: u64,
    /// Cumulative: what the other side numbered, up to and including this.
    pub ack: u64,
}

impl Numbers {
    /// For frames that are neither numbered nor acknowledge anything.
    pub const NONE: Numbers = Numbers { seq: 0, ack: 0 };
}

/// A frame, split into what stands outside and inside its member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The numbers outside the member.
    pub numbers: Numbers,
    /// The member's field number and encoded message; `None`: a bare acknowledgement.
    pub member: Option<(u32, &'a [u8])>,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Not a protobuf message, or a member that is not one.
    Malformed,
    /// More than one member in a frame.
    SeveralMembers,
}

impl std::fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EnvelopeError::Malformed => "a frame that is not a protobuf message",
            EnvelopeError::SeveralMembers => "a frame with several members",
        })
    }
}

impl std::error::Error for EnvelopeError {}

impl From<Malformed> for EnvelopeError {
    fn from(_: Malformed) -> EnvelopeError {
        EnvelopeError::Malformed
    }
}

impl<'a> Envelope<'a> {
    /// Splits a frame (without its length) of any of the four directions.
    ///
    /// # Errors
    /// [`EnvelopeError`] when the bytes are not a frame.
    pub fn decode(frame: &'a [u8]) -> Result<Envelope<'a>, EnvelopeError> {
        let mut envelope = Envelope { numbers: Numbers::NONE, member: None };
        let mut fields = Fields::new(frame);
        while let Some(key) = fields.key()? {
            match key.number {
                1 => envelope.numbers.seq.read(key, &mut fields)?,
                2 => envelope.numbers.ack.read(key, &mut fields)?,
                number @ 8..=63 => {
                    let body = fields.bytes(key)?;
                    if envelope.member.replace((number, body)).is_some() {
                        return Err(EnvelopeError::SeveralMembers);
                    }
                }
                _ => fields.skip(key)?,
            }
        }
        Ok(envelope)
    }
}

/// The beginning of a frame with a member whose end is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead<'a> {
    /// The member's field number.
    pub member: u32,
    /// The first bytes of its encoded message.
    pub body: &'a [u8],
}

impl<'a> FrameHead<'a> {
    /// Finds the member in the first bytes of a frame.
    ///
    /// # Errors
    /// [`Malformed`] when they begin no frame, or what stands before the member fills them.
    pub fn read(head: &'a [u8]) -> Result<FrameHead<'a>, Malformed> {
        let mut fields = Fields::new(head);
        loop {
            match fields.next_head()? {
                Some((number, Value::Bytes(body))) if MEMBERS.contains(&number) => {
                    return Ok(FrameHead { member: number, body });
                }
                Some((number, _)) if !MEMBERS.contains(&number) => {}
                Some(_) | None => return Err(Malformed),
            }
        }
    }
}

/// Field numbers of the members, as in `proto/*.proto`.
pub mod member {
    /// `ClientFrame`.
    #[allow(missing_docs)]
    pub mod client {
        pub const HELLO: u32 = 8;
        pub const REQUEST: u32 = 9;
        pub const CANCEL: u32 = 10;
        pub const PING: u32 = 11;
        pub const PONG: u32 = 12;
        pub const AUTHENTICATE: u32 = 13;
        pub const BYE: u32 = 14;
        pub const CLIENT_STATE: u32 = 15;
    }
    /// `GatewayFrame`.
    #[allow(missing_docs)]
    pub mod gateway {
        pub const WELCOME: u32 = 8;
        pub const RESPONSE: u32 = 9;
        pub const PUSH: u32 = 10;
        pub const GAP: u32 = 11;
        pub const PING: u32 = 12;
        pub const PONG: u32 = 13;
        pub const GO_AWAY: u32 = 14;
        pub const NOTICE: u32 = 15;
        pub const ERROR: u32 = 16;
        pub const AUTHENTICATED: u32 = 17;
        pub const BYE_ACK: u32 = 18;
    }
    /// `ToService`.
    #[allow(missing_docs)]
    pub mod to_service {
        pub const HELLO: u32 = 8;
        pub const AUTH: u32 = 9;
        pub const CALL: u32 = 10;
        pub const CANCEL: u32 = 11;
        pub const PING: u32 = 12;
        pub const PONG: u32 = 13;
        pub const PUSH_RESULT: u32 = 14;
        pub const PUSH_RECEIPT: u32 = 15;
        pub const DRAIN: u32 = 16;
        pub const ERROR: u32 = 17;
        pub const SESSION_CHECK: u32 = 18;
        pub const PRESENCE_EVENT: u32 = 19;
        pub const PRESENCE_SNAPSHOT: u32 = 20;
        pub const NOTICE: u32 = 21;
    }
    /// `ToGateway`.
    #[allow(missing_docs)]
    pub mod to_gateway {
        pub const HELLO_ACK: u32 = 8;
        pub const REPLY: u32 = 9;
        pub const PUSH: u32 = 10;
        pub const PING: u32 = 11;
        pub const PONG: u32 = 12;
        pub const DRAIN: u32 = 13;
        pub const ERROR: u32 = 14;
        pub const SESSION_VERDICT: u32 = 15;
        pub const PRESENCE_SUBSCRIBE: u32 = 16;
        pub const NOTICE: u32 = 17;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{self, client_frame, gateway_frame, to_gateway, to_service};
    use prost::Message;

    fn member_of(frame: &impl Message) -> u32 {
        Envelope::decode(&frame.encode_to_vec()).unwrap().member.unwrap().0
    }

    #[test]
    fn the_head_of_a_frame_names_its_member() {
        let reply = v1::Reply { call_id: 300, payload: vec![7; 1000].into(), ..Default::default() };
        let frame = v1::ToGateway { member: Some(to_gateway::Member::Reply(reply)) }.encode_to_vec();
        let head = FrameHead::read(&frame[..100]).unwrap();
        assert_eq!(head.member, member::to_gateway::REPLY);
        assert_eq!(crate::view::ReplyView::decode_head(head.body).call_id, 300);
        let numbered = [&[8, 5, 0x18, 1][..], &frame].concat();
        assert_eq!(FrameHead::read(&numbered[..100]).unwrap().member, member::to_gateway::REPLY);
        for broken in [&[][..], &[0x18, 1], &[0x48, 1], &[0, 0], &[0x4a]] {
            assert_eq!(FrameHead::read(broken), Err(Malformed), "{broken:?}");
        }
    }

    #[test]
    fn member_numbers_are_those_of_the_proto_files() {
        use client_frame::Member as C;
        let client = |member| v1::ClientFrame { member: Some(member), ..Default::default() };
        assert_eq!(member_of(&client(C::Hello(Default::default()))), member::client::HELLO);
        assert_eq!(member_of(&client(C::Request(Default::default()))), member::client::REQUEST);
        assert_eq!(member_of(&client(C::Cancel(Default::default()))), member::client::CANCEL);
        assert_eq!(member_of(&client(C::Ping(Default::default()))), member::client::PING);
        assert_eq!(member_of(&client(C::Pong(Default::default()))), member::client::PONG);
        assert_eq!(member_of(&client(C::Authenticate(Default::default()))), member::client::AUTHENTICATE);
        assert_eq!(member_of(&client(C::Bye(Default::default()))), member::client::BYE);
        assert_eq!(member_of(&client(C::ClientState(Default::default()))), member::client::CLIENT_STATE);
        use gateway_frame::Member as G;
        let gateway = |member| v1::GatewayFrame { member: Some(member), ..Default::default() };
        assert_eq!(member_of(&gateway(G::Welcome(Default::default()))), member::gateway::WELCOME);
        assert_eq!(member_of(&gateway(G::Response(Default::default()))), member::gateway::RESPONSE);
        assert_eq!(member_of(&gateway(G::Push(Default::default()))), member::gateway::PUSH);
        assert_eq!(member_of(&gateway(G::Gap(Default::default()))), member::gateway::GAP);
        assert_eq!(member_of(&gateway(G::Ping(Default::default()))), member::gateway::PING);
        assert_eq!(member_of(&gateway(G::Pong(Default::default()))), member::gateway::PONG);
        assert_eq!(member_of(&gateway(G::GoAway(Default::default()))), member::gateway::GO_AWAY);
        assert_eq!(member_of(&gateway(G::Notice(Default::default()))), member::gateway::NOTICE);
        assert_eq!(member_of(&gateway(G::Error(Default::default()))), member::gateway::ERROR);
        assert_eq!(member_of(&gateway(G::Authenticated(Default::default()))), member::gateway::AUTHENTICATED);
        assert_eq!(member_of(&gateway(G::ByeAck(Default::default()))), member::gateway::BYE_ACK);
        use to_service::Member as S;
        let service = |member| v1::ToService { member: Some(member) };
        assert_eq!(member_of(&service(S::Hello(Default::default()))), member::to_service::HELLO);
        assert_eq!(member_of(&service(S::Auth(Default::default()))), member::to_service::AUTH);
        assert_eq!(member_of(&service(S::Call(Default::default()))), member::to_service::CALL);
        assert_eq!(member_of(&service(S::Cancel(Default::default()))), member::to_service::CANCEL);
        assert_eq!(member_of(&service(S::Ping(Default::default()))), member::to_service::PING);
        assert_eq!(member_of(&service(S::Pong(Default::default()))), member::to_service::PONG);
        assert_eq!(member_of(&service(S::PushResult(Default::default()))), member::to_service::PUSH_RESULT);
        assert_eq!(member_of(&service(S::PushReceipt(Default::default()))), member::to_service::PUSH_RECEIPT);
        assert_eq!(member_of(&service(S::Drain(Default::default()))), member::to_service::DRAIN);
        assert_eq!(member_of(&service(S::Error(Default::default()))), member::to_service::ERROR);
        assert_eq!(member_of(&service(S::Notice(Default::default()))), member::to_service::NOTICE);
        use to_gateway::Member as T;
        let gateway = |member| v1::ToGateway { member: Some(member) };
        assert_eq!(member_of(&gateway(T::HelloAck(Default::default()))), member::to_gateway::HELLO_ACK);
        assert_eq!(member_of(&gateway(T::Reply(Default::default()))), member::to_gateway::REPLY);
        assert_eq!(member_of(&gateway(T::Push(Default::default()))), member::to_gateway::PUSH);
        assert_eq!(member_of(&gateway(T::Ping(Default::default()))), member::to_gateway::PING);
        assert_eq!(member_of(&gateway(T::Pong(Default::default()))), member::to_gateway::PONG);
        assert_eq!(member_of(&gateway(T::Drain(Default::default()))), member::to_gateway::DRAIN);
        assert_eq!(member_of(&gateway(T::Error(Default::default()))), member::to_gateway::ERROR);
        assert_eq!(member_of(&gateway(T::Notice(Default::default()))), member::to_gateway::NOTICE);
    }

    // spec: E-1, E-2
    #[test]
    fn several_members_are_an_error() {
        let mut bytes = vec![0x4a, 0x00];
        assert_eq!(Envelope::decode(&bytes).unwrap().member, Some((9, &[][..])));
        bytes.extend([0x52, 0x00]);
        assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::SeveralMembers));
        assert_eq!(Envelope::decode(&[0x4a, 0x00, 0x4a, 0x00]), Err(EnvelopeError::SeveralMembers));
    }

    // spec: E-4
    #[test]
    fn unknown_fields_are_ignored_and_unknown_members_are_found() {
        // Field 3 and field 64 (varints), then member 63.
        let bytes = [0x08, 0x05, 0x18, 0x01, 0x80, 0x04, 0x01, 0xfa, 0x03, 0x00];
        let envelope = Envelope::decode(&bytes).unwrap();
        assert_eq!(envelope.numbers, Numbers { seq: 5, ack: 0 });
        assert_eq!(envelope.member, Some((63, &[][..])));
    }

    // spec: E-3
    #[test]
    fn a_member_that_is_no_message_is_malformed() {
        assert_eq!(Envelope::decode(&[0x48, 0x01]), Err(EnvelopeError::Malformed));
        assert_eq!(Envelope::decode(&[0x4a, 0x05, 0x00]), Err(EnvelopeError::Malformed));
        assert_eq!(Envelope::decode(&[0x00]), Err(EnvelopeError::Malformed));
    }
}

//! The messages of the hot path, borrowed from the frame they came in.
//!
//! A view has the fields of its message in `proto/*.proto`, with bytes and text borrowed and sub-messages
//! left encoded, so that decoding neither copies nor allocates and a sub-message (a [`v1::Caller`], a
//! [`v1::Trace`]) is passed on as it came. Encoding writes the fields in order, the payload last. Tests hold
//! every view equal to the generated type.
//!
//! [`v1::Caller`]: crate::v1::Caller
//! [`v1::Trace`]: crate::v1::Trace

use crate::wire::{Field, Fields, repeated_texts};
pub use crate::wire::{Malformed, Repeated};

/// What can be the member of a frame: a view, or any generated message.
pub trait Body {
    /// Bytes that [`Body::put`] will append.
    fn body_len(&self) -> usize;
    /// Appends the encoded message.
    fn put(&self, out: &mut Vec<u8>);
}

impl<M: prost::Message> Body for M {
    fn body_len(&self) -> usize {
        self.encoded_len()
    }
    fn put(&self, out: &mut Vec<u8>) {
        self.encode_raw(out);
    }
}

/// A message that is encoded already, passed on as it is.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a>(pub &'a [u8]);

impl Body for Encoded<'_> {
    fn body_len(&self) -> usize {
        self.0.len()
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

macro_rules! view {
    ($(#[$meta:meta])* $name:ident { $($number:literal $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub struct $name<'a> {
            $(pub $field: $type,)*
        }

        impl<'a> $name<'a> {
            /// Reads the message; unknown fields are ignored, and of a repeated one the last counts.
            ///
            /// # Errors
            /// [`Malformed`] when the bytes are not such a message.
            pub fn decode(message: &'a [u8]) -> Result<$name<'a>, Malformed> {
                let mut view = $name::default();
                let mut fields = Fields::new(message);
                while let Some(key) = fields.key()? {
                    match key.number {
                        $($number => view.$field.read(key, &mut fields)?,)*
                        _ => fields.skip(key)?,
                    }
                }
                Ok(view)
            }

            /// Reads what there is of a message whose end is missing; what is not there has its default.
            pub fn decode_head(head: &'a [u8]) -> $name<'a> {
                let mut view = $name::default();
                let mut fields = Fields::new(head);
                while let Ok(Some(key)) = fields.key() {
                    let is_read = match key.number {
                        $($number => view.$field.read(key, &mut fields),)*
                        _ => fields.skip(key),
                    };
                    if is_read.is_err() {
                        break;
                    }
                }
                view
            }
        }

        impl Body for $name<'_> {
            fn body_len(&self) -> usize {
                0 $(+ Field::field_len(&self.$field, $number))*
            }
            fn put(&self, out: &mut Vec<u8>) {
                $(Field::put_field(&self.$field, $number, out);)*
            }
        }
    };
}

view! {
    /// See [`v1::Request`](crate::v1::Request); `trace` and `fragment` stay encoded.
    RequestView {
        1 command: u32,
        2 version: u32,
        3 timeout_ms: u32,
        4 idempotency_key: &'a [u8],
        5 trace: &'a [u8],
        6 priority: i32,
        7 content_encoding: &'a str,
        8 fragment: Option<&'a [u8]>,
        15 payload: &'a [u8],
    }
}

view! {
    /// See [`v1::Response`](crate::v1::Response); `login` and `fragment` stay encoded.
    ResponseView {
        1 up_seq: u64,
        2 status: i32,
        3 reason: i32,
        4 source: i32,
        5 execution: i32,
        6 retry_after_ms: u32,
        7 message: &'a str,
        8 login: &'a [u8],
        9 payload_dropped: bool,
        10 content_encoding: &'a str,
        11 fragment: &'a [u8],
        12 action: i32,
        15 payload: &'a [u8],
    }
}

view! {
    /// See [`v1::Push`](crate::v1::Push); `fragment` and `trace` stay encoded.
    PushView {
        1 command: u32,
        2 push_id: &'a [u8],
        3 group: &'a str,
        4 priority: i32,
        5 expires_ms: u64,
        6 content_encoding: &'a str,
        7 fragment: &'a [u8],
        8 trace: &'a [u8],
        15 payload: &'a [u8],
    }
}

view! {
    /// See [`v1::Call`](crate::v1::Call); `trace`, `caller` and `fragment` stay encoded.
    CallView {
        1 call_id: u64,
        2 command: u32,
        3 version: u32,
        4 remaining_ms: u32,
        5 attempt: u32,
        6 idempotency_key: &'a [u8],
        7 ordering_key: &'a [u8],
        8 trace: &'a [u8],
        9 priority: i32,
        10 content_encoding: &'a str,
        11 caller: &'a [u8],
        12 fragment: &'a [u8],
        15 payload: &'a [u8],
    }
}

view! {
    /// See [`v1::Reply`](crate::v1::Reply); directives are only counted, `fragment` stays encoded.
    ReplyView {
        1 call_id: u64,
        2 status: i32,
        3 reason: i32,
        4 execution: i32,
        5 retry_after_ms: u32,
        6 message: &'a str,
        7 directives: Repeated,
        8 content_encoding: &'a str,
        9 fragment: &'a [u8],
        15 payload: &'a [u8],
    }
}

view! {
    /// The first field of a [`v1::ServicePush`](crate::v1::ServicePush).
    PushHead {
        1 push_id: &'a [u8],
    }
}

view! {
    /// See [`v1::Caller`](crate::v1::Caller); roles are only counted, [`CallerView::roles`] reads them.
    CallerView {
        1 user_id: &'a str,
        2 session_id: &'a [u8],
        3 application: &'a str,
        4 device_id: &'a str,
        5 client_address: &'a str,
        6 roles: Repeated,
        7 platform: &'a str,
        8 app_version: &'a str,
        9 protocol_version: u32,
    }
}

impl<'a> CallerView<'a> {
    /// The roles of an encoded caller, one after the other; they end where the bytes are no message any more.
    pub fn roles(message: &'a [u8]) -> impl Iterator<Item = &'a str> + Clone {
        repeated_texts(message, 6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;
    use proptest::prelude::*;
    use prost::Message;

    fn encoded(body: &impl Body) -> Vec<u8> {
        let mut out = Vec::new();
        body.put(&mut out);
        assert_eq!(out.len(), body.body_len());
        out
    }

    proptest! {
        #[test]
        fn request_equals_generated(
            numbers in any::<(u32, u32, u32, i32)>(),
            key in proptest::collection::vec(any::<u8>(), 0..64),
            encoding in ".{0,20}",
            fragment in any::<bool>(),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let message = v1::Request {
                command: numbers.0,
                version: numbers.1,
                timeout_ms: numbers.2,
                priority: numbers.3,
                idempotency_key: key.into(),
                content_encoding: encoding,
                trace: Some(v1::Trace { parent: "00-a".into(), state: String::new() }),
                fragment: fragment.then(v1::Fragment::default),
                payload: payload.into(),
            };
            let bytes = message.encode_to_vec();
            let view = RequestView::decode(&bytes).unwrap();
            prop_assert_eq!(view.payload, &message.payload[..]);
            prop_assert_eq!(view.fragment, message.fragment.is_some().then_some(&[][..]));
            prop_assert_eq!(encoded(&view), bytes);
        }

        #[test]
        fn response_equals_generated(
            seq in any::<u64>(), status in any::<i32>(), dropped in any::<bool>(), message in ".{0,20}",
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let message = v1::Response {
                up_seq: seq, status, reason: 61, source: 2, execution: 3, retry_after_ms: 5, message,
                login: Some(v1::LoginResult { user_id: "u".into(), ..Default::default() }),
                payload_dropped: dropped, content_encoding: String::new(), fragment: None, action: 4,
                payload: payload.into(),
            };
            let bytes = message.encode_to_vec();
            prop_assert_eq!(encoded(&ResponseView::decode(&bytes).unwrap()), bytes);
        }

        #[test]
        fn call_and_reply_equal_generated(id in any::<u64>(), payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let call = v1::Call {
                call_id: id, command: 7, version: 1, remaining_ms: 5000, attempt: 1,
                caller: Some(v1::Caller { user_id: "alice".into(), ..Default::default() }),
                ordering_key: vec![1, 2].into(), payload: payload.clone().into(),
                ..Default::default()
            };
            let bytes = call.encode_to_vec();
            prop_assert_eq!(encoded(&CallView::decode(&bytes).unwrap()), bytes);
            let reply = v1::Reply { call_id: id, status: 5, payload: payload.into(), ..Default::default() };
            let bytes = reply.encode_to_vec();
            prop_assert_eq!(encoded(&ReplyView::decode(&bytes).unwrap()), bytes);
        }

        #[test]
        fn caller_equals_generated(
            texts in proptest::collection::vec(".{0,12}", 6), session in any::<[u8; 16]>(), version in any::<u32>(),
            roles in proptest::collection::vec(".{0,8}", 0..5),
        ) {
            let [user_id, application, device_id, client_address, platform, app_version] =
                texts.try_into().unwrap();
            let message = v1::Caller {
                user_id, session_id: session.to_vec().into(), application, device_id, client_address,
                roles: Vec::new(), platform, app_version, protocol_version: version,
            };
            let bytes = message.encode_to_vec();
            prop_assert_eq!(encoded(&CallerView::decode(&bytes).unwrap()), bytes);
            let message = v1::Caller { roles: roles.clone(), ..message };
            let bytes = message.encode_to_vec();
            let count = u32::try_from(roles.len()).unwrap();
            prop_assert_eq!(CallerView::decode(&bytes).unwrap().roles, Repeated(count));
            prop_assert_eq!(CallerView::roles(&bytes).collect::<Vec<_>>(), roles);
        }

        #[test]
        fn random_bytes_never_panic_and_prost_takes_what_a_view_takes(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            CallerView::roles(&bytes).for_each(drop);
            if v1::Request::decode(&bytes[..]).is_ok() && RequestView::decode(&bytes).is_err() {
                // prost also reads groups, which proto3 does not have.
                prop_assert!(bytes.iter().any(|byte| matches!(byte & 7, 3 | 4)));
            }
        }
    }

    #[test]
    fn directives_are_counted() {
        let reply = v1::Reply { directives: vec![v1::Directive::default(); 3], ..Default::default() };
        let bytes = reply.encode_to_vec();
        assert_eq!(ReplyView::decode(&bytes).unwrap().directives, Repeated(3));
    }
}

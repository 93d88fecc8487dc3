//! Messages with repeated fields, counted before they are decoded: an empty element is two bytes on the wire and many times
//! that in memory.

use crate::limits::{DIRECTIVES, PUSH_TARGETS, ROLES};
use crate::v1;
use crate::wire::{Fields, Malformed, Value};

/// Addresses in one message, at the most.
pub const ADDRESSES: usize = 64;
/// Roles in all logins of one message, at the most: more than are valid, so that those of one login are judged as such.
pub const LOGIN_ROLES: usize = 1024;

/// A repeated field of a message, or of one within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepeatedField {
    /// Field numbers, from the message to the repeated field.
    pub path: &'static [u32],
    /// Elements in the whole message, at the most.
    pub elements_max: usize,
    /// Its elements are numbers, which come packed.
    pub is_packed: bool,
}

const fn repeated(path: &'static [u32], elements_max: usize) -> RepeatedField {
    RepeatedField { path, elements_max, is_packed: false }
}

const fn packed(path: &'static [u32], elements_max: usize) -> RepeatedField {
    RepeatedField { is_packed: true, ..repeated(path, elements_max) }
}

/// Why a message is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundedError {
    /// The bytes are not such a message.
    Malformed,
    /// A repeated field has more elements than any sender needs.
    TooMany,
}

impl std::fmt::Display for BoundedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BoundedError::Malformed => "bytes that are not such a message",
            BoundedError::TooMany => "a repeated field with too many elements",
        })
    }
}

impl std::error::Error for BoundedError {}

impl From<Malformed> for BoundedError {
    fn from(_: Malformed) -> BoundedError {
        BoundedError::Malformed
    }
}

/// A message with repeated fields.
pub trait Bounded: prost::Message + Default {
    /// Its name in the `.proto` files.
    const NAME: &'static str;
    /// All of them.
    const REPEATED: &'static [RepeatedField];
}

macro_rules! bounded {
    ($($name:ident: [$($field:expr),*],)*) => {
        $(impl Bounded for v1::$name {
            const NAME: &'static str = stringify!($name);
            const REPEATED: &'static [RepeatedField] = &[$($field),*];
        })*

        /// Every message with repeated fields that a receiver decodes, and these fields.
        pub const ALL: &[(&str, &[RepeatedField])] = &[$((v1::$name::NAME, v1::$name::REPEATED)),*];
    };
}

bounded! {
    Reply: [repeated(&[7], DIRECTIVES), repeated(&[7, 1, 2], LOGIN_ROLES)],
    ServicePush: [
        repeated(&[2, 1], PUSH_TARGETS),
        repeated(&[3, 1], PUSH_TARGETS),
        repeated(&[13], DIRECTIVES),
        repeated(&[13, 1, 2], LOGIN_ROLES)
    ],
    PushResult: [packed(&[5], PUSH_TARGETS)],
    Caller: [repeated(&[6], ROLES)],
    SessionCheck: [repeated(&[2, 6], ROLES)],
    GoAway: [repeated(&[4], ADDRESSES)],
    Error: [repeated(&[4, 3], ADDRESSES)],
}

/// Decodes a message once its repeated fields are counted.
///
/// # Errors
/// [`BoundedError`].
pub fn decode<M: Bounded>(message: &[u8]) -> Result<M, BoundedError> {
    for field in M::REPEATED {
        if count(message, field.path, field.is_packed)? > field.elements_max {
            return Err(BoundedError::TooMany);
        }
    }
    M::decode(message).map_err(|_| BoundedError::Malformed)
}

/// Elements of a repeated field, over all messages that it is in: a decoder joins those of a message that comes twice.
fn count(message: &[u8], path: &[u32], is_packed: bool) -> Result<usize, Malformed> {
    let Some((first, behind)) = path.split_first() else { return Ok(0) };
    let mut elements: usize = 0;
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        if number != *first {
            continue;
        }
        let more = match value {
            Value::Bytes(inner) if !behind.is_empty() => count(inner, behind, is_packed)?,
            // Each number ends with a byte of its own.
            Value::Bytes(inner) if is_packed => inner.iter().filter(|byte| **byte < 0x80).count(),
            Value::Bytes(_) | Value::Varint(_) | Value::Fixed => 1,
        };
        elements = elements.saturating_add(more);
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with so many elements of a field, each of them empty; or in as many messages that have one each.
    fn message(path: &[u32], elements: usize, is_packed: bool, is_apart: bool) -> Vec<u8> {
        let (field, behind) = path.split_first().unwrap();
        let put = |inner: &[u8], out: &mut Vec<u8>| {
            prost::encoding::encode_key(*field, prost::encoding::WireType::LengthDelimited, out);
            prost::encoding::encode_varint(inner.len() as u64, out);
            out.extend_from_slice(inner);
        };
        let mut out = Vec::new();
        match behind {
            [] if is_packed && !is_apart => put(&vec![1; elements], &mut out),
            [] if is_packed => (0..elements).for_each(|_| put(&[1], &mut out)),
            [] => (0..elements).for_each(|_| put(&[], &mut out)),
            behind if is_apart => {
                (0..elements).for_each(|_| put(&message(behind, 1, is_packed, false), &mut out));
            }
            behind => put(&message(behind, elements, is_packed, false), &mut out),
        }
        out
    }

    fn check<M: Bounded>() {
        for field in M::REPEATED {
            for is_apart in [false, true] {
                let of = |elements| message(field.path, elements, field.is_packed, is_apart);
                let many = of(field.elements_max + 1);
                assert!(M::decode(&many[..]).is_ok(), "a library takes it");
                assert_eq!(
                    decode::<M>(&many).err(),
                    Some(BoundedError::TooMany),
                    "{} {:?}",
                    M::NAME,
                    field.path
                );
                // Sixteen directives may have more logins than that, but not as many directives.
                let is_within = !is_apart
                    || M::REPEATED.iter().all(|other| {
                        !field.path.starts_with(other.path) || other.elements_max >= field.elements_max
                    });
                assert!(!is_within || decode::<M>(&of(field.elements_max)).is_ok(), "{}", M::NAME);
            }
        }
        assert_eq!(decode::<M>(&[0xff]).err(), Some(BoundedError::Malformed));
    }

    #[test]
    fn one_element_more_than_the_bound_is_not_decoded() {
        check::<v1::Reply>();
        check::<v1::ServicePush>();
        check::<v1::PushResult>();
        check::<v1::Caller>();
        check::<v1::SessionCheck>();
        check::<v1::GoAway>();
        check::<v1::Error>();
        assert_eq!(ALL.len(), 7);
    }
}

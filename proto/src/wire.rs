//! Protobuf's wire format, read in place: a frame is walked field by field without an allocation.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use prost::encoding::{WireType, encoded_len_varint, key_len};

/// The bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes that are not a protobuf message")
    }
}

impl std::error::Error for Malformed {}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Fixed32 and fixed64: no message of ours has one.
    Fixed,
}

/// What stands before the value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// The field's number.
    pub(crate) number: u32,
    /// How its value is encoded.
    wire_type: u32,
}

/// Walks the fields of one message.
///
/// What is usual (keys of one byte, varints of two at most) is read in place, and the rest is returned by functions that get
/// the bytes by value: so the compiler can keep the position in registers.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// The next field's key, or `None` at the end of the message. Its value is read next, or skipped.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<Option<Key>, Malformed> {
        match *self.rest {
            [] => Ok(None),
            [byte @ 0x08..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(Some(Key { number: u32::from(byte >> 3), wire_type: u32::from(byte & 7) }))
            }
            _ => {
                let (key, rest) = long_key(self.rest)?;
                self.rest = rest;
                Ok(Some(key))
            }
        }
    }

    /// The next field's number and value, or `None` at the end of the message.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        let Some(key) = self.key()? else { return Ok(None) };
        let value = match key.wire_type {
            0 => Value::Varint(self.varint()?),
            2 => Value::Bytes(self.bytes(key)?),
            _ => {
                self.skip(key)?;
                Value::Fixed
            }
        };
        Ok(Some((key.number, value)))
    }

    /// The same of a message whose end is missing: of a field that is longer than what is there, that.
    pub(crate) fn next_head(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        let mut ahead = self.clone();
        if let Ok(field) = ahead.next() {
            *self = ahead;
            return Ok(field);
        }
        let key = self.key()?.filter(|key| key.wire_type == 2).ok_or(Malformed)?;
        self.varint()?;
        Ok(Some((key.number, Value::Bytes(std::mem::take(&mut self.rest)))))
    }

    /// Reads the value of a number.
    #[inline]
    fn number(&mut self, key: Key) -> Result<u64, Malformed> {
        if key.wire_type != 0 {
            return Err(Malformed);
        }
        self.varint()
    }

    /// Reads a value with a length.
    #[inline]
    pub(crate) fn bytes(&mut self, key: Key) -> Result<&'a [u8], Malformed> {
        if key.wire_type != 2 {
            return Err(Malformed);
        }
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        self.take(len)
    }

    /// Skips the value of an unknown field.
    pub(crate) fn skip(&mut self, key: Key) -> Result<(), Malformed> {
        match key.wire_type {
            0 => self.varint().map(drop),
            1 => self.take(8).map(drop),
            2 => self.bytes(key).map(drop),
            5 => self.take(4).map(drop),
            _ => Err(Malformed),
        }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    /// Most varints are lengths and small numbers.
    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match *self.rest {
            [byte @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(byte.into())
            }
            [low, high @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => {
                let (value, rest) = long_varint(self.rest)?;
                self.rest = rest;
                Ok(value)
            }
        }
    }
}

#[inline(never)]
fn long_key(rest: &[u8]) -> Result<(Key, &[u8]), Malformed> {
    let (key, rest) = long_varint(rest)?;
    let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
    if number == 0 || number > MAX_FIELD_NUMBER {
        return Err(Malformed);
    }
    Ok((Key { number, wire_type: low_u32(key & 7) }, rest))
}

#[inline(never)]
fn long_varint(mut rest: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let (mut value, mut shift) = (0, 0);
    while let Some((&byte, tail)) = rest.split_first() {
        // The tenth byte is the last, and has room for one bit.
        if shift == 63 && byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((value, tail));
        }
        (rest, shift) = (tail, shift + 7);
    }
    Err(Malformed)
}

/// The values of a repeated text, in order; they end where the bytes are no message any more.
pub(crate) fn repeated_texts(message: &[u8], number: u32) -> impl Iterator<Item = &str> + Clone {
    let mut fields = Fields::new(message);
    std::iter::from_fn(move || {
        while let Ok(Some((found, value))) = fields.next() {
            if let Value::Bytes(bytes) = value
                && found == number
            {
                return std::str::from_utf8(bytes).ok();
            }
        }
        None
    })
}

const VARINT_BYTES_MAX: usize = 10;

/// Appends a varint with one growth of `out`; the lengths that are usual are written without a loop.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn put_varint(value: u64, out: &mut Vec<u8>) {
    match value {
        0..0x80 => out.push(value as u8),
        0x80..0x4000 => out.extend_from_slice(&[value as u8 | 0x80, (value >> 7) as u8]),
        _ => put_long_varint(value, out),
    }
}

#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn put_long_varint(mut value: u64, out: &mut Vec<u8>) {
    if value < 0x20_0000 {
        return out.extend_from_slice(&[value as u8 | 0x80, (value >> 7) as u8 | 0x80, (value >> 14) as u8]);
    }
    let mut bytes = [0; VARINT_BYTES_MAX];
    let mut len = 0;
    for byte in &mut bytes {
        *byte = value as u8 | 0x80;
        value >>= 7;
        len += 1;
        if value == 0 {
            *byte &= 0x7f;
            break;
        }
    }
    out.extend_from_slice(bytes.get(..len).unwrap_or_default());
}

#[inline]
fn put_key(number: u32, wire_type: WireType, out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | wire_type as u32), out);
}

const MAX_FIELD_NUMBER: u32 = (1 << 29) - 1;

/// A field of a view: read from a wire value, written back unless it holds its default.
pub(crate) trait Field<'a>: Sized {
    fn read(&mut self, key: Key, fields: &mut Fields<'a>) -> Result<(), Malformed>;
    fn field_len(&self, number: u32) -> usize;
    fn put_field(&self, number: u32, out: &mut Vec<u8>);
}

macro_rules! varint_field {
    ($type:ty, $from:expr, $to:expr) => {
        impl<'a> Field<'a> for $type {
            #[inline]
            fn read(&mut self, key: Key, fields: &mut Fields<'a>) -> Result<(), Malformed> {
                *self = $from(fields.number(key)?);
                Ok(())
            }
            #[inline]
            fn field_len(&self, number: u32) -> usize {
                if *self == <$type>::default() { 0 } else { key_len(number) + encoded_len_varint($to(*self)) }
            }
            #[inline]
            fn put_field(&self, number: u32, out: &mut Vec<u8>) {
                if *self != <$type>::default() {
                    put_key(number, WireType::Varint, out);
                    put_varint($to(*self), out);
                }
            }
        }
    };
}

// Protobuf: a 32-bit field takes the low 32 bits of what it is sent; an int32 travels sign-extended.
#[expect(clippy::cast_possible_truncation, reason = "the wire format truncates")]
const fn low_u32(raw: u64) -> u32 {
    raw as u32
}
const fn low_i32(raw: u64) -> i32 {
    low_u32(raw).cast_signed()
}
const fn sign_extended(value: i32) -> u64 {
    (value as i64).cast_unsigned()
}

varint_field!(u64, std::convert::identity, std::convert::identity);
varint_field!(u32, low_u32, u64::from);
varint_field!(i32, low_i32, sign_extended);
varint_field!(bool, |raw| raw != 0, u64::from);

/// Bytes of which it counts whether they are there, also when they are none: a message that is encoded.
impl<'a> Field<'a> for Option<&'a [u8]> {
    #[inline]
    fn read(&mut self, key: Key, fields: &mut Fields<'a>) -> Result<(), Malformed> {
        *self = Some(fields.bytes(key)?);
        Ok(())
    }
    #[inline]
    fn field_len(&self, number: u32) -> usize {
        self.map_or(0, |bytes| bytes_field_len(number, bytes.len()))
    }
    #[inline]
    fn put_field(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(bytes) = self {
            put_bytes_header(number, bytes.len(), out);
            out.extend_from_slice(bytes);
        }
    }
}

impl<'a> Field<'a> for &'a [u8] {
    #[inline]
    fn read(&mut self, key: Key, fields: &mut Fields<'a>) -> Result<(), Malformed> {
        *self = fields.bytes(key)?;
        Ok(())
    }
    #[inline]
    fn field_len(&self, number: u32) -> usize {
        if self.is_empty() { 0 } else { bytes_field_len(number, <[u8]>::len(self)) }
    }
    #[inline]
    fn put_field(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_bytes_header(number, <[u8]>::len(self), out);
            out.extend_from_slice(self);
        }
    }
}

impl<'a> Field<'a> for &'a str {
    fn read(&mut self, key: Key, fields: &mut Fields<'a>) -> Result<(), Malformed> {
        *self = std::str::from_utf8(fields.bytes(key)?).map_err(|_| Malformed)?;
        Ok(())
    }
    fn field_len(&self, number: u32) -> usize {
        self.as_bytes().field_len(number)
    }
    fn put_field(&self, number: u32, out: &mut Vec<u8>) {
        self.as_bytes().put_field(number, out);
    }
}

/// How often a repeated message stands in its parent. Views only count it; whoever finds some decodes the
/// whole message with prost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repeated(
    /// How many there are.
    pub u32,
);

impl<'a> Field<'a> for Repeated {
    fn read(&mut self, key: Key, fields: &mut Fields<'a>) -> Result<(), Malformed> {
        fields.bytes(key)?;
        self.0 = self.0.saturating_add(1);
        Ok(())
    }
    fn field_len(&self, _number: u32) -> usize {
        0
    }
    fn put_field(&self, _number: u32, _out: &mut Vec<u8>) {}
}

/// Length of a bytes field's key, length and content.
pub(crate) fn bytes_field_len(number: u32, len: usize) -> usize {
    key_len(number) + encoded_len_varint(len as u64) + len
}

/// Writes the key and length of a bytes field; the content must follow.
pub(crate) fn put_bytes_header(number: u32, len: usize, out: &mut Vec<u8>) {
    put_key(number, WireType::LengthDelimited, out);
    put_varint(len as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_are_those_of_the_library(value: u64, small in 0u64..100_000, tail: u8) {
            for value in [value, small] {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                put_varint(value, &mut ours);
                prost::encoding::encode_varint(value, &mut theirs);
                prop_assert_eq!(&ours, &theirs);
                ours.push(tail);
                let mut fields = Fields::new(&ours);
                prop_assert_eq!(fields.varint(), Ok(value));
                prop_assert_eq!(fields.rest, &[tail][..]);
            }
        }

        #[test]
        fn any_bytes_are_read_as_the_library_reads_them(bytes: Vec<u8>) {
            let mut fields = Fields::new(&bytes);
            let mut rest = bytes.as_slice();
            let theirs = prost::encoding::decode_varint(&mut rest).map_err(|_| Malformed);
            prop_assert_eq!(fields.varint(), theirs);
            prop_assert!(theirs.is_err() || fields.rest == rest);
        }
    }

    #[test]
    fn an_endless_varint_is_malformed() {
        for bytes in
            [&[0xff; 11][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &[0x80], &[]]
        {
            assert_eq!(Fields::new(bytes).varint(), Err(Malformed));
        }
    }
}

//! One allocation for all the small bodies of a batch.

use moorgate_proto::view::Body as Message;

/// Bodies above this size get an allocation of their own: copying them into a growing arena would move
/// everything before them.
const OWN_BODY_BYTES: usize = 16 * 1024;

/// Where a body lies.
#[derive(Debug)]
pub enum Body {
    /// In the batch's arena.
    Shared {
        /// First byte.
        start: u32,
        /// Bytes.
        len: u32,
    },
    /// In an allocation of its own.
    Own(Box<[u8]>),
}

impl Body {
    /// No bytes.
    pub const EMPTY: Body = Body::Shared { start: 0, len: 0 };
}

/// A message, and bytes behind it.
#[derive(Debug, Clone, Copy)]
pub struct Joined<'a, M>(pub M, pub &'a [u8]);

impl<M: Message> Message for Joined<'_, M> {
    fn body_len(&self) -> usize {
        self.0.body_len().saturating_add(self.1.len())
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        out.extend_from_slice(self.1);
    }
}

/// The bytes of a batch.
#[derive(Debug, Default)]
pub struct Arena {
    bytes: Vec<u8>,
}

impl Arena {
    /// An arena that has room for `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Arena {
        Arena { bytes: Vec::with_capacity(bytes) }
    }

    /// Copies a body in.
    pub fn put(&mut self, body: &[u8]) -> Body {
        let range = (u32::try_from(self.bytes.len()), u32::try_from(body.len()));
        match range {
            (Ok(start), Ok(len)) if body.len() <= OWN_BODY_BYTES => {
                self.bytes.extend_from_slice(body);
                Body::Shared { start, len }
            }
            _ => Body::Own(body.into()),
        }
    }

    /// Encodes a message in.
    pub fn encode(&mut self, message: &impl Message) -> Body {
        let len = message.body_len();
        match (u32::try_from(self.bytes.len()), u32::try_from(len)) {
            (Ok(start), Ok(encoded)) if len <= OWN_BODY_BYTES => {
                self.bytes.reserve(len);
                message.put(&mut self.bytes);
                Body::Shared { start, len: encoded }
            }
            _ => {
                let mut own = Vec::with_capacity(len);
                message.put(&mut own);
                Body::Own(own.into())
            }
        }
    }

    /// The bytes of a body of this arena.
    pub fn read<'a>(&'a self, body: &'a Body) -> &'a [u8] {
        match body {
            Body::Own(bytes) => bytes,
            Body::Shared { start, len } => {
                let (start, len) = (*start as usize, *len as usize);
                self.bytes.get(start..start.saturating_add(len)).unwrap_or_default()
            }
        }
    }

    /// Bytes in the arena.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes for which it has room.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether the arena holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bodies_share_and_large_ones_do_not() {
        let mut arena = Arena::default();
        let (one, two) = (arena.put(b"one"), arena.put(b"two"));
        let large = arena.put(&vec![7; OWN_BODY_BYTES + 1]);
        assert_eq!((arena.read(&one), arena.read(&two)), (&b"one"[..], &b"two"[..]));
        assert_eq!(arena.read(&large).len(), OWN_BODY_BYTES + 1);
        assert_eq!(arena.len(), 6);
        assert_eq!(arena.read(&Body::EMPTY), b"");
        assert_eq!(arena.read(&Body::Shared { start: 5, len: 9 }), b"", "of another arena: nothing");
    }
}

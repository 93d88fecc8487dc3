//! Payloads that name what they belong to, then a fixed pattern; compared whole. A request's names connection and
//! counter; a push's its number, and when it was sent.

use moorgate_proto::time::Mono;

/// Bytes that name the request; shorter payloads hold what fits.
const HEAD_BYTES: usize = 12;
/// Bytes that name a push; no payload of one is shorter.
pub(crate) const STAMP_BYTES: usize = 16;

/// What the payload of a push says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Pushes are numbered from 0.
    pub(crate) number: u64,
    /// When it was sent, or should have been.
    pub(crate) at: Mono,
}

/// Makes and checks payloads of one length.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    pub(crate) fn new(len: usize) -> Pattern {
        Pattern { bytes: (0u8..=250).cycle().take(len).collect() }
    }

    /// The payload of a request; good until the next call.
    pub(crate) fn fill(&mut self, connection: u32, counter: u64) -> &[u8] {
        let head = head(connection, counter);
        for (byte, head) in self.bytes.iter_mut().zip(head) {
            *byte = head;
        }
        &self.bytes
    }

    /// Whether a reply's payload is its request's.
    pub(crate) fn matches(&self, connection: u32, counter: u64, payload: &[u8]) -> bool {
        let head = head(connection, counter);
        let at = HEAD_BYTES.min(payload.len());
        payload.len() == self.bytes.len()
            && payload.get(..at) == head.get(..at)
            && payload.get(at..) == self.bytes.get(at..)
    }

    /// The payload of a push; good until the next call.
    pub(crate) fn stamp(&mut self, stamp: Stamp) -> &[u8] {
        let head = stamp.number.to_be_bytes().into_iter().chain(stamp.at.as_nanos().to_be_bytes());
        for (byte, head) in self.bytes.iter_mut().zip(head) {
            *byte = head;
        }
        &self.bytes
    }

    /// Which push this is; `None`: it is none.
    pub(crate) fn stamped(&self, payload: &[u8]) -> Option<Stamp> {
        let (number, rest) = payload.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let is_ours = self.bytes.get(STAMP_BYTES..).is_some_and(|bytes| bytes == rest);
        let at = Mono::from_nanos(u64::from_be_bytes(*at));
        is_ours.then(|| Stamp { number: u64::from_be_bytes(*number), at })
    }
}

/// Which request this is the payload of: connection and counter. `None`: it is too short to say.
pub(crate) fn named(payload: &[u8]) -> Option<(u32, u64)> {
    let (connection, rest) = payload.split_first_chunk()?;
    let (counter, _) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*connection), u64::from_be_bytes(*counter)))
}

fn head(connection: u32, counter: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let (first, second) = head.split_at_mut(4);
    first.copy_from_slice(&connection.to_be_bytes());
    second.copy_from_slice(&counter.to_be_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_request_another_length_another_byte_do_not_match() {
        for len in [1, 11, 12, 13, 300] {
            let mut pattern = Pattern::new(len);
            let payload = pattern.fill(7, 9).to_vec();
            assert!(pattern.matches(7, 9, &payload));
            assert!(!pattern.matches(0x0800_0000, 9, &payload), "{len}");
            assert!(!pattern.matches(7, 9, &payload[1..]));
            let mut wrong = payload.clone();
            wrong[len - 1] ^= 1;
            assert!(!pattern.matches(7, 9, &wrong));
        }
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_nothing_else_is() {
        for len in [STAMP_BYTES, STAMP_BYTES + 1, 300] {
            let mut pattern = Pattern::new(len);
            let stamp = Stamp { number: u64::MAX - 1, at: Mono::from_nanos(0x0102_0304_0506_0708) };
            let payload = pattern.stamp(stamp).to_vec();
            assert_eq!((payload.len(), pattern.stamped(&payload)), (len, Some(stamp)));
            // Others have been stamped since.
            pattern.stamp(Stamp { number: 7, at: Mono::ZERO });
            assert_eq!(pattern.stamped(&payload), Some(stamp));
            assert_eq!(pattern.stamped(&payload[1..]), None);
            assert_eq!(pattern.stamped(&[&payload[..], &[0]].concat()), None);
            if len > STAMP_BYTES {
                let mut wrong = payload.clone();
                wrong[len - 1] ^= 1;
                assert_eq!(pattern.stamped(&wrong), None);
            }
        }
    }
}

//! Payloads that name their request: connection and counter, then a fixed pattern. Compared whole.

/// Bytes that name the request; shorter payloads hold what fits.
const HEAD_BYTES: usize = 12;

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
}

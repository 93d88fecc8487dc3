//! Bytes on their way to a socket that may not take them all.

use moorgate_proto::time::Mono;

/// Bytes on their way out.
#[derive(Debug)]
pub struct Output {
    /// What to write; frames are appended here.
    pub bytes: Vec<u8>,
    /// How many of them the socket has taken: fewer than there are, which are bounded far below 4 GiB.
    sent: u32,
    /// Since when the socket takes nothing.
    stalled: Mono,
    /// In the list of connections to be flushed.
    pub listed: bool,
}

impl Default for Output {
    fn default() -> Self {
        Output { bytes: Vec::new(), sent: 0, stalled: Mono::NEVER, listed: false }
    }
}

impl Output {
    /// What the socket has not taken.
    pub fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent as usize..).unwrap_or_default()
    }

    /// Whether the socket has taken everything.
    pub fn is_empty(&self) -> bool {
        self.unsent().is_empty()
    }

    /// Whether at least `high` bytes are unsent.
    pub fn is_above(&self, high: usize) -> bool {
        self.unsent().len() >= high
    }

    /// Whether the socket took less than it was offered.
    pub fn is_stalled(&self) -> bool {
        self.stalled != Mono::NEVER
    }

    /// Whether it is to be put on the list of those to be flushed: it is not there yet, has something to flush, and its
    /// socket takes it. It counts as listed from then on.
    pub fn is_new_on_list(&mut self) -> bool {
        let is_new = !self.listed && !self.is_empty() && !self.is_stalled();
        self.listed |= is_new;
        is_new
    }

    /// Since when the socket takes nothing; [`Mono::NEVER`]: it does.
    pub fn stalled_since(&self) -> Mono {
        self.stalled
    }

    /// The socket took `count` bytes; what is left has to wait for it. Returns the buffer once it is used up.
    pub fn took(&mut self, now: Mono, count: usize) -> Option<Vec<u8>> {
        self.sent = self.sent.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if self.is_empty() {
            self.sent = 0;
            self.stalled = Mono::NEVER;
            let mut buffer = std::mem::take(&mut self.bytes);
            buffer.clear();
            return Some(buffer);
        }
        if count > 0 || self.stalled == Mono::NEVER {
            self.stalled = now;
        }
        // A client that always reads a little must not let the sent part pile up.
        if self.sent as usize > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent as usize);
            self.sent = 0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_knows_since_when_it_is_stalled() {
        let at = Mono::from_nanos;
        let mut output = Output { bytes: vec![0; 10], sent: 0, stalled: Mono::NEVER, listed: false };
        assert_eq!(output.took(at(1), 0), None);
        assert_eq!(output.stalled, at(1));
        assert_eq!(output.took(at(2), 0), None);
        assert_eq!(output.stalled, at(1), "no progress");
        assert_eq!(output.took(at(3), 8), None);
        assert_eq!((output.stalled, output.unsent().len(), output.bytes.len()), (at(3), 2, 2));
        assert!(output.took(at(4), 2).is_some());
        assert!(!output.is_stalled() && output.is_empty());
    }
}

//! One link's socket, and the core behind it.

use crate::core::LinkCore;
use crate::push::LinkId;
use mio::net::TcpStream;
use moorgate_proto::codec::LENGTH_BYTES;
use moorgate_proto::envelope::Envelope;
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::time::Mono;
use std::io::{self, Write};
use std::net::Shutdown;
use std::time::Duration;

/// Above this much unsent output a link is not read.
const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// For a gateway to take more of a link's last output, and to close once it has all.
const LINGER: Duration = Duration::from_secs(2);
/// For a gateway to take all of it.
const TRANSFER_MAX: Duration = Duration::from_secs(30);

pub(super) struct Link {
    pub(super) stream: TcpStream,
    pub(super) core: LinkCore,
    pub(super) id: LinkId,
    /// The other link of its pair.
    pub(super) partner: Option<LinkId>,
    /// The peer has closed: read to the end.
    pub(super) closing: bool,
    /// No calls are run: the output is sent, then the gateway has until then to close.
    leaving: Option<Leaving>,
    /// What of the output is sent.
    sent: Sent,
    /// The end of our stream was sent.
    shut: bool,
    pub(super) again: bool,
    /// The socket takes nothing for now.
    pub(super) blocked: bool,
}

impl Link {
    pub(super) fn new(stream: TcpStream, core: LinkCore, id: LinkId) -> Link {
        Link {
            stream,
            core,
            id,
            partner: None,
            closing: false,
            leaving: None,
            sent: Sent::default(),
            shut: false,
            again: false,
            blocked: false,
        }
    }

    pub(super) fn next_deadline(&self) -> Mono {
        self.leaving.map_or(self.core.next_deadline(), |leaving| leaving.until)
    }

    /// Stops running calls: the output is sent, then the link ends.
    pub(super) fn leave(&mut self, now: Mono) {
        self.leaving.get_or_insert(Leaving::new(now));
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Bytes of output that the socket has not taken.
    pub(super) fn unsent_bytes(&mut self) -> usize {
        self.core.output().len().saturating_sub(self.sent.bytes)
    }

    /// Whether it has so much output that it is not read.
    pub(super) fn is_full(&mut self) -> bool {
        self.unsent_bytes() > OUTPUT_BYTES_MAX
    }

    /// The gateway has ended its stream; what is still to be written is, and then the link ends.
    pub(super) fn ends_after_output(&mut self, now: Mono) -> bool {
        let has_output = self.core.is_bulk() && self.unsent_bytes() > 0;
        if has_output {
            self.leave(now);
        }
        has_output
    }

    /// Writes what the socket takes. Whether that was anything.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let mut has_written = false;
        while !self.blocked && self.unsent_bytes() > 0 {
            let unsent = self.core.output().get(self.sent.bytes..).unwrap_or_default();
            match self.stream.write(unsent) {
                Ok(count) => {
                    has_written |= count > 0;
                    self.sent.took(self.core.output(), count);
                    self.blocked = self.unsent_bytes() > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.leaving.is_some() && !self.shut && self.unsent_bytes() == 0 {
            self.shut = true;
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(has_written)
    }

    /// The socket of a link that is leaving has taken something: it may go on.
    pub(super) fn progressed(&mut self, now: Mono) {
        if let Some(leaving) = &mut self.leaving {
            leaving.progressed(now);
        }
    }

    /// The frames of Replies that were not wholly sent.
    pub(super) fn unsent_replies(&mut self) -> Vec<u8> {
        self.sent.replies(self.core.output())
    }
}

/// Until when a link that is leaving is kept: as long as its gateway takes output, with a bound.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    until: Mono,
    until_max: Mono,
}

impl Leaving {
    fn new(now: Mono) -> Leaving {
        Leaving { until: now + LINGER, until_max: now + TRANSFER_MAX }
    }

    fn progressed(&mut self, now: Mono) {
        self.until = self.until_max.min(now + LINGER);
    }
}

/// How much of an output is sent. It is dropped in large pieces: each byte is moved once at most, on average.
#[derive(Debug, Default)]
struct Sent {
    bytes: usize,
    /// Of whole frames among them.
    frames: usize,
}

impl Sent {
    /// The socket took so many bytes more.
    fn took(&mut self, output: &mut Vec<u8>, count: usize) {
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes >= output.len() {
            output.clear();
            *self = Sent::default();
            return;
        }
        while let Some(end) = frame_end(output, self.frames).filter(|end| *end <= self.bytes) {
            self.frames = end;
        }
        if self.frames > output.len() / 2 {
            output.drain(..self.frames);
            self.bytes = self.bytes.saturating_sub(self.frames);
            self.frames = 0;
        }
    }

    /// The frames of Replies that were not wholly sent.
    fn replies(&self, output: &[u8]) -> Vec<u8> {
        let mut replies = Vec::new();
        let mut begin = self.frames;
        while let Some(end) = frame_end(output, begin) {
            let frame = output.get(begin..end).unwrap_or_default();
            let body = frame.get(LENGTH_BYTES..).unwrap_or_default();
            let member = Envelope::decode(body).ok().and_then(|envelope| envelope.member);
            if let Some((to_gateway::REPLY, _)) = member {
                replies.extend_from_slice(frame);
            }
            begin = end;
        }
        replies
    }
}

/// Where the frame ends that begins there.
fn frame_end(output: &[u8], begin: usize) -> Option<usize> {
    let prefix = output.get(begin..)?.first_chunk::<LENGTH_BYTES>()?;
    Some(begin.saturating_add(LENGTH_BYTES).saturating_add(u32::from_be_bytes(*prefix) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorgate_proto::codec::put_frame;
    use moorgate_proto::envelope::Numbers;
    use moorgate_proto::v1;

    fn reply(call_id: u64, bytes: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let reply = v1::Reply { call_id, payload: vec![7; bytes].into(), ..v1::Reply::default() };
        put_frame(&mut frame, Numbers::NONE, to_gateway::REPLY, &reply);
        frame
    }

    fn pong() -> Vec<u8> {
        let mut frame = Vec::new();
        put_frame(&mut frame, Numbers::NONE, to_gateway::PONG, &v1::LinkPong { nonce: 3, view: None });
        frame
    }

    #[test]
    fn output_sent_in_pieces_is_moved_once() {
        let frames: Vec<Vec<u8>> = (0..64).map(|call_id| reply(call_id, 10_000)).collect();
        let whole = frames.concat();
        let (mut output, mut sent, mut moved, mut written) = (whole.clone(), Sent::default(), 0, Vec::new());
        while !output.is_empty() {
            let before = output.len();
            let count = (before - sent.bytes).min(997);
            written.extend_from_slice(&output[sent.bytes..][..count]);
            sent.took(&mut output, count);
            moved += if output.len() < before { output.len() } else { 0 };
            let unsent = output.len() - sent.bytes;
            assert!(output.len() <= (unsent + frames[0].len()) * 2, "what is sent does not pile up");
        }
        assert!(written == whole && moved <= whole.len(), "{moved}");
    }

    #[test]
    fn replies_that_were_not_wholly_sent_are_found() {
        let (first, second, third) = (reply(1, 100), reply(2, 100), reply(3, 100));
        let whole = [first.clone(), pong(), second.clone(), pong(), third.clone()].concat();
        let mut cases = vec![(0, [first.clone(), second.clone(), third.clone()].concat())];
        cases.push((first.len() - 1, cases[0].1.clone()));
        cases.push((first.len(), [second.clone(), third.clone()].concat()));
        cases.push((first.len() + pong().len() + 3, [second.clone(), third.clone()].concat()));
        cases.push((whole.len() - 1, third));
        cases.push((whole.len(), Vec::new()));
        for (count, expected) in cases {
            let (mut output, mut sent) = (whole.clone(), Sent::default());
            sent.took(&mut output, count);
            assert!(sent.replies(&output) == expected, "{count} bytes were sent");
        }
    }

    #[test]
    fn link_that_leaves_is_kept_while_output_is_taken() {
        let at = |seconds| Mono::ZERO + Duration::from_secs(seconds);
        let mut leaving = Leaving::new(at(10));
        assert_eq!(leaving.until, at(12));
        for second in 11..38 {
            leaving.progressed(at(second));
            assert_eq!(leaving.until, at(second + 2));
        }
        leaving.progressed(at(39));
        assert_eq!(leaving.until, at(40));
    }
}

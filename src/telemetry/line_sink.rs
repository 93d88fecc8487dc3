//! Writes whole lines to a file, a pipe or a terminal.
//!
//! A write that fails half way leaves a torn line at the end: what is written next begins on a new line, and the torn one
//! counts as lost.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

/// Between two attempts at an output that is full and does not block: another process may have set it so.
const RETRY_EVERY: Duration = Duration::from_millis(10);
/// Attempts without progress until the lines are lost.
const RETRIES_MAX: u32 = 100;

/// An output for lines.
#[derive(Debug)]
pub(super) struct LineSink<W> {
    out: W,
    /// The last line has no line feed yet.
    is_torn: bool,
}

/// Lines that were not written.
#[derive(Debug)]
pub(super) struct WriteFailure {
    /// How many of those that were to be written.
    pub(super) lines: u64,
    /// Why.
    pub(super) error: io::Error,
}

impl<W: Write> LineSink<W> {
    pub(super) fn new(out: W) -> LineSink<W> {
        LineSink { out, is_torn: false }
    }

    /// One whose output ends in a line that was not written whole.
    pub(super) fn behind_torn_line(out: W) -> LineSink<W> {
        LineSink { out, is_torn: true }
    }

    /// Writes text that consists of whole lines.
    ///
    /// # Errors
    /// [`WriteFailure`]; the lines before those are written.
    pub(super) fn write(&mut self, text: &[u8]) -> Result<(), WriteFailure> {
        if self.is_torn {
            if let (_, Err(error)) = self.put(b"\n") {
                return Err(WriteFailure { lines: lines(text), error });
            }
            self.is_torn = false;
        }
        let (count, result) = self.put(text);
        result.map_err(|error| {
            let written = text.get(..count).unwrap_or(text);
            self.is_torn = written.last().is_some_and(|byte| *byte != b'\n');
            // One that lacks nothing but its line feed gets it with the next line.
            let is_complete = self.is_torn && text.get(count) == Some(&b'\n');
            let whole = lines(written).saturating_add(u64::from(is_complete));
            WriteFailure { lines: lines(text).saturating_sub(whole), error }
        })
    }

    /// How many bytes were written, and what ended it.
    fn put(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let (mut done, mut retries) = (0, 0);
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => return (done, Err(ErrorKind::WriteZero.into())),
                Ok(count) => (done, retries) = (done.saturating_add(count), 0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && retries < RETRIES_MAX => {
                    retries += 1;
                    std::thread::park_timeout(RETRY_EVERY);
                }
                Err(error) => return (done, Err(error)),
            }
        }
        (done, self.out.flush())
    }
}

fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A disk that takes some bytes of each write, and none when it is full.
    struct Disk {
        content: Vec<u8>,
        /// How much of each write fits, in turn.
        room: std::collections::VecDeque<usize>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.room.pop_front().unwrap_or(usize::MAX);
            if room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let count = room.min(bytes.len());
            self.content.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn each_line_is_written_whole_or_counted(
            batches in prop::collection::vec(1..5usize, 1..20),
            room in prop::collection::vec(0..12usize, 0..40),
        ) {
            let mut sink = LineSink::new(Disk { content: Vec::new(), room: room.into() });
            let (mut next, mut lost) = (0, 0);
            for count in batches {
                let text: String = (next..next + count).map(|number| format!("line={number};\n")).collect();
                next += count;
                if let Err(WriteFailure { lines, .. }) = sink.write(text.as_bytes()) {
                    lost += lines;
                }
            }
            // The disk has room again: what was torn is closed.
            sink.out.room.clear();
            sink.write(b"line=last;\n").unwrap();
            let content = String::from_utf8(sink.out.content).unwrap();
            let whole: Vec<&str> = content.lines().filter(|line| line.ends_with(';')).collect();
            prop_assert_eq!(whole.len() as u64, next as u64 - lost + 1, "{}", content);
            for line in &whole {
                prop_assert!(line.starts_with("line=") && line.matches('=').count() == 1, "{}", content);
            }
            prop_assert_eq!(whole.last().copied(), Some("line=last;"));
        }
    }

    #[test]
    fn output_that_never_has_room_is_given_up() {
        struct Full(u32);
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Err(ErrorKind::WouldBlock.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = LineSink::new(Full(0));
        let lost = sink.write(b"a\nb\n").unwrap_err();
        assert_eq!((lost.lines, lost.error.kind(), sink.out.0), (2, ErrorKind::WouldBlock, RETRIES_MAX + 1));
    }
}

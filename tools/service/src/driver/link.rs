//! One link's socket, and the core behind it.

use crate::core::LinkCore;
use crate::push::LinkId;
use mio::net::TcpStream;
use moorgate_proto::time::Mono;
use std::io::{self, Write};
use std::net::Shutdown;

/// Above this much unsent output a link is not read.
const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) struct Link {
    pub(super) stream: TcpStream,
    pub(super) core: LinkCore,
    pub(super) id: LinkId,
    /// The other link of its pair.
    pub(super) partner: Option<LinkId>,
    /// The peer has closed: read to the end.
    pub(super) closing: bool,
    /// Nothing is run any more: the output is sent, then the gateway has until then to close.
    pub(super) leaving: Option<Mono>,
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
            shut: false,
            again: false,
            blocked: false,
        }
    }

    pub(super) fn next_deadline(&self) -> Mono {
        self.leaving.unwrap_or(self.core.next_deadline())
    }

    /// Whether it has so much output that it is not read.
    pub(super) fn is_full(&mut self) -> bool {
        self.core.output().len() > OUTPUT_BYTES_MAX
    }

    /// The gateway has ended its stream; what is still to be written is, and then the link ends.
    pub(super) fn ends_after_output(&mut self, until: Mono) -> bool {
        let has_output = self.core.is_bulk() && !self.core.output().is_empty();
        if has_output {
            self.leaving.get_or_insert(until);
        }
        has_output
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.blocked && !self.core.output().is_empty() {
            match self.stream.write(self.core.output()) {
                Ok(count) => {
                    self.core.output().drain(..count);
                    self.blocked = !self.core.output().is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.leaving.is_some() && !self.shut && self.core.output().is_empty() {
            self.shut = true;
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

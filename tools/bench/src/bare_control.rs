//! The tester's end of a control connection to `bare-push`: it says what to push to which target, and hears to how many
//! connections each push was written.

use crate::connection::put_raw_frame;
use crate::pusher::Reports;
use crate::receiver::Reception;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Bytes of an answer: target and connections.
pub(crate) const ANSWER_BYTES: usize = 8;

/// Where pushes are written.
pub(crate) struct BareControl {
    stream: TcpStream,
    frame: Vec<u8>,
}

/// The thread that hears the answers; it ends with the connection.
pub(crate) struct BareAnswers {
    stream: TcpStream,
    thread: JoinHandle<()>,
}

/// Connects.
pub(crate) fn connect(
    address: SocketAddr,
    reception: Arc<Reception>,
    reports: Arc<Reports>,
) -> io::Result<(BareControl, BareAnswers)> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (answers, closing) = (stream.try_clone()?, stream.try_clone()?);
    let thread = std::thread::Builder::new()
        .name("answers".to_owned())
        .spawn(move || hear(answers, &reception, &reports))?;
    Ok((BareControl { stream, frame: Vec::new() }, BareAnswers { stream: closing, thread }))
}

impl BareControl {
    /// Has a payload pushed to a target.
    pub(crate) fn push(&mut self, target: u32, payload: &[u8]) -> io::Result<()> {
        self.frame.clear();
        // The length is that of target and payload.
        put_raw_frame(&mut self.frame, &[&target.to_be_bytes(), payload].concat());
        self.stream.write_all(&self.frame)
    }
}

impl BareAnswers {
    /// Closes the connection.
    pub(crate) fn end(self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.thread.join();
    }
}

fn hear(mut stream: TcpStream, reception: &Reception, reports: &Reports) {
    let mut answer = [0; ANSWER_BYTES];
    while stream.read_exact(&mut answer).is_ok() {
        let [a, b, c, d, rest @ ..] = answer;
        let (target, written) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(rest));
        let size = reception.audience.size(target);
        reports.note(target, Ok(()));
        if written != size {
            reports.fail(format!("a push was written to {written} of {size} connections"));
            reception.arrivals.add(u64::from(size.saturating_sub(written)));
        }
    }
}

//! One datagram to the service manager.
//!
//! By hand, in place of a crate: the crate at hand (sd-notify) takes only sockets with a path, opens one for each
//! message, reads the process's own environment and blocks for as long as the service manager does. This knows
//! abstract sockets too, and gives a stuck service manager up.

use crate::base::text::cut;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// For the service manager to take a datagram.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A longer status is cut, in bytes.
const STATUS_BYTES_MAX: usize = 512;

/// What the service manager is told. Source: sd_notify(3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The start is over: it serves.
    Ready,
    /// The end has begun.
    Stopping,
    /// It is alive; without this in time the service manager ends it.
    Watchdog,
    /// The end may take this much longer, from now.
    ExtendTimeout(Duration),
    /// For people.
    Status(String),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Ready => f.write_str("READY=1"),
            Notice::Stopping => f.write_str("STOPPING=1"),
            Notice::Watchdog => f.write_str("WATCHDOG=1"),
            Notice::ExtendTimeout(time) => write!(f, "EXTEND_TIMEOUT_USEC={}", time.as_micros()),
            Notice::Status(text) => {
                // A line feed would begin another assignment.
                let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                write!(f, "STATUS={}", cut(&text, STATUS_BYTES_MAX))
            }
        }
    }
}

/// Sends notices.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// To the socket of this name, as `NOTIFY_SOCKET` has it: a path, or `@` and the name of an abstract socket.
    ///
    /// # Errors
    /// When this is no such name, or the system has no descriptors left. Whether somebody listens there shows when
    /// something is sent.
    pub fn new(name: &str) -> io::Result<Notifier> {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if name.starts_with('/') => SocketAddr::from_pathname(name)?,
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor @NAME")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(Notifier { socket, address })
    }

    /// Sends all of them in one datagram; nothing when there are none.
    ///
    /// # Errors
    /// When the service manager is gone, or does not take it in time.
    pub fn send(&self, notices: &[Notice]) -> io::Result<()> {
        if notices.is_empty() {
            return Ok(());
        }
        let lines: String = notices.iter().map(|notice| format!("{notice}\n")).collect();
        loop {
            match self.socket.send_to_addr(lines.as_bytes(), &self.address) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.map(|_| ()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn notices_reach_a_path_and_an_abstract_name() {
        let notices = [Notice::Ready, Notice::ExtendTimeout(Duration::from_millis(1500))];
        let said = "READY=1\nEXTEND_TIMEOUT_USEC=1500000\n";
        let name = format!("moorgate-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        // One that was killed may have had the same number, and have left its own.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        Notifier::new(path.to_str().unwrap()).unwrap().send(&notices).unwrap();
        assert_eq!(received(&socket), said);
        std::fs::remove_file(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(&format!("@{name}")).unwrap();
        notifier.send(&[]).unwrap();
        notifier.send(&notices).unwrap();
        assert_eq!(received(&socket), said);
    }

    #[test]
    fn what_is_no_name_is_refused_and_nobody_there_is_an_error() {
        for name in ["", "run/notify", "vsock:2:1234"] {
            assert!(Notifier::new(name).is_err(), "{name}");
        }
        let nobody = Notifier::new("/nowhere/notify").unwrap();
        assert_eq!(nobody.send(&[Notice::Ready]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_status_is_one_line_and_bounded() {
        let status = |text: &str| Notice::Status(text.to_owned()).to_string();
        assert_eq!(status("not ready\nREADY=1"), "STATUS=not ready READY=1");
        assert_eq!(status(&"ä".repeat(1000)).len(), "STATUS=".len() + STATUS_BYTES_MAX);
        assert_eq!(status(&format!("x{}", "ä".repeat(1000))).len(), "STATUS=".len() + STATUS_BYTES_MAX - 1);
    }
}

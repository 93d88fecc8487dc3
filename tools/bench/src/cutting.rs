//! How connections are cut, and when.

use crate::dice::Dice;
use clap::ValueEnum;
use mio::Registry;
use mio::net::TcpStream;
use moorgate_proto::time::Mono;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// How long the socket of a half-open connection is held, unless the command line has another time.
pub(crate) const HALF_OPEN: Duration = Duration::from_millis(1500);

/// When connections are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cutting {
    Never,
    /// Each client's so many times, at random moments of this time.
    Scattered {
        cuts: u32,
        within: Duration,
    },
    /// All of them at the beginning of the window, once.
    AtOnce,
}

/// How a connection is ended by a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cut {
    /// The socket is closed, whatever is in it.
    Close,
    /// It is closed with a reset.
    Reset,
    /// It stays open for a time without being read or written.
    HalfOpen,
}

impl Cut {
    /// A quarter are resets, a quarter stay half open.
    pub(crate) fn by(dice: &mut Dice) -> Cut {
        match dice.below(4) {
            0 => Cut::Reset,
            1 => Cut::HalfOpen,
            _ => Cut::Close,
        }
    }
}

/// The moments at which one client is cut.
pub(crate) fn cut_moments(
    dice: &mut Dice,
    now: Mono,
    cuts: u32,
    within: Duration,
) -> impl Iterator<Item = Mono> {
    let moments: Vec<Mono> = (0..cuts).map(|_| now + dice.within(within)).collect();
    moments.into_iter()
}

/// Sockets of half-open connections, until they are closed.
#[derive(Debug)]
pub(crate) struct Abandoned {
    held_for: Duration,
    sockets: VecDeque<(Mono, TcpStream)>,
}

impl Abandoned {
    /// None yet; each is held for this time.
    pub(crate) fn new(held_for: Duration) -> Abandoned {
        Abandoned { held_for, sockets: VecDeque::new() }
    }

    /// Number of sockets that are held.
    pub(crate) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Cuts a connection.
    pub(crate) fn cut(
        &mut self,
        now: Mono,
        mut socket: TcpStream,
        cut: Cut,
        registry: &Registry,
    ) -> io::Result<()> {
        match cut {
            Cut::Close => {}
            Cut::Reset => rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?,
            Cut::HalfOpen => {
                registry.deregister(&mut socket)?;
                self.sockets.push_back((now + self.held_for, socket));
            }
        }
        Ok(())
    }

    /// Closes those whose time is over.
    pub(crate) fn close(&mut self, now: Mono) {
        while self.sockets.front().is_some_and(|(until, _)| *until <= now) {
            self.sockets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_within_their_time_and_cuts_of_every_kind() {
        let mut dice = Dice::new(1, 1);
        let (now, within) = (Mono::from_nanos(5), Duration::from_secs(1));
        let moments: Vec<Mono> = cut_moments(&mut dice, now, 50, within).collect();
        assert!(moments.len() == 50 && moments.iter().all(|at| (now..now + within).contains(at)));
        let cuts = (0..400).map(|_| Cut::by(&mut dice));
        let halves = cuts.filter(|cut| *cut == Cut::Close).count();
        assert!((150..250).contains(&halves), "{halves}");
    }
}

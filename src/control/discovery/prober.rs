//! Probes endpoints to which no worker has a link: a TCP connection, closed at once. Many at a time, on one thread.

use super::event::{Event, Events, Whom};
use crate::base::clock::Clock;
use crossbeam_channel::Receiver;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use moorgate_proto::time::Mono;
use slab::Slab;
use std::io;
use std::time::Duration;

/// Connections at once.
const PROBES_MAX: usize = 128;

/// What a probe has shown; `None`: nothing, as this machine lacks something.
type Shown = Option<bool>;

/// One connection that is being made.
struct Probe {
    whom: Whom,
    stream: TcpStream,
    until: Mono,
}

/// See the module's page.
pub(super) struct Prober {
    poll: Poll,
    ready: mio::Events,
    probes: Slab<Probe>,
    timeout: Duration,
    clock: Clock,
    events: Events,
}

impl Prober {
    /// # Errors
    /// The system has no poll left.
    pub(super) fn new(timeout: Duration, clock: Clock, events: Events) -> io::Result<Prober> {
        Ok(Prober {
            poll: Poll::new()?,
            ready: mio::Events::with_capacity(PROBES_MAX),
            probes: Slab::new(),
            timeout,
            clock,
            events,
        })
    }

    /// Probes all of a round, tells what it has shown, and waits for the next round, until there is none.
    pub(super) fn run(mut self, rounds: &Receiver<Vec<Whom>>) {
        for round in rounds {
            let mut waiting = round.into_iter();
            loop {
                let mut shown = Vec::new();
                while self.probes.len() < PROBES_MAX
                    && let Some(whom) = waiting.next()
                {
                    self.begin(whom, &mut shown);
                }
                let is_over = self.probes.is_empty();
                if !is_over {
                    self.turn(&mut shown);
                }
                if (is_over || !shown.is_empty())
                    && self.events.send(Event::Probed { shown, is_over }).is_err()
                {
                    return;
                }
                if is_over {
                    break;
                }
            }
        }
    }

    fn begin(&mut self, whom: Whom, shown: &mut Vec<(Whom, bool)>) {
        let now = self.clock.read().mono;
        let entry = self.probes.vacant_entry();
        let begun = TcpStream::connect(whom.1).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, Token(entry.key()), Interest::WRITABLE)?;
            Ok(stream)
        });
        match begun {
            Ok(stream) => {
                entry.insert(Probe { whom, stream, until: now + self.timeout });
            }
            Err(error) => shown.extend(judge(&error).map(|answers| (whom, answers))),
        }
    }

    fn turn(&mut self, shown: &mut Vec<(Whom, bool)>) {
        let now = self.clock.read().mono;
        let next = self.probes.iter().map(|(_, probe)| probe.until).min().unwrap_or(now);
        // Rounded up: epoll waits whole milliseconds.
        let wait = next.since(now).saturating_add(Duration::from_millis(1));
        if let Err(error) = self.poll.poll(&mut self.ready, Some(wait))
            && error.kind() != io::ErrorKind::Interrupted
        {
            log::error!("probes cannot be waited for: {error}");
            self.probes.clear();
            return;
        }
        let mut ended: Vec<(usize, Shown)> = Vec::new();
        for event in &self.ready {
            let key = event.token().0;
            if let Some(result) = self.probes.get(key).and_then(|probe| outcome(&probe.stream)) {
                ended.push((key, result));
            }
        }
        let now = self.clock.read().mono;
        for (key, probe) in &self.probes {
            if probe.until <= now && ended.iter().all(|(other, _)| *other != key) {
                ended.push((key, Some(false)));
            }
        }
        for (key, result) in ended {
            if let Some(probe) = self.probes.try_remove(key) {
                shown.extend(result.map(|answers| (probe.whom, answers)));
            }
        }
    }
}

/// How a connection ended; `None`: it has not yet.
fn outcome(stream: &TcpStream) -> Option<Shown> {
    match (stream.take_error(), stream.peer_addr()) {
        (Ok(Some(error)), _) | (Err(error), _) => Some(judge(&error)),
        // A port of this machine that nobody listens on may connect to itself.
        (Ok(None), Ok(peer)) => Some(Some(stream.local_addr().is_ok_and(|own| own != peer))),
        (Ok(None), Err(error)) if error.kind() == io::ErrorKind::NotConnected => None,
        (Ok(None), Err(error)) => Some(judge(&error)),
    }
}

/// What an error says of the endpoint: nothing, when it is this machine that lacks descriptors, ports or memory.
fn judge(error: &io::Error) -> Shown {
    // ENFILE, EMFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM, as on every Linux.
    let is_ours = matches!(error.raw_os_error(), Some(23 | 24 | 99 | 105 | 12));
    if is_ours { None } else { Some(false) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use std::collections::BTreeMap;
    use std::net::{SocketAddr, TcpListener};

    #[test]
    fn who_listens_answers_and_the_others_do_not() {
        // None accepts, so each takes no more than its queue holds.
        let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let here = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        // At an address where nobody else listens, who might be given the port that is let go.
        let gone = TcpListener::bind("127.0.0.77:0").unwrap().local_addr().unwrap();
        // A queue that is full: connections to it hang.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let hanging = full.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&hanging, Duration::from_secs(1)) {
            queued.push(stream);
        }
        let (events, received) = bounded(16);
        let (rounds, asked) = bounded(1);
        let prober = Prober::new(Duration::from_secs(3), Clock::start(), events).unwrap();
        let thread = std::thread::spawn(move || prober.run(&asked));
        let mut round: Vec<Whom> = vec![(0, here[0]), (1, gone), (2, hanging)];
        round.extend((3..400).map(|at| (at, here[at % 4])));
        rounds.send(round).unwrap();
        let mut all = BTreeMap::new();
        loop {
            let Event::Probed { shown, is_over } = received.recv().unwrap() else { continue };
            all.extend(shown.into_iter().map(|((at, _), answers)| (at, answers)));
            if is_over {
                break;
            }
        }
        assert_eq!(all.len(), 400);
        assert_eq!((all[&0], all[&1], all[&2]), (true, false, false));
        assert!(all.iter().all(|(at, answers)| *answers || [1, 2].contains(at)));
        drop(rounds);
        thread.join().unwrap();
    }
}

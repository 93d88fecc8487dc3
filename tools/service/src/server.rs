//! The driver: one thread with a mio loop, any number of links.
//!
//! Sockets are edge-triggered. A turn reads each ready link within a budget, runs the handlers, and writes each link
//! once. A link whose gateway does not read is not read either, until its output is taken. A link that ends says its
//! last frame, closes its writing side, and reads on for [`LINGER`]: a reset would cost the gateway that frame.

use crate::core::{Calls, Input, LinkCore, LinkSettings};
use crate::handler::{Call, Delivery, Mail, Reply, Responder};
use crossbeam_channel::{Receiver, unbounded};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use moorgate_proto::proof::{LinkKey, NONCE_BYTES};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Execution, Reason};
use moorgate_proto::view::ReplyView;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const READ_BYTES: usize = 64 * 1024;
const READS_PER_TURN: usize = 4;
/// Above this much unsent output a link is not read.
const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// For gateways to close their links once a drain has begun.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// For a gateway to take a link's last frame and close.
const LINGER: Duration = Duration::from_secs(2);
/// Until links are accepted again, after the system had no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Links at once; more are refused.
const LINKS_MAX: usize = 4096;

type Handler = Box<dyn Fn(&Call<'_>, Responder<'_>) + Send>;

/// A service to be.
pub struct Service {
    settings: LinkSettings,
    handlers: Vec<(RangeInclusive<u32>, Handler)>,
}

impl Service {
    /// A service; gateways must expect this name.
    pub fn named(name: &str) -> Service {
        Service { settings: LinkSettings::new(name), handlers: Vec::new() }
    }

    /// Gateways must prove that they hold this key, and get the same proof.
    #[must_use]
    pub fn key(mut self, key: LinkKey) -> Service {
        self.settings.key = Some(key);
        self
    }

    /// Names this instance in the gateways' logs.
    #[must_use]
    pub fn instance(mut self, instance_id: &str) -> Service {
        instance_id.clone_into(&mut self.settings.instance_id);
        self
    }

    /// The most calls outstanding on one link; gateways are told, and calls beyond it are refused.
    #[must_use]
    pub fn outstanding_max(mut self, calls: u32) -> Service {
        self.settings.outstanding_max = calls;
        self
    }

    /// Runs `handler` for these commands, on the loop's thread. One that takes long answers [`Responder::later`].
    #[must_use]
    pub fn handle(
        mut self,
        commands: RangeInclusive<u32>,
        handler: impl Fn(&Call<'_>, Responder<'_>) + Send + 'static,
    ) -> Service {
        self.handlers.push((commands, Box::new(handler)));
        self
    }

    /// Listens; port 0 lets the system choose one.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn listen(self, address: SocketAddr) -> io::Result<Listening> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        // Each call has at most one, so the calls bound it. It never blocks: handlers may answer others' calls.
        let (sender, deliveries) = unbounded();
        let mail = Arc::new(Mail { sender, waker: mio::Waker::new(poll.registry(), WAKER)? });
        let address = listener.local_addr()?;
        Ok(Listening {
            poll,
            listener: Some(listener),
            address,
            settings: Arc::new(self.settings),
            handlers: self.handlers,
            links: slab::Slab::new(),
            serial: 0,
            deliveries,
            mail,
            control: Arc::default(),
            random: SystemRandom::new(),
            origin: origin(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            again: Vec::new(),
            accept_at: Mono::NEVER,
            draining: None,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the kit's one clock")]
fn origin() -> Instant {
    Instant::now()
}

#[derive(Debug, Default)]
struct Control {
    drain: AtomicBool,
    stop: AtomicBool,
}

/// Ends a running service from another thread.
#[derive(Debug)]
pub struct Handle {
    control: Arc<Control>,
    mail: Arc<Mail>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new links, tells gateways to send no new calls, answers what is open, and ends. It waits for every
    /// [`crate::Later`]; [`Handle::stop`] does not.
    pub fn drain(&self) {
        self.control.drain.store(true, Ordering::Release);
        let _ = self.mail.waker.wake();
    }

    /// Ends now: open calls get no reply.
    pub fn stop(&self) {
        self.control.stop.store(true, Ordering::Release);
        let _ = self.mail.waker.wake();
    }

    /// Waits for the end; `false` when the thread has failed.
    pub fn join(mut self) -> bool {
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

struct Link {
    stream: TcpStream,
    core: LinkCore,
    serial: u64,
    /// The peer has closed: read to the end.
    closing: bool,
    /// Nothing is run any more: the output is sent, then the gateway has until then to close.
    leaving: Option<Mono>,
    /// The end of our stream was sent.
    shut: bool,
    again: bool,
    /// The socket takes nothing for now.
    blocked: bool,
}

/// A service that listens.
pub struct Listening {
    poll: Poll,
    listener: Option<TcpListener>,
    address: SocketAddr,
    settings: Arc<LinkSettings>,
    handlers: Vec<(RangeInclusive<u32>, Handler)>,
    links: slab::Slab<Link>,
    serial: u64,
    deliveries: Receiver<Delivery>,
    mail: Arc<Mail>,
    control: Arc<Control>,
    random: SystemRandom,
    origin: Instant,
    buffer: Box<[u8]>,
    /// Links with more to read.
    again: Vec<usize>,
    /// When to accept again; `NEVER`: at the next event.
    accept_at: Mono,
    /// Since a drain has begun: until when gateways may close their links.
    draining: Option<Mono>,
}

impl Listening {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on a thread of its own.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn spawn(self) -> io::Result<Handle> {
        let (control, mail, address) = (self.control.clone(), self.mail.clone(), self.address);
        let thread =
            std::thread::Builder::new().name(self.settings.service.clone()).spawn(move || self.run())?;
        Ok(Handle { control, mail, address, thread: Some(thread) })
    }

    fn now(&self) -> Mono {
        Mono::ZERO + self.origin.elapsed() + Duration::from_secs(1)
    }

    /// Serves until it is drained or stopped; without a handle, for ever.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.has_ended() {
            let timeout = if self.again.is_empty() { self.timeout() } else { Some(Duration::ZERO) };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("poll failed: {error}");
                return;
            }
            self.turn(&events);
        }
    }

    fn has_ended(&self) -> bool {
        let drained = self.draining.is_some() && self.links.is_empty();
        drained || self.control.stop.load(Ordering::Acquire)
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.now();
        let drained = self.draining.filter(|until| *until > now);
        let links = self.links.iter().map(|(_, link)| link.next_deadline());
        let next = links.chain(drained).chain([self.accept_at]).min()?;
        (next != Mono::NEVER).then(|| next.since(now))
    }

    fn turn(&mut self, events: &Events) {
        let now = self.now();
        let mut touched = std::mem::take(&mut self.again);
        for event in events {
            match event.token() {
                LISTENER => self.accept(now),
                WAKER => self.deliver(&mut touched),
                Token(index) => {
                    if let Some(link) = self.links.get_mut(index) {
                        link.closing |= event.is_read_closed() || event.is_error();
                        link.blocked &= !event.is_writable();
                        touched.push(index);
                    }
                }
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for index in touched {
            self.serve(now, index);
        }
        self.timers(now);
        if self.accept_at <= now {
            self.accept(now);
        }
        if self.control.drain.load(Ordering::Acquire) && self.draining.is_none() {
            self.drain(now);
        }
        if self.draining.is_some_and(|until| until <= now) {
            self.leave_idle(now);
        }
    }

    /// The time to drain is over: gateways that have not closed their links are left, once these have no open calls.
    fn leave_idle(&mut self, now: Mono) {
        let is_idle = |link: &mut Link| link.leaving.is_none() && link.core.calls().open() == 0;
        let idle: Vec<usize> =
            self.links.iter_mut().filter_map(|(at, link)| is_idle(link).then_some(at)).collect();
        for index in idle {
            self.leave(now, index);
        }
    }

    fn leave(&mut self, now: Mono, index: usize) {
        if let Some(link) = self.links.get_mut(index) {
            link.leaving.get_or_insert(now + LINGER);
            self.write(index);
        }
    }

    /// A gateway closes a link once its calls are answered: what crosses the Drain is run. One that does not close
    /// is not waited for.
    fn drain(&mut self, now: Mono) {
        self.draining = Some(now + DRAIN_TIME);
        self.listener = None;
        self.links.retain(|_, link| link.core.is_ready());
        let indices: Vec<usize> = self.links.iter().map(|(index, _)| index).collect();
        for index in indices {
            if let Some(link) = self.links.get_mut(index) {
                link.core.drain(DRAIN_TIME);
            }
            self.write(index);
        }
    }

    /// Takes every connection that waits: the next event comes only with another one.
    fn accept(&mut self, now: Mono) {
        self.accept_at = Mono::NEVER;
        while let Some(accepted) = self.listener.as_ref().map(TcpListener::accept) {
            let mut stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) =>
                {
                    continue;
                }
                Err(error) => {
                    log::warn!("a link cannot be accepted now: {error}");
                    self.accept_at = now + ACCEPT_PAUSE;
                    return;
                }
            };
            let mut nonce = [0; NONCE_BYTES];
            if self.links.len() >= LINKS_MAX || self.random.fill(&mut nonce).is_err() {
                continue;
            }
            let _ = stream.set_nodelay(true);
            let entry = self.links.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self.poll.registry().register(&mut stream, Token(entry.key()), interest).is_err() {
                continue;
            }
            self.serial = self.serial.saturating_add(1);
            let core = LinkCore::new(now, self.settings.clone(), nonce);
            let serial = self.serial;
            entry.insert(Link {
                stream,
                core,
                serial,
                closing: false,
                leaving: None,
                shut: false,
                again: false,
                blocked: false,
            });
        }
    }

    fn deliver(&mut self, touched: &mut Vec<usize>) {
        while let Ok(delivery) = self.deliveries.try_recv() {
            if let Some(link) = self.links.get_mut(delivery.link)
                && link.serial == delivery.link_serial
                && let Ok(reply) = ReplyView::decode(&delivery.reply)
            {
                // A link that was lost meanwhile, and its calls with it, is no error of the handler.
                let _ = link.core.calls().reply(&reply);
                touched.push(delivery.link);
            }
        }
    }

    /// Reads, runs, writes.
    fn serve(&mut self, now: Mono, index: usize) {
        if self.read(now, index) {
            self.write(index);
        } else {
            self.links.try_remove(index);
        }
    }

    /// `false`: the link is gone.
    fn read(&mut self, now: Mono, index: usize) -> bool {
        let Some(link) = self.links.get_mut(index) else { return true };
        link.again = false;
        for _ in 0..READS_PER_TURN {
            if link.is_full() && link.leaving.is_none() {
                return true;
            }
            let count = match link.stream.read(&mut self.buffer) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            if link.leaving.is_some() {
                continue;
            }
            let bytes = self.buffer.get(..count).unwrap_or_default();
            let (handlers, mail, serial) = (&self.handlers, &self.mail, link.serial);
            let mut handle = |calls: &mut Calls, input: Input<'_>| {
                if let Input::Call(view) = input {
                    let call = Call { view };
                    run(
                        handlers,
                        &call,
                        Responder {
                            calls,
                            call_id: view.call_id,
                            link: index,
                            link_serial: serial,
                            mail,
                            handed_on: false,
                        },
                    );
                }
            };
            if let Err(fault) = link.core.received(now, bytes, &mut handle) {
                log::warn!("link ended: {fault}");
                link.leaving = Some(now + LINGER);
            }
            if count < self.buffer.len() && !link.closing {
                return true;
            }
        }
        link.again = true;
        self.again.push(index);
        true
    }

    fn write(&mut self, index: usize) {
        let Some(link) = self.links.get_mut(index) else { return };
        let was_full = link.is_full();
        if link.flush().is_err() {
            self.links.remove(index);
        } else if was_full && !link.is_full() && !link.again {
            // It was not read while it was full, and there is no event for what has come meanwhile.
            link.again = true;
            self.again.push(index);
        }
    }

    fn timers(&mut self, now: Mono) {
        let due: Vec<usize> =
            self.links.iter().filter(|(_, link)| link.next_deadline() <= now).map(|(at, _)| at).collect();
        for index in due {
            let Some(link) = self.links.get_mut(index) else { continue };
            if link.leaving.is_some() {
                self.links.remove(index);
            } else if let Err(fault) = link.core.timers(now) {
                log::warn!("link ended: {fault}");
                self.leave(now, index);
            }
        }
    }
}

impl Link {
    fn next_deadline(&self) -> Mono {
        self.leaving.unwrap_or(self.core.next_deadline())
    }

    /// Whether it has so much output that it is not read.
    fn is_full(&mut self) -> bool {
        self.core.output().len() > OUTPUT_BYTES_MAX
    }

    /// Writes what the socket takes.
    fn flush(&mut self) -> io::Result<()> {
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

/// Runs the handler of a call. One that panics has given no answer, and its responder says so.
fn run(handlers: &[(RangeInclusive<u32>, Handler)], call: &Call<'_>, responder: Responder<'_>) {
    match handlers.iter().find(|(commands, _)| commands.contains(&call.command())) {
        Some((_, handler)) => {
            if catch_unwind(AssertUnwindSafe(|| handler(call, responder))).is_err() {
                log::error!("the handler of command {:#06x} has panicked", call.command());
            }
        }
        None => responder.reply(
            Reply::error(Code::Unimplemented, "no handler for this command")
                .with_reason(Reason::NoRoute)
                .with_execution(Execution::NotExecuted),
        ),
    }
}

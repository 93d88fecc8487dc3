//! The driver: one thread with a mio loop, any number of links.
//!
//! Sockets are edge-triggered. A turn reads each ready link within a budget, runs the handlers, sends what pushes are due,
//! and writes. A link whose gateway does not read is not read either, until its output is taken. A link that ends says its
//! last frame, closes its writing side, and reads on for a while: a reset would cost the gateway that frame.

mod link;

use crate::clock::Clock;
use crate::core::{Calls, Input, LinkCore, LinkFault, LinkSettings};
use crate::dispatch::Dispatch;
use crate::handle::{Control, Handle};
use crate::health::Health;
use crate::listings::Listings;
use crate::post::{Mail, Post};
use crate::presence::Presence;
use crate::push::{Action, LinkId, Pusher, Pushes, Reporter};
use crate::service::Parts;
use crossbeam_channel::Receiver;
use link::Link;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use moorgate_proto::proof::NONCE_BYTES;
use moorgate_proto::time::Mono;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const READ_BYTES: usize = 64 * 1024;
const READS_PER_TURN: usize = 4;
/// For gateways to close their links once a drain has begun.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// Until links are accepted again, after the system had no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Above this much unsent output of a bulk link large replies go on the main link, which is not read then.
const BULK_OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Links at once; more are refused.
const LINKS_MAX: usize = 4096;

/// A service that listens.
pub struct Listening {
    poll: Poll,
    listener: Option<TcpListener>,
    address: SocketAddr,
    settings: Arc<LinkSettings>,
    dispatch: Dispatch,
    pushes: Pushes<Reporter>,
    presence: Presence,
    links: slab::Slab<Link>,
    serial: u64,
    mail: Receiver<Mail>,
    post: Arc<Post>,
    pusher: Pusher,
    health: Health,
    listings: Listings,
    control: Arc<Control>,
    random: SystemRandom,
    clock: Clock,
    buffer: Box<[u8]>,
    /// Links with more to read.
    again: Vec<usize>,
    /// When to accept again; `NEVER`: at the next event.
    accept_at: Mono,
    /// Since a drain has begun: until when gateways may close their links.
    draining: Option<Mono>,
}

impl Listening {
    pub(crate) fn new(parts: Parts, address: SocketAddr) -> io::Result<Listening> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        parts.post.connect(mio::Waker::new(poll.registry(), WAKER)?);
        Ok(Listening {
            poll,
            address: listener.local_addr()?,
            listener: Some(listener),
            settings: parts.settings,
            clock: parts.dispatch.clock,
            dispatch: parts.dispatch,
            pushes: Pushes::new(parts.push_timeout),
            presence: parts.presence,
            links: slab::Slab::new(),
            serial: 0,
            mail: parts.mail,
            post: parts.post,
            pusher: parts.pusher,
            health: parts.health,
            listings: parts.listings,
            control: Arc::default(),
            random: SystemRandom::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            again: Vec::new(),
            accept_at: Mono::NEVER,
            draining: None,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on a thread of its own.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn spawn(self) -> io::Result<Handle> {
        let (control, post, address) = (self.control.clone(), self.post.clone(), self.address);
        let (pusher, health) = (self.pusher.clone(), self.health.clone());
        let thread =
            std::thread::Builder::new().name(self.settings.service.clone()).spawn(move || self.run())?;
        Ok(Handle { control, post, address, pusher, health, thread: Some(thread) })
    }

    /// Serves until it is drained or stopped; without a handle, for ever.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(256);
        // What was sent before there was a loop has rung no bell.
        self.look_around(self.clock.now());
        self.listings.start(self.address, &self.health);
        while !self.has_ended() {
            let timeout = if self.again.is_empty() { self.timeout() } else { Some(Duration::ZERO) };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("poll failed: {error}");
                break;
            }
            self.turn(&events);
        }
        self.pushes.end();
        self.act(&mut Vec::new());
    }

    fn has_ended(&mut self) -> bool {
        let drained = self.draining.is_some() && self.links.is_empty();
        drained || self.control.stop.load(Ordering::Acquire) && self.listings.have_left(&self.post)
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now();
        let drained = self.draining.filter(|until| *until > now);
        let links = self.links.iter().map(|(_, link)| link.next_deadline());
        let others = [self.accept_at, self.pushes.next_deadline(), self.presence.next_deadline()];
        let next = links.chain(drained).chain(others).min()?;
        (next != Mono::NEVER).then(|| next.since(now))
    }

    fn turn(&mut self, events: &Events) {
        let now = self.clock.now();
        let mut touched = std::mem::take(&mut self.again);
        let mut rung = false;
        for event in events {
            match event.token() {
                LISTENER => self.accept(now),
                WAKER => rung = true,
                Token(index) => {
                    if let Some(link) = self.links.get_mut(index) {
                        link.closing |= event.is_read_closed() || event.is_error();
                        link.blocked &= !event.is_writable();
                        touched.push(index);
                    }
                }
            }
        }
        if rung {
            self.look_around(now);
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
        let mut touched = Vec::new();
        self.act(&mut touched);
        self.write_all(touched);
        let drains = self.control.drain.load(Ordering::Acquire) && self.draining.is_none();
        // First out of the registries, so that nobody dials who has not yet, and then the links.
        if drains && self.listings.have_left(&self.post) {
            self.drain(now);
        }
        if self.draining.is_some_and(|until| until <= now) {
            self.leave_idle(now);
        }
    }

    /// Takes in what other threads have for the loop.
    fn look_around(&mut self, now: Mono) {
        self.post.answer_bell();
        let mut touched = Vec::new();
        if let Some(view) = self.health.news() {
            for (index, link) in &mut self.links {
                link.core.set_view(view);
                touched.push(index);
            }
        }
        while let Ok(mail) = self.mail.try_recv() {
            self.deliver(now, mail, &mut touched);
        }
        self.write_all(touched);
    }

    fn deliver(&mut self, now: Mono, mail: Mail, touched: &mut Vec<usize>) {
        match mail {
            Mail::Reply { place, reply } => {
                for place in self.dispatch.replied(now, place, &reply) {
                    // A link that was lost meanwhile, and its calls with it, is no error of the handler.
                    if let Some(link) = living(&mut self.links, place.link) {
                        let reply_here = reply.for_call(place.call_id);
                        let _ = link.core.calls().answer(place.call_id, reply.execution, &reply_here);
                        touched.push(place.link.index);
                    }
                }
            }
            Mail::Verdict { link: id, verdict } => {
                if let Some(link) = living(&mut self.links, id) {
                    link.core.verdict(&verdict);
                    touched.push(id.index);
                }
            }
            Mail::Push(submission) => {
                self.pushes.submit(now, submission.push, submission.reporter);
                // At once: what a thread sends after a push, as a reply with a directive, does not overtake it.
                self.act(touched);
            }
        }
    }

    /// Sends the pushes that are due, and tells what became of others. The links are still to be written.
    fn act(&mut self, touched: &mut Vec<usize>) {
        while let Some(action) = self.pushes.poll_action() {
            match action {
                Action::Send { link: id, body } => {
                    if let Some(link) = living(&mut self.links, id) {
                        link.core.push(&body);
                        touched.push(id.index);
                    }
                }
                Action::Report { waiters, report } => {
                    waiters.into_iter().for_each(|waiter| waiter.report(report.clone()));
                }
            }
        }
    }

    fn write_all(&mut self, mut touched: Vec<usize>) {
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().for_each(|index| self.write(index));
    }

    /// The time to drain is over: gateways that have not closed their links are left, once these have no open calls.
    fn leave_idle(&mut self, now: Mono) {
        let is_idle = |link: &mut Link| !link.is_leaving() && link.core.calls().open() == 0;
        let idle: Vec<usize> =
            self.links.iter_mut().filter_map(|(at, link)| is_idle(link).then_some(at)).collect();
        for index in idle {
            self.leave(now, index);
        }
    }

    fn leave(&mut self, now: Mono, index: usize) {
        if let Some(link) = self.links.get_mut(index) {
            link.leave(now);
            let (id, partner) = (link.id, link.partner);
            self.pushes.link_lost(id);
            self.unpair(partner, id);
            self.write(index);
        }
    }

    fn close(&mut self, index: usize) {
        let Some(mut link) = self.links.try_remove(index) else { return };
        self.pushes.link_lost(link.id);
        self.unpair(link.partner, link.id);
        // A lost bulk link does not cost the calls of its main link their Replies. The gateway ignores those to its own.
        if link.core.is_bulk()
            && let Some(main) = link.partner.and_then(|main| living(&mut self.links, main))
            && !main.is_leaving()
        {
            main.core.output().extend_from_slice(&link.unsent_replies());
            let main = main.id.index;
            self.write(main);
        }
    }

    /// A gateway closes a link once its calls are answered: what crosses the Drain is run. One that does not close
    /// is not waited for.
    fn drain(&mut self, now: Mono) {
        self.draining = Some(now + DRAIN_TIME);
        self.listener = None;
        let indices: Vec<usize> = self.links.iter().map(|(index, _)| index).collect();
        for index in indices {
            match self.links.get_mut(index) {
                Some(link) if link.core.is_ready() => {
                    link.core.drain(DRAIN_TIME);
                    self.write(index);
                }
                _ => self.close(index),
            }
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
            let mut core = LinkCore::new(now, self.settings.clone(), nonce);
            core.set_view(self.health.view());
            let id = LinkId { index: entry.key(), serial: self.serial };
            entry.insert(Link::new(stream, core, id));
        }
    }

    /// Reads, runs, writes.
    fn serve(&mut self, now: Mono, index: usize) {
        if self.read(now, index) {
            self.write(index);
        } else {
            self.close(index);
        }
    }

    /// `false`: the link is gone.
    fn read(&mut self, now: Mono, index: usize) -> bool {
        let Some(link) = self.links.get_mut(index) else { return true };
        link.again = false;
        for _ in 0..READS_PER_TURN {
            let Some(link) = self.links.get_mut(index) else { return true };
            if link.is_full() && !link.is_leaving() {
                return true;
            }
            let count = match link.stream.read(&mut self.buffer) {
                // A bulk link ends when it was idle: a Reply may have crossed that.
                Ok(0) => return link.ends_after_output(now),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            if link.is_leaving() {
                continue;
            }
            let bytes = self.buffer.get(..count).unwrap_or_default();
            let gathered = (&mut self.pushes, &mut self.presence);
            let was_bulk = link.core.is_bulk();
            let result = received(now, link, bytes, &mut self.dispatch, gathered);
            let is_new_bulk = !was_bulk && link.core.is_bulk();
            while let Some(change) = self.presence.poll_change() {
                self.dispatch.presence(&change);
            }
            if let Err(fault) = result {
                log::warn!("link ended: {fault}");
                link.leave(now);
                self.pushes.link_lost(link.id);
            }
            if is_new_bulk {
                self.pair(now, index);
            }
            let is_closing = self.links.get(index).is_some_and(|link| link.closing);
            if count < self.buffer.len() && !is_closing {
                return true;
            }
        }
        if let Some(link) = self.links.get_mut(index) {
            link.again = true;
            self.again.push(index);
        }
        true
    }

    /// Moves the large replies of a main link to its bulk link.
    fn write_large(&mut self, index: usize) {
        let Some(link) = self.links.get_mut(index) else { return };
        let large = link.core.calls().take_large();
        if large.is_empty() {
            return;
        }
        if let Some(bulk) = link.partner.and_then(|id| living(&mut self.links, id))
            && !bulk.is_leaving()
            && bulk.unsent_bytes() < BULK_OUTPUT_BYTES_MAX
        {
            bulk.core.output().extend_from_slice(&large);
            let index = bulk.id.index;
            return self.write(index);
        }
        if let Some(link) = self.links.get_mut(index) {
            link.core.output().extend_from_slice(&large);
        }
    }

    /// A bulk link is ready: finds the main link that it belongs to.
    fn pair(&mut self, now: Mono, index: usize) {
        let Some(bulk) = self.links.get(index) else { return };
        let Some(peer) = bulk.core.peer().filter(|peer| peer.bulk_of.is_some()) else { return };
        let is_main = |link: &Link| link.core.peer().is_some_and(|main| main.is_main_of(peer));
        let main = self.links.iter().find(|(_, link)| !link.is_leaving() && is_main(link)).map(|(at, _)| at);
        let id = bulk.id;
        let Some(main) = main else {
            let fault = LinkFault::NoMainLink;
            log::warn!("link ended: {fault}");
            if let Some(link) = self.links.get_mut(index) {
                link.core.end(&fault);
            }
            return self.leave(now, index);
        };
        if let Some(main) = self.links.get_mut(main) {
            main.partner = Some(id);
            main.core.calls().set_bulk(true);
            let main = main.id;
            if let Some(bulk) = self.links.get_mut(index) {
                bulk.partner = Some(main);
            }
        }
    }

    /// A link is lost: the other one of its pair has none any longer.
    fn unpair(&mut self, partner: Option<LinkId>, id: LinkId) {
        if let Some(partner) = partner.and_then(|partner| living(&mut self.links, partner))
            && partner.partner == Some(id)
        {
            partner.partner = None;
            partner.core.calls().set_bulk(false);
        }
    }

    fn write(&mut self, index: usize) {
        self.write_large(index);
        let Some(link) = self.links.get_mut(index) else { return };
        let was_full = link.is_full();
        let flushed = link.flush();
        if link.is_leaving() && matches!(flushed, Ok(true)) {
            link.progressed(self.clock.now());
        }
        if flushed.is_err() {
            self.close(index);
        } else if was_full && !link.is_full() && !link.again {
            // It was not read while it was full, and there is no event for what has come meanwhile.
            link.again = true;
            self.again.push(index);
        }
    }

    /// Takes users of gateways that are silent as offline, and asks these anew where there are links of them.
    fn expire_presence(&mut self, now: Mono) {
        let over = self.presence.timers(now);
        while let Some(change) = self.presence.poll_change() {
            self.dispatch.presence(&change);
        }
        let mut touched = Vec::new();
        for (index, link) in &mut self.links {
            if link.core.peer().is_some_and(|peer| over.contains(&peer.gateway)) {
                link.core.subscribe_presence();
                touched.push(index);
            }
        }
        self.write_all(touched);
    }

    fn timers(&mut self, now: Mono) {
        if self.presence.next_deadline() <= now {
            self.expire_presence(now);
        }
        let due: Vec<usize> =
            self.links.iter().filter(|(_, link)| link.next_deadline() <= now).map(|(at, _)| at).collect();
        for index in due {
            let Some(link) = self.links.get_mut(index) else { continue };
            if link.is_leaving() {
                self.close(index);
            } else if let Err(fault) = link.core.timers(now) {
                log::warn!("link ended: {fault}");
                self.leave(now, index);
            }
        }
    }
}

/// A link, unless another one has its place now.
fn living(links: &mut slab::Slab<Link>, id: LinkId) -> Option<&mut Link> {
    links.get_mut(id.index).filter(|link| link.id == id)
}

/// Hands what a gateway said to whoever it is for.
fn received(
    now: Mono,
    link: &mut Link,
    bytes: &[u8],
    dispatch: &mut Dispatch,
    (pushes, presence): (&mut Pushes<Reporter>, &mut Presence),
) -> Result<(), LinkFault> {
    let id = link.id;
    let (mut opened, mut drains) = (false, false);
    let gateway = link.core.peer().map(|peer| peer.gateway.clone());
    if let Some(gateway) = &gateway {
        presence.heard(now, gateway);
    }
    let mut handle = |calls: &mut Calls, input: Input<'_>| match input {
        Input::Ready => opened = true,
        Input::Drain => drains = true,
        Input::Call(view) => dispatch.call(now, calls, view, id),
        // Whoever runs it looks at its flag.
        Input::Cancel(_) => {}
        Input::PushResult(result) => pushes.result(id, result),
        Input::PushReceipt(receipt) => dispatch.receipt(receipt),
        Input::SessionCheck(check) => dispatch.check(check, id),
        Input::Notice(notice) => dispatch.notice(notice),
        // Nothing of presence comes on a link before it has opened, and was asked for it.
        Input::PresenceEvent(event) => gateway.iter().for_each(|gateway| presence.event(gateway, event)),
        Input::PresenceSnapshot(bracket) => {
            gateway.iter().for_each(|gateway| presence.snapshot(now, gateway, bracket));
        }
    };
    let result = link.core.received(now, bytes, &mut handle);
    if let Some(peer) = link.core.peer().filter(|peer| opened && peer.bulk_of.is_none()) {
        pushes.link_ready(id, peer);
    }
    if drains {
        pushes.link_draining(id);
    }
    result
}

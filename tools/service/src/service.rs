//! A service to be: what it is called, who runs its calls, and its bounds.

use crate::call::{Call, Later, Responder};
use crate::clock::Clock;
use crate::core::LinkSettings;
use crate::dedup::{Dedup, DedupSettings};
use crate::dispatch::{Dispatch, Handler, Handlers};
use crate::driver::Listening;
use crate::health::Health;
use crate::listings::Listings;
use crate::pool::Pool;
use crate::post::{Mail, Post};
use crate::presence::{Presence, PresenceChange, USERS_MAX};
use crate::push::{Pusher, Receipt};
use crate::verdict::Verdict;
use crossbeam_channel::Receiver;
use moorgate_proto::proof::LinkKey;
use moorgate_proto::v1;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Threads for handlers that block.
const THREADS: usize = 4;
/// Calls that wait for one of them.
const WAITING_MAX: usize = 1024;
/// For the gateways to answer a push.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// A service to be.
pub struct Service {
    pub(crate) settings: LinkSettings,
    handlers: Handlers,
    threads: usize,
    waiting_max: usize,
    dedup: DedupSettings,
    push_timeout: Duration,
    presence_users_max: usize,
    post: Arc<Post>,
    mail: Receiver<Mail>,
    pusher: Pusher,
    health: Health,
    listings: Listings,
}

impl Service {
    /// A service; gateways must expect this name.
    pub fn named(name: &str) -> Service {
        let (post, mail) = Post::new();
        let post = Arc::new(post);
        Service {
            settings: LinkSettings::new(name),
            handlers: Handlers::default(),
            threads: THREADS,
            waiting_max: WAITING_MAX,
            dedup: DedupSettings::default(),
            push_timeout: PUSH_TIMEOUT,
            presence_users_max: USERS_MAX,
            pusher: Pusher::new(post.clone()),
            health: Health::new(post.clone()),
            listings: Listings::default(),
            post,
            mail,
        }
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

    /// The most calls outstanding on one link; gateways are told, and calls beyond it are refused. [`Health`] changes it
    /// later.
    #[must_use]
    pub fn outstanding_max(mut self, calls: u32) -> Service {
        self.settings.outstanding_max = calls;
        self.health.set_outstanding_max(calls);
        self
    }

    /// Runs `handler` for these commands, on the loop's thread. One that takes long answers [`Responder::later`], and one
    /// that blocks belongs into [`Service::handle_blocking`].
    #[must_use]
    pub fn handle(
        mut self,
        commands: RangeInclusive<u32>,
        handler: impl Fn(&Call<'_>, Responder<'_>) + Send + 'static,
    ) -> Service {
        self.handlers.calls.push((commands, Handler::Loop(Box::new(handler))));
        self
    }

    /// Runs `handler` for these commands, on a thread of its own kind. Calls with the same ordering key are run one after
    /// the other. A call for which there is no room is answered SERVICE_OVERLOADED, and one whose time is over, or that
    /// was cancelled, before a thread is free is answered without being run.
    #[must_use]
    pub fn handle_blocking(
        mut self,
        commands: RangeInclusive<u32>,
        handler: impl Fn(&Call<'_>, Later) + Send + Sync + 'static,
    ) -> Service {
        self.handlers.calls.push((commands, Handler::Blocking(Arc::new(handler))));
        self
    }

    /// The threads for handlers that block (4), and how many calls may wait for one (1024).
    #[must_use]
    pub fn threads(mut self, threads: usize, waiting_max: usize) -> Service {
        (self.threads, self.waiting_max) = (threads, waiting_max);
        self
    }

    /// Runs calls of these commands at most once for each idempotency key of a user (of a session, if it is anonymous): a
    /// repeat gets the reply of the first, and waits for it if need be, so the first is not cancelled. Only a reply
    /// NOT_EXECUTED lets a repeat run. The memory is bounded and timed ([`Service::dedup_settings`]), and of this process.
    #[must_use]
    pub fn deduplicate(mut self, commands: RangeInclusive<u32>) -> Service {
        self.handlers.deduplicated.push(commands);
        self
    }

    /// The bounds of that memory.
    #[must_use]
    pub fn dedup_settings(mut self, settings: DedupSettings) -> Service {
        self.dedup = settings;
        self
    }

    /// Runs `check` for sessions that gateways ask about, on a thread for handlers that block. One that panics, or for which
    /// there is no room, refuses the session; so does a service without one.
    #[must_use]
    pub fn check_sessions(
        mut self,
        check: impl Fn(&v1::Caller) -> Verdict + Send + Sync + 'static,
    ) -> Service {
        self.handlers.check = Some(Arc::new(check));
        self
    }

    /// Is told what clients did with pushes that wanted receipts, on the loop's thread: briefly.
    #[must_use]
    pub fn on_receipt(mut self, handler: impl Fn(&Receipt) + Send + 'static) -> Service {
        self.handlers.receipt = Some(Box::new(handler));
        self
    }

    /// Runs `handler` for what gateways found wrong and left out (a directive without a grant, too many of them, a Reply above
    /// the largest frame), on the loop's thread: briefly. It is logged as a warning in any case.
    #[must_use]
    pub fn on_notice(mut self, handler: impl Fn(&v1::LinkNotice) + Send + 'static) -> Service {
        self.handlers.notice = Some(Box::new(handler));
        self
    }

    /// Is told which users come online and go offline, at whichever gateway, on the loop's thread: briefly. First come all
    /// who are online, and when nothing is heard of a gateway for its lease, its users go. Gateways must grant `presence`.
    #[must_use]
    pub fn presence(mut self, handler: impl Fn(&PresenceChange) + Send + 'static) -> Service {
        self.handlers.presence = Some(Box::new(handler));
        self.settings.wants_presence = true;
        self
    }

    /// The most users of whom presence is remembered (1,000,000); others count as offline.
    #[must_use]
    pub fn presence_users_max(mut self, users: usize) -> Service {
        self.presence_users_max = users;
        self
    }

    /// How long gateways have to answer a push (10 s), before it is reported as unknown.
    #[must_use]
    pub fn push_timeout(mut self, timeout: Duration) -> Service {
        self.push_timeout = timeout;
        self
    }

    /// Lists the service in a registry, from when it runs until it drains or stops: then it leaves the registry first, which
    /// gets two seconds for that. `entry` is told where the service listens, and says as what and with which address it is
    /// listed; what listens on all addresses has to name one. May be said for several registries.
    #[cfg(feature = "registry")]
    #[must_use]
    pub fn register(
        mut self,
        target: moorgate_registry::Target,
        entry: impl FnOnce(SocketAddr) -> moorgate_registry::Registration + Send + 'static,
    ) -> Service {
        self.listings.want(target, Box::new(entry));
        self
    }

    /// Sends pushes, now or later; what is sent before the service listens reaches nobody.
    pub fn pusher(&self) -> Pusher {
        self.pusher.clone()
    }

    /// Changes what gateways are told of this service.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Listens; port 0 lets the system choose one.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the system has no threads left.
    pub fn listen(self, address: SocketAddr) -> io::Result<Listening> {
        let pool = match self.handlers.block() {
            true => Some(Pool::start(&self.settings.service, self.threads, self.waiting_max)?),
            false => None,
        };
        let dispatch = Dispatch {
            handlers: self.handlers,
            dedup: Dedup::new(self.dedup),
            pool,
            post: self.post.clone(),
            clock: Clock::start(),
        };
        let parts = Parts {
            settings: Arc::new(self.settings),
            dispatch,
            push_timeout: self.push_timeout,
            presence: Presence::new(self.presence_users_max),
            post: self.post,
            mail: self.mail,
            pusher: self.pusher,
            health: self.health,
            listings: self.listings,
        };
        Listening::new(parts, address)
    }
}

/// What a loop is made of.
pub(crate) struct Parts {
    pub(crate) settings: Arc<LinkSettings>,
    pub(crate) dispatch: Dispatch,
    pub(crate) push_timeout: Duration,
    pub(crate) presence: Presence,
    pub(crate) post: Arc<Post>,
    pub(crate) mail: Receiver<Mail>,
    pub(crate) pusher: Pusher,
    pub(crate) health: Health,
    pub(crate) listings: Listings,
}

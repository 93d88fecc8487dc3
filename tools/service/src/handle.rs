//! A running service, seen from other threads.

use crate::health::Health;
use crate::post::Post;
use crate::push::Pusher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What the loop is asked to do.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) drain: AtomicBool,
    pub(crate) stop: AtomicBool,
}

/// A running service, seen from another thread. Dropped, it lets the service run on.
#[derive(Debug)]
pub struct Handle {
    pub(crate) control: Arc<Control>,
    pub(crate) post: Arc<Post>,
    pub(crate) address: SocketAddr,
    pub(crate) pusher: Pusher,
    pub(crate) health: Health,
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends pushes.
    pub fn pusher(&self) -> Pusher {
        self.pusher.clone()
    }

    /// Changes what gateways are told of the service.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Leaves the registries, if the service is in any, takes no new links, tells gateways to send no new calls, answers what is open, and ends. It waits for every
    /// [`crate::Later`]; [`Handle::stop`] does not.
    pub fn drain(&self) {
        self.control.drain.store(true, Ordering::Release);
        self.post.wake();
    }

    /// Ends now, but for leaving the registries: open calls get no reply.
    pub fn stop(&self) {
        self.control.stop.store(true, Ordering::Release);
        self.post.wake();
    }

    /// Waits for the end; `false` when the thread has failed.
    pub fn join(mut self) -> bool {
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

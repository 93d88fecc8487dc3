//! How a service sees itself, changed at run time, from any thread.

use crate::core::LOAD_MAX;
use crate::post::Post;
use moorgate_proto::v1::{ServiceView, service_view::State};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
struct Shared {
    view: Mutex<ServiceView>,
    changed: AtomicBool,
}

/// Changes what gateways are told of this service. Each change goes to all of them at once. Cheap to clone, for any
/// thread.
#[derive(Debug, Clone)]
pub struct Health {
    shared: Arc<Shared>,
    post: Arc<Post>,
}

impl Health {
    pub(crate) fn new(post: Arc<Post>) -> Health {
        Health { shared: Arc::default(), post }
    }

    /// Up, degraded, or, so that no calls come, draining or down. A service that [drains](crate::Handle::drain) stays
    /// DRAINING.
    pub fn set_state(&self, state: State) {
        self.change(|view| view.state = state.into());
    }

    /// The part of its capacity in use, from 0 to 10,000; more counts as 10,000.
    pub fn set_load(&self, load: u32) {
        self.change(|view| view.load = load.min(LOAD_MAX));
    }

    /// The most calls outstanding on one link; 0: no bound. Calls that come before a gateway has heard of a lower bound are
    /// still run.
    pub fn set_outstanding_max(&self, calls: u32) {
        self.change(|view| view.outstanding_max = calls);
    }

    /// What gateways are told.
    pub fn view(&self) -> ServiceView {
        *self.shared.view.lock()
    }

    fn change(&self, change: impl FnOnce(&mut ServiceView)) {
        change(&mut self.shared.view.lock());
        self.shared.changed.store(true, Ordering::Release);
        self.post.wake();
    }

    /// What is new since this was asked last.
    pub(crate) fn news(&self) -> Option<ServiceView> {
        self.shared.changed.swap(false, Ordering::AcqRel).then(|| self.view())
    }
}

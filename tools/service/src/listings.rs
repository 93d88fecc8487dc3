//! The registries that list the service: it comes to them once it runs, and leaves them before anything else.
//!
//! ```text
//!   wanted ── start ──► listed ── have_left ──► leaving ── all have confirmed it, or took too long ──► gone
//! ```
//!
//! Without the feature `registry` there are none.

#[cfg(feature = "registry")]
pub(crate) use listed::Listings;

/// No registry is known.
#[cfg(not(feature = "registry"))]
#[derive(Default)]
pub(crate) struct Listings {}

#[cfg(not(feature = "registry"))]
impl Listings {
    pub(crate) fn start(&mut self, _: std::net::SocketAddr, _: &crate::health::Health) {}

    pub(crate) fn have_left(&mut self, _: &std::sync::Arc<crate::post::Post>) -> bool {
        true
    }
}

#[cfg(feature = "registry")]
mod listed {
    use crate::health::Health;
    use crate::post::Post;
    use moorgate_proto::v1::service_view::State as View;
    use moorgate_registry::{Registrar, Registration, Target};
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// For a registry to take the service out, before the gateways are told by the service itself.
    const FAREWELL: Duration = Duration::from_secs(2);

    pub(crate) type Entry = Box<dyn FnOnce(SocketAddr) -> Registration + Send>;

    /// Where the service is to be listed, or is.
    pub(crate) struct Listings(State);

    enum State {
        Wanted(Vec<(Target, Entry)>),
        Listed(Vec<Registrar>),
        /// As many have not confirmed it.
        Leaving(Arc<AtomicUsize>),
    }

    impl Default for Listings {
        fn default() -> Listings {
            Listings(State::Wanted(Vec::new()))
        }
    }

    impl Listings {
        pub(crate) fn want(&mut self, target: Target, entry: Entry) {
            if let State::Wanted(wanted) = &mut self.0 {
                wanted.push((target, entry));
            }
        }

        /// The service runs, and listens there. While it says that it is down, or draining, registries are told so, too.
        pub(crate) fn start(&mut self, address: SocketAddr, health: &Health) {
            let State::Wanted(wanted) = &mut self.0 else { return };
            let start = |(target, entry): (Target, Entry)| {
                let health = health.clone();
                let is_healthy =
                    Arc::new(move || !matches!(health.view().state(), View::Down | View::Draining));
                let registrar = Registrar::start_judged(target, entry(address), is_healthy);
                registrar.map_err(|error| log::error!("the service cannot be registered: {error}")).ok()
            };
            self.0 = State::Listed(wanted.drain(..).filter_map(start).collect());
        }

        /// Leaves all registries, the first time that it is asked; whether that is done. The loop is woken when it is, and
        /// serves on meanwhile: gateways still send calls.
        pub(crate) fn have_left(&mut self, post: &Arc<Post>) -> bool {
            let registrars = match &mut self.0 {
                State::Leaving(left) => return left.load(Ordering::Acquire) == 0,
                State::Wanted(_) => Vec::new(),
                State::Listed(registrars) => std::mem::take(registrars),
            };
            let left = Arc::new(AtomicUsize::new(registrars.len()));
            self.0 = State::Leaving(left.clone());
            for registrar in registrars {
                let (of_thread, post) = (left.clone(), post.clone());
                let farewell = std::thread::Builder::new().name("farewell".to_owned()).spawn(move || {
                    registrar.deregister(FAREWELL);
                    of_thread.fetch_sub(1, Ordering::AcqRel);
                    post.wake();
                });
                if farewell.is_err() {
                    left.fetch_sub(1, Ordering::AcqRel);
                }
            }
            left.load(Ordering::Acquire) == 0
        }
    }
}

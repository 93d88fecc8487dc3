//! An end that can be waited for, and that ends what is under way.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;

/// Tells everybody who has a clone that it is over; it does not come back.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    set: bool,
    serial: u64,
    /// Whose requests end with it.
    under_way: Vec<(u64, Agent)>,
}

impl Stop {
    /// One that is not set.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Ends it: waits return, and requests under way fail.
    pub fn set(&self) {
        let under_way = {
            let mut state = self.0.state.lock();
            state.set = true;
            std::mem::take(&mut state.under_way)
        };
        self.0.changed.notify_all();
        under_way.into_iter().for_each(|(_, agent)| agent.shutdown());
    }

    /// Whether it is over.
    pub fn is_set(&self) -> bool {
        self.0.state.lock().set
    }

    /// Waits for the end, at most this long; whether it is over.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut state = self.0.state.lock();
        self.0.changed.wait_while_for(&mut state, |state| !state.set, timeout);
        state.set
    }

    /// Runs a request of this agent, which the end interrupts for good; `None`: it is over already.
    pub(crate) fn interrupting<T>(&self, agent: &Agent, request: impl FnOnce() -> T) -> Option<T> {
        let serial = {
            let mut state = self.0.state.lock();
            if state.set {
                return None;
            }
            state.serial = state.serial.wrapping_add(1);
            let serial = state.serial;
            state.under_way.push((serial, agent.clone()));
            serial
        };
        let result = request();
        self.0.state.lock().under_way.retain(|(other, _)| *other != serial);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_a_clone_is_set() {
        let stop = Stop::new();
        assert!(!stop.wait(Duration::ZERO));
        let other = stop.clone();
        let thread = std::thread::spawn(move || other.set());
        assert!(stop.wait(Duration::from_secs(60)) && stop.is_set());
        thread.join().unwrap();
        let agent = Agent::new_with_defaults();
        assert_eq!(stop.interrupting(&agent, || panic!("it is over")), None::<()>);
    }

    #[test]
    fn a_request_under_way_ends_with_it() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let (stop, agent) = (Stop::new(), Agent::new_with_defaults());
        let ender = stop.clone();
        let thread = std::thread::spawn(move || {
            // The request has come: it is under way.
            let (mut stream, _) = silent.accept().unwrap();
            std::io::Read::read_exact(&mut stream, &mut [0]).unwrap();
            ender.set();
            stream
        });
        let answer = stop.interrupting(&agent, || agent.get(&url).call().is_ok());
        assert_eq!(answer, Some(false), "without an answer, and without an end of its own");
        assert!(stop.0.state.lock().under_way.is_empty());
        thread.join().unwrap();
    }
}

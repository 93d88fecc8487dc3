//! The service behind clients whose connections are cut: it answers with what it was asked, remembers what it has run,
//! puts connections into groups, and pushes.

use crate::audience::group_name;
use crate::books::REQUEST;
use crate::ledger::{Ledger, Tally};
use crate::options::Backing;
use crate::pattern::named;
use crate::receiver::JOIN;
use crate::servers::link_key;
use moorgate_service::{Code, Directive, Handle, Reply, Service};
use parking_lot::Mutex;
use std::sync::Arc;

/// The numbers that were run, for each connection.
#[derive(Debug)]
pub(crate) struct Runs {
    ledgers: Mutex<Vec<Ledger>>,
}

impl Runs {
    /// Of so many connections.
    pub(crate) fn new(connections: usize) -> Runs {
        Runs { ledgers: Mutex::new(vec![Ledger::default(); connections]) }
    }

    /// A request is run; `false`: nobody has made it so.
    fn ran(&self, payload: &[u8]) -> bool {
        let Some((connection, number)) = named(payload) else { return false };
        let mut ledgers = self.ledgers.lock();
        let ledger = ledgers.get_mut(connection as usize);
        ledger.map(|ledger| ledger.came(number)).is_some()
    }

    /// What was run of the requests of a connection that has made so many. That one has overtaken another is no fault:
    /// the route promises no order.
    pub(crate) fn tally(&self, connection: u32, asked: u64) -> Tally {
        self.ledgers.lock().get(connection as usize).map(|ledger| ledger.closed(asked)).unwrap_or_default()
    }
}

/// Listens as the service.
pub(crate) fn serve(backing: &Backing, runs: &Arc<Runs>) -> Result<Handle, String> {
    let runs = runs.clone();
    let mut service = Service::named(&backing.service_name)
        .handle(REQUEST..=REQUEST, move |call, responder| {
            responder.reply(match runs.ran(call.payload()) {
                true => Reply::ok(call.payload()),
                false => Reply::error(Code::InvalidArgument, "no numbered request"),
            });
        })
        .handle(JOIN..=JOIN, |call, responder| {
            responder.reply(match call.payload().try_into() {
                Ok(target) => Reply::ok(b"").with(Directive::join(&group_name(u32::from_be_bytes(target)))),
                Err(_) => Reply::error(Code::InvalidArgument, "no number of a group"),
            });
        });
    if let Some(path) = &backing.key_file {
        service = service.key(link_key(path)?);
    }
    let listening = service
        .listen(backing.service_listen)
        .map_err(|error| format!("{}: {error}", backing.service_listen))?;
    listening.spawn().map_err(|error| error.to_string())
}

/// Ends the service.
pub(crate) fn end(service: Handle) {
    service.stop();
    service.join();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    #[test]
    fn what_runs_twice_or_never_is_found() {
        let (runs, mut pattern) = (Runs::new(2), Pattern::new(20));
        for number in [0, 2, 1, 2] {
            assert!(runs.ran(pattern.fill(1, number)));
        }
        let tally = runs.tally(1, 4);
        assert_eq!((tally.received, tally.duplicated, tally.lost), (3, 1, 1));
        assert_eq!(runs.tally(0, 0), Tally::default());
        assert!(!runs.ran(pattern.fill(2, 0)) && !runs.ran(b"short"));
    }
}

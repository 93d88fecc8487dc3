//! Which of the addresses that a name stands for is connected to first.
//!
//! One that has brought no session, also one that accepts connections and never answers, is followed by the next at the
//! next attempt. One that has brought a session is tried first again, because the session is there.

use crate::session::ADDRESSES_MAX;
use std::collections::HashMap;
use std::net::SocketAddr;

/// The address of a name that was connected to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    endpoint: SocketAddr,
    /// It has brought a session.
    is_good: bool,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    last: HashMap<String, Last>,
    /// The name of the connection that there is.
    current: String,
}

impl Endpoints {
    /// What is known of a name.
    pub(super) fn last(&self, name: &str) -> Option<Last> {
        self.last.get(name).copied()
    }

    /// A connection to this address of the name.
    pub(super) fn connected(&mut self, name: String, endpoint: SocketAddr) {
        if self.last.len() >= ADDRESSES_MAX.saturating_mul(2) {
            self.last.clear();
        }
        self.last.insert(name.clone(), Last { endpoint, is_good: false });
        self.current = name;
    }

    /// The connection has a session.
    pub(super) fn opened(&mut self) {
        if let Some(last) = self.last.get_mut(&self.current) {
            last.is_good = true;
        }
    }
}

/// The addresses of a name in the order in which they are tried.
pub(super) fn order(mut found: Vec<SocketAddr>, last: Option<Last>) -> Vec<SocketAddr> {
    let Some(last) = last.filter(|_| !found.is_empty()) else { return found };
    // A resolver may shuffle them.
    found.sort_unstable();
    found.dedup();
    let is_before = |endpoint: &SocketAddr| match last.is_good {
        true => *endpoint < last.endpoint,
        false => *endpoint <= last.endpoint,
    };
    let first = found.partition_point(is_before) % found.len();
    found.rotate_left(first);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(hosts: &[u8]) -> Vec<SocketAddr> {
        hosts.iter().map(|host| SocketAddr::from(([192, 0, 2, *host], 7000))).collect()
    }

    #[test]
    fn address_without_a_session_is_followed_by_the_next() {
        let mut endpoints = Endpoints::default();
        assert_eq!(order(all(&[2, 3, 1]), endpoints.last("a")), all(&[2, 3, 1]), "as the resolver has them");
        for (last, expected) in [(2, [3, 1, 2]), (3, [1, 2, 3]), (1, [2, 3, 1])] {
            endpoints.connected("a".to_owned(), all(&[last])[0]);
            assert_eq!(order(all(&[1, 3, 2, 3]), endpoints.last("a")), all(&expected), "after {last}");
        }
        assert_eq!(order(all(&[7, 5]), endpoints.last("b")), all(&[7, 5]), "another name");
        endpoints.connected("a".to_owned(), all(&[2])[0]);
        endpoints.opened();
        assert_eq!(order(all(&[1, 2, 3]), endpoints.last("a")), all(&[2, 3, 1]), "the session is there");
        assert_eq!(order(all(&[1, 3]), endpoints.last("a")), all(&[3, 1]), "it has left the name");
        assert_eq!(order(Vec::new(), endpoints.last("a")), Vec::new());
    }

    #[test]
    fn names_are_bounded() {
        let mut endpoints = Endpoints::default();
        for name in 0..10 * ADDRESSES_MAX {
            endpoints.connected(name.to_string(), all(&[1])[0]);
        }
        assert!(endpoints.last.len() <= 2 * ADDRESSES_MAX);
    }
}

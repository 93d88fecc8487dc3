//! Strangers on the port: what an absurd length says about who is calling.

use moorgate_proto::time::Mono;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// One line per address in this time.
const QUIET: Duration = Duration::from_secs(60);
/// Addresses remembered; beyond it the log stays silent until some are forgotten.
const ADDRESSES_MAX: usize = 1024;

/// Which addresses were logged when.
#[derive(Debug, Default)]
pub(super) struct Greetings {
    logged: HashMap<IpAddr, Mono, foldhash::fast::FixedState>,
}

impl Greetings {
    /// Whether this address is due for a line in the log.
    pub(super) fn is_due(&mut self, now: Mono, address: IpAddr) -> bool {
        if self.logged.len() >= ADDRESSES_MAX {
            self.logged.retain(|_, logged| now.since(*logged) < QUIET);
        }
        let room = self.logged.len() < ADDRESSES_MAX;
        match self.logged.get_mut(&address) {
            Some(logged) if now.since(*logged) < QUIET => false,
            Some(logged) => {
                *logged = now;
                true
            }
            None if room => self.logged.insert(address, now).is_none(),
            None => false,
        }
    }
}

/// What protocol begins with these four bytes, when they make no sense as a length.
pub(super) fn protocol_of(length: u32) -> Option<&'static str> {
    match &length.to_be_bytes() {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"CONN" | b"PRI " => Some("HTTP"),
        [0x16, 0x03, _, _] => Some("TLS"),
        b"PROX" | [0x0d, 0x0a, 0x0d, 0x0a] => Some("the PROXY protocol"),
        b"SSH-" => Some("SSH"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_told_apart() {
        assert_eq!(protocol_of(u32::from_be_bytes(*b"GET ")), Some("HTTP"));
        assert_eq!(protocol_of(u32::from_be_bytes([0x16, 3, 1, 0])), Some("TLS"));
        assert_eq!(protocol_of(70_000), None);
    }

    #[test]
    fn one_line_per_address_and_minute() {
        let mut greetings = Greetings::default();
        let address = IpAddr::from([127, 0, 0, 1]);
        let at = |seconds| Mono::ZERO + Duration::from_secs(seconds);
        assert!(greetings.is_due(at(1), address));
        assert!(!greetings.is_due(at(60), address));
        assert!(greetings.is_due(at(61), address));
        for other in 0..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            greetings.is_due(at(62), IpAddr::from(other.to_be_bytes()));
        }
        assert!(greetings.logged.len() <= ADDRESSES_MAX);
    }
}

//! HMAC-SHA256 proofs: both ends of a link to a service show that they hold the service's key, and a client that it
//! holds its application's.
//!
//! The MAC covers a label for the direction and every identity, each written as a `u32` big-endian length and
//! its bytes, so no two different sets of values give the same input.

use ring::hmac;

/// Bytes of a link nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// Shared by a gateway and the instances of one service.
#[derive(Clone)]
pub struct LinkKey(hmac::Key);

impl LinkKey {
    /// A key from at least 16 bytes of secret; `None` when there are fewer.
    pub fn new(secret: &[u8]) -> Option<LinkKey> {
        (secret.len() >= 16).then(|| LinkKey(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }
}

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkKey(..)")
    }
}

/// Who proves: the first part of the MAC's input, so that a proof cannot be sent back as one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prover {
    /// The service, in HelloAck.
    Service,
    /// The gateway, in Auth.
    Gateway,
}

/// What both ends of a link have told each other, which both proofs cover.
#[derive(Debug, Clone, Copy)]
pub struct LinkFacts<'a> {
    /// The version in force.
    pub version: u32,
    /// From LinkHello.
    pub gateway_id: &'a str,
    /// From LinkHello.
    pub boot_id: u64,
    /// From LinkHello; HelloAck must name the same.
    pub service: &'a str,
    /// From LinkHelloAck.
    pub instance_id: &'a str,
    /// From LinkHello.
    pub gateway_nonce: &'a [u8],
    /// From LinkHelloAck.
    pub service_nonce: &'a [u8],
    /// From LinkHello, the number on the wire.
    pub purpose: i32,
}

impl LinkFacts<'_> {
    fn input(&self, prover: Prover) -> Vec<u8> {
        let label: &[u8] = match prover {
            Prover::Service => b"moorgate link v1 service",
            Prover::Gateway => b"moorgate link v1 gateway",
        };
        let version = self.version.to_be_bytes();
        let boot_id = self.boot_id.to_be_bytes();
        let purpose = self.purpose.to_be_bytes();
        let parts: [&[u8]; 9] = [
            label,
            &version,
            self.gateway_id.as_bytes(),
            &boot_id,
            self.service.as_bytes(),
            self.instance_id.as_bytes(),
            self.gateway_nonce,
            self.service_nonce,
            &purpose,
        ];
        lengths_and_bytes(&parts)
    }

    /// The proof that `prover` sends.
    pub fn prove(&self, key: &LinkKey, prover: Prover) -> [u8; PROOF_BYTES] {
        sign(&key.0, &self.input(prover))
    }

    /// Whether `proof` is the one that `prover` would send, in constant time.
    pub fn verify(&self, key: &LinkKey, prover: Prover, proof: &[u8]) -> bool {
        hmac::verify(&key.0, &self.input(prover), proof).is_ok()
    }
}

/// Fewest bytes of the nonce in an application's proof.
pub const APPLICATION_NONCE_BYTES: usize = 16;

/// Shared by a deployment and one application that is let in.
#[derive(Clone)]
pub struct ApplicationKey(hmac::Key);

impl ApplicationKey {
    /// A key from at least 16 bytes of secret; `None` when there are fewer.
    pub fn new(secret: &[u8]) -> Option<ApplicationKey> {
        (secret.len() >= 16).then(|| ApplicationKey(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }
}

impl std::fmt::Debug for ApplicationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApplicationKey(..)")
    }
}

/// What the proof of an application in Hello covers.
#[derive(Debug, Clone, Copy)]
pub struct ApplicationFacts<'a> {
    /// As Hello names it.
    pub application: &'a str,
    /// As Hello names it.
    pub device_id: &'a str,
    /// Unix time of the client, in milliseconds.
    pub time_ms: u64,
    /// Random, of at least [`APPLICATION_NONCE_BYTES`].
    pub nonce: &'a [u8],
}

impl ApplicationFacts<'_> {
    fn input(&self) -> Vec<u8> {
        let time = self.time_ms.to_be_bytes();
        lengths_and_bytes(&[
            b"moorgate application v1",
            self.application.as_bytes(),
            self.device_id.as_bytes(),
            &time,
            self.nonce,
        ])
    }

    /// The `mac` of the proof.
    pub fn prove(&self, key: &ApplicationKey) -> [u8; PROOF_BYTES] {
        sign(&key.0, &self.input())
    }

    /// Whether `proof` is the one for these facts, in constant time.
    pub fn verify(&self, key: &ApplicationKey, proof: &[u8]) -> bool {
        hmac::verify(&key.0, &self.input(), proof).is_ok()
    }
}

fn sign(key: &hmac::Key, input: &[u8]) -> [u8; PROOF_BYTES] {
    let mut proof = [0; PROOF_BYTES];
    proof.copy_from_slice(hmac::sign(key, input).as_ref());
    proof
}

fn lengths_and_bytes(parts: &[&[u8]]) -> Vec<u8> {
    let mut input = Vec::new();
    for part in parts {
        let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
        input.extend_from_slice(&len.to_be_bytes());
        input.extend_from_slice(part);
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> LinkFacts<'static> {
        LinkFacts {
            version: 1,
            gateway_id: "gw-1",
            boot_id: 7,
            service: "chat",
            instance_id: "chat-a",
            gateway_nonce: &[1; NONCE_BYTES],
            service_nonce: &[2; NONCE_BYTES],
            purpose: 0,
        }
    }

    // spec: L-5, L-6, L-10
    #[test]
    fn a_proof_holds_for_its_facts_only() {
        let key = LinkKey::new(b"0123456789abcdef").unwrap();
        let proof = facts().prove(&key, Prover::Service);
        assert!(facts().verify(&key, Prover::Service, &proof));
        assert!(!facts().verify(&key, Prover::Gateway, &proof), "reflected");
        assert!(!LinkFacts { service: "cha", ..facts() }.verify(&key, Prover::Service, &proof));
        assert!(!LinkFacts { boot_id: 8, ..facts() }.verify(&key, Prover::Service, &proof));
        assert!(!LinkFacts { purpose: 1, ..facts() }.verify(&key, Prover::Service, &proof));
        assert!(!facts().verify(&LinkKey::new(b"another secret !").unwrap(), Prover::Service, &proof));
        assert!(!facts().verify(&key, Prover::Service, b""));
    }

    // spec: O-26
    #[test]
    fn an_application_s_proof_holds_for_its_facts_only() {
        let key = ApplicationKey::new(b"0123456789abcdef").unwrap();
        let facts = ApplicationFacts { application: "im", device_id: "phone", time_ms: 7, nonce: &[3; 16] };
        let proof = facts.prove(&key);
        assert!(facts.verify(&key, &proof));
        assert!(!ApplicationFacts { application: "imp", device_id: "hone", ..facts }.verify(&key, &proof));
        assert!(!ApplicationFacts { time_ms: 8, ..facts }.verify(&key, &proof));
        assert!(!facts.verify(&ApplicationKey::new(b"another secret !").unwrap(), &proof));
    }

    // spec: L-11
    #[test]
    fn short_secrets_are_refused_and_never_shown() {
        assert!(LinkKey::new(b"short").is_none() && ApplicationKey::new(b"short").is_none());
        assert_eq!(format!("{:?}", LinkKey::new(&[1; 16]).unwrap()), "LinkKey(..)");
    }
}

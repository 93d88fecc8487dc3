//! Applications that are let in: a deployment may ask each Hello for the proof of one.

use moorgate_proto::proof::{APPLICATION_NONCE_BYTES, ApplicationFacts, ApplicationKey};
use moorgate_proto::v1;
use std::collections::HashMap;
use std::time::Duration;

/// How far the time in a proof may be from the gateway's: clocks of phones are not good, and a proof that was
/// overheard is good for this long.
pub const PROOF_AGE_MAX: Duration = Duration::from_secs(300);

/// One application.
#[derive(Debug, Clone)]
pub enum Application {
    /// Let in with a proof by this key.
    Known(ApplicationKey),
    /// Not any more.
    Revoked,
}

/// Why an application is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplicationError {
    /// Nobody of that name.
    Unknown,
    /// Not any more.
    Revoked,
    /// Hello has no proof, or one with a short nonce.
    NoProof,
    /// The proof is from another time.
    Stale,
    /// The proof does not hold.
    WrongProof,
}

impl std::fmt::Display for ApplicationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ApplicationError::Unknown => "the application is not known here",
            ApplicationError::Revoked => "the application is not let in any more",
            ApplicationError::NoProof => "the application has not proved itself",
            ApplicationError::Stale => "the application's proof is from another time: clocks differ",
            ApplicationError::WrongProof => "the application's proof does not hold",
        })
    }
}

impl std::error::Error for ApplicationError {}

/// Every application that is asked for a proof; without any, none is asked.
#[derive(Debug, Clone, Default)]
pub struct Applications {
    known: HashMap<String, Application>,
}

impl Applications {
    /// These, by their names.
    pub fn new(known: HashMap<String, Application>) -> Applications {
        Applications { known }
    }

    /// Whether an application has to prove itself: only then its name is more than what a client says of itself.
    pub fn are_proved(&self) -> bool {
        !self.known.is_empty()
    }

    /// Judges a Hello at `unix_ms`.
    ///
    /// # Errors
    /// [`ApplicationError`]: it is not let in.
    pub fn check(&self, unix_ms: u64, hello: &v1::Hello) -> Result<(), ApplicationError> {
        if self.known.is_empty() {
            return Ok(());
        }
        let key = match self.known.get(&hello.application) {
            Some(Application::Known(key)) => key,
            Some(Application::Revoked) => return Err(ApplicationError::Revoked),
            None => return Err(ApplicationError::Unknown),
        };
        let proof = hello.application_proof.as_ref().ok_or(ApplicationError::NoProof)?;
        if proof.nonce.len() < APPLICATION_NONCE_BYTES {
            return Err(ApplicationError::NoProof);
        }
        let facts = ApplicationFacts {
            application: &hello.application,
            device_id: &hello.device_id,
            time_ms: proof.time_ms,
            nonce: &proof.nonce,
        };
        if !facts.verify(key, &proof.mac) {
            return Err(ApplicationError::WrongProof);
        }
        // Last: only whoever holds the key learns that its clock is wrong.
        if u128::from(proof.time_ms.abs_diff(unix_ms)) > PROOF_AGE_MAX.as_millis() {
            return Err(ApplicationError::Stale);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn hello(application: &str, time_ms: u64) -> v1::Hello {
        let key = ApplicationKey::new(&[5; 16]).unwrap();
        let nonce = vec![9; APPLICATION_NONCE_BYTES];
        let facts = ApplicationFacts { application, device_id: "phone", time_ms, nonce: &nonce };
        let mac = facts.prove(&key).to_vec().into();
        let proof = v1::ApplicationProof { time_ms, mac, nonce: nonce.into() };
        v1::Hello {
            application: application.to_owned(),
            device_id: "phone".to_owned(),
            application_proof: Some(proof),
            ..v1::Hello::default()
        }
    }

    fn applications() -> Applications {
        let key = ApplicationKey::new(&[5; 16]).unwrap();
        let known = [("im", Application::Known(key)), ("old", Application::Revoked)];
        Applications::new(known.map(|(name, application)| (name.to_owned(), application)).into())
    }

    // spec: O-25, O-26
    #[test]
    fn an_application_proves_itself_or_stays_out() {
        let check = |hello: &v1::Hello| applications().check(NOW, hello);
        assert_eq!(check(&hello("im", NOW)), Ok(()));
        assert_eq!(check(&hello("other", NOW)), Err(ApplicationError::Unknown));
        assert_eq!(check(&hello("old", NOW)), Err(ApplicationError::Revoked));
        assert_eq!(check(&hello("im", NOW - 300_000)), Ok(()));
        assert_eq!(check(&hello("im", NOW - 300_001)), Err(ApplicationError::Stale));
        assert_eq!(check(&hello("im", NOW + 300_001)), Err(ApplicationError::Stale));
        let of_another_device = v1::Hello { device_id: "laptop".to_owned(), ..hello("im", NOW) };
        assert_eq!(check(&of_another_device), Err(ApplicationError::WrongProof));
        let without = v1::Hello { application_proof: None, ..hello("im", NOW) };
        assert_eq!(check(&without), Err(ApplicationError::NoProof));
        let mut short = hello("im", NOW);
        short.application_proof.as_mut().unwrap().nonce.truncate(15);
        assert_eq!(check(&short), Err(ApplicationError::NoProof));
    }

    #[test]
    fn without_any_none_is_asked() {
        assert_eq!(Applications::default().check(NOW, &v1::Hello::default()), Ok(()));
        assert!(!Applications::default().are_proved() && applications().are_proved());
    }
}

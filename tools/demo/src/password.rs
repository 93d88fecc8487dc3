//! Password hashes: Argon2id, with a salt of their own.

use argon2::{Algorithm, Argon2, Params, Version};
use ring::rand::{SecureRandom, SystemRandom};

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// What a hash costs: 19 MiB, two passes, one lane, as OWASP's password storage cheat sheet asks for.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Of one password.
#[derive(Clone)]
pub(crate) struct PasswordHash {
    salt: [u8; SALT_BYTES],
    hash: [u8; HASH_BYTES],
}

/// No hash could be made: there is no memory, or no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashFailed;

impl PasswordHash {
    /// Hashes a password: some 20 ms and 19 MiB.
    pub(crate) fn new(password: &str) -> Result<PasswordHash, HashFailed> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| HashFailed)?;
        Ok(PasswordHash { salt, hash: hash(password, &salt)? })
    }

    /// Whether this is the password, or, where there is no hash, never; both take the same time.
    pub(crate) fn verify(of: Option<&PasswordHash>, password: &str) -> Result<bool, HashFailed> {
        let nobody = PasswordHash { salt: [0; SALT_BYTES], hash: [0; HASH_BYTES] };
        let expected = of.unwrap_or(&nobody);
        let hash = hash(password, &expected.salt)?;
        let differences = hash.iter().zip(&expected.hash).fold(0, |seen, (a, b)| seen | (a ^ b));
        Ok(of.is_some() & (differences == 0))
    }
}

fn hash(password: &str, salt: &[u8]) -> Result<[u8; HASH_BYTES], HashFailed> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).map_err(|_| HashFailed)?;
    let mut out = [0; HASH_BYTES];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(password.as_bytes(), salt, &mut out).map_err(|_| HashFailed)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_is_good_and_nobody_has_one() {
        let hash = PasswordHash::new("wonderland").unwrap();
        assert!(PasswordHash::verify(Some(&hash), "wonderland").unwrap());
        assert!(!PasswordHash::verify(Some(&hash), "Wonderland").unwrap());
        assert!(!PasswordHash::verify(None, "").unwrap());
        let again = PasswordHash::new("wonderland").unwrap();
        assert!(again.salt != hash.salt && again.hash != hash.hash);
    }

    #[test]
    fn it_is_argon2id_as_the_reference_has_it() {
        // printf password | argon2 somesaltsomesalt -id -t 2 -k 19456 -p 1 -l 32 -r
        let expected = "2b5dc4054886ec957ef59c73b661c54dd6fb274590b278f657c6d96aac8fa6d1";
        let found: String =
            hash("password", b"somesaltsomesalt").unwrap().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found, expected);
    }
}

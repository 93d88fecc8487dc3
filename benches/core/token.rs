//! Access tokens.

use crate::{SECRET, UNIX_S};
use divan::{Bencher, black_box};
use moorgate::auth::{KeyRing, SigningKey, mint};

#[divan::bench]
fn verify(bencher: Bencher<'_, '_>) {
    let key = SigningKey::new("2026-01", SECRET).unwrap();
    let claims = serde_json::json!({
        "sub": "0123456789abcdef",
        "iss": "accounts",
        "aud": "moorgate",
        "iat": UNIX_S,
        "exp": UNIX_S + 3600,
        "roles": ["user"],
        "device": "phone-1",
        "jti": "5d1f2c3b4a59",
    });
    let token = mint(&key, &claims);
    assert!((280..320).contains(&token.len()), "{} bytes", token.len());
    let ring = KeyRing::new(vec![key], Some("accounts".to_owned()), Some("moorgate".to_owned()), 30).unwrap();
    bencher.bench_local(|| ring.verify(black_box(&token), UNIX_S).unwrap());
}

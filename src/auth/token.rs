//! Access tokens: JSON Web Tokens in compact form (RFC 7515, RFC 7519), HS256 and nothing else.

use super::claims::{Expected, Payload, Present, Text, object, present};
use super::{Claims, KeyRing, SigningKey, TokenError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Deserialize;

/// Longer tokens are refused unread; a Hello has 4 KiB for everything.
pub(super) const TOKEN_BYTES_MAX: usize = 3 * 1024;

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Text<'a>,
    #[serde(borrow, default, deserialize_with = "present")]
    kid: Option<Text<'a>>,
    #[serde(default)]
    crit: Present,
}

impl KeyRing {
    /// Checks a token; nothing of its payload is looked at before its signature holds.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &str, unix_s: u64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let mut buffer = [0; TOKEN_BYTES_MAX];
        let key = self.check_signature(decode_into(header, &mut buffer)?, signed, signature)?;
        // From here on the signature holds: whatever is wrong is a mistake of the issuer's.
        let payload = decode_into(payload, &mut buffer).map_err(|_| TokenError::BadPayload)?;
        let payload = Payload::read(payload)?;
        let expected = Expected {
            issuer: self.issuer.as_deref(),
            audience: self.audience.as_deref(),
            leeway_s: self.leeway_s,
        };
        payload.check(unix_s, &expected, &key.id)
    }

    /// The key whose signature a token has.
    fn check_signature(
        &self,
        header: &[u8],
        signed: &str,
        signature: &str,
    ) -> Result<&SigningKey, TokenError> {
        let header: Header<'_> = object(header).ok_or(TokenError::Malformed)?;
        if header.alg.0.eq_ignore_ascii_case("none") {
            return Err(TokenError::Unsigned);
        }
        if header.crit.0 {
            return Err(TokenError::CriticalExtension);
        }
        let key = self.find(header.kid.as_ref().map(|kid| &*kid.0)).ok_or(TokenError::UnknownKey)?;
        if header.alg.0 != "HS256" {
            return Err(TokenError::WrongAlgorithm);
        }
        // Longer than any HS256 signature.
        let mut buffer = [0; 64];
        let signature = decode_into(signature, &mut buffer)?;
        hmac::verify(&key.key, signed.as_bytes(), signature).map_err(|_| TokenError::BadSignature)?;
        Ok(key)
    }
}

/// Without an allocation: a token is checked for every connection, also for those that are refused.
fn decode_into<'a>(part: &str, buffer: &'a mut [u8]) -> Result<&'a [u8], TokenError> {
    let len = URL_SAFE_NO_PAD.decode_slice(part, buffer).map_err(|_| TokenError::Malformed)?;
    buffer.get(..len).ok_or(TokenError::Malformed)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}

/// A token with these claims, signed with `key`: for the command line and for tests.
pub fn mint(key: &SigningKey, claims: &serde_json::Value) -> String {
    let header = serde_json::json!({"alg": "HS256", "typ": "JWT", "kid": &*key.id});
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let signature = hmac::sign(&key.key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// Header and payload as they stand, believed by nobody: for people who look into a token.
///
/// # Errors
/// [`TokenError::Malformed`].
pub fn unverified_parts(token: &str) -> Result<(serde_json::Value, serde_json::Value), TokenError> {
    let mut parts = token.split('.');
    let mut next = || -> Result<serde_json::Value, TokenError> {
        let part = decode(parts.next().ok_or(TokenError::Malformed)?)?;
        serde_json::from_slice(&part).map_err(|_| TokenError::Malformed)
    };
    Ok((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn key(id: &str, secret: &[u8]) -> SigningKey {
        SigningKey::new(id, secret).unwrap()
    }

    fn ring() -> KeyRing {
        let keys = vec![key("new", SECRET), key("old", b"ffffffffffffffff0000000000000000")];
        KeyRing::new(keys, Some("accounts".into()), Some("moorgate".into()), 30).unwrap()
    }

    fn claims() -> serde_json::Value {
        json!({"sub": "alice", "exp": NOW + 60, "iss": "accounts", "aud": ["web", "moorgate"],
               "roles": ["admin"], "device": "phone-1", "jti": "t1"})
    }

    fn with(name: &str, value: serde_json::Value) -> Result<Claims, TokenError> {
        let mut claims = claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value;
        }
        ring().verify(&mint(&key("new", SECRET), &claims), NOW)
    }

    fn raw(header: &str, payload: &str, secret: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    // spec: A-7, A-12, A-13
    #[test]
    fn a_good_token_says_who() {
        let claims = ring().verify(&mint(&key("new", SECRET), &claims()), NOW).unwrap();
        assert_eq!(claims.user_id, "alice");
        assert_eq!(claims.roles, ["admin"]);
        assert_eq!(claims.device.as_deref(), Some("phone-1"));
        assert_eq!(claims.expires_unix_s, NOW + 60);
        let old = mint(&key("old", b"ffffffffffffffff0000000000000000"), &self::claims());
        assert!(ring().verify(&old, NOW).is_ok(), "the retiring key still counts");
    }

    // spec: A-2, A-3
    #[test]
    fn the_vector_of_rfc_7515_a1_verifies() {
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
                     Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let secret = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let ring = KeyRing::new(vec![key("only", &secret)], None, None, 0).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let header = signed.split_once('.').unwrap().0;
        assert_eq!(
            ring.check_signature(&decode(header).unwrap(), signed, signature).map(SigningKey::id),
            Ok("only")
        );
        let error = ring.verify(token, NOW).unwrap_err();
        assert!(matches!(error, TokenError::ClaimType { claim: "sub", .. }), "it has no sub: {error:?}");
    }

    // spec: A-3
    #[test]
    fn algorithms_are_pinned() {
        let payload = claims().to_string();
        let with_alg = |alg: &str| raw(&format!(r#"{{"alg":"{alg}","kid":"new"}}"#), &payload, SECRET);
        for alg in ["HS512", "RS256", "hs256", ""] {
            assert_eq!(ring().verify(&with_alg(alg), NOW), Err(TokenError::WrongAlgorithm), "{alg}");
        }
        for alg in ["none", "None", "NONE"] {
            assert_eq!(ring().verify(&with_alg(alg), NOW), Err(TokenError::Unsigned), "{alg}");
        }
        let unsigned = raw(r#"{"alg":"none","kid":"new"}"#, &payload, SECRET);
        let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
        assert!(ring().verify(&unsigned, NOW).is_err());
        assert_eq!(
            ring().verify(&raw(r#"{"kid":"new"}"#, &payload, SECRET), NOW),
            Err(TokenError::Malformed)
        );
        for crit in [r#"["b64"]"#, "null", "[]", "0"] {
            let token = raw(&format!(r#"{{"alg":"HS256","kid":"new","crit":{crit}}}"#), &payload, SECRET);
            assert_eq!(ring().verify(&token, NOW), Err(TokenError::CriticalExtension), "{crit}");
        }
    }

    // spec: A-2, A-15
    #[test]
    fn header_and_payload_must_be_objects_without_nulls() {
        let (header, payload) = (r#"{"alg":"HS256","kid":"new"}"#, claims().to_string());
        assert!(ring().verify(&raw(header, &format!(" \r\n\t{payload} "), SECRET), NOW).is_ok());
        for header in
            [r#"["HS256","new"]"#, r#"["HS256"]"#, r#""HS256""#, "null", "", r#"{"alg":"HS256","kid":null}"#]
        {
            assert_eq!(
                ring().verify(&raw(header, &payload, SECRET), NOW),
                Err(TokenError::Malformed),
                "{header}"
            );
        }
        // In the order of the fields: what a derived reader takes for the object.
        let array = format!(r#"["alice",{},null,null,"accounts","moorgate",null,[],null]"#, NOW + 60);
        for payload in
            [array.as_str(), "[]", "null", "7", "", "{", r#"{"sub":"a","sub":"b","exp":1900000000}"#]
        {
            let token = raw(header, payload, SECRET);
            assert_eq!(ring().verify(&token, NOW), Err(TokenError::BadPayload), "{payload}");
        }
    }

    /// Whatever is wrong with the claims of a token, the error names the claim.
    // spec: A-7, A-8, A-9, A-10, A-11, A-12, A-13, A-14, A-15
    #[test]
    fn wrong_types_name_their_claim() {
        let texts = [json!(null), json!(7), json!(true), json!(["x"]), json!({})];
        let times =
            [json!(null), json!("1900000000"), json!(-5), json!(1.9e9), json!(1.5), json!(true), json!([1])];
        let lists = [json!(null), json!("admin"), json!([1]), json!([null]), json!({}), json!([["a"]])];
        let audiences = [json!(null), json!(7), json!([1]), json!([null]), json!({})];
        let wrong: [(&str, &[serde_json::Value]); 9] = [
            ("sub", &texts),
            ("exp", &times),
            ("nbf", &times),
            ("iat", &times),
            ("iss", &texts),
            ("jti", &texts),
            ("device", &texts),
            ("roles", &lists),
            ("aud", &audiences),
        ];
        for (name, values) in wrong {
            for value in values {
                let mut claims = claims();
                claims[name] = value.clone();
                let error = ring().verify(&mint(&key("new", SECRET), &claims), NOW).unwrap_err();
                let TokenError::ClaimType { claim, .. } = error else {
                    panic!("{name} = {value}: {error:?}")
                };
                assert_eq!(claim, name, "{value}");
                assert!(error.to_string().contains(&format!("`{name}`")) && !error.is_forgery(), "{error}");
            }
        }
        for name in ["sub", "exp"] {
            assert!(
                matches!(with(name, json!(null)), Err(TokenError::ClaimType { claim, .. }) if claim == name)
            );
        }
        let error = with("exp", json!(1.9e9)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "claim `exp` of the access token is not an integer of seconds since the Unix epoch"
        );
        assert_eq!(
            with("exp", json!(u64::MAX)),
            Err(TokenError::BadClaim("exp")),
            "not in milliseconds either"
        );
    }

    // spec: A-4, A-16
    #[test]
    fn the_key_must_be_known_and_right() {
        let payload = claims().to_string();
        let unknown = raw(r#"{"alg":"HS256","kid":"other"}"#, &payload, SECRET);
        assert_eq!(ring().verify(&unknown, NOW), Err(TokenError::UnknownKey));
        let unnamed = raw(r#"{"alg":"HS256"}"#, &payload, SECRET);
        assert_eq!(ring().verify(&unnamed, NOW), Err(TokenError::UnknownKey), "two keys: it must name one");
        let wrong = raw(r#"{"alg":"HS256","kid":"new"}"#, &payload, b"another secret, another secret, a");
        assert_eq!(ring().verify(&wrong, NOW), Err(TokenError::BadSignature));
        assert!(KeyRing::default().verify(&unknown, NOW).is_err());
    }

    // spec: A-8, A-9
    #[test]
    fn times_are_integers_and_hold_within_the_leeway() {
        assert!(with("exp", json!(NOW - 29)).is_ok());
        assert_eq!(with("exp", json!(NOW - 30)), Err(TokenError::Expired));
        assert_eq!(with("nbf", json!(NOW + 31)), Err(TokenError::NotYetValid));
        assert_eq!(with("iat", json!(NOW + 31)), Err(TokenError::NotYetValid));
        assert!(with("iat", json!(NOW + 30)).is_ok());
    }

    // spec: A-1, A-7, A-10, A-11, A-12, A-13, A-15
    #[test]
    fn issuer_audience_and_bounds_are_checked() {
        assert_eq!(with("iss", json!("mallory")), Err(TokenError::WrongIssuer));
        assert_eq!(with("iss", json!(null)), Err(TokenError::WrongIssuer));
        assert_eq!(with("aud", json!("web")), Err(TokenError::WrongAudience));
        assert_eq!(with("aud", json!(null)), Err(TokenError::WrongAudience));
        assert!(with("aud", json!("moorgate")).is_ok());
        assert_eq!(with("sub", json!("")), Err(TokenError::BadClaim("sub")));
        assert_eq!(with("sub", json!("x".repeat(129))), Err(TokenError::BadClaim("sub")));
        assert_eq!(with("roles", json!(vec!["r"; 33])), Err(TokenError::BadClaim("roles")));
        assert_eq!(with("device", json!("d".repeat(65))), Err(TokenError::BadClaim("device")));
        assert_eq!(ring().verify(&"a".repeat(4000), NOW), Err(TokenError::TooLong));
    }

    // spec: A-5
    #[test]
    fn secrets_are_never_shown() {
        assert_eq!(format!("{:?}", key("k", SECRET)), "SigningKey(k, ..)");
        assert!(SigningKey::new("k", b"short").is_err());
        assert!(KeyRing::new(vec![key("k", SECRET), key("k", SECRET)], None, None, 0).is_err());
    }

    proptest! {
        // spec: A-2
        #[test]
        fn a_changed_token_never_verifies(at in 0usize..200, byte in any::<u8>()) {
            let token = mint(&key("new", SECRET), &claims());
            let mut changed = token.clone().into_bytes();
            let at = at % changed.len();
            changed[at] = byte;
            if let Ok(changed) = String::from_utf8(changed) {
                // The last characters of a part may hold bits that decoders ignore; ours refuses those.
                prop_assert!(changed == token || ring().verify(&changed, NOW).is_err());
            }
        }

        #[test]
        fn garbage_never_panics(token in ".{0,300}") {
            prop_assert!(ring().verify(&token, NOW).is_err());
        }
    }
}

//! `moorgate token`.

use super::{Failure, failed, help, print, usage};
use lexopt::{Arg, ValueExt};
use moorgate::auth::{KeyRing, SigningKey, TokenError, mint, unverified_parts};
use moorgate::base::clock::Clock;
use moorgate_proto::limits::{NAME_BYTES, USER_ID_BYTES};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use std::io::Read;
use std::time::Duration;

/// The id of a key when nothing else is said.
const KEY_ID: &str = "default";
const TTL: Duration = Duration::from_secs(3600);
/// No access token is longer.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of an issuer or audience: with the other claims it fits into a token.
const ISSUER_BYTES_MAX: usize = 1024;
/// No secret is longer.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// What is done with a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Issue,
    Inspect,
}

#[derive(Default)]
struct Options {
    user: Option<String>,
    roles: Vec<String>,
    device: Option<String>,
    ttl: Option<Duration>,
    issuer: Option<String>,
    audience: Option<String>,
    key_id: Option<String>,
    secret: Option<Secret>,
    token: Option<String>,
}

struct Secret {
    bytes: Vec<u8>,
    /// The id of its key, when nothing else is said.
    key_id: String,
}

pub(super) fn run(mut words: lexopt::Parser) -> Result<(), Failure> {
    let what = match words.next()? {
        Some(Arg::Short('h') | Arg::Long("help")) => {
            return print(help::TOKEN);
        }
        Some(Arg::Value(what)) => match what.to_str() {
            Some("issue") => What::Issue,
            Some("inspect") => What::Inspect,
            _ => {
                let what = what.to_string_lossy();
                return usage(format!("there is no `token {what}`; there are issue and inspect"));
            }
        },
        Some(other) => return Err(other.unexpected().into()),
        None => return usage("say what to do with a token: issue or inspect"),
    };
    match (options(what, &mut words)?, what) {
        (None, _) => print(help::TOKEN),
        (Some(options), What::Issue) => issue(options),
        (Some(options), What::Inspect) => inspect(options),
    }
}

/// `None`: help is asked for.
fn options(what: What, words: &mut lexopt::Parser) -> Result<Option<Options>, Failure> {
    let issues = what == What::Issue;
    let mut options = Options::default();
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("user") if issues => options.user = Some(text(words, "--user", USER_ID_BYTES)?),
            Arg::Long("role") if issues => options.roles.push(text(words, "--role", NAME_BYTES)?),
            Arg::Long("device") if issues => options.device = Some(text(words, "--device", NAME_BYTES)?),
            Arg::Long("issuer") if issues => {
                options.issuer = Some(text(words, "--issuer", ISSUER_BYTES_MAX)?)
            }
            Arg::Long("audience") if issues => {
                options.audience = Some(text(words, "--audience", ISSUER_BYTES_MAX)?)
            }
            Arg::Long("key-id") if issues => options.key_id = Some(text(words, "--key-id", NAME_BYTES)?),
            Arg::Long("ttl") if issues => options.ttl = Some(ttl(&words.value()?.string()?)?),
            Arg::Long("dev") => options.set_secret(dev_secret()?)?,
            Arg::Long("secret-file") => {
                let path = words.value()?.string()?;
                let secret =
                    read_secret(&path).map_err(|error| failed(format!("{path} cannot be read: {error}")))?;
                options.set_secret(Secret::new(secret.trim_ascii_end()))?;
            }
            Arg::Long("secret-env") => {
                let name = words.value()?.string()?;
                let secret = std::env::var(&name).map_err(|_| {
                    failed(format!("the environment has no variable {name} with a text; set it"))
                })?;
                options.set_secret(Secret::new(secret.as_bytes()))?;
            }
            Arg::Value(token) if !issues && options.token.is_none() => options.token = Some(token.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

impl Secret {
    fn new(bytes: &[u8]) -> Secret {
        Secret { bytes: bytes.to_vec(), key_id: KEY_ID.to_owned() }
    }
}

impl Options {
    fn set_secret(&mut self, secret: Secret) -> Result<(), Failure> {
        match self.secret.replace(secret) {
            None => Ok(()),
            Some(_) => usage("one secret is enough: --dev, --secret-file or --secret-env"),
        }
    }
}

/// The text behind a flag, of 1 to `max` bytes.
fn text(words: &mut lexopt::Parser, flag: &str, max: usize) -> Result<String, Failure> {
    let text = words.value()?.string()?;
    match text.len() {
        len if (1..=max).contains(&len) => Ok(text),
        len => usage(format!("{flag} has {len} bytes; write 1 to {max}")),
    }
}

fn ttl(text: &str) -> Result<Duration, Failure> {
    let wrong =
        || Failure::Usage(format!("--ttl: `{text}` is not a time; write for example 90s, 1h or 7days"));
    let ttl = humantime::parse_duration(text).map_err(|_| wrong())?;
    // Tokens count whole seconds.
    if ttl.as_secs() == 0 { usage("--ttl: write 1s or more") } else { Ok(ttl) }
}

#[cfg(feature = "dev")]
fn dev_secret() -> Result<Secret, Failure> {
    use moorgate_demo::token::{DEV_KEY_ID, DEV_SECRET};
    Ok(Secret { bytes: DEV_SECRET.to_vec(), key_id: DEV_KEY_ID.to_owned() })
}

#[cfg(not(feature = "dev"))]
fn dev_secret() -> Result<Secret, Failure> {
    Err(failed("this binary was built without the feature `dev`"))
}

/// An id that no other token has: with it a logout or an operator revokes this one alone.
fn token_id() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| failed("no random numbers"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn issue(options: Options) -> Result<(), Failure> {
    let Some(user) = options.user else { return usage("say for whom: --user ID") };
    let Some(secret) = options.secret else {
        return usage("say with which secret: --dev, --secret-file or --secret-env");
    };
    let now = Clock::start().read().unix_s();
    let expires = now.saturating_add(options.ttl.unwrap_or(TTL).as_secs());
    let mut claims =
        json!({"sub": user, "iat": now, "exp": expires, "roles": options.roles, "jti": token_id()?});
    let (issuer, audience) = (options.issuer, options.audience);
    let optional = [("device", options.device), ("iss", issuer.clone()), ("aud", audience.clone())];
    if let Some(claims) = claims.as_object_mut() {
        let given = optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        claims.extend(given);
    }
    let key_id = options.key_id.unwrap_or(secret.key_id);
    let key = SigningKey::new(&key_id, &secret.bytes).map_err(failed)?;
    let token = mint(&key, &claims);
    // No token leaves here that a gateway with this key would refuse.
    let ring = KeyRing::new(vec![key], issuer, audience, 0).map_err(failed)?;
    ring.verify(&token, now).map_err(failed)?;
    print(&format!("{token}\n"))
}

fn inspect(options: Options) -> Result<(), Failure> {
    let Some(token) = options.token else { return usage("say which token to look into, or - to read one") };
    let token = if token == "-" { from_standard_input()? } else { token };
    let (header, claims) = unverified_parts(&token).map_err(failed)?;
    let mut text = format!("header  {header}\nclaims  {claims}\n");
    let now = Clock::start().read().unix_s();
    if let Some(expires) = claims.get("exp").and_then(serde_json::Value::as_u64) {
        let time = humantime::format_duration(Duration::from_secs(expires.abs_diff(now)));
        let line =
            if expires > now { format!("expires in {time}\n") } else { format!("expired {time} ago\n") };
        text.push_str(&line);
    }
    let Some(secret) = options.secret else {
        return print(&format!("{text}not checked: no secret given\n"));
    };
    let id = header.get("kid").and_then(serde_json::Value::as_str).unwrap_or(KEY_ID);
    let key = SigningKey::new(id, &secret.bytes).map_err(failed)?;
    let ring = KeyRing::new(vec![key], None, None, 0).map_err(failed)?;
    print(&text)?;
    if let Err(error) = ring.verify(&token, now) {
        let hint = decoded(&secret.bytes).filter(|decoded| is_signed_with(&token, id, decoded)).map(|_| {
            "; it holds with what the secret is in base64: gateways take the bytes of a secret as they are, so decode the \
             file (base64 -d), or have the issuer sign with its text"
        });
        return Err(failed(format!("{error}{}", hint.unwrap_or_default())));
    }
    print("good: its signature holds, and its times are right\n")
}

/// The bytes that a secret in base64 encodes, with or without padding.
fn decoded(secret: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabets = [base64::alphabet::STANDARD, base64::alphabet::URL_SAFE];
    alphabets.iter().find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(secret).ok())
}

/// Whether the signature holds with this secret; its claims do not matter.
fn is_signed_with(token: &str, id: &str, secret: &[u8]) -> bool {
    let ring = SigningKey::new(id, secret).and_then(|key| KeyRing::new(vec![key], None, None, 0));
    ring.is_ok_and(|ring| !matches!(ring.verify(token, 0), Err(TokenError::BadSignature)))
}

/// The bytes of a secret's file, which may be a pipe of the shell.
fn read_secret(path: &str) -> std::io::Result<Vec<u8>> {
    let mut secret = Vec::new();
    std::fs::File::open(path)?.take(SECRET_BYTES_MAX.saturating_add(1)).read_to_end(&mut secret)?;
    match secret.len() as u64 > SECRET_BYTES_MAX {
        true => Err(std::io::Error::other("it is too long for a secret")),
        false => Ok(secret),
    }
}

fn from_standard_input() -> Result<String, Failure> {
    let mut token = String::new();
    let read = std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut token);
    read.map_err(|error| failed(format!("standard input cannot be read: {error}")))?;
    Ok(token.trim().to_owned())
}

//! `moorgate token`.

use super::{Failure, failed, help, print};
use lexopt::{Arg, ValueExt};
use moorgate::auth::{KeyRing, SigningKey, mint, unverified_parts};
use moorgate::base::clock::Clock;
use serde_json::json;
use std::time::Duration;

#[derive(Default)]
struct Options {
    user: Option<String>,
    roles: Vec<String>,
    device: Option<String>,
    ttl: Option<Duration>,
    issuer: Option<String>,
    audience: Option<String>,
    key_id: Option<String>,
    secret: Option<Vec<u8>>,
    token: Option<String>,
}

pub(super) fn run(mut words: lexopt::Parser) -> Result<(), Failure> {
    let what = match words.next()? {
        Some(Arg::Short('h') | Arg::Long("help")) => {
            print(help::TOKEN);
            return Ok(());
        }
        Some(Arg::Value(what)) => what.to_string_lossy().into_owned(),
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(Failure::Usage("say what to do with a token: issue or inspect".to_owned())),
    };
    let Some(options) = options(&mut words)? else {
        print(help::TOKEN);
        return Ok(());
    };
    match what.as_str() {
        "issue" => issue(options),
        "inspect" => inspect(options),
        _ => Err(Failure::Usage(format!("there is no `token {what}`; there are issue and inspect"))),
    }
}

/// `None`: help is asked for.
fn options(words: &mut lexopt::Parser) -> Result<Option<Options>, Failure> {
    let mut options = Options::default();
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("user") => options.user = Some(words.value()?.string()?),
            Arg::Long("role") => options.roles.push(words.value()?.string()?),
            Arg::Long("device") => options.device = Some(words.value()?.string()?),
            Arg::Long("issuer") => options.issuer = Some(words.value()?.string()?),
            Arg::Long("audience") => options.audience = Some(words.value()?.string()?),
            Arg::Long("key-id") => options.key_id = Some(words.value()?.string()?),
            Arg::Long("ttl") => {
                let text = words.value()?.string()?;
                let ttl = humantime::parse_duration(&text);
                let wrong =
                    |_| Failure::Usage(format!("--ttl: `{text}` is not a time; write for example 1h"));
                options.ttl = Some(ttl.map_err(wrong)?);
            }
            Arg::Long("dev") => {
                let (secret, key_id) = dev_secret()?;
                options.secret = Some(secret);
                options.key_id.get_or_insert(key_id);
            }
            Arg::Long("secret-file") => {
                let path = words.value()?.string()?;
                let secret = std::fs::read(&path).map_err(|error| failed(format!("{path}: {error}")))?;
                options.secret = Some(secret.trim_ascii_end().to_vec());
            }
            Arg::Long("secret-env") => {
                let name = words.value()?.string()?;
                let secret = std::env::var(&name).map_err(|error| failed(format!("{name}: {error}")))?;
                options.secret = Some(secret.into_bytes());
            }
            Arg::Value(token) if options.token.is_none() => options.token = Some(token.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

#[cfg(feature = "dev")]
fn dev_secret() -> Result<(Vec<u8>, String), Failure> {
    use moorgate_demo::token::{DEV_KEY_ID, DEV_SECRET};
    Ok((DEV_SECRET.to_vec(), DEV_KEY_ID.to_owned()))
}

#[cfg(not(feature = "dev"))]
fn dev_secret() -> Result<(Vec<u8>, String), Failure> {
    Err(Failure::Failed("moorgate: this binary was built without the feature `dev`".to_owned()))
}

fn issue(options: Options) -> Result<(), Failure> {
    if options.token.is_some() {
        return Err(Failure::Usage("`token issue` takes no token".to_owned()));
    }
    let user = options.user.ok_or_else(|| Failure::Usage("say for whom: --user ID".to_owned()))?;
    let secret = options.secret.ok_or_else(|| {
        Failure::Usage("say with which secret: --dev, --secret-file or --secret-env".to_owned())
    })?;
    let now = Clock::start().read().unix_s();
    let ttl = options.ttl.unwrap_or(Duration::from_secs(3600)).as_secs();
    let mut claims = json!({"sub": user, "iat": now, "exp": now.saturating_add(ttl), "roles": options.roles});
    let optional = [("device", options.device), ("iss", options.issuer), ("aud", options.audience)];
    if let Some(claims) = claims.as_object_mut() {
        let given = optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        claims.extend(given);
    }
    let key = SigningKey::new(options.key_id.as_deref().unwrap_or("default"), &secret).map_err(failed)?;
    print(&format!("{}\n", mint(&key, &claims)));
    Ok(())
}

fn inspect(options: Options) -> Result<(), Failure> {
    let token = options.token.ok_or_else(|| Failure::Usage("say which token to look into".to_owned()))?;
    let (header, claims) = unverified_parts(&token).map_err(failed)?;
    let mut text = format!("header  {header}\nclaims  {claims}\n");
    let now = Clock::start().read().unix_s();
    if let Some(expires) = claims.get("exp").and_then(serde_json::Value::as_u64) {
        let (left, when) =
            (expires.abs_diff(now), if expires > now { "expires in" } else { "expired since" });
        text.push_str(&format!("{when} {}\n", humantime::format_duration(Duration::from_secs(left))));
    }
    let Some(secret) = options.secret else {
        print(&format!("{text}not checked: no secret given\n"));
        return Ok(());
    };
    let id = header.get("kid").and_then(serde_json::Value::as_str).unwrap_or("default");
    let key = SigningKey::new(id, &secret).map_err(failed)?;
    let ring = KeyRing::new(vec![key], None, None, 0).map_err(failed)?;
    match ring.verify(&token, now) {
        Ok(_) => {
            print(&format!("{text}good\n"));
            Ok(())
        }
        Err(error) => {
            print(&text);
            Err(failed(error))
        }
    }
}

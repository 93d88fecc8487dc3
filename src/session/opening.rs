//! The opening: a Hello becomes a session, or a [`Fault`].

use super::{Expiry, Fault, Session, Settings, TokenMark};
use crate::auth::{Authority, Claims};
use crate::base::clock::Now;
use crate::base::ids::SessionId;
use crate::relay::Caller;
use moorgate_proto::limits::{FRAME_BYTES_OPENING, NAME_BYTES};
use moorgate_proto::v1::{self, Action, Feature, ResumeResult};
use moorgate_proto::{VERSION, limits};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Bits of the features that the gateway serves.
const FEATURES_SERVED: u64 = 1 << Feature::Trace as u32
    | 1 << Feature::Priority as u32
    | 1 << Feature::ContentEncoding as u32
    | 1 << Feature::PushExpiry as u32;

/// What an opening is judged by.
#[derive(Debug, Clone, Copy)]
pub struct OpeningContext<'a> {
    /// Who is let in.
    pub authority: &'a Authority,
    /// What the deployment allows.
    pub settings: &'a Settings,
    /// Where the client comes from.
    pub peer: SocketAddr,
    /// The interval of the heartbeat when the client wishes none.
    pub heartbeat: Duration,
}

/// What was agreed in an opening.
#[derive(Debug)]
pub struct Opened {
    /// The highest version in common.
    pub version: u32,
    /// Bits of [`Feature`] in force.
    pub features: u64,
    /// The interval in force.
    pub heartbeat: Duration,
    /// The largest frame towards the client, in bytes.
    pub frame_bytes_max: usize,
    /// When access ends.
    pub expiry: Expiry,
    /// The access token.
    pub token: TokenMark,
    /// The client's roles, from its token.
    pub roles: Vec<String>,
    /// Why the session is fresh.
    pub resume_result: ResumeResult,
    /// What services learn of the client.
    caller: v1::Caller,
    peer: SocketAddr,
}

/// When access ends, by a good token: for the session, and as the client is told.
pub fn expiry_of(expires_unix_s: u64, authority: &Authority) -> (Expiry, u64) {
    let expires_unix_ms = expires_unix_s.saturating_mul(1000);
    // As in the opening: a token within the leeway opens a session that can be used.
    let leeway_ms = u64::try_from(authority.keys.leeway().as_millis()).unwrap_or(u64::MAX);
    (Expiry::At(expires_unix_ms.saturating_add(leeway_ms)), expires_unix_ms)
}

/// What is kept of a good token.
pub(super) fn mark_of(claims: &Claims, authority: &Authority) -> TokenMark {
    let token = authority.revocations.hash_of(&claims.key_id, claims.token_id.as_deref());
    TokenMark::new(claims.issued_unix_s, claims.expires_unix_s, token)
}

impl Opened {
    /// What services learn of the client, but for its session's id.
    pub fn who(&self) -> &v1::Caller {
        &self.caller
    }

    /// Where the client comes from.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The identity of the session, once it has an id.
    pub fn caller(&self, session_id: SessionId) -> Arc<Caller> {
        let caller = v1::Caller { session_id: session_id.0.to_vec().into(), ..self.caller.clone() };
        Arc::new(Caller::new(session_id, self.peer.ip(), &caller))
    }
}

/// Judges a Hello, as if it were to open a fresh session. Whether it resumes one, [`super::Session::judge`] says.
///
/// # Errors
/// The [`Fault`] to close the connection with.
pub fn open(now: Now, hello: v1::Hello, context: OpeningContext<'_>) -> Result<Opened, Fault> {
    if hello.version_min > VERSION || hello.version_max < VERSION {
        return Err(Fault::VersionUnsupported { min: hello.version_min, max: hello.version_max });
    }
    check_bounds(&hello)?;
    context.authority.applications.check(now.unix_ms, &hello).map_err(Fault::Application)?;
    let heartbeat = heartbeat(&hello, context);
    let mut opened = Opened {
        version: VERSION,
        features: hello.features & FEATURES_SERVED,
        heartbeat,
        frame_bytes_max: frame_bytes_max(&hello, context.settings),
        expiry: Expiry::Never,
        token: TokenMark::default(),
        roles: Vec::new(),
        resume_result: ResumeResult::None,
        caller: v1::Caller {
            application: hello.application,
            device_id: hello.device_id,
            client_address: context.peer.to_string(),
            platform: hello.platform,
            app_version: hello.app_version,
            protocol_version: VERSION,
            ..v1::Caller::default()
        },
        peer: context.peer,
    };
    if !hello.access_token.is_empty() {
        let authority = context.authority;
        let claims = authority.verify(&hello.access_token, now.unix_s()).map_err(Fault::Token)?;
        (opened.expiry, _) = expiry_of(claims.expires_unix_s, authority);
        opened.token = mark_of(&claims, authority);
        opened.caller.user_id = claims.user_id;
        opened.caller.roles.clone_from(&claims.roles);
        opened.roles = claims.roles;
        if let Some(device) = claims.device {
            opened.caller.device_id = device;
        }
    }
    Ok(opened)
}

fn check_bounds(hello: &v1::Hello) -> Result<(), Fault> {
    let named = [
        ("application", &hello.application),
        ("app_version", &hello.app_version),
        ("platform", &hello.platform),
        ("device_id", &hello.device_id),
    ];
    match named.iter().find(|(_, value)| value.len() > NAME_BYTES) {
        Some((field, _)) => Err(Fault::HelloInvalid(field)),
        None if (1..FRAME_BYTES_OPENING).contains(&(hello.frame_bytes_max as usize)) => {
            Err(Fault::HelloInvalid("frame_bytes_max"))
        }
        None => Ok(()),
    }
}

fn heartbeat(hello: &v1::Hello, context: OpeningContext<'_>) -> Duration {
    let wish = match hello.heartbeat_ms {
        0 => context.heartbeat,
        wished => Duration::from_millis(u64::from(wished)),
    };
    wish.clamp(context.settings.heartbeat_min, context.settings.heartbeat_max)
}

fn frame_bytes_max(hello: &v1::Hello, settings: &Settings) -> usize {
    match hello.frame_bytes_max as usize {
        0 => settings.frame_bytes_max,
        wished => wished.min(settings.frame_bytes_max),
    }
    .min(limits::FRAME_BYTES_CEILING)
}

/// What a Welcome says beside what its session knows.
#[derive(Debug, Clone, Copy)]
pub struct Welcoming<'a> {
    /// Whether the session is fresh, and why.
    pub result: ResumeResult,
    /// With which the client may come back; empty: it may not.
    pub resume_token: &'a [u8],
    /// What the deployment allows.
    pub settings: &'a Settings,
}

/// The Welcome to a session, fresh or resumed.
pub fn welcome(now: Now, session: &Session, welcoming: Welcoming<'_>) -> v1::Welcome {
    let Welcoming { result, resume_token, settings } = welcoming;
    let ttl = if resume_token.is_empty() { Duration::ZERO } else { settings.detached_ttl };
    v1::Welcome {
        version: u32::from(session.version),
        session_id: session.caller.session_id.0.to_vec().into(),
        resume_result: result.into(),
        heartbeat_ms: whole(session.heartbeat()),
        limits: Some(v1::Limits {
            frame_bytes_max: u32::try_from(session.frame_bytes_max()).unwrap_or(u32::MAX),
            in_flight_max: settings.in_flight_max,
            window_max: settings.window_max,
        }),
        resume_token: resume_token.to_vec().into(),
        detached_ttl_ms: whole(ttl),
        server_time_ms: now.unix_ms,
        admitted: session.up.admitted(),
        features: u64::from(session.features),
        user_id: session.caller.user_id.to_string(),
        access_expires_ms: session.told_expiry_ms(),
        action: match result {
            ResumeResult::None | ResumeResult::Resumed => Action::Unspecified,
            _ if session.caller.is_anonymous() => Action::Reauthenticate,
            _ => Action::Resync,
        }
        .into(),
    }
}

fn whole(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

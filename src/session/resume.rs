//! A client that comes back: whether its session takes it, and what of the session changes then.
//!
//! ```text
//!              Welcome                    first frame after it
//! current: g ──────────► current: g + 1 ──────────────────────► proven: g + 1
//!
//!   proven ........ current   tokens of these generations resume
//!   below proven              RESUME_STALE: the client has shown that it holds a newer one
//! ```
//!
//! A Welcome may be lost, and the next one too: until the client has spoken, all tokens from the proven one on are
//! good, so that no badly timed disconnect locks it out. Once it has spoken, the older ones are worth nothing to
//! whoever has copied them.

use super::{Attachment, Fault, NotResumed, Opened, Session};
use crate::base::clock::Now;
use crate::base::ids::ConnectionKey;
use crate::relay::{Caller, ReceiptTo};
use crate::routing::RoleMask;
use moorgate_proto::v1::{self, ResumeResult};
use std::net::SocketAddr;
use std::sync::Arc;

/// The generations of a session's resume tokens, and its attempts to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generations {
    /// Of the newest token.
    current: u32,
    /// Of the newest that the connected client is known to get.
    attached: u32,
    /// Of the oldest that is good.
    proven: u32,
    /// Of the token in a login's Response that the client may have got after the last Welcome, and so take as the newest;
    /// 0: none.
    login: u32,
    /// The last attempt that was accepted.
    attempt: u64,
}

impl Default for Generations {
    fn default() -> Self {
        Generations { current: 1, attached: 1, proven: 1, login: 0, attempt: 0 }
    }
}

impl Session {
    /// The generation of the newest resume token.
    pub fn generation(&self) -> u32 {
        self.generations.current
    }

    /// A frame has come on the session's connection: its client holds the token of the last Welcome, or that of a login.
    #[inline]
    pub fn prove(&mut self) {
        let Generations { attached, login, .. } = self.generations;
        self.generations.proven = if login == 0 { attached } else { attached.min(login) };
    }

    /// A new token goes out in a login's Response. It may be lost, and it may come before or behind a Welcome: the older
    /// ones are good until a Welcome is proven that comes after the client's acknowledgement of it.
    pub fn renew_generation(&mut self) {
        let Generations { current, login, .. } = &mut self.generations;
        *current = current.saturating_add(1);
        *login = *current;
    }

    /// Whether the session takes back a client with a token of this generation; if not, why, and a fresh one is opened.
    ///
    /// # Errors
    /// The [`Fault`] that ends the connection and leaves the session alone.
    pub fn judge(
        &self,
        now: Now,
        (generation, resume): (u32, &v1::Resume),
        opened: &Opened,
    ) -> Result<Result<(), ResumeResult>, Fault> {
        let Generations { current, proven, attempt, .. } = self.generations;
        if self.is_leaving() {
            return Ok(Err(ResumeResult::Ended));
        }
        if generation > current {
            return Err(Fault::NotResumed(NotResumed::Invalid));
        }
        if resume.attempt == 0 {
            return Err(Fault::NotResumed(NotResumed::Unnumbered));
        }
        // A copy of the token, or an attempt that was overtaken by a later one: a fresh session would supersede this one,
        // and end the client that has resumed it since. What was acknowledged cannot be sent again, and what was never
        // sent was not taken.
        let is_in_stream = (self.down.acked()..=self.down.sent()).contains(&resume.down_seq);
        if resume.attempt <= attempt || generation < proven || !is_in_stream {
            return Err(Fault::NotResumed(NotResumed::Stale));
        }
        let user_id = opened.who().user_id.as_str();
        match user_id {
            "" if self.has_access(now) => Ok(Ok(())),
            "" => Err(Fault::TokenExpired),
            _ if *user_id == *self.caller.user_id => Ok(Ok(())),
            _ => Err(Fault::IdentityMismatch),
        }
    }

    /// The client is back, on another connection. What it had not acknowledged is to be sent again; `taken` is told who
    /// wants to know of a push that it has.
    ///
    /// # Errors
    /// None that [`Session::judge`] has not found before.
    pub fn attach(
        &mut self,
        connection: ConnectionKey,
        resume: &v1::Resume,
        (opened, roles): (&Opened, RoleMask),
        taken: impl FnMut(Arc<ReceiptTo>),
    ) -> Result<(), Fault> {
        self.down.acknowledge(resume.down_seq, taken)?;
        self.down.rewind();
        if self.down.is_settled() {
            self.generations.login = 0;
        }
        self.attachment = Attachment::Attached(connection);
        let Generations { current, .. } = &mut self.generations;
        *current = current.saturating_add(1);
        self.generations.attached = self.generations.current;
        self.generations.attempt = resume.attempt;
        self.heartbeat_ms = u32::try_from(opened.heartbeat.as_millis()).unwrap_or(u32::MAX);
        self.frame_bytes_max =
            self.frame_bytes_max.max(u32::try_from(opened.frame_bytes_max).unwrap_or(u32::MAX));
        let shows_token = !opened.who().user_id.is_empty();
        if shows_token {
            (self.roles, self.expiry, self.token) = (roles, opened.expiry, opened.token);
        }
        let caller = caller_again(&self.caller, opened, shows_token);
        self.caller = Arc::new(caller);
        Ok(())
    }

    /// The connection is gone, and the session stays.
    pub fn detach(&mut self) {
        self.attachment = Attachment::Detached(u32::MAX);
        self.shrink();
        self.down.fit();
    }
}

/// Who asks from now on: the same, from where it is now, as it describes itself now.
fn caller_again(caller: &Caller, opened: &Opened, shows_token: bool) -> Caller {
    let now = opened.who();
    let mut who = caller.who();
    who.client_address.clone_from(&now.client_address);
    who.platform.clone_from(&now.platform);
    who.app_version.clone_from(&now.app_version);
    if shows_token {
        who.roles.clone_from(&now.roles);
    }
    let peer: SocketAddr = opened.peer();
    // The same user: one name for all who hold it.
    Caller { user_id: caller.user_id.clone(), ..Caller::new(caller.session_id, peer.ip(), &who) }
}

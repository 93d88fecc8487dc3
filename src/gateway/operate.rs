//! What the operator asks for, done: orders in the directory, revocations, bans.

use super::state::{State, service_id};
use crate::admin::{Ban, BanTarget, KickTarget, OperateError, Operation, Outcome, RevokeTarget};
use crate::directory::{Directory, Kick};
use crate::limit::Subject;
use std::sync::Arc;

/// Bans that one answer lists; the rest is counted.
const BANS_SHOWN_MAX: usize = 1000;

impl State {
    fn directory(&self) -> Result<&Arc<Directory>, OperateError> {
        // Before the threads run there is nobody.
        self.directory.get().ok_or(OperateError::Busy)
    }

    pub(super) fn carry_out(&self, operation: Operation) -> Result<Outcome, OperateError> {
        match operation {
            Operation::Kick { target, message } => self.kick(&target, message.unwrap_or_default()),
            Operation::Revoke(target) => self.revoke(&target),
            Operation::Bans => Ok(self.list_bans()),
            Operation::Ban { address, time } => {
                let subject = Subject::address(address);
                match self.limits.bans.ban(self.clock.read().mono, &subject, time) {
                    true => Ok(Outcome::Changed(1)),
                    false => Err(OperateError::Full),
                }
            }
            Operation::Unban(target) => Ok(Outcome::Changed(self.lift(&target))),
            Operation::Endpoints => Ok(self.list_endpoints()),
            Operation::Explain(question) => self.explain(&question),
            Operation::Canary { service, share } => self.set_canary(service, share),
        }
    }

    fn kick(&self, target: &KickTarget, message: String) -> Result<Outcome, OperateError> {
        let kick = Kick::Kicked(message.into());
        let sessions = match target {
            KickTarget::User(user_id) => self.directory()?.kick_user(user_id, &kick),
            KickTarget::Session(id) => usize::from(self.directory()?.kick_session(*id, kick)),
        };
        Ok(Outcome::Sessions(sessions as u64))
    }

    /// Workers look at the share with each call: from the next one on it holds.
    fn set_canary(&self, name: String, share: u32) -> Result<Outcome, OperateError> {
        let Some(at) = self.services.iter().position(|service| *service == name) else {
            return Err(OperateError::NoService { name, known: self.services.clone() });
        };
        if self.has_canary.get(at) != Some(&true) {
            return Err(OperateError::NoCanary { service: name });
        }
        let id = service_id(at);
        let before = self.pools.canary_share(id);
        self.pools.set_canary_share(id, share);
        Ok(Outcome::Share { before, now: self.pools.canary_share(id) })
    }

    fn list_bans(&self) -> Outcome {
        let now = self.clock.read().mono;
        let bans = self.limits.bans.list(now);
        let total = bans.len() as u64;
        let shown = bans.into_iter().take(BANS_SHOWN_MAX).map(|ban| Ban {
            target: match ban.subject {
                Subject::Address(address) => BanTarget::Address(address),
                Subject::Network(network, bits) => BanTarget::Network(network, bits),
                Subject::User(user) => BanTarget::User(user.user_id.to_string()),
            },
            left: ban.until.since(now),
            reason: if ban.by_hand { "by hand" } else { "offences" },
        });
        Outcome::Bans { bans: shown.collect(), total }
    }

    /// Lifts the ban of an address, or of a user in every application; how many there were.
    fn lift(&self, target: &BanTarget) -> u64 {
        let (bans, now) = (&self.limits.bans, self.clock.read().mono);
        let subjects = match target {
            BanTarget::Address(address) => vec![Subject::address(*address)],
            BanTarget::Network(network, bits) => vec![Subject::Network(*network, *bits)],
            BanTarget::User(user_id) => {
                let listed = bans.list(now).into_iter().map(|ban| ban.subject);
                let is_it =
                    |subject: &Subject| matches!(subject, Subject::User(user) if *user.user_id == **user_id);
                listed.filter(is_it).collect()
            }
        };
        subjects.iter().filter(|subject| bans.lift(now, subject)).count() as u64
    }

    /// First the tokens are worthless, then their sessions are looked for: what opens meanwhile finds the first.
    fn revoke(&self, target: &RevokeTarget) -> Result<Outcome, OperateError> {
        let unix_s = self.clock.read().unix_s();
        match target {
            RevokeTarget::User(user_id) => {
                self.authority.revocations.revoke_user(unix_s, user_id);
                Ok(Outcome::Sessions(self.directory()?.kick_user(user_id, &Kick::Revoked) as u64))
            }
            RevokeTarget::Token(token_id) => {
                self.authority.revoke_token(unix_s, None, token_id);
                // The shards look for its sessions; how many there are, the metrics tell.
                self.directory()?.sweep();
                Ok(Outcome::Changed(1))
            }
        }
    }
}

//! What the operator asks for, done: orders in the directory, revocations.

use super::State;
use crate::admin::{KickTarget, OperateError, Operation, Outcome, RevokeTarget};
use crate::directory::{Directory, Kick};
use std::sync::Arc;

impl State {
    fn directory(&self) -> Result<&Arc<Directory>, OperateError> {
        // Before the threads run there is nobody.
        self.directory.get().ok_or(OperateError::Busy)
    }

    pub(super) fn carry_out(&self, operation: Operation) -> Result<Outcome, OperateError> {
        match operation {
            Operation::Kick { target, message } => self.kick(&target, message.unwrap_or_default()),
            Operation::Revoke(target) => self.revoke(&target),
            Operation::Bans | Operation::Ban { .. } | Operation::Unban(_) => Err(OperateError::NotSupported),
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

    /// First the tokens are worthless, then their sessions are looked for: what opens meanwhile finds the first.
    fn revoke(&self, target: &RevokeTarget) -> Result<Outcome, OperateError> {
        let (revocations, unix_s) = (&self.authority.revocations, self.clock.read().unix_s());
        match target {
            RevokeTarget::User(user_id) => {
                revocations.revoke_user(unix_s, user_id).map_err(|_| OperateError::Full)?;
                Ok(Outcome::Sessions(self.directory()?.kick_user(user_id, &Kick::Revoked) as u64))
            }
            RevokeTarget::Token(token_id) => {
                let token = revocations.hash_of(Some(token_id));
                revocations.revoke_token(unix_s, token).map_err(|_| OperateError::Full)?;
                // The shards look for its sessions; how many there are, the metrics tell.
                self.directory()?.revoke_token(token);
                Ok(Outcome::Changed(1))
            }
        }
    }
}

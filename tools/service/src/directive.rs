//! What a service asks of the gateway beside an answer or a push.

use moorgate_proto::v1::{self, directive::Action};

/// Something that a gateway is to do, if its configuration grants it to the service. It goes with a
/// [`Reply`](crate::Reply) or a [`Push`](crate::Push), at most [`DIRECTIVES`](moorgate_proto::limits::DIRECTIVES) with
/// one; a Reply can also [log in](crate::Reply::with_login) and [log out](crate::Reply::with_logout).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive(pub(crate) v1::Directive);

impl Directive {
    /// Ends all sessions of a user.
    pub fn kick_user(user_id: &str, message: &str) -> Directive {
        Action::KickUser(v1::KickUser { user_id: user_id.to_owned(), message: message.to_owned() }).into()
    }

    /// Ends a session.
    pub fn kick_session(session_id: &[u8], message: &str) -> Directive {
        let session_id = session_id.to_vec().into();
        Action::KickSession(v1::KickSession { session_id, message: message.to_owned() }).into()
    }

    /// The calling session joins a group; in a Reply only, as a push has no caller.
    pub fn join(group: &str) -> Directive {
        Directive::join_session(group, &[])
    }

    /// A session joins a group.
    pub fn join_session(group: &str, session_id: &[u8]) -> Directive {
        let session_id = session_id.to_vec().into();
        Action::JoinGroup(v1::JoinGroup { group: group.to_owned(), session_id }).into()
    }

    /// The calling session leaves a group; in a Reply only.
    pub fn leave(group: &str) -> Directive {
        Directive::leave_session(group, &[])
    }

    /// A session leaves a group.
    pub fn leave_session(group: &str, session_id: &[u8]) -> Directive {
        let session_id = session_id.to_vec().into();
        Action::LeaveGroup(v1::LeaveGroup { group: group.to_owned(), session_id }).into()
    }

    /// No access token of the user that was issued up to now is good any more.
    pub fn revoke_user(user_id: &str) -> Directive {
        Directive::revoke_token(user_id, "")
    }

    /// The access token of the user with this id (`jti`) is not good any more.
    pub fn revoke_token(user_id: &str, token_id: &str) -> Directive {
        Action::Revoke(v1::Revoke { user_id: user_id.to_owned(), token_id: token_id.to_owned() }).into()
    }

    /// Whether it is about the session that calls.
    pub(crate) fn needs_caller(&self) -> bool {
        match &self.0.action {
            Some(Action::Login(_) | Action::Logout(_)) => true,
            Some(Action::JoinGroup(join)) => join.session_id.is_empty(),
            Some(Action::LeaveGroup(leave)) => leave.session_id.is_empty(),
            Some(Action::KickUser(_) | Action::KickSession(_) | Action::Revoke(_)) | None => false,
        }
    }
}

impl From<Action> for Directive {
    fn from(action: Action) -> Directive {
        Directive(v1::Directive { action: Some(action) })
    }
}

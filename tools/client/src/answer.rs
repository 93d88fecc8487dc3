//! What an application gets: answers and pushes, owned.

use moorgate_proto::action;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Action, Execution, Reason, Source};
use moorgate_proto::view::{PushView, ResponseView};
use prost::Message;
use std::fmt;
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub code: Code,
    /// Why.
    pub reason: Reason,
    /// What is to be done about it, as the gateway says; `None`: nothing, or it does not say.
    pub told_action: Option<Action>,
    /// Who decided.
    pub source: Source,
    /// Whether the service may have run it.
    pub execution: Execution,
    /// Wait this long before another try.
    pub retry_after: Duration,
    /// For people who debug, never for users.
    pub message: String,
    /// The request has logged its session in.
    pub login: Option<Login>,
    /// The content was given up, for its age or size; the outcome stands.
    pub payload_dropped: bool,
    /// How the content is encoded; empty: as it is.
    pub content_encoding: String,
    /// The content.
    pub payload: Vec<u8>,
}

/// Who a session belongs to since a login. The kit keeps the access token for the connections to come.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user_id: String,
    /// For other connections of this user, and for the next start of the application. A secret.
    pub access_token: String,
    /// When it expires, in milliseconds of Unix time.
    pub access_expires_ms: u64,
}

/// Without the token: logs are read by many.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user_id", &self.user_id)
            .field("access_expires_ms", &self.access_expires_ms)
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// What the gateway or the service did not do, in the kit's own words: the request was taken back before it was
    /// sent.
    pub(crate) fn cancelled() -> Answer {
        Answer {
            code: Code::Cancelled,
            reason: Reason::Cancelled,
            told_action: None,
            source: Source::Unspecified,
            execution: Execution::NotExecuted,
            retry_after: Duration::ZERO,
            message: "cancelled before it was sent".to_owned(),
            login: None,
            payload_dropped: false,
            content_encoding: String::new(),
            payload: Vec::new(),
        }
    }

    /// Whether it is a success.
    pub fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }

    /// What is to be done about an answer that is no success.
    pub fn action(&self) -> Action {
        self.told_action.unwrap_or_else(|| action::of_outcome(self.code, self.reason, self.execution))
    }
}

impl From<ResponseView<'_>> for Answer {
    fn from(view: ResponseView<'_>) -> Answer {
        let login = (!view.login.is_empty()).then(|| v1::LoginResult::decode(view.login).ok()).flatten();
        Answer {
            code: Code::from_wire(view.status),
            reason: Reason::try_from(view.reason).unwrap_or_default(),
            told_action: action::on_wire(view.action),
            source: Source::try_from(view.source).unwrap_or_default(),
            execution: Execution::try_from(view.execution).unwrap_or_default(),
            retry_after: Duration::from_millis(u64::from(view.retry_after_ms)),
            message: view.message.to_owned(),
            login: login.map(|login| Login {
                user_id: login.user_id,
                access_token: login.access_token,
                access_expires_ms: login.access_expires_ms,
            }),
            payload_dropped: view.payload_dropped,
            content_encoding: view.content_encoding.to_owned(),
            payload: view.payload.to_vec(),
        }
    }
}

/// How it ended, for logs; not the content.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.name())?;
        if self.reason != Reason::Unspecified {
            write!(f, ", {}", reason_name(self.reason))?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// The name of a reason as the specification writes it.
pub(crate) fn reason_name(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name)
}

/// A push.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Push {
    /// What it is about.
    pub command: u32,
    /// Its sender's name for it, at most 64 bytes; the kit does not give the same one twice, as far as it remembers.
    pub push_id: Vec<u8>,
    /// Set when it came by a group.
    pub group: String,
    /// How the content is encoded; empty: as it is.
    pub content_encoding: String,
    /// The content.
    pub payload: Vec<u8>,
}

impl From<PushView<'_>> for Push {
    fn from(view: PushView<'_>) -> Push {
        Push {
            command: view.command,
            push_id: view.push_id.to_vec(),
            group: view.group.to_owned(),
            content_encoding: view.content_encoding.to_owned(),
            payload: view.payload.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_and_its_token_is_not_logged() {
        let login = v1::LoginResult {
            user_id: "alice".into(),
            access_token: "hush".into(),
            access_expires_ms: 5,
            ..Default::default()
        };
        let bytes = login.encode_to_vec();
        let answer = Answer::from(ResponseView { login: &bytes, ..Default::default() });
        assert_eq!(answer.login.as_ref().unwrap().access_token, "hush");
        assert!(!format!("{answer:?}").contains("hush"));
        assert!(answer.is_ok());
        assert_eq!(Answer::from(ResponseView::default()).login, None);
        assert_eq!(Answer::cancelled().to_string(), "CANCELLED, CANCELLED: cancelled before it was sent");
    }
}

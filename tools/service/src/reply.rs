//! The answer to a call.

use crate::directive::Directive;
use moorgate_proto::limits::DIRECTIVES;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, directive::Action};
use moorgate_proto::view::{Body, ReplyView};
use prost::encoding::{message, uint64};
use std::time::Duration;

/// Field numbers in `Reply`.
const CALL_ID: u32 = 1;
const DIRECTIVE: u32 = 7;

/// The answer to a call.
///
/// ```
/// use moorgate_service::{Directive, Reply};
/// use std::time::Duration;
/// let welcome = Reply::ok(b"").with_login("alice", &["member"], Duration::from_secs(3600));
/// let joined = Reply::ok(b"").with(Directive::join("lobby"));
/// ```
#[derive(Debug, Clone)]
pub struct Reply<'a> {
    view: ReplyView<'a>,
    directives: Vec<v1::Directive>,
}

impl<'a> Reply<'a> {
    /// It went well.
    pub fn ok(payload: &'a [u8]) -> Reply<'a> {
        Reply { view: ReplyView { payload, ..ReplyView::default() }, directives: Vec::new() }
    }

    /// It did not; `message` is for people who debug, never for users.
    pub fn error(code: Code, message: &'a str) -> Reply<'a> {
        let view = ReplyView { status: code.to_wire(), message, ..ReplyView::default() };
        Reply { view, directives: Vec::new() }
    }

    /// The same with a payload: details of an error.
    #[must_use]
    pub fn with_payload(mut self, payload: &'a [u8]) -> Reply<'a> {
        self.view.payload = payload;
        self
    }

    /// The same with a reason, on which the client's action hangs.
    #[must_use]
    pub fn with_reason(mut self, reason: Reason) -> Reply<'a> {
        self.view.reason = reason.into();
        self
    }

    /// The same with what is known of its execution; the default is EXECUTED.
    #[must_use]
    pub fn with_execution(mut self, execution: Execution) -> Reply<'a> {
        self.view.execution = execution.into();
        self
    }

    /// The same with the time that a client is to wait before it asks again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Reply<'a> {
        self.view.retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        self
    }

    /// The same with the name of the payload's encoding, at most 64 bytes.
    #[must_use]
    pub fn with_content_encoding(mut self, name: &'a str) -> Reply<'a> {
        self.view.content_encoding = name;
        self
    }

    /// The same, and the calling session, which must be anonymous, becomes the user's. The gateway puts user and access
    /// token into the Response. A `token_life` of zero leaves the life of the access token to the gateway.
    #[must_use]
    pub fn with_login(self, user_id: &str, roles: &[&str], token_life: Duration) -> Reply<'a> {
        let login = v1::Login {
            user_id: user_id.to_owned(),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            access_ttl_ms: u32::try_from(token_life.as_millis()).unwrap_or(u32::MAX),
        };
        self.with(Action::Login(login).into())
    }

    /// The same, and the calling session ends.
    #[must_use]
    pub fn with_logout(self) -> Reply<'a> {
        self.with(Action::Logout(v1::Logout {}).into())
    }

    /// The same, and the gateway does this before it delivers the reply. A reply with more than
    /// [`DIRECTIVES`] asks for nothing and says INTERNAL instead: half of them would be worse.
    #[must_use]
    pub fn with(mut self, directive: Directive) -> Reply<'a> {
        self.directives.push(directive.0);
        self
    }

    /// The call was refused and not run.
    pub(crate) fn refused(code: Code, reason: Reason, message: &'a str) -> Reply<'a> {
        Reply::error(code, message).with_reason(reason).with_execution(Execution::NotExecuted)
    }

    /// The handler gave no answer.
    pub(crate) fn forgotten() -> Reply<'a> {
        Reply::error(Code::Internal, "the handler gave no answer")
            .with_reason(Reason::Internal)
            .with_execution(Execution::Unknown)
    }

    /// What goes out, with a call id or without.
    pub(crate) fn into_wire(self, call_id: u64) -> WireReply<'a> {
        let Reply { view, directives } = self;
        if directives.len() <= DIRECTIVES {
            return WireReply { view: ReplyView { call_id, ..view }, directives };
        }
        log::error!("a reply with {} directives, above {DIRECTIVES}: none of them is sent", directives.len());
        let refused = Reply::error(Code::Internal, "a reply with too many directives");
        let view = ReplyView { execution: view.execution, ..refused.with_reason(Reason::Internal).view };
        WireReply { view: ReplyView { call_id, ..view }, directives: Vec::new() }
    }

    pub(crate) fn encode(self) -> EncodedReply {
        let wire = self.into_wire(0);
        let mut body = Vec::with_capacity(wire.body_len());
        wire.put(&mut body);
        EncodedReply { execution: wire.view.execution, body }
    }
}

/// A Reply as it goes out, its fields in order.
#[derive(Debug)]
pub(crate) struct WireReply<'a> {
    pub(crate) view: ReplyView<'a>,
    directives: Vec<v1::Directive>,
}

impl<'a> WireReply<'a> {
    /// The fields before the directives, and those behind them.
    fn halves(&self) -> [ReplyView<'a>; 2] {
        let ReplyView { content_encoding, fragment, payload, .. } = self.view;
        let behind = ReplyView { content_encoding, fragment, payload, ..ReplyView::default() };
        [ReplyView { content_encoding: "", fragment: &[], payload: &[], ..self.view }, behind]
    }
}

impl Body for WireReply<'_> {
    fn body_len(&self) -> usize {
        self.view.body_len() + message::encoded_len_repeated(DIRECTIVE, &self.directives)
    }
    fn put(&self, out: &mut Vec<u8>) {
        if self.directives.is_empty() {
            return self.view.put(out);
        }
        let [before, behind] = self.halves();
        before.put(out);
        message::encode_repeated(DIRECTIVE, &self.directives, out);
        behind.put(out);
    }
}

/// A Reply that was encoded without the id of its call, which may be one of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodedReply {
    pub(crate) execution: i32,
    pub(crate) body: Vec<u8>,
}

impl EncodedReply {
    /// The same for one call.
    pub(crate) fn for_call(&self, call_id: u64) -> impl Body {
        ForCall { call_id, body: &self.body }
    }
}

struct ForCall<'a> {
    call_id: u64,
    body: &'a [u8],
}

impl Body for ForCall<'_> {
    fn body_len(&self) -> usize {
        uint64::encoded_len(CALL_ID, &self.call_id) + self.body.len()
    }
    fn put(&self, out: &mut Vec<u8>) {
        uint64::encode(CALL_ID, &self.call_id, out);
        out.extend_from_slice(self.body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn wire(reply: Reply<'_>) -> v1::Reply {
        let mut direct = Vec::new();
        let wire = reply.clone().into_wire(300);
        wire.put(&mut direct);
        assert_eq!(direct.len(), wire.body_len());
        let mut later = Vec::new();
        let encoded = reply.encode();
        encoded.for_call(300).put(&mut later);
        assert_eq!(later.len(), encoded.for_call(300).body_len());
        let decoded = v1::Reply::decode(&direct[..]).unwrap();
        assert_eq!(later, direct, "now and later say the same");
        assert_eq!(encoded.execution, decoded.execution);
        assert_eq!(direct, decoded.encode_to_vec(), "the fields are in order");
        decoded
    }

    // spec: E-6
    #[test]
    fn a_reply_says_all_that_the_contract_has() {
        let reply = Reply::error(Code::Aborted, "why")
            .with_payload(b"details")
            .with_reason(Reason::RateLimited)
            .with_execution(Execution::Unknown)
            .with_retry_after(Duration::from_millis(1500))
            .with_content_encoding("br")
            .with(Directive::kick_user("bob", "go"))
            .with(Directive::revoke_token("bob", "t1"));
        let expected = v1::Reply {
            call_id: 300,
            status: Code::Aborted.to_wire(),
            reason: Reason::RateLimited.into(),
            execution: Execution::Unknown.into(),
            retry_after_ms: 1500,
            message: "why".to_owned(),
            directives: vec![Directive::kick_user("bob", "go").0, Directive::revoke_token("bob", "t1").0],
            content_encoding: "br".to_owned(),
            fragment: None,
            payload: b"details".to_vec().into(),
        };
        assert_eq!(wire(reply), expected);
    }

    #[test]
    fn a_login_names_user_roles_and_life() {
        let reply =
            wire(Reply::ok(b"hi").with_login("alice", &["a", "b"], Duration::from_secs(2)).with_logout());
        let login = v1::Login {
            user_id: "alice".to_owned(),
            roles: vec!["a".to_owned(), "b".to_owned()],
            access_ttl_ms: 2000,
        };
        let actions: Vec<_> = reply.directives.into_iter().filter_map(|directive| directive.action).collect();
        assert_eq!(actions, [Action::Login(login), Action::Logout(v1::Logout {})]);
    }

    #[test]
    fn too_many_directives_are_told_and_none_is_sent() {
        let mut reply = Reply::ok(b"x").with_execution(Execution::Unknown);
        for count in 1..=DIRECTIVES + 1 {
            reply = reply.with(Directive::leave("lobby"));
            let said = wire(reply.clone());
            let fits = count <= DIRECTIVES;
            assert_eq!(said.directives.len(), if fits { count } else { 0 });
            assert_eq!(said.reason() == Reason::Internal, !fits);
            assert_eq!(Code::from_wire(said.status), if fits { Code::Ok } else { Code::Internal });
            assert_eq!(said.execution(), Execution::Unknown);
        }
    }
}

//! The chat service: messages to users and to groups, which reach whoever is connected now. It keeps none.
//!
//! The gateway must grant it `groups` and `push`. With the grant `presence` it tells users when others come and go with whom
//! they keep company, and who is online. The gateway should send it calls in the order of their session
//! (`order = "session"`), so that messages keep theirs.

use crate::clock::unix_ms;
use crate::company::Company;
use crate::seen::Seen;
use crate::wire::chat::{JOIN, LEAVE, MESSAGE, NAME, NOTICE, PRESENCE, SEND, SEND_GROUP, WHO};
use crate::wire::{self, message, sent::Receiver};
use crate::wire::{Group, Message, Notice, Presence, Send, SendGroup, Sent, TEXT_BYTES_MAX, Who, is_name};
use moorgate_service::push::GatewayAnswer;
use moorgate_service::{
    Call, Code, Directive, Execution, Later, LinkKey, Listening, PresenceChange, Priority, Push, PushError,
    PushId, PushReport, Pusher, Reason, Reply, Responder, Service, TargetState,
};
use parking_lot::Mutex;
use prost::Message as _;
use ring::rand::{SecureRandom, SystemRandom};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Users in one [`Who`].
const WHO_MAX: usize = 1000;
/// Whoever does not hear within this time that somebody has come or gone need not hear it.
const PRESENCE_TTL: Duration = Duration::from_secs(60);

/// What all handlers share.
#[derive(Clone)]
struct Chat {
    pusher: Pusher,
    seen: Arc<Mutex<Seen>>,
    company: Arc<Mutex<Company>>,
    /// It was logged that no gateway takes pushes, and none has since.
    has_complained: Arc<AtomicBool>,
}

/// The service, to be refined and told where to listen.
pub fn service() -> Service {
    let service = Service::named(NAME).deduplicate(SEND..=SEND_GROUP);
    let chat = Chat {
        pusher: service.pusher(),
        seen: Arc::default(),
        company: Arc::default(),
        has_complained: Arc::default(),
    };
    let told = chat.clone();
    let service = service.presence(move |change| told.presence(change));
    service.handle(SEND..=WHO, move |call, responder| {
        let user = call.caller().user_id;
        if user.is_empty() {
            let refusal = Reply::error(Code::Unauthenticated, "chat is for users who are logged in");
            return responder.reply(not_run(refusal).with_reason(Reason::LoginRequired));
        }
        chat.seen.lock().heard(unix_ms(), &user);
        match call.command() {
            SEND => chat.send(call, user, responder),
            SEND_GROUP => chat.send_group(call, user, responder),
            JOIN | LEAVE => chat.join_or_leave(call, user, responder),
            _ => chat.who(responder),
        }
    })
}

/// Listens, with proofs if there is a key; port 0 lets the system choose one.
///
/// # Errors
/// When the address cannot be listened on.
pub fn listen(address: SocketAddr, key: Option<LinkKey>) -> io::Result<Listening> {
    let service = service();
    match key {
        Some(key) => service.key(key),
        None => service,
    }
    .listen(address)
}

fn not_run(reply: Reply<'_>) -> Reply<'_> {
    reply.with_execution(Execution::NotExecuted)
}

fn invalid(message: &str) -> Reply<'_> {
    not_run(Reply::error(Code::InvalidArgument, message))
}

const BAD_NAME: &str = "a name has 1 to 32 of the letters a to z and A to Z, digits, '-', '_' and '.'";
const BAD_TEXT: &str = "a text has 1 to 4096 bytes";

fn is_text(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len())
}

impl Chat {
    fn send(&self, call: &Call<'_>, from: String, responder: Responder<'_>) {
        let Ok(Send { to, text, reference }) = Send::decode(call.payload()) else {
            return responder.reply(invalid("the payload is not a Send"));
        };
        if !is_name(&to) {
            return responder.reply(invalid(BAD_NAME));
        }
        if !is_text(&text) {
            return responder.reply(invalid(BAD_TEXT));
        }
        self.company.lock().meets(&from, &to);
        // The receiver first: the report goes by this order. The sender's own devices have a copy.
        let users = if to == from { vec![to.clone()] } else { vec![to.clone(), from.clone()] };
        let target = Some(message::Target::To(to.clone()));
        let message = Message { from, target, text, reference, ..Message::default() };
        let seen = self.seen.clone();
        let push = |payload| Push::to_users(users.iter().map(String::as_str), MESSAGE, payload);
        self.push(message, push, responder.later(), move |report| {
            let receiver = report.targets.first().copied().unwrap_or(TargetState::Unknown);
            if receiver == TargetState::Offline {
                seen.lock().offline(&to);
            }
            match receiver {
                TargetState::Queued => Receiver::Online,
                TargetState::Waiting => Receiver::Away,
                TargetState::Offline => Receiver::Offline,
                TargetState::Unknown | TargetState::Refused => Receiver::Unknown,
            }
        });
    }

    fn send_group(&self, call: &Call<'_>, from: String, responder: Responder<'_>) {
        let Ok(SendGroup { group, text, reference }) = SendGroup::decode(call.payload()) else {
            return responder.reply(invalid("the payload is not a SendGroup"));
        };
        if !is_name(&group) {
            return responder.reply(invalid(BAD_NAME));
        }
        if !is_text(&text) {
            return responder.reply(invalid(BAD_TEXT));
        }
        let target = Some(message::Target::Group(group.clone()));
        let message = Message { from, target, text, reference, ..Message::default() };
        let push = |payload| Push::to_group(&group, MESSAGE, payload);
        self.push(message, push, responder.later(), |_| Receiver::Unknown);
    }

    /// Pushes a message, and answers its sender once the gateways have.
    fn push(
        &self,
        mut message: Message,
        push: impl FnOnce(Vec<u8>) -> Push,
        later: Later,
        receiver: impl FnOnce(&PushReport) -> Receiver + std::marker::Send + 'static,
    ) {
        let mut id = [0; 16];
        if SystemRandom::new().fill(&mut id).is_err() {
            return later.reply(not_run(Reply::error(Code::Internal, "the system gives no random bytes")));
        }
        message.id = id.to_vec();
        message.unix_ms = unix_ms();
        let sent = Sent { id: message.id.clone(), unix_ms: message.unix_ms, ..Sent::default() };
        let push = push(message.encode_to_vec());
        let push = match PushId::new(&id) {
            Some(id) => push.with_id(id),
            None => push,
        };
        let has_complained = self.has_complained.clone();
        self.pusher.send_then(push, move |result| match result {
            Ok(report) if report.is_accepted() => {
                has_complained.store(false, Ordering::Relaxed);
                let sent = Sent { receiver: receiver(&report).into(), ..sent };
                later.reply(Reply::ok(&sent.encode_to_vec()));
            }
            Ok(report) => {
                if !has_complained.swap(true, Ordering::Relaxed) {
                    log::warn!("no gateway takes messages: {:?}", report.gateways);
                }
                later.reply(not_pushed(&report));
            }
            Err(error) => later.reply(not_sent(error)),
        });
    }

    fn join_or_leave(&self, call: &Call<'_>, user: String, responder: Responder<'_>) {
        let Ok(Group { group }) = Group::decode(call.payload()) else {
            return responder.reply(invalid("the payload is not a Group"));
        };
        if !is_name(&group) {
            return responder.reply(invalid(BAD_NAME));
        }
        let joined = call.command() == JOIN;
        let directive = if joined { Directive::join(&group) } else { Directive::leave(&group) };
        responder.reply(Reply::ok(b"").with(directive));
        match joined {
            true => self.company.lock().joins(&user, &group),
            false => self.company.lock().leaves(&user, &group),
        }
        let notice = Notice { group: group.clone(), user, joined, unix_ms: unix_ms() };
        self.pusher.send_then(Push::to_group(&group, NOTICE, notice.encode_to_vec()), |result| {
            // A notice that is lost is no fault of whoever joined.
            if let Err(error) = result {
                log::warn!("a notice was not pushed: {error}");
            }
        });
    }

    /// A user has come or gone: whoever is here and keeps company with the user is told.
    fn presence(&self, change: &PresenceChange) {
        let (user, now_ms) = (&*change.user_id, unix_ms());
        // Others are none of this service's users.
        if !is_name(user) {
            return;
        }
        let mut seen = self.seen.lock();
        match change.online {
            true => seen.online(now_ms, user),
            false => seen.offline(user),
        }
        let company = self.company.lock().of(user, |other| seen.is_here(now_ms, other));
        drop(seen);
        if company.is_empty() {
            return;
        }
        let told = Presence { user: user.to_owned(), online: change.online, unix_ms: now_ms };
        let users = company.iter().map(String::as_str);
        let push = Push::to_users(users, PRESENCE, told.encode_to_vec());
        let push = push
            .with_collapse_key(&format!("presence {user}"))
            .with_priority(Priority::Low)
            .with_ttl(PRESENCE_TTL);
        self.pusher.send_then(push, |result| {
            if let Err(error) = result {
                log::warn!("a presence was not pushed: {error}");
            }
        });
    }

    fn who(&self, responder: Responder<'_>) {
        let users = self.seen.lock().lately(unix_ms(), WHO_MAX);
        let users = users.into_iter().map(|(user, ago_ms)| wire::Seen { user, ago_ms }).collect();
        responder.reply(Reply::ok(&Who { users }.encode_to_vec()));
    }
}

/// No gateway has taken the push, as far as is known.
fn not_pushed(report: &PushReport) -> Reply<'static> {
    let reply = Reply::error(Code::Unavailable, "no gateway takes the message");
    match report.failures().any(|failure| failure.answer == GatewayAnswer::Unknown) {
        true => reply.with_execution(Execution::Unknown),
        false => not_run(reply),
    }
}

fn not_sent(error: PushError) -> Reply<'static> {
    let (code, reason) = match error {
        PushError::Full => (Code::ResourceExhausted, Reason::ServiceOverloaded),
        PushError::Ended => (Code::Unavailable, Reason::Draining),
        _ => (Code::Internal, Reason::Internal),
    };
    not_run(Reply::error(code, "the message was not pushed").with_reason(reason))
}

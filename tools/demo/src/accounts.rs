//! The accounts service: users register, log in and out. Accounts are in memory and gone with the process.
//!
//! The gateway must grant it `login`, and let anonymous sessions reach [`REGISTER`] and [`LOGIN`].
//!
//! Guarantees: passwords are hashed on threads of their own, with a bounded queue before them, so a flood of logins is
//! refused and stalls nobody; a login of a user who does not exist takes as long, and says the same, as one with a wrong
//! password; the number of accounts is bounded.

use crate::password::{HashFailed, PasswordHash};
use crate::wire::accounts::{LOGIN, LOGOUT, NAME, REGISTER};
use crate::wire::{Credentials, PASSWORD_BYTES_MAX, is_name};
use moorgate_service::{Call, Code, Execution, Later, LinkKey, Listening, Reason, Reply, Service};
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// More are not registered.
const ACCOUNTS_MAX: usize = 100_000;
/// Hashes at once, each of 19 MiB.
const THREADS: usize = 2;
/// Logins that wait for their hash: about a second. More are refused.
const WAITING_MAX: usize = 64;

#[derive(Default)]
struct Accounts {
    of: Mutex<HashMap<String, PasswordHash>>,
}

/// The service, to be refined and told where to listen.
pub fn service() -> Service {
    let accounts = Arc::new(Accounts::default());
    let registered = accounts.clone();
    Service::named(NAME)
        .threads(THREADS, WAITING_MAX)
        .deduplicate(REGISTER..=REGISTER)
        .handle_blocking(REGISTER..=REGISTER, move |call, later| {
            answer(call, later, |credentials| registered.register(credentials));
        })
        .handle_blocking(LOGIN..=LOGIN, move |call, later| {
            answer(call, later, |credentials| accounts.log_in(credentials));
        })
        .handle(LOGOUT..=LOGOUT, |_, responder| responder.reply(Reply::ok(b"").with_logout()))
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

/// Why somebody is not logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    AlreadyLoggedIn,
    Malformed,
    Name,
    Password,
    Taken,
    Full,
    Wrong,
    Hash,
}

impl Refusal {
    fn reply(self) -> Reply<'static> {
        let not_run = |code, message| Reply::error(code, message).with_execution(Execution::NotExecuted);
        match self {
            Refusal::AlreadyLoggedIn => not_run(Code::FailedPrecondition, "this session has a user")
                .with_reason(Reason::AlreadyAuthenticated),
            Refusal::Malformed => not_run(Code::InvalidArgument, "the payload is not a Credentials"),
            Refusal::Name => not_run(
                Code::InvalidArgument,
                "a name has 1 to 32 of the letters a to z and A to Z, digits, '-', '_' and '.'",
            ),
            Refusal::Password => not_run(Code::InvalidArgument, "a password has 1 to 128 bytes"),
            Refusal::Taken => Reply::error(Code::AlreadyExists, "the name is taken"),
            Refusal::Full => not_run(Code::ResourceExhausted, "there are too many accounts"),
            Refusal::Wrong => Reply::error(Code::Unauthenticated, "no such user, or another password"),
            Refusal::Hash => {
                not_run(Code::Internal, "no password can be hashed now").with_reason(Reason::Internal)
            }
        }
    }
}

impl From<HashFailed> for Refusal {
    fn from(_: HashFailed) -> Refusal {
        Refusal::Hash
    }
}

/// Logs the session in, if `check` lets it.
fn answer(call: &Call<'_>, later: Later, check: impl FnOnce(&Credentials) -> Result<(), Refusal>) {
    if !call.caller().user_id.is_empty() {
        return later.reply(Refusal::AlreadyLoggedIn.reply());
    }
    let Ok(credentials) = Credentials::decode(call.payload()) else {
        return later.reply(Refusal::Malformed.reply());
    };
    later.reply(match check(&credentials) {
        // The life of the access token is the gateway's own.
        Ok(()) => Reply::ok(b"").with_login(&credentials.user, &[], Duration::ZERO),
        Err(refusal) => refusal.reply(),
    });
}

impl Accounts {
    fn register(&self, credentials: &Credentials) -> Result<(), Refusal> {
        if !is_name(&credentials.user) {
            return Err(Refusal::Name);
        }
        if !is_password(&credentials.password) {
            return Err(Refusal::Password);
        }
        // Looked at before the work as well, so that a taken name costs no hash.
        self.room_for(&credentials.user)?;
        let hash = PasswordHash::new(&credentials.password)?;
        let mut accounts = self.of.lock();
        if accounts.len() >= ACCOUNTS_MAX {
            return Err(Refusal::Full);
        }
        match accounts.entry(credentials.user.clone()) {
            Entry::Occupied(_) => Err(Refusal::Taken),
            Entry::Vacant(entry) => {
                entry.insert(hash);
                Ok(())
            }
        }
    }

    fn room_for(&self, user: &str) -> Result<(), Refusal> {
        let accounts = self.of.lock();
        if accounts.contains_key(user) {
            return Err(Refusal::Taken);
        }
        if accounts.len() >= ACCOUNTS_MAX { Err(Refusal::Full) } else { Ok(()) }
    }

    fn log_in(&self, credentials: &Credentials) -> Result<(), Refusal> {
        // Neither can be registered.
        if !is_name(&credentials.user) || !is_password(&credentials.password) {
            return Err(Refusal::Wrong);
        }
        let hash = self.of.lock().get(&credentials.user).cloned();
        let is_right = PasswordHash::verify(hash.as_ref(), &credentials.password)?;
        if is_right { Ok(()) } else { Err(Refusal::Wrong) }
    }
}

fn is_password(text: &str) -> bool {
    (1..=PASSWORD_BYTES_MAX).contains(&text.len())
}

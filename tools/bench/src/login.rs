//! `login`: users of the accounts service log in with their passwords, again and again.
//!
//! ```text
//!   registering ── Response with login ──► ready, until the run begins ──► anonymous session
//!                                                                             │      ▲
//!                                     LOGIN, Response with login: counted ◄───┘      │ closed, another one
//!                                        │ one connection in so many                 │
//!                                        ├──► session with the token that came ──────┤
//!                                        └───────────────────────────────────────────┘
//! ```

use crate::clock::unix_s;
use crate::connection::{Ears, Outcome, Sent, Task, failure};
use crate::crew::{Crew, Measured};
use crate::options::LogIns;
use crate::pattern::Pattern;
use crate::plan::Load;
use crate::report::Figures;
use crate::run::finished;
use moorgate_client::core::RequestId;
use moorgate_demo::wire::accounts::{LOGIN, REGISTER};
use moorgate_demo::wire::{Credentials, NAME_BYTES_MAX};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{LoginResult, Welcome};
use moorgate_proto::view::ResponseView;
use prost::Message;
use std::sync::Arc;

/// The users of one run: each connection has one.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// Of names: an accounts service remembers those of earlier runs.
    prefix: String,
    /// The token is checked on each connection whose number is a multiple of this.
    check_every: u32,
}

impl Accounts {
    fn of_run(options: &LogIns) -> Accounts {
        let prefix = format!("b{:x}-{:x}", unix_s(), std::process::id());
        Accounts { prefix, check_every: options.check_every.max(1) }
    }

    fn credentials(&self, number: u32) -> Credentials {
        let user = format!("{}-{number}", self.prefix);
        debug_assert!(user.len() <= NAME_BYTES_MAX, "{user}");
        Credentials { password: format!("password of {user}"), user }
    }
}

/// What the connection's session is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Registering,
    LoggingIn,
    /// Whether this token opens a session of the user.
    Checking(String),
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct LogIn {
    user: String,
    credentials: Vec<u8>,
    checks: bool,
    stage: Stage,
    sent: Option<Sent>,
}

impl LogIn {
    pub(crate) fn new(accounts: Arc<Accounts>, number: u32) -> LogIn {
        let credentials = accounts.credentials(number);
        LogIn {
            credentials: credentials.encode_to_vec(),
            user: credentials.user,
            checks: number.is_multiple_of(accounts.check_every),
            stage: Stage::Registering,
            sent: None,
        }
    }
}

impl Task for LogIn {
    fn token(&self) -> Option<&str> {
        match &self.stage {
            Stage::Registering | Stage::LoggingIn => Some(""),
            Stage::Checking(token) => Some(token),
        }
    }

    fn welcomed(&mut self, welcome: &Welcome, outcomes: &mut Vec<Outcome>) {
        let (user, outcome) = match self.stage {
            Stage::Registering | Stage::LoggingIn => ("", Outcome::Ask),
            Stage::Checking(_) => (self.user.as_str(), Outcome::TokenGood),
        };
        outcomes.push(if welcome.user_id == user { outcome } else { Outcome::Wrong });
        if matches!(self.stage, Stage::Checking(_)) {
            self.stage = Stage::LoggingIn;
        }
    }

    fn request<'a>(&'a mut self, _pattern: &'a mut Pattern) -> (u32, &'a [u8]) {
        let command = if self.stage == Stage::Registering { REGISTER } else { LOGIN };
        (command, &self.credentials)
    }

    fn asked(&mut self, id: RequestId, at: Mono) {
        self.sent = Some(Sent { id, counter: 0, at });
    }

    fn response(&mut self, _now: Mono, (id, view): (RequestId, &ResponseView<'_>), ears: Ears<'_>) {
        let Some(Sent { at, .. }) = self.sent.take().filter(|sent| sent.id == id) else {
            return ears.outcomes.push(Outcome::Wrong);
        };
        if view.status != Code::Ok.to_wire() {
            return ears.outcomes.push(Outcome::Failed(failure(view)));
        }
        let login = LoginResult::decode(view.login).unwrap_or_default();
        if login.user_id != self.user || login.access_token.is_empty() || login.access_expires_ms == 0 {
            return ears.outcomes.push(Outcome::Wrong);
        }
        let was = std::mem::replace(&mut self.stage, Stage::LoggingIn);
        if was == Stage::Registering {
            return ears.outcomes.push(Outcome::Ready);
        }
        if self.checks {
            self.stage = Stage::Checking(login.access_token);
        }
        ears.outcomes.push(Outcome::Reply(at));
    }

    fn frame(&mut self, _payload: &[u8], ears: Ears<'_>) {
        ears.outcomes.push(Outcome::Wrong);
    }

    fn outstanding(&self) -> usize {
        usize::from(self.sent.is_some())
    }

    fn forget(&mut self) {
        self.sent = None;
    }
}

/// `moorgate-bench login`.
pub(crate) fn login(options: &LogIns) -> Result<bool, String> {
    let common = &options.common;
    if common.raw {
        return Err("a bare server has no accounts: login is not for --raw".to_owned());
    }
    let crew = Crew::start(common, 0, &Load::LogIn(Arc::new(Accounts::of_run(options))))?.ramped()?;
    crew.warm_up(options.warmup);
    let Measured { counted, seconds, before, after } = crew.measure(common, &mut || ())?;
    let mut figures = Figures::new(crew.finish()?, counted, seconds);
    figures.shows_tokens = true;
    figures.watch(&common.watch_pid, &before, &after, common.connections);
    finished(&figures, common)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: u32 = 4;

    fn log_in(check_every: u32) -> LogIn {
        LogIn::new(Arc::new(Accounts { prefix: "run".to_owned(), check_every }), NUMBER)
    }

    fn heard(task: &mut LogIn, view: &ResponseView<'_>) -> Vec<Outcome> {
        let (pattern, mut outcomes) = (Pattern::new(0), Vec::new());
        let ears = Ears { pattern: &pattern, outcomes: &mut outcomes };
        task.response(Mono::ZERO, (RequestId(1), view), ears);
        outcomes
    }

    fn welcomed(task: &mut LogIn, user_id: &str) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        task.welcomed(&Welcome { user_id: user_id.to_owned(), ..Welcome::default() }, &mut outcomes);
        outcomes
    }

    fn result(user_id: &str, access_token: &str) -> Vec<u8> {
        let (user_id, access_token) = (user_id.to_owned(), access_token.to_owned());
        LoginResult { user_id, access_token, access_expires_ms: 1, ..LoginResult::default() }.encode_to_vec()
    }

    fn asked(task: &mut LogIn) -> u32 {
        let command = task.request(&mut Pattern::new(0)).0;
        task.asked(RequestId(1), Mono::from_nanos(7));
        assert_eq!(task.outstanding(), 1);
        command
    }

    #[test]
    fn registers_logs_in_and_checks_the_token() {
        let mut task = log_in(2);
        let login = result("run-4", "token");
        let good = ResponseView { login: &login, ..ResponseView::default() };
        assert_eq!((welcomed(&mut task, ""), task.token()), (vec![Outcome::Ask], Some("")));
        assert_eq!((asked(&mut task), heard(&mut task, &good)), (REGISTER, vec![Outcome::Ready]));
        for _ in 0..2 {
            assert_eq!((welcomed(&mut task, ""), task.token()), (vec![Outcome::Ask], Some("")));
            let at = Mono::from_nanos(7);
            assert_eq!((asked(&mut task), heard(&mut task, &good)), (LOGIN, vec![Outcome::Reply(at)]));
            assert_eq!((task.token(), task.outstanding()), (Some("token"), 0));
            assert_eq!(welcomed(&mut task, "run-4"), [Outcome::TokenGood]);
        }
        let mut unchecked = log_in(3);
        unchecked.stage = Stage::LoggingIn;
        asked(&mut unchecked);
        heard(&mut unchecked, &good);
        assert_eq!(unchecked.token(), Some(""));
    }

    #[test]
    fn a_login_that_is_not_right_is_wrong() {
        for (user, token) in [("run-5", "token"), ("run-4", ""), ("", "")] {
            let mut task = log_in(1);
            asked(&mut task);
            let login = result(user, token);
            let view = ResponseView { login: &login, ..ResponseView::default() };
            assert_eq!(heard(&mut task, &view), [Outcome::Wrong]);
        }
        let mut task = log_in(1);
        asked(&mut task);
        let view = ResponseView { status: Code::Unauthenticated.to_wire(), ..ResponseView::default() };
        assert!(matches!(heard(&mut task, &view)[..], [Outcome::Failed(_)]));
        assert_eq!(heard(&mut task, &view), [Outcome::Wrong], "nothing was asked");
        assert_eq!(welcomed(&mut task, "run-4"), [Outcome::Wrong], "an anonymous session");
        task.stage = Stage::Checking("token".to_owned());
        assert_eq!(welcomed(&mut task, "run-5"), [Outcome::Wrong], "another user");
    }
}

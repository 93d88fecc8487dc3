//! The servers of a Nacos cluster: the one that is asked, which interface it has, and the login.
//!
//! A server that fails is left for the next, and is asked which interface it has when it is come back to. Each server is
//! tried once for a question, and a token that is refused is replaced once.

use super::api::{Api, Envelope, LoginAnswer, Op, is_elsewhere};
use super::login::Login;
use crate::ambient::{now, random_u64};
use crate::error::RegistryError;
use crate::http::{Answer, Ask, Content, Http, Method, encoded, pairs};
use crate::settings::NacosSettings;
use crate::stop::Stop;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(4);

/// A question's values, by name; empty ones are left out.
pub(crate) type Values = Vec<(&'static str, String)>;

/// An answer that is good, and of which interface.
pub(crate) struct Good {
    pub(crate) api: Api,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug)]
struct Server {
    http: Http,
    /// Once it is known.
    api: Option<Api>,
}

/// The servers.
#[derive(Debug)]
pub(crate) struct Cluster {
    servers: Vec<Server>,
    /// The one that is asked.
    at: usize,
    login: Login,
    username: String,
    password: String,
}

impl Cluster {
    /// Begins with any of the servers, so that not all clients ask the first.
    pub(crate) fn new(settings: &NacosSettings) -> Cluster {
        let http = |server: &String| Http::new(server, settings.ca_file.as_deref(), TIMEOUT);
        let servers: Vec<Server> =
            settings.servers.iter().map(|server| Server { http: http(server), api: None }).collect();
        Cluster {
            at: usize::try_from(random_u64() % servers.len().max(1) as u64).unwrap_or(0),
            servers,
            login: Login::default(),
            username: settings.username.clone(),
            password: settings.password.clone().unwrap_or_default(),
        }
    }

    /// The server that is asked next.
    pub(crate) fn place(&self) -> String {
        self.servers.get(self.at).map_or_else(String::new, |server| server.http.server().to_owned())
    }

    /// An error of the server's answer.
    pub(crate) fn unexpected(&self, cause: impl ToString) -> RegistryError {
        RegistryError::Unexpected { server: self.place(), cause: cause.to_string() }
    }

    /// Asks one server after the other, until one answers.
    pub(crate) fn ask(
        &mut self,
        op: Op,
        values: &dyn Fn(Api) -> Values,
        stop: &Stop,
    ) -> Result<Good, RegistryError> {
        let mut last = RegistryError::Settings { what: "no server of Nacos is named: `servers`".to_owned() };
        for _ in 0..self.servers.len() {
            let result = self.ask_server(op, values, stop);
            let error = match result {
                Err(error) if is_the_servers(&error) => error,
                result => return result,
            };
            if let Some(server) = self.servers.get_mut(self.at) {
                server.api = None;
            }
            self.at = (self.at + 1) % self.servers.len();
            if stop.is_set() {
                return Err(error);
            }
            last = error;
        }
        Err(last)
    }

    fn ask_server(
        &mut self,
        op: Op,
        values: &dyn Fn(Api) -> Values,
        stop: &Stop,
    ) -> Result<Good, RegistryError> {
        let known = self.servers.get(self.at).and_then(|server| server.api);
        for api in [Api::V3, Api::V1].into_iter().filter(|api| known.is_none_or(|known| known == *api)) {
            let answer = self.ask_api(api, op, &values(api), stop)?;
            if is_elsewhere(answer.status, &answer.body) && api == Api::V3 && known.is_none() {
                continue;
            }
            let Some(server) = self.servers.get_mut(self.at) else { break };
            if is_elsewhere(answer.status, &answer.body) {
                // It had it before, or has neither: another program, or another version since.
                return Err(server.http.unexpected("there is no interface of Nacos, neither v3 nor v1"));
            }
            server.api = Some(api);
            return judged(&server.http, api, answer);
        }
        Err(self.unexpected("no interface"))
    }

    /// With the token, and once more with another one if that is refused.
    fn ask_api(&mut self, api: Api, op: Op, values: &Values, stop: &Stop) -> Result<Answer, RegistryError> {
        let (method, path) = api.place(op);
        for refused in [false, true] {
            if refused {
                self.login.refused();
            }
            let mut values = values.clone();
            if !self.username.is_empty() {
                values.push(("accessToken", self.token(stop)?));
            }
            let query = pairs(values.iter().map(|(name, value)| (*name, value.clone())));
            let answer = self.send(&Ask::new(method.clone(), &format!("{path}?{query}")), stop)?;
            let denied = matches!(answer.status, 401 | 403) && !self.username.is_empty();
            if !denied || refused {
                return Ok(answer);
            }
        }
        Err(self.unexpected("no answer"))
    }

    fn send(&mut self, ask: &Ask<'_>, stop: &Stop) -> Result<Answer, RegistryError> {
        match self.servers.get_mut(self.at) {
            Some(server) => server.http.ask(ask, stop),
            None => Err(RegistryError::Settings { what: "no server of Nacos is named".to_owned() }),
        }
    }

    fn token(&mut self, stop: &Stop) -> Result<String, RegistryError> {
        if self.login.is_due(now()) {
            let result = self.log_in(stop);
            if let Err(error) = result
                && self.login.token(now()).is_none()
            {
                return Err(error);
            }
        }
        Ok(self.login.token(now()).unwrap_or_default().to_owned())
    }

    fn log_in(&mut self, stop: &Stop) -> Result<(), RegistryError> {
        // In the body and not in the address, where logs would have it.
        let form = format!("username={}&password={}", encoded(&self.username), encoded(&self.password));
        for api in [Api::V3, Api::V1] {
            let ask = Ask { content: Content::Form(&form), ..Ask::new(Method::POST, api.login()) };
            let answer = self.send(&ask, stop)?;
            if is_elsewhere(answer.status, &answer.body) {
                continue;
            }
            let Some(server) = self.servers.get(self.at) else { break };
            if answer.status != 200 {
                return Err(server.http.refused(&answer));
            }
            let login: LoginAnswer = serde_json::from_slice(login_of(&answer.body).as_bytes())
                .map_err(|error| server.http.unexpected(format!("a login without a token: {error}")))?;
            self.login.succeeded(now(), login.access_token, Duration::from_secs(login.token_ttl));
            return Ok(());
        }
        Err(self.unexpected("it has no login"))
    }
}

/// The login, out of an envelope if it comes in one.
fn login_of(body: &[u8]) -> String {
    match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) if envelope.data.is_object() => envelope.data.to_string(),
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}

/// Whether another server may answer better.
fn is_the_servers(error: &RegistryError) -> bool {
    match error {
        RegistryError::Unreachable { .. } | RegistryError::Unexpected { .. } => true,
        RegistryError::Refused { code, .. } => (500..600).contains(code),
        _ => false,
    }
}

fn judged(http: &Http, api: Api, answer: Answer) -> Result<Good, RegistryError> {
    if api == Api::V3
        && let Ok(Envelope { code: code @ 1.., message, .. }) = serde_json::from_slice(&answer.body)
        && !matches!(answer.status, 401 | 403 | 500..)
    {
        let words = message.unwrap_or_else(|| answer.words());
        return Err(RegistryError::Refused { server: http.server().to_owned(), code, words });
    }
    match answer.status {
        200 => Ok(Good { api, body: answer.body }),
        _ => Err(http.refused(&answer)),
    }
}

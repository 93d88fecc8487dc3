//! The servers of a Nacos cluster: the one that is asked, which interface it has, and the login.
//!
//! A server that fails is left for the next, and is asked which interface it has when it is come back to. Each server is
//! tried once for a question, and a token that is refused is replaced once.
//!
//! The token goes in headers, which are in no log. Some servers of Nacos 2 look for headers by their case, and do not find
//! those of HTTP libraries: a cluster that denies what comes with headers gets the token in the query, and again only if
//! that helped.

use super::api::{Api, Envelope, LoginAnswer, Op, is_elsewhere};
use super::login::Login;
use crate::ambient::{now, random_u64};
use crate::error::RegistryError;
use crate::http::{Answer, Ask, Content, Http, Method, encoded, pairs};
use crate::settings::{NacosSettings, Secret};
use crate::stop::Stop;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(4);
const HURRIED_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// Where the token goes; `None`: no answer has shown it yet.
    carrier: Option<Carrier>,
    timeout: Duration,
    username: String,
    password: Secret,
}

/// How a server is given the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Headers,
    Query,
}

/// Each way that is to be tried, and whether with a new token. Pure.
fn ways(carrier: Option<Carrier>) -> &'static [(Carrier, bool)] {
    match carrier {
        Some(Carrier::Headers) => &[(Carrier::Headers, false), (Carrier::Headers, true)],
        Some(Carrier::Query) => &[(Carrier::Query, false), (Carrier::Query, true)],
        None => &[(Carrier::Headers, false), (Carrier::Headers, true), (Carrier::Query, false)],
    }
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
            carrier: None,
            timeout: TIMEOUT,
            username: settings.username.clone(),
            password: Secret(settings.password.clone().unwrap_or_default()),
        }
    }

    /// From now on no server has long to answer.
    pub(crate) fn hurry(&mut self) {
        self.timeout = HURRIED_TIMEOUT;
    }

    /// The server that is asked next.
    pub(crate) fn place(&self) -> String {
        self.servers.get(self.at).map_or_else(String::new, |server| server.http.server().to_owned())
    }

    /// An error of the server's answer.
    pub(crate) fn unexpected(&self, cause: impl ToString) -> RegistryError {
        RegistryError::unexpected(&self.place(), &cause.to_string())
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
        let query = pairs(values.iter().map(|(name, value)| (*name, value.clone())));
        let path = format!("{path}?{query}");
        if self.username.is_empty() {
            return self.send(&Ask::new(method, &path), stop);
        }
        let mut last = None;
        for (carrier, is_anew) in ways(self.carrier) {
            if *is_anew {
                self.login.refused();
            }
            let token = self.token(stop)?;
            let answer = match carrier {
                Carrier::Headers => {
                    let bearer = format!("Bearer {token}");
                    // The first is that of Nacos 2 and 3, the second that of Nacos 1.
                    let headers = [("accessToken", token.as_str()), ("Authorization", bearer.as_str())];
                    self.send(&Ask { headers: &headers, ..Ask::new(method.clone(), &path) }, stop)?
                }
                Carrier::Query => {
                    let path = format!("{path}&accessToken={}", encoded(&token));
                    self.send(&Ask::new(method.clone(), &path), stop)?
                }
            };
            if !matches!(answer.status, 401 | 403) {
                self.carrier = Some(*carrier);
                return Ok(answer);
            }
            last = Some(answer);
        }
        last.ok_or_else(|| self.unexpected("no answer"))
    }

    fn send(&mut self, ask: &Ask<'_>, stop: &Stop) -> Result<Answer, RegistryError> {
        match self.servers.get_mut(self.at) {
            Some(server) => server.http.ask(&Ask { timeout: Some(self.timeout), ..ask.clone() }, stop),
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
        let form = format!("username={}&password={}", encoded(&self.username), encoded(&self.password.0));
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
    if api == Api::V3 && !matches!(answer.status, 401 | 403 | 500..) {
        let envelope = serde_json::from_slice::<Envelope>(&answer.body);
        match envelope.map(|envelope| (u32::try_from(envelope.code), envelope.message)) {
            Ok((Ok(0), _)) => {}
            Ok((Ok(code), message)) => {
                let words = message.unwrap_or_else(|| answer.words());
                return Err(RegistryError::refused(http.server(), code, &words));
            }
            // Of another status, it is that which counts.
            _ if answer.status != 200 => {}
            Ok((Err(_), _)) => return Err(http.unexpected("its code is no number from 0 upwards")),
            Err(error) => return Err(http.unexpected(error)),
        }
    }
    match answer.status {
        200 => Ok(Good { api, body: answer.body }),
        _ => Err(http.refused(&answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v3(status: u16, body: &str) -> Result<Good, RegistryError> {
        let http = Http::new("http://nacos", None, TIMEOUT);
        judged(&http, Api::V3, Answer { status, headers: Default::default(), body: body.as_bytes().to_vec() })
    }

    #[test]
    fn an_answer_of_v3_comes_in_its_envelope_or_is_none() {
        assert!(v3(200, r#"{"code": 0, "message": "success", "data": "ok"}"#).is_ok());
        for body in ["ok", "", "[]", "{}", r#"{"code": -1}"#, r#"{"code": "0"}"#, r#"{"code": 99999999999}"#]
        {
            assert!(matches!(v3(200, body), Err(RegistryError::Unexpected { .. })), "{body}");
        }
        let refused = v3(200, r#"{"code": 21003, "message": "not found"}"#);
        assert!(matches!(refused, Err(RegistryError::Refused { code: 21_003, .. })));
        assert!(matches!(v3(400, "no"), Err(RegistryError::Refused { code: 400, .. })));
        assert!(matches!(v3(403, "no"), Err(RegistryError::Denied { .. })));
    }

    #[test]
    fn what_a_server_says_is_fit_for_a_line() {
        let body = format!(r#"{{"code": 30000, "message": "\u001b[2J{}"}}"#, "x".repeat(100_000));
        let told = v3(200, &body).err().unwrap().to_string();
        assert!(told.len() < 300 && !told.contains('\x1b'), "{told}");
        let echoed = format!(r#"{{"code": "\u001b{}"}}"#, "x".repeat(100_000));
        let told = v3(200, &echoed).err().unwrap().to_string();
        assert!(told.len() < 300 && !told.contains('\x1b'), "{told}");
    }

    #[test]
    fn secrets_are_in_no_debug() {
        let (username, password) = ("moorgate".to_owned(), Some("s3cret".to_owned()));
        let mut cluster = Cluster::new(&NacosSettings { username, password, ..NacosSettings::default() });
        cluster.login.succeeded(now(), "t0ken".to_owned(), TIMEOUT);
        let told = format!("{cluster:?}");
        assert!(!told.contains("s3cret") && !told.contains("t0ken"), "{told}");
    }

    #[test]
    fn the_query_has_the_token_only_where_headers_are_not_enough() {
        assert!(ways(Some(Carrier::Headers)).iter().all(|(carrier, _)| *carrier == Carrier::Headers));
        assert_eq!(ways(None).last(), Some(&(Carrier::Query, false)));
    }
}

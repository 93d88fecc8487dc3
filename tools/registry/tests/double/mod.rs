//! A double of Nacos for what no server at hand has: the interface v3, tokens that end, the protection threshold.
//!
//! It answers as Nacos' own controllers do: v3 in an envelope, a beat for an unknown instance with code 21003, a wrong token
//! with 403, and paths that it does not have with a plain 404.

use moorgate_registry::NacosSettings;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// What the test sets, and what came.
#[derive(Default)]
pub(crate) struct State {
    /// Without it, only v1 is there.
    pub(crate) v3: bool,
    /// The only user's password; without it nobody need log in.
    pub(crate) password: Option<&'static str>,
    /// How long a token lives, in seconds, as is said.
    pub(crate) token_ttl: u64,
    /// Tokens below are not taken.
    pub(crate) tokens_from: u32,
    pub(crate) protects: bool,
    pub(crate) cache_millis: u64,
    /// By address, what was registered, or set by the test, as a JSON object.
    pub(crate) instances: BTreeMap<String, String>,
    /// Tokens are looked for in the query alone.
    pub(crate) knows_no_headers: bool,
    /// Questions with a token in the query.
    pub(crate) tokens_in_query: usize,
    /// Each question: method and path, without the query.
    pub(crate) asked: Vec<String>,
    /// Tokens that were given.
    pub(crate) tokens: u32,
}

/// A server; it serves until the test program ends.
pub(crate) struct Double {
    state: Arc<Mutex<State>>,
    pub(crate) settings: NacosSettings,
}

impl Double {
    pub(crate) fn start(state: State) -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let servers = vec![format!("http://{}", listener.local_addr().unwrap())];
        let state = Arc::new(Mutex::new(state));
        let of_threads = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), of_threads.clone());
                std::thread::spawn(move || while serve(&stream, &state).is_some() {});
            }
        });
        Double { state, settings: NacosSettings { servers, ..NacosSettings::default() } }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn count(&self, question: &str) -> usize {
        self.state().asked.iter().filter(|asked| *asked == question).count()
    }
}

/// One question and its answer; `None`: the client has gone.
fn serve(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|count| *count > 0)?;
    let mut length = 0;
    let mut token = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().unwrap(),
            Some(("accesstoken", value)) => token = Some(value.trim().to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut values = pairs(query);
    values.extend(pairs(&String::from_utf8_lossy(&body)));
    let mut state = state.lock().unwrap();
    state.tokens_in_query += usize::from(values.contains_key("accessToken"));
    if let Some(token) = token.filter(|_| !state.knows_no_headers) {
        values.insert("accessToken".to_owned(), token);
    }
    let (status, answer) = state.answer(method, path, &values);
    drop(state);
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", answer.len());
    (&mut &*stream).write_all((head + &answer).as_bytes()).ok()
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), decoded(value)));
    query.split('&').filter_map(pair).collect()
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(code, 16).unwrap());
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).unwrap()
}

impl State {
    fn answer(&mut self, method: &str, path: &str, values: &BTreeMap<String, String>) -> (u16, String) {
        self.asked.push(format!("{method} {path}"));
        let value = |name: &str| values.get(name).map(String::as_str).unwrap_or_default();
        if path.ends_with("/login") {
            return match path.contains("/v3/") == self.v3 {
                true => self.log_in(value("password")),
                false => (404, String::new()),
            };
        }
        let Some((api, rest)) = [("v3", "/nacos/v3/client/ns/instance"), ("v1", "/nacos/v1/ns/instance")]
            .into_iter()
            .find_map(|(api, start)| path.strip_prefix(start).map(|rest| (api, rest)))
        else {
            return (404, String::new());
        };
        if (api == "v3") != self.v3 {
            return (404, r#"{"status": 404, "error": "Not Found"}"#.to_owned());
        }
        let number =
            value("accessToken").strip_prefix("token-").and_then(|number| number.parse::<u32>().ok());
        if self.password.is_some() && number.is_none_or(|number| number < self.tokens_from) {
            return (403, "token invalid!".to_owned());
        }
        let data = self.run(method, rest, value);
        match (self.v3, data) {
            (true, Some(data)) => (200, format!(r#"{{"code": 0, "message": "success", "data": {data}}}"#)),
            (true, None) => {
                (200, r#"{"code": 21003, "message": "instance not found", "data": null}"#.to_owned())
            }
            (false, Some(data)) => (200, data),
            (false, None) => (200, r#"{"code": 20404, "clientBeatInterval": 1000}"#.to_owned()),
        }
    }

    fn log_in(&mut self, password: &str) -> (u16, String) {
        if self.password.is_some_and(|right| right != password) {
            return (403, "unknown user!".to_owned());
        }
        self.tokens += 1;
        (200, format!(r#"{{"accessToken": "token-{}", "tokenTtl": {}}}"#, self.tokens, self.token_ttl))
    }

    /// `None`: there is no such instance.
    fn run<'a>(&mut self, method: &str, rest: &str, value: impl Fn(&str) -> &'a str) -> Option<String> {
        let address = format!("{}:{}", value("ip"), value("port"));
        let known = self.instances.contains_key(&address);
        match (method, rest) {
            ("GET", "/list") => {
                let hosts = self.instances.values().cloned().collect::<Vec<_>>().join(",");
                let (protects, millis) = (self.protects, self.cache_millis);
                Some(match self.v3 {
                    true => format!("[{hosts}]"),
                    false => format!(
                        r#"{{"cacheMillis": {millis}, "hosts": [{hosts}], "reachProtectionThreshold": {protects}}}"#
                    ),
                })
            }
            ("PUT", "/beat") => known.then(|| r#"{"code": 10200, "clientBeatInterval": 1000}"#.to_owned()),
            ("POST", "") if value("heartBeat") == "true" => known.then(|| r#""ok""#.to_owned()),
            ("POST", "") => {
                let (ip, port) = (value("ip"), value("port"));
                let (weight, metadata) = (value("weight"), value("metadata"));
                let host = format!(
                    r#"{{"ip": "{ip}", "port": {port}, "weight": {weight}, "metadata": {metadata}}}"#
                );
                self.instances.insert(address, host);
                Some(r#""ok""#.to_owned())
            }
            ("DELETE", "") => {
                self.instances.remove(&address);
                Some(r#""ok""#.to_owned())
            }
            _ => panic!("{method} {rest} is not what Nacos is asked"),
        }
    }
}

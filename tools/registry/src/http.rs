//! One server, asked over HTTP: bounded in time and in bytes, with no redirects and no proxies.
//!
//! Servers of a registry have certificates of the house: `https` needs a file with those to trust. It is read again for
//! each new agent, and an agent lives until the server fails, so that a new file is taken in without a restart.

use crate::error::RegistryError;
use crate::stop::Stop;
use crate::words::fit;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};

/// Of an answer.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Of a file of certificates.
const CA_BYTES_MAX: u64 = 4 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) use http::Method;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'static str, &'a str)],
    pub(crate) content: Content<'a>,
    /// For the whole request, if not as long as any.
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    None,
    Json(&'a str),
    Form(&'a str),
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: Method, path: &'a str) -> Ask<'a> {
        Ask { method, path, headers: &[], content: Content::None, timeout: None }
    }
}

/// What came back, whatever the status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The beginning of the body, fit for a log.
    pub(crate) fn words(&self) -> String {
        let line = fit(&String::from_utf8_lossy(&self.body));
        if line.is_empty() { "nothing more".to_owned() } else { line }
    }
}

/// One server.
#[derive(Debug)]
pub(crate) struct Http {
    /// Without a path.
    server: String,
    ca_file: Option<PathBuf>,
    timeout: Duration,
    /// Made on use.
    agent: Option<Agent>,
}

impl Http {
    /// `timeout`: for a whole request.
    pub(crate) fn new(server: &str, ca_file: Option<&Path>, timeout: Duration) -> Http {
        let server = server.trim_end_matches('/').to_owned();
        Http { server, ca_file: ca_file.map(Path::to_owned), timeout, agent: None }
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Asks. When `stop` is set the request fails at once, or is not made.
    pub(crate) fn ask(&mut self, ask: &Ask<'_>, stop: &Stop) -> Result<Answer, RegistryError> {
        let agent = match &self.agent {
            Some(agent) => agent.clone(),
            None => self.agent.insert(self.make_agent()?).clone(),
        };
        let result = stop.interrupting(&agent, || send(&agent, &self.server, ask));
        let result = result.unwrap_or(Err(ureq::Error::ConnectionFailed));
        result.map_err(|error| {
            self.agent = None;
            self.told(&error)
        })
    }

    fn make_agent(&self) -> Result<Agent, RegistryError> {
        check_server(&self.server, self.ca_file.as_deref())?;
        let mut tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[]));
        if let Some(ca_file) = &self.ca_file {
            let certificates = read_certificates(ca_file)?;
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            tls = tls.root_certs(certificates).unversioned_rustls_crypto_provider(provider);
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("moorgate-registry/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(self.timeout))
            .tls_config(tls.build());
        Ok(config.build().new_agent())
    }

    fn told(&self, error: &ureq::Error) -> RegistryError {
        let server = self.server.clone();
        match error {
            ureq::Error::BodyExceedsLimit(_) => {
                RegistryError::TooMuch { server, what: "bytes", max: BODY_BYTES_MAX }
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                RegistryError::Settings { what: format!("{server} cannot be asked: {error}") }
            }
            ureq::Error::Protocol(_) => RegistryError::unexpected(&server, &error.to_string()),
            _ => RegistryError::unreachable(&server, &error.to_string()),
        }
    }

    /// The answer is an error.
    pub(crate) fn refused(&self, answer: &Answer) -> RegistryError {
        match answer.status {
            401 | 403 => RegistryError::denied(&self.server, &answer.words()),
            status => RegistryError::refused(&self.server, u32::from(status), &answer.words()),
        }
    }

    /// The answer cannot be read.
    pub(crate) fn unexpected(&self, cause: impl ToString) -> RegistryError {
        RegistryError::unexpected(&self.server, &cause.to_string())
    }
}

fn send(agent: &Agent, server: &str, ask: &Ask<'_>) -> Result<Answer, ureq::Error> {
    let mut request =
        http::Request::builder().method(ask.method.clone()).uri(format!("{server}{}", ask.path));
    for (name, value) in ask.headers {
        request = request.header(*name, *value);
    }
    let (kind, content) = match ask.content {
        Content::None if ask.method == Method::GET || ask.method == Method::DELETE => {
            return received(agent.run(within(agent, request.body(())?, ask.timeout))?);
        }
        Content::None => (None, ""),
        Content::Json(text) => (Some("application/json"), text),
        Content::Form(text) => (Some("application/x-www-form-urlencoded"), text),
    };
    if let Some(kind) = kind {
        request = request.header("Content-Type", kind);
    }
    received(agent.run(within(agent, request.body(content)?, ask.timeout))?)
}

fn within<B: ureq::AsSendBody>(
    agent: &Agent,
    request: http::Request<B>,
    timeout: Option<Duration>,
) -> http::Request<B> {
    match timeout {
        None => request,
        timeout => agent.configure_request(request).timeout_global(timeout).build(),
    }
}

fn received(response: http::Response<Body>) -> Result<Answer, ureq::Error> {
    let (parts, mut body) = response.into_parts();
    let body = body.with_config().limit(BODY_BYTES_MAX as u64).read_to_vec()?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// Whether a server can be asked at all.
pub(crate) fn check_server(server: &str, ca_file: Option<&Path>) -> Result<(), RegistryError> {
    let wrong = |why: &str| Err(RegistryError::Settings { what: format!("{:?} {why}", fit(server)) });
    let Some((scheme @ ("http" | "https"), host)) = server.trim_end_matches('/').split_once("://") else {
        return wrong("is no address of a registry: it is http://HOST:PORT or https://HOST:PORT");
    };
    if host.is_empty() || !host.chars().all(|c| c.is_ascii_graphic()) || host.contains(['/', '?', '#', '@']) {
        return wrong("is no address of a registry: behind http:// stand a host and a port, and no more");
    }
    match (scheme, ca_file) {
        ("https", None) => wrong("needs a `ca_file` with the certificates to trust"),
        ("https", Some(ca_file)) => read_certificates(ca_file).map(|_| ()),
        _ => Ok(()),
    }
}

/// A file of certificates, not a device that never ends.
fn read_bounded(ca_file: &Path) -> std::io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    std::fs::File::open(ca_file)?.take(CA_BYTES_MAX.saturating_add(1)).read_to_end(&mut pem)?;
    match pem.len() as u64 > CA_BYTES_MAX {
        true => Err(std::io::Error::other(format!("it has more than {CA_BYTES_MAX} bytes"))),
        false => Ok(pem),
    }
}

fn read_certificates(ca_file: &Path) -> Result<RootCerts, RegistryError> {
    let wrong = |why: String| RegistryError::Settings { what: format!("{}: {why}", ca_file.display()) };
    let pem = read_bounded(ca_file).map_err(|error| wrong(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(wrong(error.to_string())),
        }
    }
    if certificates.is_empty() {
        return Err(wrong("has no certificate in PEM".to_owned()));
    }
    Ok(certificates.into())
}

/// Letters and digits as they are, anything else as `%XX`.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `name=value&...`, without those that are empty.
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let set = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    set.map(|(name, value)| format!("{name}={}", encoded(&value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers one connection with these bytes, once it has a request.
    fn answered(answer: Vec<u8>) -> (Http, std::thread::JoinHandle<String>) {
        // At an address where nobody else listens, who might be given the port when it is let go.
        let listener = TcpListener::bind("127.0.0.78:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).unwrap();
            // A client that has had enough closes before the end.
            let _ = stream.write_all(&answer);
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        (Http::new(&server, None, Duration::from_secs(20)), thread)
    }

    #[test]
    fn an_error_is_an_answer_and_a_redirect_is_not_followed() {
        let wire =
            b"HTTP/1.1 302 Found\r\nLocation: http://[::1]/\r\nContent-Length: 7\r\n\r\nno\x1b way".to_vec();
        let (mut http, thread) = answered(wire);
        let ask = Ask {
            headers: &[("X-Consul-Token", "t")],
            content: Content::Json("{}"),
            ..Ask::new(Method::PUT, "/a?b=c")
        };
        let answer = http.ask(&ask, &Stop::new()).unwrap();
        assert_eq!((answer.status, answer.words().as_str()), (302, "no\\u{1b} way"));
        assert_eq!(answer.header("location"), Some("http://[::1]/"));
        let request = thread.join().unwrap();
        assert!(request.starts_with("PUT /a?b=c HTTP/1.1\r\n") && request.contains("x-consul-token: t\r\n"));
    }

    #[test]
    fn a_body_has_a_bound() {
        let mut wire = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        wire.resize(wire.len() + BODY_BYTES_MAX + 10, b' ');
        let (mut http, thread) = answered(wire);
        let error = http.ask(&Ask::new(Method::GET, "/"), &Stop::new()).unwrap_err();
        assert!(matches!(error, RegistryError::TooMuch { what: "bytes", .. }), "{error}");
        thread.join().unwrap();
    }

    #[test]
    fn what_is_no_http_and_what_does_not_listen_are_told() {
        let (mut http, thread) = answered(b"220 mail.example\r\n\r\n".to_vec());
        let error = http.ask(&Ask::new(Method::GET, "/"), &Stop::new()).unwrap_err();
        assert!(matches!(error, RegistryError::Unexpected { .. }), "{error}");
        thread.join().unwrap();
        let error = http.ask(&Ask::new(Method::GET, "/"), &Stop::new()).unwrap_err();
        assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    }

    #[test]
    fn addresses_are_checked() {
        for good in ["http://10.0.0.1:8500", "http://[fd00::1]:8500/", "http://consul.internal"] {
            assert_eq!(check_server(good, None), Ok(()));
        }
        for bad in ["10.0.0.1:8500", "ftp://a", "http://", "http://a/v1", "http://u:p@a", "http://a b"] {
            assert!(check_server(bad, None).unwrap_err().to_string().contains("no address"), "{bad}");
        }
        assert!(check_server("https://a", None).unwrap_err().to_string().contains("ca_file"));
        let missing = Path::new("/nowhere/ca.pem");
        assert!(
            check_server("https://a", Some(missing)).unwrap_err().to_string().contains("/nowhere/ca.pem")
        );
        let no_pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(check_server("https://a", Some(&no_pem)).unwrap_err().to_string().contains("no certificate"));
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(pairs([("a", "b/ü&=".to_owned()), ("none", String::new())]), "a=b%2F%C3%BC%26%3D");
    }
}

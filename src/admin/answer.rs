//! Which request gets which answer.

use super::operation::{self, Operation};
use super::query::Query;
use super::{OperateError, Pages};
use crate::base::text::shown;
use serde_json::json;

const OK: &str = "200 OK";
const BAD: &str = "400 Bad Request";
const UNAVAILABLE: &str = "503 Service Unavailable";
/// As much of a wrong name is shown.
const HOST_BYTES_MAX: usize = 256;

/// A whole request, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) target: &'a str,
    /// A `Host` that does not name this gateway.
    pub(super) foreign_host: Option<&'a [u8]>,
    /// A web page asks for it.
    pub(super) has_origin: bool,
    /// Something comes behind the head.
    pub(super) has_body: bool,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    /// The methods that would be right; empty when the method is not what is wrong.
    pub(super) allow: &'static str,
    pub(super) body: String,
}

fn text(status: &'static str, body: impl Into<String>) -> Answer {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Answer { status, content_type, allow: "", body: body.into() }
}

fn json(status: &'static str, body: &serde_json::Value) -> Answer {
    Answer { status, content_type: "application/json", allow: "", body: format!("{body}\n") }
}

fn error(status: &'static str, why: &str) -> Answer {
    json(status, &json!({ "error": why }))
}

/// What cannot be read as a request.
pub(super) fn not_a_request() -> Answer {
    text(BAD, "not a request\n")
}

/// What a path leads to.
enum Place {
    Live,
    Ready,
    Metrics,
    Operation(fn(Query) -> Result<Operation, String>),
}

fn place(path: &str) -> Option<(&'static str, Place)> {
    Some(match path {
        "/livez" => ("GET", Place::Live),
        "/readyz" => ("GET", Place::Ready),
        "/metrics" => ("GET", Place::Metrics),
        "/bans" => ("GET", Place::Operation(operation::bans)),
        "/kick" => ("POST", Place::Operation(operation::kick)),
        "/revoke" => ("POST", Place::Operation(operation::revoke)),
        "/ban" => ("POST", Place::Operation(operation::ban)),
        "/unban" => ("POST", Place::Operation(operation::unban)),
        "/endpoints" => ("GET", Place::Operation(operation::endpoints)),
        "/explain" => ("GET", Place::Operation(operation::explain)),
        "/canary" => ("POST", Place::Operation(operation::canary)),
        _ => return None,
    })
}

/// The answer to a request.
pub(super) fn answer(request: Request<'_>, pages: &dyn Pages) -> Answer {
    if let Some(host) = request.foreign_host {
        let host = shown(&String::from_utf8_lossy(host), HOST_BYTES_MAX);
        let right = "ask for an IP address or localhost, or write the name into admin.hosts";
        return text("421 Misdirected Request", format!("`{host}` is no name of this gateway; {right}\n"));
    }
    if request.has_origin {
        return text("403 Forbidden", "not for web pages: a request with an Origin is refused\n");
    }
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let Some((method, place)) = place(path) else {
        return text(
            "404 Not Found",
            "there are GET /livez, /readyz, /metrics, /bans, /endpoints, /explain and POST /kick, /revoke, /ban, \
             /unban, /canary\n",
        );
    };
    let allow = if method == "GET" { "GET, HEAD" } else { method };
    if request.method != method && !(request.method == "HEAD" && method == "GET") {
        return Answer { allow, ..text("405 Method Not Allowed", format!("only {allow}\n")) };
    }
    match place {
        Place::Live if pages.is_live() => text(OK, "live\n"),
        Place::Live => text(UNAVAILABLE, "a loop makes no progress\n"),
        Place::Ready => match pages.readiness() {
            Ok(()) => text(OK, "ready\n"),
            Err(why) => text(UNAVAILABLE, format!("not ready: {why}\n")),
        },
        Place::Metrics => text(OK, pages.metrics()),
        Place::Operation(_) if request.has_body => {
            error(BAD, "there is a body; write the parameters into the path, as /kick?user=U")
        }
        Place::Operation(read) => match Query::parse(query).and_then(read) {
            Ok(operation) => operate(operation, pages),
            Err(why) => error(BAD, &why),
        },
    }
}

fn operate(operation: Operation, pages: &dyn Pages) -> Answer {
    // Reading is no news.
    let line = (!operation.is_reading()).then(|| operation.to_string());
    let (answer, result) = match pages.operate(operation) {
        Ok(outcome) => {
            let value = outcome.json();
            (json(OK, &value), value.to_string())
        }
        Err(why) => {
            let status = match why {
                OperateError::Busy | OperateError::Full => UNAVAILABLE,
                OperateError::NoRoute { .. }
                | OperateError::NoService { .. }
                | OperateError::NoCanary { .. } => "404 Not Found",
            };
            (error(status, &why.to_string()), why.to_string())
        }
    };
    if let Some(line) = line {
        log::info!("operator: {line}: {result}");
    }
    answer
}

//! The thread that answers: sockets, and whole requests within bounds.

use super::Pages;
use super::answer::{Answer, Request, answer, not_a_request};
use crate::base::clock::Clock;
use moorgate_proto::time::Mono;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request above this size is refused.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// A request with more headers is refused.
const HEADERS_MAX: usize = 64;
/// For a request to come whole, and for an answer to be taken: the next one waits for as long.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Between two tries to accept when the system refuses.
const PAUSE: Duration = Duration::from_millis(100);

/// The thread that answers.
pub struct Admin {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Answers those who connect to a listening socket, until [`Admin::stop`].
    ///
    /// # Errors
    /// When the socket has no address, or there is no thread left.
    pub fn start(listener: TcpListener, pages: Arc<dyn Pages>) -> io::Result<Admin> {
        // An inherited socket may have come otherwise.
        listener.set_nonblocking(false)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                match stream {
                    Ok(stream) => {
                        if let Err(error) = serve(stream, pages.as_ref()) {
                            log::debug!("admin: {error}");
                        }
                    }
                    // Without descriptors accept fails at once, and would again: it must not spin meanwhile.
                    Err(error) => {
                        log::warn!("admin: {error}");
                        std::thread::park_timeout(PAUSE);
                    }
                }
            }
        })?;
        Ok(Admin { address, stopping, thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        // The accept that it waits in has to return.
        if TcpStream::connect_timeout(&self.address, TIMEOUT).is_ok() && self.thread.join().is_err() {
            log::error!("the admin thread has failed");
        }
    }
}

/// What may still come from one peer.
struct Patience {
    clock: Clock,
    until: Mono,
}

impl Patience {
    fn is_over(&self) -> bool {
        self.clock.read().mono >= self.until
    }

    /// Reads once, within the time that is left.
    fn read(&self, stream: &mut TcpStream, chunk: &mut [u8]) -> io::Result<usize> {
        loop {
            // A zero timeout would mean none.
            let left = self.until.since(self.clock.read().mono).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(left))?;
            match stream.read(chunk) {
                // The system does not take up a read with a timeout again: as after a pause of the whole process.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                count => return count,
            }
        }
    }
}

fn serve(mut stream: TcpStream, pages: &dyn Pages) -> io::Result<()> {
    let clock = Clock::start();
    let patience = Patience { clock, until: clock.read().mono + TIMEOUT };
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    let (answer, has_more) = loop {
        let count = patience.read(&mut stream, &mut chunk)?;
        head.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let request = request(&parsed);
                break (answer(request, pages), request.has_body);
            }
            Ok(httparse::Status::Partial)
                if count > 0 && head.len() < REQUEST_BYTES_MAX && !patience.is_over() => {}
            Ok(httparse::Status::Partial) | Err(_) => break (not_a_request(), count > 0),
        }
    };
    let Answer { status, content_type, allow, body } = answer;
    let length = body.len();
    let allow = if allow.is_empty() { String::new() } else { format!("Allow: {allow}\r\n") };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{allow}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )?;
    if has_more {
        linger(&mut stream, &patience);
    }
    Ok(())
}

/// Reads what comes behind a request that was answered before its end: closing with it unread would be a reset, which
/// may overtake the answer.
fn linger(stream: &mut TcpStream, patience: &Patience) {
    let mut chunk = [0; 1024];
    let mut rest = REQUEST_BYTES_MAX;
    let mut left = stream.shutdown(Shutdown::Write).is_ok();
    while left && !patience.is_over() {
        let count = patience.read(stream, &mut chunk).unwrap_or_default();
        rest = rest.saturating_sub(count);
        left = count > 0 && rest > 0;
    }
}

fn request<'a>(parsed: &httparse::Request<'_, 'a>) -> Request<'a> {
    let header = |name: &str| {
        parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    let has_length = header("Content-Length").is_some_and(|length| length != b"0");
    Request {
        method: parsed.method.unwrap_or_default(),
        target: parsed.path.unwrap_or_default(),
        has_origin: header("Origin").is_some(),
        has_body: has_length || header("Transfer-Encoding").is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ban, BanTarget, OperateError, Operation, Outcome};
    use super::*;
    use parking_lot::Mutex;

    /// Pages that are always the same, and a list of what was to be done.
    #[derive(Default)]
    struct Fixed(Mutex<Vec<String>>);

    impl Pages for Fixed {
        fn is_live(&self) -> bool {
            true
        }
        fn readiness(&self) -> Result<(), String> {
            Err("no links".to_owned())
        }
        fn metrics(&self) -> String {
            "m 1\n".to_owned()
        }
        fn operate(&self, operation: Operation) -> Result<Outcome, OperateError> {
            self.0.lock().push(operation.to_string());
            match operation {
                Operation::Kick { .. } => Ok(Outcome::Sessions(2)),
                Operation::Revoke(_) => Err(OperateError::Busy),
                Operation::Ban { .. } => Err(OperateError::Full),
                Operation::Unban(_) => Ok(Outcome::Changed(1)),
                Operation::Bans => {
                    let target = BanTarget::User("eve".to_owned());
                    let bans = vec![Ban { target, left: Duration::from_secs(9), reason: "operator" }];
                    Ok(Outcome::Bans { bans, total: 1 })
                }
                Operation::Endpoints => {
                    Ok(Outcome::Endpoints { endpoints: Vec::new(), total: 0, notes: Vec::new() })
                }
                Operation::Explain(_) => Err(OperateError::NoRoute { command: 7, version: 1 }),
                Operation::Canary { share, .. } => Ok(Outcome::Share { before: 0, now: share }),
            }
        }
    }

    fn started() -> (Admin, Arc<Fixed>) {
        let pages = Arc::new(Fixed::default());
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        (Admin::start(listener, pages.clone()).unwrap(), pages)
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A request without headers but these; status and body of the answer.
    fn told(admin: &Admin, line: &str, headers: &str) -> (u16, String) {
        let answer = ask(admin.address(), format!("{line} HTTP/1.1\r\n{headers}\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head["HTTP/1.1 ".len()..][..3].parse().unwrap(), body.to_owned())
    }

    #[test]
    fn pages_are_answered_and_nonsense_is_refused() {
        let (admin, _) = started();
        let address = admin.address();
        assert!(ask(address, b"GET /livez HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK"));
        assert!(ask(address, b"GET /readyz HTTP/1.1\r\n\r\n").ends_with("not ready: no links\n"));
        assert!(ask(address, b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").ends_with("m 1\n"));
        assert!(ask(address, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        let wrong = ask(address, b"POST /livez HTTP/1.1\r\n\r\n");
        assert!(wrong.starts_with("HTTP/1.1 405") && wrong.contains("\r\nAllow: GET\r\n"), "{wrong}");
        assert!(ask(address, b"\x16\x03\x01\x02\x00").starts_with("HTTP/1.1 400"));
        assert!(ask(address, b"GET /").starts_with("HTTP/1.1 400"));
        admin.stop();
    }

    #[test]
    fn operations_are_carried_out_and_their_outcome_is_json() {
        let (admin, pages) = started();
        let cases = [
            ("POST /kick?user=a%20b&message=why", 200, r#"{"sessions":2}"#),
            ("POST /revoke?user=alice", 503, r#"{"error":"the gateway is too busy; try again"}"#),
            (
                "POST /ban?address=192.0.2.7&for=10m",
                503,
                r#"{"error":"there are as many bans by operators as there may be; lift one, or wait for an end"}"#,
            ),
            ("POST /unban?address=192.0.2.7", 200, r#"{"changed":1}"#),
            ("GET /bans", 200, r#"{"bans":[{"reason":"operator","seconds":9,"user":"eve"}],"total":1}"#),
            ("GET /endpoints", 200, r#"{"endpoints":[],"notes":[],"total":0}"#),
            ("POST /canary?service=chat&share=2.5%25", 200, r#"{"before":"0%","now":"2.5%"}"#),
            (
                "GET /explain?command=7",
                404,
                r#"{"error":"no route leads to command 0x0007 in version 1; look at [[route]]"}"#,
            ),
        ];
        for (line, status, body) in cases {
            assert_eq!(told(&admin, line, "Content-Length: 0\r\n"), (status, format!("{body}\n")), "{line}");
        }
        let done = [
            "kick user=\"a b\" message=\"why\"",
            "revoke user=\"alice\"",
            "ban address=192.0.2.7 for=10m",
            "unban address=192.0.2.7",
            "bans",
            "endpoints",
            "canary service=\"chat\" share=2.5%",
            "explain command=0x0007",
        ];
        assert_eq!(*pages.0.lock(), done);
        admin.stop();
    }

    #[test]
    fn what_is_not_understood_changes_nothing() {
        let (admin, pages) = started();
        let status = |line: &str, headers: &str| told(&admin, line, headers).0;
        // Only POST changes anything: a link, or an image in a mail, is a GET.
        assert_eq!(status("GET /kick?user=alice", ""), 405);
        assert_eq!(status("POST /bans", ""), 405);
        assert_eq!(status("GET /canary?service=chat&share=5%25", ""), 405);
        assert_eq!(status("POST /canary?service=chat&share=5", ""), 400);
        assert_eq!(status("POST /explain?command=7", ""), 405);
        assert_eq!(status("GET /explain?command=7&user=+49", ""), 400);
        assert_eq!(status("POST /kick", ""), 400);
        assert_eq!(status("POST /kick?user=%zz", ""), 400);
        assert_eq!(status("POST /kick?user=+49", ""), 400);
        // A web page, whichever and however.
        for origin in ["Origin: http://evil.example\r\n", "origin: null\r\n", "ORIGIN: \r\n"] {
            assert_eq!(status("POST /kick?user=alice", origin), 403, "{origin}");
            assert_eq!(status("GET /bans", origin), 403, "{origin}");
            assert_eq!(status("GET /explain?command=7", origin), 403, "{origin}");
            assert_eq!(status("POST /canary?service=chat&share=5%25", origin), 403, "{origin}");
        }
        let (status, body) = told(&admin, "POST /kick?user=alice", "Content-Length: 5\r\n\r\nabcde");
        assert_eq!((status, body.contains("there is a body")), (400, true), "{body}");
        assert_eq!(told(&admin, "POST /kick?user=alice", "Transfer-Encoding: chunked\r\n").0, 400);
        assert_eq!(*pages.0.lock(), [""; 0]);
        admin.stop();
    }

    #[test]
    fn an_answer_before_the_end_of_a_request_is_not_lost_to_a_reset() {
        let (admin, _) = started();
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(REQUEST_BYTES_MAX + 4096));
        let mut stream = TcpStream::connect(admin.address()).unwrap();
        stream.write_all(long.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        drop(stream);
        admin.stop();
    }
}

//! The operator's HTTP: `/livez`, `/readyz`, `/metrics`. One thread, one request per connection.
//!
//! It listens where clients cannot reach it; a request is small, and a slow peer is given up.

use crate::base::clock::Clock;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request above this size is refused.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// For a request to come whole, and for an answer to be taken: the next one waits for as long.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Between two tries to accept when the system refuses.
const PAUSE: Duration = Duration::from_millis(100);

/// What the pages show.
pub trait Pages: Send + Sync {
    /// Whether the loops make progress.
    fn is_live(&self) -> bool;
    /// Whether clients should be sent here; if not, why.
    fn readiness(&self) -> Result<(), String>;
    /// Prometheus' text format.
    fn metrics(&self) -> String;
}

/// The thread that answers.
pub struct Admin {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Listens and answers until [`Admin::stop`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(address: SocketAddr, pages: Arc<dyn Pages>) -> io::Result<Admin> {
        let listener = TcpListener::bind(address)?;
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

struct Answer {
    status: &'static str,
    body: String,
}

fn serve(mut stream: TcpStream, pages: &dyn Pages) -> io::Result<()> {
    let clock = Clock::start();
    let until = clock.read().mono + TIMEOUT;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    let answer = loop {
        // A zero timeout would mean none.
        let left = until.since(clock.read().mono).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut chunk)?;
        request.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&request) {
            Ok(httparse::Status::Complete(_)) => break answer(parsed.method, parsed.path, pages),
            Ok(httparse::Status::Partial)
                if count > 0 && request.len() < REQUEST_BYTES_MAX && clock.read().mono < until => {}
            Ok(httparse::Status::Partial) | Err(_) => break text("400 Bad Request", "not a request\n"),
        }
    };
    let Answer { status, body } = answer;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn text(status: &'static str, body: &str) -> Answer {
    Answer { status, body: body.to_owned() }
}

fn answer(method: Option<&str>, path: Option<&str>, pages: &dyn Pages) -> Answer {
    if method != Some("GET") {
        return text("405 Method Not Allowed", "only GET\n");
    }
    match path.unwrap_or_default() {
        "/livez" if pages.is_live() => text("200 OK", "live\n"),
        "/livez" => text("503 Service Unavailable", "a loop makes no progress\n"),
        "/readyz" => match pages.readiness() {
            Ok(()) => text("200 OK", "ready\n"),
            Err(why) => Answer { status: "503 Service Unavailable", body: format!("not ready: {why}\n") },
        },
        "/metrics" => Answer { status: "200 OK", body: pages.metrics() },
        _ => text("404 Not Found", "there are /livez, /readyz and /metrics\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

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
    }

    fn get(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn pages_are_answered_and_nonsense_is_refused() {
        let admin = Admin::start("127.0.0.1:0".parse().unwrap(), Arc::new(Fixed)).unwrap();
        let address = admin.address();
        assert!(get(address, b"GET /livez HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK"));
        assert!(get(address, b"GET /readyz HTTP/1.1\r\n\r\n").ends_with("not ready: no links\n"));
        assert!(get(address, b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").ends_with("m 1\n"));
        assert!(get(address, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(get(address, b"POST /livez HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(get(address, b"\x16\x03\x01\x02\x00").starts_with("HTTP/1.1 400"));
        assert!(get(address, b"GET /").starts_with("HTTP/1.1 400"));
        admin.stop();
    }
}

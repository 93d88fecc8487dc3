use super::*;
use crate::admin::{Ban, BanTarget, OperateError, Operation, Outcome};
use parking_lot::Mutex;
use std::net::{TcpListener, TcpStream};

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

fn listener() -> TcpListener {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

fn started() -> (Admin, Arc<Fixed>) {
    let pages = Arc::new(Fixed::default());
    (Admin::start(listener(), vec!["gw1.internal".to_owned()], pages.clone()).unwrap(), pages)
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
    assert!(ask(address, b"GET /metrics HTTP/1.0\r\nHost: [2001:db8::1]:7\r\n\r\n").ends_with("m 1\n"));
    assert!(ask(address, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    let wrong = ask(address, b"POST /livez HTTP/1.1\r\n\r\n");
    assert!(wrong.starts_with("HTTP/1.1 405") && wrong.contains("\r\nAllow: GET, HEAD\r\n"), "{wrong}");
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

#[test]
fn head_has_the_length_and_no_body() {
    let (admin, pages) = started();
    for page in ["livez", "readyz", "metrics", "bans"] {
        let ask =
            |method: &str| ask(admin.address(), format!("{method} /{page} HTTP/1.1\r\n\r\n").as_bytes());
        let (head, body) = (ask("HEAD"), ask("GET"));
        assert!(head.ends_with("\r\n\r\n") && body.starts_with(&head) && body.len() > head.len(), "{head}");
    }
    let refused = ask(admin.address(), b"HEAD /kick?user=alice HTTP/1.1\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("\r\nAllow: POST\r\n"), "{refused}");
    assert_eq!(*pages.0.lock(), ["bans", "bans"]);
    admin.stop();
}

#[test]
fn foreign_host_is_misdirected() {
    let (admin, pages) = started();
    let status = |headers: &str| told(&admin, "POST /kick?user=alice", headers).0;
    for host in ["evil.example", "evil.example:7001", "localhost.evil.example", "gw1.internal.evil.example"] {
        assert_eq!(status(&format!("Host: {host}\r\n")), 421, "{host}");
        assert_eq!(status(&format!("Host: localhost\r\nhost: {host}\r\n")), 421, "one of two: {host}");
        let health = told(&admin, "GET /livez", &format!("Host: {host}\r\n"));
        assert_eq!(health.0, 421);
        assert!(health.1.contains("admin.hosts"), "{health:?}");
    }
    assert_eq!(*pages.0.lock(), [""; 0]);
    for host in ["localhost", "10.0.0.9:7001", "[2001:db8::1]:80", "gw1.internal:7001", "GW1.Internal."] {
        assert_eq!(status(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    assert_eq!(status(""), 200, "HTTP/1.0 has none");
    admin.stop();
}

/// Pages of which one is larger than what sockets take.
struct Long(usize);

impl Pages for Long {
    fn is_live(&self) -> bool {
        true
    }
    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }
    fn metrics(&self) -> String {
        "m 1\n".repeat(self.0 / 4)
    }
    fn operate(&self, _: Operation) -> Result<Outcome, OperateError> {
        Err(OperateError::Busy)
    }
}

const FOR_EVER: Duration = Duration::from_secs(3600);

#[test]
fn no_peer_waits_for_another_one() {
    let bounds = Bounds { request: FOR_EVER, answer: FOR_EVER, closing: FOR_EVER, peers: 64 };
    let admin = Admin::start_within(bounds, listener(), Vec::new(), Arc::new(Long(64 << 20))).unwrap();
    let silent = [(); 10].map(|()| TcpStream::connect(admin.address()).unwrap());
    let mut slow = TcpStream::connect(admin.address()).unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut first = [0; 12];
    slow.read_exact(&mut first).unwrap();
    // Their deadlines are hours away.
    assert!(ask(admin.address(), b"GET /livez HTTP/1.1\r\n\r\n").ends_with("live\n"));
    for stream in silent.iter().chain([&slow]) {
        stream.set_nonblocking(true).unwrap();
    }
    assert!(silent.iter().all(|peer| peer.peek(&mut first).unwrap_err().kind() == ErrorKind::WouldBlock));
    admin.stop();
}

/// Reads until the other side closes or resets the connection; how many bytes came.
fn read_all(stream: &mut TcpStream) -> usize {
    let (mut chunk, mut total) = (vec![0; 1 << 20], 0);
    loop {
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => total += count,
            _ => return total,
        }
    }
}

#[test]
fn whole_requests_and_whole_answers_are_bounded() {
    let short = Duration::from_millis(50);
    const BYTES: usize = 64 << 20;
    let start = |bounds| Admin::start_within(bounds, listener(), Vec::new(), Arc::new(Long(BYTES))).unwrap();
    let admin = start(Bounds { request: short, answer: FOR_EVER, closing: FOR_EVER, peers: 64 });
    let mut dripping = TcpStream::connect(admin.address()).unwrap();
    // Each part comes in time, the whole never does.
    while dripping.write_all(b"G").is_ok() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert_eq!(read_all(&mut dripping), 0);
    admin.stop();

    let admin = start(Bounds { request: FOR_EVER, answer: short, closing: FOR_EVER, peers: 64 });
    let mut slow = TcpStream::connect(admin.address()).unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut byte = [0; 1];
    let mut read = 0;
    // A byte now and then: it never stops for long.
    while slow.read(&mut byte).is_ok_and(|count| count > 0) {
        read += 1;
        std::thread::park_timeout(Duration::from_millis(1));
        if read > 100 {
            read += read_all(&mut slow);
            break;
        }
    }
    assert!(read < BYTES, "{read} bytes of an answer that had its time");
    admin.stop();

    // One that stays when it has been answered.
    let admin = start(Bounds { request: FOR_EVER, answer: FOR_EVER, closing: short, peers: 64 });
    let mut staying = TcpStream::connect(admin.address()).unwrap();
    staying.write_all(b"GET /livez HTTP/1.1\r\n\r\n").unwrap();
    assert!(read_all(&mut staying) > 0);
    while staying.write_all(b"x").is_ok() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    admin.stop();
}

#[test]
fn too_many_silent_peers_end_before_new_ones() {
    let bounds = Bounds { request: FOR_EVER, answer: FOR_EVER, closing: FOR_EVER, peers: 4 };
    let admin = Admin::start_within(bounds, listener(), Vec::new(), Arc::new(Long(64 << 20))).unwrap();
    let mut slow = TcpStream::connect(admin.address()).unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    slow.read_exact(&mut [0; 12]).unwrap();
    let mut silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(admin.address()).unwrap()).collect();
    assert!(ask(admin.address(), b"GET /livez HTTP/1.1\r\n\r\n").ends_with("live\n"));
    assert_eq!(silent[0].read(&mut [0; 1]).unwrap(), 0, "the oldest is closed");
    // A peer that is being answered stays.
    assert!(slow.read(&mut [0; 1]).unwrap() > 0);
    admin.stop();
}

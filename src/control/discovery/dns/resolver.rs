//! Asks DNS servers over UDP, and over TCP when an answer does not fit. Several threads may ask side by side.
//!
//! A server that does not answer, or says that it does not know, is passed over for the next one; after two rounds, or when
//! the time for all questions of a look is over, the question has failed. One that was silent is asked last from then on. Each
//! question has an id of its own, drawn by the system, and goes out from a port that the system chooses.

use super::message::{Question, Records, Reply};
use crate::base::clock::Clock;
use crate::base::text::shown;
use domain::base::iana::Rcode;
use moorgate_proto::time::Mono;
use moorgate_registry::Stop;
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// Times that each server is asked.
const ROUNDS: usize = 2;
/// Servers that are asked; resolv.conf(5) takes three.
const SERVERS_MAX: usize = 8;
/// Bytes of a configuration of the system that are read.
const RESOLV_CONF_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a line of it that the log shows.
const LINE_BYTES: usize = 100;
const DNS_PORT: u16 = 53;
/// A longer answer over UDP is asked for over TCP, too: Consul leaves out what does not fit, and says so only where
/// `enable_truncate` is set.
const DOUBTFUL_BYTES: usize = 600;
/// The end is noticed within it.
const MOMENT: Duration = Duration::from_millis(250);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum DnsError {
    /// There is nobody to ask.
    NoServer,
    /// No answer in time.
    Silent(SocketAddr),
    /// The server says so.
    Failed(SocketAddr, Rcode),
    /// The answer cannot be read.
    Malformed(SocketAddr),
    /// The system.
    System(SocketAddr, io::Error),
    /// It is over.
    Stopped,
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DnsError::NoServer => f.write_str("there is no DNS server to ask; name some under [dns] servers"),
            DnsError::Silent(server) => write!(f, "the DNS server {server} does not answer in time"),
            DnsError::Failed(server, rcode) => write!(f, "the DNS server {server} says {rcode}"),
            DnsError::Malformed(server) => write!(f, "the answer of the DNS server {server} cannot be read"),
            DnsError::System(server, error) => write!(f, "the DNS server {server} cannot be asked: {error}"),
            DnsError::Stopped => f.write_str("stopped"),
        }
    }
}

/// Who is asked.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    /// In this order.
    pub(super) servers: &'a [SocketAddr],
    /// For each of them, each time.
    pub(super) timeout: Duration,
    pub(super) clock: Clock,
    /// Ends a question within a moment.
    pub(super) stop: &'a Stop,
    /// For all questions together.
    pub(super) until: Mono,
    /// Those that did not answer in time.
    pub(super) silent: Mutex<Vec<SocketAddr>>,
}

impl Resolver<'_> {
    /// Asks until somebody knows.
    pub(super) fn ask(&self, question: &Question) -> Result<Records, DnsError> {
        let mut error = DnsError::NoServer;
        let servers = self.in_order();
        for _ in 0..ROUNDS {
            for &server in &servers {
                if self.stop.is_set() {
                    return Err(DnsError::Stopped);
                }
                if self.clock.read().mono >= self.until {
                    return Err(if let DnsError::NoServer = error {
                        DnsError::Silent(server)
                    } else {
                        error
                    });
                }
                match self.ask_server(server, question) {
                    Ok(records) => return Ok(records),
                    Err(why) => error = why,
                }
                if let DnsError::Silent(server) = error {
                    let mut silent = self.silent.lock();
                    if !silent.contains(&server) {
                        silent.push(server);
                    }
                }
            }
        }
        Err(error)
    }

    /// Those that were silent last.
    fn in_order(&self) -> Vec<SocketAddr> {
        let mut servers: Vec<SocketAddr> = self.servers.iter().copied().take(SERVERS_MAX).collect();
        let silent = self.silent.lock();
        servers.sort_by_key(|server| silent.contains(server));
        servers
    }

    fn deadline(&self) -> Mono {
        (self.clock.read().mono + self.timeout).min(self.until)
    }

    fn ask_server(&self, server: SocketAddr, question: &Question) -> Result<Records, DnsError> {
        let (mut reply, mut length) = self.over_udp(server, question, true)?;
        if matches!(reply, Reply::Failed(Rcode::FORMERR | Rcode::NOTIMP)) {
            // An old server, that does not know EDNS.
            (reply, length) = self.over_udp(server, question, false)?;
        }
        if reply == Reply::Truncated {
            reply = self.over_tcp(server, question)?;
        } else if length > DOUBTFUL_BYTES
            && let Ok(whole @ Reply::Records(_)) = self.over_tcp(server, question)
        {
            reply = whole;
        }
        match reply {
            Reply::Records(records) => Ok(records),
            Reply::Failed(rcode) => Err(DnsError::Failed(server, rcode)),
            Reply::Malformed | Reply::Truncated => Err(DnsError::Malformed(server)),
        }
    }

    /// The reply, and of how many bytes it was.
    fn over_udp(
        &self,
        server: SocketAddr,
        question: &Question,
        edns: bool,
    ) -> Result<(Reply, usize), DnsError> {
        let system = |error| told(server, error);
        let deadline = self.deadline();
        let own: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((own, 0)).map_err(system)?;
        // Connected: only what comes from the server is read.
        socket.connect(server).map_err(system)?;
        let id = random_id().map_err(system)?;
        socket.send(&question.to_bytes(id, edns)).map_err(system)?;
        let mut buffer = [0; 4096];
        loop {
            let wait = self.left(server, deadline)?.min(MOMENT);
            socket.set_read_timeout(Some(wait)).map_err(system)?;
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if let Some(reply) = question.read(id, bytes) {
                        return Ok((reply, length));
                    }
                }
                Err(error) if is_wait(&error) => {}
                Err(error) => return Err(system(error)),
            }
        }
    }

    fn over_tcp(&self, server: SocketAddr, question: &Question) -> Result<Reply, DnsError> {
        let system = |error| told(server, error);
        let deadline = self.deadline();
        let mut stream = TcpStream::connect_timeout(&server, self.left(server, deadline)?).map_err(system)?;
        stream.set_nodelay(true).map_err(system)?;
        let id = random_id().map_err(system)?;
        let message = question.to_bytes(id, true);
        let mut framed = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        framed.extend(message);
        stream.set_write_timeout(Some(self.left(server, deadline)?)).map_err(system)?;
        stream.write_all(&framed).map_err(system)?;
        let mut length = [0; 2];
        self.read(&mut stream, server, deadline, &mut length)?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        self.read(&mut stream, server, deadline, &mut message)?;
        question.read(id, &message).ok_or(DnsError::Malformed(server))
    }

    /// Fills a buffer before the deadline, however slowly it comes.
    fn read(
        &self,
        stream: &mut TcpStream,
        server: SocketAddr,
        deadline: Mono,
        buffer: &mut [u8],
    ) -> Result<(), DnsError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let wait = self.left(server, deadline)?.min(MOMENT);
            stream.set_read_timeout(Some(wait)).map_err(|error| told(server, error))?;
            match stream.read(rest) {
                Ok(0) => return Err(told(server, io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => filled = filled.saturating_add(length),
                Err(error) if is_wait(&error) => {}
                Err(error) => return Err(told(server, error)),
            }
        }
        Ok(())
    }

    fn left(&self, server: SocketAddr, deadline: Mono) -> Result<Duration, DnsError> {
        let left = deadline.since(self.clock.read().mono);
        match (self.stop.is_set(), left.is_zero()) {
            (true, _) => Err(DnsError::Stopped),
            (false, true) => Err(DnsError::Silent(server)),
            (false, false) => Ok(left),
        }
    }
}

/// Whether there is nothing yet.
fn is_wait(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

fn told(server: SocketAddr, error: io::Error) -> DnsError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => DnsError::Silent(server),
        _ => DnsError::System(server, error),
    }
}

fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    let drawn = SystemRandom::new().fill(&mut bytes);
    drawn.map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(u16::from_be_bytes(bytes))
}

/// The servers that the system is set up with, and the lines that name none that can be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SystemServers {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) rejected: Vec<String>,
}

/// Read anew for each look-up: the file is small, and may change.
pub(super) fn system_servers(path: &Path) -> SystemServers {
    let mut text = Vec::new();
    let opened = std::fs::File::open(path);
    match opened.and_then(|file| file.take(RESOLV_CONF_BYTES_MAX).read_to_end(&mut text)) {
        Ok(_) => parse_servers(&String::from_utf8_lossy(&text), &interface),
        Err(_) => parse_servers("", &interface),
    }
}

/// Without a server the local one is asked, as resolv.conf(5) has it.
fn parse_servers(text: &str, interface: &dyn Fn(&str) -> Option<u32>) -> SystemServers {
    let (mut servers, mut rejected) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        match words.next().and_then(|address| server_address(address, interface)) {
            Some(address) if servers.len() < SERVERS_MAX => servers.push(address),
            Some(_) => {
                rejected.push(format!("`{}`: more than {SERVERS_MAX} servers", shown(line, LINE_BYTES)))
            }
            None => rejected.push(format!("`{}`: no address of a server", shown(line, LINE_BYTES))),
        }
    }
    rejected.truncate(SERVERS_MAX);
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
    }
    SystemServers { servers, rejected }
}

/// An IP address; behind a link-local one stands the interface, by name or number: `fe80::1%eth0`.
fn server_address(text: &str, interface: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, DNS_PORT));
    };
    let scope = scope.parse().ok().or_else(|| interface(scope))?;
    Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, scope).into())
}

/// The number of a network interface.
fn interface(name: &str) -> Option<u32> {
    let is_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    let number = is_name.then(|| std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")))?;
    number.ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::iana::Rtype;
    use domain::base::{Message, MessageBuilder, Ttl};
    use std::thread::JoinHandle;

    fn parsed(text: &str) -> (Vec<String>, Vec<String>) {
        let interface = |name: &str| (name == "eth0").then_some(7);
        let SystemServers { servers, rejected } = parse_servers(text, &interface);
        (servers.iter().map(SocketAddr::to_string).collect(), rejected)
    }

    #[test]
    fn servers_are_those_of_the_system() {
        let text =
            "# nameserver 192.0.2.9\nsearch internal\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 \n";
        assert_eq!(parsed(text).0, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        let local = vec![format!("127.0.0.1:{DNS_PORT}")];
        assert_eq!(parsed("options ndots:1"), (local.clone(), vec![]));
        let none = system_servers(Path::new("/nonexistent/resolv.conf"));
        assert_eq!((none.servers, none.rejected), (vec![local[0].parse().unwrap()], vec![]));
    }

    #[test]
    fn a_server_behind_an_interface_is_asked_through_it() {
        let (servers, rejected) = parsed("nameserver fe80::1%eth0\nnameserver fe80::2%3\n");
        assert_eq!(
            (servers, rejected),
            (vec!["[fe80::1%7]:53".to_owned(), "[fe80::2%3]:53".to_owned()], vec![])
        );
        assert_eq!(interface("lo"), Some(1), "as on every Linux");
        assert_eq!((interface("no-such-0"), interface("../lo"), interface("")), (None, None, None));
    }

    #[test]
    fn a_line_that_is_no_server_takes_nothing_from_the_others_and_is_named() {
        let bad = ["x", "fe80::1%eth9", "192.0.2.1%eth0", "192.0.2.300", "%eth0", "", "\u{fffd}", "[::1]"];
        for bad in bad {
            let (servers, rejected) =
                parsed(&format!("nameserver 192.0.2.1\nnameserver {bad}\nnameserver ::2"));
            assert_eq!(servers, ["192.0.2.1:53", "[::2]:53"], "{bad}");
            assert_eq!(rejected, [format!("`nameserver {bad}`: no address of a server")]);
        }
        let (servers, rejected) = parsed(&"nameserver ::1\n".repeat(20));
        assert_eq!((servers.len(), rejected.len()), (SERVERS_MAX, SERVERS_MAX));
    }

    /// A server that answers each message with some.
    fn server(
        answers: impl Fn(&Message<Vec<u8>>) -> Vec<Vec<u8>> + Send + 'static,
    ) -> (SocketAddr, JoinHandle<()>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = socket.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                // Nothing ends it.
                let Ok(asked) = Message::from_octets(buffer[..length].to_vec()) else { return };
                for answer in answers(&asked) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        (at, thread)
    }

    fn answer(asked: &Message<Vec<u8>>, rcode: Rcode, host: u8) -> Vec<u8> {
        let mut answer = MessageBuilder::new_vec().start_answer(asked, rcode).unwrap();
        let question = asked.sole_question().unwrap();
        let address = domain::rdata::A::from_octets(192, 0, 2, host);
        answer.push((question.qname(), Ttl::from_secs(1), address)).unwrap();
        answer.finish()
    }

    fn ask(servers: &[SocketAddr], timeout: Duration) -> Result<Records, DnsError> {
        ask_all(servers, timeout, timeout * 100, 1)
    }

    /// Asks that often; the last answer.
    fn ask_all(
        servers: &[SocketAddr],
        timeout: Duration,
        all: Duration,
        questions: usize,
    ) -> Result<Records, DnsError> {
        let (clock, stop) = (Clock::start(), Stop::new());
        let (until, silent) = (clock.read().mono + all, Mutex::default());
        let resolver = Resolver { servers, timeout, clock, stop: &stop, until, silent };
        let ask = || resolver.ask(&Question { name: "chat.internal".parse().unwrap(), rtype: Rtype::A });
        (1..questions).for_each(|_| drop(ask()));
        ask()
    }

    #[test]
    fn all_questions_of_a_look_have_one_end() {
        let (silent, thread) = server(|_| Vec::new());
        let clock = Clock::start();
        let begun = clock.read().mono;
        let minute = Duration::from_secs(60);
        assert!(matches!(
            ask_all(&[silent, silent, silent], minute, Duration::from_millis(50), 5),
            Err(DnsError::Silent(_))
        ));
        assert!(clock.read().mono.since(begun) < minute / 2);
        end(silent, thread);
    }

    #[test]
    fn a_server_that_was_silent_is_asked_last_from_then_on() {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = asked.clone();
        let (silent, first) = server(move |_| {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Vec::new()
        });
        let (good, second) = server(|asked| vec![answer(asked, Rcode::NOERROR, 1)]);
        // Long enough for the good one on a busy machine.
        let timeout = Duration::from_secs(2);
        assert!(ask_all(&[silent, good], timeout, 100 * timeout, 4).is_ok());
        end(silent, first);
        end(good, second);
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    fn end(at: SocketAddr, thread: JoinHandle<()>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.send_to(&[], at).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn answers_to_other_questions_are_passed_over() {
        let (at, thread) = server(|asked| {
            let mut forged = answer(asked, Rcode::NOERROR, 66);
            forged[0] ^= 1;
            vec![b"no message".to_vec(), forged, answer(asked, Rcode::NOERROR, 1)]
        });
        let found = ask(&[at], Duration::from_secs(20)).unwrap();
        assert_eq!(found.addresses, [IpAddr::from([192, 0, 2, 1])]);
        end(at, thread);
    }

    #[test]
    fn an_old_server_is_asked_without_edns() {
        let (at, thread) = server(|asked| {
            let is_new = asked.header_counts().arcount() > 0;
            vec![answer(asked, if is_new { Rcode::FORMERR } else { Rcode::NOERROR }, 1)]
        });
        assert_eq!(ask(&[at], Duration::from_secs(20)).unwrap().addresses.len(), 1);
        end(at, thread);
    }

    #[test]
    fn a_server_that_knows_nothing_or_says_nothing_is_passed_over() {
        let (failing, first) = server(|asked| vec![answer(asked, Rcode::SERVFAIL, 66)]);
        let (silent, second) = server(|_| Vec::new());
        let (good, third) = server(|asked| vec![answer(asked, Rcode::NOERROR, 1)]);
        let (moment, patient) = (Duration::from_millis(50), Duration::from_secs(2));
        assert_eq!(ask(&[failing, silent, good], patient).unwrap().addresses.len(), 1);
        assert!(matches!(ask(&[silent, failing], patient), Err(DnsError::Failed(..))));
        assert!(matches!(ask(&[silent], moment), Err(DnsError::Silent(_))));
        assert!(matches!(ask(&[], moment), Err(DnsError::NoServer)));
        for (at, thread) in [(failing, first), (silent, second), (good, third)] {
            end(at, thread);
        }
    }
}

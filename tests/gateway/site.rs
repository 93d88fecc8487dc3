//! A gateway in this process, configured by a text as a deployment would.

pub(crate) use crate::loopback::{nobody, own_address};
use crate::wire::{PATIENCE, RawClient};
use moorgate::config::{self, Settings};
use moorgate::gateway::{Gateway, Summary};
use moorgate_client::{Connection, Options};
use moorgate_service::{Handle, LinkKey, Reply, Service};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

/// Signs access tokens; key id `current`.
pub(crate) const ACCESS_SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Proves links.
pub(crate) const LINK_SECRET: &str = "link secret of the tests";

/// Commands of the routes in [`text`].
pub(crate) mod command {
    /// Open to everybody.
    pub(crate) const OPEN: u32 = 0x0001;
    /// Users only.
    pub(crate) const USER: u32 = 0x0100;
    /// Users with the role `admin`.
    pub(crate) const ADMIN: u32 = 0x0200;
    /// One at a time for each session.
    pub(crate) const ORDERED: u32 = 0x0300;
    /// At most 1 KiB of payload.
    pub(crate) const SMALL: u32 = 0x0400;
    /// Gives up after a moment.
    pub(crate) const HASTY: u32 = 0x0500;
    /// Version 2 only.
    pub(crate) const SECOND: u32 = 0x0600;
    /// No route leads there.
    pub(crate) const NOWHERE: u32 = 0x7000;
}

/// Between two looks.
const TICK: Duration = Duration::from_millis(5);
/// Looks within [`PATIENCE`].
const LOOKS: u128 = PATIENCE.as_millis() / TICK.as_millis();

/// Polls until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if holds() {
            return;
        }
        std::thread::park_timeout(TICK);
    }
    panic!("not within a minute: {what}");
}

/// A configuration with one shard, one worker and the service `echo`; `tables` goes before its own.
pub(crate) fn text(service: SocketAddr, tables: &str) -> String {
    format!(
        r#"
{tables}
[gateway]
id = "gateway-test"
shards = 1
workers = 1
[[listener]]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[[auth.key]]
id = "current"
secret_env = "ACCESS"
[[service]]
name = "echo"
endpoints = ["{service}"]
key_env = "LINK"
[[route]]
commands = "0x0001-0x00ff"
service = "echo"
anonymous = true
timeout = "1m"
[[route]]
commands = "0x0100-0x01ff"
service = "echo"
timeout = "1m"
[[route]]
commands = "0x0200"
service = "echo"
roles = ["admin"]
[[route]]
commands = "0x0300"
service = "echo"
anonymous = true
timeout = "1m"
order = "session"
[[route]]
commands = "0x0400"
service = "echo"
anonymous = true
payload = "1 KiB"
[[route]]
commands = "0x0500"
service = "echo"
anonymous = true
timeout = "1s"
[[route]]
commands = "0x0600"
versions = "2"
service = "echo"
anonymous = true
"#
    )
}

/// The settings that [`text`] stands for.
pub(crate) fn settings(service: SocketAddr, tables: &str) -> Settings {
    let environment = |name: &str| match name {
        "ACCESS" => Some(ACCESS_SECRET.to_owned()),
        "LINK" => Some(LINK_SECRET.to_owned()),
        _ => None,
    };
    let mut settings =
        config::parse("test.toml", &text(service, tables), Path::new(""), &environment).unwrap();
    // A session ends with its connection where a test does not say otherwise: most look whether nothing is left.
    if !tables.contains("detached_ttl") {
        settings.session.detached_ttl = Duration::ZERO;
    }
    // Whoever plays the service may be slow to answer the gateway's first word.
    if !tables.contains("connect_timeout") {
        settings.forward.connect_timeout = PATIENCE;
    }
    settings
}

/// The key that proves links.
pub(crate) fn link_key() -> LinkKey {
    LinkKey::new(LINK_SECRET.as_bytes()).unwrap()
}

/// A service that answers everything with what it was sent.
pub(crate) fn echo_service() -> Handle {
    echo_service_at(own_address())
}

/// The same at this address.
pub(crate) fn echo_service_at(address: SocketAddr) -> Handle {
    let service = Service::named("echo").key(link_key());
    let service = service.handle(0..=u32::MAX, |call, responder| responder.reply(Reply::ok(call.payload())));
    service.listen(address).unwrap().spawn().unwrap()
}

/// A running gateway, and the service that it came with.
pub(crate) struct Site {
    gateway: Option<Gateway>,
    service: Option<Handle>,
}

impl Site {
    /// A gateway with an echo service, its link ready.
    pub(crate) fn start(tables: &str) -> Site {
        Site::start_with(tables, |_| {})
    }

    /// The same, with the settings changed first.
    pub(crate) fn start_with(tables: &str, change: impl FnOnce(&mut Settings)) -> Site {
        let service = echo_service();
        let mut settings = settings(service.address(), tables);
        change(&mut settings);
        let mut site = Site::of(settings);
        site.service = Some(service);
        site.ready();
        site
    }

    /// A gateway whose service the test plays itself, on `listener`.
    pub(crate) fn beside(listener: &TcpListener, tables: &str) -> Site {
        Site::of(settings(listener.local_addr().unwrap(), tables))
    }

    /// A gateway of these settings.
    pub(crate) fn of(settings: Settings) -> Site {
        Site { gateway: Some(Gateway::start(settings).unwrap()), service: None }
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway().client_addresses()[0]
    }

    /// Waits until every service has a link.
    pub(crate) fn ready(&self) {
        until("every service has a link", || self.gateway().readiness().is_ok());
    }

    /// A connection that has said nothing.
    pub(crate) fn connect(&self) -> RawClient {
        RawClient::connect(self.address())
    }

    /// A connection with an anonymous session.
    pub(crate) fn open(&self) -> RawClient {
        RawClient::open(self.address())
    }

    /// The client kit with an anonymous session.
    pub(crate) fn client(&self) -> Connection {
        self.client_with(Options::default(), "")
    }

    /// The client kit.
    pub(crate) fn client_with(&self, options: Options, access_token: &str) -> Connection {
        Connection::connect(self.address(), options, access_token).unwrap()
    }

    /// The gateway still serves: a new client gets its echo.
    pub(crate) fn serves(&self) {
        let mut client = self.client();
        let answer = client.request(command::OPEN, b"still there?", PATIENCE).unwrap();
        assert_eq!(answer.payload, b"still there?");
        client.bye().unwrap();
    }

    /// A sample of the metrics page, by its name with labels.
    pub(crate) fn metric(&self, sample: &str) -> u64 {
        sample_of(&self.gateway().metrics(), sample)
    }

    /// Waits until a sample has a value.
    pub(crate) fn metric_becomes(&self, sample: &str, value: u64) {
        let mut last = u64::MAX;
        for _ in 0..LOOKS {
            last = self.metric(sample);
            if last == value {
                return;
            }
            std::thread::park_timeout(TICK);
        }
        let page = self.gateway().metrics();
        let counts: Vec<&str> =
            page.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0")).collect();
        panic!("{sample} is {last}, not {value}, after a minute:\n{}", counts.join("\n"));
    }

    /// Waits until no connection, session or request is left.
    pub(crate) fn is_empty_again(&self) {
        self.metric_becomes("moorgate_connections", 0);
        self.metric_becomes("moorgate_sessions", 0);
        self.metric_becomes("moorgate_requests_outstanding", 0);
    }

    /// Waits for the gateway's own end.
    pub(crate) fn join(mut self) -> Summary {
        self.gateway.take().unwrap().join()
    }

    /// All clients are gone: nothing may be left, and every thread must end well.
    pub(crate) fn end(self) {
        self.is_empty_again();
        self.gateway().stop();
        assert!(self.join().is_clean, "a thread has failed, or a connection was forgotten");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
            gateway.join();
        }
        if let Some(service) = self.service.take() {
            service.stop();
            service.join();
        }
    }
}

/// A sample of a metrics page, by its name with labels.
pub(crate) fn sample_of(page: &str, sample: &str) -> u64 {
    let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no sample {sample}")).parse().unwrap()
}

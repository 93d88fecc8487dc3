//! Programs of others, on free loopback ports, that end with the test.

use crate::bench::{eventually, wait_a_moment};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Tries, as another program may take a port between its choice and its use.
const STARTS: u32 = 3;

/// The program, or `None` after saying loudly that the test is left out; where it is required, the test fails.
pub(crate) fn found(name: &str, variable: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    // Where name servers lie is on the administrator's PATH alone.
    let folders = std::env::split_paths(&paths).chain(["/usr/sbin".into()]);
    let found = named.or_else(|| folders.map(|folder| folder.join(name)).find(|path| path.is_file()));
    if found.is_none() {
        let required = std::env::var("MOORGATE_REQUIRE").unwrap_or_default();
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let what = format!("SKIPPED: {test}: no `{name}` on the PATH, and {variable} does not name one");
        assert!(!required.split(',').any(|required| required == name), "{what}, but MOORGATE_REQUIRE does");
        // Past the test runner, which keeps what a test prints while it passes.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{what}\n").as_bytes());
    }
    found
}

/// A folder that goes with its owner.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("moorgate-discovery-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program that ends with its owner, however the test ends.
pub(crate) struct Program {
    command: Command,
    child: Child,
    log: PathBuf,
}

impl Program {
    pub(crate) fn start(mut command: Command, log: &Path) -> Program {
        let child = spawn(&mut command, log);
        Program { command, child, log: log.to_owned() }
    }

    /// Whether it runs until it is ready.
    fn becomes(&mut self, is_ready: impl Fn() -> bool) -> bool {
        let mut has_ended = false;
        eventually("the program is ready", || {
            has_ended = self.child.try_wait().unwrap().is_some();
            has_ended || is_ready()
        });
        !has_ended
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the program said:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn spawn(command: &mut Command, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Ports that nobody has, neither for TCP nor for UDP.
fn free_ports<const N: usize>() -> [u16; N] {
    let mut held = Vec::new();
    let ports = [(); N].map(|()| {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            if let Ok(socket) = UdpSocket::bind(address) {
                held.push((listener, socket));
                return address.port();
            }
        }
    });
    drop(held);
    ports
}

/// A Consul agent in memory: what it knows goes when it ends.
pub(crate) struct Consul {
    program: Program,
    /// Where it is asked.
    pub(crate) address: String,
    /// Where its own DNS is.
    pub(crate) dns: SocketAddr,
    _folder: Folder,
}

impl Consul {
    /// `None`: there is no Consul here, which was told.
    pub(crate) fn start() -> Option<Consul> {
        let binary = found("consul", "MOORGATE_CONSUL")?;
        let started = (0..STARTS).find_map(|_| {
            let [http, dns, server, lan, wan] = free_ports();
            let folder = Folder::new();
            let mut command = Command::new(&binary);
            command.args(["agent", "-dev", "-node=t1", "-bind=127.0.0.1", "-client=127.0.0.1"]);
            command.args(["-grpc-port=-1", "-log-level=warn", "-disable-host-node-id"]);
            command.args(["-hcl", "disable_update_check = true"]);
            command.args([format!("-http-port={http}"), format!("-dns-port={dns}")]);
            command.args([format!("-server-port={server}"), format!("-serf-lan-port={lan}")]);
            command.arg(format!("-serf-wan-port={wan}")).current_dir(&folder.0);
            let program = Program::start(command, &folder.0.join("log"));
            let address = format!("http://127.0.0.1:{http}");
            let dns = SocketAddr::from((Ipv4Addr::LOCALHOST, dns));
            let mut consul = Consul { program, address, dns, _folder: folder };
            consul.has_leader().then_some(consul)
        });
        Some(started.expect("a Consul agent starts"))
    }

    fn has_leader(&mut self) -> bool {
        let leader = format!("{}/v1/status/leader", self.address);
        self.program.becomes(|| {
            let answer = ureq::get(&leader).call();
            answer.is_ok_and(|mut answer| answer.body_mut().read_to_string().is_ok_and(|text| text.len() > 4))
        })
    }

    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// The same once more, knowing nothing.
    pub(crate) fn start_again(&mut self) {
        self.program.child = spawn(&mut self.program.command, &self.program.log);
        assert!(self.has_leader(), "it starts again");
    }

    /// Registers an endpoint; `more` are further fields, in JSON, with a comma in front.
    pub(crate) fn register(&self, service: &str, at: SocketAddr, more: &str) {
        let (ip, port, id) = (at.ip(), at.port(), id(service, at));
        let json = format!(r#"{{"ID":"{id}","Name":"{service}","Address":"{ip}","Port":{port}{more}}}"#);
        self.put("/v1/agent/service/register", &json);
    }

    pub(crate) fn deregister(&self, service: &str, at: SocketAddr) {
        self.put(&format!("/v1/agent/service/deregister/{}", id(service, at)), "");
    }

    pub(crate) fn maintain(&self, service: &str, at: SocketAddr, enable: bool) {
        self.put(&format!("/v1/agent/service/maintenance/{}?enable={enable}", id(service, at)), "");
    }

    fn put(&self, path: &str, json: &str) {
        ureq::put(format!("{}{path}", self.address)).send(json).unwrap();
    }
}

fn id(service: &str, at: SocketAddr) -> String {
    format!("{service}-{}-{}", at.ip(), at.port())
}

/// A name server with the records of a file.
pub(crate) struct Dnsmasq {
    program: Program,
    pub(crate) address: SocketAddr,
    folder: Folder,
}

impl Dnsmasq {
    /// With the lines of a hosts file, and more options. `None`: there is none here, which was told.
    pub(crate) fn start(hosts: &str, options: &[&str]) -> Option<Dnsmasq> {
        let binary = found("dnsmasq", "MOORGATE_DNSMASQ")?;
        let started = (0..STARTS).find_map(|_| {
            let [port] = free_ports();
            let folder = Folder::new();
            std::fs::write(folder.0.join("hosts"), hosts).unwrap();
            let mut command = Command::new(&binary);
            command.args(["--keep-in-foreground", "--no-daemon", "--conf-file=/dev/null", "--no-resolv"]);
            command.args(["--no-hosts", "--listen-address=127.0.0.1", "--bind-interfaces", "--user=root"]);
            command.args(["--local=/internal/", "--no-poll", "--pid-file="]);
            command.arg(format!("--addn-hosts={}", folder.0.join("hosts").display()));
            command.arg(format!("--port={port}")).args(options).current_dir(&folder.0);
            let program = Program::start(command, &folder.0.join("log"));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut dnsmasq = Dnsmasq { program, address, folder };
            // It listens for TCP, too.
            dnsmasq.program.becomes(|| std::net::TcpStream::connect(address).is_ok()).then_some(dnsmasq)
        });
        Some(started.expect("dnsmasq starts"))
    }

    /// Other hosts from now on.
    pub(crate) fn change(&self, hosts: &str) {
        std::fs::write(self.folder.0.join("hosts"), hosts).unwrap();
        self.program.signal("HUP");
        wait_a_moment();
    }

    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }
}

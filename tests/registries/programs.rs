//! Programs of others, on free loopback ports, that end with the test.

use crate::asked::{Program, consul, found, free_ports, started};
use crate::bench::wait_a_moment;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

pub(crate) use crate::asked::Folder;

/// A Consul agent in memory: what it knows goes when it ends.
pub(crate) struct Consul {
    agent: consul::Consul,
    /// Where it is asked.
    pub(crate) address: String,
    /// Where its own DNS is.
    pub(crate) dns: SocketAddr,
}

impl Consul {
    /// `None`: there is no Consul here, which was told.
    pub(crate) fn start() -> Option<Consul> {
        let agent = consul::Consul::start()?;
        Some(Consul { address: agent.settings.address.clone(), dns: agent.dns, agent })
    }

    pub(crate) fn kill(&mut self) {
        self.agent.program.kill();
    }

    /// The same once more, knowing nothing.
    pub(crate) fn start_again(&mut self) {
        self.agent.program.start_again();
    }

    /// Registers an endpoint; `more` are further fields, in JSON, with a comma in front.
    pub(crate) fn register(&self, service: &str, at: SocketAddr, more: &str) {
        let (ip, port, id) = (at.ip(), at.port(), id(service, at));
        let json = format!(r#"{{"ID":"{id}","Name":"{service}","Address":"{ip}","Port":{port}{more}}}"#);
        self.agent.put("/v1/agent/service/register", &json);
    }

    /// Registers whatever this JSON says.
    pub(crate) fn register_raw(&self, json: &str) {
        self.agent.put("/v1/agent/service/register", json);
    }

    /// Says of an endpoint's TTL check `pass`, `warn` or `fail`.
    pub(crate) fn check(&self, service: &str, at: SocketAddr, says: &str) {
        self.agent.put(&format!("/v1/agent/check/{says}/service:{}", id(service, at)), "");
    }

    pub(crate) fn deregister(&self, service: &str, at: SocketAddr) {
        self.agent.put(&format!("/v1/agent/service/deregister/{}", id(service, at)), "");
    }

    pub(crate) fn maintain(&self, service: &str, at: SocketAddr, enable: bool) {
        self.agent.put(&format!("/v1/agent/service/maintenance/{}?enable={enable}", id(service, at)), "");
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
        Some(started(|| {
            let [port] = free_ports();
            let folder = Folder::new();
            let hosts = folder.file("hosts", hosts);
            let mut command = Command::new(&binary);
            command.args(["--keep-in-foreground", "--no-daemon", "--conf-file=/dev/null", "--no-resolv"]);
            command.args(["--no-hosts", "--listen-address=127.0.0.1", "--bind-interfaces", "--user=root"]);
            command.args(["--local=/internal/", "--no-poll", "--pid-file="]);
            command.arg(format!("--addn-hosts={}", hosts.display()));
            command.arg(format!("--port={port}")).args(options).current_dir(&folder.0);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            // It listens for TCP, too.
            let listens = move || std::net::TcpStream::connect(address).is_ok();
            let program = Program::start(command, folder.0.join("log"), listens)?;
            Some(Dnsmasq { program, address, folder })
        }))
    }

    /// Other hosts from now on.
    pub(crate) fn change(&self, hosts: &str) {
        self.folder.file("hosts", hosts);
        self.program.signal("HUP");
        wait_a_moment();
    }

    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }
}

//! A Consul agent of the test's own.

use super::loopback::own_address;
use super::{Folder, Program, client, found, free_ports_at, started};
use moorgate_registry::ConsulSettings;
use std::net::SocketAddr;
use std::process::Command;

/// An agent in memory: what it knows goes when it ends.
pub(crate) struct Consul {
    pub(crate) program: Program,
    pub(crate) settings: ConsulSettings,
    /// Where its own DNS is.
    pub(crate) dns: SocketAddr,
    _folder: Folder,
}

impl Consul {
    /// `None`: there is no Consul here, which was told.
    pub(crate) fn start() -> Option<Consul> {
        Consul::with("", None)
    }

    /// With more configuration, in HCL, and a token for the test's own requests.
    pub(crate) fn with(hcl: &str, token: Option<&str>) -> Option<Consul> {
        let binary = found("consul", "MOORGATE_CONSUL")?;
        Some(started(|| {
            // Of its own, so that nobody is given a port of it while it is down.
            let ip = own_address().ip();
            let [http, dns, server, lan, wan] = free_ports_at(ip);
            let folder = Folder::new();
            let hcl = folder.file("agent.hcl", &format!("disable_update_check = true\n{hcl}"));
            let mut command = Command::new(&binary);
            command.args(["agent", "-dev", "-node=t1"]);
            command.args([format!("-bind={ip}"), format!("-client={ip}")]);
            command.args(["-grpc-port=-1", "-log-level=warn", "-disable-host-node-id"]);
            command.args([format!("-http-port={http}"), format!("-dns-port={dns}")]);
            command.arg(format!("-server-port={server}"));
            command.args([format!("-serf-lan-port={lan}"), format!("-serf-wan-port={wan}")]);
            command.arg("-config-file").arg(hcl).current_dir(&folder.0);
            let address = format!("http://{ip}:{http}");
            let leader = format!("{address}/v1/status/leader");
            let has_leader = move || {
                let answer = client().get(&leader).call();
                answer.is_ok_and(|mut answer| {
                    answer.body_mut().read_to_string().is_ok_and(|text| text.len() > 4)
                })
            };
            let program = Program::start(command, folder.0.join("log"), has_leader)?;
            let token = token.map(str::to_owned);
            let settings = ConsulSettings { address, token, ..ConsulSettings::default() };
            let dns = SocketAddr::from((ip, dns));
            Some(Consul { program, settings, dns, _folder: folder })
        }))
    }

    /// Asks the agent for something that has no place in the crate.
    pub(crate) fn put(&self, path: &str, json: &str) {
        let token = self.settings.token.as_deref().unwrap_or_default();
        let request =
            client().put(format!("{}{path}", self.settings.address)).header("X-Consul-Token", token);
        request.send(json).unwrap();
    }

    /// Whether the agent has an instance with this id.
    pub(crate) fn knows(&self, id: &str) -> bool {
        client().get(format!("{}/v1/agent/service/{id}", self.settings.address)).call().is_ok()
    }

    /// Whether the agent has an instance of this service.
    pub(crate) fn lists(&self, name: &str) -> bool {
        let answer = client().get(format!("{}/v1/agent/services", self.settings.address)).call();
        let text = answer.unwrap().body_mut().read_to_string().unwrap();
        let services: serde_json::Value = serde_json::from_str(&text).unwrap();
        services.as_object().unwrap().values().any(|service| service["Service"] == name)
    }
}

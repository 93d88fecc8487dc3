//! A server with the HTTP interface of Nacos (v1) of the test's own.

use super::{Folder, Program, client, found, free_ports, started};
use moorgate_registry::NacosSettings;
use std::process::Command;

/// A server; what it knows of instances goes when it ends.
pub(crate) struct Rnacos {
    pub(crate) program: Program,
    pub(crate) settings: NacosSettings,
    _folder: Folder,
}

impl Rnacos {
    /// `None`: there is no rnacos here, which was told.
    pub(crate) fn start(environment: &[(&str, &str)]) -> Option<Rnacos> {
        let binary = found("rnacos", "MOORGATE_RNACOS")?;
        Some(started(|| {
            let [http, grpc] = free_ports();
            let folder = Folder::new();
            let mut command = Command::new(&binary);
            command.env("RNACOS_SDK_HOST", "127.0.0.1").env("RNACOS_HTTP_PORT", http.to_string());
            command.env("RNACOS_GRPC_PORT", grpc.to_string()).env("RNACOS_HTTP_CONSOLE_PORT", "0");
            command.env("RNACOS_RAFT_NODE_ADDR", format!("127.0.0.1:{grpc}"));
            command.env("RNACOS_DATA_DIR", folder.0.join("data")).envs(environment.iter().copied());
            command.current_dir(&folder.0);
            let server = format!("http://127.0.0.1:{http}");
            let state = format!("{server}/nacos/v1/raft/metrics");
            let has_elected = move || match client().get(&state).call() {
                Ok(mut answer) => {
                    answer.body_mut().read_to_string().is_ok_and(|text| text.contains("\"Leader\""))
                }
                // Where users log in, nobody else is told.
                Err(error) => matches!(error, ureq::Error::StatusCode(403)),
            };
            let program = Program::start(command, folder.0.join("log"), has_elected)?;
            let settings = NacosSettings { servers: vec![server], ..NacosSettings::default() };
            Some(Rnacos { program, settings, _folder: folder })
        }))
    }
}

//! Where endpoints come from, how that is asked, and where the gateway lists itself.

use crate::Directory;
use crate::mistakes::Change::{End, Line};
use crate::mistakes::{Cases, GOOD, check};
use moorgate::config::parse;
use moorgate::control::discovery::DnsQuery;
use std::path::Path;
use std::time::Duration;

const SOURCES: Cases = &[
    (
        Line(10, ""),
        &[
            "8: service.endpoints: nothing says where its instances are; write endpoints = [\"10.0.0.1:7100\"], endpoints_file = \"PATH\", [service.dns], [service.consul] or [service.nacos]",
        ],
    ),
    (
        Line(10, "endpoints = []"),
        &["10: service.endpoints: there are none; write for example endpoints = [\"10.0.0.1:7100\"]"],
    ),
    (
        Line(10, "endpoints = [\"10.0.0.1:7100 wieght=5\"]"),
        &["10: service.endpoints: `wieght=5` is not known; write weight=50, zone=eu-1 or tags=canary,fast"],
    ),
    (
        Line(10, "endpoints = [\"10.0.0.1:7100 weight=10001\"]"),
        &["10: service.endpoints: weight=10001 is no weight; write a number from 0 to 10000"],
    ),
    (
        Line(10, "endpoints = [\"10.0.0.1:7100\", \"10.0.0.1:7100 weight=5\"]"),
        &["10: service.endpoints: 10.0.0.1:7100 stands here twice; leave one out"],
    ),
    (
        Line(10, "endpoints_file = \"\""),
        &["10: service.endpoints_file: this is empty; write the path of a file"],
    ),
    (
        End("[service.dns]\nname = \"chat.internal\""),
        &["15: service.dns.port: it is missing; write for example port = 7100"],
    ),
    (
        End("[service.dns]\nport = 7100"),
        &[
            "15: service.dns.name: it is missing; write name = \"chat.internal\" and port = 7100, or srv = \"_chat._tcp.internal\"",
        ],
    ),
    (
        End("[service.dns]\nname = \"a\"\nport = 7\nsrv = \"_b._tcp.c\""),
        &["18: service.dns.srv: there is a name too; leave one of them out"],
    ),
    (
        End("[service.dns]\nport = 7\nsrv = \"_b._tcp.c\""),
        &["16: service.dns.port: the SRV records say the port; leave this out"],
    ),
    (
        End("[service.dns]\nname = \"10.0.0.1\"\nport = 7"),
        &["16: service.dns.name: `10.0.0.1` is no name of DNS; write one such as \"chat.internal\""],
    ),
    (
        End("[service.consul]\ntags = [\"a b\"]"),
        &["16: service.consul.tags: `a b` cannot be one; write 1 to 64 bytes without spaces and commas"],
    ),
    (
        End("[service.nacos]\ngroup = \"G\""),
        &[
            "15: service.nacos: there is no [nacos] that says where Nacos is; write\n  [nacos]\n  servers = [\"http://10.0.0.5:8848\"]",
        ],
    ),
];

const OWN: Cases = &[
    (
        Line(10, "endpoints = [\"10.0.0.1:7100\", \"127.0.0.1:7000\"]"),
        &[
            "10: service.endpoints: 127.0.0.1:7000 is 127.0.0.1:7000, where this gateway itself listens; write the address of the service",
        ],
    ),
    (
        Line(10, "endpoints = [\"127.0.0.1:7001\"]"),
        &[
            "10: service.endpoints: 127.0.0.1:7001 is 127.0.0.1:7001, where this gateway itself listens; write the address of the service",
        ],
    ),
    (
        End(
            "[[listener]]\naddress = \"0.0.0.0:7100\"\n[[service]]\nname = \"x\"\nendpoints = [\"127.0.0.9:7100\"]\nwithout_proofs = true\n[[route]]\ncommands = 7\nservice = \"x\"",
        ),
        &[
            "19: service.endpoints: 127.0.0.9:7100 is 0.0.0.0:7100, where this gateway itself listens; write the address of the service",
        ],
    ),
    (
        End("[consul]\naddress = \"http://127.0.0.1:7000\"\n[nacos]\nservers = [\"http://127.0.0.1:7001\"]"),
        &[
            "16: consul.address: 127.0.0.1:7000 is 127.0.0.1:7000, where this gateway itself listens; write the address of the registry",
            "18: nacos.servers: 127.0.0.1:7001 is 127.0.0.1:7001, where this gateway itself listens; write the address of the registry",
        ],
    ),
    (
        Line(10, "endpoints = [\"0.0.0.0:7100\"]"),
        &[
            "10: service.endpoints: 0.0.0.0:7100 is an unspecified address; write the address that the service listens on",
        ],
    ),
];

#[test]
fn endpoints_that_are_the_gateway_itself_are_refused() {
    check("own-listeners", OWN);
}

#[test]
fn what_is_wrong_with_a_source_is_told() {
    check("service-sources", SOURCES);
}

const REGISTRIES: Cases = &[
    (
        End("[discovery]\nconfirm = \"0s\""),
        &["16: discovery.confirm: `0s` is out of bounds; write \"1s\" to \"1day\""],
    ),
    (
        End("[discovery]\nprobe_fall = 0"),
        &["16: discovery.probe_fall: 0 is out of bounds; write a number from 1 to 100"],
    ),
    (
        End("[discovery]\nstate_file = \"\""),
        &["16: discovery.state_file: this is empty; write the path of a file, or \"off\""],
    ),
    (
        End("[dns]\nservers = [\"ns.internal\"]"),
        &[
            "16: dns.servers: `ns.internal` is no address of a name server; write a list such as [\"10.0.0.2\"] or [\"10.0.0.2:5353\"]",
        ],
    ),
    (
        End("[dns]\nttl_min = \"10m\""),
        &["16: dns.ttl_max is 5m and must not be below dns.ttl_min, 10m; change one of them"],
    ),
    (
        End("[consul]\naddress = \"127.0.0.1:8500\""),
        &[
            "16: consul.address: `127.0.0.1:8500` is no address of a registry; write one such as \"http://10.0.0.5:8500\"",
        ],
    ),
    (
        End("[consul]\naddress = \"http://127.0.0.1:8500/v1\""),
        &[
            "16: consul.address: `http://127.0.0.1:8500/v1` is no address of a registry; write one such as \"http://10.0.0.5:8500\"",
        ],
    ),
    (
        End("[consul]\ntoken = \"s3cret\""),
        &[
            "16: consul.token: a secret does not stand in this file; write token_file = \"PATH\", token_env = \"NAME\" or token_credential = \"NAME\"",
        ],
    ),
    (
        End("[consul]\ntoken_file = \"none.token\""),
        &[
            "16: consul.token_file: DIR/none.token cannot be read: No such file or directory (os error 2); write it into DIR/none.token",
        ],
    ),
    (
        End("[consul]\nca_file = \"access.secret\""),
        &[
            "16: consul.ca_file: DIR/access.secret cannot be read: there is no certificate in it; write the path of a PEM file",
        ],
    ),
    (
        End("[consul]\naddress = \"https://10.0.0.5:8501\""),
        &["16: consul.address: \"https://10.0.0.5:8501\" needs a `ca_file` with the certificates to trust"],
    ),
    (
        End("[consul]\naddress = \"https://10.0.0.5:8501\"\nca_file = \"none.pem\""),
        &[
            "17: consul.ca_file: DIR/none.pem cannot be read: No such file or directory (os error 2); write the path of a PEM file",
        ],
    ),
    (
        End("[nacos]\nservers = [\"http://10.0.0.5:8848\", \"https://10.0.0.6:8848\"]"),
        &["16: nacos.servers: \"https://10.0.0.6:8848\" needs a `ca_file` with the certificates to trust"],
    ),
    (End("[nacos]\nservers = []"), &["16: nacos.servers: 0 servers; write 1 to 16"]),
    (
        End("[nacos]\nusername = \"gate\""),
        &["16: nacos.username: there is no password; write password_file = \"PATH\" too"],
    ),
    (
        End("[nacos]\npassword_env = \"MOORGATE_SHORT\""),
        &["16: nacos.username: it is missing; write for example username = \"moorgate\""],
    ),
];

#[test]
fn what_is_wrong_with_a_registry_is_told() {
    check("registries", REGISTRIES);
}

#[test]
fn what_a_registry_would_never_take_is_told_before_it_is_asked() {
    let directory = Directory::new("never");
    std::fs::write(directory.0.join("blank.token"), "to ken\n").unwrap();
    std::fs::write(
        directory.0.join("broken.pem"),
        "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let mistakes = |more: &str| directory.parse(&format!("{GOOD}{more}")).unwrap_err().lines;
    let [token] = mistakes("[consul]\ntoken_file = \"blank.token\"\n").try_into().unwrap();
    assert!(token.starts_with("gate.toml:16: consul.token: the token of Consul has characters"), "{token}");
    assert!(!token.contains("to ken"), "the token itself is not told");
    let broken = "ca_file = \"broken.pem\"\n";
    let [consul] = mistakes(&format!("[consul]\naddress = \"https://a:1\"\n{broken}")).try_into().unwrap();
    assert!(
        consul.starts_with("gate.toml:17: consul.ca_file: ") && consul.contains("broken.pem"),
        "{consul}"
    );
    let [nacos] = mistakes(&format!("[nacos]\nservers = [\"https://a:1\"]\n{broken}")).try_into().unwrap();
    assert!(nacos.starts_with("gate.toml:17: nacos.ca_file: "), "{nacos}");
}

const REGISTER: Cases = &[
    (
        End("[register]\nconsul = true"),
        &[
            "15: register.address: it is missing; write the address that clients use, as address = \"10.0.0.9:7000\"",
        ],
    ),
    (
        End("[register]\naddress = \"0.0.0.0:7000\"\nconsul = true"),
        &["16: register.address: nobody can connect to 0.0.0.0:7000; write the address that clients use"],
    ),
    (
        End("[register]\naddress = \"10.0.0.9:7000\""),
        &["15: register.consul: nothing says where; write consul = true or nacos = true"],
    ),
    (
        End("[register]\naddress = \"10.0.0.9:7000\"\nnacos = true"),
        &["17: register.nacos: there is no [nacos] that says where Nacos is; write one"],
    ),
    (
        End("[nacos]\n[register]\naddress = \"10.0.0.9:7000\"\nnacos = true\ncheck = \"http\""),
        &["19: register.check: only Consul asks; write consul = true, or leave this out"],
    ),
    (
        End("[register]\naddress = \"10.0.0.9:7000\"\nconsul = true\ngroup = \"G\""),
        &["18: register.group: only Nacos has it; write nacos = true, or leave this out"],
    ),
    (
        End("[register]\naddress = \"10.0.0.9:7000\"\nconsul = true\nttl = \"1s\""),
        &["18: register.ttl: `1s` is out of bounds; write \"3s\" to \"1h\""],
    ),
    (
        End("[register]\naddress = \"10.0.0.9:7000\"\nconsul = true\nmetadata = { \"a b\" = \"c\" }"),
        &["18: register.metadata: `a b` cannot be a key of it; write 1 to 128 letters, digits and -_"],
    ),
    (
        End("[register]\naddress = \"10.0.0.9:7000\"\nconsul = true\nmetadata = { a = 1 }"),
        &["18: register.metadata: this is a number; write a text for `a`"],
    ),
];

#[test]
fn what_is_wrong_with_the_registration_is_told() {
    check("register", REGISTER);
}

#[test]
fn what_is_asked_needs_an_operators_address() {
    let text = GOOD.replace("[admin]\naddress = \"127.0.0.1:7001\"\n", "");
    let more = "[register]\naddress = \"10.0.0.9:7000\"\nconsul = true\ncheck = \"http\"\n";
    let error = Directory::new("asked").parse(&format!("{text}{more}")).unwrap_err();
    let expected =
        "gate.toml:16: register.check: Consul asks /livez, and there is no [admin] that answers; write one";
    assert_eq!(error.lines, [expected]);
}

#[test]
fn several_sources_are_taken_together() {
    let more = r#"endpoints_file = "chat.endpoints"
[service.dns]
srv = "_chat._tcp.internal"
[service.consul]
name = "im-chat"
tags = ["blue"]
[service.nacos]
namespace = "im"
[nacos]
[discovery]
probe_interval = "2s"
[dns]
servers = ["10.0.0.2", "[::1]:5353"]
"#;
    let text = GOOD.replace("key_file = \"echo.key\"\n", &format!("key_file = \"echo.key\"\n{more}"));
    let directory = Directory::new("together");
    let discovery = directory.parse(&text).unwrap().discovery;
    let sources = &discovery.services[0];
    assert_eq!((sources.name.as_str(), sources.fixed.len()), ("chat", 1));
    assert_eq!(sources.file, Some(directory.0.join("chat.endpoints")));
    assert_eq!(sources.dns, Some(DnsQuery::Srv { name: "_chat._tcp.internal".to_owned() }));
    let consul = sources.consul.as_ref().unwrap();
    assert_eq!((consul.name.as_str(), consul.zone_meta.as_str()), ("im-chat", "zone"));
    let nacos = sources.nacos.as_ref().unwrap();
    assert_eq!((nacos.name.as_str(), nacos.namespace.as_str()), ("chat", "im"));
    assert_eq!(discovery.consul.unwrap().address, "http://127.0.0.1:8500", "the agent of this machine");
    assert_eq!(discovery.probe.interval, Duration::from_secs(2));
    let servers: Vec<String> = discovery.dns.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.2:53", "[::1]:5353"]);
}

#[test]
fn the_state_file_is_where_the_service_manager_lets_it_be() {
    let text = GOOD
        .replace("key_file = \"echo.key\"", "without_proofs = true")
        .replace("[[auth.key]]\nid = \"a\"\nsecret_file = \"access.secret\"\n", "");
    let state_file = |more: &str, directory: Option<&str>| {
        let environment =
            |name: &str| (name == "STATE_DIRECTORY").then(|| directory.map(str::to_owned)).flatten();
        let text = format!("{text}{more}");
        parse("gate.toml", &text, Path::new("/etc/moorgate"), &environment).unwrap().discovery.state_file
    };
    let is = |path: &str| Some(Path::new(path).to_owned());
    assert_eq!(state_file("", None), is("/etc/moorgate/endpoints.json"));
    assert_eq!(state_file("", Some("/var/lib/moorgate")), is("/var/lib/moorgate/endpoints.json"));
    assert_eq!(state_file("", Some("/var/lib/a:/var/lib/b")), is("/var/lib/a/endpoints.json"));
    let named = "[discovery]\nstate_file = \"/srv/lists\"\n";
    assert_eq!(state_file(named, Some("/var/lib/moorgate")), is("/srv/lists"));
    assert_eq!(state_file("[discovery]\nstate_file = \"off\"\n", Some("/var/lib/moorgate")), None);
}

#[test]
fn the_secrets_of_registries_are_found_and_never_shown() {
    let directory = Directory::new("registry-secrets");
    let more = "[consul]\ntoken_file = \"access.secret\"\n[nacos]\nusername = \"gate\"\npassword_env = \"MOORGATE_ECHO_KEY\"\n";
    let settings = directory.parse(&format!("{GOOD}{more}")).unwrap();
    assert_eq!(settings.discovery.consul.as_ref().unwrap().token.as_deref(), Some(crate::SECRET));
    assert_eq!(settings.discovery.nacos.as_ref().unwrap().password.as_deref(), Some(crate::SECRET));
    assert!(!format!("{settings:?}").contains(crate::SECRET));
}

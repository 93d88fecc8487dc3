//! A mistake in the file is told with its line, its key, and what would be right.

use crate::Directory;

/// A good file; the cases change a line of it, or add to its end (line 15 and what follows).
pub(crate) const GOOD: &str = r#"[[listener]]
address = "127.0.0.1:7000"
[admin]
address = "127.0.0.1:7001"
[[auth.key]]
id = "a"
secret_file = "access.secret"
[[service]]
name = "chat"
endpoints = ["10.0.0.1:7100"]
key_file = "echo.key"
[[route]]
commands = "0x0100-0x01ff"
service = "chat"
"#;

/// What a case changes.
pub(crate) enum Change {
    /// This line says something else.
    Line(usize, &'static str),
    /// The table `[session]` says this.
    Session(&'static str),
    /// The text ends with this.
    End(&'static str),
}

use Change::{End, Line, Session};

fn changed(change: &Change) -> String {
    match change {
        Session(more) => format!("{GOOD}[session]\n{more}\n"),
        End(more) => format!("{GOOD}{more}\n"),
        Line(number, other) => {
            let line = |(at, line)| if at + 1 == *number { *other } else { line };
            GOOD.lines().enumerate().map(line).collect::<Vec<_>>().join("\n")
        }
    }
}

/// Each with what is said about it.
pub(crate) type Cases = &'static [(Change, &'static [&'static str])];

/// Each change, and what is said about it; `DIR` stands for the directory of the file.
pub(crate) fn check(test: &str, cases: Cases) {
    let directory = Directory::new(test);
    assert!(directory.parse(GOOD).is_ok());
    for (change, expected) in cases {
        let text = changed(change);
        let Err(error) = directory.parse(&text) else { panic!("it is taken:\n{text}") };
        let path = directory.0.display().to_string();
        let found: Vec<String> = error.lines.iter().map(|line| line.replace(&path, "DIR")).collect();
        let expected: Vec<String> = expected.iter().map(|line| format!("gate.toml:{line}")).collect();
        assert_eq!(found, expected, "\n{text}");
    }
}

const KEYS: Cases = &[
    (
        Session("heartbeet = \"30s\""),
        &[
            "16: session.heartbeet: there is no such key here; there are: detached_ttl, expiry_grace, frame, frame_timeout, groups, handshake_timeout, heartbeat, heartbeat_max, heartbeat_min, in_flight, keepalive, linger, push_bytes, pushes, response_bytes, user_timeout, window, write_timeout",
        ],
    ),
    (
        End("[sesion]\nheartbeat = \"30s\""),
        &[
            "15: sesion: there is no such table; there are: admin, application, auth, bans, consul, devices, discovery, dns, gateway, limits, links, listener, log, nacos, presence, rates, register, route, service, session, session_check",
        ],
    ),
    (End("[[session]]\nheartbeat = \"30s\""), &["15: session: this is a list; write [session]"]),
    (
        Line(1, "[listener]"),
        &["1: listener: this is a table; write [[listener]], with two brackets: there can be several"],
    ),
    (
        Session("in_flight = \"many\""),
        &["16: session.in_flight: this is a text; write a number from 1 to 65536"],
    ),
    (
        Session("in_flight = 1.5"),
        &["16: session.in_flight: this is a number with a fraction; write a number from 1 to 65536"],
    ),
    (
        Session("in_flight = -1"),
        &["16: session.in_flight: -1 is out of bounds; write a number from 1 to 65536"],
    ),
    (
        Session("heartbeat = true"),
        &[r#"16: session.heartbeat: this is a boolean; write a time such as "30s""#],
    ),
    (
        Session("heartbeat = 30"),
        &[r#"16: session.heartbeat: `30` is not a time; write for example "250ms", "30s" or "5m""#],
    ),
    (
        Session("heartbeat = \"half a minute\""),
        &[
            r#"16: session.heartbeat: `half a minute` is not a time; write for example "250ms", "30s" or "5m""#,
        ],
    ),
    (
        Session("heartbeat = \"0s\""),
        &[r#"16: session.heartbeat: `0s` is out of bounds; write "1ms" to "1day""#],
    ),
    (
        Session("handshake_timeout = \"2days\""),
        &[r#"16: session.handshake_timeout: `2days` is out of bounds; write "1ms" to "1day""#],
    ),
    (
        Session("frame = \"64 KB\""),
        &[r#"16: session.frame: `64 KB` is not a size; write for example "64 KiB" or "1 MiB""#],
    ),
    (Session("frame = [64]"), &[r#"16: session.frame: this is a list; write a size such as "64 KiB""#]),
    (End("idempotent = \"yes\""), &["15: route.idempotent: this is a text; write true or false"]),
    (End("roles = \"admin\""), &[r#"15: route.roles: this is a text; write a list such as ["admin"]"#]),
    (End("roles = [1]"), &[r#"15: route.roles: this is a number; write a list such as ["admin"]"#]),
    (End("order = \"fifo\""), &[r#"15: route.order: `fifo` is not known; write one of "none", "session""#]),
    (End("order = 1"), &[r#"15: route.order: this is a number; write one of "none", "session""#]),
    (
        End("[log]\nlevel = \"loud\""),
        &[r#"16: log.level: `loud` is not known; write one of "error", "warn", "info", "debug", "trace""#],
    ),
    (
        End("[log]\naccess = \"\""),
        &[r#"16: log.access: this is empty; write "off", "stdout" or the path of a file"#],
    ),
    (End("[log]\naccess = 7"), &["16: log.access: this is a number; write a text in quotes"]),
    (
        End("[auth]\nissuer = \"\"\naudience = \"\"\nleeway = \"500ms\""),
        &[
            "16: auth.issuer: this is empty, and matches nothing; write a text, or leave it out",
            "17: auth.audience: this is empty, and matches nothing; write a text, or leave it out",
            "18: auth.leeway: `500ms` is too fine; write whole seconds, as \"30s\"",
        ],
    ),
    (
        Line(14, "service = \"chat\"\nversions = \"0\""),
        &[r#"15: route.versions: versions begin at 1; write "1-1""#],
    ),
    (Line(14, "service = \"chat\"\nroles = [\"\"]"), &["15: route.roles: a role has 0 bytes; write 1 to 64"]),
    (Line(14, ""), &[r#"12: route.service: it is missing; write for example service = "chat""#]),
    (
        Line(13, "commands = \"0x01ff-0x0100\""),
        &["13: route.commands: `0x01ff-0x0100` ends before it begins; write the lower number first"],
    ),
    (
        Line(13, "commands = \"all\""),
        &[r#"13: route.commands: `all` is not a range; write for example "0x0100-0x01ff", "0x0201" or 7"#],
    ),
    (
        Line(13, "commands = 1979-05-27"),
        &[r#"13: route.commands: this is a date; write a range such as "0x0100-0x01ff""#],
    ),
];

#[test]
fn keys_and_types() {
    check("keys", KEYS);
}

const ADDRESSES: Cases = &[
    (Line(2, ""), &[r#"1: listener.address: it is missing; write for example address = "0.0.0.0:7000""#]),
    (
        Line(2, "address = \"127.0.0.1\""),
        &[r#"2: listener.address: `127.0.0.1` has no port; write for example "127.0.0.1:7100""#],
    ),
    (
        Line(2, "address = \"::1\""),
        &[r#"2: listener.address: `::1` has no port; write for example "[::1]:7100""#],
    ),
    (
        Line(2, "address = \"gate.example.org:7000\""),
        &[
            r#"2: listener.address: `gate.example.org:7000` is no address; write an IP address and a port, as "10.0.0.1:7100" or "[::1]:7100""#,
        ],
    ),
    (
        Line(2, "address = \"127.0.0.1:70000\""),
        &[
            r#"2: listener.address: `127.0.0.1:70000` is no address; write an IP address and a port, as "10.0.0.1:7100" or "[::1]:7100""#,
        ],
    ),
    (
        Line(2, "address = 7000"),
        &[r#"2: listener.address: this is a number; write an address such as "0.0.0.0:7000""#],
    ),
    (
        Line(4, "address = \"127.0.0.1:7000\""),
        &["4: admin.address: 127.0.0.1:7000 collides with 127.0.0.1:7000 of a listener; choose another port"],
    ),
    (
        Line(4, "address = \"0.0.0.0:7000\""),
        &["4: admin.address: 0.0.0.0:7000 collides with 127.0.0.1:7000 of a listener; choose another port"],
    ),
    (
        Line(2, "address = \"127.0.0.1:7000\"\nsocket_name = \"clients\""),
        &["3: listener.socket_name: there is an address too; leave one of them out"],
    ),
    (
        Line(2, "address = \"127.0.0.1:7000\"\nheartbeat = \"1s\""),
        &[
            "3: listener.heartbeat: it is 1s and must lie between session.heartbeat_min, 5s, and session.heartbeat_max, 10m",
        ],
    ),
    (Line(2, "socket_name = 7"), &["2: listener.socket_name: this is a number; write a text in quotes"]),
    (Line(2, "socket_name = \"a:b\""), &["2: listener.socket_name: write 1 to 64 letters, digits and -_."]),
    (
        Line(2, "socket_name = \"clients\"\naccept = \"reuse_port\""),
        &["3: listener.accept: a socket of the service manager is always shared; leave this out"],
    ),
    (
        Line(2, "socket_name = \"a\"\n[[listener]]\nsocket_name = \"a\""),
        &["4: listener.socket_name: another listener takes `a` already; choose another socket"],
    ),
    (
        Line(2, "socket_name = \"a\"\n[[listener]]\nsocket_name = \"b\"\nadress = 1"),
        &[
            "5: listener.adress: there is no such key here; there are: accept, address, heartbeat, socket_name",
        ],
    ),
    (
        Line(4, "address = \"127.0.0.1:7001\"\nsocket_name = \"operator\""),
        &["5: admin.socket_name: there is an address too; leave one of them out"],
    ),
    (Line(4, ""), &[r#"3: admin.address: it is missing; write for example address = "127.0.0.1:7001""#]),
    (
        End("[[listener]]\naddress = \"127.0.0.1:7000\""),
        &[
            "16: listener.address: 127.0.0.1:7000 collides with 127.0.0.1:7000 of another listener; choose another port",
        ],
    ),
    (
        Line(10, "endpoints = []"),
        &[r#"10: service.endpoints: there are none; write for example endpoints = ["10.0.0.1:7100"]"#],
    ),
    (
        Line(10, "endpoints = [\"chat.internal:7100\"]"),
        &[
            r#"10: service.endpoints: `chat.internal:7100` is no address; write an IP address and a port, as "10.0.0.1:7100" or "[::1]:7100""#,
        ],
    ),
    (
        Line(10, "endpoints = \"10.0.0.1:7100\""),
        &[r#"10: service.endpoints: this is a text; write a list such as ["10.0.0.1:7100"]"#],
    ),
    (
        Line(10, "endpoints = [\"10.0.0.1:7100\", \"10.0.0.1:7100\"]"),
        &["10: service.endpoints: 10.0.0.1:7100 stands here twice; leave one out"],
    ),
    (
        Line(10, "endpoints = [\"10.0.0.1:0\"]"),
        &["10: service.endpoints: 10.0.0.1:0 has port 0; write the port that the service listens on"],
    ),
];

#[test]
fn addresses() {
    check("addresses", ADDRESSES);
}

const BOUNDS: Cases = &[
    (
        End("[limits]\nconnections = 0"),
        &["16: limits.connections: 0 is out of bounds; write a number from 1 to 4294967295"],
    ),
    (
        End("[limits]\naccepts_per_turn = 0"),
        &["16: limits.accepts_per_turn: 0 is out of bounds; write a number from 1 to 65535"],
    ),
    (
        End("[limits]\noutstanding = 0"),
        &["16: limits.outstanding: 0 is out of bounds; write a number from 1 to 4294967295"],
    ),
    (
        End("[limits]\nbacklog = 0"),
        &["16: limits.backlog: 0 is out of bounds; write a number from 1 to 65535"],
    ),
    (
        End("[limits]\nunsent_output = 0"),
        &[r#"16: limits.unsent_output: `0 B` is out of bounds; write "4 KiB" to "1 GiB""#],
    ),
    (
        End("[links]\nunsent_output = \"4 GiB\""),
        &[r#"16: links.unsent_output: `4 GiB` is out of bounds; write "4 KiB" to "1 GiB""#],
    ),
    (
        Session("in_flight = 0"),
        &["16: session.in_flight: 0 is out of bounds; write a number from 1 to 65536"],
    ),
    (Session("window = 0"), &["16: session.window: 0 is out of bounds; write a number from 1 to 65536"]),
    (
        End("[links]\nper_endpoint = 0"),
        &["16: links.per_endpoint: 0 is out of bounds; write a number from 1 to 256"],
    ),
    (
        End("[links]\nwaiting = 0"),
        &["16: links.waiting: 0 is out of bounds; write a number from 1 to 4294967295"],
    ),
    (
        End("[gateway]\nshards = 70000"),
        &["16: gateway.shards: 70000 is out of bounds; write a number from 0 to 1024"],
    ),
    (End("[gateway]\nid = \"\""), &["16: gateway.id: it has 0 bytes; write 1 to 64"]),
    (
        Session("frame = \"1 KiB\""),
        &[r#"16: session.frame: `1 KiB` is out of bounds; write "4 KiB" to "16 MiB""#],
    ),
    (
        End("[links]\nframe = \"1 GiB\""),
        &[r#"16: links.frame: `1 GiB` is out of bounds; write "4 KiB" to "16 MiB""#],
    ),
    (
        Session("in_flight = 100\nwindow = 99"),
        &[
            "17: session.window is 99 and must hold a Response to each of the 100 requests of session.in_flight; write window = 100 or more",
        ],
    ),
    (
        Session("in_flight = 1000"),
        &[
            "16: session.window is 256 and must hold a Response to each of the 1000 requests of session.in_flight; write window = 1000 or more",
        ],
    ),
    (
        Session("window = 10"),
        &[
            "16: session.window is 10 and must hold a Response to each of the 64 requests of session.in_flight; write window = 64 or more",
        ],
    ),
    (
        Session("heartbeat = \"1s\""),
        &[
            "16: session.heartbeat is 1s and must lie between session.heartbeat_min, 5s, and session.heartbeat_max, 10m; change one of them",
        ],
    ),
    (
        Session("heartbeat_max = \"20s\""),
        &[
            "16: session.heartbeat is 30s and must lie between session.heartbeat_min, 5s, and session.heartbeat_max, 20s; change one of them",
        ],
    ),
    (
        End("[links]\nreconnect_min = \"1m\""),
        &["16: links.reconnect_max is 10s and must not be below links.reconnect_min, 1m; change one of them"],
    ),
    (
        End("[limits]\nunfinished_frames = \"32 KiB\""),
        &[
            r#"16: limits.unfinished_frames is 32 KiB and must hold at least one frame of session.frame, 64 KiB; write unfinished_frames = "64 KiB" or more"#,
        ],
    ),
    (End("protocol_min = 2"), &["15: route.protocol_min: 2 is out of bounds; write 1"]),
];

#[test]
fn bounds_and_relations() {
    check("bounds", BOUNDS);
}

const LIMITS: Cases = &[
    (
        End("rate = 100"),
        &[
            r#"15: route.rate: this is a number; write a rate in quotes, as "100/s", "600/m, burst 50" or "off""#,
        ],
    ),
    (
        End("[rates]\nconnection = \"fast\""),
        &[
            r#"16: rates.connection: `fast` is not a rate; write for example "100/s", "600/m, burst 50" or "off""#,
        ],
    ),
    (
        End("[rates]\nuser = \"100/d\"\naddress = \"0/s\""),
        &[
            r#"16: rates.user: `100/d` is not a rate; write for example "100/s", "600/m, burst 50" or "off""#,
            r#"17: rates.address: `0/s` is out of bounds; write 1 to 1000000 for rate and burst, or "off" for no limit"#,
        ],
    ),
    (
        End("[rates]\nper_user = \"100/s\""),
        &[
            "16: rates.per_user: there is no such key here; there are: accepts, address, application, connection, frames, logins, openings, outstanding_address, outstanding_application, outstanding_user, user",
        ],
    ),
    (
        End("[rates]\noutstanding_user = \"10/s\""),
        &["16: rates.outstanding_user: this is a text; write a number from 0 to 1000000"],
    ),
    (
        End("[rates]\nframes = \"40/s, burst 500\""),
        &[
            "16: rates.frames ends a connection where rates.connection only refuses a request, and must not be below it; write a higher rate and burst for frames, or lower ones for connection",
        ],
    ),
    (
        End("[rates]\nconnection = \"100/s, burst 5000\""),
        &[
            "16: rates.frames ends a connection where rates.connection only refuses a request, and must not be below it; write a higher rate and burst for frames, or lower ones for connection",
        ],
    ),
    (
        End("[limits]\nreserve = 101"),
        &["16: limits.reserve: 101 is out of bounds; write a number from 0 to 100"],
    ),
    (
        End("[limits]\nhandshakes = 0"),
        &["16: limits.handshakes: 0 is out of bounds; write a number from 1 to 4294967295"],
    ),
    (End("[bans]\nenabled = \"no\""), &["16: bans.enabled: this is a text; write true or false"]),
    (
        End("[bans]\noffences = 0"),
        &["16: bans.offences: 0 is out of bounds; write a number from 1 to 1000000"],
    ),
    (
        End("[bans]\nfirst = \"2h\""),
        &["16: bans.longest is 1h and must not be below bans.first, 2h; change one of them"],
    ),
    (
        End("[bans]\nlongest = \"31days\""),
        &[r#"16: bans.longest: `1month 13h 26m 24s` is out of bounds; write "1s" to "30days""#],
    ),
];

#[test]
fn rates_and_bans() {
    check("limits", LIMITS);
}

const USERS: Cases = &[
    (
        End("[devices]\npolicy = \"two\""),
        &[r#"16: devices.policy: `two` is not known; write one of "any", "one_per_class", "one""#],
    ),
    (
        End("[devices]\nwins = true"),
        &[r#"16: devices.wins: this is a boolean; write one of "newer", "older""#],
    ),
    (
        End("[devices]\nsessions_per_user = 65537"),
        &["16: devices.sessions_per_user: 65537 is out of bounds; write a number from 0 to 65536"],
    ),
    (
        End("[devices]\nclasses = [\"phone\"]"),
        &[
            r#"16: devices.classes: this is a list; write for example { phone = ["android", "ios"], computer = ["windows", "macos"] }"#,
        ],
    ),
    (
        End("[devices]\nclasses = { phone = \"android\" }"),
        &[
            r#"16: devices.classes: this is a text; write a list such as ["android", "ios"] for class `phone`"#,
        ],
    ),
    (
        End("[devices]\nclasses = { phone = [] }"),
        &[
            r#"16: devices.classes: class `phone` has no platforms; write a list such as ["android", "ios"], or leave it out"#,
        ],
    ),
    (
        End("[devices]\nclasses = { phone = [\"android\", \"\"] }"),
        &["16: devices.classes: a platform of class `phone` has 0 bytes; write 1 to 64"],
    ),
    (
        End("[devices]\nclasses = { phone = [\"android\"], pad = [\"ANDROID\"] }"),
        &["16: devices.classes: `android` is named twice; each platform is of one class"],
    ),
    (
        End("[devices]\ndevices = 1"),
        &[
            "16: devices.devices: there is no such key here; there are: classes, policy, sessions_per_user, wins",
        ],
    ),
    (
        End("[presence]\nlease = \"10s\""),
        &[
            "16: presence.lease: it is 10s and must be at least 3 times links.heartbeat, 5s: one late ping would take everybody offline; write lease = \"15s\" or more",
        ],
    ),
    (
        End("[presence]\nlease = \"0s\""),
        &[r#"16: presence.lease: `0s` is out of bounds; write "1ms" to "1day""#],
    ),
];

#[test]
fn users() {
    check("users", USERS);
}

const ROUTES: Cases = &[
    (
        Line(9, "name = \"my chat\""),
        &[
            "9: service.name: write 1 to 64 letters, digits and -_.",
            "14: route.service: there is no service `chat`; there are: my chat",
        ],
    ),
    (
        End("[[service]]\nname = \"chat\"\nendpoints = [\"10.0.0.2:7100\"]\nkey_file = \"echo.key\""),
        &["16: service.name: another service is called `chat` too; choose another name"],
    ),
    (
        End("[[service]]\nname = \"mail\"\nendpoints = [\"10.0.0.2:7100\"]\nkey_file = \"echo.key\""),
        &["16: service.name: no route leads to `mail`; write a [[route]] to it"],
    ),
    (Line(14, "service = \"chta\""), &["14: route.service: there is no service `chta`; there are: chat"]),
    (
        End("[[route]]\ncommands = \"0x01f0-0x0200\"\nservice = \"chat\""),
        &[
            "16: route.commands: 0x01f0-0x0200 overlaps with 0x0100-0x01ff of line 13 in the same versions; give each command to one route",
        ],
    ),
    (
        End("anonymous = true\nroles = [\"admin\"]"),
        &["16: route.roles: anonymous sessions have no roles; write either anonymous = true or roles"],
    ),
    (
        Line(10, "endpoints = [\"10.0.0.1:7100\"]\ncommands = \"0x00f0-0x02ff\""),
        &[
            "11: service.commands: no route leads to 0x00f0-0x00ff; write a [[route]] for it",
            "11: service.commands: no route leads to 0x0200-0x02ff; write a [[route]] for it",
        ],
    ),
];

#[test]
fn services_and_routes() {
    check("routes", ROUTES);
}

const TOML: Cases = &[
    (
        Line(2, "address = 127.0.0.1:7000"),
        &[
            "2: this is no TOML (invalid float, expected nothing); write [table] or key = value, with texts in quotes",
        ],
    ),
    (
        Line(1, "[[listener]"),
        &[
            "1: this is no TOML (unclosed array table, expected `]`); write [table] or key = value, with texts in quotes",
        ],
    ),
    (
        Line(2, "address: \"127.0.0.1:7000\""),
        &[
            "2: this is no TOML (key with no value, expected `=`); write [table] or key = value, with texts in quotes",
        ],
    ),
    (
        End("[admin]\naddress = \"127.0.0.1:7002\""),
        &[
            "15: `admin` stands above already; leave one of them out",
            "16: `address` stands above already; leave one of them out",
        ],
    ),
    (End("service = \"chat\""), &["15: `service` stands above already; leave one of them out"]),
    (
        End("{\"json\": 1}"),
        &[
            "15: this is no TOML (invalid key-value pair, expected key); write [table] or key = value, with texts in quotes",
        ],
    ),
];

#[test]
fn no_toml() {
    check("toml", TOML);
}

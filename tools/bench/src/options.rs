//! The command line.

use crate::audience::To;
use crate::cutting::Cut;
use crate::pattern::STAMP_BYTES;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Loads a Moorgate gateway, or a bare server for comparison, and checks every reply.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Requests to the echo service (command 0x0001); each reply is compared with its request.
    Requests(Requests),
    /// Connections that do nothing but heartbeats: memory per connection.
    Idle(Common),
    /// Connects, opens a session, leaves: sessions opened per second.
    Connect(Common),
    /// Pushes to many connections: each checks that what comes is for it, once and in order.
    ///
    /// This process is the service that pushes, and all clients that receive: one clock. Of a gateway it needs the grants
    /// push, groups and push_all, and for groups a route of command 0x0100; `moorgate serve --dev` and
    /// tools/bench/push.toml have them.
    Push(Push),
    /// Password logins a second, at the demo accounts service, which `serve --dev` has inside.
    ///
    /// Each connection registers a user once, then opens an anonymous session, logs in, leaves, and does it again. Hashing
    /// passwords with argon2 is what takes the time, in the process of the service and on purpose: the figure is the
    /// service's, not the gateway's. It lets 64 logins wait and refuses more, which counts as errors here.
    Login(LogIns),
    /// Cuts the connections of many clients again and again, while requests and pushes go on, and checks from end to end
    /// that nothing is lost, done twice or out of order.
    ///
    /// This process is all clients and the service behind the gateway, which needs the grants push, groups and push_all,
    /// and routes of the commands 0x0100 and 0x0102; `moorgate serve --dev` and tools/bench/resume.toml have them, and
    /// tools/bench/resume.sh starts it all. A quarter of the cuts are resets, a quarter leave the connection half open; half of them happen with
    /// requests on their way, whole or torn. Clients come back at once and resume. It fails when anything is lost,
    /// duplicated or reordered, and when a session was not there any more.
    Resume(Resume),
    /// Cuts all connections at once; all come back at once and resume. How long that takes, and what clients notice that
    /// were not cut.
    ///
    /// As `resume`, this process is the service as well. `--duration` is the time before the storm. With `--raw` the same
    /// storm is for `bare-echo`: who has connected sends one frame, and is back when that has come back.
    Storm(Storm),
    /// A fault-injection proxy between any client and server: it ends connections at random bytes (closed, reset or half
    /// open), splits what it forwards at random bytes and delays it, all from a seed.
    ///
    /// It prints its address, then runs for `--duration` or, with `--until-eof`, until its standard input ends, and prints
    /// its counts as a line of JSON.
    Cut(FaultProxy),
    /// An echo service for a gateway to forward to.
    EchoService(EchoService),
    /// A single-threaded epoll echo server: the physical floor.
    BareEcho {
        /// Where to listen; port 0 lets the system choose one.
        #[arg(long, default_value = "127.0.0.1:7200")]
        listen: SocketAddr,
    },
    /// A single-threaded server that writes each push in a loop of write(2) calls: the physical floor for `push`.
    BarePush {
        /// Where clients connect; port 0 lets the system choose one.
        #[arg(long, default_value = "127.0.0.1:7201")]
        listen: SocketAddr,
        /// Where the tester says what to push; port 0 lets the system choose one.
        #[arg(long, default_value = "127.0.0.1:7202")]
        control: SocketAddr,
    },
}

/// What all loads share.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Where to connect; several are used in turn.
    #[arg(long, required = true, value_delimiter = ',')]
    pub(crate) target: Vec<SocketAddr>,
    /// Connections at once.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub(crate) connections: usize,
    /// How long to measure, as 5s or 2m.
    #[arg(long, default_value = "5s", value_parser = time)]
    pub(crate) duration: Duration,
    /// How long to wait for all connections to be served, for a gateway's link, and for the first push to arrive.
    #[arg(long, default_value = "60s", value_parser = time)]
    pub(crate) ramp_timeout: Duration,
    /// Threads of the tester.
    #[arg(long, default_value_t = 1, value_parser = positive)]
    pub(crate) threads: usize,
    /// Sign access tokens with the content of this file; without it, with the development secret.
    #[arg(long)]
    pub(crate) token_secret_file: Option<PathBuf>,
    /// The id of that key.
    #[arg(long, default_value = "default")]
    pub(crate) token_key_id: String,
    /// Open anonymous sessions.
    #[arg(long)]
    pub(crate) anonymous: bool,
    /// Plain length-prefixed frames without the protocol, for a bare server or a TCP proxy.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Report CPU time and memory of this process; with a label as service=123. The first one counts.
    #[arg(long, alias = "gateway-pid", value_parser = watched)]
    pub(crate) watch_pid: Vec<Watched>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Requests {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 1, value_parser = positive)]
    pub(crate) in_flight: usize,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 128)]
    pub(crate) payload: usize,
    /// The command of the requests, which an echo service must own.
    #[arg(long, default_value = "0x0001", value_parser = command)]
    pub(crate) command: u32,
    /// Requests a second over all connections, on a fixed schedule; latency counts from the schedule.
    /// Without it each reply starts the next request.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Before the window.
    #[arg(long, default_value = "1s", value_parser = time)]
    pub(crate) warmup: Duration,
    /// Also open this many new sessions a second, and report how long each waits for its Welcome.
    #[arg(long, default_value_t = 0)]
    pub(crate) newcomers_per_s: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Push {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Whom the pushes are addressed to.
    #[arg(long, value_enum, default_value = "everyone")]
    pub(crate) to: To,
    /// Users that one push names; with `--to users`.
    #[arg(long, default_value_t = 1)]
    pub(crate) users_per_push: u32,
    /// Groups, which have their pushes in turn; with `--to group`.
    #[arg(long, default_value_t = 1)]
    pub(crate) groups: u32,
    /// Connections in each group; the others are in none. Without it all connections join the groups in turn.
    #[arg(long)]
    pub(crate) group_size: Option<u32>,
    /// Bytes of each payload; at least 16, which name the push and its time.
    #[arg(long, default_value_t = 128, value_parser = payload)]
    pub(crate) payload: usize,
    /// Pushes a second, on a fixed schedule; latency counts from the schedule. Without it a push is made when those
    /// before it have arrived everywhere.
    #[arg(long, conflicts_with = "pushes_in_flight", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Pushes that have not arrived everywhere, at once.
    #[arg(long, default_value_t = 1, value_parser = positive)]
    pub(crate) pushes_in_flight: usize,
    /// Ask for a receipt of each delivery, and count them.
    #[arg(long, conflicts_with = "raw")]
    pub(crate) receipts: bool,
    /// Before the window; before it every connection has had one push.
    #[arg(long, default_value = "1s", value_parser = time)]
    pub(crate) warmup: Duration,
    /// After the last delivery, before memory is read again. Gateways give back a session's queues when its heartbeat is
    /// looked at: within twice the interval.
    #[arg(long, default_value = "2s", value_parser = time)]
    pub(crate) quiet: Duration,
    /// Where this process listens as the service that pushes.
    #[arg(long, default_value = "127.0.0.1:7003")]
    pub(crate) service_listen: SocketAddr,
    /// The name that gateways expect.
    #[arg(long, default_value = "bench")]
    pub(crate) service_name: String,
    /// Gateways must prove that they hold the content of this file.
    #[arg(long)]
    pub(crate) key_file: Option<PathBuf>,
    /// With `--raw`: the control address of `bare-push`.
    #[arg(long, default_value = "127.0.0.1:7202")]
    pub(crate) control: SocketAddr,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LogIns {
    #[command(flatten)]
    pub(crate) common: Common,
    /// One in so many connections checks that the access token of each login opens a session.
    #[arg(long, default_value_t = 8)]
    pub(crate) check_every: u32,
    /// Before the window.
    #[arg(long, default_value = "1s", value_parser = time)]
    pub(crate) warmup: Duration,
}

/// The service that this process is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Backing {
    /// Where this process listens as the service.
    #[arg(long, default_value = "127.0.0.1:7003")]
    pub(crate) service_listen: SocketAddr,
    /// The name that gateways expect.
    #[arg(long, default_value = "bench")]
    pub(crate) service_name: String,
    /// Gateways must prove that they hold the content of this file.
    #[arg(long)]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How often each connection is cut, at random moments.
    #[arg(long, default_value_t = 10)]
    pub(crate) cuts: u32,
    /// From a cut to the next connect, at the most; each time it is a random part of it.
    #[arg(long, default_value = "200ms", value_parser = time)]
    pub(crate) delay: Duration,
    /// Requests of each connection, as 2/s; a cut may add up to three.
    #[arg(long, default_value = "2/s", value_parser = rate)]
    pub(crate) rate: f64,
    /// Requests of a connection without an answer; with so many those of the schedule wait.
    #[arg(long, default_value_t = 4, value_parser = positive)]
    pub(crate) in_flight: usize,
    /// Pushes a second: to everyone, a group and some users in turn.
    #[arg(long, default_value = "3/s", value_parser = rate)]
    pub(crate) pushes_per_s: f64,
    /// Bytes of each request and push; at least 16.
    #[arg(long, default_value_t = 64, value_parser = payload)]
    pub(crate) payload: usize,
    /// Of all randomness.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) backing: Backing,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Storm {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Log in anew, without a resume.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Connections that are not cut, beside the others.
    #[arg(long, default_value_t = 100)]
    pub(crate) steady: usize,
    /// Requests of each of them, on a fixed schedule.
    #[arg(long, default_value = "20/s", value_parser = rate)]
    pub(crate) steady_rate: f64,
    #[command(flatten)]
    pub(crate) backing: Backing,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct FaultProxy {
    /// Where to listen; port 0 lets the system choose one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Where connections are forwarded to.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Of all randomness.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Connections that end with a fault, in percent.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) fault_percent: u8,
    /// A fault happens after at most so many bytes, both directions counted; where in them is random.
    #[arg(long, default_value_t = 65_536)]
    pub(crate) fault_bytes: u64,
    /// And at most so long after the connect.
    #[arg(long, default_value = "10s", value_parser = time)]
    pub(crate) fault_within: Duration,
    /// The kinds of faults, which are equally likely.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "close,reset,half-open")]
    pub(crate) faults: Vec<Cut>,
    /// After so many faults connections are only forwarded; 0: no bound.
    #[arg(long, default_value_t = 0)]
    pub(crate) faults_max: u64,
    /// How long a half-open connection is held before it is closed.
    #[arg(long, default_value = "2s", value_parser = time)]
    pub(crate) half_open: Duration,
    /// Each piece is forwarded so much later at the most; each time it is a random part of it.
    #[arg(long, default_value = "0ms", value_parser = time)]
    pub(crate) delay: Duration,
    /// Bytes are forwarded in pieces of at most so many; each time it is a random number. 0: they are not split.
    #[arg(long, default_value_t = 0)]
    pub(crate) split: usize,
    /// Connections at once, half-open ones counted; more are closed at once.
    #[arg(long, default_value_t = 1024)]
    pub(crate) connections_max: usize,
    /// How long to run; without it, until it is ended.
    #[arg(long, value_parser = time)]
    pub(crate) duration: Option<Duration>,
    /// Run until the standard input ends.
    #[arg(long)]
    pub(crate) until_eof: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct EchoService {
    /// Where to listen; port 0 lets the system choose one.
    #[arg(long, default_value = "127.0.0.1:7100")]
    pub(crate) listen: SocketAddr,
    /// The name that gateways expect.
    #[arg(long, default_value = "echo")]
    pub(crate) service_name: String,
    /// The most calls outstanding on one link; 0: no bound.
    #[arg(long, default_value_t = 0)]
    pub(crate) capacity: u32,
    /// Gateways must prove that they hold the content of this file.
    #[arg(long)]
    pub(crate) key_file: Option<PathBuf>,
    /// Answer so much later, as 2ms.
    #[arg(long, default_value = "0s", value_parser = time)]
    pub(crate) delay: Duration,
}

/// A process to be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) label: String,
    pub(crate) pid: u32,
}

fn watched(text: &str) -> Result<Watched, String> {
    let (label, pid) = text.split_once('=').unwrap_or(("gateway", text));
    let pid = pid.parse().map_err(|_| format!("`{pid}` is no process id"))?;
    Ok(Watched { label: label.to_owned(), pid })
}

fn command(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("`{text}` is no command; write for example 0x0001"))
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("`{text}` is no number from 1"))
}

fn payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes >= STAMP_BYTES => Ok(bytes),
        Ok(_) => Err(format!("a push has at least {STAMP_BYTES} bytes")),
        Err(_) => Err(format!("`{text}` is no number of bytes")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().ok();
    let is_rate = |rate: &f64| rate.is_finite() && *rate >= 0.0;
    number.filter(is_rate).ok_or_else(|| format!("`{text}` is not a rate; write for example 2/s"))
}

fn time(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let wrong = || format!("`{text}` is not a time; write for example 500ms, 5s or 2m");
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood() {
        Bench::try_parse_from([
            "b",
            "requests",
            "--target",
            "127.0.0.1:1,127.0.0.1:2",
            "--duration",
            "500ms",
        ])
        .unwrap();
        assert!(Bench::try_parse_from(["b", "requests"]).is_err());
        for option in ["--connections", "--threads", "--in-flight", "--rate"] {
            assert!(
                Bench::try_parse_from(["b", "requests", "--target", "127.0.0.1:1", option, "0"]).is_err()
            );
        }
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(time("5").is_err() && time("s").is_err());
        assert_eq!(watched("service=7"), Ok(Watched { label: "service".into(), pid: 7 }));
        assert_eq!(watched("7").unwrap().label, "gateway");
        assert!(watched("x").is_err());
        let push = |words: &[&str]| {
            Bench::try_parse_from([&["b", "push", "--target", "127.0.0.1:1"], words].concat())
        };
        push(&["--to", "group", "--groups", "7", "--payload", "16"]).unwrap();
        push(&["--to", "users", "--pushes-in-flight", "9"]).unwrap();
        assert!(push(&["--payload", "15"]).is_err());
        assert!(push(&["--raw", "--receipts"]).is_err());
        assert!(push(&["--rate", "1", "--pushes-in-flight", "9"]).is_err());
        let words = ["b", "resume", "--target", "127.0.0.1:1", "--rate", "0.5/s", "--gateway-pid", "7"];
        Bench::try_parse_from(words).unwrap();
        Bench::try_parse_from(["b", "storm", "--target", "127.0.0.1:1", "--fresh"]).unwrap();
        assert_eq!((rate("2/s"), rate("3")), (Ok(2.0), Ok(3.0)));
        assert_eq!((command("0x0201"), command("7")), (Ok(0x201), Ok(7)));
        assert!(command("x").is_err());
        assert!(rate("-1/s").is_err() && rate("2/m").is_err());
    }
}

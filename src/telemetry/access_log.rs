//! The access log: one line per answered request, written by a thread of its own.
//!
//! Lines are `key=value` pairs; values from outside are escaped and bounded, so that no client writes a line.

use super::why::write_why;
use crate::base::ids::ServiceId;
use crate::relay::AccessRecord;
use crate::routing::{EndpointId, Pools};
use crossbeam_channel::{Receiver, Sender, bounded};
use moorgate_proto::v1::{Execution, Source};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Batches that may wait for the writer; a batch is one turn of one shard.
const BATCHES_MAX: usize = 4096;
/// Bytes collected before a write.
const BUFFER_BYTES: usize = 64 * 1024;
/// Addresses of endpoints that the writer remembers, so that it need not ask for each line.
const ADDRESSES_MAX: usize = 4096;

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessTarget {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// What the numbers in a record are called.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Services, by their ids.
    pub services: Vec<String>,
    /// Endpoints, by their ids.
    pub pools: Arc<Pools>,
}

/// Why there is no log.
#[derive(Debug)]
pub struct AccessLogError {
    path: PathBuf,
    error: io::Error,
}

impl std::fmt::Display for AccessLogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "access log {}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for AccessLogError {}

/// The writer's thread.
#[derive(Debug)]
pub struct AccessLog {
    sender: Sender<Vec<AccessRecord>>,
    thread: JoinHandle<()>,
}

impl AccessTarget {
    /// Checks that a log can be opened at the path. A file that exists is opened as a log is; where there is none, a file
    /// beside it is created and removed, so that a check leaves no file with other permissions.
    ///
    /// # Errors
    /// [`AccessLogError`].
    pub fn check(&self) -> Result<(), AccessLogError> {
        let AccessTarget::File(path) = self else { return Ok(()) };
        let checked = match std::fs::metadata(path) {
            // Opening a pipe may block.
            Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut name = path.file_name().unwrap_or_default().to_owned();
                name.push(format!(".check-{}", std::process::id()));
                let beside = path.with_file_name(name);
                let made = OpenOptions::new().create_new(true).append(true).open(&beside);
                made.and_then(|_| std::fs::remove_file(&beside))
            }
            _ => OpenOptions::new().append(true).open(path).map(|_| ()),
        };
        checked.map_err(|error| AccessLogError { path: path.clone(), error })
    }
}

impl AccessLog {
    /// Starts the writer; `None` when the log is off.
    ///
    /// # Errors
    /// [`AccessLogError`] when the file cannot be opened.
    pub fn start(target: &AccessTarget, names: Names) -> Result<Option<AccessLog>, AccessLogError> {
        let out: Box<dyn Write + Send> = match target {
            AccessTarget::Off => return Ok(None),
            AccessTarget::Stdout => Box::new(io::stdout()),
            AccessTarget::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Box::new(file.map_err(|error| AccessLogError { path: path.clone(), error })?) as Box<File>
            }
        };
        let (sender, receiver) = bounded(BATCHES_MAX);
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        let thread = thread
            .spawn(move || {
                write_all(&receiver, out, &names, &mut |error| {
                    log::error!("access log: {error}: lines are lost");
                });
            })
            .map_err(|error| AccessLogError { path: PathBuf::from("thread"), error })?;
        Ok(Some(AccessLog { sender, thread }))
    }

    /// Where records are sent.
    pub fn sender(&self) -> Sender<Vec<AccessRecord>> {
        self.sender.clone()
    }

    /// Writes what is left, once all other senders are gone.
    pub fn finish(self) {
        drop(self.sender);
        if self.thread.join().is_err() {
            log::error!("the access log's thread has failed");
        }
    }
}

fn write_all(
    receiver: &Receiver<Vec<AccessRecord>>,
    out: Box<dyn Write + Send>,
    names: &Names,
    complain: &mut dyn FnMut(&io::Error),
) {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    let mut lines = Lines::new(names);
    // Told once, and again only after everything could be written: what is merely buffered shows nothing.
    let mut failed = false;
    let mut told = |result: io::Result<()>, is_flushed: bool| match result {
        Ok(()) => failed &= !is_flushed,
        Err(error) if !std::mem::replace(&mut failed, true) => complain(&error),
        Err(_) => {}
    };
    while let Ok(batch) = receiver.recv() {
        lines.text.clear();
        batch.iter().for_each(|record| lines.add(record));
        let mut result = out.write_all(lines.text.as_bytes());
        let is_last = receiver.is_empty();
        if is_last {
            result = result.and_then(|()| out.flush());
        }
        told(result, is_last);
    }
    told(out.flush(), true);
}

struct Lines<'a> {
    names: &'a Names,
    addresses: Addresses<'a>,
    text: String,
    /// The last time and its text: most of a batch shares it.
    time: (u64, String),
}

impl<'a> Lines<'a> {
    fn new(names: &'a Names) -> Lines<'a> {
        let addresses = Addresses { pools: &names.pools, known: HashMap::new() };
        Lines { names, addresses, text: String::new(), time: (u64::MAX, String::new()) }
    }

    fn add(&mut self, record: &AccessRecord) {
        if self.time.0 != record.unix_ms {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(record.unix_ms);
            self.time = (record.unix_ms, humantime::format_rfc3339_millis(time).to_string());
        }
        let text = &mut self.text;
        let _ = write!(
            text,
            "time={} session={} seq={} user=",
            self.time.1, record.caller.session_id, record.up_seq
        );
        escape(text, &record.caller.user_id);
        let _ = write!(text, " peer={} command={:#06x} service=", record.caller.peer, record.command);
        let service = record.route.and_then(|(_, ServiceId(id))| self.names.services.get(usize::from(id)));
        text.push_str(service.map_or("-", String::as_str));
        text.push_str(" endpoint=");
        text.push_str(self.addresses.of(EndpointId(record.endpoint)));
        let outcome = &record.outcome;
        text.push_str(" status=");
        text.push_str(outcome.code.name());
        text.push_str(" reason=");
        text.push_str(outcome.reason.as_str_name().strip_prefix("REASON_").unwrap_or_default());
        text.push_str(" source=");
        text.push_str(if outcome.source == Source::Service { "service" } else { "gateway" });
        text.push_str(" execution=");
        text.push_str(match outcome.execution {
            Execution::Executed => "executed",
            Execution::NotExecuted => "not_executed",
            Execution::Unknown | Execution::Unspecified => "unknown",
        });
        let us = record.latency.as_micros();
        let _ = write!(
            text,
            " us={us} bytes_in={} bytes_out={} why=",
            record.request_bytes, record.response_bytes
        );
        write_why(text, &record.decision, self.addresses.of(record.decision.rival));
        text.push('\n');
    }
}

/// Where endpoints listen, as it is written. An id is never another endpoint's: what was found stays right.
struct Addresses<'a> {
    pools: &'a Pools,
    known: HashMap<EndpointId, String>,
}

impl Addresses<'_> {
    /// `-`: none, or one that left long ago.
    fn of(&mut self, id: EndpointId) -> &str {
        const NOWHERE: &str = "-";
        if id == EndpointId::default() {
            return NOWHERE;
        }
        if !self.known.contains_key(&id) {
            let Some((_, address)) = self.pools.address(id) else { return NOWHERE };
            if self.known.len() >= ADDRESSES_MAX {
                self.known.clear();
            }
            self.known.insert(id, address.to_string());
        }
        self.known.get(&id).map_or(NOWHERE, String::as_str)
    }
}

/// Writes a value that came from outside: `-` when it is empty, quoted when it is not plain.
fn escape(text: &mut String, value: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@:+/".contains(&byte);
    if value.is_empty() {
        text.push('-');
    } else if value.bytes().all(plain) {
        text.push_str(value);
    } else {
        let _ = write!(text, "\"{}\"", value.escape_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{RouteId, SessionId};
    use crate::relay::{Caller, Outcome};
    use crate::routing::{Decision, How};
    use moorgate_proto::status::Code;
    use moorgate_proto::v1::{self, Reason};

    fn record(user: &str) -> AccessRecord {
        let caller = v1::Caller { user_id: user.to_owned(), ..Default::default() };
        AccessRecord {
            unix_ms: 1_800_000_000_123,
            caller: Arc::new(Caller::new(SessionId([1; 16]), [127, 0, 0, 1].into(), &caller)),
            up_seq: 7,
            command: 0x201,
            route: Some((RouteId(0), ServiceId(0))),
            endpoint: 1,
            decision: Decision {
                how: How::PeakEwma,
                candidates: 2,
                cost_us: 1200,
                rival: EndpointId(2),
                rival_cost_us: 9000,
                ..Decision::default()
            },
            outcome: Outcome::unknown(Code::Aborted, Reason::EndpointLost),
            latency: Duration::from_micros(1234),
            request_bytes: 5,
            response_bytes: 0,
        }
    }

    fn line(user: &str) -> String {
        let pools = Pools::new(1);
        pools.publish(ServiceId(0), &["10.0.0.1:7100".parse().unwrap(), "10.0.0.2:7100".parse().unwrap()]);
        let names = Names { services: vec!["chat".into()], pools: Arc::new(pools) };
        let mut lines = Lines::new(&names);
        lines.add(&record(user));
        lines.text
    }

    #[test]
    fn a_line_says_all_that_is_known() {
        let expected = "time=2027-01-15T08:00:00.123Z session=01010101010101010101010101010101 seq=7 user=alice \
                        peer=127.0.0.1 command=0x0201 service=chat endpoint=10.0.0.1:7100 status=ABORTED \
                        reason=ENDPOINT_LOST source=gateway execution=unknown us=1234 bytes_in=5 bytes_out=0 \
                        why=peak_ewma:cand=2,cost=1.2ms,rival=10.0.0.2:7100@9ms\n";
        assert_eq!(line("alice"), expected);
    }

    #[test]
    fn addresses_are_remembered_within_bounds() {
        let pools = Pools::new(1);
        let at = |port: u16| format!("10.0.0.1:{port}").parse().unwrap();
        let mut addresses = Addresses { pools: &pools, known: HashMap::new() };
        for port in 1..=u16::try_from(ADDRESSES_MAX).unwrap() + 7 {
            pools.publish(ServiceId(0), &[at(port)]);
            assert_eq!(addresses.of(EndpointId(port.into())), format!("10.0.0.1:{port}"));
            assert!(addresses.known.len() <= ADDRESSES_MAX);
        }
        assert_eq!(addresses.of(EndpointId(1)), "-", "it left long ago");
        assert_eq!(addresses.of(EndpointId(0)), "-");
    }

    #[test]
    fn no_user_writes_a_line() {
        let line = line("eve\nuser=admin \"x\"");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r#"user="eve\nuser=admin \"x\"""#), "{line}");
    }

    #[test]
    fn a_full_disk_is_told_once() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = bounded(10);
        // Small batches are buffered, large ones are written.
        for records in [1000, 1, 1000, 1, 1000] {
            sender.send(vec![record("a"); records]).unwrap();
        }
        drop(sender);
        let mut told = 0;
        write_all(&receiver, Box::new(Full), &Names::default(), &mut |_| told += 1);
        assert_eq!(told, 1);
    }

    #[test]
    fn records_reach_the_file() {
        let path = std::env::temp_dir().join(format!("moorgate-access-{}", std::process::id()));
        // One that was killed may have had the same number, and have left its own.
        let _ = std::fs::remove_file(&path);
        let log = AccessLog::start(&AccessTarget::File(path.clone()), Names::default()).unwrap().unwrap();
        log.sender().send(vec![record("a"), record("b")]).unwrap();
        log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        let missing = AccessTarget::File("/nowhere/log".into());
        assert!(
            AccessLog::start(&missing, Names::default()).unwrap_err().to_string().contains("/nowhere/log")
        );
    }
}

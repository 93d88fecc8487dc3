//! The access log: one line per answered request, written by a thread of its own.
//!
//! Lines are `key=value` pairs; values from outside are escaped and bounded, so that no client writes a line.

use super::bounded::within;
use super::line_sink::{LineSink, WriteFailure};
use super::why::write_why;
use crate::base::counters::{Cells, Count};
use crate::base::ids::ServiceId;
use crate::relay::AccessRecord;
use crate::routing::{EndpointId, Pools};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, never, select};
use moorgate_proto::v1::{Execution, Source};
use rustix::fs::{Access, AtFlags, CWD};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Batches that may wait for the writer; a batch is one turn of one shard.
const BATCHES_MAX: usize = 4096;
/// Bytes collected before a write.
const BUFFER_BYTES: usize = 64 * 1024;
/// Addresses of endpoints that the writer remembers, so that it need not ask for each line.
const ADDRESSES_MAX: usize = 4096;
/// For the file to be opened: a disk of another machine may not answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// At the end, for the lines that are left: the pipe that they go to may have no reader.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);
/// How the first line of each log begins.
const BEGINNING: &[u8] = b"time=";
/// Rights of a new file: it names users and addresses.
const FILE_MODE: u32 = 0o640;

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessTarget {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file or a named pipe.
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
        let (path, error) = (self.path.display(), &self.error);
        write!(f, "{path} cannot be written: {error}")?;
        match error.kind() {
            io::ErrorKind::NotFound => {
                let directory = self.path.parent().unwrap_or(Path::new(".")).display();
                write!(f, "; make the directory {directory}, or write another path")
            }
            io::ErrorKind::PermissionDenied => {
                f.write_str("; let the user of this process write it, or write another path")
            }
            io::ErrorKind::IsADirectory => f.write_str("; write the path of a file in it"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for AccessLogError {}

/// The writer's thread.
#[derive(Debug)]
pub struct AccessLog {
    sender: Sender<Vec<AccessRecord>>,
    reopen: Sender<()>,
    /// The same records, for those that are left over.
    unread: Receiver<Vec<AccessRecord>>,
    /// Lines that the writer has taken and not written yet.
    unwritten: Arc<AtomicU64>,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

impl AccessTarget {
    /// Checks that a log can be opened at the path. A file that exists is opened as a log is; where there is none, its
    /// directory must be writable, so that a check leaves no file with other permissions.
    ///
    /// # Errors
    /// [`AccessLogError`].
    pub fn check(&self) -> Result<(), AccessLogError> {
        let AccessTarget::File(path) = self else { return Ok(()) };
        let checked = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let directory = directory.unwrap_or(Path::new("."));
                let needed = Access::WRITE_OK | Access::EXEC_OK;
                rustix::fs::accessat(CWD, directory, needed, AtFlags::EACCESS).map_err(io::Error::from)
            }
            _ => open_in_time(path).map(|_| ()),
        };
        checked.map_err(|error| AccessLogError { path: path.clone(), error })
    }
}

impl AccessLog {
    /// Starts the writer, which counts what it cannot write; `None` when the log is off.
    ///
    /// # Errors
    /// [`AccessLogError`] when the file cannot be opened.
    pub fn start(
        target: &AccessTarget,
        names: Names,
        cells: Arc<Cells>,
    ) -> Result<Option<AccessLog>, AccessLogError> {
        let (out, path) = match target {
            AccessTarget::Off => return Ok(None),
            AccessTarget::Stdout => (standard_output().map(LineSink::new), None),
            AccessTarget::File(path) => (open_in_time(path), Some(path.clone())),
        };
        let failed = |error| AccessLogError { path: path.clone().unwrap_or_else(|| "stdout".into()), error };
        let out = out.map_err(&failed)?;
        let (sender, unread) = bounded(BATCHES_MAX);
        let (reopen, reopens) = bounded(1);
        let (running, ended) = bounded(0);
        let unwritten = Arc::<AtomicU64>::default();
        let writer = Writer { path: path.clone(), sink: out, unwritten: unwritten.clone(), cells, lost: 0 };
        let records = unread.clone();
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run(&records, reopens, &names);
            drop::<Sender<()>>(running);
        });
        thread.map_err(failed)?;
        Ok(Some(AccessLog { sender, reopen, unread, unwritten, ended }))
    }

    /// Where records are sent.
    pub fn sender(&self) -> Sender<Vec<AccessRecord>> {
        self.sender.clone()
    }

    /// Opens the file again, by its name: after a rotation.
    pub fn reopen(&self) {
        // A full channel means that it will be.
        let _ = self.reopen.try_send(());
    }

    /// Writes the remaining lines once all other senders are dropped, for a bounded time.
    pub fn finish(self) {
        let AccessLog { sender, reopen, unread, unwritten, ended } = self;
        drop((sender, reopen));
        let is_over = ended.recv_timeout(FINISH_TIMEOUT) == Err(RecvTimeoutError::Disconnected);
        let waiting: u64 = unread.try_iter().map(|batch| batch.len() as u64).sum();
        let lines = waiting.saturating_add(unwritten.load(Ordering::Relaxed));
        if lines > 0 {
            let why = if is_over { "the thread has failed" } else { "the output does not take them" };
            log::error!("access log: {lines} lines are lost at the end: {why}");
        }
    }
}

/// A descriptor of its own, without a lock or a buffer in between.
fn standard_output() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

fn open_in_time(path: &Path) -> io::Result<LineSink<File>> {
    let path = path.to_owned();
    within(OPEN_TIMEOUT, move || open(&path))?
}

fn open(path: &Path) -> io::Result<LineSink<File>> {
    // Opened for both directions, a pipe does not wait for a reader, which may come later.
    let is_pipe = std::fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo());
    let mut options = OpenOptions::new();
    options.append(true).read(is_pipe).create(!is_pipe).mode(FILE_MODE);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() {
        return Err(io::Error::other("it is a block device; write the path of a file"));
    }
    let is_torn = metadata.is_file() && metadata.len() > 0 && is_torn(path)?;
    Ok(if is_torn { LineSink::behind_torn_line(file) } else { LineSink::new(file) })
}

/// Whether the last line of a log has no end: its disk was full, or its gateway was killed.
///
/// # Errors
/// The file is something else, such as a key, that lines would destroy. One that may only be written is not looked at.
fn is_torn(path: &Path) -> io::Result<bool> {
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    let mut beginning = Vec::new();
    file.by_ref().take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    if !BEGINNING.starts_with(&beginning) {
        return Err(io::Error::other(
            "it is no access log; write the path of one, or of a file that is new or empty",
        ));
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

/// What the thread works with.
struct Writer {
    /// `None`: standard output, which cannot be opened again.
    path: Option<PathBuf>,
    sink: LineSink<File>,
    unwritten: Arc<AtomicU64>,
    cells: Arc<Cells>,
    /// Lines lost without one written in between.
    lost: u64,
}

impl Writer {
    /// Until every sender is gone and all is written.
    fn run(mut self, records: &Receiver<Vec<AccessRecord>>, mut reopens: Receiver<()>, names: &Names) {
        let mut lines = Lines::new(names);
        loop {
            select! {
                recv(records) -> batch => match batch {
                    Ok(batch) => self.write(&mut lines, batch, records),
                    Err(_) => break,
                },
                recv(reopens) -> asked => match asked {
                    Ok(()) => self.reopen(),
                    Err(_) => reopens = never(),
                },
            }
        }
        if self.lost > 0 {
            log::error!("access log: {} lines were lost, and none was written since", self.lost);
        }
    }

    /// Writes a batch, and with it those that wait behind it.
    fn write(
        &mut self,
        lines: &mut Lines<'_>,
        first: Vec<AccessRecord>,
        records: &Receiver<Vec<AccessRecord>>,
    ) {
        lines.text.clear();
        let mut next = Ok(first);
        while let Ok(batch) = next {
            self.unwritten.fetch_add(batch.len() as u64, Ordering::Relaxed);
            batch.iter().for_each(|record| lines.add(record));
            let is_full = lines.text.len() >= BUFFER_BYTES;
            next = if is_full { Err(TryRecvError::Empty) } else { records.try_recv() };
        }
        let result = self.sink.write(lines.text.as_bytes());
        self.unwritten.store(0, Ordering::Relaxed);
        match result {
            Ok(()) if self.lost > 0 => {
                log::warn!("access log: written again; {} lines were lost", self.lost);
                self.lost = 0;
            }
            Ok(()) => {}
            Err(WriteFailure { lines, error }) => {
                self.cells.add(Count::AccessLogDropped, lines);
                // Once, until it is written again.
                if self.lost == 0 {
                    log::error!("access log: {error}: lines are lost");
                }
                self.lost = self.lost.saturating_add(lines);
            }
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else {
            log::info!("access log: standard output cannot be reopened");
            return;
        };
        match open_in_time(path) {
            Ok(sink) => {
                self.sink = sink;
                log::info!("access log: reopened {}", path.display());
            }
            Err(error) => {
                let path = path.display();
                log::error!("access log: {path} cannot be reopened: {error}; the open file is still written");
            }
        }
    }
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
    use crate::base::counters::Totals;
    use crate::base::ids::{RouteId, SessionId};
    use crate::relay::{Caller, Outcome};
    use crate::routing::{Decision, How};
    use moorgate_proto::status::Code;
    use moorgate_proto::v1::{self, Reason};
    use std::os::unix::fs::PermissionsExt;

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

    fn started(target: AccessTarget) -> (AccessLog, Arc<Cells>) {
        let cells = Arc::<Cells>::default();
        (AccessLog::start(&target, Names::default(), cells.clone()).unwrap().unwrap(), cells)
    }

    #[test]
    fn lines_for_a_full_disk_are_counted() {
        let (log, cells) = started(AccessTarget::File("/dev/full".into()));
        // More than one write takes.
        for records in [1000, 1, 1000] {
            log.sender().send(vec![record("a"); records]).unwrap();
        }
        log.finish();
        assert_eq!(Totals::of([&*cells]).value(Count::AccessLogDropped), 2001);
    }

    #[test]
    fn records_reach_the_file_that_only_its_group_reads() {
        let path = std::env::temp_dir().join(format!("moorgate-access-{}", std::process::id()));
        // One that was killed may have had the same number, and have left its own.
        let _ = std::fs::remove_file(&path);
        let (log, _) = started(AccessTarget::File(path.clone()));
        log.sender().send(vec![record("a"), record("b")]).unwrap();
        log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        let missing = AccessTarget::File("/nowhere/log".into());
        let error = AccessLog::start(&missing, Names::default(), Arc::default()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/log"));
    }
    #[test]
    fn line_behind_a_torn_one_is_whole() {
        let path = std::env::temp_dir().join(format!("moorgate-torn-{}", std::process::id()));
        std::fs::write(&path, "time=1 user=a\ntime=2 us").unwrap();
        let (log, _) = started(AccessTarget::File(path.clone()));
        log.sender().send(vec![record("b")]).unwrap();
        log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[1]), (3, "time=2 us"), "{text}");
        assert!(lines[2].starts_with("time=2027"), "{text}");
    }

    #[test]
    fn check_needs_a_directory_and_leaves_nothing_there() {
        let directory = std::env::temp_dir().join(format!("moorgate-no-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let target = AccessTarget::File(directory.join("access.log"));
        std::thread::scope(|scope| {
            (0..8).for_each(|_| drop(scope.spawn(|| (0..100).for_each(|_| target.check().unwrap()))));
        });
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(&directory).unwrap();
        let error = target.check().unwrap_err().to_string();
        assert!(error.contains("; make the directory "), "{error}");
    }

    #[test]
    fn file_that_is_no_log_is_refused_and_left_alone() {
        let path = std::env::temp_dir().join(format!("moorgate-secret-{}", std::process::id()));
        for content in ["5e1f0b5f6f4a\n", "[gateway]\n", "{}", "\n"] {
            std::fs::write(&path, content).unwrap();
            let target = AccessTarget::File(path.clone());
            let errors = [
                target.check().unwrap_err(),
                AccessLog::start(&target, Names::default(), Arc::default()).unwrap_err(),
            ];
            assert!(errors.iter().all(|error| error.to_string().contains("no access log")), "{errors:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        for content in ["", "ti", "time=1\n"] {
            std::fs::write(&path, content).unwrap();
            AccessTarget::File(path.clone()).check().unwrap();
        }
        std::fs::remove_file(&path).unwrap();
    }
}

//! Diagnostics through `log`: lines are handed to a thread that writes them, so that a blocked standard error
//! stalls no loop. Lines that do not fit, or cannot be written, are lost and counted.
//!
//! Some libraries write what they send and receive into the log, secrets included, once the level is low enough: see
//! [`CAPPED`]. Texts of others are escaped: a line of the log is one record.

use super::line_sink::{LineSink, WriteFailure};
use crate::base::text::shown;
use crossbeam_channel::{Receiver, Sender, bounded};
use log::{LevelFilter, Log, Metadata, Record};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Lines that may wait.
const LINES_MAX: usize = 1024;
/// The variable with filters.
const FILTERS: &str = "RUST_LOG";
/// Bytes of a wrong filter that are shown.
const FILTER_BYTES_MAX: usize = 64;
/// A longer line is cut.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Libraries that write headers, tokens, keys and names of others below [`CAP`]; no setting shows it.
const CAPPED: [&str; 4] = ["ureq", "ureq_proto", "rustls", "domain"];
const CAP: LevelFilter = LevelFilter::Warn;

/// Lines of this process that were not written.
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// To the thread that writes.
static WRITER: OnceLock<Sender<Message>> = OnceLock::new();

/// What the thread that writes receives.
enum Message {
    Line(Vec<u8>),
    /// Answered when all lines before it are written.
    Flush(Sender<()>),
}

struct Lines(Sender<Message>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut plain = shown(text.trim_end_matches('\n'), LINE_BYTES_MAX);
        plain.push('\n');
        if self.0.try_send(Message::Line(plain.into_bytes())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bounds what some libraries say, whatever else was set.
struct Capped(env_logger::Logger);

impl Capped {
    fn is_spoken(metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let library = target.split_once("::").map_or(target, |(library, _)| library);
        metadata.level() <= CAP || !CAPPED.contains(&library)
    }
}

impl Log for Capped {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Capped::is_spoken(metadata) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if Capped::is_spoken(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// The logger, with the highest level that it writes.
fn logger(mut builder: env_logger::Builder, lines: Sender<Message>) -> (Capped, LevelFilter) {
    builder.format_target(false).write_style(env_logger::WriteStyle::Never);
    builder.target(env_logger::Target::Pipe(Box::new(Lines(lines))));
    let logger = builder.build();
    let level = logger.filter();
    (Capped(logger), level)
}

/// Checks filters such as `info` or `moorgate::forward=debug,warn`. The library takes any word that is no level for a
/// module, and then writes nothing else.
fn check_filters(text: &str) -> Result<(), String> {
    let mut parts = text.split('/');
    let filters = parts.next().unwrap_or_default();
    if parts.nth(1).is_some() {
        return Err("there is more than one `/`; write FILTERS/PATTERN".to_owned());
    }
    for word in filters.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let is_level = |text: &str| text.trim().parse::<LevelFilter>().is_ok();
        let is_right = match word.split_once('=') {
            Some((_, level)) => is_level(level),
            None => is_level(word) || word.starts_with(env!("CARGO_PKG_NAME")),
        };
        if !is_right {
            return Err(format!(
                "`{}` is no level; write one of off, error, warn, info, debug, trace, or a module and its level such as \
                 moorgate::reactor=debug",
                shown(word, FILTER_BYTES_MAX)
            ));
        }
    }
    Ok(())
}

/// Starts the diagnostics at a level such as `info`; the environment variable `RUST_LOG` wins, unless it is wrong, which
/// is a warning. Only the first call in a process has an effect. Panics are written there too.
pub fn init_diagnostics(level: LevelFilter) {
    let (sender, receiver) = bounded(LINES_MAX);
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level);
    let asked = std::env::var_os(FILTERS).unwrap_or_default().to_string_lossy().into_owned();
    let wrong = check_filters(&asked).err();
    if wrong.is_none() && !asked.is_empty() {
        builder.parse_filters(&asked);
    }
    let (logger, level) = logger(builder, sender.clone());
    if log::set_boxed_logger(Box::new(logger)).is_err() {
        return;
    }
    log::set_max_level(level);
    let writer = std::thread::Builder::new().name("diagnostics".to_owned());
    if writer.spawn(move || write_all(&receiver)).is_err() {
        let _ = writeln!(io::stderr(), "no thread for diagnostics: they are lost");
        return;
    }
    let _ = WRITER.set(sender);
    if let Some(why) = wrong {
        log::warn!("{FILTERS} is not used, log.level is: {why}");
    }
    // The hook of the standard library writes to standard error itself, which may block for ever.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        log::error!("thread {} panicked: {panic}", thread.name().unwrap_or("without a name"));
    }));
}

fn write_all(messages: &Receiver<Message>) {
    let mut sink = LineSink::new(io::stderr());
    while let Ok(message) = messages.recv() {
        match message {
            Message::Line(line) => {
                if let Err(WriteFailure { lines, .. }) = sink.write(&line) {
                    DROPPED.fetch_add(lines, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => drop(done),
        }
    }
}

/// Waits until the lines so far are written, at most this long.
pub fn flush_diagnostics(time: Duration) {
    let Some(writer) = WRITER.get() else { return };
    let (done, written) = bounded::<()>(0);
    if writer.send_timeout(Message::Flush(done), time).is_ok() {
        // It ends with the other side.
        let _ = written.recv_timeout(time);
    }
}

/// Lines of the diagnostics that were not written, since the start of the process.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    /// What is written of one record.
    fn written(filters: &str, level: Level, target: &str, text: &str) -> Vec<String> {
        let (sender, lines) = bounded(LINES_MAX);
        let mut builder = env_logger::Builder::new();
        builder.filter_level(LevelFilter::Trace).parse_filters(filters);
        let (logger, max) = logger(builder, sender);
        assert_eq!(max, LevelFilter::Trace);
        logger.log(&Record::builder().level(level).target(target).args(format_args!("{text}")).build());
        let line = |message| match message {
            Message::Line(line) => String::from_utf8(line).unwrap(),
            Message::Flush(_) => panic!("nothing is flushed"),
        };
        lines.try_iter().map(line).collect()
    }

    #[test]
    fn no_level_shows_what_libraries_send() {
        for target in
            ["ureq", "ureq::unversioned::transport", "ureq_proto::client", "rustls::conn", "domain::net"]
        {
            for filters in [
                "",
                "trace",
                "ureq=trace,ureq_proto=trace,rustls=trace,domain=trace",
                "ureq::unversioned=trace",
            ] {
                for level in [Level::Info, Level::Debug, Level::Trace] {
                    let lines = written(filters, level, target, "X-Consul-Token: s3cret");
                    assert_eq!(lines, [""; 0], "{target} at {level} with RUST_LOG={filters}");
                }
                assert_eq!(written(filters, Level::Warn, target, "a warning").len(), 1, "{target}");
            }
        }
        let own = written("trace", Level::Trace, "moorgate::forward", "a trace");
        assert!(own.len() == 1 && own.first().unwrap().ends_with("a trace\n"), "{own:?}");
        assert_eq!(written("trace", Level::Trace, "domains", "another library").len(), 1);
    }

    #[test]
    fn filters_without_a_level_are_refused() {
        for right in [
            "",
            "info",
            "OFF",
            " warn , moorgate::forward=debug",
            "moorgate",
            "moorgate::shard",
            "ureq=trace",
            "info/link",
        ] {
            assert_eq!(check_filters(right), Ok(()), "{right}");
        }
        for wrong in ["chatty", "info,chatty", "moorgate=chatty", "ureq=", "5", "info/a/b", "a=b=info"] {
            assert!(check_filters(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_record_is_one_line() {
        let lines = written("", Level::Warn, "moorgate", "dns says: \x1b[2Jx\n[ERROR] forged");
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(line.contains("\\u{1b}[2Jx\\n") && line.matches('\n').count() == 1, "{line:?}");
    }
}

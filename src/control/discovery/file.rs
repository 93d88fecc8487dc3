//! Endpoints from files: one a line, as `10.0.0.1:7100 weight=50 zone=eu-1 tags=canary,fast`; `#` begins a comment.
//!
//! A file is looked at once a second and read when it has changed, however it was changed: written in place or replaced.
//! One that is missing, too long, or wrong in a line is no list: the last one stays.

use super::event::{Event, Events};
use super::regular;
use crate::routing::{Instance, Source};
use moorgate_registry::Stop;
use std::fmt;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Characters of what is wrong with a line that are told.
const WHY_MAX: usize = 200;
/// Bytes of a file; a line is some fifty.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why a file is no list.
#[derive(Debug)]
enum FileError {
    Read(PathBuf, io::Error),
    TooLong(PathBuf),
    Line(PathBuf, usize, String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Read(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            FileError::TooLong(path) => {
                write!(f, "{} is longer than {FILE_BYTES_MAX} bytes; is it the right file?", path.display())
            }
            FileError::Line(path, line, why) => {
                let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
                let why: String = why.chars().map(plain).take(WHY_MAX).collect();
                write!(f, "{}:{line}: {why}", path.display())
            }
        }
    }
}

/// A file that is looked at.
pub(super) struct Watched {
    /// Of the hub's services.
    at: usize,
    path: PathBuf,
    /// What it looked like when it was read; `None`: it could not be.
    seen: Option<Look>,
}

/// What changes when a file does.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Look {
    fn of(metadata: &Metadata) -> Look {
        Look {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Watched {
    pub(super) fn new(at: usize, path: PathBuf) -> Watched {
        Watched { at, path, seen: None }
    }

    /// What there is to tell; `None`: it is as it was.
    fn look(&mut self) -> Option<Result<Vec<Instance>, FileError>> {
        let read = |error| FileError::Read(self.path.clone(), error);
        let look = match std::fs::metadata(&self.path) {
            Ok(metadata) => Look::of(&metadata),
            Err(error) => {
                self.seen = None;
                return Some(Err(read(error)));
            }
        };
        if self.seen.as_ref() == Some(&look) {
            return None;
        }
        let read = read_file(&self.path);
        self.seen = read.is_ok().then_some(look);
        Some(read)
    }
}

/// The endpoints that a file has now.
///
/// # Errors
/// It cannot be read, or has a line that is wrong; the text says which.
pub fn read_endpoints(path: &Path) -> Result<Vec<Instance>, String> {
    read_file(path).map_err(|error| error.to_string())
}

fn read_file(path: &Path) -> Result<Vec<Instance>, FileError> {
    let read = |error| FileError::Read(path.to_owned(), error);
    let mut text = String::new();
    let file = regular::open(path).map_err(read)?;
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLong(path.to_owned()));
    }
    parse(&text).map_err(|(line, why)| FileError::Line(path.to_owned(), line, why))
}

/// The list, or the first line that is wrong, and why.
fn parse(text: &str) -> Result<Vec<Instance>, (usize, String)> {
    let mut list = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            list.push(line.parse().map_err(|why| (number, why))?);
        }
    }
    Ok(list)
}

/// Looks at all files until it is stopped.
pub(super) fn run(mut files: Vec<Watched>, stop: &Stop, events: &Events) {
    loop {
        for file in &mut files {
            if let Some(read) = file.look() {
                let answer = read.map_err(|error| error.to_string());
                if events.send(Event::Answer(file.at, Source::File, answer)).is_err() {
                    return;
                }
            }
        }
        if stop.wait(LOOK_EVERY) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_endpoint_a_line() {
        let text = "# chat\n10.0.0.1:7100 weight=50 zone=eu-1\n\n  10.0.0.2:7100   # the old one\n";
        let lines: Vec<String> = parse(text).unwrap().iter().map(Instance::to_string).collect();
        assert_eq!(lines, ["10.0.0.1:7100 weight=50 zone=eu-1", "10.0.0.2:7100"]);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_holds_up_nobody() {
        let directory = std::env::temp_dir().join(format!("moorgate-file-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let pipe = Watched::new(0, regular::pipe_in(&directory));
        let good = directory.join("endpoints");
        std::fs::write(&good, "10.0.0.1:7100").unwrap();
        let (events, received) = crossbeam_channel::bounded(2);
        let stop = Stop::new();
        stop.set();
        run(vec![pipe, Watched::new(1, good)], &stop, &events);
        let answers: Vec<(usize, bool)> = received
            .try_iter()
            .filter_map(|event| match event {
                Event::Answer(at, _, answer) => Some((at, answer.is_ok())),
                Event::Probed { .. } => None,
            })
            .collect();
        assert_eq!(answers, [(0, false), (1, true)]);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_wrong_is_told_on_a_line() {
        let (line, why) = parse(&format!("\x1b[2J{}", "x".repeat(100_000))).unwrap_err();
        let told = FileError::Line("chat".into(), line, why).to_string();
        assert!(told.len() < 300 && !told.contains('\x1b'), "{told}");
    }

    #[test]
    fn the_first_wrong_line_is_told() {
        let (line, why) = parse("10.0.0.1:7100\n10.0.0.2\n10.0.0.3 x").unwrap_err();
        assert!(line == 2 && why.contains("IP address and a port"), "{line}: {why}");
    }
}

//! Endpoints from files: one a line, as `10.0.0.1:7100 weight=50 zone=eu-1 tags=canary,fast`; `#` begins a comment.
//!
//! A file is looked at once a second and read when it has changed, however it was changed: written in place or replaced.
//! One that is missing or too long is no list: the last one stays. A line that is wrong takes nothing from the others: it
//! is left out and named. So is a last line without its line feed, which may be half written; a file that had a list
//! before is not read as long as it may be under way, up to the next look.

use super::event::{Event, Events};
use crate::control::regular;
use crate::routing::{Instance, Source, SourceList};
use moorgate_registry::Stop;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a file; a line is some fifty.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why a file is no list.
#[derive(Debug)]
enum FileError {
    Read(PathBuf, io::Error),
    TooLong(PathBuf),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Read(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            FileError::TooLong(path) => {
                write!(f, "{} is longer than {FILE_BYTES_MAX} bytes; is it the right file?", path.display())
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
    writing: Writing,
}

/// Whether a file may be half written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// Nothing was read of it yet: whatever it has is better than nothing.
    Unknown,
    /// It was whole, or has stayed as it is.
    Over,
    /// Its last line had no end at the last look.
    UnderWay,
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
        Watched { at, path, seen: None, writing: Writing::Unknown }
    }

    /// What there is to tell; `None`: it is as it was.
    fn look(&mut self) -> Option<Result<SourceList, FileError>> {
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
        let content = match read_file(&self.path) {
            Ok(content) => content,
            Err(error) => {
                self.seen = None;
                return Some(Err(error));
            }
        };
        if !content.is_whole && self.writing == Writing::Over {
            (self.seen, self.writing) = (None, Writing::UnderWay);
            return None;
        }
        (self.seen, self.writing) = (Some(look), Writing::Over);
        Some(Ok(content.list))
    }
}

/// What a file has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Content {
    list: SourceList,
    /// The last line has its end.
    is_whole: bool,
}

/// The endpoints that a file has now, and the lines that are wrong.
///
/// # Errors
/// It cannot be read, or is too long; the text says which.
pub fn read_endpoints(path: &Path) -> Result<SourceList, String> {
    read_file(path).map(|content| content.list).map_err(|error| error.to_string())
}

fn read_file(path: &Path) -> Result<Content, FileError> {
    let read = |error| FileError::Read(path.to_owned(), error);
    let mut bytes = Vec::new();
    let file = regular::open(path).map_err(read)?;
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLong(path.to_owned()));
    }
    Ok(parse(path, &bytes))
}

/// The list, without the lines that are wrong.
fn parse(path: &Path, bytes: &[u8]) -> Content {
    let (mut list, mut is_whole, mut known) = (SourceList::default(), true, BTreeSet::new());
    for (number, line) in (1usize..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let text = String::from_utf8_lossy(line);
        // What stands before a comment is whole, wherever the comment ends.
        let has_end = text.contains(['\n', '#']);
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        is_whole &= has_end;
        let instance = match has_end {
            true => text.parse::<Instance>(),
            false => Err("it has no line feed at its end, and may be half written; add one".to_owned()),
        };
        match instance {
            Ok(instance) if known.insert(instance.address) => list.endpoints.push(instance),
            Ok(Instance { address, .. }) => {
                let why = "it stands above already; leave one out";
                list.rejected.add(format_args!("{}:{number}: {address}: {why}", path.display()));
            }
            Err(why) => list.rejected.add(format_args!("{}:{number}: {why}", path.display())),
        }
    }
    Content { list, is_whole }
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

    fn content(text: impl AsRef<[u8]>) -> Content {
        parse(Path::new("chat"), text.as_ref())
    }

    fn lines(content: &Content) -> Vec<String> {
        content.list.endpoints.iter().map(Instance::to_string).collect()
    }

    #[test]
    fn a_file_has_one_endpoint_a_line() {
        let text = "# chat\n10.0.0.1:7100 weight=50 zone=eu-1\n\n  10.0.0.2:7100   # the old one";
        assert_eq!(lines(&content(text)), ["10.0.0.1:7100 weight=50 zone=eu-1", "10.0.0.2:7100"]);
        assert!(content(text).list.rejected.is_empty());
        assert_eq!(content(""), Content { is_whole: true, ..Content::default() });
    }

    #[test]
    fn one_mutated_line_leaves_the_others_as_they_are() {
        let line =
            |host: usize| format!("10.0.0.{host}:7100 weight={host} zone=eu-1 tags=a,b\n").into_bytes();
        let others: Vec<Vec<u8>> = [1, 2, 4, 5].map(line).into();
        let expected = lines(&content(others.concat()));
        assert_eq!(expected.len(), 4);
        let mut rejected = 0;
        for at in 0..line(3).len() - 1 {
            for byte in [b' ', b'x', b'-', b'=', b',', b'#', b':', b'9', 0, 0x1b, 0xff, b'\n'] {
                let mut changed = line(3);
                changed[at] = byte;
                let mut all = others.clone();
                all.insert(2, changed.clone());
                let found = content(all.concat());
                let mut left = lines(&found);
                left.retain(|one| expected.contains(one));
                assert_eq!(left, expected, "{changed:?}");
                let count = found.list.endpoints.len() + found.list.rejected.count();
                // A line feed within it makes two of it.
                assert!((4..=6).contains(&count), "{changed:?}: {found:?}");
                rejected += found.list.rejected.count();
            }
        }
        assert!(rejected > 100, "{rejected}");
    }

    #[test]
    fn a_torn_file_gives_no_half_of_a_line() {
        let whole = "10.0.0.1:7100 weight=50\n10.0.0.22:7100 zone=eu-1\n";
        let all = lines(&content(whole));
        for length in 0..whole.len() {
            let found = content(&whole[..length]);
            assert_eq!(lines(&found), all[..lines(&found).len()], "{length}");
            assert_eq!(found.is_whole, whole[..length].ends_with('\n') || length == 0, "{length}");
            assert_eq!(found.list.rejected.count(), usize::from(!found.is_whole));
        }
    }

    #[test]
    fn a_file_under_way_is_believed_at_the_next_look_at_the_earliest() {
        let directory = std::env::temp_dir().join(format!("moorgate-torn-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("endpoints");
        let mut file = Watched::new(0, path.clone());
        let mut look = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let list = file.look().map(|list| list.unwrap());
            list.map(|list| (list.endpoints.len(), list.rejected.count()))
        };
        assert_eq!(look("10.0.0.1:7100\n10.0.0.2"), Some((1, 1)), "there was none before");
        assert_eq!(look("10.0.0.1:7100\n10.0.0.2:7100\n10.0.0.3:7100\n"), Some((3, 0)));
        assert_eq!(look("10.0.0.1:7100\n10.0"), None, "it is being written");
        assert_eq!(look("10.0.0.1:7100\n10.0.0.2:7100\n"), Some((2, 0)), "it was");
        assert_eq!((look("10.0.0.1:7100\n10.0"), look("10.0.0.1:7100\n10.0.")), (None, Some((1, 1))));
        std::fs::remove_dir_all(&directory).unwrap();
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
    fn wrong_lines_are_named_and_the_others_are_a_list() {
        let long = format!("\x1b[2J{}", "x".repeat(100_000));
        let found =
            content(format!("10.0.0.1:7100\n10.0.0.2\n10.0.0.1:7100 weight=1\n{long}\n10.0.0.3:7100\n"));
        assert_eq!(lines(&found), ["10.0.0.1:7100", "10.0.0.3:7100"]);
        let told = found.list.rejected.to_string();
        assert!(
            told.starts_with("chat:2: `10.0.0.2` is no address; write an IP address and a port"),
            "{told}"
        );
        assert!(told.contains("; chat:3: 10.0.0.1:7100: it stands above already; "), "{told}");
        assert!(told.len() < 1000 && !told.contains('\x1b') && found.list.rejected.count() == 3, "{told}");
    }
}

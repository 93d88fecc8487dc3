//! What the sources said last, on disk: so that a gateway that starts while a registry is down has its endpoints.
//!
//! JSON, with a version. It is written whole, next to where it belongs, and moved there when it is on disk: there is the
//! old one or the new one, never half of one. Only its owner reads it.
//!
//! A rename replaces whatever has the name, a device of the machine too: so nothing is replaced but what this module has
//! written.

use super::threads::Running;
use crate::control::regular;
use crate::routing::{Instance, Rejected, Source, Standing};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use moorgate_registry::Stop;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between tries to write what could not be written.
const RETRY_EVERY: Duration = Duration::from_secs(5);
const VERSION: u32 = 1;
/// The name of the thread that writes.
const KEEPER: &str = "state file";
/// Bytes of a state file that are read.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How a state file begins, whatever its version.
const BEGINNING: &[u8] = b"{\"version\":";
/// Bytes in which the beginning must stand.
const HEAD_BYTES: u64 = 4096;
/// What some editors put before a text.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Everything that is kept.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct State {
    version: u32,
    pub(super) lists: Vec<Kept>,
}

/// One source's list for one service.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) service: String,
    pub(super) source: String,
    /// What the source was asked for: another question has another answer.
    pub(super) asked: String,
    /// When it last answered, in milliseconds since the Unix epoch.
    pub(super) heard_unix_ms: u64,
    pub(super) endpoints: Vec<Endpoint>,
}

/// One endpoint of it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Endpoint {
    address: SocketAddr,
    weight: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    zone: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "is_in")]
    standing: Stands,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Stands {
    #[default]
    In,
    Doubted,
    Leaving,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_in(stands: &Stands) -> bool {
    *stands == Stands::In
}

impl From<&Instance> for Endpoint {
    fn from(instance: &Instance) -> Endpoint {
        Endpoint {
            address: instance.address,
            weight: instance.weight,
            zone: instance.zone.to_string(),
            tags: instance.tags.iter().map(|tag| tag.to_string()).collect(),
            standing: match instance.standing {
                Standing::In => Stands::In,
                Standing::Doubted => Stands::Doubted,
                Standing::Leaving => Stands::Leaving,
            },
        }
    }
}

/// What no endpoint can have is left out: anybody may have edited the file.
impl From<&Endpoint> for Instance {
    fn from(endpoint: &Endpoint) -> Instance {
        let word = |text: &&str| Instance::is_word(text);
        Instance {
            address: endpoint.address,
            weight: endpoint.weight.min(Instance::WEIGHT_MAX),
            zone: Some(endpoint.zone.as_str()).filter(word).unwrap_or_default().into(),
            tags: Instance::sorted_tags(endpoint.tags.iter().map(String::as_str).filter(word)),
            standing: match endpoint.standing {
                Stands::In => Standing::In,
                Stands::Doubted => Standing::Doubted,
                Stands::Leaving => Standing::Leaving,
            },
        }
    }
}

/// What is in the file, before each entry is judged by itself.
#[derive(Deserialize)]
struct Stored {
    version: u32,
    lists: Vec<Value>,
}

/// A list of it, without the endpoints that are none.
fn kept(mut list: Value, rejected: &mut Rejected) -> Option<Kept> {
    let endpoints = list.get_mut("endpoints").map(Value::take);
    let endpoints = match endpoints {
        Some(Value::Array(endpoints)) => endpoints,
        _ => Vec::new(),
    };
    if let Some(place) = list.get_mut("endpoints") {
        *place = Value::Array(Vec::new());
    }
    let mut kept: Kept =
        serde_json::from_value(list).map_err(|error| rejected.add(format!("a list: {error}"))).ok()?;
    for endpoint in endpoints {
        match serde_json::from_value(endpoint) {
            Ok(endpoint) => kept.endpoints.push(endpoint),
            Err(error) => rejected.add(format!("{} by {}: {error}", kept.service, kept.source)),
        }
    }
    Some(kept)
}

/// Whether a state file can be written there: its directory exists, and nothing has the name but a file of ours.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check_state_file(path: &Path) -> io::Result<()> {
    check_directory(path)?;
    check_name(path)?;
    let new = beside(path);
    // What a process that was killed has left is replaced, whatever is in it.
    match std::fs::symlink_metadata(&new).is_ok_and(|metadata| metadata.is_dir()) {
        true => Err(io::Error::other(format!("{} is a directory; remove it", new.display()))),
        false => Ok(()),
    }
}

fn check_directory(path: &Path) -> io::Result<()> {
    let directory = directory_of(path);
    match std::fs::metadata(directory) {
        Err(error) => Err(io::Error::other(format!(
            "{} cannot be written, its directory {}: {error}; make it, or write another path, or \"off\"",
            path.display(),
            directory.display()
        ))),
        // What is no directory is found when the name is looked at.
        Ok(_) => Ok(()),
    }
}

fn check_name(path: &Path) -> io::Result<()> {
    let refused = |what: &str| {
        let right = "name one that only this gateway writes, or \"off\"";
        Err(io::Error::other(format!("{} {what} and would be replaced; {right}", path.display())))
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return refused(&format!("cannot be read ({error})")),
    };
    if !metadata.is_file() {
        let is_link = metadata.file_type().is_symlink();
        return refused(if is_link { "is a symbolic link" } else { "is no regular file" });
    }
    let mut head = Vec::new();
    match regular::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head)) {
        Ok(_) if is_beginning(&head) => Ok(()),
        Ok(_) => Err(io::Error::other(format!(
            "{}:1: it does not begin with `{}`: it is damaged or no state file, and would be replaced; if it is this \
             gateway's, remove it (a start while a registry is down then lacks the endpoints that it lists; nothing else is \
             in it), else name another path, or \"off\"",
            path.display(),
            String::from_utf8_lossy(BEGINNING),
        ))),
        // Another process has just moved or removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => refused(&format!("cannot be read ({error})")),
    }
}

/// Whether a state file begins so: as it is written, with the blanks or the mark of an editor, or cut off, which a
/// process that was killed may have left.
fn is_beginning(head: &[u8]) -> bool {
    let head = head.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(head);
    let solid = head.iter().filter(|byte| !byte.is_ascii_whitespace());
    solid.zip(BEGINNING).all(|(byte, expected)| byte == expected)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where it is written before it is moved: a name that nothing else has.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".moorgate-new");
    path.with_file_name(name)
}

impl Kept {
    pub(super) fn is_of(&self, service: &str, source: Source, asked: &str) -> bool {
        self.service == service && self.source == source.name() && self.asked == asked
    }
}

impl State {
    pub(super) fn of(lists: Vec<Kept>) -> State {
        State { version: VERSION, lists }
    }

    /// The lists of the file. A file that cannot be read is logged and counts as empty; an entry that cannot be read is
    /// left out and logged.
    pub(super) fn load(path: &Path) -> State {
        let read = || -> io::Result<Option<State>> {
            let file = match regular::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut text = String::new();
            file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
            let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
            let Stored { version, lists } = serde_json::from_str(text)?;
            if version != VERSION {
                return Err(io::Error::other(format!(
                    "its version is {version}, and {VERSION} is known here"
                )));
            }
            let mut rejected = Rejected::default();
            let lists = lists.into_iter().filter_map(|value| kept(value, &mut rejected)).collect();
            if !rejected.is_empty() {
                let (path, count) = (path.display(), rejected.count());
                log::warn!(
                    "the state file {path}: rejected entries: {count}; the others are used: {rejected}"
                );
            }
            Ok(Some(State { version, lists }))
        };
        match read() {
            Ok(state) => state.unwrap_or_else(|| State::of(Vec::new())),
            Err(error) => {
                let path = path.display();
                log::warn!("the state file {path} is of no use and will be written anew: {error}");
                State::of(Vec::new())
            }
        }
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        check_state_file(path)?;
        let text = serde_json::to_vec(self)?;
        let new = beside(path);
        // What a process that was killed has left behind may have other rights.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(directory_of(path))?.sync_all()
    }
}

/// The thread that writes: a slow disk holds up nobody.
#[derive(Debug)]
pub(super) struct Keeper {
    states: Sender<State>,
}

impl Keeper {
    /// # Errors
    /// No thread is left.
    pub(super) fn start(path: PathBuf, running: &mut Running, stop: &Stop) -> io::Result<Keeper> {
        let (states, received) = bounded(1);
        running.add(KEEPER, stop, move |_| keep(&path, &received))?;
        Ok(Keeper { states })
    }

    /// Writes it; `false`: the disk is busy with the one before.
    pub(super) fn keep(&self, state: State) -> bool {
        !matches!(self.states.try_send(state), Err(TrySendError::Full(_)))
    }

    /// Writes this last, and ends: whoever joins the threads waits for it.
    pub(super) fn end(self, last: State) {
        // Nobody is there to take it only when the thread has failed, which was told.
        let _ = self.states.send(last);
    }
}

fn keep(path: &Path, states: &Receiver<State>) {
    let mut writer = Writer::default();
    loop {
        let next = match writer.unwritten {
            None => states.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => states.recv_timeout(RETRY_EVERY),
        };
        match next {
            Ok(state) => writer.write(path, Some(state)),
            Err(RecvTimeoutError::Timeout) => writer.write(path, None),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What is to be on disk.
#[derive(Default)]
struct Writer {
    /// Could not be written; to be tried again.
    unwritten: Option<State>,
}

impl Writer {
    /// Writes a state, or again the one that could not be written.
    fn write(&mut self, path: &Path, state: Option<State>) {
        let has_failed = self.unwritten.is_some();
        let Some(state) = state.or_else(|| self.unwritten.take()) else { return };
        let result = state.store(path);
        let path = path.display();
        match (result, has_failed) {
            (Ok(()), has_failed) => {
                self.unwritten = None;
                if has_failed {
                    log::info!("the state file {path} is written again");
                }
            }
            (Err(error), has_failed) => {
                self.unwritten = Some(state);
                // Once is enough.
                if !has_failed {
                    log::error!(
                        "the state file {path} cannot be written; a restart will not know the endpoints: {error}"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let directory = std::env::temp_dir().join(format!("moorgate-again-{}", std::process::id()));
        let path = directory.join("endpoints.json");
        let mut writer = Writer::default();
        writer.write(&path, Some(State::of(vec![])));
        assert!(writer.unwritten.is_some());
        std::fs::create_dir_all(&directory).unwrap();
        writer.write(&path, None);
        assert!(writer.unwritten.is_none() && path.exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_pipe_is_no_state() {
        let directory = std::env::temp_dir().join(format!("moorgate-piped-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        assert_eq!(State::load(&regular::pipe_in(&directory)), State::of(vec![]));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_writer_that_has_ended_before_its_time_shows() {
        let (mut running, stop) = (Running::default(), Stop::new());
        drop(Keeper::start("endpoints.json".into(), &mut running, &stop).unwrap());
        assert_eq!(running.join(PATIENCE), [KEEPER]);
    }

    #[test]
    fn one_mutated_entry_leaves_the_others_as_they_are() {
        let directory = std::env::temp_dir().join(format!("moorgate-mutated-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("endpoints.json");
        let endpoint = |host: u8| json!({"address": format!("192.0.2.{host}:7100"), "weight": 7, "zone": "z", "tags": ["a"]});
        let list = |service: &str, endpoints: Vec<Value>| {
            json!({
                "service": service, "source": "consul", "asked": "chat", "heard_unix_ms": 5, "endpoints": endpoints
            })
        };
        let load = |lists: Vec<Value>| {
            std::fs::write(&path, json!({"version": 1, "lists": lists}).to_string()).unwrap();
            State::load(&path).lists
        };
        let others =
            load(vec![list("chat", vec![endpoint(1), endpoint(3)]), list("echo", vec![endpoint(4)])]);
        assert_eq!((others.len(), others[0].endpoints.len()), (2, 2));
        let odd = [json!(null), json!(-1), json!("x"), json!([]), json!({}), json!(1e30), json!({"a": [1]})];
        for other in odd {
            for key in ["address", "weight", "zone", "tags", "standing"] {
                let mut mutated = endpoint(2);
                mutated[key] = other.clone();
                for mutated in [mutated, other.clone()] {
                    let endpoints = vec![endpoint(1), mutated, endpoint(3)];
                    let mut lists = load(vec![list("chat", endpoints), list("echo", vec![endpoint(4)])]);
                    let of_two: SocketAddr = "192.0.2.2:7100".parse().unwrap();
                    lists[0].endpoints.retain(|endpoint| endpoint.address != of_two);
                    assert_eq!(lists, others, "{key} = {other}");
                }
            }
            for key in ["service", "source", "asked", "heard_unix_ms", "endpoints"] {
                let mut mutated = list("mutated", vec![endpoint(5)]);
                mutated[key] = other.clone();
                for mutated in [mutated, other.clone()] {
                    let chat = list("chat", vec![endpoint(1), endpoint(3)]);
                    let mut lists = load(vec![chat, mutated, list("echo", vec![endpoint(4)])]);
                    lists.retain(|list| ["chat", "echo"].contains(&list.service.as_str()));
                    assert_eq!(lists, others, "{key} = {other}");
                }
            }
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_kept_is_read_back_and_only_by_its_owner() {
        let directory = std::env::temp_dir().join(format!("moorgate-state-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("endpoints.json");
        assert_eq!(State::load(&path), State::of(vec![]), "there is none");
        let mut odd: Instance = "10.0.0.1:7100 weight=7 tags=a,b".parse().unwrap();
        odd.zone = "eu-1".into();
        odd.standing = Standing::Doubted;
        let plain = Instance::at("[2001:db8::1]:7100".parse().unwrap());
        let mut endpoints = [&odd, &plain].map(Endpoint::from).to_vec();
        // Somebody has edited the file.
        endpoints[1].zone = "a zone with blanks".to_owned();
        endpoints[1].tags = vec!["x".repeat(Instance::WORD_BYTES_MAX + 1)];
        let kept = Kept {
            service: "chat".to_owned(),
            source: Source::Consul.name().to_owned(),
            asked: "chat".to_owned(),
            heard_unix_ms: 5,
            endpoints,
        };
        assert!(kept.is_of("chat", Source::Consul, "chat") && !kept.is_of("chat", Source::Consul, "chat2"));
        let (mut running, stop) = (Running::default(), Stop::new());
        let keeper = Keeper::start(path.clone(), &mut running, &stop).unwrap();
        assert!(keeper.keep(State::of(vec![])));
        stop.set();
        keeper.end(State::of(vec![kept.clone()]));
        assert_eq!(running.join(PATIENCE), [""; 0], "it has ended, and not before its time");
        let read = State::load(&path);
        assert_eq!(read.lists, [kept]);
        let back: Vec<Instance> = read.lists[0].endpoints.iter().map(Instance::from).collect();
        assert_eq!(back, [odd, plain]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing is left beside it");

        for broken in ["", "{", "{\"version\":2,\"lists\":[]}", "{\"version\":1,\"lists\":["] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(State::load(&path), State::of(vec![]), "{broken}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn nothing_is_replaced_but_a_file_of_ours() {
        let directory = std::env::temp_dir().join(format!("moorgate-foreign-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("folder")).unwrap();
        let at = |name: &str| directory.join(name);
        let state = || State::of(vec![]);
        state().store(&at("own")).unwrap();
        std::fs::write(at("foreign"), "dear diary").unwrap();
        std::fs::write(at("empty"), "").unwrap();
        std::fs::write(at("torn"), "{\"vers").unwrap();
        std::os::unix::fs::symlink(at("own"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        regular::pipe_in(&directory);
        let foreign = ["foreign", "folder", "link", "dangling", "pipe"];
        for name in foreign {
            let before = std::fs::symlink_metadata(at(name)).unwrap();
            assert!(state().store(&at(name)).is_err(), "{name}");
            let after = std::fs::symlink_metadata(at(name)).unwrap();
            assert_eq!((after.file_type(), after.len()), (before.file_type(), before.len()), "{name}");
        }
        for name in ["own", "empty", "torn", "absent"] {
            state().store(&at(name)).unwrap();
            assert_eq!(State::load(&at(name)), state(), "{name}");
        }
        check_state_file(Path::new("/dev/null")).unwrap_err();
        let missing = check_state_file(Path::new("/nowhere/endpoints.json")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere: ") && missing.contains("; make it"), "{missing}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn file_left_by_a_crash_is_replaced() {
        let directory = std::env::temp_dir().join(format!("moorgate-left-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("endpoints.json");
        let state = || State::of(vec![]);
        for left in [&b""[..], &[0; 4096], b"{\"vers", b"dear diary"] {
            std::fs::write(beside(&path), left).unwrap();
            check_state_file(&path).unwrap();
            assert_eq!(State::load(&path), state());
            state().store(&path).unwrap();
            assert!(!beside(&path).exists());
            std::fs::remove_file(&path).unwrap();
        }
        std::os::unix::fs::symlink("/dev/null", beside(&path)).unwrap();
        state().store(&path).unwrap();
        assert!(path.is_file() && !beside(&path).exists());
        std::fs::create_dir(beside(&path)).unwrap();
        let error = check_state_file(&path).unwrap_err().to_string();
        assert!(error.ends_with(".moorgate-new is a directory; remove it"), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_an_editor_has_done_to_it_is_read() {
        let directory = std::env::temp_dir().join(format!("moorgate-edited-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("endpoints.json");
        let list = json!({
            "service": "chat", "source": "consul", "asked": "chat", "heard_unix_ms": 5,
            "endpoints": [{"address": "192.0.2.1:7100", "weight": 7}],
        });
        let wide = format!("\r\n{{\r\n\t\"version\" : 1,\r\n\t\"lists\": [{list}]\r\n}}\r\n");
        for text in [format!("{BYTE_ORDER_MARK}{{\"version\":1,\"lists\":[{list}]}}\n"), wide] {
            std::fs::write(&path, text).unwrap();
            check_state_file(&path).unwrap();
            let lists = State::load(&path).lists;
            assert_eq!((lists.len(), lists[0].endpoints.len()), (1, 1));
        }
        for damaged in [&[0; 64][..], b"\xff\xfe{\0", b"[]", b"\0{\"version\":1,\"lists\":[]}"] {
            std::fs::write(&path, damaged).unwrap();
            let error = check_state_file(&path).unwrap_err().to_string();
            assert!(error.contains("endpoints.json:1: ") && error.contains("remove it ("), "{error}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

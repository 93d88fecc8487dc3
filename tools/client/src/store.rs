//! Where a session is written down, so that the next start of the application resumes it.

use crate::core::{RESUME_TOKEN_BYTES_MAX, ResumeToken, Resumption};
use moorgate_proto::limits::USER_ID_BYTES;
use prost::Message;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// More than this is never written: the resume token, the user's name, and five numbers.
pub const STORED_BYTES_MAX: usize = RESUME_TOKEN_BYTES_MAX + USER_ID_BYTES + 128;

/// A place for one client's session. What is written there is at most [`STORED_BYTES_MAX`] bytes:
///
/// | what | bound |
/// | --- | --- |
/// | the resume token, **a secret**: whoever has it can take the session over | [`RESUME_TOKEN_BYTES_MAX`] |
/// | the number of the last attempt to resume | 8 bytes |
/// | up to which number the application has taken what came | 8 bytes |
/// | the number of the last request, and how many were in flight | 8 and 4 bytes |
/// | whose session it is | the longest user id |
/// | a check sum | 8 bytes |
///
/// Pushes, requests and access tokens are not. It is written when a session begins or is resumed, before each attempt to
/// resume, and before what was taken is acknowledged: twice a second at the most while pushes are few, and once for half
/// a window of them when they are many.
pub trait Store: Send {
    /// What was saved last; empty: nothing was. What was damaged in between may be given as it is: it is recognised.
    ///
    /// # Errors
    /// When it cannot be read although it is there; the client does not start then.
    fn load(&mut self) -> io::Result<Vec<u8>>;

    /// Replaces what was saved, as a whole, and returns when it is safe; nothing is sent meanwhile. An empty state
    /// erases it.
    ///
    /// # Errors
    /// When it cannot be written; the client goes on without its store.
    fn save(&mut self, state: &[u8]) -> io::Result<()>;
}

/// A [`Store`] in a file that only its owner can read. It is replaced as a whole: a crash, of the machine too, leaves
/// the old or the new one. Nothing is replaced or erased but what can be such a file: a symbolic link, a device or a longer
/// file is an error.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// The file; its folder must exist. Beside it stands another of the same name with `.new` while it is written.
    pub fn new(path: impl Into<PathBuf>) -> FileStore {
        FileStore { path: path.into() }
    }

    fn beside(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
    }

    /// Makes the names in the folder safe, where the system can.
    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        match cfg!(unix) {
            true => File::open(folder.unwrap_or(Path::new(".")))?.sync_all(),
            false => Ok(()),
        }
    }
}

impl Store for FileStore {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        let mut state = Vec::new();
        check(&self.path)?;
        match File::open(&self.path) {
            Ok(file) => {
                file.take(STORED_BYTES_MAX as u64).read_to_end(&mut state)?;
                Ok(state)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(state),
            Err(error) => Err(error),
        }
    }

    fn save(&mut self, state: &[u8]) -> io::Result<()> {
        check(&self.path)?;
        if state.is_empty() {
            return match fs::remove_file(&self.path) {
                Ok(()) => self.sync_folder(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
        }
        let beside = self.beside();
        check(&beside)?;
        // What a crash has left there may be anybody's to read.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().open(&beside)?;
        file.write_all(state)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&beside, &self.path)?;
        self.sync_folder()
    }
}

/// Whether a name is free, or that of a file which may be ours: a rename replaces whatever has the name.
fn check(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if metadata.is_file() && metadata.len() <= STORED_BYTES_MAX as u64 {
        return Ok(());
    }
    let what = if metadata.is_file() { "is too long for a stored session" } else { "is no regular file" };
    Err(io::Error::other(format!("{} {what}, and would be replaced; name another one", path.display())))
}

/// A new file for its owner alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// As it is written, behind its check sum.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(bytes = "vec", tag = "1")]
    resume_token: Vec<u8>,
    #[prost(uint64, tag = "2")]
    attempt: u64,
    #[prost(uint64, tag = "3")]
    down_seq: u64,
    #[prost(uint64, tag = "4")]
    up_seq: u64,
    #[prost(uint32, tag = "5")]
    in_flight: u32,
    #[prost(string, tag = "6")]
    user_id: String,
}

/// What a [`Store`] is given to save.
pub(crate) fn encode(resumption: &Resumption) -> Vec<u8> {
    let stored = Stored {
        resume_token: resumption.resume_token.as_bytes().to_vec(),
        attempt: resumption.attempt,
        down_seq: resumption.down_seq,
        up_seq: resumption.up_seq,
        in_flight: resumption.in_flight,
        user_id: resumption.user_id.clone(),
    };
    let body = stored.encode_to_vec();
    let mut state = check_sum(&body).to_be_bytes().to_vec();
    state.extend_from_slice(&body);
    state
}

/// What was saved; `None`: nothing was, or it is damaged.
pub(crate) fn decode(state: &[u8]) -> Option<Resumption> {
    let (sum, body) = state.split_first_chunk()?;
    if state.len() > STORED_BYTES_MAX || u64::from_be_bytes(*sum) != check_sum(body) {
        return None;
    }
    let stored = Stored::decode(body).ok()?;
    let resume_token = ResumeToken::from(&stored.resume_token[..]);
    (!resume_token.is_empty()).then_some(Resumption {
        resume_token,
        attempt: stored.attempt,
        down_seq: stored.down_seq,
        up_seq: stored.up_seq,
        in_flight: stored.in_flight,
        user_id: stored.user_id,
    })
}

/// FNV-1a: against what was torn, not against anybody who wants to deceive.
fn check_sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn resumption(attempt: u64) -> Resumption {
        Resumption {
            resume_token: ResumeToken::from(&[7; RESUME_TOKEN_BYTES_MAX][..]),
            attempt,
            down_seq: u64::MAX,
            up_seq: u64::MAX,
            in_flight: u32::MAX,
            user_id: "u".repeat(USER_ID_BYTES),
        }
    }

    /// A folder of its own, gone at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("moorgate-store-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn store(&self) -> FileStore {
            FileStore::new(self.0.join("session"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_saved_is_loaded_by_its_owner_alone_until_it_is_erased() {
        let folder = Folder::new("saved");
        let mut store = folder.store();
        assert_eq!(decode(&store.load().unwrap()), None);
        for attempt in [1, u64::MAX] {
            let state = encode(&resumption(attempt));
            assert!(state.len() <= STORED_BYTES_MAX);
            store.save(&state).unwrap();
            assert_eq!(decode(&folder.store().load().unwrap()), Some(resumption(attempt)));
        }
        let mode = fs::metadata(&store.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        store.save(&[]).unwrap();
        store.save(&[]).unwrap();
        assert_eq!(decode(&store.load().unwrap()), None);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn what_is_torn_or_changed_is_nothing() {
        let state = encode(&resumption(3));
        for len in 0..state.len() {
            assert_eq!(decode(&state[..len]), None, "{len} bytes");
        }
        for at in 0..state.len() {
            let mut changed = state.clone();
            changed[at] ^= 0x10;
            assert_eq!(decode(&changed), None, "byte {at}");
        }
        let folder = Folder::new("torn");
        let mut store = folder.store();
        for content in [&state[..20], &[0; STORED_BYTES_MAX], b"x"] {
            fs::write(&store.path, content).unwrap();
            assert_eq!(decode(&store.load().unwrap()), None);
        }
    }

    #[test]
    fn a_crash_while_it_is_written_leaves_what_was_there() {
        let folder = Folder::new("crash");
        let mut store = folder.store();
        let old = encode(&resumption(1));
        store.save(&old).unwrap();
        fs::write(store.beside(), &encode(&resumption(2))[..9]).unwrap();
        fs::set_permissions(store.beside(), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(store.load().unwrap(), old);
        let new = encode(&resumption(3));
        store.save(&new).unwrap();
        assert_eq!(store.load().unwrap(), new);
        assert_eq!(fs::metadata(&store.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_replaced_that_is_no_stored_session() {
        let folder = Folder::new("foreign");
        let at = |name: &str| folder.0.join(name);
        fs::write(at("long"), [0; STORED_BYTES_MAX + 1]).unwrap();
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("long"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let state = encode(&resumption(1));
        for name in ["long", "folder", "link", "dangling", "pipe"] {
            let kind = fs::symlink_metadata(at(name)).unwrap().file_type();
            let mut store = FileStore::new(at(name));
            assert!(
                store.load().is_err() && store.save(&state).is_err() && store.save(&[]).is_err(),
                "{name}"
            );
            // Nor is what has the name that it is written under first.
            let mut beside = FileStore::new(at(&format!("{name}-own")));
            fs::rename(at(name), beside.beside()).unwrap();
            assert!(beside.save(&state).is_err() && !beside.path.exists(), "{name}");
            assert_eq!(fs::symlink_metadata(beside.beside()).unwrap().file_type(), kind, "{name}");
        }
        assert!(FileStore::new("/dev/null").load().is_err());
    }

    #[test]
    fn what_cannot_be_written_or_read_is_said() {
        let folder = Folder::new("absent");
        let mut store = FileStore::new(folder.0.join("nowhere").join("session"));
        assert_eq!(store.load().unwrap(), []);
        assert!(store.save(b"state").is_err());
        assert!(FileStore::new(&folder.0).load().is_err(), "a folder is no file");
        assert!(FileStore::new(&folder.0).save(&[]).is_err());
    }
}

//! Opens files of which nobody knows what they are: a pipe or a directory in their place holds up nobody.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `O_NONBLOCK`, as on every Linux that we run on: opening a pipe does not wait for a writer.
const NONBLOCK: i32 = 0o4000;

/// # Errors
/// Those of the system, and that it is no regular file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

#[cfg(test)]
pub(super) fn pipe_in(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let directory = std::env::temp_dir().join(format!("moorgate-regular-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(open(&file).is_ok());
        for path in [directory.clone(), pipe_in(&directory), "/dev/null".into()] {
            assert_eq!(open(&path).unwrap_err().to_string(), "it is no regular file", "{}", path.display());
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

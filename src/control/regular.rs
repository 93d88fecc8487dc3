//! Opens and reads files by names from outside: a pipe or a device in their place blocks nothing, and nothing is read
//! without a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `O_NONBLOCK`, as on every Linux that we run on: opening a pipe does not wait for a writer.
const NONBLOCK: i32 = 0o4000;

/// Opens a regular file for reading.
///
/// # Errors
/// Those of the system, and that it is no regular file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// Those of the system, that it is no regular file, and that it is longer.
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(io::Error::other(format!("it has more than {bytes_max} bytes; is it the right file?"))),
        false => Ok(bytes),
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
        for path in [directory.clone(), pipe_in(&directory), "/dev/null".into(), "/dev/zero".into()] {
            assert_eq!(open(&path).unwrap_err().to_string(), "it is no regular file", "{}", path.display());
        }
        assert_eq!(read_regular(&file, 1).unwrap(), b"x");
        assert!(read_regular(&file, 0).unwrap_err().to_string().contains("more than 0 bytes"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

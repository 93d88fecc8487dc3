//! Opens and reads files by names from outside: a pipe or a device in their place blocks nothing, and nothing is read
//! without a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// `O_NONBLOCK`, as on every Linux that we run on: opening a pipe does not wait for a writer.
const NONBLOCK: i32 = 0o4000;

/// Opens a regular file for reading.
///
/// # Errors
/// Those of the system, and that it is no regular file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ => "a device",
    };
    Err(io::Error::other(format!("it is {what}; write the path of a regular file")))
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
        for (path, what) in [
            (directory.clone(), "a directory"),
            (pipe_in(&directory), "a pipe"),
            ("/dev/null".into(), "a device"),
            ("/dev/zero".into(), "a device"),
        ] {
            let message = format!("it is {what}; write the path of a regular file");
            assert_eq!(open(&path).unwrap_err().to_string(), message, "{}", path.display());
        }
        assert_eq!(read_regular(&file, 1).unwrap(), b"x");
        assert!(read_regular(&file, 0).unwrap_err().to_string().contains("more than 0 bytes"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

//! Diagnostics through `log`: lines are handed to a thread that writes them, so that a blocked standard error
//! stalls no loop. Lines that do not fit are lost.

use crossbeam_channel::{Sender, bounded};
use std::io::{self, Write};

/// Lines that may wait.
const LINES_MAX: usize = 1024;

struct Lines(Sender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A full channel means that nobody can read what is lost.
        let _ = self.0.try_send(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the diagnostics at a level such as `info`; the environment variable `RUST_LOG` wins. Only the first call
/// in a process has an effect.
pub fn init_diagnostics(level: log::LevelFilter) {
    let (sender, receiver) = bounded::<Vec<u8>>(LINES_MAX);
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).parse_default_env().format_target(false);
    builder.target(env_logger::Target::Pipe(Box::new(Lines(sender))));
    if builder.try_init().is_err() {
        return;
    }
    let writer = std::thread::Builder::new().name("diagnostics".to_owned()).spawn(move || {
        while let Ok(line) = receiver.recv() {
            // There is no place left to report a failure of standard error.
            let _ = io::stderr().write_all(&line);
        }
    });
    if writer.is_err() {
        let _ = writeln!(io::stderr(), "no thread for diagnostics: they are lost");
    }
}

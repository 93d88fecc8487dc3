//! On a terminal: it is taken over, and given back.

use crate::peer::{Listener, PATIENCE};
use crate::{anonymous, asked, logs_in, program, pushes, takes};
use moorgate_demo::wire::{self, accounts, chat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A terminal with the program on it.
struct Terminal {
    child: Child,
    keys: File,
    /// The program's end, kept so that its modes can be looked at.
    slave: OwnedFd,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn new(address: &str) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = std::path::PathBuf::from(name.into_string().unwrap());
        let slave = OwnedFd::from(File::options().read(true).write(true).open(path).unwrap());
        tcsetwinsize(&slave, Winsize { ws_row: 12, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = program()
            .args(["--gateway", address, "--user", "alice"])
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keys = File::from(master);
        let mut reader = keys.try_clone().unwrap();
        let (tell, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = reader.read(&mut buffer) {
                if count == 0 || tell.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { child, keys, slave, output, seen: String::new() }
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is written.
    fn shows(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.output.recv_timeout(PATIENCE) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("no `{text}` in {:?}", self.seen),
            }
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_terminal_is_taken_over_and_given_back() {
    for end in ["\x03", "/quit\r"] {
        let listener = Listener::new();
        let mut terminal = Terminal::new(&listener.address());
        let mut peer = anonymous(&listener);
        terminal.shows("\x1b[?1049h");
        terminal.shows("password of alice: ");
        assert!(terminal.is_raw());
        terminal.types("secret");
        terminal.shows("••••••");
        terminal.types("\r");
        logs_in(&mut peer, accounts::LOGIN, "secret");
        terminal.shows("connected as alice to");
        terminal.types("/to bob hellp\x7fo\r");
        let (up_seq, _, send) = asked::<wire::Send>(&mut peer, chat::SEND);
        assert_eq!(send.text, "hello");
        takes(&mut peer, up_seq);
        pushes(&mut peer, "bob", "hi there", 7);
        terminal.shows("hi there");
        assert!(!terminal.seen.contains("secret"), "the password is never shown");
        terminal.types(end);
        terminal.shows("\x1b[?1049l");
        peer.bye();
        assert!(terminal.child.wait().unwrap().success());
        assert!(!terminal.is_raw());
    }
}

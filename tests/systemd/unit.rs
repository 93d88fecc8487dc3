//! One `moorgate serve`, started as a service manager starts it.

use moorgate_client::{Connection, Options};
use moorgate_service::{Handle, LinkKey, Reply, Service};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Far longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Signs access tokens and proves links.
pub(crate) const SECRET: &str = "correct-horse-battery-staple-and-some-more";

/// A directory that goes with its test, with a configuration and a socket that listens for notices.
pub(crate) struct Site {
    path: PathBuf,
    notices: UnixDatagram,
}

impl Site {
    /// The configuration is what the test says and a service `echo` at this address; its key is a credential.
    pub(crate) fn new(tables: &str, service: SocketAddr) -> Site {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("moorgate-systemd-{}-{number}", std::process::id()));
        std::fs::create_dir_all(path.join("credentials")).unwrap();
        for name in ["access.secret", "echo.key"] {
            std::fs::write(path.join("credentials").join(name), format!("{SECRET}\n")).unwrap();
        }
        let text = format!(
            "{tables}\n[[auth.key]]\nid = \"a\"\nsecret_credential = \"access.secret\"\n[[service]]\nname = \"echo\"\n\
             endpoints = [\"{service}\"]\nkey_credential = \"echo.key\"\n[[route]]\ncommands = 7\nservice = \"echo\"\n\
             anonymous = true\n"
        );
        std::fs::write(path.join("moorgate.toml"), text).unwrap();
        let notices = UnixDatagram::bind(path.join("notify")).unwrap();
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        Site { path, notices }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next datagram to the service manager.
    pub(crate) fn notice(&self) -> String {
        let mut buffer = [0; 4096];
        let count = loop {
            match self.notices.recv(&mut buffer) {
                // With a timeout it is not taken up again after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                count => break count.unwrap(),
            }
        };
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    /// Reads datagrams up to one that has this in it.
    pub(crate) fn notice_with(&self, part: &str) -> String {
        loop {
            let notice = self.notice();
            if notice.contains(part) {
                return notice;
            }
        }
    }

    /// Without sockets of the service manager.
    pub(crate) fn start(&self, variables: &[(&str, &str)]) -> Unit {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate"));
        command.args(["serve", "-c"]).arg(self.path.join("moorgate.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.spawn(command, variables)
    }

    /// With these sockets, or whatever it is, as descriptors 3 and 4: passing a descriptor on at a number of one's
    /// choice needs a shell, which gets it as its standard input or output.
    pub(crate) fn start_with(&self, names: &str, mut sockets: Vec<OwnedFd>) -> Unit {
        let move_them = match sockets.len() {
            1 => "exec 3<&0 </dev/null;",
            2 => "exec 3<&0 4>&1 </dev/null >/dev/null;",
            count => panic!("{count} descriptors"),
        };
        let count = sockets.len().to_string();
        let script = format!("{move_them} export LISTEN_PID=$$; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_moorgate"), "serve", "-c"]);
        command.arg(self.path.join("moorgate.toml")).stdin(Stdio::from(sockets.remove(0)));
        command.stdout(sockets.pop().map_or_else(Stdio::null, Stdio::from));
        self.spawn(command, &[("LISTEN_FDS", &count), ("LISTEN_FDNAMES", names)])
    }

    fn spawn(&self, mut command: Command, variables: &[(&str, &str)]) -> Unit {
        let (reader, writer) = std::io::pipe().unwrap();
        for variable in ["RUST_LOG", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        command.env("NOTIFY_SOCKET", self.path.join("notify"));
        command.env("CREDENTIALS_DIRECTORY", self.path.join("credentials"));
        command.envs(variables.iter().copied()).stderr(writer);
        let child = command.spawn().unwrap();
        // The command holds the pipe's end for writing: with it the end would never come.
        drop(command);
        let (sender, log) = channel();
        std::thread::spawn(move || {
            BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Unit { child, log, seen: String::new() }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What is left in a directory for temporary files harms nobody.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A running gateway; killed when the test ends before it.
pub(crate) struct Unit {
    child: Child,
    log: Receiver<String>,
    seen: String,
}

impl Unit {
    /// Reads the log up to a line that has this in it, and gives what stands behind.
    pub(crate) fn logged(&mut self, part: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no `{part}` in:\n{}", self.seen));
            self.seen.push_str(&line);
            self.seen.push('\n');
            if let Some((_, behind)) = line.split_once(part) {
                return behind.to_owned();
            }
        }
    }

    /// Where it says that clients connect.
    pub(crate) fn address(&mut self) -> SocketAddr {
        self.logged("clients connect to ").parse().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the end: the exit code, and all that it has logged.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        // The pipe closes when the process ends.
        self.seen.extend(self.log.iter().map(|line| line + "\n"));
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // It fails when the process has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Any port of this machine.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The service, with the key of the credentials.
pub(crate) fn echo_service() -> Handle {
    let service = Service::named("echo").key(LinkKey::new(SECRET.as_bytes()).unwrap());
    let service = service.handle(7..=7, |call, responder| responder.reply(Reply::ok(call.payload())));
    service.listen(any_port()).unwrap().spawn().unwrap()
}

/// An anonymous client.
pub(crate) fn client(address: SocketAddr) -> Connection {
    Connection::connect(address, Options::default(), "").unwrap()
}

/// It is served.
pub(crate) fn echo(client: &mut Connection) {
    let answer = client.request(7, b"hello", PATIENCE).unwrap();
    assert_eq!((answer.code.name(), answer.payload.as_slice()), ("OK", &b"hello"[..]));
}

/// One page of the operator.
pub(crate) fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

//! Registries as programs of their own, on free loopback ports and in folders that go with them.

#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod consul;
#[path = "../../../../tests/loopback/mod.rs"]
mod loopback;
pub(crate) mod rnacos;

use moorgate_registry::{Listed, RegistryError, Stop, Watch};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// For anything to happen; nothing that works takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);
const STARTS: u32 = 6;
const STARTS_AGAIN: u32 = 60;

/// The program, or `None` after saying loudly that the test is left out; where it is required, the test fails.
pub(crate) fn found(name: &str, variable: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    // Where name servers lie is on the administrator's PATH alone.
    let folders = std::env::split_paths(&paths).chain(["/usr/sbin".into()]);
    let found = named.or_else(|| folders.map(|folder| folder.join(name)).find(|path| path.is_file()));
    if found.is_none() {
        let required = std::env::var("MOORGATE_REQUIRE").unwrap_or_default();
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let what = format!("SKIPPED: {test}: no `{name}` on the PATH, and {variable} does not name one");
        assert!(!required.split(',').any(|required| required == name), "{what}, but MOORGATE_REQUIRE does");
        // Past the test runner, which keeps what a test prints while it passes.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{what}\n").as_bytes());
    }
    found
}

/// A folder that goes with its owner.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("moorgate-registry-{}-{number}", std::process::id()));
        // One that was killed may have had the same number, and have left its own.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Ports that nobody has, neither for TCP nor for UDP.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    free_ports_at(Ipv4Addr::LOCALHOST.into())
}

/// The same of this address of the machine.
pub(crate) fn free_ports_at<const N: usize>(ip: IpAddr) -> [u16; N] {
    let mut held = Vec::new();
    let ports = [(); N].map(|()| {
        loop {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            if let Ok(socket) = UdpSocket::bind(address) {
                held.push((listener, socket));
                return address.port();
            }
        }
    });
    drop(held);
    ports
}

/// A program that ends with its owner, however the test ends.
pub(crate) struct Program {
    command: Command,
    child: Child,
    log: PathBuf,
    is_ready: Box<dyn Fn() -> bool>,
}

impl Program {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(
        mut command: Command,
        log: PathBuf,
        is_ready: impl Fn() -> bool + 'static,
    ) -> Option<Program> {
        let child = spawn(&mut command, &log);
        let mut program = Program { command, child, log, is_ready: Box::new(is_ready) };
        program.wait().then_some(program)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// The same once more, after a [`Program::kill`].
    pub(crate) fn start_again(&mut self) {
        // Somebody may have been given its port, and give it back, or the start may fail.
        let is_up = (0..STARTS_AGAIN).any(|_| {
            self.kill();
            self.child = spawn(&mut self.command, &self.log);
            self.wait() || Stop::new().wait(Duration::from_secs(1))
        });
        assert!(is_up, "it starts again: {}", self.said());
    }

    fn wait(&mut self) -> bool {
        let (child, is_ready, log) = (&mut self.child, &self.is_ready, &self.log);
        // A part of rnacos fails at a start now and then, and the rest goes on without it.
        let has_failed = || std::fs::read_to_string(log).is_ok_and(|text| text.contains("panicked at"));
        let mut has_ended = false;
        eventually("the program is ready", || {
            has_ended = child.try_wait().unwrap().is_some() || has_failed();
            has_ended || is_ready() && !has_failed()
        });
        !has_ended
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the program said:\n{}", self.said());
        }
    }
}

fn spawn(command: &mut Command, log: &Path) -> Child {
    // A start is judged by what it says itself.
    let log = File::options().create(true).write(true).truncate(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// For the test's own requests: none waits for ever.
pub(crate) fn client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .new_agent()
}

/// Several tries: another program may take a port between its choice and its use, or the start may fail.
pub(crate) fn started<T>(start: impl Fn() -> Option<T>) -> T {
    (0..STARTS).find_map(|_| start()).expect("the program starts")
}

/// Looks until it is so.
#[expect(clippy::disallowed_methods, reason = "the tests' one clock")]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let (begun, never) = (Instant::now(), Stop::new());
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        never.wait(TICK);
    }
}

pub(crate) type Told = Result<Vec<Listed>, RegistryError>;

/// A watch on a thread of its own.
pub(crate) struct Watcher {
    stop: Stop,
    told: Receiver<Told>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn new(mut watch: impl Watch + 'static) -> Watcher {
        let (stop, (tell, told)) = (Stop::new(), channel());
        let of_thread = stop.clone();
        let thread = std::thread::spawn(move || {
            while let Some(answer) = watch.next(&of_thread) {
                let _ = tell.send(answer.map(|listing| listing.instances));
            }
        });
        Watcher { stop, told, thread: Some(thread) }
    }

    pub(crate) fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("the watch tells something")
    }

    /// Waits for an answer like this; all before it, and itself.
    #[expect(clippy::disallowed_methods, reason = "the tests' one clock")]
    pub(crate) fn until(&self, what: &str, is_it: impl Fn(&Told) -> bool) -> Vec<Told> {
        let (begun, mut all) = (Instant::now(), Vec::new());
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let Ok(told) = self.told.recv_timeout(left) else { panic!("never {what}, but {all:?}") };
            all.push(told);
            if all.last().is_some_and(&is_it) {
                return all;
            }
        }
    }

    /// Waits for a list like this.
    pub(crate) fn list(&self, what: &str, is_it: impl Fn(&[Listed]) -> bool) -> Vec<Listed> {
        let all = self.until(what, |told| told.as_ref().is_ok_and(|list| is_it(list)));
        all.into_iter().last().unwrap().unwrap()
    }

    /// Ends it; how long that took.
    #[expect(clippy::disallowed_methods, reason = "the tests' one clock")]
    pub(crate) fn end(mut self) -> Duration {
        let begun = Instant::now();
        self.stop.set();
        self.thread.take().unwrap().join().unwrap();
        begun.elapsed()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

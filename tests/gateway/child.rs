//! The binary as a process of its own: for signals, descriptors, memory.

use crate::site::{ACCESS_SECRET, LINK_SECRET, until};
use crate::wire::{PATIENCE, RawClient};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

/// A directory that goes with its test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("moorgate-test-{}-{number}", std::process::id()));
        // One that was killed may have had the same number, and have left its own.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running `moorgate serve`.
pub(crate) struct Process {
    child: Child,
    log: Receiver<String>,
    /// Lines of the log that a test has waited past.
    passed: RefCell<Vec<String>>,
    directory: Directory,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// The operator's pages.
    pub(crate) admin: SocketAddr,
}

impl Process {
    /// Serves a configuration.
    pub(crate) fn start(text: &str) -> Process {
        Process::start_with(text, "")
    }

    /// Serves a configuration with at most this many descriptors.
    pub(crate) fn with_descriptors(text: &str, descriptors: u32) -> Process {
        Process::start_with(text, &format!("ulimit -n {descriptors}; "))
    }

    /// Serves a configuration, in a shell that has run this before.
    pub(crate) fn start_behind(before: &str, text: &str) -> Process {
        Process::start_with(text, before)
    }

    fn start_with(text: &str, before: &str) -> Process {
        let (reader, stderr) = std::io::pipe().unwrap();
        let mut process = Process::spawn(text, before, stderr.into());
        let (lines, log) = channel();
        let stderr = BufReader::new(reader);
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line)));
        });
        process.log = log;
        process.address = process.logged("clients connect to ").parse().unwrap();
        process.admin = process.logged("operator's pages on http://").parse().unwrap();
        process
    }

    /// With this standard error, unread, and this admin address; the clients' address is unknown.
    pub(crate) fn spawn_unread(text: &str, admin: SocketAddr, stderr: Stdio) -> Process {
        let mut process = Process::spawn(text, "", stderr);
        process.admin = admin;
        process
    }

    fn spawn(text: &str, before: &str, stderr: Stdio) -> Process {
        let directory = Directory::new();
        let file = directory.path().join("moorgate.toml");
        std::fs::write(&file, text).unwrap();
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{before}exec \"$0\" serve -c \"$1\""))
            .arg(env!("CARGO_BIN_EXE_moorgate"))
            .arg(&file)
            .env("ACCESS", ACCESS_SECRET)
            .env("LINK", LINK_SECRET)
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        Process {
            child,
            log: channel().1,
            passed: RefCell::default(),
            directory,
            address: unknown,
            admin: unknown,
        }
    }

    /// A file beside its configuration.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Waits for a line of the log, and gives what stands behind these words.
    pub(crate) fn logged(&self, words: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the log has no `{words}`"));
            let rest = line.split_once(words).map(|(_, rest)| rest.to_owned());
            self.passed.borrow_mut().push(line);
            if let Some(rest) = rest {
                return rest;
            }
        }
    }

    /// The log of a process that has ended.
    pub(crate) fn whole_log(&self) -> String {
        let mut passed = self.passed.borrow_mut();
        passed.extend(self.log.iter());
        passed.join("\n")
    }

    /// Whether a line with these words was among those of the log so far.
    pub(crate) fn has_logged(&self, words: &str) -> bool {
        self.passed.borrow().iter().any(|line| line.contains(words))
    }

    /// Waits until every service has a link.
    pub(crate) fn ready(&self) {
        until("it is ready", || http::get(self.admin, "/readyz").0 == 200);
    }

    /// A connection with an anonymous session.
    pub(crate) fn open(&self) -> RawClient {
        RawClient::open(self.address)
    }

    /// A sample of its metrics page.
    pub(crate) fn metric(&self, sample: &str) -> u64 {
        crate::site::sample_of(&http::get(self.admin, "/metrics").1, sample)
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -$0 $1", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Changes how many descriptors it may have from now on.
    pub(crate) fn limit_descriptors(&self, descriptors: u32) {
        let pid = self.child.id().to_string();
        let limit = format!("--nofile={descriptors}:");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    }

    /// Changes how long files may be that it writes.
    pub(crate) fn limit_file_size(&self, bytes: &str) {
        let pid = self.child.id().to_string();
        let limit = format!("--fsize={bytes}:");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    }

    /// Its limits in force, and the hard ones, of descriptors.
    pub(crate) fn descriptor_limits(&self) -> (String, String) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    }

    /// How many of its descriptors are of this file.
    pub(crate) fn descriptors_of(&self, path: &str) -> usize {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        all.filter(|fd| std::fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to == Path::new(path)))
            .count()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end: how, and what it printed.
    pub(crate) fn ended(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let mut printed = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        (status.unwrap(), printed)
    }

    /// The lines of the log that were not looked at, once it has ended.
    pub(crate) fn rest_of_log(&self) -> Vec<String> {
        self.log.iter().collect()
    }

    /// A line of `/proc/PID/status`, in its own unit.
    pub(crate) fn status_of(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The state letter of one of its threads.
    pub(crate) fn thread_state(&self, name: &str) -> char {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        // A thread may end while it is looked at.
        let stats =
            threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok());
        let behind_name = |stat: String| Some(stat.split_once(&format!("({name}) "))?.1.to_owned());
        stats.filter_map(behind_name).next().unwrap().chars().next().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As much HTTP as the operator's pages need.
pub(crate) mod http {
    use crate::wire::PATIENCE;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    /// Status and body of a page.
    pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
        ask(address, "GET", path, "")
    }

    /// Status and body of the answer to an operation; each header ends its line.
    pub(crate) fn post(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
        ask(address, "POST", path, headers)
    }

    fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap();
        (status[..3].parse().unwrap(), body.to_owned())
    }
}

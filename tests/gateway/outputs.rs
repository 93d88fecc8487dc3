//! Where the binary writes: pipes without a reader, disks that are full, files that are rotated.

use crate::child::{Directory, Process, http};
use crate::link::{RawLink, listener};
use crate::site::{command, echo_service, own_address, text, until};
use crate::wire::{RawClient, request};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Requests whose lines fill every pipe.
const MANY: u64 = 1500;
const SESSION: &str = "[session]\nin_flight = 2000\nwindow = 2000\n\
                       [rates]\nconnection = \"off\"\naddress = \"off\"\nframes = \"off\"\n";

fn ask_many(process: &Process, client: &mut RawClient) {
    for up_seq in 1..=MANY {
        client.ask(up_seq, command::OPEN, b"x");
    }
    assert_eq!(process.metric("moorgate_requests_total{status=\"OK\"}"), MANY);
}

/// A named pipe in a directory of its own.
fn pipe() -> (Directory, String) {
    let directory = Directory::new();
    let path = directory.path().join("access.pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let path = path.display().to_string();
    (directory, path)
}

#[test]
fn unread_access_log_blocks_neither_start_nor_end() {
    let (_directory, path) = pipe();
    for access in ["stdout", &path] {
        let service = echo_service();
        let tables = format!("{SESSION}[log]\naccess = \"{access}\"\n");
        // Standard output is a pipe too, and is read only when the process has ended.
        let mut process = Process::start(&text(service.address(), &tables));
        process.ready();
        let mut client = process.open();
        ask_many(&process, &mut client);
        drop(client);
        process.signal("TERM");
        process.logged("lines are lost at the end");
        assert_eq!(process.ended().0.code(), Some(0), "{access}");
        service.stop();
        service.join();
    }
}

/// A client that fills the queue of the access log costs lines, and no requests of other clients.
#[test]
fn attacker_that_fills_the_access_log_delays_no_other_client() {
    let (_directory, path) = pipe();
    let service = echo_service();
    let process = Process::start(&text(service.address(), &format!("{SESSION}[log]\naccess = \"{path}\"\n")));
    process.ready();
    let mut other = process.open();
    let dropped = || process.metric("moorgate_access_log_dropped_total");
    let mut rounds = 0;
    while dropped() == 0 {
        let mut attacker = process.open();
        (1..=MANY).for_each(|up_seq| drop(attacker.ask(up_seq, command::OPEN, b"x")));
        rounds += 1;
        other.ask(rounds, command::OPEN, b"mine");
    }
    let asked = rounds * (MANY + 1);
    assert_eq!(process.metric("moorgate_requests_total{status=\"OK\"}"), asked);
    assert!(dropped() < asked, "what fits is kept");
    drop((other, process));
    service.stop();
    service.join();
}

#[test]
fn second_signal_ends_beside_a_full_pipe() {
    let listener = listener();
    let tables = format!("{SESSION}[log]\naccess = \"stdout\"\n");
    let mut process = Process::start(&text(listener.local_addr().unwrap(), &tables));
    let mut link = RawLink::open(&listener);
    process.ready();
    let mut client = process.open();
    for up_seq in 1..=MANY {
        client.send(&request(up_seq, command::OPEN, b"x"));
        let call = link.call();
        link.reply(call.call_id, b"x");
        client.response();
    }
    client.send(&request(MANY + 1, command::OPEN, b"never answered"));
    link.call();
    process.signal("TERM");
    process.logged("a second signal ends at once");
    process.signal("TERM");
    process.logged("ended by a second signal");
    assert_eq!(process.ended().0.code(), Some(1));
}

#[test]
fn unread_standard_error_blocks_nothing() {
    for second in [false, true] {
        let (_reader, mut stderr) = std::io::pipe().unwrap();
        let mut filling = stderr.try_clone().unwrap();
        // Ends with the test's process, or with the last reader.
        std::thread::spawn(move || while filling.write_all(&[b'x'; 4096]).is_ok() {});
        let free = || TcpListener::bind(own_address()).unwrap().local_addr().unwrap();
        let (clients, admin) = (free(), free());
        let configuration = text(crate::site::nobody(), "")
            .replacen("127.0.0.1:0", &clients.to_string(), 1)
            .replacen("127.0.0.1:0", &admin.to_string(), 1);
        let mut process =
            Process::spawn_unread(&configuration, admin, Stdio::from(stderr.try_clone().unwrap()));
        until("it serves", || std::net::TcpStream::connect(admin).is_ok());
        let client = RawClient::open(clients);
        process.signal("TERM");
        until("it drains", || http::get(admin, "/readyz").1.contains("draining"));
        match second {
            true => process.signal("TERM"),
            false => drop(client),
        }
        assert_eq!(process.ended().0.code(), Some(i32::from(second)));
        let _ = stderr.flush();
    }
}

#[test]
fn full_disk_leaves_whole_lines_and_counts_the_others() {
    let service = echo_service();
    let tables = format!("{SESSION}[log]\naccess = \"access.log\"\n");
    let process = Process::start(&text(service.address(), &tables));
    process.ready();
    let dropped = || process.metric("moorgate_access_log_dropped_total");
    let mut client = process.open();
    let mut up_seq = 0;
    let mut ask = |client: &mut RawClient| {
        up_seq += 1;
        client.ask(up_seq, command::OPEN, b"x");
        up_seq
    };
    let lines = || std::fs::read_to_string(process.file("access.log")).unwrap();
    // A file that may not grow fails as a full disk does: with a part of a line, then with nothing.
    for round in 0..3 {
        let last = ask(&mut client);
        until("it is written", || lines().ends_with('\n') && lines().contains(&format!(" seq={last} ")));
        process.limit_file_size(&(lines().len() + 20).to_string());
        let before = dropped();
        while dropped() < before + 2 + round {
            ask(&mut client);
        }
        process.limit_file_size("unlimited");
    }
    let last = ask(&mut client);
    until("it is written again", || lines().ends_with('\n') && lines().contains(&format!(" seq={last} ")));
    let text = lines();
    let whole = |line: &&str| {
        line.starts_with("time=") && line.contains(" why=") && line.matches("time=").count() == 1
    };
    let whole: BTreeSet<&str> = text.lines().filter(whole).collect();
    assert_eq!(whole.len() as u64 + dropped(), last, "{text}");
    assert_eq!(text.lines().count(), whole.len() + 3, "a torn line of each round: {text}");
    process.logged("lines are lost");
    process.logged("written again; ");
    drop(client);
    drop(process);
    service.stop();
    service.join();
}

#[test]
fn usr1_reopens_the_access_log_of_its_group() {
    let service = echo_service();
    let process = Process::start(&text(service.address(), "[log]\naccess = \"access.log\"\n"));
    process.ready();
    let (path, old) = (process.file("access.log"), process.file("access.log.1"));
    let mut client = process.open();
    client.ask(1, command::OPEN, b"x");
    let has = |path: &std::path::Path, seq: u64| {
        std::fs::read_to_string(path)
            .is_ok_and(|text| text.contains(&format!(" seq={seq} ")) && text.ends_with('\n'))
    };
    until("it is written", || has(&path, 1));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    std::fs::rename(&path, &old).unwrap();
    process.signal("USR1");
    process.logged("access log: reopened ");
    client.ask(2, command::OPEN, b"x");
    until("the new one is written", || has(&path, 2));
    assert!(has(&old, 1) && !has(&old, 2) && !has(&path, 1));
    // One that cannot be opened changes nothing.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    OpenOptions::new().append(true).open(&old).unwrap();
    process.signal("USR1");
    process.logged("cannot be reopened");
    assert_eq!(&client.ask(3, command::OPEN, b"x").payload[..], b"x");
    drop((client, process));
    service.stop();
    service.join();
}

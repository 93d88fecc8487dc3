//! Sockets that the service manager hands over.

use crate::unit::{Site, any_port, client, echo, echo_service, page};
use moorgate_client::{Connection, Options};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

const CLIENTS: &str = "[gateway]\nshards = 2\n[[listener]]\nsocket_name = \"clients\"";

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn sockets_are_found_by_their_names_and_served_by_all_shards() {
    let service = echo_service();
    let (clients, address) = listener();
    let (operator, admin) = listener();
    let site = Site::new(&format!("{CLIENTS}\n[admin]\nsocket_name = \"operator\""), service.address());
    // In another order than the configuration's.
    let mut unit = site.start_with("operator:clients", vec![operator.into(), clients.into()]);
    site.notice_with("STATUS=ready");
    assert_eq!(unit.address(), address);
    let mut served: Vec<Connection> = (0..4).map(|_| client(address)).collect();
    served.iter_mut().for_each(echo);
    assert!(page(admin, "/readyz").ends_with("\r\n\r\nready\n"));
    served.into_iter().for_each(|client| client.bye().unwrap());
    unit.signal("TERM");
    let (code, log) = unit.ended();
    assert_eq!(code, Some(0), "{log}");
    service.stop();
    assert!(service.join());
}

#[test]
fn several_sockets_of_one_name_are_one_listener() {
    let service = echo_service();
    let (first, one) = listener();
    let second = TcpListener::bind("[::1]:0").unwrap();
    let other = second.local_addr().unwrap();
    let site = Site::new(CLIENTS, service.address());
    let mut unit = site.start_with("clients:clients", vec![first.into(), second.into()]);
    site.notice_with("STATUS=ready");
    assert_eq!([unit.address(), unit.address()], [one, other]);
    for address in [one, other] {
        let mut client = client(address);
        echo(&mut client);
        client.bye().unwrap();
    }
    drop(unit);
    service.stop();
    assert!(service.join());
}

/// A restart: whoever connects meanwhile waits, and nobody is refused.
#[test]
fn a_connection_during_a_restart_is_served_by_the_next_process() {
    let service = echo_service();
    let (held, address) = listener();
    let site = Site::new(&CLIENTS.replace("shards = 2", "shards = 1"), service.address());
    let hand_over = || vec![OwnedFd::from(held.try_clone().unwrap())];
    let mut first = site.start_with("clients", hand_over());
    site.notice_with("STATUS=ready");
    assert_eq!(first.address(), address);
    let mut stays = client(address);
    echo(&mut stays);
    first.signal("TERM");
    // With the one shard's word that it goes away, it accepts no more.
    while stays.going_away().is_none() {
        stays.push(Duration::from_millis(10)).unwrap();
    }
    let waiting = std::thread::spawn(move || Connection::connect(address, Options::default(), "").unwrap());
    stays.bye().unwrap();
    let (code, log) = first.ended();
    assert_eq!(code, Some(0), "{log}");
    let second = site.start_with("clients", hand_over());
    let mut served = waiting.join().unwrap();
    site.notice_with("STATUS=ready");
    echo(&mut served);
    served.bye().unwrap();
    drop(second);
    service.stop();
    assert!(service.join());
}

#[test]
fn connection_in_the_queue_of_a_held_socket_is_left_for_the_next_process() {
    let service = echo_service();
    let (held, address) = listener();
    let tables = CLIENTS.replace("shards = 2", "shards = 1") + "\n[rates]\naccepts = \"1/h, burst 1\"";
    let site = Site::new(&tables, service.address());
    let hand_over = || vec![OwnedFd::from(held.try_clone().unwrap())];
    let first = site.start_with("clients", hand_over());
    site.notice_with("STATUS=ready");
    client(address).bye().unwrap();
    // It was the only one that the first process may accept: this one waits.
    let queued = TcpStream::connect(address).unwrap();
    queued.set_nonblocking(true).unwrap();
    first.signal("TERM");
    let (code, log) = first.ended();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(queued.peek(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it is still open");
    let second = site.start_with("clients", hand_over());
    site.notice_with("STATUS=ready; 1 connection");
    drop((queued, second));
    service.stop();
    assert!(service.join());
}

#[test]
fn an_ipv4_client_of_a_socket_for_both_families_keeps_its_address() {
    let service = echo_service();
    // Of the IPv6 family, and for IPv4 clients of this machine only.
    let socket = TcpListener::bind("[::ffff:127.0.0.1]:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let site = Site::new(&format!("{CLIENTS}\n[log]\naccess = \"access.log\""), service.address());
    let unit = site.start_with("clients", vec![socket.into()]);
    site.notice_with("STATUS=ready");
    let mut client = client(SocketAddr::new([127, 0, 0, 1].into(), port));
    echo(&mut client);
    client.bye().unwrap();
    unit.signal("TERM");
    assert_eq!(unit.ended().0, Some(0));
    let log = std::fs::read_to_string(site.path().join("access.log")).unwrap();
    assert!(log.contains(" peer=127.0.0.1 "), "{log}");
    service.stop();
    assert!(service.join());
}

#[test]
fn what_is_no_listening_tcp_socket_is_refused_and_told() {
    let site = Site::new(CLIENTS, listener().1);
    let (held, address) = listener();
    let connected = TcpStream::connect(address).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let unix = std::os::unix::net::UnixListener::bind(site.path().join("unix")).unwrap();
    let cases: [(OwnedFd, &str); 4] = [
        (connected.into(), "it does not listen"),
        (UdpSocket::bind(any_port()).unwrap().into(), "fd 3 is not a valid tcp socket"),
        (unix.into(), "fd 3 is not a valid tcp socket"),
        (file.into(), "fd 3 is not a socket"),
    ];
    for (descriptor, why) in cases {
        let (code, log) = site.start_with("clients", vec![descriptor]).ended();
        let expected = format!(
            "moorgate: the socket `clients` of the service manager is no listening TCP socket: {why}; write \
             ListenStream=ADDRESS:PORT and Accept=no into its socket unit\n"
        );
        assert_eq!((code, log), (Some(1), expected));
    }
    drop(held);
}

#[test]
fn names_that_do_not_fit_are_told_with_those_that_there_are() {
    let site = Site::new(CLIENTS, listener().1);
    let hand_over = || OwnedFd::from(listener().0);
    let ends = |names: &str, sockets: Vec<OwnedFd>, said: &str| {
        let (code, log) = site.start_with(names, sockets).ended();
        assert_eq!((code, log), (Some(1), format!("moorgate: {said}\n")));
    };
    ends(
        "client",
        vec![hand_over()],
        "the service manager hands over no socket `clients`; there are: client; write FileDescriptorName=clients into \
         its socket unit",
    );
    ends(
        "clients:operator",
        vec![hand_over(), hand_over()],
        "nobody would accept from these sockets of the service manager: operator; write socket_name = \"NAME\" into \
         the [[listener]] that they are for, or stop the socket unit",
    );
    ends(
        "clients:operator",
        vec![hand_over()],
        "LISTEN_FDNAMES is `clients:operator` and must be as many names as LISTEN_FDS says, 1, with colons between them",
    );
    let (code, log) = site.start(&[]).ended();
    let said = "the service manager hands over no socket, and `clients` is asked for; start the socket unit, or \
                write an address in place of socket_name";
    assert_eq!((code, log), (Some(1), format!("moorgate: {said}\n")));
    // A script that is its parent has them.
    let wrapped = [("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "clients")];
    let (code, log) = site.start(&wrapped).ended();
    assert_eq!(code, Some(1));
    let said =
        "moorgate: the sockets of the service manager are for process 1 (LISTEN_PID), and this is process ";
    assert!(log.starts_with(said) && log.ends_with("must do it with exec\n"), "{log}");
}

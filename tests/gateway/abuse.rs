//! Clients and services that abuse what they are given, each answered as designed, while a hundred good clients are
//! served beside them. How long the good ones wait is printed, before and during: `cargo test abuse -- --nocapture`.

use crate::link::site_and_link;
use crate::site::{LINK_SECRET, Site, command, echo_service, own_address, settings, until};
use crate::token::token;
use crate::wire::{RawClient, bare, cancel, hello, hello_frame, ping, request};
use moorgate::base::clock::Clock;
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::status::Code;
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::{self, Reason};
use moorgate_service::{Handle, LinkKey, Reply, Service};
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Commands of the second service: a login, one that is never answered, one with a large answer.
const LOGIN: u32 = 0x0900;
const NEVER: u32 = 0x0901;
const LARGE: u32 = 0x0902;
/// The good clients ask as fast as they are answered, all from one address.
const RATES: &str = r#"
[rates]
connection = "1000000/s"
user = "1000000/s"
address = "1000000/s"
frames = "1000000/s"
"#;
const GOOD: usize = 100;
/// Rounds of the good clients before an attack, and at the least during it.
const ROUNDS: usize = 20;

/// A service that may log users in; it never answers one of its commands.
fn second_service() -> Handle {
    let service = Service::named("second").key(LinkKey::new(LINK_SECRET.as_bytes()).unwrap());
    let service = service.handle(LOGIN..=LOGIN, |call, responder| {
        responder.reply(match call.payload() {
            b"right" => Reply::ok(b"").with_login("eve", &[], Duration::ZERO),
            _ => Reply::error(Code::Unauthenticated, "wrong password"),
        });
    });
    let never = parking_lot::Mutex::new(Vec::new());
    let service = service.handle(NEVER..=NEVER, move |_, responder| never.lock().push(responder.later()));
    let large = vec![7; 60_000];
    let service = service.handle(LARGE..=LARGE, move |_, responder| responder.reply(Reply::ok(&large)));
    service.listen(own_address()).unwrap().spawn().unwrap()
}

/// A gateway with both services.
struct Street {
    site: Site,
    services: [Handle; 2],
}

impl Street {
    fn start(tables: &str) -> Street {
        let services = [echo_service(), second_service()];
        let second = services[1].address();
        let tables = format!(
            "{tables}\n{RATES}[[service]]\nname = \"second\"\nendpoints = [\"{second}\"]\nkey_env = \"LINK\"\ngrants = \
             [\"login\"]\n[[route]]\ncommands = \"0x0900-0x0902\"\nservice = \"second\"\nanonymous = true\n"
        );
        let site = Site::of(settings(services[0].address(), &tables));
        site.ready();
        Street { site, services }
    }

    fn end(self) {
        self.site.end();
        self.services.iter().for_each(Handle::stop);
    }
}

/// From another address than the good clients.
fn from_elsewhere(site: &Site) -> RawClient {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // The kernel is not to take what the client does not.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into()).unwrap();
    socket.connect(&site.address().into()).unwrap();
    RawClient::over(socket.into())
}

fn open_elsewhere(site: &Site) -> RawClient {
    let mut client = from_elsewhere(site);
    client.send(&hello_frame(&hello()));
    client.welcome();
    client
}

/// What a good client looks at afterwards.
type Answer = Box<dyn FnOnce(&mut RawClient)>;
/// Asks something: which client, in which round, its place.
type Ask = fn(&mut RawClient, u64, usize) -> Answer;

/// Good clients on a thread of their own: each asks in each round, and gets what is its own.
struct Crowd {
    rounds: Arc<AtomicUsize>,
    last: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Vec<Duration>>>,
}

impl Crowd {
    /// Good clients of a gateway whose one service is played by the test: they ping.
    fn of_no_service(site: &Site) -> Crowd {
        Crowd::of(site, |client, number, _| {
            client.send(&ping(number));
            Box::new(move |client: &mut RawClient| match client.member() {
                v1::gateway_frame::Member::Pong(pong) => assert_eq!(pong.nonce, number),
                other => panic!("{other:?}"),
            })
        })
    }

    /// Good clients that ask, and get what is their own.
    fn start(site: &Site) -> Crowd {
        Crowd::of(site, |client, number, at| {
            let payload = format!("round {number} of {at}").into_bytes();
            client.send(&[bare(0, number - 1), request(number, command::USER, &payload)].concat());
            Box::new(move |client: &mut RawClient| {
                let response = client.response();
                assert_eq!((response.up_seq, &response.payload[..]), (number, &payload[..]));
            })
        })
    }

    fn of(site: &Site, ask: Ask) -> Crowd {
        let (rounds, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
        let mut clients: Vec<RawClient> = (0..GOOD)
            .map(|at| RawClient::log_in(site.address(), token(&format!("good-{at}"), &[]), "phone"))
            .collect();
        let (round, end) = (rounds.clone(), last.clone());
        let thread = std::thread::spawn(move || {
            let clock = Clock::start();
            let mut waits = Vec::new();
            while round.load(Ordering::Acquire) < end.load(Ordering::Acquire) {
                let number = waits.len() as u64 + 1;
                let begun = clock.read().mono;
                let asked: Vec<_> =
                    clients.iter_mut().enumerate().map(|(at, client)| ask(client, number, at)).collect();
                let answered = clients.iter_mut().zip(asked).map(|(client, answer)| {
                    answer(client);
                    clock.read().mono.since(begun)
                });
                waits.push(answered.collect());
                round.fetch_add(1, Ordering::AcqRel);
            }
            waits
        });
        let crowd = Crowd { rounds, last, thread };
        until("the good clients have had their rounds", || crowd.rounds() >= ROUNDS);
        crowd
    }

    fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Acquire)
    }

    /// What happens meanwhile is over.
    fn end(self, attack: &str, begun: usize) {
        until("the good clients have had their rounds", || self.rounds() >= begun + ROUNDS);
        self.last.store(self.rounds(), Ordering::Release);
        let waits = self.thread.join().expect("every good client got what was its own");
        let p99 = |rounds: &[Vec<Duration>]| {
            let mut all: Vec<Duration> = rounds.iter().flatten().copied().collect();
            all.sort_unstable();
            all[all.len() * 99 / 100]
        };
        let (before, during) = waits.split_at(begun);
        println!("{attack}: p99 of {GOOD} good clients {:?} before, {:?} during", p99(before), p99(during));
    }
}

/// Runs an attack beside the good clients.
fn beside_the_good(attack: &str, street: &Street, run: impl FnOnce(&Site)) {
    let crowd = Crowd::start(&street.site);
    let begun = crowd.rounds();
    run(&street.site);
    crowd.end(attack, begun);
}

#[test]
fn a_thousand_bad_logins_end_in_a_ban() {
    let street = Street::start("[bans]\nenabled = true\noffences = 20\nwindow = \"1h\"\nfirst = \"1h\"\n");
    beside_the_good("bad logins", &street, |site| {
        let (mut refused, mut banned) = (0, 0);
        let mut client = Some(open_elsewhere(site));
        for attempt in 0..1000u64 {
            let Some(open) = &mut client else {
                // Every further attempt without a token is refused.
                let mut client = from_elsewhere(site);
                client.try_send(&hello_frame(&hello()));
                let error = client.error();
                assert_eq!(
                    (Code::from_wire(error.status), error.reason()),
                    (Code::PermissionDenied, Reason::Banned)
                );
                assert!(error.reconnect.unwrap().after_ms > 0);
                banned += 1;
                continue;
            };
            open.try_send(&[bare(0, attempt), request(attempt + 1, LOGIN, b"guess")].concat());
            match open.member() {
                v1::gateway_frame::Member::Response(response) => {
                    assert_eq!(Code::from_wire(response.status), Code::Unauthenticated);
                    refused += 1;
                }
                v1::gateway_frame::Member::Error(error) => {
                    assert_eq!(error.reason(), Reason::Banned);
                    client = None;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!((20..=25).contains(&refused) && banned > 900, "{refused} refused, {banned} banned");
    });
    street.end();
}

#[test]
fn open_and_cancel_floods_hold_their_places() {
    let street = Street::start("[session]\nin_flight = 16\n");
    beside_the_good("open and cancel", &street, |site| {
        for _ in 0..50 {
            let mut client = open_elsewhere(site);
            let flood: Vec<u8> =
                (1..=200).flat_map(|n| [request(n, NEVER, b"x"), cancel(n)].concat()).collect();
            client.try_send(&flood);
            // A cancel gives no place back before the service is done: the seventeenth is one too many.
            assert_eq!(client.error_reason(), Reason::InFlightExceeded);
        }
        assert_eq!(site.metric("moorgate_requests_cancelled_total"), 50 * 16);
    });
    // What was asked is settled when its time is over, or its client gone.
    street.site.metric_becomes("moorgate_sessions", 0);
    street.site.metric_becomes("moorgate_requests_outstanding", 0);
    street.end();
}

#[test]
fn clients_that_acknowledge_nothing_get_no_more() {
    let street = Street::start("[session]\nin_flight = 16\n");
    beside_the_good("no acknowledgements", &street, |site| {
        for _ in 0..50 {
            let mut client = open_elsewhere(site);
            for number in 1..=16 {
                assert_eq!(client.ask(number, command::OPEN, b"x").status, Code::Ok.to_wire());
            }
            client.send(&request(17, command::OPEN, b"x"));
            assert_eq!(client.error_reason(), Reason::InFlightExceeded);
        }
    });
    street.end();
}

#[test]
fn clients_that_do_not_read_are_given_up() {
    let street =
        Street::start("[session]\nwrite_timeout = \"300ms\"\n[limits]\nunsent_output = \"64 KiB\"\n");
    beside_the_good("slow readers", &street, |site| {
        let mut slow: Vec<RawClient> = (0..5).map(|_| open_elsewhere(site)).collect();
        for client in &mut slow {
            for number in 1..=64 {
                client.try_send(&request(number, LARGE, b"x"));
            }
        }
        site.metric_becomes("moorgate_close_reasons_total{reason=\"write_stalled\"}", 5);
    });
    street.end();
}

/// Sixteen clients hold unfinished frames; a user whose frame comes in two segments is not ended for them.
// spec: F-11
#[test]
fn unfinished_frames_end_those_that_hold_them() {
    let street = Street::start("[limits]\nunfinished_frames = \"256 KiB\"\n");
    let site = &street.site;
    let log_in = |number| RawClient::log_in(site.address(), token(&format!("user-{number}"), &[]), "phone");
    let mut users: Vec<RawClient> = (0..20).map(log_in).collect();
    for round in 1..=3 {
        let mut attackers: Vec<RawClient> = (0..16).map(|_| open_elsewhere(site)).collect();
        for attacker in &mut attackers {
            attacker.try_send(&60_000u32.to_be_bytes());
            attacker.try_send(&[0; 50_000]);
        }
        until("the bound was full", || site.metric("moorgate_partial_budget_exceeded_total") >= round * 8);
        for user in &mut users {
            let asked = [
                (if round > 1 { bare(0, round - 1) } else { Vec::new() }),
                request(round, command::USER, b"two segments"),
            ]
            .concat();
            let (head, tail) = asked.split_at(asked.len() - 3);
            let received = site.metric("moorgate_bytes_received_total");
            user.send(head);
            until("the head was read", || {
                site.metric("moorgate_bytes_received_total") >= received + head.len() as u64
            });
            user.send(tail);
            assert_eq!(user.response().up_seq, round);
        }
        drop(attackers);
        site.metric_becomes("moorgate_connections", 20);
    }
    drop(users);
    street.end();
}

#[test]
fn a_service_that_oversteps_its_grants_changes_nothing() {
    let (site, mut link) = site_and_link("");
    let crowd = Crowd::of_no_service(&site);
    let mut alice = RawClient::log_in(site.address(), token("alice", &[]), "");
    alice.send(&request(1, command::USER, b"x"));
    let call = link.call();
    let everyone = Some(v1::service_push::Target::Everyone(v1::Everyone {}));
    let kick = v1::KickUser { user_id: "alice".to_owned(), message: String::new() };
    for id in 0..1000u32 {
        let push_id = id.to_be_bytes().to_vec().into();
        let directives = vec![v1::Directive { action: Some(Action::KickUser(kick.clone())) }];
        let target = everyone.clone();
        link.send(
            to_gateway::PUSH,
            &v1::ServicePush { push_id, target, directives, ..v1::ServicePush::default() },
        );
        assert_eq!(link.push_result().reason(), Reason::GrantMissing);
    }
    link.direct(call.call_id, (0..16).map(|_| Action::KickUser(kick.clone())));
    assert_eq!(alice.response().up_seq, 1);
    alice.nothing_else();
    assert_eq!(site.metric("moorgate_pushes_total{result=\"refused\"}"), 1000);
    assert_eq!(site.metric("moorgate_directives_total{result=\"refused\"}"), 16);
    crowd.end("a service without grants", ROUNDS);
    drop(alice);
    site.end();
}

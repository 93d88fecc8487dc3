//! Sessions that outlive their connections, over real sockets and on two shards.

use crate::link::{RawLink, two_shards_and_granted_link};
use crate::site::{Site, command};
use crate::token::token;
use crate::wire::{RawClient, bare, frame, hello, hello_frame, ping, request};
use moorgate_proto::envelope::member::client;
use moorgate_proto::v1::gateway_frame::Member;
use moorgate_proto::v1::push_result::Target;
use moorgate_proto::v1::service_push::Target as To;
use moorgate_proto::v1::{self, Reason, ResumeResult};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const KEPT: &str = "[session]\ndetached_ttl = \"60s\"\n";

/// Alice's client, over all its connections.
struct Client {
    address: SocketAddr,
    wire: RawClient,
    token: bytes::Bytes,
    attempt: u64,
    down_seq: u64,
}

impl Client {
    fn hello() -> v1::Hello {
        v1::Hello { access_token: token("alice", &[]), device_id: "phone".to_owned(), ..hello() }
    }

    fn open(site: &Site) -> Client {
        let mut wire = site.connect();
        wire.send(&hello_frame(&Client::hello()));
        let welcome = wire.welcome();
        assert_eq!((welcome.resume_result(), welcome.detached_ttl_ms), (ResumeResult::None, 60_000));
        Client { address: site.address(), wire, token: welcome.resume_token, attempt: 0, down_seq: 0 }
    }

    /// Connects anew and says that it wants its session back; the connection that it had.
    fn comes_back(&mut self) -> RawClient {
        self.attempt += 1;
        let (resume_token, attempt, down_seq) = (self.token.clone(), self.attempt, self.down_seq);
        let resume = Some(v1::Resume { resume_token, attempt, down_seq });
        let mut wire = RawClient::connect(self.address);
        wire.send(&hello_frame(&v1::Hello { resume, ..Client::hello() }));
        std::mem::replace(&mut self.wire, wire)
    }

    /// The same, and it gets its session.
    fn resumes(&mut self) -> v1::Welcome {
        drop(self.comes_back());
        self.is_welcomed()
    }

    fn is_welcomed(&mut self) -> v1::Welcome {
        let welcome = self.wire.welcome();
        assert_eq!(welcome.resume_result(), ResumeResult::Resumed);
        self.token = welcome.resume_token.clone();
        welcome
    }

    fn leaves(mut self, site: Site) {
        self.wire.send(&frame(0, 0, client::BYE, &v1::Bye { keep_for_ms: 0 }));
        assert!(matches!(self.wire.member(), Member::ByeAck(_)));
        drop(self);
        site.end();
    }
}

fn push(link: &mut RawLink, id: u8, target: To) -> v1::PushResult {
    let (push_id, payload) = (vec![id].into(), vec![id; 3].into());
    let push =
        v1::ServicePush { push_id, payload, target: Some(target), command: 0x1001, ..Default::default() };
    link.push(&push)
}

fn to_alice() -> To {
    To::Users(v1::Users { user_ids: vec!["alice".to_owned()] })
}

// spec, L-53
#[test]
fn what_comes_while_a_client_is_away_waits_for_it_whatever_shard_it_comes_to() {
    let (site, mut link) = two_shards_and_granted_link(KEPT);
    let mut client = Client::open(&site);
    let id = client_session(&mut client, &mut link);
    // Each new connection goes to one of two shards: most likely to both.
    for round in 0..12u8 {
        let up_seq = u64::from(round) + 2;
        client.wire.send(&request(up_seq, command::OPEN, b"slow"));
        let call = link.call();
        client.wire.send(&bare(0, client.down_seq));
        client.wire = RawClient::connect(site.address());
        site.metric_becomes("moorgate_sessions_detached", 1);
        for target in [to_alice(), To::Sessions(v1::Sessions { session_ids: vec![id.clone()] })] {
            let result = push(&mut link, 2 * round + u8::from(matches!(target, To::Sessions(_))), target);
            assert_eq!(result.targets, [i32::from(Target::Waiting)]);
        }
        link.reply(call.call_id, &[round]);
        let welcome = client.resumes();
        assert_eq!((welcome.admitted, &welcome.session_id), (up_seq, &id));
        let mut came = BTreeSet::new();
        for _ in 0..3 {
            let frame = client.wire.frame();
            client.down_seq += 1;
            assert_eq!(frame.down_seq, client.down_seq, "in order, each once");
            match frame.member {
                Some(Member::Response(response)) => assert_eq!(*response.payload, [round]),
                Some(Member::Push(push)) => assert!(came.insert(push.push_id)),
                other => panic!("{other:?}"),
            }
        }
        client.wire.send(&bare(0, client.down_seq));
    }
    client.leaves(site);
}

/// The id of a client's session, which a service knows from its first request.
fn client_session(client: &mut Client, link: &mut RawLink) -> bytes::Bytes {
    client.wire.send(&request(1, command::OPEN, b"who"));
    let call = link.call();
    link.reply(call.call_id, b"you");
    client.wire.response();
    client.down_seq = 1;
    call.caller.unwrap().session_id
}

// spec
#[test]
fn a_half_open_connection_locks_nobody_out() {
    let site = Site::start_with(KEPT, |settings| settings.reactor.shards = 2);
    let mut client = Client::open(&site);
    for _ in 0..12 {
        let mut old = client.comes_back();
        client.is_welcomed();
        let error = old.error();
        assert_eq!(error.reason(), Reason::Superseded);
        assert!(!error.reconnect.unwrap().allowed);
        client.wire.send(&ping(1));
        assert!(matches!(client.wire.member(), Member::Pong(_)));
    }
    assert_eq!(site.metric("moorgate_take_overs_total"), 12);
    client.leaves(site);
}

// spec: D-8, D-11, D-16, R-14
#[test]
fn a_client_that_stops_reading_costs_a_bounded_window_and_then_its_connection_only() {
    let tables = "[session]\ndetached_ttl = \"60s\"\nwrite_timeout = \"2s\"\nin_flight = 4\n\
                  window = 256\npushes = 4\nheartbeat = \"60s\"\n[limits]\nunsent_output = \"4 KiB\"\n";
    let (site, mut link) = two_shards_and_granted_link(tables);
    let mut client = Client::open(&site);
    let payload = vec![7; 60_000];
    // More than the sockets and the window take.
    let sent = 400u16;
    for number in 0..sent {
        let push = v1::ServicePush {
            push_id: number.to_be_bytes().to_vec().into(),
            target: Some(to_alice()),
            command: 0x1001,
            payload: payload.clone().into(),
            ..v1::ServicePush::default()
        };
        let result = link.push(&push);
        assert_eq!(result.status, 0, "a slow client is no service's problem");
    }
    site.metric_becomes("moorgate_close_reasons_total{reason=\"write_stalled\"}", 1);
    // And not the session's end.
    site.metric_becomes("moorgate_sessions_detached", 1);
    client.resumes();
    let (mut last, mut pushes, mut missed) = (0, 0, 0);
    while pushes + missed < u64::from(sent) {
        let frame = client.wire.frame();
        match frame.member {
            Some(Member::Push(_)) => {
                assert_eq!(frame.down_seq, last + 1);
                pushes += 1;
            }
            Some(Member::Gap(gap)) if gap.count > 0 => {
                assert_eq!(frame.down_seq, last + 1);
                missed += gap.count;
            }
            Some(Member::Gap(gap)) => {
                assert_eq!((gap.first, gap.last), (last + 1, frame.down_seq));
                missed += gap.last - gap.first + 1;
            }
            other => panic!("{other:?}"),
        }
        last = frame.down_seq;
        client.wire.send(&bare(0, last));
    }
    assert!(pushes > 0 && missed > 0, "{pushes} came, {missed} did not, and nothing is unsaid");
    client.leaves(site);
}

// spec: O-15
#[test]
fn clients_that_come_together_do_not_beat_together() {
    let site = Site::start_with("", |settings| {
        settings.reactor.listeners[0].heartbeat = Some(std::time::Duration::from_secs(20));
        settings.shard.heartbeats = vec![settings.reactor.listeners[0].heartbeat];
    });
    let beats: BTreeSet<u32> = (0..20)
        .map(|_| {
            let mut client = site.connect();
            client.send(&hello_frame(&hello()));
            client.welcome().heartbeat_ms
        })
        .collect();
    assert!(beats.len() > 10 && beats.iter().all(|beat| (18_000..=20_000).contains(beat)), "{beats:?}");
    site.end();
}

// spec: O-31
#[test]
fn who_comes_back_is_let_in_before_who_comes_anew() {
    let site = Site::start_with(KEPT, |settings| {
        settings.reactor.shards = 2;
        settings.shard.openings = moorgate::limit::Rate::new(1, std::time::Duration::from_secs(3600), 1);
    });
    let mut client = Client::open(&site);
    let mut shed = 0;
    for _ in 0..10 {
        let mut other = site.connect();
        other.send(&hello_frame(&hello()));
        if let Member::Error(error) = other.member() {
            assert_eq!(error.reason(), Reason::GatewayOverloaded);
            let reconnect = error.reconnect.unwrap();
            assert!(reconnect.allowed && reconnect.after_ms > 1_000);
            shed += 1;
        } else {
            other.send(&frame(0, 0, client::BYE, &v1::Bye { keep_for_ms: 0 }));
        }
    }
    assert!(shed >= 9, "one for each shard, and {shed} of ten are shed");
    for _ in 0..5 {
        client.resumes();
    }
    client.leaves(site);
}

// spec
#[test]
fn a_gateway_that_goes_away_keeps_nobody() {
    let site = Site::start_with(KEPT, |settings| settings.reactor.shards = 2);
    let mut client = Client::open(&site);
    client.wire = RawClient::connect(site.address());
    site.metric_becomes("moorgate_sessions_detached", 1);
    site.gateway().drain();
    drop(client);
    assert!(site.join().is_clean);
}

//! Services with several instances: one dies, one drains, one is saturated, and what clients see of it.

use crate::link::{RawLink, acknowledgement, listener};
use crate::site::{LINK_SECRET, Site, command, settings};
use crate::wire::{RawClient, assert_gateway_says, bare, request};
use moorgate::routing::{Balance, Instance};
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, gateway_frame, to_service::Member};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::thread::JoinHandle;

/// A route whose calls may run twice, and one to the second service.
const TWICE: u32 = 0x0700;
const OTHER: u32 = 0x0800;

const TWICE_ROUTE: &str = "[[route]]\ncommands = \"0x0700\"\nservice = \"echo\"\nanonymous = true\nidempotent = true\n\
     timeout = \"1m\"\n";

/// Clients, calls of each, and how many of these are under way at once.
const CLIENTS: u64 = 12;
const CALLS: u64 = 150;
const AT_ONCE: u64 = 8;
/// The one that dies answers so many calls, and takes so many more to its grave.
const ANSWERED: usize = 150;
const SWALLOWED: usize = 5;

/// What was asked, and a Response that was not OK.
type Failed = (Vec<u8>, v1::Response);

/// A gateway before these instances.
fn site(listeners: &[TcpListener], tables: &str) -> Site {
    let mut settings = settings(listeners[0].local_addr().unwrap(), tables);
    let instances = listeners.iter().map(|listener| Instance::at(listener.local_addr().unwrap()));
    settings.services[0].endpoints = instances.collect();
    settings.services[0].pool.balance = Balance::LeastOutstanding;
    Site::of(settings)
}

/// An instance that answers until the gateway ends; or answers some calls, takes some, and is gone.
fn serve(listener: TcpListener, dies: bool) -> JoinHandle<Vec<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut link = RawLink::open(&listener);
        let (mut answered, mut swallowed) = (0, Vec::new());
        while let Some(member) = link.next() {
            let Member::Call(call) = member else { continue };
            if dies && answered == ANSWERED {
                swallowed.push(call.payload.to_vec());
                if swallowed.len() == SWALLOWED {
                    break;
                }
            } else {
                answered += 1;
                link.reply(call.call_id, &call.payload);
            }
        }
        swallowed
    })
}

/// One client's calls, several at once; the Responses that were not OK, with what was asked.
fn load(mut client: RawClient, command: u32, number: u64) -> Vec<Failed> {
    let payload = |up_seq: u64| [number.to_be_bytes(), up_seq.to_be_bytes()].concat();
    (1..=AT_ONCE).for_each(|up_seq| client.send(&request(up_seq, command, &payload(up_seq))));
    let mut failed = Vec::new();
    for answered in 1..=CALLS {
        let frame = client.frame();
        let Some(gateway_frame::Member::Response(response)) = frame.member else { panic!("{frame:?}") };
        client.send(&bare(0, frame.down_seq));
        let asked = payload(response.up_seq);
        if response.status == Code::Ok.to_wire() {
            assert_eq!(response.payload, asked);
        } else {
            failed.push((asked, response));
        }
        let next = answered + AT_ONCE;
        if next <= CALLS {
            client.send(&request(next, command, &payload(next)));
        }
    }
    failed
}

/// What came of load on three instances, of which one dies.
struct Killed {
    failed: Vec<Failed>,
    /// What the dead one took along.
    swallowed: BTreeSet<Vec<u8>>,
    tried_again: u64,
    lost: u64,
}

fn kill_one(command: u32) -> Killed {
    let listeners: Vec<TcpListener> = (0..3).map(|_| listener()).collect();
    let site = site(&listeners, TWICE_ROUTE);
    let services: Vec<_> =
        listeners.into_iter().enumerate().map(|(at, listener)| serve(listener, at == 1)).collect();
    site.metric_becomes("moorgate_service_links{service=\"echo\"}", 3);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = site.open();
            std::thread::spawn(move || load(client, command, number))
        })
        .collect();
    let failed = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let tried_again = site.metric("moorgate_retries_total{result=\"tried\"}");
    let lost = site.metric("moorgate_calls_lost_total");
    site.end();
    let swallowed: Vec<Vec<u8>> = services.into_iter().flat_map(|service| service.join().unwrap()).collect();
    assert_eq!(swallowed.len(), SWALLOWED, "it died with calls under way");
    Killed { failed, swallowed: swallowed.into_iter().collect(), tried_again, lost }
}

// spec: L-37, L-73
#[test]
fn an_instance_that_dies_costs_no_call_that_may_run_twice() {
    let Killed { failed, swallowed, tried_again, lost } = kill_one(TWICE);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(tried_again >= swallowed.len() as u64, "{tried_again}");
    assert_eq!(lost, 0);
}

// spec: L-37, S-9
#[test]
fn of_calls_that_must_not_run_twice_only_those_that_it_had_are_lost() {
    let Killed { failed, swallowed, lost: counted, .. } = kill_one(command::OPEN);
    for (_, response) in &failed {
        assert_gateway_says(response, Code::Aborted, Reason::EndpointLost, Execution::Unknown);
    }
    let lost: BTreeSet<Vec<u8>> = failed.into_iter().map(|(asked, _)| asked).collect();
    assert!(swallowed.is_subset(&lost), "{swallowed:?} are not all among {lost:?}");
    assert!((lost.len() as u64) < CLIENTS * AT_ONCE, "{}: more than were under way", lost.len());
    assert_eq!(counted, lost.len() as u64);
}

// spec: L-45, L-46
#[test]
fn calls_that_cross_a_drain_are_run_elsewhere() {
    let listeners = [listener(), listener()];
    let site = site(&listeners, "");
    let mut links = listeners.each_ref().map(RawLink::open);
    site.metric_becomes("moorgate_service_links{service=\"echo\"}", 2);
    let mut client = site.open();
    for (up_seq, payload) in [(1, b"1"), (2, b"2")] {
        client.send(&request(up_seq, command::OPEN, payload));
    }
    let calls = links.each_mut().map(RawLink::call);
    let [leaving, staying] = &mut links;
    leaving.send(to_gateway::DRAIN, &v1::LinkDrain::default());
    let refused = v1::Reply {
        call_id: calls[0].call_id,
        status: Code::Unavailable.to_wire(),
        reason: Reason::Draining.into(),
        execution: Execution::NotExecuted.into(),
        ..v1::Reply::default()
    };
    leaving.send(to_gateway::REPLY, &refused);
    let again = staying.call();
    assert_eq!((&again.payload, again.attempt), (&calls[0].payload, 2));
    assert!(leaving.next().is_none(), "nothing is under way on it any more");
    for call in [&again, &calls[1]] {
        staying.reply(call.call_id, &call.payload);
        let response = client.response();
        assert_eq!((response.status, &response.payload), (Code::Ok.to_wire(), &call.payload));
    }
    assert_eq!(site.metric("moorgate_retries_total{result=\"answered\"}"), 1);
    drop(client);
    site.end();
}

// spec: L-77, S-12
#[test]
fn a_saturated_service_leaves_another_alone() {
    let (saturated, free) = (listener(), listener());
    let tables = format!(
        "[[service]]\nname = \"other\"\nendpoints = [\"{}\"]\nkey_env = \"LINK\"\n\
         [[route]]\ncommands = \"0x0800\"\nservice = \"other\"\nanonymous = true\n\
         timeout = \"1m\"\n",
        free.local_addr().unwrap()
    );
    let mut settings = settings(saturated.local_addr().unwrap(), &tables);
    for service in &mut settings.services {
        service.pool.bounds.queue_max = 10;
    }
    let site = Site::of(settings);
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&saturated, |ack| ack.view = Some(view));
    let mut other = RawLink::accept(&free);
    let hello = other.hello();
    assert_eq!(hello.service, "other");
    other.send(to_gateway::HELLO_ACK, &acknowledgement(&hello, LINK_SECRET));
    assert!(matches!(other.member(), Member::Auth(_)));
    site.ready();
    let mut client = site.open();
    for up_seq in 1..=20 {
        client.send(&request(up_seq, command::OPEN, b"x"));
    }
    let never = link.call();
    for up_seq in 12..=20 {
        let response = client.response();
        assert_eq!(response.up_seq, up_seq);
        let overloaded = (Code::ResourceExhausted, Reason::ServiceOverloaded);
        assert_gateway_says(&response, overloaded.0, overloaded.1, Execution::NotExecuted);
    }
    let mut neighbour = site.open();
    for up_seq in 1..=30 {
        neighbour.send(&request(up_seq, OTHER, b"free"));
        let call = other.call();
        other.reply(call.call_id, &call.payload);
        assert_eq!(&neighbour.response().payload[..], b"free");
    }
    assert_eq!(site.metric("moorgate_calls_shed_total{priority=\"normal\"}"), 9);
    // One after the other, those that waited come to their turn.
    let mut call = never;
    for up_seq in 1..=11 {
        link.reply(call.call_id, b"");
        assert_eq!(client.response().up_seq, up_seq);
        if up_seq < 11 {
            call = link.call();
        }
    }
    drop((client, neighbour));
    site.end();
}

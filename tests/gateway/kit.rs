//! The service kit behind a real gateway: bounds, keys, drain.

use crate::link::QUICK_LINKS;
use crate::site::{Site, command, link_key, own_address, settings};
use crate::wire::{request, request_within};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{Execution, Reason};
use moorgate_service::{Handle, Later, LinkKey, Reply, Service};
use std::sync::mpsc::{Receiver, channel};

/// A service that hands its calls to the test.
fn collecting(service: Service) -> (Handle, Receiver<Later>) {
    let (sender, calls) = channel();
    let service = service.handle(0..=u32::MAX, move |_, responder| sender.send(responder.later()).unwrap());
    (service.listen(own_address()).unwrap().spawn().unwrap(), calls)
}

// spec: L-80
#[test]
fn a_drain_of_the_service_answers_what_is_open_and_takes_nothing_new() {
    let (service, calls) = collecting(Service::named("echo").key(link_key()));
    let site = Site::of(settings(service.address(), QUICK_LINKS));
    site.ready();
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    let open = calls.recv_timeout(crate::wire::PATIENCE).unwrap();
    service.drain();
    crate::site::until("the gateway knows", || site.gateway().readiness().is_err());
    let response = client.ask(2, command::OPEN, b"x");
    assert_eq!((response.reason(), response.execution()), (Reason::NoEndpoint, Execution::NotExecuted));
    open.reply(Reply::ok(b"answered"));
    let response = client.response();
    assert_eq!((response.up_seq, &response.payload[..]), (1, &b"answered"[..]));
    assert!(service.join());
    drop(client);
    site.end();
}

#[test]
fn a_service_of_another_name_gets_no_call() {
    let (service, calls) = collecting(Service::named("accounts").key(link_key()));
    let site = Site::of(settings(service.address(), QUICK_LINKS));
    crate::site::until("the link is refused", || site.metric("moorgate_links_failed_total") > 1);
    let mut client = site.open();
    client.send(&request_within(1, command::OPEN, 1));
    assert_eq!(client.response().reason(), Reason::Timeout);
    assert!(calls.try_recv().is_err());
    drop(client);
    site.end();
    service.stop();
    assert!(service.join());
}

#[test]
fn a_service_with_another_key_or_none_gets_no_call() {
    for key in [Some(LinkKey::new(b"some other secret").unwrap()), None] {
        let service = Service::named("echo");
        let (service, calls) = collecting(match key {
            Some(key) => service.key(key),
            None => service,
        });
        let site = Site::of(settings(service.address(), QUICK_LINKS));
        crate::site::until("the proof is refused", || site.metric("moorgate_link_proofs_refused_total") > 1);
        let mut client = site.open();
        client.send(&request_within(1, command::OPEN, 1));
        assert_eq!(client.response().reason(), Reason::Timeout);
        assert!(calls.try_recv().is_err());
        drop(client);
        site.end();
        service.stop();
        assert!(service.join());
    }
}

#[test]
fn a_handler_that_forgets_or_panics_answers_internal() {
    let service = Service::named("echo").key(link_key());
    let service = service.handle(command::OPEN..=command::OPEN, |call, responder| {
        assert!(call.payload().is_empty(), "a planned panic");
        drop(responder);
    });
    let service = service.listen(own_address()).unwrap().spawn().unwrap();
    let site = Site::of(settings(service.address(), ""));
    site.ready();
    let mut client = site.open();
    for (up_seq, payload) in [(1, &b""[..]), (2, &b"panic"[..])] {
        let response = client.ask(up_seq, command::OPEN, payload);
        assert_eq!(
            (Code::from_wire(response.status), response.execution()),
            (Code::Internal, Execution::Unknown)
        );
    }
    let response = client.ask(3, command::OPEN + 1, b"no handler");
    assert_eq!(
        (Code::from_wire(response.status), response.reason(), response.execution()),
        (Code::Unimplemented, Reason::NoRoute, Execution::NotExecuted)
    );
    drop(client);
    site.end();
    service.stop();
    assert!(service.join());
}

#[test]
fn two_gateways_share_a_service() {
    let service = crate::site::echo_service();
    let sites = [(); 2].map(|()| Site::of(settings(service.address(), "")));
    for site in &sites {
        site.ready();
        site.serves();
    }
    sites.into_iter().for_each(Site::end);
    service.stop();
    assert!(service.join());
}

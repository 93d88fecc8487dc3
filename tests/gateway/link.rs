//! A service by hand: it takes the gateway's link, and answers as it likes.

use crate::site::{LINK_SECRET, Site, own_address, settings, until};
use crate::wire::PATIENCE;
use moorgate::config::Settings;
use moorgate::routing::{Grants, Right};
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::proof::{LinkFacts, LinkKey, Prover};
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::{self, Reason, to_service::Member};
use moorgate_proto::view::Body;
use prost::Message;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

/// Redials at once: for tests in which links come and go.
pub(crate) const QUICK_LINKS: &str = "[links]\nreconnect_min = \"10ms\"\nreconnect_max = \"20ms\"\n";

/// One link, seen from the service.
pub(crate) struct RawLink {
    stream: TcpStream,
}

/// Where a service by hand listens.
pub(crate) fn listener() -> TcpListener {
    TcpListener::bind(own_address()).unwrap()
}

/// The proper answer to a LinkHello.
pub(crate) fn acknowledgement(hello: &v1::LinkHello, secret: &str) -> v1::LinkHelloAck {
    let nonce = [9; 32];
    let facts = LinkFacts {
        version: 1,
        gateway_id: &hello.gateway_id,
        boot_id: hello.boot_id,
        service: &hello.service,
        instance_id: "by-hand",
        gateway_nonce: &hello.nonce,
        service_nonce: &nonce,
        purpose: hello.purpose,
    };
    let proof = facts.prove(&LinkKey::new(secret.as_bytes()).unwrap(), Prover::Service);
    v1::LinkHelloAck {
        version: 1,
        service: hello.service.clone(),
        instance_id: "by-hand".to_owned(),
        nonce: nonce.to_vec().into(),
        proof: proof.to_vec().into(),
        ..v1::LinkHelloAck::default()
    }
}

/// A gateway, and the one link to the service that the test plays.
pub(crate) fn site_and_link(tables: &str) -> (Site, RawLink) {
    let listener = listener();
    let site = Site::beside(&listener, tables);
    let link = RawLink::open(&listener);
    site.ready();
    (site, link)
}

/// The same, for a service that may ask for everything.
pub(crate) fn site_and_granted_link(tables: &str) -> (Site, RawLink) {
    let listener = listener();
    let site = granted_site(&listener, tables);
    let link = RawLink::open(&listener);
    site.ready();
    (site, link)
}

/// The same, with two shards.
pub(crate) fn two_shards_and_granted_link(tables: &str) -> (Site, RawLink) {
    let listener = listener();
    let site = granted_site_with(&listener, tables, |settings| settings.reactor.shards = 2);
    let link = RawLink::open(&listener);
    site.ready();
    (site, link)
}

/// A gateway whose service may ask for everything.
pub(crate) fn granted_site(listener: &TcpListener, tables: &str) -> Site {
    granted_site_with(listener, tables, |_| {})
}

/// The same, with the settings changed.
pub(crate) fn granted_site_with(
    listener: &TcpListener,
    tables: &str,
    change: impl FnOnce(&mut Settings),
) -> Site {
    let mut settings = settings(listener.local_addr().unwrap(), tables);
    let all = Right::ALL.iter().fold(Grants::NONE, |grants, (_, right)| grants.with(*right));
    settings.services.iter_mut().for_each(|service| service.grants = all);
    change(&mut settings);
    Site::of(settings)
}

impl RawLink {
    /// Takes the next connection of the gateway.
    pub(crate) fn accept(listener: &TcpListener) -> RawLink {
        listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        until("the gateway dials", || {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        RawLink { stream }
    }

    /// Takes the next connection, and opens it as a good service does.
    pub(crate) fn open(listener: &TcpListener) -> RawLink {
        RawLink::open_with(listener, |_| {})
    }

    /// The same, with the answer to Hello changed first.
    pub(crate) fn open_with(listener: &TcpListener, change: impl FnOnce(&mut v1::LinkHelloAck)) -> RawLink {
        RawLink::answered(listener, change).expect("the gateway has closed the link")
    }

    /// The same as a good service; `None`: the gateway has given this connection up.
    pub(crate) fn try_open(listener: &TcpListener) -> Option<RawLink> {
        RawLink::answered(listener, |_| {})
    }

    fn answered(listener: &TcpListener, change: impl FnOnce(&mut v1::LinkHelloAck)) -> Option<RawLink> {
        let mut link = RawLink::accept(listener);
        let mut ack = acknowledgement(&link.hello(), LINK_SECRET);
        change(&mut ack);
        link.send(to_gateway::HELLO_ACK, &ack);
        match link.next()? {
            Member::Auth(auth) => assert_eq!(auth.proof.len(), 32),
            other => panic!("no Auth: {other:?}"),
        }
        Some(link)
    }

    /// The gateway's first frame.
    pub(crate) fn hello(&mut self) -> v1::LinkHello {
        match self.member() {
            Member::Hello(hello) => hello,
            other => panic!("no Hello: {other:?}"),
        }
    }

    pub(crate) fn send(&mut self, member: u32, body: &impl Body) {
        let mut out = Vec::new();
        put_frame(&mut out, Numbers::NONE, member, body);
        self.send_bytes(&out);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends the end of the stream, and reads on.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next frame; `None`: the gateway has closed. Pings are answered on the way.
    pub(crate) fn next(&mut self) -> Option<Member> {
        loop {
            let mut length = [0; 4];
            match self.stream.read_exact(&mut length) {
                Ok(()) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
                {
                    return None;
                }
                Err(error) => panic!("nothing from the gateway: {error}"),
            }
            let mut content = vec![0; u32::from_be_bytes(length) as usize];
            self.stream.read_exact(&mut content).unwrap();
            match v1::ToService::decode(&content[..]).unwrap().member.expect("a frame without a member") {
                Member::Ping(ping) => {
                    self.send(to_gateway::PONG, &v1::LinkPong { nonce: ping.nonce, view: None });
                }
                member => return Some(member),
            }
        }
    }

    /// The gateway must end the link next; the reason, if it gives one.
    pub(crate) fn ends(&mut self) -> Option<Reason> {
        let reason = match self.next()? {
            Member::Error(error) => error.reason(),
            other => panic!("not the end: {other:?}"),
        };
        assert!(self.next().is_none(), "an Error is the last frame");
        Some(reason)
    }

    pub(crate) fn member(&mut self) -> Member {
        self.next().expect("the gateway has closed the link")
    }

    /// The next frame, notices aside, must be a Call.
    pub(crate) fn call(&mut self) -> v1::Call {
        loop {
            match self.member() {
                Member::Call(call) => return call,
                Member::Notice(_) => {}
                other => panic!("no Call: {other:?}"),
            }
        }
    }

    /// The next frame must be a CancelCall.
    pub(crate) fn cancel(&mut self) -> v1::CancelCall {
        match self.member() {
            Member::Cancel(cancel) => cancel,
            other => panic!("no CancelCall: {other:?}"),
        }
    }

    /// The next frame, notices aside, must be a PushResult.
    pub(crate) fn push_result(&mut self) -> v1::PushResult {
        loop {
            match self.member() {
                Member::PushResult(result) => return result,
                Member::Notice(_) => {}
                other => panic!("no PushResult: {other:?}"),
            }
        }
    }

    /// The next frame must be a LinkNotice.
    pub(crate) fn notice(&mut self) -> v1::LinkNotice {
        match self.member() {
            Member::Notice(notice) => notice,
            other => panic!("no LinkNotice: {other:?}"),
        }
    }

    /// The next frame must be a PushReceipt.
    pub(crate) fn push_receipt(&mut self) -> v1::PushReceipt {
        match self.member() {
            Member::PushReceipt(receipt) => receipt,
            other => panic!("no PushReceipt: {other:?}"),
        }
    }

    /// The next frame must be a SessionCheck.
    pub(crate) fn session_check(&mut self) -> v1::SessionCheck {
        match self.member() {
            Member::SessionCheck(check) => check,
            other => panic!("no SessionCheck: {other:?}"),
        }
    }

    /// Answers a call with OK, and asks for this.
    pub(crate) fn direct(&mut self, call_id: u64, actions: impl IntoIterator<Item = Action>) {
        let directives = actions.into_iter().map(|action| v1::Directive { action: Some(action) }).collect();
        self.send(to_gateway::REPLY, &v1::Reply { call_id, directives, ..v1::Reply::default() });
    }

    /// Pushes, and takes the result.
    pub(crate) fn push(&mut self, push: &v1::ServicePush) -> v1::PushResult {
        self.send(to_gateway::PUSH, push);
        let result = self.push_result();
        assert_eq!(result.push_id, push.push_id);
        result
    }

    /// Answers a call with OK.
    pub(crate) fn reply(&mut self, call_id: u64, payload: &[u8]) {
        let payload = payload.to_vec().into();
        self.send(to_gateway::REPLY, &v1::Reply { call_id, payload, ..v1::Reply::default() });
    }

    /// A ping must be answered next: the gateway had nothing else to say, and the link lives.
    pub(crate) fn nothing_else(&mut self) {
        self.send(to_gateway::PING, &v1::LinkPing { nonce: 77, view: None });
        match self.member() {
            Member::Pong(pong) => assert_eq!(pong.nonce, 77),
            other => panic!("something came: {other:?}"),
        }
    }
}

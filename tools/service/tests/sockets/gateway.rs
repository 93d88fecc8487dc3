//! A gateway's end of one link, by hand.

use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::{Numbers, member::to_service};
use moorgate_proto::proof::{LinkFacts, LinkKey, Prover};
use moorgate_proto::v1::link_notice::Kind;
use moorgate_proto::v1::{self, ToGateway, push_result::Target, to_gateway::Member};
use moorgate_proto::view::{Body, CallView};
use prost::Message;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Far longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Gateway {
    pub(crate) stream: TcpStream,
    assembler: Assembler,
    /// Frames that came, without their lengths.
    said: VecDeque<Vec<u8>>,
    /// How often the service has asked for presence, which nobody awaits in the order of other frames.
    pub(crate) subscriptions: usize,
}

/// One frame.
pub(crate) fn frame(member: u32, body: &impl Body) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, Numbers::NONE, member, body);
    out
}

pub(crate) fn call(call_id: u64, command: u32, payload: &[u8]) -> Vec<u8> {
    frame(to_service::CALL, &CallView { call_id, command, version: 1, payload, ..CallView::default() })
}

/// A call of a user.
pub(crate) fn call_of(user_id: &str, call: v1::Call) -> Vec<u8> {
    let caller = v1::Caller { user_id: user_id.to_owned(), ..v1::Caller::default() };
    frame(to_service::CALL, &v1::Call { version: 1, caller: Some(caller), ..call })
}

pub(crate) fn cancel(call_id: u64) -> Vec<u8> {
    frame(to_service::CANCEL, &v1::CancelCall { call_id })
}

pub(crate) fn hello(service: &str) -> Vec<u8> {
    frame(to_service::HELLO, &hello_of("by hand", 0, service))
}

/// The LinkHello of a gateway that grants so many unanswered pushes.
pub(crate) fn hello_of(gateway_id: &str, pushes_max: u32, service: &str) -> v1::LinkHello {
    v1::LinkHello {
        version_min: 1,
        version_max: 1,
        gateway_id: gateway_id.to_owned(),
        service: service.to_owned(),
        nonce: vec![7; 32].into(),
        pushes_max,
        ..v1::LinkHello::default()
    }
}

pub(crate) fn auth() -> Vec<u8> {
    frame(to_service::AUTH, &v1::LinkAuth::default())
}

impl Gateway {
    /// A connection on which nothing was said.
    pub(crate) fn connect(address: SocketAddr) -> Gateway {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Gateway { stream, assembler: Assembler::default(), said: VecDeque::new(), subscriptions: 0 }
    }

    /// A link that is ready.
    pub(crate) fn ready(address: SocketAddr, service: &str) -> Gateway {
        let mut gateway = Gateway::greeted(address, service);
        gateway.send(&auth());
        gateway
    }

    /// A link of a gateway that grants so many unanswered pushes. The service has taken in that it is ready.
    pub(crate) fn of(gateway_id: &str, pushes_max: u32, address: SocketAddr, service: &str) -> Gateway {
        let mut gateway = Gateway::connect(address);
        gateway.send(&frame(to_service::HELLO, &hello_of(gateway_id, pushes_max, service)));
        assert!(matches!(gateway.next(), Some(Member::HelloAck(_))));
        gateway.send(&auth());
        gateway.round_trip();
        gateway
    }

    /// The same with proofs.
    pub(crate) fn proven(gateway_id: &str, address: SocketAddr, service: &str, key: &LinkKey) -> Gateway {
        let mut gateway = Gateway::connect(address);
        let hello = hello_of(gateway_id, 10, service);
        gateway.send(&frame(to_service::HELLO, &hello));
        let Some(Member::HelloAck(ack)) = gateway.next() else { panic!("no LinkHelloAck") };
        let facts = LinkFacts {
            version: ack.version,
            gateway_id,
            boot_id: hello.boot_id,
            service,
            instance_id: &ack.instance_id,
            gateway_nonce: &hello.nonce,
            service_nonce: &ack.nonce,
            purpose: hello.purpose,
        };
        assert!(facts.verify(key, Prover::Service, &ack.proof));
        let proof = facts.prove(key, Prover::Gateway).to_vec().into();
        gateway.send(&frame(to_service::AUTH, &v1::LinkAuth { proof }));
        gateway.round_trip();
        gateway
    }

    /// A link that is half open.
    pub(crate) fn greeted(address: SocketAddr, service: &str) -> Gateway {
        let mut gateway = Gateway::connect(address);
        gateway.send(&hello(service));
        assert!(matches!(gateway.next(), Some(Member::HelloAck(_))));
        gateway
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// What the service says next; `None`: the end of its stream.
    pub(crate) fn next(&mut self) -> Option<Member> {
        loop {
            let frame = self.next_frame()?;
            match ToGateway::decode(&frame[..]).unwrap().member.unwrap() {
                Member::PresenceSubscribe(_) => self.subscriptions += 1,
                // This gateway opens no bulk links, as it may.
                Member::Notice(notice) if notice.kind() == Kind::BulkWanted => {}
                member => return Some(member),
            }
        }
    }

    /// The next frame, without its length.
    pub(crate) fn next_frame(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 64 * 1024];
        while self.said.is_empty() {
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => count,
                // A read with a timeout is not taken up again after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("{error}"),
            };
            let mut bytes = &buffer[..count];
            while let Some(frame) = self.assembler.next(&mut bytes, usize::MAX).unwrap() {
                self.said.push_back(frame.to_vec());
            }
        }
        self.said.pop_front()
    }

    pub(crate) fn reply(&mut self) -> v1::Reply {
        match self.next() {
            Some(Member::Reply(reply)) => reply,
            other => panic!("no reply but {other:?}"),
        }
    }

    pub(crate) fn push(&mut self) -> v1::ServicePush {
        match self.next() {
            Some(Member::Push(push)) => push,
            other => panic!("no push but {other:?}"),
        }
    }

    /// Answers a push.
    pub(crate) fn result(&mut self, push: &v1::ServicePush, targets: &[Target]) {
        let targets = targets.iter().map(|&target| target.into()).collect();
        let result = v1::PushResult { push_id: push.push_id.clone(), targets, ..v1::PushResult::default() };
        self.send(&frame(to_service::PUSH_RESULT, &result));
    }

    /// Returns once the service has taken in everything that was sent before, on any link.
    pub(crate) fn round_trip(&mut self) {
        self.send(&frame(to_service::PING, &v1::LinkPing { nonce: 1, view: None }));
        assert!(matches!(self.next(), Some(Member::Pong(_))), "nothing else was to come");
    }
}

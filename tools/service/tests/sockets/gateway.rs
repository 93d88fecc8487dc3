//! A gateway's end of one link, by hand.

use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::{Numbers, member::to_service};
use moorgate_proto::v1::{self, ToGateway, to_gateway::Member};
use moorgate_proto::view::{Body, CallView};
use prost::Message;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Far longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Gateway {
    pub(crate) stream: TcpStream,
    assembler: Assembler,
    said: VecDeque<Member>,
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

pub(crate) fn hello(service: &str) -> Vec<u8> {
    let hello = v1::LinkHello {
        version_min: 1,
        version_max: 1,
        gateway_id: "by hand".to_owned(),
        service: service.to_owned(),
        nonce: vec![7; 32].into(),
        ..v1::LinkHello::default()
    };
    frame(to_service::HELLO, &hello)
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
        Gateway { stream, assembler: Assembler::default(), said: VecDeque::new() }
    }

    /// A link that is ready.
    pub(crate) fn ready(address: SocketAddr, service: &str) -> Gateway {
        let mut gateway = Gateway::greeted(address, service);
        gateway.send(&auth());
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
        let mut buffer = vec![0; 64 * 1024];
        while self.said.is_empty() {
            let count = self.stream.read(&mut buffer).unwrap();
            if count == 0 {
                return None;
            }
            let mut bytes = &buffer[..count];
            while let Some(frame) = self.assembler.next(&mut bytes, usize::MAX).unwrap() {
                self.said.push_back(ToGateway::decode(frame).unwrap().member.unwrap());
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

    /// Returns once the service has taken in everything that was sent before, on any link.
    pub(crate) fn round_trip(&mut self) {
        self.send(&frame(to_service::PING, &v1::LinkPing { nonce: 1, view: None }));
        assert!(matches!(self.next(), Some(Member::Pong(_))), "nothing else was to come");
    }
}

//! A worker's calls.

use crate::shard::routes;
use crate::{PAYLOAD, now};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use moorgate::base::ids::{RouteId, SessionId, SessionKey, ShardId, Ticket};
use moorgate::forward::{Forwarder, LinkCommand, Parts};
use moorgate::relay::{DeliveryBatch, Forward, ForwardBatch};
use moorgate::routing::ServiceSettings;
use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::member::{to_gateway, to_service};
use moorgate_proto::envelope::{Envelope, Numbers};
use moorgate_proto::v1;
use moorgate_proto::view::{CallView, ReplyView};
use std::net::SocketAddr;
use std::time::Duration;

/// Endpoints, and calls within a turn.
const LOADS: [(usize, usize); 5] = [(1, 1), (1, 32), (10, 32), (1000, 32), (1, 256)];

/// A worker with its service.
pub(crate) struct Mill {
    forwarder: Forwarder,
    replies: Vec<u8>,
}

fn service(endpoints: usize) -> ServiceSettings {
    let address = |at: usize| SocketAddr::from(([192, 0, 2, 1], u16::try_from(7000 + at).unwrap()));
    ServiceSettings::new("chat", (0..endpoints).map(address))
}

impl Mill {
    pub(crate) fn new(endpoints: usize) -> Mill {
        let mut forwarder = Forwarder::new(Parts::alone(vec![service(endpoints)], routes()));
        let ack = v1::LinkHelloAck { version: 1, service: "chat".to_owned(), ..v1::LinkHelloAck::default() };
        let mut frame = Vec::new();
        put_frame(&mut frame, Numbers::NONE, to_gateway::HELLO_ACK, &ack);
        forwarder.start(now().mono);
        while let Some(LinkCommand::Dial(link, _)) = forwarder.next_command() {
            forwarder.connected(now().mono, link, [7; 32]);
            forwarder.received(now(), link, &frame);
        }
        let mut mill = Mill { forwarder, replies: Vec::new() };
        mill.serve();
        mill
    }

    /// The service answers every call that was written.
    fn serve(&mut self) {
        while let Some(link) = self.forwarder.next_flush() {
            let mut unsent = black_box(self.forwarder.unsent(link));
            let written = unsent.len();
            self.replies.clear();
            let mut assembler = Assembler::default();
            while let Some(frame) = assembler.next(&mut unsent, 1 << 20).unwrap() {
                if let Some((to_service::CALL, call)) = Envelope::decode(frame).unwrap().member {
                    let call_id = CallView::decode(call).unwrap().call_id;
                    let reply = ReplyView { call_id, payload: &PAYLOAD, ..ReplyView::default() };
                    put_frame(&mut self.replies, Numbers::NONE, to_gateway::REPLY, &reply);
                }
            }
            self.forwarder.sent(now().mono, link, written);
            self.forwarder.received(now(), link, &self.replies);
        }
    }

    /// One turn: calls out, replies in.
    pub(crate) fn turn(&mut self, batch: &ForwardBatch) -> DeliveryBatch {
        self.forwarder.forward(now().mono, batch);
        self.serve();
        self.forwarder.deliveries(ShardId(0)).unwrap()
    }
}

fn batch(calls: usize) -> ForwardBatch {
    let mut batch = ForwardBatch::default();
    let call =
        CallView { command: 2, version: 1, caller: &[0x0a; 100], payload: &PAYLOAD, ..CallView::default() };
    for at in 0..u32::try_from(calls).unwrap() {
        batch.forwards.push(Forward {
            ticket: Ticket::new(at, 0),
            session: SessionKey::new(at, 0),
            session_id: SessionId::default(),
            route: RouteId(0),
            caller: 0,
            deadline: now().mono + Duration::from_secs(5),
            call: batch.arena.encode(&call),
        });
    }
    batch
}

/// An endpoint chosen, the call written; its reply read, matched and settled. The service's part is within.
#[divan::bench(args = LOADS)]
fn call(bencher: Bencher<'_, '_>, (endpoints, turn): (usize, usize)) {
    let mut mill = Mill::new(endpoints);
    let batch = batch(turn);
    bencher.counter(ItemsCount::new(turn)).bench_local(|| {
        let settled = mill.turn(black_box(&batch));
        assert_eq!(settled.deliveries.len(), turn);
    });
}

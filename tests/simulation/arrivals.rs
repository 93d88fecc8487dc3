//! What the network delivers, and to whom.

use crate::network::{Arrived, ConnId, NetEvent, Side};
use crate::world::{Event, Owner, World};
use std::time::Duration;

impl World {
    pub fn network(&mut self, event: NetEvent) {
        let (conn, side) = match event {
            NetEvent::Arrive(conn, side) | NetEvent::Writable(conn, side) | NetEvent::Broken(conn, side) => {
                (conn, side)
            }
        };
        let owner = self.owners[conn][side as usize];
        self.trace.note(self.now, "net", (conn as u64, side as u64), || format!("{event:?} for {owner:?}"));
        match event {
            NetEvent::Arrive(..) => self.arrive(conn, side, owner),
            NetEvent::Writable(..) => match owner {
                Owner::Client(client) => self.client_writable(client, conn),
                Owner::Shard(shard, key) => {
                    self.shards[shard].shard.writable(key);
                    self.schedule(Duration::ZERO, Event::ShardTurn(shard));
                }
                Owner::Link(key) => {
                    self.worker.forwarder.writable(key);
                    self.schedule(Duration::ZERO, Event::WorkerTurn);
                }
                Owner::Service(endpoint, link) => self.service_writable(endpoint, link),
                Owner::Raw(_) | Owner::Nobody | Owner::Backlog => {}
            },
            NetEvent::Broken(..) => self.ended(owner, true),
        }
    }

    fn arrive(&mut self, conn: ConnId, side: Side, owner: Owner) {
        let deaf = self.deaf[conn][side as usize];
        if deaf > self.now || matches!(owner, Owner::Backlog) {
            let delay = deaf.since(self.now).max(Duration::from_millis(2));
            if !self.net.is_over(conn) {
                self.schedule(delay, Event::Net(NetEvent::Arrive(conn, side)));
            }
            return;
        }
        let most = if self.dice.chance(30) { self.dice.between(1, 30) as usize } else { 64 * 1024 };
        match self.net.read(conn, side, most) {
            Arrived::Nothing => {}
            Arrived::End => self.ended(owner, false),
            Arrived::Bytes(bytes) => {
                self.trace.note(self.now, "bytes", (conn as u64, bytes.len() as u64), || {
                    format!("{} bytes for {owner:?}", bytes.len())
                });
                self.received(conn, owner, &bytes);
            }
        }
    }

    pub fn received(&mut self, conn: ConnId, owner: Owner, bytes: &[u8]) {
        let now = self.clock();
        if matches!(owner, Owner::Shard(..) | Owner::Link(_)) {
            self.note_read(conn, bytes);
        }
        match owner {
            Owner::Client(client) => self.client_received(client, bytes),
            Owner::Shard(shard, key) => {
                let is_clear = self.shards[shard].shard.unsent(key).is_empty();
                self.tap_up(conn, bytes, is_clear);
                self.shards[shard].shard.received(now, key, bytes);
                self.wake_shard(shard);
                self.hello_was_read(conn);
            }
            Owner::Link(key) => {
                self.worker.forwarder.received(now, key, bytes);
                self.wake_worker();
            }
            Owner::Service(endpoint, link) => self.service_received(endpoint, link, bytes),
            Owner::Raw(raw) => self.raw_received(raw, bytes),
            Owner::Nobody | Owner::Backlog => {}
        }
    }

    /// The other side's end has come, or the connection is dead.
    pub fn ended(&mut self, owner: Owner, is_dead: bool) {
        let now = self.clock();
        match owner {
            Owner::Client(client) => self.client_lost(client),
            Owner::Shard(shard, key) => {
                self.shards[shard].shard.peer_closed(now, key);
                self.wake_shard(shard);
            }
            Owner::Link(key) => {
                match is_dead {
                    true => self.worker.forwarder.link_lost(now.mono, key, &"reset"),
                    false => self.worker.forwarder.link_over(now.mono, key),
                }
                self.wake_worker();
            }
            Owner::Service(endpoint, link) if is_dead => self.service_lost(endpoint, link),
            Owner::Service(endpoint, link) => self.service_over(endpoint, link),
            Owner::Raw(raw) => self.raw_lost(raw),
            Owner::Nobody | Owner::Backlog => {}
        }
    }
}

//! The calm, the end, and what is left then.

use crate::network::{NetEvent, Side};
use crate::reached::Path;
use crate::world::{Event, Owner, Phase, World};
use moorgate_proto::time::Mono;
use std::time::Duration;

impl World {
    pub fn calm(&mut self) {
        self.continue_all();
        self.phase = Phase::Calm;
        self.trace.note(self.now, "calm", (0, 0), || "calm".to_owned());
        // The clock never goes back any more, or tokens would be older than what revoked them.
        self.ahead_ms = self.ahead_max_ms + 2_000;
        self.endpoints_are_well();
        for (endpoint, link, call_id, script) in std::mem::take(&mut self.forgotten) {
            self.reply(endpoint, link, call_id, script);
        }
        for raw in 0..self.raws.len() {
            self.raw_leaves(raw);
        }
        for conn in 0..self.net.len() {
            if let Owner::Nobody = self.owners[conn][Side::Dialler as usize] {
                // What its client had given up does not come any more.
                self.net.cut(conn);
            }
            self.deaf[conn] = [Mono::ZERO; 2];
            for side in [Side::Dialler, Side::Accepter] {
                self.schedule(Duration::ZERO, Event::Net(NetEvent::Arrive(conn, side)));
            }
        }
    }

    /// After a long calm everybody is here, and has heard all there is to hear.
    fn all_is_well(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].gave_way && !self.clients[at].is_here() {
                self.client_gives_up(at);
            }
        }
        self.oracle.all_heard();
        if let Some(problem) = self.pushes.complete() {
            self.oracle.violated(problem);
        }
        self.presence_is_true();
        for at in 0..self.clients.len() {
            let is_excused = self.clients[at].gave_way && self.is_represented(at);
            if let Some(problem) = self.clients[at].problem().filter(|_| !is_excused) {
                self.oracle.violated(format!("client {at}: {problem}"));
            }
        }
    }

    /// Everybody leaves, each in its own way; then nothing of them is left.
    pub fn leave(&mut self) {
        self.all_is_well();
        self.phase = Phase::Draining;
        self.reach(Path::AllLeft);
        self.trace.note(self.now, "leave", (0, 0), || "everybody leaves".to_owned());
        for client in 0..self.clients.len() {
            self.client_leaves(client);
        }
    }

    pub fn drain(&mut self) {
        self.all_is_well();
        self.phase = Phase::Draining;
        self.trace.note(self.now, "drain", (0, 0), || "drain".to_owned());
        let now = self.clock();
        for shard in 0..self.shards.len() {
            self.shards[shard].shard.drain(now, Duration::from_secs(3));
            self.wake_shard(shard);
        }
    }

    /// What is left at the end.
    pub fn judge(&mut self) {
        self.oracle.all_heard();
        self.oracle.executions_were_true();
        if self.scenario.leave {
            self.nobody_is_online();
        }
        for at in 0..self.shards.len() {
            if let Some(left) = self.shards[at].left() {
                self.oracle.violated(format!("shard {at} is left with {left}"));
            }
        }
        if self.worker.forwarder.calls() > 0 {
            self.oracle.violated(format!("the worker is left with {} calls", self.worker.forwarder.calls()));
        }
        let checks = self.worker.forwarder.checks();
        let directory = &self.scenario.directory;
        let reserved: usize = directory.shards().map(|shard| directory.reserved(shard)).sum();
        let left = [
            (directory.users(), "users in the directory"),
            (directory.groups(), "groups in the directory"),
            (reserved, "deliveries for which room is taken"),
            (self.scenario.pushes.value(), "bytes of pushes"),
            (checks, "questions about sessions"),
        ];
        if let Some((count, what)) = left.iter().find(|(count, _)| *count > 0) {
            self.oracle.violated(format!("at the end there are {count} {what}"));
        }
        if let Some(left) = self.left_of_limits() {
            self.oracle.violated(left);
        }
        self.worker.forwarder.stop(self.clock().mono);
        self.worker_turn();
        if self.worker.forwarder.links() > 0 || !self.worker.sockets.is_empty() {
            self.oracle.violated("the worker is left with links".to_owned());
        }
        let (totals, accepted) = (self.totals_now(), self.accepted);
        if let Some(problem) = crate::gateway::unbalanced(&totals, accepted) {
            self.oracle.violated(problem);
        }
    }
}

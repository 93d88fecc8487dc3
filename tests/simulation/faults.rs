//! What goes wrong.

use crate::gateway::{ShardHost, WorkerHost};
use crate::network::{ConnId, NetEvent, Side};
use crate::pauses::Process;
use crate::plant::Plant;
use crate::reached::Path;
use crate::world::{Event, Owner, Phase, World};
use std::time::Duration;

impl World {
    fn living(&mut self) -> Option<ConnId> {
        let living: Vec<ConnId> = (0..self.net.len()).filter(|conn| !self.net.is_over(*conn)).collect();
        (!living.is_empty()).then(|| living[self.dice.index(living.len())])
    }

    pub fn fault(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let again = self.dice.millis(100, 1500);
        self.schedule(again, Event::Fault);
        let Some(conn) = self.living() else { return };
        let side = if self.dice.chance(50) { Side::Dialler } else { Side::Accepter };
        let kind = self.dice.below(12);
        self.trace
            .note(self.now, "fault", (conn as u64, kind), || format!("fault {kind} on connection {conn}"));
        match kind {
            0..=2 => self.net.cut(conn),
            3 | 4 => {
                self.net.silence(conn);
                let delay = self.dice.millis(5_000, 20_000);
                self.schedule(delay, Event::Cut(conn));
            }
            5 | 6 => {
                let until = self.now + self.dice.millis(500, 12_000);
                self.deaf[conn][side as usize] = until;
                self.was_deaf[conn] = true;
                self.schedule(until.since(self.now), Event::Net(NetEvent::Arrive(conn, side)));
            }
            7 => {
                let endpoint = self.dice.index(self.endpoints.len());
                self.endpoint_down(endpoint);
                let delay = self.dice.millis(100, 4_000);
                self.schedule(delay, Event::EndpointUp(endpoint));
            }
            8 => {
                let endpoint = self.dice.index(self.endpoints.len());
                self.endpoint_drains(endpoint);
            }
            9 | 10 => {
                let endpoint = self.dice.index(self.endpoints.len());
                self.endpoint_speaks_of_itself(endpoint);
            }
            _ => {
                let endpoint = self.dice.index(self.endpoints.len());
                self.endpoint_talks_garbage(endpoint);
            }
        }
    }

    pub fn stranger(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let again = self.dice.millis(1_000, 6_000);
        self.schedule(again, Event::Stranger);
        let shard = self.dice.index(self.shards.len());
        let conn = self.connect(Owner::Nobody, Owner::Backlog);
        let words: &[u8] = match self.dice.below(6) {
            0 => b"",
            1 => &[0, 0],
            2 => &[0, 0, 0, 0],
            3 => b"GET / HTTP/1.1\r\n\r\n",
            4 => &[0, 0, 0, 40, 0x42, 2],
            _ => &[0, 0, 0, 2, 0x4a, 0],
        };
        self.net.write(conn, Side::Dialler, words, usize::MAX);
        let (accept, leave) = (self.dice.millis(0, 20), self.dice.millis(3_000, 15_000));
        self.schedule(accept, Event::Accept(conn, shard));
        self.schedule(leave, Event::Cut(conn));
    }

    /// A Hello has just been read: its connection may die now, and its Welcome with it.
    pub fn hello_was_read(&mut self, conn: ConnId) {
        if self.plant == Some(Plant::LockedOut) && std::mem::take(&mut self.taps[conn].is_resume) {
            self.net.silence(conn);
            self.schedule(Duration::from_secs(8), Event::Cut(conn));
        }
        if self.phase != Phase::Faults || !std::mem::take(&mut self.taps[conn].hello_is_new) {
            return;
        }
        match self.dice.below(30) {
            0 | 1 => {
                self.reach(Path::WelcomeCut);
                self.net.cut(conn);
            }
            2 => {
                self.reach(Path::WelcomeSwallowed);
                self.net.silence(conn);
                let delay = self.dice.millis(2_000, 12_000);
                self.schedule(delay, Event::Cut(conn));
            }
            _ => {}
        }
    }

    /// What the client is about to send is held up; whether it is.
    pub fn delay_hello(&mut self, conn: ConnId) -> bool {
        if self.phase != Phase::Faults || !self.dice.chance(12) {
            return false;
        }
        self.reach(Path::HelloDelayed);
        self.deaf[conn][Side::Accepter as usize] = self.now + self.dice.millis(100, 9_000);
        true
    }

    /// The gateway's clock jumps; what counts time by itself does not.
    pub fn jump(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let again = self.dice.millis(1_000, 12_000);
        self.schedule(again, Event::Jump);
        self.ahead_ms = match self.dice.below(4) {
            0 => 0,
            1 => self.dice.below(5_000),
            2 => self.dice.below(3_600_000),
            _ => self.dice.below(100 * 24 * 3_600_000),
        };
        self.ahead_max_ms = self.ahead_max_ms.max(self.ahead_ms);
        self.reach(Path::Jumped);
        let ahead = self.ahead_ms;
        self.trace.note(self.now, "jump", (ahead, 0), || format!("the clock is {ahead} ms ahead"));
    }

    /// The gateway dies, and comes back without anything.
    pub fn restart(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        if self.pauses.is_stopped(Process::Gateway) {
            self.continues(Process::Gateway);
        }
        self.reach(Path::Restarted);
        self.boot += 1;
        let boot = self.boot;
        self.trace.note(self.now, "restart", (u64::from(boot), 0), || format!("start {boot} of the gateway"));
        for conn in 0..self.net.len() {
            for side in [Side::Dialler, Side::Accepter] {
                if let Owner::Shard(..) | Owner::Link(_) | Owner::Backlog = self.owners[conn][side as usize] {
                    self.owners[conn][side as usize] = Owner::Nobody;
                    self.net.cut(conn);
                }
            }
        }
        self.past.extend(self.shards.iter().map(|host| host.cells.clone()));
        self.past.push(self.worker.cells.clone());
        self.accepted = 0;
        self.sessions.restarted();
        self.scenario.start_again(&mut self.dice, self.plant);
        self.shards =
            (0..self.scenario.shards).map(|id| ShardHost::new(id, &self.scenario, &mut self.dice)).collect();
        self.worker = WorkerHost::new(&self.scenario, &mut self.dice);
        self.worker.forwarder.start(self.clock().mono);
        self.schedule(Duration::ZERO, Event::WorkerTurn);
    }
}

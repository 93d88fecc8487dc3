//! Clients that speak by hand: thieves with tokens that others got, and Hellos that come twice.

use crate::lives::{Loot, THIEF};
use crate::network::{ConnId, Side};
use crate::oracle::Asked;
use crate::reached::Path;
use crate::world::{Event, Owner, Phase, World};
use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::member::{client, gateway};
use moorgate_proto::envelope::{Envelope, Numbers};
use moorgate_proto::limits::FRAME_BYTES_CEILING;
use moorgate_proto::v1::{self, ResumeResult};
use moorgate_proto::view::RequestView;
use prost::Message;

pub struct RawHost {
    conn: Option<ConnId>,
    assembler: Assembler,
    /// What its session had admitted, if it is somebody else's.
    stolen: Option<u64>,
}

/// What a thief has changed of what it copied.
#[derive(Debug, Clone, Copy)]
pub enum Trick {
    /// An older token.
    Older,
    /// The newest token.
    Newest,
    /// A token of which a bit is wrong.
    Forged,
    /// Another device.
    Device,
    /// Another application.
    Application,
    /// Bytes of its own.
    Invented,
    /// Another user's access token.
    Identity,
    /// A token of an earlier start of the gateway.
    Earlier,
}

impl World {
    /// Somebody comes who speaks by hand.
    pub fn raw(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let again = self.dice.millis(300, 3_000);
        self.schedule(again, Event::Raw);
        let frame = if self.dice.chance(20) { self.twin() } else { self.thief() };
        let Some(frame) = frame else { return };
        let shard = self.dice.index(self.shards.len());
        let raw = self.raws.len();
        let conn = self.connect(Owner::Raw(raw), Owner::Backlog);
        self.raws.push(RawHost { conn: Some(conn), assembler: Assembler::default(), stolen: None });
        self.taps[conn].claimed = self.claimed.take();
        self.net.write(conn, Side::Dialler, &frame, usize::MAX);
        let (accept, leave) = (self.dice.millis(0, 20), self.dice.millis(500, 6_000));
        self.schedule(accept, Event::Accept(conn, shard));
        self.schedule(leave, Event::Cut(conn));
    }

    /// A client's last Hello comes once more.
    fn twin(&mut self) -> Option<Vec<u8>> {
        let at = self.dice.index(self.clients.len());
        let hello = self.clients[at].last_hello.clone();
        if hello.is_empty() {
            return None;
        }
        self.reach(Path::HelloTwice);
        self.trace.note(self.now, "twin", (at as u64, 0), || format!("the Hello of client {at} comes again"));
        Some(hello)
    }

    fn thief(&mut self) -> Option<Vec<u8>> {
        let rank = self.dice.below(4);
        let mut loot = self.sessions.loot(rank, false);
        let newest = loot.pop()?;
        let trick = match self.dice.below(10) {
            _ if let Some(trick) = self.thief_wanted() => trick,
            0..=2 => Trick::Older,
            3 | 4 if self.scenario.thieves => Trick::Newest,
            5 => Trick::Forged,
            6 => Trick::Device,
            7 => Trick::Application,
            8 => Trick::Identity,
            9 => Trick::Earlier,
            _ => Trick::Invented,
        };
        let mut taken = match trick {
            // In a gentle run the newest but one may still be good, and is left alone.
            Trick::Older if !self.scenario.thieves => loot.drain(..).rev().nth(1)?,
            Trick::Older if loot.is_empty() => return None,
            Trick::Older => loot.swap_remove(self.dice.index(loot.len())),
            Trick::Earlier => self.sessions.loot(rank, true).pop()?,
            _ => newest.clone(),
        };
        self.alter(trick, &mut taken);
        let hello = self.hello_of(trick, &taken);
        self.trace.note(self.now, "thief", (trick as u64, u64::from(hello.version_max)), || {
            format!("a thief: {trick:?}, {hello:?}")
        });
        let mut frame = Vec::new();
        put_frame(&mut frame, Numbers::NONE, client::HELLO, &hello);
        if self.thief_wanted().is_some() {
            // The gateway gets what would be good.
            let good = self.hello_of(Trick::Newest, &newest);
            let mut swapped = Vec::new();
            put_frame(&mut swapped, Numbers::NONE, client::HELLO, &good);
            self.claimed = Some(std::mem::replace(&mut frame, swapped));
        }
        Some(frame)
    }

    fn alter(&mut self, trick: Trick, taken: &mut Loot) {
        match trick {
            Trick::Forged => {
                let at = self.dice.index(taken.token.len());
                taken.token[at] ^= 1 << self.dice.below(8);
            }
            Trick::Device => taken.device.push('x'),
            Trick::Application => taken.application.push('x'),
            Trick::Invented => {
                let len = self.dice.below(120);
                taken.token = (0..len).map(|_| self.dice.below(256) as u8).collect();
            }
            Trick::Older | Trick::Newest | Trick::Identity | Trick::Earlier => {}
        }
    }

    fn hello_of(&mut self, trick: Trick, taken: &Loot) -> v1::Hello {
        let attempt = match self.dice.below(10) {
            0 if self.dice.chance(30) => 0,
            0 => self.dice.below(taken.attempt.max(1)),
            1 if self.scenario.thieves => u64::MAX,
            _ => taken.attempt.saturating_add(self.dice.between(1, 3)),
        };
        let down_seq = match self.dice.below(5) {
            0 => taken.down_seq,
            1 => taken.down_seq + self.dice.below(10),
            _ => self.dice.below(taken.down_seq + 1),
        };
        let expires = self.clock().unix_s() + 3_600;
        let access_token = match trick {
            Trick::Identity => self.mint(THIEF, &[], expires),
            _ if self.dice.chance(30) && !taken.user.is_empty() && self.scenario.thieves => {
                self.mint(&taken.user.clone(), &[], expires)
            }
            _ => String::new(),
        };
        v1::Hello {
            version_min: 1,
            version_max: 1,
            application: taken.application.clone(),
            device_id: taken.device.clone(),
            access_token,
            resume: Some(v1::Resume { resume_token: taken.token.clone().into(), attempt, down_seq }),
            ..v1::Hello::default()
        }
    }

    pub fn raw_received(&mut self, raw: usize, mut bytes: &[u8]) {
        let host = &mut self.raws[raw];
        let mut welcome = None;
        let mut has_ended = false;
        while let Ok(Some(frame)) = host.assembler.next(&mut bytes, FRAME_BYTES_CEILING) {
            match Envelope::decode(frame).ok().and_then(|envelope| envelope.member) {
                Some((gateway::WELCOME, body)) => welcome = v1::Welcome::decode(body).ok(),
                Some((gateway::ERROR | gateway::BYE_ACK, _)) => has_ended = true,
                _ => {}
            }
        }
        if let Some(welcome) = welcome {
            host.stolen = (welcome.resume_result() == ResumeResult::Resumed).then_some(welcome.admitted);
            let delay = self.dice.millis(0, 1_500);
            self.schedule(delay, Event::RawSpeaks(raw));
        }
        if has_ended {
            self.raw_lost(raw);
        }
    }

    /// After its Welcome: proves what it has, repeats what was asked before, leaves; or says nothing.
    pub fn raw_speaks(&mut self, raw: usize) {
        let Some(conn) = self.raws[raw].conn else { return };
        let stolen = self.raws[raw].stolen;
        let mut out = Vec::new();
        let roll = self.dice.below(6);
        if roll >= 2 {
            put_frame(&mut out, Numbers::NONE, client::PING, &v1::Ping { nonce: 1, next_ms: 0 });
        }
        if let (Some(admitted @ 1..), 3..) = (stolen, roll) {
            // Nobody asked for this: it must not run.
            let up_seq = self.dice.between(1, admitted);
            let payload = Asked { incarnation: u32::MAX, up_seq }.to_bytes();
            let view =
                RequestView { command: crate::scenario::PLAIN, payload: &payload, ..RequestView::default() };
            put_frame(&mut out, Numbers { seq: up_seq, ack: 0 }, client::REQUEST, &view);
        }
        if roll == 5 || stolen.is_none() {
            let keep_for_ms = self.dice.below(3) as u32 * 1_000;
            put_frame(&mut out, Numbers::NONE, client::BYE, &v1::Bye { keep_for_ms });
        }
        self.net.write(conn, Side::Dialler, &out, usize::MAX);
    }

    pub fn raw_lost(&mut self, raw: usize) {
        if let Some(conn) = self.raws[raw].conn.take() {
            self.net.close(conn, Side::Dialler);
        }
    }

    /// In the calm there are no thieves.
    pub fn raw_leaves(&mut self, raw: usize) {
        if let Some(conn) = self.raws[raw].conn.take() {
            self.net.cut(conn);
        }
    }
}

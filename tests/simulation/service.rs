//! Services: the service kit's link core, and handlers that stall, answer late, twice, never, or talk nonsense.

use crate::network::{ConnId, Side};
use crate::oracle::Asked;
use crate::presence::Told;
use crate::pushes::{Joining, joins, some_action};
use crate::reached::Path;
use crate::scenario::{ORDERED, Scenario};
use crate::world::{Event, Phase, World};
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::proof::NONCE_BYTES;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::service_view::State as View;
use moorgate_proto::v1::{self, Execution};
use moorgate_service::core::{GatewayKey, Input, LinkCore, LinkFault, LinkSettings};
use moorgate_service::presence::Presence;
use prost::Message;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a call is under way on a connection whose sides read.
const UNDER_WAY_MAX: Duration = Duration::from_secs(2);

/// How a call is answered.
#[derive(Debug, Clone)]
pub struct Script {
    code: Code,
    execution: Execution,
    twice: bool,
    payload: Vec<u8>,
    action: Option<Action>,
}

pub struct EndpointHost {
    settings: Arc<LinkSettings>,
    /// How often it has come back.
    starts: u32,
    pub up: bool,
    /// Places are never used again.
    pub links: Vec<Option<ServiceLink>>,
    pub presence: Presence,
    /// Who is online, as far as it was told.
    pub online: BTreeSet<String>,
}

pub struct ServiceLink {
    pub core: LinkCore,
    conn: ConnId,
    blocked: bool,
    /// The gateway has ended its stream: what is still to be written is, and then it ends.
    is_ending: bool,
}

/// A call, to be acted on once the core is free.
struct Run {
    session_id: Vec<u8>,
    user: String,
    call_id: u64,
    command: u32,
    remaining: Duration,
    payload: Vec<u8>,
    key: Vec<u8>,
}

impl EndpointHost {
    pub fn new(at: usize, scenario: &Scenario) -> EndpointHost {
        let settings = LinkSettings {
            instance_id: format!("echo-{at}"),
            key: Some(scenario.link_key.clone()),
            outstanding_max: scenario.outstanding_max,
            opening_timeout: Duration::from_secs(2),
            heartbeat: Duration::from_secs(4),
            wants_presence: scenario.presence,
            main_link_frame_bytes: scenario.forward.main_link_frame_bytes,
            ..LinkSettings::new("echo")
        };
        EndpointHost {
            settings: Arc::new(settings),
            starts: 0,
            up: true,
            links: Vec::new(),
            presence: Presence::new(1000),
            online: BTreeSet::new(),
        }
    }

    pub fn instance(&self) -> String {
        self.settings.instance_id.clone()
    }

    /// Whether this link has been opened, and stands.
    pub fn is_ready(&self, link: usize) -> bool {
        self.links[link].as_ref().is_some_and(|link| link.core.is_ready())
    }

    /// Whether a gateway has a link to it.
    pub fn is_linked(&self) -> bool {
        self.links.iter().flatten().any(|link| link.core.is_ready())
    }

    pub fn next_deadlines(&self) -> impl Iterator<Item = Mono> {
        let links = self.links.iter().flatten().map(|link| link.core.next_deadline());
        links.chain([self.presence.next_deadline()])
    }
}

impl World {
    pub fn service_accepts(&mut self, at: usize, conn: ConnId, nonce: [u8; NONCE_BYTES]) {
        let core = LinkCore::new(self.now, self.endpoints[at].settings.clone(), nonce);
        self.endpoints[at].links.push(Some(ServiceLink { core, conn, blocked: false, is_ending: false }));
    }

    fn link(&mut self, at: usize, link: usize) -> Option<&mut ServiceLink> {
        self.endpoints[at].links[link].as_mut()
    }

    pub fn service_received(&mut self, at: usize, link: usize, bytes: &[u8]) {
        let now = self.now;
        let EndpointHost { links, presence, .. } = &mut self.endpoints[at];
        let Some(service) = links[link].as_mut() else { return };
        let gateway = service.core.peer().map(|peer| peer.gateway.clone());
        gateway.iter().for_each(|gateway| presence.heard(now, gateway));
        let mut runs = Vec::new();
        let mut cancelled = Vec::new();
        let (mut results, mut receipts, mut told) = (Vec::new(), Vec::new(), Vec::new());
        let result = service.core.received(now, bytes, &mut |_, input| match input {
            Input::Call(view) => {
                let caller = v1::Caller::decode(view.caller).unwrap();
                runs.push(Run {
                    session_id: caller.session_id.to_vec(),
                    user: caller.user_id,
                    call_id: view.call_id,
                    command: view.command,
                    remaining: Duration::from_millis(u64::from(view.remaining_ms)),
                    payload: view.payload.to_vec(),
                    key: view.idempotency_key.to_vec(),
                });
            }
            Input::Cancel(call_id) => cancelled.push(call_id),
            Input::PushResult(result) => results.push(result.clone()),
            Input::PushReceipt(receipt) => receipts.push(receipt.clone()),
            Input::PresenceEvent(event) => told.push(Told::Event(event.clone())),
            Input::PresenceSnapshot(bracket) => told.push(Told::Bracket(*bracket)),
            Input::Ready | Input::Drain | Input::SessionCheck(_) | Input::Notice(_) => {}
        });
        self.pair(at, link);
        self.note_presence(at, link, told);
        results.iter().for_each(|result| self.note_push_result(result));
        receipts.iter().for_each(|receipt| self.note_receipt(receipt));
        for run in runs {
            self.run_call(at, link, run);
        }
        for call_id in cancelled {
            if self.dice.chance(50) {
                let script = Script {
                    code: Code::Cancelled,
                    execution: Execution::Unknown,
                    twice: false,
                    payload: Vec::new(),
                    action: None,
                };
                self.reply(at, link, call_id, script);
            }
        }
        self.service_flush(at, link);
        // An Error says what this service did wrong, on purpose; the end of the stream follows.
        if let Err(fault) = result
            && !matches!(fault, LinkFault::Told(_))
        {
            self.oracle.violated(format!("the gateway broke the service's contract: {fault}"));
        }
    }

    fn run_call(&mut self, at: usize, link: usize, run: Run) {
        let asked = Asked::from_bytes(&run.payload);
        self.trace.note(self.now, "call", (u64::from(asked.incarnation), asked.up_seq), || {
            format!("{asked:?} at endpoint {at} as {:#x}, {:?} left", run.call_id, run.remaining)
        });
        let roll = if self.phase == Phase::Faults { self.dice.below(100) } else { 0 };
        let mut script = Script {
            code: Code::Ok,
            execution: Execution::Executed,
            twice: false,
            payload: run.payload.clone(),
            action: None,
        };
        if roll == 99 {
            // Refused, and not run.
            (script.code, script.execution) = (Code::Unavailable, Execution::NotExecuted);
            script.payload.clear();
            return self.reply(at, link, run.call_id, script);
        }
        self.oracle.ran(asked, &run.payload, &run.key);
        if let Some(problem) = self.rates.ran(self.now, asked) {
            self.oracle.violated(problem);
        }
        if run.command == ORDERED {
            self.runs_in_order((at, link), asked, &run);
        }
        if self.phase == Phase::Faults && self.dice.chance(12) {
            let action =
                some_action(&mut self.dice, self.clients.len(), &run.session_id, self.scenario.is_gentle);
            self.note_action(asked.incarnation, &action);
            if matches!(action, Action::Login(_)) {
                self.sessions.may_log_in(&run.session_id);
            }
            if let Some(group) = joins(&action) {
                let joining = Joining { group, user: run.user.clone() };
                self.joining.insert((asked.incarnation, asked.up_seq), joining);
            }
            script.action = Some(action);
        }
        let delay = match roll {
            0..60 => Duration::ZERO,
            60..80 => self.dice.millis(1, 400),
            80..88 => run.remaining + self.dice.millis(1, 2_000),
            88..92 => return self.forgotten.push((at, link, run.call_id, script)),
            92..95 => {
                script.twice = true;
                Duration::ZERO
            }
            95..97 => {
                (script.code, script.payload) = (Code::NotFound, Vec::new());
                Duration::ZERO
            }
            _ => {
                // A reply that is too large for the client.
                script.code = Code::AlreadyExists;
                script.payload.resize(30_000, 1);
                self.dice.millis(0, 50)
            }
        };
        if delay.is_zero() {
            self.reply(at, link, run.call_id, script);
        } else {
            self.schedule(delay, Event::Reply { endpoint: at, link, call_id: run.call_id, script });
        }
    }

    fn runs_in_order(&mut self, (at, link): (usize, usize), asked: Asked, run: &Run) {
        let own = self.link(at, link).map_or(usize::MAX, |link| link.conn);
        let conn = if self.given_up.contains(&own) { own } else { self.main_conn(at, link) };
        // The gateway's clock began earlier, by what the call was under way.
        let under_way = if self.was_deaf[own] { Duration::MAX } else { UNDER_WAY_MAX };
        let waits = (run.remaining + self.scenario.forward.late_reply_grace).saturating_sub(under_way);
        let now = self.now.since(Mono::ZERO);
        self.running.insert((at, link, run.call_id), asked);
        let may_be_ended = |own: ConnId| {
            let reads = !self.was_deaf[own] && !self.net.is_silent(own);
            !reads || self.net.is_over(own) || self.pauses.is_excused(own)
        };
        self.oracle.ran_in_order(asked, (conn, own), (now, now + waits), may_be_ended);
    }

    pub fn reply(&mut self, at: usize, link: usize, call_id: u64, script: Script) {
        let is_plain = script.code == Code::Ok && script.action.is_none() && !script.payload.is_empty();
        let asked = is_plain.then(|| Asked::from_bytes(&script.payload));
        let Some(service) = self.link(at, link) else { return };
        let conn = service.conn;
        let reply = v1::Reply {
            call_id,
            status: script.code.to_wire(),
            execution: script.execution.into(),
            directives: script
                .action
                .into_iter()
                .map(|action| v1::Directive { action: Some(action) })
                .collect(),
            payload: script.payload.into(),
            ..v1::Reply::default()
        };
        if service.core.calls().answer(call_id, reply.execution, &reply).is_err() {
            return;
        }
        if script.twice {
            put_frame(service.core.output(), Numbers::NONE, to_gateway::REPLY, &reply);
        }
        if let Some(asked) = self.running.remove(&(at, link, call_id)) {
            self.oracle.replied_in_order(asked);
        }
        self.service_flush(at, link);
        let is_written = self.link(at, link).is_some_and(|link| link.core.output().is_empty());
        if let Some(asked) = asked.filter(|_| is_written) {
            self.note_replied(asked, conn);
        }
    }

    /// The main link of a bulk link, which has to be there.
    fn main_of(&self, at: usize, bulk: usize) -> Option<usize> {
        let links = &self.endpoints[at].links;
        let peer = links[bulk].as_ref()?.core.peer().filter(|peer| peer.bulk_of.is_some())?;
        links.iter().position(|link| {
            link.as_ref().and_then(|link| link.core.peer()).is_some_and(|main| main.is_main_of(peer))
        })
    }

    fn pair(&mut self, at: usize, bulk: usize) {
        if let Some(main) = self.main_of(at, bulk)
            && let Some(conn) = self.link_conn(at, bulk)
            && let Some(main) = self.link(at, main)
        {
            main.core.calls().set_bulk(true);
            let main = main.conn;
            self.note_pair(conn, main);
            self.reach(Path::Bulk);
        }
    }

    /// The connection of a link, or of the main link of its pair: a session's calls are in order over both.
    fn main_conn(&self, at: usize, link: usize) -> ConnId {
        self.link_conn(at, self.main_of(at, link).unwrap_or(link)).unwrap_or(usize::MAX)
    }

    /// Large replies of a main link go on its bulk link.
    fn move_large(&mut self, at: usize, link: usize) {
        let Some(service) = self.link(at, link) else { return };
        let large = service.core.calls().take_large();
        if large.is_empty() {
            return;
        }
        let links = 0..self.endpoints[at].links.len();
        let bulk = links.rev().find(|bulk| self.main_of(at, *bulk) == Some(link)).unwrap_or(link);
        if let Some(bulk) = self.link(at, bulk) {
            bulk.core.output().extend_from_slice(&large);
        }
        if bulk != link {
            self.reach(Path::BulkReply);
            self.service_flush(at, bulk);
        }
    }

    /// The gateway has ended its stream.
    pub fn service_over(&mut self, at: usize, link: usize) {
        if let Some(service) = self.link(at, link)
            && service.core.is_bulk()
            && !service.core.output().is_empty()
        {
            service.is_ending = true;
        } else {
            self.service_lost(at, link);
        }
    }

    pub fn service_flush(&mut self, at: usize, link: usize) {
        self.move_large(at, link);
        let most = self.appetite();
        let Some(service) = self.endpoints[at].links[link].as_mut() else { return };
        let conn = service.conn;
        if service.blocked || service.core.output().is_empty() {
            return;
        }
        match self.net.write(conn, Side::Accepter, service.core.output(), most) {
            Some(count) => {
                service.core.output().drain(..count);
                service.blocked = !service.core.output().is_empty();
                if service.is_ending && !service.blocked {
                    self.service_lost(at, link);
                }
            }
            None => self.service_lost(at, link),
        }
    }

    pub fn service_writable(&mut self, at: usize, link: usize) {
        if let Some(service) = self.link(at, link) {
            service.blocked = false;
            self.service_flush(at, link);
        }
    }

    pub fn service_lost(&mut self, at: usize, link: usize) {
        if let Some(main) = self.main_of(at, link)
            && let Some(main) = self.link(at, main)
        {
            main.core.calls().set_bulk(false);
        }
        if let Some(service) = self.endpoints[at].links[link].take() {
            self.net.close(service.conn, Side::Accepter);
        }
    }

    pub fn endpoint_timers(&mut self, at: usize) {
        let now = self.now;
        if self.endpoints[at].presence.next_deadline() <= now {
            self.presence_timers(at);
        }
        for link in 0..self.endpoints[at].links.len() {
            if let Some(service) = self.link(at, link)
                && service.core.next_deadline() <= now
                && service.core.timers(now).is_err()
            {
                self.service_flush(at, link);
                self.service_lost(at, link);
            }
        }
    }

    pub fn endpoint_down(&mut self, at: usize) {
        self.endpoints[at].up = false;
        for link in 0..self.endpoints[at].links.len() {
            if let Some(service) = self.endpoints[at].links[link].take() {
                self.net.cut(service.conn);
            }
        }
    }

    /// It comes back, at times as a new instance.
    pub fn endpoint_up(&mut self, at: usize) {
        if !self.endpoints[at].up && self.dice.chance(50) {
            let endpoint = &mut self.endpoints[at];
            endpoint.starts += 1;
            let instance_id = format!("echo-{at}-{}", endpoint.starts);
            endpoint.settings = Arc::new(LinkSettings { instance_id, ..(*endpoint.settings).clone() });
            (endpoint.presence, endpoint.online) = (Presence::new(1000), BTreeSet::new());
            self.reach(Path::Crashed);
        }
        self.endpoints[at].up = true;
    }

    pub fn some_link(&mut self, at: usize) -> Option<usize> {
        let living: Vec<usize> = (0..self.endpoints[at].links.len())
            .filter(|link| self.endpoints[at].links[*link].is_some())
            .collect();
        (!living.is_empty()).then(|| living[self.dice.index(living.len())])
    }

    pub fn endpoint_drains(&mut self, at: usize) {
        let Some(link) = self.some_link(at) else { return };
        if let Some(service) = self.link(at, link) {
            let conn = service.conn;
            service.core.drain(Duration::from_secs(1));
            self.excuse_link(conn);
            self.service_flush(at, link);
            let delay = self.dice.millis(500, 3_000);
            self.schedule(delay, Event::Cut(conn));
        }
    }

    /// Which instance it is, and which start of the gateway it talks to.
    pub fn link_peer(&mut self, at: usize, link: usize) -> Option<(String, GatewayKey)> {
        let instance = self.endpoints[at].instance();
        let peer = self.link(at, link)?.core.peer()?;
        Some((instance, peer.gateway.clone()))
    }

    pub fn link_conn(&self, at: usize, link: usize) -> Option<ConnId> {
        self.endpoints[at].links[link].as_ref().map(|link| link.conn)
    }

    pub fn send_push(&mut self, at: usize, link: usize, push: &[u8]) {
        if let Some(service) = self.link(at, link) {
            service.core.push(push);
        }
    }

    /// A service says that it is up or not, how much it takes, or asks for what is not served.
    pub fn endpoint_speaks_of_itself(&mut self, at: usize) {
        let Some(link) = self.some_link(at) else { return };
        let state = match self.dice.below(6) {
            0 => View::Down,
            1 => View::Draining,
            2 => View::Degraded,
            _ => View::Up,
        };
        let most = match self.scenario.outstanding_max {
            0 => self.dice.below(8) as u32,
            most => self.dice.between(1, u64::from(most)) as u32,
        };
        let push_id = vec![7; self.dice.below(3_000) as usize];
        self.say_view(at, link, state, most);
        if let Some(service) = self.link(at, link).filter(|service| service.core.is_ready()) {
            let push = v1::ServicePush { push_id: push_id.into(), ..v1::ServicePush::default() };
            put_frame(service.core.output(), Numbers::NONE, to_gateway::PUSH, &push);
        }
        self.service_flush(at, link);
    }

    fn say_view(&mut self, at: usize, link: usize, state: View, outstanding_max: u32) {
        if let Some(service) = self.link(at, link).filter(|service| service.core.is_ready()) {
            let view = Some(v1::ServiceView { state: state.into(), outstanding_max, load: 0 });
            let ping = v1::LinkPing { nonce: 1, view };
            put_frame(service.core.output(), Numbers::NONE, to_gateway::PING, &ping);
        }
    }

    /// Every service is up, with its own bound.
    pub fn endpoints_are_well(&mut self) {
        for at in 0..self.endpoints.len() {
            self.endpoints[at].up = true;
            for link in 0..self.endpoints[at].links.len() {
                self.say_view(at, link, View::Up, self.scenario.outstanding_max);
                self.service_flush(at, link);
            }
        }
    }

    pub fn endpoint_talks_garbage(&mut self, at: usize) {
        let garbage: &[u8] = match self.dice.below(4) {
            0 => &[0, 0, 0, 0],
            1 => &[0xff; 40],
            // A reply to a call that was never given.
            2 => &[0, 0, 0, 8, 0x4a, 6, 0x08, 0xff, 0xff, 0xff, 0x7f, 0x10],
            _ => &[0, 0, 0, 7, 0x4a, 5, 0x08, 0xff, 0xff, 0xff, 0x7f],
        };
        let Some(link) = self.some_link(at) else { return };
        if let Some(service) = self.link(at, link) {
            service.core.output().extend_from_slice(garbage);
            let conn = service.conn;
            self.excuse_link(conn);
            self.service_flush(at, link);
        }
    }
}

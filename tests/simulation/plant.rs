//! Bugs that are put in on purpose, to see that the oracles find them.

use crate::raw::Trick;
use crate::world::World;
use moorgate::base::ids::RouteId;
use moorgate::relay::{Audience, Body, Delivery, DeliveryBatch, Forward, ForwardBatch, PushOrder};
use moorgate_proto::v1::Execution;

/// A bug that is put in on purpose, to see that an oracle finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A settlement is lost between worker and shard.
    LostSettlement,
    /// A settlement says NOT_EXECUTED where nothing is known.
    FalseWord,
    /// A socket is not closed when its connection has ended.
    LeakedSocket,
    /// A connection is counted twice.
    CountedTwice,
    /// An ordered route is served like any other.
    NoOrder,
    /// Large calls of an ordered route, which go on bulk links, are served like any others.
    NoOrderOnBulk,
    /// Connections have no rate.
    NoRate,
    /// A request keeps its place among the outstanding ones for ever.
    LeakedPlace,
    /// A call is handed to the worker twice.
    CallTwice,
    /// Whoever comes with an old token gets in as if it were the newest.
    OldTokenIn,
    /// Whoever comes with a forged token gets in.
    ForgedTokenIn,
    /// Whoever comes from another device gets in.
    DeviceIn,
    /// Tokens of an earlier start of the gateway still let in.
    EarlierTokenIn,
    /// Sessions without a connection are given up too early.
    Forgetful,
    /// Nobody who comes with a resume token is answered.
    LockedOut,
    /// A frame is left out of a replay.
    ReplayLost,
    /// A replay has another push under the number of an old one.
    ReplayOther,
    /// A Response is left out of a replay, and a Gap stands in its place.
    ReplayGap,
    /// A Welcome to a resumed session does not know what was admitted.
    AdmittedForgotten,
    /// A Welcome to a resumed session allows less than before.
    LimitsShrunk,
    /// A service is not told of some who come and go.
    PresenceLost,
    /// Nobody looks at the shards' timers at the end.
    NoTimers,
    /// A push is lost between worker and shard.
    LostPush,
    /// A push is handed to a shard twice.
    PushTwice,
    /// A push goes to everyone on a shard.
    PushAstray,
    /// After a pause the gateway judges deadlines, by a clock that counts it, before it reads what has arrived.
    DeadlinesFirst,
    /// The gateway's clock counts pauses.
    PauseCounted,
    /// After a pause the gateway closes links that were silent, without a ping.
    LinkUnasked,
}

impl Plant {
    /// Whether it shows in runs with pauses only.
    pub fn needs_pauses(self) -> bool {
        matches!(self, Plant::DeadlinesFirst | Plant::PauseCounted | Plant::LinkUnasked)
    }
}

impl World {
    /// Whom a thief is to be let in as; what it says it has is what the listener hears.
    pub fn thief_wanted(&self) -> Option<Trick> {
        match self.plant {
            Some(Plant::OldTokenIn) => Some(Trick::Older),
            Some(Plant::ForgedTokenIn) => Some(Trick::Forged),
            Some(Plant::DeviceIn) => Some(Trick::Device),
            Some(Plant::EarlierTokenIn) => Some(Trick::Earlier),
            _ => None,
        }
    }

    /// The planted bug of calls.
    pub fn spoil_calls(&mut self, batch: &mut ForwardBatch) {
        if self.plant == Some(Plant::NoOrderOnBulk) {
            let large = self.scenario.forward.main_link_frame_bytes;
            for forward in batch.forwards.iter_mut().filter(|forward| forward.route == RouteId(1)) {
                let len = batch.arena.read(&forward.call).len();
                forward.route = RouteId(if len > large { 0 } else { 1 });
            }
        }
        if self.plant != Some(Plant::CallTwice) {
            return;
        }
        if let Some(call) = batch.forwards.last().filter(|_| self.dice.chance(5)) {
            let again = Forward { call: again(&call.call), ..*call };
            batch.forwards.push(again);
        }
    }

    /// The planted bugs of settlements and pushes.
    pub fn spoil(&mut self, batch: &mut DeliveryBatch) {
        match self.plant {
            Some(Plant::LostSettlement) if self.dice.chance(2) => {
                batch.deliveries.pop();
            }
            Some(Plant::LostPush) if self.dice.chance(30) => {
                batch.deliveries.retain(|delivery| !matches!(delivery, Delivery::Push(_)));
            }
            Some(Plant::PushTwice) => {
                let again = batch.deliveries.iter().filter_map(|delivery| match delivery {
                    Delivery::Push(order) => Some(Delivery::Push(PushOrder {
                        push: order.push.clone(),
                        audience: Audience::Everyone,
                        reserved: 0,
                    })),
                    _ => None,
                });
                let again: Vec<Delivery> = again.collect();
                batch.deliveries.extend(again);
            }
            Some(Plant::PushAstray) => {
                for delivery in &mut batch.deliveries {
                    if let Delivery::Push(order) = delivery {
                        order.audience = Audience::Everyone;
                    }
                }
            }
            Some(Plant::FalseWord) => {
                for delivery in &mut batch.deliveries {
                    if let Delivery::Settled(settled) = delivery
                        && settled.outcome.execution == Execution::Unknown
                    {
                        settled.outcome.execution = Execution::NotExecuted;
                    }
                }
            }
            _ => {}
        }
    }
}

fn again(body: &Body) -> Body {
    match body {
        Body::Shared { start, len } => Body::Shared { start: *start, len: *len },
        Body::Own(bytes) => Body::Own(bytes.clone()),
    }
}

//! The limits of requests as one list of everything, without shards, shares and batches.

use super::buckets::Naive;
use crate::limit::{Asker, Limit, Settings, User};
use moorgate_proto::time::Mono;
use std::collections::HashMap;
use std::time::Duration;

/// What the limits are, told in the simplest way.
pub(super) struct Model {
    settings: Settings,
    buckets: HashMap<(Limit, String), Naive>,
    outstanding: HashMap<(Limit, String), u32>,
}

/// Everything that a request is charged to.
pub(super) type Keys = Vec<(Limit, String)>;

impl Model {
    pub(super) fn new(settings: Settings) -> Model {
        Model { settings, buckets: HashMap::new(), outstanding: HashMap::new() }
    }

    /// Every limit that this request meets, in the order in which they are looked at.
    pub(super) fn met(&mut self, now: Mono, session: usize, who: &Asker) -> (Vec<(Limit, Duration)>, Keys) {
        let user = who.user.as_ref().map(User::to_string);
        let Settings { user: of_user, address, application, .. } = &self.settings;
        let kinds = [
            (Limit::Connection, Some(session.to_string()), self.settings.connection, None),
            (Limit::User, user, of_user.rate, of_user.outstanding_max),
            (Limit::Address, Some(who.address.to_string()), address.rate, address.outstanding_max),
            (
                Limit::Application,
                Some(who.application.to_string()),
                application.rate,
                application.outstanding_max,
            ),
            (Limit::Route, Some(String::new()), self.settings.routes[0], None),
        ];
        let (mut met, mut keys) = (Vec::new(), Vec::new());
        for (limit, key, rate, outstanding_max) in kinds {
            let Some(key) = key else { continue };
            let key = (limit, key);
            if let Some(rate) = rate {
                let bucket = self.buckets.entry(key.clone()).or_insert_with(|| Naive::new(rate));
                met.extend(bucket.shortage(now).map(|after| (limit, after)));
            }
            if let Some(max) = outstanding_max
                && *self.outstanding.entry(key.clone()).or_default() >= max
            {
                met.push((limit, Duration::from_millis(200)));
            }
            keys.push(key);
        }
        (met, keys)
    }

    pub(super) fn charge(&mut self, now: Mono, keys: &Keys) {
        for key in keys {
            if let Some(bucket) = self.buckets.get_mut(key) {
                bucket.charge(now, 1).unwrap();
            }
            if let Some(count) = self.outstanding.get_mut(key) {
                *count += 1;
            }
        }
    }

    pub(super) fn settled(&mut self, keys: &Keys) {
        for key in keys {
            if let Some(count) = self.outstanding.get_mut(key) {
                *count -= 1;
            }
        }
    }
}

/// The kind of owner, whether its rate or its outstanding requests were met.
pub(super) fn kind(limit: Limit) -> Limit {
    match limit {
        Limit::OutstandingUser => Limit::User,
        Limit::OutstandingAddress => Limit::Address,
        Limit::OutstandingApplication => Limit::Application,
        other => other,
    }
}

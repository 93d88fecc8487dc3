//! The limits of requests: what all shards share of them, and how one shard applies them.
//!
//! ```text
//!   Request ── admit: room everywhere? ── yes: charged, and a place taken, everywhere ──► Charge ── settled ──► the
//!                 │ no: nothing is charged                                                places are given back
//!                 ▼
//!              Refusal
//! ```
//!
//! A request is charged to its connection, its user, its client address, its application and its route. Of user,
//! address and application it also takes a place among their outstanding requests, which it keeps until the service is
//! done with it: not until the client cancels it, nor until the session ends.

use super::Rate;
use super::address::network;
use super::gcra::{AtomicGcra, Gcra};
use super::keyed::Keyed;
use super::roster::Hasher;
use super::settings::Settings;
use super::share::{RouteShare, Shortage, Terms};
use super::shares::{NOWHERE, Shares, UNKNOWN};
use super::user::User;
use crate::base::ids::RouteId;
use moorgate_proto::time::Mono;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Shards on which one user has sessions, as a rule: whoever has them on more may have more held there.
const USER_SHARDS: u16 = 8;

/// Which limit a request has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Requests of the connection.
    Connection,
    /// Requests of the user.
    User,
    /// Requests of the client address.
    Address,
    /// Requests of the application.
    Application,
    /// Requests of the route.
    Route,
    /// Unanswered requests of the user.
    OutstandingUser,
    /// Unanswered requests of the client address.
    OutstandingAddress,
    /// Unanswered requests of the application.
    OutstandingApplication,
}

/// A request that was not charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which limit.
    pub limit: Limit,
    /// When it may be tried again: at that moment it passes this limit, unless others were faster.
    pub retry_after: Duration,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Asker {
    /// As Hello has it.
    pub application: Arc<str>,
    /// `None`: anonymous.
    pub user: Option<User>,
    /// Where the client connects from.
    pub address: IpAddr,
}

/// Where the shares of an owner lie in their shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    user: u32,
    address: u32,
    application: u32,
}

/// What a session keeps for the limits.
#[derive(Debug)]
pub struct Standing {
    connection: Gcra,
    places: Places,
}

impl Default for Standing {
    fn default() -> Self {
        let places = Places { user: UNKNOWN, address: UNKNOWN, application: UNKNOWN };
        Standing { connection: Gcra::default(), places }
    }
}

/// What a request under way keeps: its places among the outstanding ones. [`ShardLimits::settled`] takes it back.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Charge(pub(super) Places);

/// What all shards share.
#[derive(Debug)]
pub struct Limits {
    settings: Settings,
    shards: u16,
    users: Keyed<Arc<User>>,
    addresses: Keyed<IpAddr>,
    applications: Keyed<Arc<str>>,
    routes: Box<[AtomicGcra]>,
    hasher: Hasher,
}

impl Limits {
    /// Full buckets for this many shards. `seed` is random.
    pub fn new(settings: Settings, shards: u16, seed: u64) -> Limits {
        let max = settings.accounts_max;
        Limits {
            users: Keyed::new(max, seed),
            addresses: Keyed::new(max, seed),
            applications: Keyed::new(max, seed),
            routes: settings.routes.iter().map(|_| AtomicGcra::default()).collect(),
            hasher: Hasher::with_seed(seed),
            settings,
            shards,
        }
    }

    /// How often somebody went without limits since a table was full.
    pub fn uncounted(&self) -> u64 {
        let of_others = self.addresses.turned_away().saturating_add(self.applications.turned_away());
        self.users.turned_away().saturating_add(of_others)
    }

    /// Users, addresses and applications that are counted at the moment.
    pub fn accounts(&self) -> usize {
        let of_others = self.addresses.len().saturating_add(self.applications.len());
        self.users.len().saturating_add(of_others)
    }

    /// Places among the outstanding requests of users, addresses and applications that are taken.
    pub fn outstanding(&self) -> u64 {
        let of_others = self.addresses.outstanding().saturating_add(self.applications.outstanding());
        self.users.outstanding().saturating_add(of_others)
    }
}

/// The limits as one shard applies them.
#[derive(Debug)]
pub struct ShardLimits {
    shared: Arc<Limits>,
    connection: Option<Rate>,
    frames: Option<Rate>,
    users: Shares<Arc<User>>,
    addresses: Shares<IpAddr>,
    applications: Shares<Arc<str>>,
    routes: Box<[RouteShare]>,
}

impl ShardLimits {
    /// A shard's own part, with nobody in it.
    pub fn new(shared: Arc<Limits>) -> ShardLimits {
        let Limits { settings, shards, hasher, .. } = &*shared;
        ShardLimits {
            connection: settings.connection,
            frames: settings.frames,
            users: Shares::new(Terms::new(settings.user, (*shards).min(USER_SHARDS)), hasher),
            addresses: Shares::new(Terms::new(settings.address, *shards), hasher),
            applications: Shares::new(Terms::new(settings.application, *shards), hasher),
            routes: settings.routes.iter().map(|rate| RouteShare::new(*rate, *shards)).collect(),
            shared,
        }
    }

    /// Charges a frame to its connection.
    ///
    /// # Errors
    /// When the next one may come.
    #[inline]
    pub fn frame(&self, now: Mono, connection: &mut Gcra) -> Result<(), Duration> {
        match self.frames {
            None => Ok(()),
            Some(rate) => connection.charge(now, rate),
        }
    }

    /// Charges a request, everywhere or nowhere. `asker` says who the session is, and is asked when the session comes
    /// for the first time, or after [`ShardLimits::leave`].
    ///
    /// # Errors
    /// [`Refusal`]: one of the limits that it meets.
    #[inline]
    pub fn admit(
        &mut self,
        now: Mono,
        standing: &mut Standing,
        route: RouteId,
        asker: impl FnOnce() -> Asker,
    ) -> Result<Charge, Refusal> {
        if standing.places.address == UNKNOWN {
            standing.places = self.enter(now, asker());
        }
        let places = standing.places;
        match self.ensure(now, standing.connection, places, route) {
            Ok(connection) => {
                standing.connection = connection;
                self.users.spend(places.user);
                self.addresses.spend(places.address);
                self.applications.spend(places.application);
                if let Some(route) = self.routes.get_mut(route.index()) {
                    route.spend();
                }
                Ok(Charge(places))
            }
            Err(refusal) => {
                self.not_spent(places);
                Err(refusal)
            }
        }
    }

    /// Sees that there is room everywhere; the connection's bucket as it will be.
    #[inline]
    fn ensure(
        &mut self,
        now: Mono,
        connection: Gcra,
        places: Places,
        route: RouteId,
    ) -> Result<Gcra, Refusal> {
        let connection = match self.connection {
            None => connection,
            Some(rate) => connection
                .after_charge(now, rate)
                .map_err(|retry_after| Refusal { limit: Limit::Connection, retry_after })?,
        };
        self.users
            .ensure(now, places.user)
            .map_err(|shortage| refusal(shortage, Limit::User, Limit::OutstandingUser))?;
        self.addresses
            .ensure(now, places.address)
            .map_err(|shortage| refusal(shortage, Limit::Address, Limit::OutstandingAddress))?;
        self.applications
            .ensure(now, places.application)
            .map_err(|shortage| refusal(shortage, Limit::Application, Limit::OutstandingApplication))?;
        if let Some(share) = self.routes.get_mut(route.index()) {
            share
                .ensure(now, self.shared.routes.get(route.index()))
                .map_err(|retry_after| Refusal { limit: Limit::Route, retry_after })?;
        }
        Ok(connection)
    }

    #[cold]
    fn enter(&mut self, now: Mono, asker: Asker) -> Places {
        let Asker { application, user, address } = asker;
        let user = match user {
            Some(user) if !self.users.is_off() => self.users.enter(now, Arc::new(user), &self.shared.users),
            _ => NOWHERE,
        };
        Places {
            user,
            address: self.addresses.enter(now, network(address), &self.shared.addresses),
            application: self.applications.enter(now, application, &self.shared.applications),
        }
    }

    #[cold]
    fn not_spent(&mut self, places: Places) {
        self.users.not_spent(places.user);
        self.addresses.not_spent(places.address);
        self.applications.not_spent(places.application);
    }

    /// The service is done with a request, or never got it: its places are free.
    #[inline]
    pub fn settled(&mut self, now: Mono, charge: &Charge) {
        let Charge(places) = *charge;
        self.users.settled(now, places.user, &self.shared.users);
        self.addresses.settled(now, places.address, &self.shared.addresses);
        self.applications.settled(now, places.application, &self.shared.applications);
    }

    /// The session has ended, rests, or is about to become somebody else: it holds nothing any more. What its
    /// connection was charged stays charged.
    pub fn leave(&mut self, now: Mono, standing: &mut Standing) {
        let places = std::mem::replace(&mut standing.places, Standing::default().places);
        self.users.leave(now, places.user, &self.shared.users);
        self.addresses.leave(now, places.address, &self.shared.addresses);
        self.applications.leave(now, places.application, &self.shared.applications);
    }

    /// Owners of whom this shard holds something.
    pub fn shares(&self) -> usize {
        let of_others = self.addresses.len().saturating_add(self.applications.len());
        self.users.len().saturating_add(of_others)
    }
}

fn refusal(shortage: Shortage, rate: Limit, outstanding: Limit) -> Refusal {
    match shortage {
        Shortage::Rate(retry_after) => Refusal { limit: rate, retry_after },
        Shortage::Outstanding(retry_after) => Refusal { limit: outstanding, retry_after },
    }
}

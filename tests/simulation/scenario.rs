//! What a run is set up with: the limits are drawn from the seed too, small ones.

use crate::dice::Dice;
use crate::limits;
use crate::plant::Plant;
use crate::reached::Path;
use moorgate::auth::{Authority, Issuer, KeyRing, ResumeTokens, SigningKey};
use moorgate::base::ids::ServiceId;
use moorgate::directory::{self, Allowed, DeviceClasses, DevicePolicy, Directory, Wins};
use moorgate::limit::Rate;
use moorgate::relay::PushGauge;
use moorgate::routing::{
    Balance, Grants, Order, PoolSettings, Right, RouteSettings, RouteTable, ServiceSettings, Span,
};
use moorgate::shard::DetachedCaps;
use moorgate::{forward, limit, session, shard};
use moorgate_proto::proof::LinkKey;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Commands: unordered, ordered, for admins, of a service without instances, of nobody.
pub const PLAIN: u32 = 1;
pub const ORDERED: u32 = 2;
pub const ADMINS: u32 = 3;
pub const ABSENT: u32 = 4;
pub const NOBODYS: u32 = 5;

/// How long access lasts, longer than the clock ever jumps.
pub const ACCESS_TTL: Duration = Duration::from_secs(10_000_000);
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// Which bound of sessions without a connection is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    None,
    User,
    Address,
    Application,
    Total,
}

impl Cap {
    const ALL: [Cap; 7] =
        [Cap::None, Cap::None, Cap::None, Cap::User, Cap::Address, Cap::Application, Cap::Total];

    fn caps(self, dice: &mut Dice) -> DetachedCaps {
        let (small, caps) = (dice.below(3) as usize, DetachedCaps::default());
        match self {
            Cap::None => caps,
            Cap::User => DetachedCaps { user: small, ..caps },
            Cap::Address => DetachedCaps { address: small, ..caps },
            Cap::Application => DetachedCaps { application: small, ..caps },
            Cap::Total => DetachedCaps { total: small, ..caps },
        }
    }

    /// The path of an eviction in such a run.
    pub fn path(self) -> Option<Path> {
        match self {
            Cap::None => None,
            Cap::User => Some(Path::EvictedUser),
            Cap::Address => Some(Path::EvictedAddress),
            Cap::Application => Some(Path::EvictedApplication),
            Cap::Total => Some(Path::EvictedTotal),
        }
    }
}

pub struct Scenario {
    pub shards: u16,
    pub clients: usize,
    pub latency_ms: u64,
    pub room: usize,
    pub mailbox: usize,
    pub shard: shard::Settings,
    pub session: session::Settings,
    pub forward: forward::Settings,
    pub routes: Arc<RouteTable>,
    pub services: Vec<ServiceSettings>,
    /// Of all endpoints that exist.
    pub addresses: Vec<SocketAddr>,
    pub link_key: LinkKey,
    pub outstanding_max: u32,
    pub signing_key: SigningKey,
    pub authority: Arc<Authority>,
    pub resume_tokens: Arc<ResumeTokens>,
    pub directory: Arc<Directory>,
    pub pushes: PushGauge,
    pub check_service: Option<ServiceId>,
    /// Addresses from which clients and strangers connect.
    pub origins: usize,
    pub limit_settings: limit::Settings,
    pub limits: limit::Shared,
    /// Nothing but time, their own clients and whoever has their place ends sessions.
    pub is_gentle: bool,
    /// How long sessions live without a connection.
    pub detached_ttl: Duration,
    /// Which of the bounds of sessions without a connection is a small one.
    pub cap: Cap,
    /// Thieves have new tokens too.
    pub thieves: bool,
    /// The gateway's clock jumps.
    pub jumps: bool,
    /// The gateway dies now and then.
    pub restarts: bool,
    /// Processes are stopped and continued.
    pub pauses: bool,
    /// Services want to know who is online.
    pub presence: bool,
    /// Which devices and how many sessions a user may have, and what may wait of presence.
    pub users: directory::Settings,
    /// Everybody leaves at the end, before the gateway does.
    pub leave: bool,
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

impl Scenario {
    pub fn draw(dice: &mut Dice, plant: Option<Plant>) -> Scenario {
        let signing_key = SigningKey::new("k", SECRET).unwrap();
        let link_key = LinkKey::new(SECRET).unwrap();
        let endpoints = dice.between(1, 3) as u16;
        let addresses: Vec<SocketAddr> = (0..endpoints).map(|at| address(7100 + at)).collect();
        let balance = if dice.chance(50) { Balance::RoundRobin } else { Balance::LeastOutstanding };
        let service = |name: &str, endpoints: Vec<SocketAddr>| ServiceSettings {
            pool: PoolSettings { balance, ..PoolSettings::default() },
            grants: Right::ALL.iter().fold(Grants::NONE, |grants, (_, right)| grants.with(*right)),
            key: Some(link_key.clone()),
            ..ServiceSettings::new(name, endpoints)
        };
        let clients = dice.between(1, 4) as usize;
        let shards = dice.between(1, 2) as u16;
        let limit_settings = limits::draw(dice, 4);
        let is_gentle = dice.chance(40);
        let users = users(dice, is_gentle);
        let detached_ttl = if dice.chance(8) { Duration::ZERO } else { dice.millis(500, 15_000) };
        let cap = if is_gentle { Cap::None } else { Cap::ALL[dice.index(Cap::ALL.len())] };
        Scenario {
            limits: limits::shared(dice, &limit_settings, shards, (plant, is_gentle)),
            limit_settings,
            origins: if dice.chance(50) { 200 } else { dice.between(1, 8) as usize },
            shards,
            clients,
            latency_ms: dice.between(1, 40),
            room: if dice.chance(50) { dice.between(100, 1_000) } else { dice.between(1_000, 20_000) }
                as usize,
            mailbox: dice.between(1, 4) as usize,
            shard: {
                let settings = shard_settings(dice, clients, cap);
                limits::places(dice, clients, settings)
            },
            session: session::Settings {
                // The planted bug: they are kept shorter than clients are told.
                detached_ttl: match plant {
                    Some(Plant::Forgetful) => detached_ttl / 10,
                    _ => detached_ttl,
                },
                ..session_settings(dice)
            },
            forward: forward_settings(dice),
            routes: Arc::new(RouteTable::build(&routes(dice, plant)).unwrap()),
            services: vec![service("echo", addresses.clone()), service("absent", vec![address(7999)])],
            addresses,
            link_key: link_key.clone(),
            outstanding_max: if dice.chance(50) { 0 } else { dice.between(1, 6) as u32 },
            authority: Arc::new(authority()),
            resume_tokens: resume_tokens(dice),
            directory: Arc::new(Directory::unrung_with(shards, dice.next(), users.clone())),
            pushes: PushGauge::default(),
            check_service: None,
            signing_key,
            is_gentle,
            detached_ttl,
            cap,
            thieves: !is_gentle && dice.chance(50),
            jumps: dice.chance(40),
            restarts: dice.chance(30),
            pauses: plant.is_some_and(Plant::needs_pauses) || dice.chance(50),
            presence: dice.chance(60),
            leave: dice.chance(50),
            users,
        }
    }
}

impl Scenario {
    /// What a gateway that starts again has forgotten.
    pub fn start_again(&mut self, dice: &mut Dice, plant: Option<Plant>) {
        self.authority = Arc::new(authority());
        self.resume_tokens = resume_tokens(dice);
        self.directory = Arc::new(Directory::unrung_with(self.shards, dice.next(), self.users.clone()));
        self.pushes = PushGauge::default();
        self.limits = limits::shared(dice, &self.limit_settings, self.shards, (plant, self.is_gentle));
    }
}

fn resume_tokens(dice: &mut Dice) -> Arc<ResumeTokens> {
    let secret = std::array::from_fn(|_| dice.below(256) as u8);
    Arc::new(ResumeTokens::new(dice.next(), &secret))
}

fn authority() -> Authority {
    let key = SigningKey::new("k", SECRET).unwrap();
    let issuer =
        Issuer { key: key.clone(), issuer: None, audience: None, ttl: ACCESS_TTL, ttl_max: ACCESS_TTL };
    let keys = KeyRing::new(vec![key], None, None, 0).unwrap();
    Authority { issuer: Some(issuer), ..Authority::of_keys(keys) }
}

fn routes(dice: &mut Dice, plant: Option<Plant>) -> Vec<RouteSettings> {
    let order = if plant == Some(Plant::NoOrder) { Order::None } else { Order::Session };
    let mut route = |command, service| RouteSettings {
        anonymous: true,
        timeout: dice.millis(200, 3_000),
        payload_bytes_max: 2_000,
        ..RouteSettings::new(Span { first: command, last: command }, ServiceId(service))
    };
    let (plain, ordered, admins, absent) =
        (route(PLAIN, 0), route(ORDERED, 0), route(ADMINS, 0), route(ABSENT, 1));
    vec![
        plain,
        RouteSettings { order, ..ordered },
        RouteSettings { anonymous: false, roles: vec!["admin".to_owned()], ..admins },
        absent,
    ]
}

fn shard_settings(dice: &mut Dice, clients: usize, cap: Cap) -> shard::Settings {
    shard::Settings {
        connections_max: clients + dice.between(0, 3) as usize,
        login_services: vec![ServiceId(0)],
        // One frame at least: a request that is sent again and again must come through.
        partial_bytes_max: dice.between(2_700, 7_000) as usize,
        output_bytes_high: dice.between(100, 10_000) as usize,
        owed_bytes_max: dice.between(1_000, 50_000) as usize,
        outstanding_max: dice.between(1, 20) as usize,
        handshake_timeout: dice.millis(1_000, 4_000),
        frame_timeout: dice.millis(500, 3_000),
        write_timeout: dice.millis(500, 4_000),
        linger: dice.millis(100, 1_000),
        expiry_grace: dice.millis(100, 2_000),
        reconnect_spread: dice.millis(0, 500),
        push_bytes_soft: dice.between(500, 20_000) as usize,
        check: None,
        detached: cap.caps(dice),
        openings: Rate::new(dice.between(1, 10) as u32, Duration::from_secs(1), dice.between(1, 5) as u32)
            .filter(|_| dice.chance(30)),
        presence_grace: dice.millis(0, 5_000),
        ..shard::Settings::default()
    }
}

fn session_settings(dice: &mut Dice) -> session::Settings {
    let in_flight_max = dice.between(1, 8) as u32;
    session::Settings {
        in_flight_max,
        window_max: in_flight_max + dice.between(0, 8) as u32,
        frame_bytes_max: dice.between(4_096, 20_000) as usize,
        pushes_max: dice.between(1, 10) as usize,
        push_bytes_max: dice.between(200, 5_000) as usize,
        response_bytes_max: dice.between(4_000, 50_000) as usize,
        // All that there are.
        groups_max: 2,
        heartbeat: dice.millis(1_000, 4_000),
        heartbeat_min: Duration::from_millis(500),
        heartbeat_max: Duration::from_secs(10),
        detached_ttl: Duration::ZERO,
    }
}

fn users(dice: &mut Dice, is_gentle: bool) -> directory::Settings {
    let presence_changes_max = dice.between(1, 4) as usize;
    if is_gentle || dice.chance(40) {
        return directory::Settings { presence_changes_max, ..directory::Settings::default() };
    }
    let mut classes = DeviceClasses::default();
    classes.insert("ios", 0);
    classes.insert("android", 0);
    let devices = DevicePolicy {
        allowed: [Allowed::Any, Allowed::OnePerClass, Allowed::One][dice.index(3)],
        wins: [Wins::Newer, Wins::Older][dice.index(2)],
        classes,
    };
    let sessions_per_user = dice.between(1, 3) as usize;
    directory::Settings { devices, sessions_per_user, presence_changes_max }
}

fn forward_settings(dice: &mut Dice) -> forward::Settings {
    let heartbeat = dice.millis(1_000, 3_000);
    forward::Settings {
        gateway_id: "simulated".to_owned(),
        links_per_endpoint: dice.between(1, 2) as u16,
        connect_timeout: dice.millis(500, 2_000),
        reconnect_min: dice.millis(10, 100),
        reconnect_max: dice.millis(200, 2_000),
        heartbeat,
        late_reply_grace: dice.millis(200, 3_000),
        frame_bytes_max: 64 * 1024,
        main_link_frame_bytes: [300, 700, 64 * 1024][dice.index(3)],
        bulk_idle: dice.millis(1_000, 8_000),
        output_bytes_max: dice.between(300, 20_000) as usize,
        waiting_max: dice.between(1, 10) as usize,
        waiting_bytes_max: dice.between(2_000, 20_000) as usize,
        pushes_max: dice.between(1, 20) as u32,
        deliveries_max: dice.between(5, 50) as usize,
        push_bytes_max: dice.between(5_000, 50_000) as usize,
        client_frame_bytes_max: 20_000,
        presence_lease: heartbeat * 3 + dice.millis(0, 6_000),
    }
}

//! Which service owns a command, and which of its endpoints takes a call. Pure.

mod balance;
mod breaker;
mod budget;
mod canary;
mod catalog;
mod choice;
mod draw;
mod ejection;
mod ewma;
mod gradient;
mod grants;
mod load;
mod member;
mod pool;
mod pools;
mod roles;
mod route;
mod settings;
mod table;
mod tally;

pub use balance::Balance;
pub use budget::RetryBudget;
pub use canary::Who;
pub use catalog::{
    Catalog, CatalogReport, CatalogSettings, EndpointReport, Note, Rejected, Settled, Source, SourceList,
    SourceReport, Sources, Why,
};
pub use choice::{Ask, Decision, Explanation, How, Marks, Miss, Origin, Standings, Verdict};
pub use ejection::{Ejection, Number};
pub use grants::{Grants, Right};
pub use member::{EndpointId, Instance, Member, Standing, Vitals};
pub use pool::{Change, Ended, Pool};
pub use pools::{Decided, Members, Pools};
pub use roles::{RoleMask, Roles};
pub use route::{Order, Priority, Route, RouteSettings, ServiceSettings, Span};
pub use settings::{
    AdaptiveSettings, Bounds, CanarySettings, EjectionSettings, HashBy, HelloField, PoolSettings, Prefer,
    RetrySettings, SlowStart,
};
pub use table::{RouteMiss, RouteTable, RoutingError};
pub use tally::{Calls, Fault};

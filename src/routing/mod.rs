//! Which service owns a command, and which of its endpoints takes a call. Pure.

mod balance;
mod grants;
mod roles;
mod route;
mod table;

pub use balance::{Balance, Balancer, Candidate};
pub use grants::{Grants, Right};
pub use roles::{RoleMask, Roles};
pub use route::{Order, Route, RouteSettings, ServiceSettings, Span};
pub use table::{RouteMiss, RouteTable, RoutingError};

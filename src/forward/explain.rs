//! Why a call would go where it would go: for the operator, who asks while the worker works. Nothing is changed by it.

use super::{Forwarder, asking};
use crate::base::ids::{RouteId, ServiceId, SessionId, WorkerId};
use crate::routing::{Ask, EndpointId, Explanation, Who};
use moorgate_proto::time::Mono;

/// A call that might be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExplainAsk {
    /// Of which service.
    pub service: ServiceId,
    /// By which route.
    pub route: RouteId,
    /// Empty: anonymous.
    pub user_id: String,
    /// The session; empty: none in particular.
    pub session_id: Vec<u8>,
    /// The user's roles.
    pub roles: Vec<String>,
    /// The application.
    pub application: String,
    /// Its version.
    pub app_version: String,
    /// The platform.
    pub platform: String,
    /// The device.
    pub device_id: String,
    /// The client's address and port.
    pub client_address: String,
}

/// What one worker says to it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainAnswer {
    /// Which worker.
    pub worker: WorkerId,
    /// What its pool would choose, and how its endpoints stand.
    pub explanation: Explanation,
    /// Whether the caller goes to the canary.
    pub canary: bool,
    /// No link to the service has been ready yet: calls wait for the first one.
    pub is_awaiting_link: bool,
    /// Where earlier calls of the session went that are not answered: this one would go there too.
    pub pinned: Option<EndpointId>,
    /// What would be done if it failed, for people.
    pub retry: String,
}

impl Forwarder {
    /// What would be done with a call; `None`: there is no such service.
    pub fn explain(&self, now: Mono, ask: &ExplainAsk) -> Option<ExplainAnswer> {
        let service = self.service(ask.service)?;
        let who = Who {
            user_id: &ask.user_id,
            session_id: &ask.session_id,
            application: &ask.application,
            app_version: &ask.app_version,
            platform: &ask.platform,
            device_id: &ask.device_id,
            client_address: &ask.client_address,
        };
        let roles = ask.roles.iter().map(String::as_str);
        let share = self.pools.canary_share(ask.service);
        let asked: Ask = asking::ask_for(&service.settings.pool, share, &who, roles);
        Some(ExplainAnswer {
            worker: self.worker,
            explanation: service.pool.explain(now, asked),
            canary: asked.canary,
            is_awaiting_link: service.ready == 0 && service.is_awaited,
            pinned: self.pinned(ask),
            retry: self.say_retry(ask)?,
        })
    }

    /// The endpoint to which the session keeps for now.
    fn pinned(&self, ask: &ExplainAsk) -> Option<EndpointId> {
        let session_id: SessionId = SessionId(ask.session_id.as_slice().try_into().ok()?);
        let service = self.service(ask.service)?;
        Some(self.links.get(service.orders.link_of(session_id)?)?.place.id)
    }

    fn say_retry(&self, ask: &ExplainAsk) -> Option<String> {
        let service = self.service(ask.service)?;
        let settings = &service.settings.pool.retry;
        let route = self.routes.route(ask.route);
        let which = match route {
            Some(route) if route.idempotent => "failed attempts",
            _ => "attempts that were not executed",
        };
        if settings.attempts_max <= 1 {
            return Some("never tried again".to_owned());
        }
        let mut said = format!(
            "{which} are tried again, up to {} times in all; budget for {} more; waiting {} of {}, out {} of {}, kept {} of {} bytes",
            settings.attempts_max,
            service.budget.left(),
            service.waiting,
            service.settings.pool.bounds.queue_max,
            service.sent,
            service.settings.pool.bounds.outstanding_max,
            service.kept_bytes,
            settings.kept_bytes_max,
        );
        if !service.is_keeping {
            said.push_str("; not now, with one endpoint");
        }
        match (route.is_some_and(|route| route.hedge), service.latencies.p95()) {
            (false, _) => {}
            (true, Some(p95)) => said.push_str(&format!("; hedged after {} ms", p95.as_millis())),
            (true, None) => said.push_str("; not hedged: too few calls to know which are slow"),
        }
        Some(said)
    }
}

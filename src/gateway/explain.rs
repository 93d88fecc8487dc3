//! Why a call would go where it would go: the route is looked up here, and every worker is asked.

use super::endpoints::{failures, sources_of};
use super::state::{State, service_id};
use crate::admin::{CandidateShown, Explained, OperateError, Outcome, Question, WorkerShown};
use crate::base::ids::{RouteId, ServiceId};
use crate::base::share::write_share;
use crate::forward::{ExplainAnswer, ExplainAsk};
use crate::reactor::WorkerCommand;
use crate::routing::{Decision, EndpointId, How, Miss, Order, Priority, Route, Standings};
use crate::telemetry::why_of;
use std::time::Duration;

/// For all workers together: one that is busy for longer is told as silent.
const PATIENCE: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn explain(&self, question: &Question) -> Result<Outcome, OperateError> {
        let Question { command, version, .. } = *question;
        let route = self.routing.find(command, version);
        let route = route.map_err(|_| OperateError::NoRoute { command, version })?;
        let at = route.service.index();
        let reports = self.reports();
        let mut sources = failures(&self.failed_discovery().unwrap_or_default());
        sources.extend(sources_of(&reports, at));
        let (workers, silent) = self.ask_workers(question, route.id, route.service)?;
        Ok(Outcome::Explained(Box::new(Explained {
            route: self.routes.get(route.id.index()).cloned().unwrap_or_default(),
            terms: terms(route),
            service: self.services.get(at).cloned().unwrap_or_default(),
            refused: self.refused(question, route),
            canary_share: (self.has_canary.get(at) == Some(&true))
                .then(|| write_share(self.pools.canary_share(service_id(at)))),
            workers: workers.iter().map(|answer| self.shown(answer)).collect(),
            silent,
            endpoints: self.endpoints_of(at, &reports),
            sources,
        })))
    }

    /// The answers of all workers, and those that gave none in time.
    fn ask_workers(
        &self,
        question: &Question,
        route: RouteId,
        service: ServiceId,
    ) -> Result<(Vec<ExplainAnswer>, Vec<u16>), OperateError> {
        // Before the threads run there is nobody to ask.
        let workers = self.workers.get().ok_or(OperateError::Busy)?;
        let ask = ExplainAsk {
            service,
            route,
            user_id: question.user_id.clone(),
            session_id: question.session.map(|session| session.0.to_vec()).unwrap_or_default(),
            roles: question.roles.clone(),
            application: question.application.clone(),
            app_version: question.app_version.clone(),
            platform: question.platform.clone(),
            device_id: question.device_id.clone(),
            // Callers have a port, which nothing goes by.
            client_address: question
                .address
                .map(|ip| std::net::SocketAddr::new(ip, 0).to_string())
                .unwrap_or_default(),
        };
        let (sender, answers) = crossbeam_channel::bounded(workers.len());
        for worker in workers {
            if worker.post(WorkerCommand::Explain(Box::new(ask.clone()), sender.clone())).is_ok() {
                worker.ring();
            }
        }
        drop(sender);
        let until = crossbeam_channel::after(PATIENCE);
        let mut told: Vec<ExplainAnswer> = Vec::with_capacity(workers.len());
        while told.len() < workers.len() {
            crossbeam_channel::select! {
                recv(answers) -> answer => match answer {
                    Ok(answer) => told.push(answer),
                    Err(_) => break,
                },
                recv(until) -> _ => break,
            }
        }
        told.sort_by_key(|answer| answer.worker.0);
        let count = u16::try_from(workers.len()).unwrap_or(u16::MAX);
        let silent = (0..count).filter(|id| told.iter().all(|answer| answer.worker.0 != *id)).collect();
        Ok((told, silent))
    }

    /// Why the shard would not let such a call through.
    fn refused(&self, question: &Question, route: &Route) -> Option<String> {
        if question.user_id.is_empty() {
            return (!route.anonymous).then(|| {
                "it is not open to anonymous sessions: the answer would be UNAUTHENTICATED".to_owned()
            });
        }
        let roles = self.routing.role_mask(question.roles.iter().map(String::as_str));
        (!route.allows(roles))
            .then(|| "the user has none of its roles: the answer would be PERMISSION_DENIED".to_owned())
    }

    fn shown(&self, answer: &ExplainAnswer) -> WorkerShown {
        let ExplainAnswer { explanation, .. } = answer;
        let (chosen, decision) = match (answer.pinned, explanation.chosen) {
            (Some(id), _) => (Ok(id), Decision { how: How::Pinned, ..Decision::default() }),
            (None, Ok((id, decision))) => (Ok(id), decision),
            (None, Err(Miss::NoEndpoint)) if answer.is_awaiting_link => (
                Err(
                    "no endpoint has had a ready link yet: the call would wait for the first one, up to its timeout",
                ),
                Decision::default(),
            ),
            (None, Err(Miss::NoEndpoint)) => (
                Err("no endpoint has a ready link: the answer would be UNAVAILABLE, NO_ENDPOINT"),
                Decision::default(),
            ),
            (None, Err(Miss::NoRoom | Miss::SideFull)) => (
                Err("all that could take it are at their bounds: it would wait, or be refused"),
                Decision::default(),
            ),
        };
        WorkerShown {
            worker: answer.worker.0,
            chosen: chosen.map(|id| self.address_of(id)),
            why: why_of(&decision, &self.address_of(decision.rival)),
            canary: answer.canary,
            retry: answer.retry.clone(),
            candidates: explanation.endpoints.iter().map(|one| self.candidate(one)).collect(),
        }
    }

    fn candidate(&self, standings: &Standings) -> CandidateShown {
        CandidateShown {
            address: self.address_of(standings.id),
            usable: standings.usable,
            notes: standings.notes.clone(),
            outstanding: standings.outstanding,
            weight_percent: standings.weight,
            latency_us: standings.latency_us,
            cost_us: standings.cost_us,
        }
    }

    fn address_of(&self, id: EndpointId) -> String {
        self.pools.address(id).map_or_else(|| "-".to_owned(), |(_, address)| address.to_string())
    }
}

/// What a route says of its calls.
fn terms(route: &Route) -> Vec<String> {
    let mut terms = vec![format!("timeout {}", humantime::format_duration(route.timeout))];
    let marks = [
        (route.order == Order::Session, "calls of a session in order"),
        (route.idempotent, "idempotent"),
        (route.hedge, "hedged"),
        (route.priority == Priority::Low, "low priority"),
        (route.priority == Priority::High, "high priority"),
    ];
    terms.extend(marks.into_iter().filter(|(is, _)| *is).map(|(_, what)| what.to_owned()));
    terms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::WorkerId;
    use crate::base::mailbox::mailbox;
    use crate::reactor::poll_with_bell;
    use crate::routing::Explanation;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn question(command: u32) -> Question {
        Question { command, version: 1, ..Question::default() }
    }

    #[test]
    fn a_worker_that_does_not_answer_is_told_and_the_others_are_shown() {
        let state = State::dev();
        assert_eq!(state.explain(&question(1)), Err(OperateError::Busy), "before the threads run");
        let (_poll, bell) = poll_with_bell().unwrap();
        let (quick, asked) = mailbox(1, bell.clone());
        let (stuck, _kept) = mailbox(1, bell);
        assert!(state.workers.set(vec![quick, stuck]).is_ok());
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = is_over.clone();
        let worker = std::thread::spawn(move || {
            let mut users = Vec::new();
            while !ends.load(Ordering::Acquire) {
                if let Some(WorkerCommand::Explain(ask, sender)) = asked.take() {
                    let explanation = Explanation { chosen: Err(Miss::NoEndpoint), endpoints: Vec::new() };
                    let (worker, retry) = (WorkerId(0), "never tried again".to_owned());
                    let answer = ExplainAnswer {
                        worker,
                        explanation,
                        canary: false,
                        is_awaiting_link: false,
                        pinned: None,
                        retry,
                    };
                    users.push(ask.user_id);
                    // On a busy machine it may be too late.
                    drop(sender.send(answer));
                }
                std::thread::yield_now();
            }
            users
        });
        let asking = Question { user_id: "alice".to_owned(), ..question(0x210) };
        let explain = || match state.explain(&asking) {
            Ok(Outcome::Explained(explained)) => explained,
            other => panic!("{other:?}"),
        };
        let explained = std::iter::repeat_with(explain).find(|told| !told.workers.is_empty()).unwrap();
        assert_eq!(explained.silent, [1]);
        assert_eq!((explained.workers.len(), explained.service.as_str()), (1, "chat"));
        assert_eq!(explained.terms, ["timeout 5s", "calls of a session in order"]);
        assert_eq!(explained.refused, None);
        is_over.store(true, Ordering::Release);
        assert!(worker.join().unwrap().iter().all(|user| user == "alice"));
        assert_eq!(
            state.explain(&question(0x9999)),
            Err(OperateError::NoRoute { command: 0x9999, version: 1 })
        );
    }

    #[test]
    fn call_before_the_first_link_would_wait() {
        let state = State::dev();
        let chosen = |is_awaiting_link| {
            let explanation = Explanation { chosen: Err(Miss::NoEndpoint), endpoints: Vec::new() };
            let (worker, retry) = (WorkerId(0), String::new());
            let answer =
                ExplainAnswer { worker, explanation, canary: false, is_awaiting_link, pinned: None, retry };
            state.shown(&answer).chosen.unwrap_err()
        };
        assert!(
            chosen(true).contains("would wait for the first one") && !chosen(true).contains("UNAVAILABLE")
        );
        assert!(chosen(false).contains("UNAVAILABLE"));
    }

    #[test]
    fn who_would_be_refused_is_told() {
        let state = State::dev();
        let route = state.routing.find(0x210, 1).unwrap();
        assert!(state.refused(&question(0x210), route).is_some_and(|why| why.contains("UNAUTHENTICATED")));
        let alice = Question { user_id: "alice".to_owned(), ..question(0x210) };
        assert_eq!(state.refused(&alice, route), None);
    }
}

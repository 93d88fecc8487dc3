//! The threads of one run: started, watched through ramp and window, finished.

use crate::audience::PUSH;
use crate::clock::{Clock, unix_s};
use crate::engine::Engine;
use crate::options::Common;
use crate::plan::{Found, Load, Phase, Plan, Shared};
use crate::watch::{self, Usage};
use crossbeam_channel::{Receiver, Sender, bounded};
use indicatif::{ProgressBar, ProgressStyle};
use moorgate_client::Options;
use moorgate_demo::token::Mint;
use moorgate_service::{Handle, Push};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// For the last replies to come.
pub(crate) const FINISH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the run looks at its threads.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
/// What takes longer is told on standard error, and so often again.
const NOTICE_AFTER: Duration = Duration::from_millis(1500);
const NOTICE_EVERY: Duration = Duration::from_secs(10);
/// For a gateway to answer the push that finds out whether there is one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Access tokens outlive any run.
pub(crate) const TOKEN_LIFE_S: u64 = 24 * 3600;

/// The threads of one run.
pub(crate) struct Crew {
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<Found>>,
    connections: usize,
    ramp_timeout: Duration,
    /// What is counted.
    unit: &'static str,
    /// Never sends: waiting on it is a pause that ends.
    pause: Receiver<()>,
    _keep: Sender<()>,
}

/// What a thread does until it is told to stop.
pub(crate) type Runner = Box<dyn FnOnce() -> Found + Send>;

/// What a crew is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) payload: usize,
    pub(crate) load: &'a Load,
    /// The number of its first connection.
    pub(crate) first: u32,
    /// Descriptors beyond those of the connections.
    pub(crate) spare: usize,
}

/// What was done in a window, and what the watched processes stood at.
pub(crate) struct Measured {
    pub(crate) counted: u64,
    pub(crate) seconds: f64,
    pub(crate) before: Vec<Usage>,
    pub(crate) after: Vec<Usage>,
}

/// The issuer of access tokens; `None`: sessions are anonymous.
pub(crate) fn mint(common: &Common) -> Result<Option<Mint>, String> {
    if common.anonymous || common.raw {
        return Ok(None);
    }
    match &common.token_secret_file {
        None => Ok(Some(Mint::dev())),
        Some(path) => {
            let secret = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Some(Mint::new(secret.trim_ascii_end(), &common.token_key_id)))
        }
    }
}

impl Crew {
    pub(crate) fn start(common: &Common, payload: usize, load: &Load) -> Result<Crew, String> {
        let part = Part { payload, load, first: 0, spare: 0 };
        Crew::of(common, part, |plan| {
            let engine = Engine::new(plan)?;
            Ok(Box::new(move || engine.run()))
        })
    }

    /// A crew of threads that are made from their plans.
    pub(crate) fn of(
        common: &Common,
        part: Part<'_>,
        make: impl Fn(Plan) -> io::Result<Runner>,
    ) -> Result<Crew, String> {
        let Part { payload, load, mut first, spare } = part;
        raise_descriptors(common.connections.saturating_add(spare))?;
        let threads = common.threads.clamp(1, common.connections.max(1));
        let shared = Arc::new(Shared::default());
        let clock = Clock::start();
        let mint = mint(common)?;
        let options = Arc::new(Options { waiting_max: 1 << 20, ..Options::default() });
        let mut started = Vec::new();
        for thread in 0..threads {
            let share = common.connections / threads + usize::from(thread < common.connections % threads);
            let plan = Plan {
                clock,
                targets: common.target.clone(),
                connections: share,
                first,
                payload,
                load: load.share(threads),
                raw: common.raw,
                mint: mint.clone(),
                expires_unix_s: unix_s().saturating_add(TOKEN_LIFE_S),
                options: options.clone(),
                shared: shared.clone(),
            };
            first = first.saturating_add(u32::try_from(share).unwrap_or(u32::MAX));
            let run = make(plan).map_err(|error| error.to_string())?;
            let spawned = std::thread::Builder::new().name(format!("load-{thread}")).spawn(run);
            started.push(spawned.map_err(|error| error.to_string())?);
        }
        let (keep, pause) = bounded(0);
        let unit = match load {
            Load::Receive(_) => "deliveries",
            Load::LogIn(_) => "logins",
            Load::Churn => "sessions",
            Load::Closed(..) | Load::Open(..) | Load::Idle => "replies",
        };
        let Common { connections, ramp_timeout, .. } = *common;
        Ok(Crew { clock, shared, threads: started, connections, ramp_timeout, unit, pause, _keep: keep })
    }

    pub(crate) fn pause(&self, time: Duration) {
        // It times out: nobody sends.
        let _ = self.pause.recv_timeout(time);
    }

    /// Waits for something; whether it came in time, with every connection and thread alive.
    pub(crate) fn wait(&self, time: Duration, mut holds: impl FnMut(&Shared) -> bool) -> bool {
        let until = self.clock.now() + time;
        while !holds(&self.shared) {
            let lost = self.shared.lost.load(Ordering::Acquire) > 0;
            if lost || self.clock.now() >= until || self.threads.iter().any(JoinHandle::is_finished) {
                return false;
            }
            self.pause(LOOK);
        }
        true
    }

    /// The same, and says on standard error for what it waits, if that takes its time.
    pub(crate) fn wait_for(
        &self,
        what: impl Fn(&Shared) -> String,
        time: Duration,
        holds: impl Fn(&Shared) -> bool,
    ) -> bool {
        let mut notice_at = self.clock.now() + NOTICE_AFTER;
        self.wait(time, |shared| {
            let is_over = holds(shared);
            let now = self.clock.now();
            if !is_over && now >= notice_at {
                notice_at = now + NOTICE_EVERY;
                let trouble = shared.trouble().map(|why| format!(" ({why})")).unwrap_or_default();
                eprintln!("moorgate-bench: waiting for {}{trouble}", what(shared));
            }
            is_over
        })
    }

    /// Waits for something without which the run cannot begin.
    pub(crate) fn wait_to_begin(
        &self,
        what: impl Fn(&Shared) -> String,
        holds: impl Fn(&Shared) -> bool,
    ) -> bool {
        self.wait_for(what, self.ramp_timeout, holds)
    }

    /// The same crew, once every connection is served; otherwise the reason why not, and the threads end.
    pub(crate) fn ramped(self) -> Result<Crew, String> {
        let ready = |shared: &Shared| shared.ready.load(Ordering::Acquire);
        let served =
            |shared: &Shared| format!("{} of {} connections are served", ready(shared), self.connections);
        let what = |shared: &Shared| format!("all connections to be served: {}", served(shared));
        match self.wait_to_begin(what, |shared| ready(shared) >= self.connections as u64) {
            true => Ok(self),
            false => {
                let is_late = self.shared.lost.load(Ordering::Acquire) == 0;
                let within = if is_late { format!(" within {:?}", self.ramp_timeout) } else { String::new() };
                let error = format!("{}{within}", served(&self.shared));
                Err(self.explain(&error))
            }
        }
    }

    /// The same crew, once a gateway has linked to the service that this process is; otherwise the reason why not, and
    /// the threads end. What is pushed meanwhile is for nobody.
    pub(crate) fn linked(self, service: &Handle, name: &str) -> Result<Crew, String> {
        let pusher = service.pusher();
        let is_linked = |_: &Shared| {
            let probe = Push::to_users(["nobody"], PUSH, Vec::new());
            let report = pusher.send(probe).ok().and_then(|pending| pending.wait(PROBE_TIMEOUT));
            report.is_some_and(|report| !report.gateways.is_empty())
        };
        let address = service.address();
        let what = |_: &Shared| format!("a gateway to link to the service `{name}` at {address}");
        match self.wait_to_begin(what, is_linked) {
            true => Ok(self),
            // It was the connections that were not served.
            false if self.shared.lost.load(Ordering::Acquire) > 0 => self.ramped(),
            false => {
                let error = format!(
                    "no gateway has linked to the service `{name}` at {address} within {:?}: is that an endpoint of a \
                     [[service]] of this name, with this key (--service-listen, --service-name, --key-file)?",
                    self.ramp_timeout
                );
                Err(self.explain(&error))
            }
        }
    }

    /// Ends the threads; why the run has failed, and what they have heard.
    pub(crate) fn explain(self, error: &str) -> String {
        self.shared.set(Phase::Stop);
        let trouble = self.shared.trouble();
        let found = self.threads.into_iter().filter_map(|thread| thread.join().ok());
        let mut reasons: Vec<String> =
            found.flat_map(|found| found.errors.into_keys()).chain(trouble).collect();
        reasons.sort();
        reasons.dedup();
        if reasons.is_empty() { error.to_owned() } else { format!("{error}: {}", reasons.join("; ")) }
    }

    /// Loads for a time before the window.
    pub(crate) fn warm_up(&self, time: Duration) {
        self.shared.set(Phase::Warm);
        self.window(time, true, &mut || ());
    }

    /// Lets the time pass, shows it where somebody looks, and calls `look` now and then; how many seconds it was.
    pub(crate) fn window(&self, time: Duration, quiet: bool, look: &mut dyn FnMut()) -> f64 {
        let style = ProgressStyle::with_template("{bar:40} {elapsed} {msg}").ok();
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(1000) };
        if let Some(style) = style {
            bar.set_style(style);
        }
        let began = self.clock.now();
        loop {
            let passed = self.clock.now().since(began);
            if passed >= time {
                bar.finish_and_clear();
                return passed.as_secs_f64();
            }
            let part = passed.as_secs_f64() / time.as_secs_f64();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of 1000")]
            bar.set_position((part * 1000.0) as u64);
            bar.set_message(format!("{} {}", self.shared.completed.load(Ordering::Relaxed), self.unit));
            look();
            self.pause((time.saturating_sub(passed)).min(Duration::from_millis(100)));
        }
    }

    /// The window: what is done and used in it. `look` is called now and then.
    pub(crate) fn measure(&self, common: &Common, look: &mut dyn FnMut()) -> Result<Measured, String> {
        self.shared.set(Phase::Window);
        let before = watch::read_all(&common.watch_pid)?;
        let completed = || self.shared.completed.load(Ordering::Acquire);
        let counted_before = completed();
        let seconds = self.window(common.duration, common.json, look);
        let counted = completed().saturating_sub(counted_before);
        let after = watch::read_all(&common.watch_pid)?;
        Ok(Measured { counted, seconds, before, after })
    }

    /// Ends the load; what is open finishes.
    pub(crate) fn end_load(&self) {
        self.shared.end_load(self.clock.now());
    }

    /// Lets what is open finish, and collects.
    pub(crate) fn finish(self) -> Result<Vec<Found>, String> {
        self.end_load();
        let began = self.clock.now();
        let until = began + FINISH_TIMEOUT;
        let mut notice_at = began + NOTICE_AFTER;
        loop {
            self.shared.outstanding.store(0, Ordering::Release);
            self.shared.ended.store(0, Ordering::Release);
            // Every thread has spoken at least once after the reset; then the sum is whole.
            while self.shared.ended.load(Ordering::Acquire) < 2 * self.threads.len() as u64
                && self.clock.now() < until
            {
                self.pause(LOOK);
            }
            let (open, now) = (self.shared.outstanding.load(Ordering::Acquire), self.clock.now());
            if open == 0 || now >= until {
                break;
            }
            if now >= notice_at {
                notice_at = until;
                eprintln!("moorgate-bench: waiting for what is open at the end of the load: {open}");
            }
        }
        self.shared.set(Phase::Stop);
        let joined = self.threads.into_iter().map(JoinHandle::join);
        joined.map(|found| found.map_err(|_| "a thread of the tester has failed".to_owned())).collect()
    }
}

/// As many descriptors as the connections need, as far as the system allows.
fn raise_descriptors(connections: usize) -> Result<(), String> {
    let needed = connections as u64 + 64;
    let limit = getrlimit(Resource::Nofile);
    let max = limit.maximum.unwrap_or(u64::MAX);
    if needed > max {
        return Err(format!(
            "{connections} connections need {needed} descriptors; this process may have {max}"
        ));
    }
    if limit.current.is_some_and(|current| current < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(max), maximum: limit.maximum })
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Prints the figures.
pub(crate) fn print(figures: &Value, text: &str, json: bool) {
    // A reader that has gone away wants no figures.
    let _ = if json { writeln!(io::stdout(), "{figures}") } else { writeln!(io::stdout(), "{text}") };
}

//! One run: ramp, warm-up, window, end.

use crate::clock::{Clock, unix_s};
use crate::engine::{Engine, Found, Load, Phase, Plan, Shared};
use crate::options::{Common, Requests};
use crate::report::{Figures, Newcomers};
use crate::watch::{self, Usage};
use crossbeam_channel::{Receiver, bounded};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use moorgate_client::{Connection, Options};
use moorgate_demo::token::Mint;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// For all connections to be there, and for the last replies to come.
const RAMP_TIMEOUT: Duration = Duration::from_secs(60);
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the run looks at its threads.
const LOOK: Duration = Duration::from_millis(20);
/// Access tokens outlive any run.
const TOKEN_LIFE_S: u64 = 24 * 3600;

/// The threads of one run.
struct Crew {
    clock: Clock,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Found>>,
    connections: usize,
    /// Never sends: waiting on it is a pause that ends.
    pause: Receiver<()>,
    _keep: crossbeam_channel::Sender<()>,
}

fn mint(common: &Common) -> Result<Option<Mint>, String> {
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
    fn start(common: &Common, payload: usize, load: Load) -> Result<Crew, String> {
        raise_descriptors(common.connections)?;
        let threads = common.threads.clamp(1, common.connections.max(1));
        let shared = Arc::new(Shared::default());
        let clock = Clock::start();
        let mint = mint(common)?;
        let options = Arc::new(Options { waiting_max: 1 << 20, ..Options::default() });
        let mut first = 0;
        let mut started = Vec::new();
        for thread in 0..threads {
            let share = common.connections / threads + usize::from(thread < common.connections % threads);
            let plan = Plan {
                clock,
                targets: common.target.clone(),
                connections: share,
                first,
                payload,
                load: match load {
                    Load::Open(rate) => Load::Open(rate / threads as f64),
                    other => other,
                },
                raw: common.raw,
                mint: mint.clone(),
                expires_unix_s: unix_s().saturating_add(TOKEN_LIFE_S),
                options: options.clone(),
                shared: shared.clone(),
            };
            first = first.saturating_add(u32::try_from(share).unwrap_or(u32::MAX));
            let engine = Engine::new(plan).map_err(|error| error.to_string())?;
            let spawned =
                std::thread::Builder::new().name(format!("load-{thread}")).spawn(move || engine.run());
            started.push(spawned.map_err(|error| error.to_string())?);
        }
        let (keep, pause) = bounded(0);
        Ok(Crew { clock, shared, threads: started, connections: common.connections, pause, _keep: keep })
    }

    fn pause(&self, time: Duration) {
        // It times out: nobody sends.
        let _ = self.pause.recv_timeout(time);
    }

    fn ready(&self) -> u64 {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Waits for one reply on every connection.
    fn ramp(&self) -> Result<(), String> {
        let until = self.clock.now() + RAMP_TIMEOUT;
        while self.ready() < self.connections as u64 {
            let lost = self.shared.lost.load(Ordering::Acquire) > 0;
            if lost || self.clock.now() >= until || self.threads.iter().any(JoinHandle::is_finished) {
                return Err(format!("{} of {} connections are served", self.ready(), self.connections));
            }
            self.pause(LOOK);
        }
        Ok(())
    }

    /// Shows the time passing, where somebody looks.
    fn window(&self, time: Duration, quiet: bool) -> f64 {
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
            bar.set_message(format!("{} replies", self.shared.completed.load(Ordering::Relaxed)));
            self.pause((time.saturating_sub(passed)).min(Duration::from_millis(100)));
        }
    }

    /// Lets what is open finish, and collects.
    fn finish(self) -> Result<Vec<Found>, String> {
        self.shared.set(Phase::Finish);
        let until = self.clock.now() + FINISH_TIMEOUT;
        loop {
            self.shared.outstanding.store(0, Ordering::Release);
            self.shared.ended.store(0, Ordering::Release);
            // Every thread has spoken at least once after the reset; then the sum is whole.
            while self.shared.ended.load(Ordering::Acquire) < 2 * self.threads.len() as u64
                && self.clock.now() < until
            {
                self.pause(LOOK);
            }
            if self.shared.outstanding.load(Ordering::Acquire) == 0 || self.clock.now() >= until {
                break;
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

fn report(figures: &Figures, json: bool) -> bool {
    let text = if json { figures.json().to_string() } else { figures.text() };
    // A reader that has gone away wants no figures.
    let _ = writeln!(io::stdout(), "{text}");
    figures.is_good()
}

/// `moorgate-bench requests`.
pub(crate) fn requests(options: &Requests) -> Result<bool, String> {
    let common = &options.common;
    let load = match options.rate {
        Some(rate) => Load::Open(rate as f64),
        None => Load::Closed(options.in_flight),
    };
    let crew = Crew::start(common, options.payload, load)?;
    if let Err(error) = crew.ramp() {
        return Err(explain(crew, &error));
    }
    crew.shared.set(Phase::Warm);
    crew.window(options.warmup, true);
    let newcomers = (options.newcomers_per_s > 0).then(|| start_newcomers(options));
    let newcomers = newcomers.transpose()?;
    crew.shared.set(Phase::Window);
    let before = watch::read_all(&common.watch_pid)?;
    let counted_before = crew.shared.completed.load(Ordering::Acquire);
    let seconds = crew.window(common.duration, common.json);
    let counted = crew.shared.completed.load(Ordering::Acquire).saturating_sub(counted_before);
    let after = watch::read_all(&common.watch_pid)?;
    let newcomers = newcomers.and_then(|thread| thread.join().ok());
    let mut figures = Figures::new(crew.finish()?, counted, seconds);
    figures.newcomers = newcomers;
    figures.watch(&common.watch_pid, &before, &after, common.connections);
    Ok(report(&figures, common.json))
}

/// Why a ramp failed: what the threads have heard.
fn explain(crew: Crew, error: &str) -> String {
    crew.shared.set(Phase::Stop);
    let found = crew.threads.into_iter().filter_map(|thread| thread.join().ok());
    let mut reasons: Vec<String> = found.flat_map(|found| found.errors.into_keys()).collect();
    reasons.sort();
    reasons.dedup();
    if reasons.is_empty() { error.to_owned() } else { format!("{error}: {}", reasons.join("; ")) }
}

/// `moorgate-bench idle`.
pub(crate) fn idle(common: &Common) -> Result<bool, String> {
    let before = watch::read_all(&common.watch_pid)?;
    let crew = Crew::start(common, 0, Load::Idle)?;
    if let Err(error) = crew.ramp() {
        return Err(explain(crew, &error));
    }
    let seconds = crew.window(common.duration, common.json);
    let after = watch::read_all(&common.watch_pid)?;
    let mut figures = Figures::new(crew.finish()?, 0, seconds);
    // What was there before the connections is not theirs.
    let grown: Vec<Usage> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| Usage {
            rss_bytes: after.rss_bytes.saturating_sub(before.rss_bytes),
            ..*after
        })
        .collect();
    figures.watch(&common.watch_pid, &before, &grown, common.connections);
    Ok(report(&figures, common.json))
}

/// `moorgate-bench connect`.
pub(crate) fn connect(common: &Common) -> Result<bool, String> {
    let crew = Crew::start(common, 16, Load::Churn)?;
    if let Err(error) = crew.ramp() {
        return Err(explain(crew, &error));
    }
    crew.shared.set(Phase::Window);
    let before = watch::read_all(&common.watch_pid)?;
    let counted_before = crew.shared.completed.load(Ordering::Acquire);
    let seconds = crew.window(common.duration, common.json);
    let counted = crew.shared.completed.load(Ordering::Acquire).saturating_sub(counted_before);
    let after = watch::read_all(&common.watch_pid)?;
    let mut figures = Figures::new(crew.finish()?, counted, seconds);
    figures.watch(&common.watch_pid, &before, &after, common.connections);
    Ok(report(&figures, common.json))
}

/// A thread that opens new sessions beside the load, one after the other.
fn start_newcomers(options: &Requests) -> Result<JoinHandle<Newcomers>, String> {
    let common = options.common.clone();
    let (every, time) = (Duration::from_secs(1) / options.newcomers_per_s, common.duration);
    let mint = mint(&common)?;
    let expires = unix_s().saturating_add(TOKEN_LIFE_S);
    let thread = move || {
        let (clock, (_keep, pause)) = (Clock::start(), bounded::<()>(0));
        let mut newcomers = Newcomers { latency: Histogram::new_with_max(60_000_000, 3).ok(), failed: 0 };
        let (began, mut due) = (clock.now(), clock.now());
        while clock.now().since(began) < time {
            let token = mint.as_ref().map(|mint| mint.token("newcomer", expires)).unwrap_or_default();
            let start = clock.now();
            let target = common.target.first().copied();
            match target.map(|target| Connection::connect(target, Options::default(), &token)) {
                Some(Ok(client)) => {
                    let us = u64::try_from(clock.now().since(start).as_micros()).unwrap_or(u64::MAX);
                    if let Some(latency) = &mut newcomers.latency {
                        latency.saturating_record(us.max(1));
                    }
                    newcomers.failed = newcomers.failed.saturating_add(u64::from(client.bye().is_err()));
                }
                _ => newcomers.failed = newcomers.failed.saturating_add(1),
            }
            due = due + every;
            let _ = pause.recv_timeout(due.since(clock.now()));
        }
        newcomers
    };
    std::thread::Builder::new().name("newcomers".to_owned()).spawn(thread).map_err(|error| error.to_string())
}

//! One run: ramp, warm-up, window, end.

use crate::clock::{Clock, unix_s};
use crate::crew::{Crew, Measured, TOKEN_LIFE_S, mint, print};
use crate::options::{Common, Requests};
use crate::plan::Load;
use crate::report::{Figures, Newcomers};
use crate::schedule::Schedule;
use crate::watch::{self, Usage};
use crossbeam_channel::bounded;
use hdrhistogram::Histogram;
use moorgate_client::{Connection, Options};
use std::thread::JoinHandle;
use std::time::Duration;

/// After the end of the load, for what was due before it.
const SCHEDULE_GRACE: Duration = Duration::from_secs(1);

/// `moorgate-bench requests`.
pub(crate) fn requests(options: &Requests) -> Result<bool, String> {
    let common = &options.common;
    let load = match options.rate {
        Some(rate) => Load::Open(options.command, rate as f64),
        None => Load::Closed(options.command, options.in_flight),
    };
    let crew = Crew::start(common, options.payload, &load)?.ramped()?;
    crew.warm_up(options.warmup);
    let newcomers = (options.newcomers_per_s > 0).then(|| start_newcomers(options));
    let newcomers = newcomers.transpose()?;
    let Measured { counted, seconds, before, after } = crew.measure(common, &mut || ())?;
    let newcomers = newcomers.and_then(|thread| thread.join().ok());
    let mut figures = Figures::new(crew.finish()?, counted, seconds);
    figures.newcomers = newcomers;
    figures.watch(&common.watch_pid, &before, &after, common.connections);
    finished(&figures, common)
}

/// `moorgate-bench idle`.
pub(crate) fn idle(common: &Common) -> Result<bool, String> {
    let before = watch::read_all(&common.watch_pid)?;
    let crew = Crew::start(common, 0, &Load::Idle)?.ramped()?;
    let seconds = crew.window(common.duration, common.json, &mut || ());
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
    print(&figures.json(), &figures.text(), common.json);
    Ok(figures.is_good())
}

/// `moorgate-bench connect`.
pub(crate) fn connect(common: &Common) -> Result<bool, String> {
    let crew = Crew::start(common, 16, &Load::Churn)?.ramped()?;
    let Measured { counted, seconds, before, after } = crew.measure(common, &mut || ())?;
    let mut figures = Figures::new(crew.finish()?, counted, seconds);
    figures.watch(&common.watch_pid, &before, &after, common.connections);
    finished(&figures, common)
}

/// Prints the figures of a load; whether it was good.
pub(crate) fn finished(figures: &Figures, common: &Common) -> Result<bool, String> {
    print(&figures.json(), &figures.text(), common.json);
    if figures.are_none() {
        return Err(
            "nothing was completed within the time that was measured; make --duration longer".to_owned()
        );
    }
    Ok(figures.is_good())
}

/// A thread that opens new sessions beside the load, one after the other.
fn start_newcomers(options: &Requests) -> Result<JoinHandle<Newcomers>, String> {
    let common = options.common.clone();
    let (every_s, time) = (f64::from(options.newcomers_per_s), common.duration);
    let mint = mint(&common)?;
    let expires = unix_s().saturating_add(TOKEN_LIFE_S);
    let thread = move || {
        let (clock, (_keep, pause)) = (Clock::start(), bounded::<()>(0));
        let latency = Histogram::new_with_max(60_000_000, 3).ok();
        let mut newcomers = Newcomers { latency, failed: 0, not_sent: 0 };
        let end = clock.now() + time;
        let mut schedule = Schedule::new(clock.now(), every_s);
        // What is due before the end still connects shortly after it.
        while schedule.due() < end && clock.now() < end + SCHEDULE_GRACE {
            if schedule.take(clock.now()).is_none() {
                let _ = pause.recv_timeout(schedule.due().since(clock.now()));
                continue;
            }
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
        }
        newcomers.not_sent = schedule.left(end);
        newcomers
    };
    std::thread::Builder::new().name("newcomers".to_owned()).spawn(thread).map_err(|error| error.to_string())
}

//! `resume`: clients whose connections are cut again and again, while requests and pushes go on; each request must have
//! its one answer and run once, each push must come once and in order, and each session must be had back.

use crate::backend::{self, Runs};
use crate::crew::{Crew, Part, print};
use crate::cutting::Cutting;
use crate::fleet::{Fleet, Orders};
use crate::options::Resume;
use crate::plan::{Load, Shared};
use crate::streams::{Streams, push_on_schedule};
use crate::verdict::{Sums, Verdict, processes};
use moorgate_service::Handle;
use std::sync::Arc;
use std::time::Duration;

/// For everybody to be back at the end, and for everything to come: so often for so long, while there still comes
/// something.
const DRAIN_ROUNDS: u32 = 10;
const DRAIN_ROUND: Duration = Duration::from_secs(3);
/// After that: what comes late is a repeat.
const CALM: Duration = Duration::from_millis(500);
/// The part of the window in which connections are cut, in percent.
const CUT_PERCENT: u32 = 97;

/// `moorgate-bench resume`.
pub(crate) fn resume(options: &Resume) -> Result<bool, String> {
    let common = &options.common;
    if common.raw {
        return Err("--raw has no sessions to resume".to_owned());
    }
    let connections = u32::try_from(common.connections).map_err(|error| error.to_string())?;
    let streams = Arc::new(Streams::new(connections, options.payload, common.anonymous));
    let runs = Arc::new(Runs::new(common.connections));
    let service = backend::serve(&options.backing, &runs)?;
    let verdict = run(options, &streams, &runs, &service);
    backend::end(service);
    let verdict = verdict?;
    print(&verdict.json(), &verdict.text(), common.json);
    let asked_for = [options.cuts > 0, options.rate > 0.0, options.pushes_per_s > 0.0];
    match verdict.sums.undone(asked_for) {
        undone if undone.is_empty() => Ok(verdict.sums.is_good()),
        undone => Err(format!("there was none of: {}; nothing is known of them", undone.join(", "))),
    }
}

fn run(options: &Resume, streams: &Arc<Streams>, runs: &Runs, service: &Handle) -> Result<Verdict, String> {
    let common = &options.common;
    let orders = Orders {
        streams: streams.clone(),
        resumes: true,
        joins: true,
        rate: options.rate,
        in_flight: options.in_flight,
        cutting: Cutting::Scattered {
            cuts: options.cuts,
            within: common.duration.saturating_mul(CUT_PERCENT) / 100,
        },
        delay_max: options.delay,
        seed: options.seed,
    };
    // Connections that are half open keep their descriptors for a moment.
    let spare = common.connections / 2;
    let part = Part { payload: options.payload, load: &Load::Idle, first: 0, spare };
    let crew = Crew::of(common, part, |plan| {
        let fleet = Fleet::new(plan, orders.clone())?;
        Ok(Box::new(move || fleet.run()))
    })?;
    let crew = crew.linked(service, &options.backing.service_name)?.ramped()?;
    let pushing = {
        let (streams, pusher, rate) = (streams.clone(), service.pusher(), options.pushes_per_s);
        let (clock, shared) = (crew.clock, crew.shared.clone());
        let push = move || push_on_schedule(&streams, &pusher, rate, (clock, &shared));
        std::thread::Builder::new()
            .name("pusher".to_owned())
            .spawn(push)
            .map_err(|error| error.to_string())?
    };
    let measured = crew.measure(common, &mut || ());
    crew.end_load();
    let not_pushed = pushing.join().map_err(|_| "the thread that pushes has failed".to_owned())?;
    let measured = measured?;
    drain(&crew, streams);
    crew.pause(CALM);
    let mut sums = Sums::of(crew.finish()?, runs, streams)?;
    sums.not_sent = sums.not_sent.saturating_add(not_pushed);
    Ok(Verdict {
        sums,
        connections: common.connections,
        seed: options.seed,
        pushed: streams.pushed(),
        seconds: measured.seconds,
        processes: processes(&common.watch_pid, &measured, measured.counted),
    })
}

/// Waits for what is still to come of the pushes.
fn drain(crew: &Crew, streams: &Streams) {
    for _ in 0..DRAIN_ROUNDS {
        let before = streams.arrivals();
        let what = |_: &Shared| "pushes that are on their way".to_owned();
        if crew.wait_for(what, DRAIN_ROUND, |_| streams.are_settled()) || streams.arrivals() == before {
            return;
        }
    }
}

//! `storm`: all connections are cut at once and come back at once, beside a few others that are not cut and go on
//! asking.

use crate::backend::{self, Runs};
use crate::crew::{Crew, Measured, Part, print};
use crate::cutting::Cutting;
use crate::fleet::{Fleet, Orders};
use crate::options::{Common, Storm};
use crate::pattern::STAMP_BYTES;
use crate::plan::{Load, Phase, Shared};
use crate::streams::Streams;
use crate::verdict::{Sums, in_ms, in_ms_in_words, processes};
use crate::watch;
use hdrhistogram::Histogram;
use moorgate_service::Handle;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes of the requests of those who stay.
const PAYLOAD_BYTES: usize = 128;
/// Before the quiet window.
const WARM_UP: Duration = Duration::from_millis(300);

/// Everything that a storm has shown.
#[derive(Debug)]
struct Figures {
    connections: usize,
    /// By what those who were cut come back.
    way_back: &'static str,
    /// Of those who were cut, and of those who stayed.
    cut: Sums,
    steady: Sums,
    /// From the cut of all until the last one was back.
    all_back: Duration,
    back: u64,
    seconds_before: f64,
    processes: Map<String, Value>,
}

/// `moorgate-bench storm`.
pub(crate) fn storm(options: &Storm) -> Result<bool, String> {
    let common = &options.common;
    let steady = u32::try_from(options.steady).map_err(|error| error.to_string())?;
    let runs = Arc::new(Runs::new(options.steady));
    let service = (!common.raw).then(|| backend::serve(&options.backing, &runs)).transpose()?;
    let figures = run(options, steady, &runs, service.as_ref());
    service.into_iter().for_each(backend::end);
    let figures = figures?;
    print(&figures.json(), &figures.text(), common.json);
    let asks = options.steady > 0 && options.steady_rate > 0.0;
    match figures.steady.undone([false, asks, false]) {
        undone if undone.is_empty() => Ok(figures.is_good()),
        undone => Err(format!("there was none of: {}; make --duration longer", undone.join(", "))),
    }
}

fn crew(common: &Common, first: u32, orders: &Orders) -> Result<Crew, String> {
    let part = Part { payload: PAYLOAD_BYTES, load: &Load::Idle, first, spare: 0 };
    Crew::of(common, part, |plan| {
        let fleet = Fleet::new(plan, orders.clone())?;
        Ok(Box::new(move || fleet.run()))
    })
}

fn run(options: &Storm, steady: u32, runs: &Runs, service: Option<&Handle>) -> Result<Figures, String> {
    let common = &options.common;
    // Nobody pushes, but the groups that are joined need a number.
    let streams = Arc::new(Streams::new(steady, STAMP_BYTES, true));
    let orders = Orders {
        streams: streams.clone(),
        resumes: !common.raw,
        joins: !common.raw,
        rate: options.steady_rate,
        in_flight: usize::MAX,
        cutting: Cutting::Never,
        delay_max: Duration::ZERO,
        seed: 0,
    };
    let those_who_stay = Common { connections: options.steady, threads: 1, ..common.clone() };
    let stay = crew(&those_who_stay, 0, &orders)?;
    let stay = match service {
        Some(service) => stay.linked(service, &options.backing.service_name)?,
        None => stay,
    };
    let stay = stay.ramped()?;
    let go = Orders {
        streams: Arc::new(Streams::none()),
        resumes: !options.fresh && !common.raw,
        joins: false,
        rate: 0.0,
        cutting: Cutting::AtOnce,
        ..orders
    };
    let cut = crew(common, steady, &go)?.ramped()?;
    // What is warm is what is calm: the window of those who stay is the storm.
    stay.pause(WARM_UP);
    stay.shared.set(Phase::Warm);
    let seconds_before = stay.window(common.duration, common.json, &mut || ());
    let before = watch::read_all(&common.watch_pid)?;
    stay.shared.set(Phase::Window);
    cut.shared.set(Phase::Window);
    let all = common.connections as u64;
    let back = |shared: &Shared| shared.reached.load(Ordering::Acquire);
    let what = |shared: &Shared| format!("all connections to be back: {} of {all} are", back(shared));
    cut.wait_for(what, common.ramp_timeout, |shared| back(shared) >= all);
    let back = back(&cut.shared);
    let after = watch::read_all(&common.watch_pid)?;
    let steady = Sums::of(stay.finish()?, runs, &streams)?;
    let cut = Sums::of(cut.finish()?, &Runs::new(0), &go.streams)?;
    let all_back = cut.roaming.back_at.since(cut.roaming.cut_at);
    let measured = Measured { counted: back, seconds: all_back.as_secs_f64(), before, after };
    Ok(Figures {
        connections: common.connections,
        way_back: match options.fresh {
            _ if common.raw => "echo",
            true => "fresh",
            false => "resume",
        },
        cut,
        steady,
        all_back,
        back,
        seconds_before,
        processes: processes(&common.watch_pid, &measured, back),
    })
}

fn p99(times: &Histogram<u64>) -> f64 {
    times.value_at_quantile(0.99) as f64
}

impl Figures {
    /// Whether all are back, as they should be, and the others have missed nothing.
    fn is_good(&self) -> bool {
        self.back >= self.connections as u64 && self.cut.is_good() && self.steady.is_good()
    }

    /// How much longer requests of those who stay take while the others come back.
    fn ratio(&self) -> f64 {
        p99(&self.steady.latency) / p99(&self.steady.roaming.calm_us).max(1.0)
    }

    /// Of all connections.
    fn errors(&self) -> BTreeMap<&str, u64> {
        let mut errors = BTreeMap::new();
        for (what, count) in self.cut.errors.iter().chain(&self.steady.errors) {
            *errors.entry(what.as_str()).or_default() += count;
        }
        errors
    }

    fn json(&self) -> Value {
        let (cut, steady) = (&self.cut, &self.steady);
        json!({
            "connections": self.connections,
            "way_back": self.way_back,
            "back": self.back,
            "all_back_ms": self.all_back.as_secs_f64() * 1000.0,
            "back_per_s": self.back as f64 / self.all_back.as_secs_f64().max(0.001),
            "resumes": cut.roaming.resumes,
            "resumed": cut.roaming.resumed,
            "fresh": cut.roaming.fresh,
            "back_ms": in_ms(&cut.roaming.back_us),
            "steady": {
                "requests": steady.asked,
                "lost": steady.lost(),
                "duplicated": steady.duplicated(),
                "not_sent": steady.not_sent,
                "seconds_before": self.seconds_before,
                "before_ms": in_ms(&steady.roaming.calm_us),
                "during_ms": in_ms(&steady.latency),
                "p99_ratio": self.ratio(),
            },
            "errors": self.errors(),
            "processes": self.processes,
        })
    }

    fn text(&self) -> String {
        let (cut, steady) = (&self.cut, &self.steady);
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        let seconds = self.all_back.as_secs_f64();
        line("back", format!("{} of {} within {seconds:.3} s", self.back, self.connections));
        line("resumed", format!("{} of {}", cut.roaming.resumed, cut.roaming.resumes));
        for (result, count) in &cut.roaming.fresh {
            line("fresh", format!("{count} x {result}"));
        }
        line("back ms", in_ms_in_words(&cut.roaming.back_us));
        line("others ms", in_ms_in_words(&steady.roaming.calm_us));
        line("  meanwhile", in_ms_in_words(&steady.latency));
        line("  p99 ratio", format!("{:.2}", self.ratio()));
        line("  lost", steady.lost().to_string());
        line("  duplicated", steady.duplicated().to_string());
        line("  not sent", steady.not_sent.to_string());
        for (name, figure) in &self.processes {
            line(name, figure.to_string());
        }
        for (what, count) in self.errors() {
            line("error", format!("{count} x {what}"));
        }
        text.trim_end().to_owned()
    }
}

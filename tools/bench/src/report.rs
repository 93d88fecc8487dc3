//! The figures of a run, for people and as JSON.

use crate::options::Watched;
use crate::plan::Found;
use crate::watch::Usage;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Sessions that were opened beside the load.
#[derive(Debug)]
pub(crate) struct Newcomers {
    pub(crate) latency: Option<Histogram<u64>>,
    pub(crate) failed: u64,
    /// Those of the schedule that were due and did not connect.
    pub(crate) not_sent: u64,
}

/// A watched process in the window.
#[derive(Debug)]
struct Process {
    label: String,
    cpu_s: f64,
    rss_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Figures {
    /// Within the window.
    completed: u64,
    seconds: f64,
    wrong: u64,
    missing: u64,
    not_sent: u64,
    errors: BTreeMap<String, u64>,
    latency: Option<Histogram<u64>>,
    pub(crate) newcomers: Option<Newcomers>,
    processes: Vec<Process>,
    connections: usize,
    /// Whether access tokens of logins were to be checked.
    pub(crate) shows_tokens: bool,
    tokens_checked: u64,
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

pub(crate) fn percentiles(latency: &Histogram<u64>) -> Map<String, Value> {
    let quantile =
        |(name, quantile): (&str, f64)| (name.to_owned(), json!(latency.value_at_quantile(quantile)));
    QUANTILES.into_iter().map(quantile).chain([("max".to_owned(), json!(latency.max()))]).collect()
}

pub(crate) fn percentiles_in_words(latency: &Histogram<u64>) -> String {
    let part = |(name, quantile): (&str, f64)| format!("{name} {}", latency.value_at_quantile(quantile));
    let parts: Vec<String> = QUANTILES.into_iter().map(part).collect();
    format!("{}  max {}", parts.join("  "), latency.max())
}

impl Figures {
    pub(crate) fn new(found: Vec<Found>, completed: u64, seconds: f64) -> Figures {
        let mut figures = Figures {
            completed,
            seconds,
            wrong: 0,
            missing: 0,
            not_sent: 0,
            errors: BTreeMap::new(),
            latency: None,
            newcomers: None,
            processes: Vec::new(),
            connections: 0,
            shows_tokens: false,
            tokens_checked: 0,
        };
        for one in found {
            figures.wrong = figures.wrong.saturating_add(one.wrong);
            figures.missing = figures.missing.saturating_add(one.missing);
            figures.not_sent = figures.not_sent.saturating_add(one.not_sent);
            figures.tokens_checked = figures.tokens_checked.saturating_add(one.tokens_checked);
            for (what, count) in one.errors {
                *figures.errors.entry(what).or_default() += count;
            }
            match &mut figures.latency {
                None => figures.latency = Some(one.latency),
                // Both have the same bounds.
                Some(all) => all.add(&one.latency).unwrap_or_default(),
            }
        }
        figures
    }

    pub(crate) fn watch(
        &mut self,
        watched: &[Watched],
        before: &[Usage],
        after: &[Usage],
        connections: usize,
    ) {
        self.connections = connections;
        for ((process, before), after) in watched.iter().zip(before).zip(after) {
            let (label, cpu_s) = (process.label.clone(), after.cpu_s - before.cpu_s);
            self.processes.push(Process { label, cpu_s, rss_bytes: after.rss_bytes });
        }
    }

    fn errors(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Whether every request had its right reply.
    pub(crate) fn is_good(&self) -> bool {
        let newcomers = self.newcomers.as_ref().map_or([0; 2], |one| [one.failed, one.not_sent]);
        let requests = [self.errors(), self.wrong, self.missing, self.not_sent];
        requests.into_iter().chain(newcomers).all(|count| count == 0)
    }

    /// Whether nothing was completed.
    pub(crate) fn are_none(&self) -> bool {
        self.completed == 0
    }

    fn per_request_us(&self, process: &Process) -> f64 {
        if self.completed == 0 { 0.0 } else { process.cpu_s * 1e6 / self.completed as f64 }
    }

    fn rss_per_connection(&self, process: &Process) -> u64 {
        process.rss_bytes.checked_div(self.connections as u64).unwrap_or_default()
    }

    #[expect(clippy::indexing_slicing, reason = "an index of a JSON object makes the member")]
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "completed": self.completed,
            "errors": self.errors(),
            "wrong": self.wrong,
            "missing": self.missing,
            "not_sent": self.not_sent,
            "seconds": self.seconds,
            "rate_per_s": self.completed as f64 / self.seconds,
            "latency_us": self.latency.as_ref().map(percentiles),
            "error_texts": self.errors,
        });
        if let Some(newcomers) = &self.newcomers {
            value["newcomers"] = json!({
                "failed": newcomers.failed,
                "not_sent": newcomers.not_sent,
                "welcomed": newcomers.latency.as_ref().map(Histogram::len),
                "latency_us": newcomers.latency.as_ref().map(percentiles),
            });
        }
        if self.shows_tokens {
            value["tokens_checked"] = json!(self.tokens_checked);
        }
        for (at, process) in self.processes.iter().enumerate() {
            let figures = json!({
                "cpu_s": process.cpu_s,
                "cpu_us_per_request": self.per_request_us(process),
                "rss_bytes": process.rss_bytes,
                "rss_bytes_per_connection": self.rss_per_connection(process),
            });
            if let (0, Some(figures)) = (at, figures.as_object()) {
                figures.iter().for_each(|(name, figure)| value[name] = figure.clone());
            }
            value["processes"][&process.label] = figures;
        }
        value
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        if self.completed > 0 {
            let rate = self.completed as f64 / self.seconds;
            line("completed", format!("{} in {:.1} s, {rate:.0}/s", self.completed, self.seconds));
        }
        if let Some(latency) = self.latency.as_ref().filter(|latency| !latency.is_empty()) {
            line("latency us", percentiles_in_words(latency));
        }
        if self.shows_tokens {
            line("tokens", format!("{} have opened a session, in the whole run", self.tokens_checked));
        }
        if let Some(newcomers) = &self.newcomers {
            let p99 = newcomers.latency.as_ref().map_or(0, |latency| latency.value_at_quantile(0.99));
            let welcomed = newcomers.latency.as_ref().map_or(0, Histogram::len);
            let Newcomers { failed, not_sent, .. } = newcomers;
            line(
                "newcomers",
                format!("{welcomed} welcomed, p99 {p99} us, {failed} failed, {not_sent} not sent"),
            );
        }
        for process in &self.processes {
            let (cpu, rss) = (self.per_request_us(process), self.rss_per_connection(process));
            let rss_total = process.rss_bytes;
            let cpu = if self.completed > 0 { format!("{cpu:.2} us CPU a request, ") } else { String::new() };
            line(&process.label, format!("{cpu}{rss_total} bytes, {rss} a connection"));
        }
        line("wrong", self.wrong.to_string());
        line("missing", self.missing.to_string());
        line("not sent", self.not_sent.to_string());
        for (what, count) in &self.errors {
            line("error", format!("{count} x {what}"));
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_without_a_reply_is_told() {
        let figures = |completed| Figures::new(vec![Found::new().unwrap()], completed, 1.0);
        assert!(figures(0).are_none() && !figures(1).are_none());
    }
}

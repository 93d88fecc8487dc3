//! The figures of pushes, for people and as JSON.

use crate::crew::Measured;
use crate::ledger::Tally;
use crate::options::Watched;
use crate::plan::Found;
use crate::report::{percentiles, percentiles_in_words};
use crate::watch::Usage;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the watched processes held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rss<'a> {
    /// Before the connections.
    pub(crate) empty: &'a [Usage],
    /// With the connections, before the first push.
    pub(crate) before: &'a [Usage],
    /// The most that was seen in the window.
    pub(crate) peak: &'a [Usage],
    /// A quiet moment after the last delivery, with the connections.
    pub(crate) after: &'a [Usage],
}

/// A watched process.
#[derive(Debug)]
struct Process {
    label: String,
    cpu_s: f64,
    /// In bytes: empty, before, peak, after.
    rss: [u64; 4],
}

/// What the service was told of its deliveries, in the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipts {
    pub(crate) acknowledged: u64,
    /// Those of which the gateway said that they were lost.
    pub(crate) lost: u64,
    /// Deliveries without a receipt.
    pub(crate) missing: u64,
}

#[derive(Debug)]
pub(crate) struct Deliveries {
    /// In the window.
    pushes: u64,
    completed: u64,
    seconds: f64,
    latency: Option<Histogram<u64>>,
    /// In the whole run.
    tally: Tally,
    wrong: u64,
    missing: u64,
    errors: BTreeMap<String, u64>,
    pub(crate) receipts: Option<Receipts>,
    /// Pushes of the schedule that were due and not made.
    pub(crate) not_sent: u64,
    processes: Vec<Process>,
}

impl Deliveries {
    pub(crate) fn new(found: Vec<Found>, (pushes, measured): (u64, &Measured), tally: Tally) -> Deliveries {
        let mut deliveries = Deliveries {
            pushes,
            completed: measured.counted,
            seconds: measured.seconds,
            latency: None,
            tally,
            // Nobody has sent them.
            wrong: tally.surplus,
            missing: 0,
            errors: BTreeMap::new(),
            receipts: None,
            not_sent: 0,
            processes: Vec::new(),
        };
        for one in found {
            deliveries.wrong = deliveries.wrong.saturating_add(one.wrong);
            deliveries.missing = deliveries.missing.saturating_add(one.missing);
            deliveries.add_errors(one.errors);
            match &mut deliveries.latency {
                None => deliveries.latency = Some(one.latency),
                // Both have the same bounds.
                Some(all) => all.add(&one.latency).unwrap_or_default(),
            }
        }
        deliveries
    }

    pub(crate) fn add_errors(&mut self, errors: BTreeMap<String, u64>) {
        for (what, count) in errors {
            *self.errors.entry(what).or_default() += count;
        }
    }

    pub(crate) fn watch(&mut self, watched: &[Watched], measured: &Measured, rss: &Rss<'_>) {
        for (at, process) in watched.iter().enumerate() {
            let bytes = |usage: &[Usage]| usage.get(at).map_or(0, |usage| usage.rss_bytes);
            let cpu_s = |usage: &[Usage]| usage.get(at).map_or(0.0, |usage| usage.cpu_s);
            self.processes.push(Process {
                label: process.label.clone(),
                cpu_s: cpu_s(&measured.after) - cpu_s(&measured.before),
                rss: [rss.empty, rss.before, rss.peak, rss.after].map(bytes),
            });
        }
    }

    fn errors(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Whether everybody got everything that was for them, once and in order, or was told of what was given up.
    pub(crate) fn is_good(&self) -> bool {
        let Tally { lost, duplicated, reordered, .. } = self.tally;
        let without_receipt = self.receipts.map_or(0, |receipts| receipts.missing);
        [self.errors(), self.wrong, self.missing, lost, duplicated, reordered, without_receipt, self.not_sent]
            .into_iter()
            .all(|count| count == 0)
    }

    /// Whether nothing was delivered.
    pub(crate) fn are_none(&self) -> bool {
        self.completed == 0
    }

    fn per_delivery_us(&self, process: &Process) -> f64 {
        if self.completed == 0 { 0.0 } else { process.cpu_s * 1e6 / self.completed as f64 }
    }

    #[expect(clippy::indexing_slicing, reason = "an index of a JSON object makes the member")]
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "pushes": self.pushes,
            "deliveries": self.completed,
            "seconds": self.seconds,
            "pushes_per_s": self.pushes as f64 / self.seconds,
            "deliveries_per_s": self.completed as f64 / self.seconds,
            "lost": self.tally.lost,
            "duplicated": self.tally.duplicated,
            "reordered": self.tally.reordered,
            "gaps": self.tally.given_up,
            "wrong": self.wrong,
            "missing": self.missing,
            "not_sent": self.not_sent,
            "errors": self.errors(),
            "latency_us": self.latency.as_ref().map(percentiles),
            "error_texts": self.errors,
        });
        if let Some(Receipts { acknowledged, lost, missing }) = self.receipts {
            value["receipts"] = json!({"acknowledged": acknowledged, "lost": lost, "missing": missing});
        }
        for (at, process) in self.processes.iter().enumerate() {
            let [empty, before, peak, after] = process.rss;
            let figures = json!({
                "cpu_s": process.cpu_s,
                "cpu_us_per_delivery": self.per_delivery_us(process),
                "rss_bytes": {"empty": empty, "before": before, "peak": peak, "after": after},
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
        let rate =
            |count: u64| format!("{count} in {:.1} s, {:.0}/s", self.seconds, count as f64 / self.seconds);
        line("pushes", rate(self.pushes));
        line("deliveries", rate(self.completed));
        if let Some(latency) = self.latency.as_ref().filter(|latency| !latency.is_empty()) {
            line("latency us", percentiles_in_words(latency));
        }
        for process in &self.processes {
            let [empty, before, peak, after] = process.rss;
            let cpu = self.per_delivery_us(process);
            line(&process.label, format!("{cpu:.2} us CPU a delivery"));
            line("  bytes", format!("{empty} empty, {before} before, {peak} at the most, {after} after"));
        }
        if let Some(Receipts { acknowledged, lost, missing }) = self.receipts {
            line("receipts", format!("{acknowledged} acknowledged, {lost} lost, {missing} missing"));
        }
        for (name, count) in [
            ("lost", self.tally.lost),
            ("duplicated", self.tally.duplicated),
            ("reordered", self.tally.reordered),
            ("gaps", self.tally.given_up),
            ("wrong", self.wrong),
            ("missing", self.missing),
            ("not sent", self.not_sent),
        ] {
            line(name, count.to_string());
        }
        for (what, count) in &self.errors {
            line("error", format!("{count} x {what}"));
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliveries(tally: Tally) -> Deliveries {
        let measured = Measured { counted: 10, seconds: 2.0, before: Vec::new(), after: Vec::new() };
        Deliveries::new(vec![Found::new().unwrap()], (5, &measured), tally)
    }

    #[test]
    fn a_fault_of_any_kind_is_no_success_and_a_gap_is_none() {
        let good = Tally { received: 10, given_up: 3, ..Tally::default() };
        assert!(deliveries(good).is_good());
        for bad in [
            Tally { lost: 1, ..good },
            Tally { duplicated: 1, ..good },
            Tally { reordered: 1, ..good },
            Tally { surplus: 1, ..good },
        ] {
            assert!(!deliveries(bad).is_good(), "{bad:?}");
        }
        let mut without_receipt = deliveries(good);
        without_receipt.receipts = Some(Receipts { acknowledged: 9, lost: 0, missing: 1 });
        assert!(!without_receipt.is_good());
        let mut late = deliveries(good);
        late.not_sent = 1;
        assert!(!late.is_good());
        let mut refused = deliveries(good);
        refused.add_errors([("refused".to_owned(), 1)].into());
        assert!(!refused.is_good());
    }

    #[test]
    fn figures_are_of_the_window_and_of_each_process() {
        let mut deliveries = deliveries(Tally::default());
        let usage = |cpu_s, rss_bytes| [Usage { cpu_s, rss_bytes }];
        let measured = Measured {
            counted: 10,
            seconds: 2.0,
            before: usage(1.0, 0).to_vec(),
            after: usage(1.5, 0).to_vec(),
        };
        let (empty, before, peak, after) = (usage(0.0, 1), usage(0.0, 2), usage(0.0, 4), usage(0.0, 3));
        let rss = Rss { empty: &empty, before: &before, peak: &peak, after: &after };
        deliveries.watch(&[Watched { label: "gateway".to_owned(), pid: 1 }], &measured, &rss);
        let value = deliveries.json();
        assert_eq!((&value["pushes_per_s"], &value["deliveries_per_s"]), (&json!(2.5), &json!(5.0)));
        assert_eq!(value["cpu_us_per_delivery"], json!(50_000.0));
        assert_eq!(value["rss_bytes"], json!({"empty": 1, "before": 2, "peak": 4, "after": 3}));
        assert_eq!(value["processes"]["gateway"]["rss_bytes"], value["rss_bytes"]);
    }
}

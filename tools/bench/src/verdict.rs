//! What cut connections have cost: the figures of `resume`, for people and as JSON.

use crate::backend::Runs;
use crate::crew::Measured;
use crate::ledger::Tally;
use crate::options::Watched;
use crate::plan::Found;
use crate::roaming::{Roaming, histogram};
use crate::streams::Streams;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The findings of all threads, added up.
#[derive(Debug)]
pub(crate) struct Sums {
    pub(crate) roaming: Roaming,
    /// Requests in the window, in microseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) wrong: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    /// Requests that were made.
    pub(crate) asked: u64,
    /// What the service has run of them.
    pub(crate) runs: Tally,
    /// What has come of the pushes.
    pub(crate) pushes: Tally,
    /// Pushes of which the gateway has said that they will not come.
    pub(crate) gaps: u64,
    /// Requests and pushes of a schedule that were due and not sent.
    pub(crate) not_sent: u64,
}

impl Sums {
    pub(crate) fn of(found: Vec<Found>, runs: &Runs, streams: &Streams) -> Result<Sums, String> {
        let words = |error: std::io::Error| error.to_string();
        let mut sums = Sums {
            roaming: Roaming::new().map_err(words)?,
            latency: histogram().map_err(words)?,
            wrong: 0,
            errors: BTreeMap::new(),
            asked: 0,
            runs: Tally::default(),
            pushes: Tally::default(),
            gaps: 0,
            not_sent: 0,
        };
        for (what, count) in streams.errors() {
            *sums.errors.entry(what).or_default() += count;
        }
        for one in found {
            sums.not_sent = sums.not_sent.saturating_add(one.not_sent);
            sums.wrong = sums.wrong.saturating_add(one.wrong);
            // Both have the same bounds.
            sums.latency.add(&one.latency).unwrap_or_default();
            for (what, count) in one.errors {
                *sums.errors.entry(what).or_default() += count;
            }
            one.roaming.into_iter().for_each(|roaming| sums.roaming.add(roaming));
        }
        for account in &sums.roaming.accounts {
            sums.asked = sums.asked.saturating_add(account.asked);
            sums.runs.add(runs.tally(account.number, account.asked));
            sums.pushes.add(streams.tally(account.number, &account.ledgers));
            sums.gaps = sums.gaps.saturating_add(account.gaps);
        }
        Ok(sums)
    }

    /// Requests without their own echo.
    fn unanswered(&self) -> u64 {
        self.asked.saturating_sub(self.roaming.echoes)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.unanswered().saturating_add(self.pushes.lost)
    }

    pub(crate) fn duplicated(&self) -> u64 {
        [self.roaming.answered_twice, self.runs.duplicated, self.pushes.duplicated].into_iter().sum()
    }

    pub(crate) fn fresh(&self) -> u64 {
        self.roaming.fresh.values().sum()
    }

    /// Which of cuts, requests and pushes were asked for and did not happen at all.
    pub(crate) fn undone(&self, asked_for: [bool; 3]) -> Vec<&'static str> {
        let counts = [self.roaming.cuts, self.roaming.echoes, self.pushes.received];
        let names = ["cuts", "answered requests", "deliveries of pushes"];
        let all = names.into_iter().zip(counts).zip(asked_for);
        all.filter(|((_, count), is_asked_for)| *is_asked_for && *count == 0)
            .map(|((name, _), _)| name)
            .collect()
    }

    /// Whether all came once and in order, the service of this process ran all requests, and every session was kept.
    pub(crate) fn is_good(&self) -> bool {
        let beyond = [self.wrong, self.runs.lost, self.runs.surplus, self.pushes.surplus, self.not_sent];
        self.lost() == 0
            && self.duplicated() == 0
            && self.pushes.reordered == 0
            && self.fresh() == 0
            && beyond.into_iter().all(|count| count == 0)
    }
}

/// In milliseconds, of microseconds.
pub(crate) fn in_ms(times: &Histogram<u64>) -> Map<String, Value> {
    let ms = |us: u64| json!(us as f64 / 1000.0);
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
    let quantile = |(name, quantile): (&str, f64)| (name.to_owned(), ms(times.value_at_quantile(quantile)));
    quantiles.into_iter().map(quantile).chain([("max".to_owned(), ms(times.max()))]).collect()
}

pub(crate) fn in_ms_in_words(times: &Histogram<u64>) -> String {
    in_ms(times).into_iter().map(|(name, ms)| format!("{name} {ms}")).collect::<Vec<_>>().join("  ")
}

/// CPU time and memory of the watched processes in the window, as JSON.
pub(crate) fn processes(watched: &[Watched], measured: &Measured, per: u64) -> Map<String, Value> {
    let mut figures = Map::new();
    let usage = watched.iter().zip(&measured.before).zip(&measured.after);
    for ((process, before), after) in usage {
        let cpu_s = after.cpu_s - before.cpu_s;
        let per_request_us = if per == 0 { 0.0 } else { cpu_s * 1e6 / per as f64 };
        let figure = json!({
            "cpu_s": cpu_s, "cpu_us_per_request": per_request_us,
            "rss_bytes": {"before": before.rss_bytes, "after": after.rss_bytes},
        });
        figures.insert(process.label.clone(), figure);
    }
    figures
}

/// One run of `resume`.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) sums: Sums,
    pub(crate) connections: usize,
    pub(crate) seed: u64,
    pub(crate) pushed: u64,
    pub(crate) seconds: f64,
    pub(crate) processes: Map<String, Value>,
}

impl Verdict {
    pub(crate) fn json(&self) -> Value {
        let Sums { roaming, latency, wrong, errors, asked, runs, pushes, gaps, not_sent } = &self.sums;
        json!({
            "connections": self.connections,
            "seconds": self.seconds,
            "seed": self.seed,
            "cuts": roaming.cuts,
            "cuts_reset": roaming.resets,
            "cuts_half_open": roaming.half_open,
            "resumes": roaming.resumes,
            "resumed": roaming.resumed,
            "fresh": roaming.fresh,
            "lost": self.sums.lost(),
            "duplicated": self.sums.duplicated(),
            "reordered": pushes.reordered,
            "requests": asked,
            "pushes": self.pushed,
            "deliveries": pushes.received,
            "gaps": gaps,
            "wrong": wrong,
            "not_sent": not_sent,
            "resume_ms": in_ms(&roaming.back_us),
            "request_ms": in_ms(latency),
            "of_requests": {
                "echoes": roaming.echoes,
                "refused": roaming.refused,
                "without_echo": self.sums.unanswered(),
                "answered_twice": roaming.answered_twice,
                "ran_twice": runs.duplicated,
                "never_ran": runs.lost,
            },
            "of_pushes": {
                "lost": pushes.lost,
                "duplicated": pushes.duplicated,
                "reordered": pushes.reordered,
                "surplus": pushes.surplus,
            },
            "errors": errors,
            "processes": self.processes,
        })
    }

    pub(crate) fn text(&self) -> String {
        let Sums { roaming, latency, wrong, errors, asked, runs, pushes, gaps, not_sent } = &self.sums;
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        let (resets, half_open) = (roaming.resets, roaming.half_open);
        line("cuts", format!("{}, {resets} by a reset, {half_open} half open", roaming.cuts));
        line("resumes", format!("{}, {} resumed", roaming.resumes, roaming.resumed));
        for (result, count) in &roaming.fresh {
            line("fresh", format!("{count} x {result}"));
        }
        line("resume ms", in_ms_in_words(&roaming.back_us));
        line(
            "requests",
            format!("{asked}, {} with their echo, {} ran twice", roaming.echoes, runs.duplicated),
        );
        line("request ms", in_ms_in_words(latency));
        line("pushes", format!("{}, {} deliveries", self.pushed, pushes.received));
        for (name, figure) in &self.processes {
            line(name, figure.to_string());
        }
        let lost = self.sums.lost();
        for (name, count) in [
            ("lost", lost),
            ("duplicated", self.sums.duplicated()),
            ("reordered", pushes.reordered),
            ("gaps", *gaps),
            ("wrong", *wrong),
            ("not sent", *not_sent),
        ] {
            line(name, count.to_string());
        }
        for (what, count) in errors {
            line("error", format!("{count} x {what}"));
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> Sums {
        let mut sums = Sums::of(vec![Found::new().unwrap()], &Runs::new(1), &Streams::none()).unwrap();
        (sums.asked, sums.roaming.echoes) = (5, 5);
        sums
    }

    #[test]
    fn every_fault_is_no_success() {
        assert!(sums().is_good());
        let faults: [fn(&mut Sums); 10] = [
            |sums| sums.asked += 1,
            |sums| sums.roaming.answered_twice = 1,
            |sums| sums.runs.duplicated = 1,
            |sums| sums.runs.lost = 1,
            |sums| sums.pushes.lost = 1,
            |sums| sums.pushes.duplicated = 1,
            |sums| sums.pushes.reordered = 1,
            |sums| sums.wrong = 1,
            |sums| sums.not_sent = 1,
            |sums| *sums.roaming.fresh.entry("STALE").or_default() = 1,
        ];
        for (at, fault) in faults.into_iter().enumerate() {
            let mut sums = sums();
            fault(&mut sums);
            assert!(!sums.is_good(), "fault {at}");
        }
    }

    #[test]
    fn what_was_asked_for_and_did_not_happen_is_told() {
        let mut sums = sums();
        assert_eq!(sums.undone([true; 3]), ["cuts", "deliveries of pushes"]);
        (sums.roaming.cuts, sums.pushes.received) = (1, 1);
        assert!(sums.undone([true; 3]).is_empty());
        assert!(Sums::of(Vec::new(), &Runs::new(0), &Streams::none()).unwrap().undone([false; 3]).is_empty());
    }

    #[test]
    fn lost_and_duplicated_are_of_requests_and_pushes_together() {
        let mut sums = sums();
        sums.asked = 7;
        sums.pushes = Tally { lost: 3, duplicated: 2, ..Tally::default() };
        (sums.runs.duplicated, sums.roaming.answered_twice) = (1, 1);
        let (connections, seed, pushed, seconds) = (1, 1, 4, 1.0);
        let verdict = Verdict { sums, connections, seed, pushed, seconds, processes: Map::new() };
        let json = verdict.json();
        assert_eq!((&json["lost"], &json["duplicated"]), (&json!(5), &json!(4)));
        assert!(verdict.text().contains("lost         5"));
    }
}

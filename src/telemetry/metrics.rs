//! Metrics in Prometheus' text format, merged from the cells of all threads.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4.

use crate::base::counters::{Count, Totals};
use moorgate_proto::status::Code;
use std::fmt::Write;

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up.
    Counter,
}

/// A value that is no counter of the threads' cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Whether it can go down.
    pub kind: Kind,
    /// Its name.
    pub metric: &'static str,
    /// Labels as `key="value"`, or empty.
    pub label: String,
    /// One line of help.
    pub help: &'static str,
    /// What it stands at.
    pub value: u64,
}

/// The page.
pub fn render(totals: &Totals, samples: &[Sample]) -> String {
    let mut page = Page::default();
    for count in Count::ALL {
        let name = count.name();
        page.head(name.metric, "counter", name.help);
        page.sample(name.metric, name.label, totals.value(*count));
    }
    let metric = "moorgate_requests_total";
    for code in Code::ALL {
        page.head(metric, "counter", "Answered requests by status.");
        page.sample(metric, &format!("status=\"{}\"", code.name()), totals.outcomes(*code));
    }
    page.latency(totals);
    for sample in samples {
        let kind = match sample.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        page.head(sample.metric, kind, sample.help);
        page.sample(sample.metric, &sample.label, sample.value);
    }
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
    metric: &'static str,
}

impl Page {
    fn head(&mut self, metric: &'static str, kind: &str, help: &str) {
        if self.metric != metric {
            self.metric = metric;
            let _ = writeln!(self.text, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
        }
    }

    fn sample(&mut self, metric: &str, label: &str, value: u64) {
        let _ = match label {
            "" => writeln!(self.text, "{metric} {value}"),
            label => writeln!(self.text, "{metric}{{{label}}} {value}"),
        };
    }

    fn latency(&mut self, totals: &Totals) {
        let metric = "moorgate_request_seconds";
        self.head(metric, "histogram", "Time from a request's receipt to its answer.");
        let mut sum = 0u64;
        for (bound_us, count) in totals.latency_buckets() {
            sum = sum.saturating_add(count);
            let bound = bound_us.map_or("+Inf".to_owned(), |us| format!("{}", us as f64 / 1e6));
            let _ = writeln!(self.text, "{metric}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let seconds = totals.latency_sum_us() as f64 / 1e6;
        let _ = writeln!(self.text, "{metric}_sum {seconds}\n{metric}_count {sum}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::counters::Cells;
    use std::time::Duration;

    #[test]
    fn the_page_has_every_metric_once() {
        let cells = Cells::default();
        cells.add(Count::RefusedAddress, 3);
        cells.outcome(Code::Ok, Duration::from_micros(20));
        let gauges = [
            Sample {
                kind: Kind::Gauge,
                metric: "moorgate_connections",
                label: String::new(),
                help: "Now.",
                value: 2,
            },
            Sample {
                kind: Kind::Counter,
                metric: "moorgate_service_links",
                label: "service=\"echo\"".into(),
                help: "Links.",
                value: 1,
            },
        ];
        let page = render(&Totals::of([&cells]), &gauges);
        assert!(page.contains("moorgate_connections_refused_total{why=\"address\"} 3\n"), "{page}");
        assert!(page.contains("moorgate_requests_total{status=\"OK\"} 1\n"));
        assert!(page.contains("moorgate_request_seconds_bucket{le=\"0.000032\"} 1\n"));
        assert!(page.contains("moorgate_request_seconds_count 1\n"));
        assert!(page.contains("moorgate_service_links{service=\"echo\"} 1\n"));
        assert!(page.contains("# TYPE moorgate_service_links counter\n"));
        let mut types: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let all = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), all, "each metric has one head");
    }
}

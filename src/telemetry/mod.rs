//! What the gateway tells the people who run it: the access log, diagnostics, metrics.

mod access_log;
mod bounded;
mod diagnostics;
mod line_sink;
mod metrics;
mod why;

pub use access_log::{AccessLog, AccessLogError, AccessTarget, Names};
pub use bounded::within;
pub use diagnostics::{dropped_lines, flush_diagnostics, init_diagnostics};
pub use metrics::{Kind, Sample, render};
pub use why::{time_of, why_in_words, why_of};

//! What the gateway tells the people who run it: the access log, diagnostics, metrics.

mod access_log;
mod diagnostics;
mod metrics;
mod why;

pub use access_log::{AccessLog, AccessLogError, AccessTarget, Names};
pub use diagnostics::init_diagnostics;
pub use metrics::{Kind, Sample, render};
pub use why::{time_of, why_in_words, why_of};

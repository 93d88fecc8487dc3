//! Signals: each has one effect, and none that can be caught ends the process without a drain.
//!
//! | signals | effect |
//! | --- | --- |
//! | TERM, INT, QUIT | drain; a second one of these ends the process at once |
//! | PWR, XCPU | drain, and nothing once it has begun: the kernel repeats them |
//! | HUP | a line in the log: the configuration cannot be reloaded yet |
//! | USR1 | reopens the access log |
//! | USR2, ALRM, VTALRM, PROF, IO, STKFLT, the real-time ones | a line in the log |
//! | XFSZ | none: the write that exceeded the limit fails, and that is reported |
//! | PIPE | none: the standard library ignores it, and the write fails |
//! | CHLD, CONT, URG, WINCH | the system's default, which is none |
//! | STOP, TSTP, TTIN, TTOU | the system's default: the process stops until CONT |
//! | ABRT, BUS, FPE, ILL, SEGV, SYS, TRAP, KILL | the system's default: the process ends, for most with a core dump |
//!
//! The last row are faults of the process itself, the watchdog of a service manager (ABRT), and what cannot be caught. BUS
//! and SEGV are handled by the standard library, which leaves the second one to the system.
//!
//! Sources: signal(7), systemd.kill(5).

use crossbeam_channel::{Receiver, Sender, bounded};
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals as Caught;
use signal_hook::low_level::signal_name;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Not among the constants of signal-hook; as on every Linux that we run on.
const SIGSTKFLT: i32 = 16;
const SIGPWR: i32 = 30;
/// Those before them belong to the C library.
const REAL_TIME: RangeInclusive<i32> = 34..=64;
/// Requests that wait for the main thread.
const REQUESTS_MAX: usize = 16;

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Drain,
    DrainOnce,
    Reload,
    ReopenLogs,
    LogLine,
    Nothing,
}

/// Every signal that is caught.
fn effects() -> impl Iterator<Item = (i32, Effect)> {
    use Effect::{Drain, DrainOnce, LogLine, Nothing, Reload, ReopenLogs};
    let named = [
        (SIGTERM, Drain),
        (SIGINT, Drain),
        (SIGQUIT, Drain),
        (SIGPWR, DrainOnce),
        (SIGXCPU, DrainOnce),
        (SIGHUP, Reload),
        (SIGUSR1, ReopenLogs),
        (SIGUSR2, LogLine),
        (SIGALRM, LogLine),
        (SIGVTALRM, LogLine),
        (SIGPROF, LogLine),
        (SIGIO, LogLine),
        (SIGSTKFLT, LogLine),
        (SIGXFSZ, Nothing),
    ];
    named.into_iter().chain(REAL_TIME.map(|signal| (signal, LogLine)))
}

fn effect(signal: i32) -> Effect {
    effects().find(|(other, _)| *other == signal).map_or(Effect::LogLine, |(_, effect)| effect)
}

/// What the main thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalRequest {
    /// Drain and end.
    Drain,
    /// Open the access log again.
    ReopenLogs,
}

/// The signals of this process, received by a thread of its own.
#[derive(Debug)]
pub struct Signals {
    requests: Receiver<SignalRequest>,
}

impl Signals {
    /// Catches the signals from now on. `end` is called, on the thread of the signals, by the second one that asks for a
    /// drain; it ends the process.
    ///
    /// # Errors
    /// When a signal cannot be caught, or there is no thread left.
    pub fn start(end: impl Fn() + Send + 'static) -> io::Result<Signals> {
        let (real_time, others): (Vec<i32>, Vec<i32>) =
            effects().map(|(signal, _)| signal).partition(|signal| REAL_TIME.contains(signal));
        let mut caught = Caught::new(others)?;
        for signal in real_time {
            // A debugger or an emulator may keep some of them to itself.
            if let Err(error) = caught.add_signal(signal) {
                log::debug!("signal {signal} cannot be handled: {error}");
            }
        }
        let (sender, requests) = bounded(REQUESTS_MAX);
        let thread = std::thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || {
            let mut is_draining = false;
            for signal in caught.forever() {
                receive(signal, &mut is_draining, &sender, &end);
            }
        })?;
        Ok(Signals { requests })
    }

    /// The next request; `None`: none in this time.
    pub fn next_within(&self, time: Duration) -> Option<SignalRequest> {
        self.requests.recv_timeout(time).ok()
    }

    /// Waits for the next request. Should the thread of the signals have failed, the process drains: it could not be
    /// asked to later.
    pub fn next(&self) -> SignalRequest {
        self.requests.recv().unwrap_or(SignalRequest::Drain)
    }
}

fn receive(signal: i32, is_draining: &mut bool, requests: &Sender<SignalRequest>, end: &dyn Fn()) {
    // A full channel holds enough of them already.
    let request = |request| {
        let _ = requests.try_send(request);
    };
    let name = || signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned);
    match effect(signal) {
        Effect::Drain if *is_draining => end(),
        Effect::Drain | Effect::DrainOnce => {
            if !std::mem::replace(is_draining, true) {
                log::info!("{} received", name());
                request(SignalRequest::Drain);
            }
        }
        Effect::Reload => log::warn!(
            "{} received: the configuration is not reloaded, a gateway reads it at its start; restart it",
            name()
        ),
        Effect::ReopenLogs => request(SignalRequest::ReopenLogs),
        Effect::LogLine => log::warn!("{} received and ignored", name()),
        Effect::Nothing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn no_signal_has_two_effects() {
        let mut all: Vec<i32> = effects().map(|(signal, _)| signal).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn only_a_second_request_to_drain_ends_at_once() {
        let (sender, requests) = bounded(REQUESTS_MAX);
        let (mut is_draining, ends) = (false, Cell::new(0));
        let mut send = |signal| receive(signal, &mut is_draining, &sender, &|| ends.set(ends.get() + 1));
        for signal in [SIGHUP, SIGUSR2, 34, SIGXFSZ, SIGUSR1, SIGXCPU, SIGXCPU, SIGPWR, SIGHUP] {
            send(signal);
        }
        assert_eq!(ends.get(), 0, "the kernel repeats SIGXCPU");
        send(SIGQUIT);
        assert_eq!(ends.get(), 1);
        let received: Vec<SignalRequest> = requests.try_iter().collect();
        assert_eq!(received, [SignalRequest::ReopenLogs, SignalRequest::Drain]);
    }
}

//! What talks to the world around the gateway: to the service manager (systemd, or another that speaks its protocol),
//! and to those who know where services are.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`discovery`] | finds the endpoints of the services, and publishes them to the workers |
//! | [`inherited`] | sockets that the service manager has opened and hands over |
//! | [`regular`] | files by names from outside: only regular ones, and bounded |
//! | [`notify`] | one datagram to the service manager |
//! | [`reporter`] | decides what it is told and when; pure |
//! | [`reports`] | the thread that looks, asks the reporter, and sends |
//! | [`signals`] | what each signal does |
//!
//! What is told to a service manager begins with the environment, which a service manager sets and nobody else. Without it nothing is
//! inherited and nobody is told anything.
//!
//! Sources: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

pub mod discovery;
mod inherited;
mod notify;
mod regular;
mod reporter;
mod reports;
mod signals;

pub use inherited::{InheritError, Inherited};
pub use notify::{Notice, Notifier};
pub use regular::read_regular;
pub use reporter::{Observed, Reporter};
pub use reports::{Reports, Vitals};
pub use signals::{SignalRequest, Signals};

/// Looks a variable of the environment up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

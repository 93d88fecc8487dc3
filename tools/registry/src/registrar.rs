//! Keeps one instance registered with one registry.
//!
//! [`Registrar::start`] is told once, the thread does the rest: it registers, beats, registers again when the registry
//! has forgotten the instance, and tries on, less and less often, while the registry does not answer. `course` decides;
//! the thread is thin.

mod course;

use crate::ambient::{now, random_u64};
use crate::consul::agent::Agent;
use crate::error::RegistryError;
use crate::nacos::member::Member;
use crate::registration::{Registration, Target};
use crate::registry::Registry;
use crate::stop::Stop;
use course::{Course, News, Step};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between tries to deregister.
const FAREWELL_DELAY: Duration = Duration::from_millis(200);

/// Keeps one instance registered with one registry, on a thread of its own. Dropped without
/// [`Registrar::deregister`], it leaves the instance to the registry's check, as a crash does.
#[derive(Debug)]
pub struct Registrar {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// No more beats.
    leave: Stop,
    /// Ends what is under way, also a farewell.
    abandon: Stop,
    /// The thread is done.
    ended: Stop,
    deregisters: AtomicBool,
    deregistered: AtomicBool,
    registered: AtomicBool,
    failure: Mutex<Option<RegistryError>>,
}

impl Registrar {
    /// Registers, and again whenever the registry has forgotten it. What goes wrong is told in the log, once.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(target: Target, registration: Registration) -> io::Result<Registrar> {
        let name = registration.name.clone();
        let registry: Box<dyn Registry> = match target {
            Target::Consul(settings) => Box::new(Agent::new(&settings, registration)),
            Target::Nacos { settings, group, namespace, cluster } => {
                Box::new(Member::new(&settings, [group, namespace, cluster], registration))
            }
        };
        Registrar::run(registry, name)
    }

    fn run(mut registry: Box<dyn Registry>, name: String) -> io::Result<Registrar> {
        let shared = Arc::<Shared>::default();
        let of_thread = shared.clone();
        std::thread::Builder::new().name("registrar".to_owned()).spawn(move || {
            keep(registry.as_mut(), &name, &of_thread);
            if of_thread.deregisters.load(Ordering::Acquire) && !of_thread.abandon.is_set() {
                farewell(registry.as_mut(), &name, &of_thread);
            }
            of_thread.ended.set();
        })?;
        Ok(Registrar { shared })
    }

    /// Whether the registry has it, as far as the last answer says.
    pub fn is_registered(&self) -> bool {
        self.shared.registered.load(Ordering::Acquire)
    }

    /// Why it is not, while it is not.
    pub fn failure(&self) -> Option<RegistryError> {
        self.shared.failure.lock().clone()
    }

    /// Takes the instance out of the registry, and ends the thread; gives up after this long. Whether the registry has
    /// confirmed it. A request under way is not cut off at once: a registration that arrives late would undo this.
    pub fn deregister(self, within: Duration) -> bool {
        self.shared.deregisters.store(true, Ordering::Release);
        self.shared.leave.set();
        self.shared.ended.wait(within);
        self.shared.deregistered.load(Ordering::Acquire)
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.shared.leave.set();
        self.shared.abandon.set();
    }
}

/// Registers and beats until it is time to leave.
fn keep(registry: &mut dyn Registry, name: &str, shared: &Shared) {
    let mut course = Course::new(now(), registry.renew_every());
    loop {
        let (step, at) = course.next();
        if shared.leave.wait(at.saturating_duration_since(now())) {
            return;
        }
        let news = match step {
            Step::Register => {
                let result = registry.register(&shared.abandon);
                course.registered(now(), result, random_u64())
            }
            Step::Beat => {
                let result = registry.beat(&shared.abandon);
                course.beaten(now(), result, random_u64());
                None
            }
        };
        if shared.abandon.is_set() {
            return;
        }
        if let Some(news) = news {
            tell(registry, name, &news);
            *shared.failure.lock() = match news {
                News::Failing(error) => Some(error),
                News::Registered | News::Forgotten(_) | News::Back => None,
            };
        }
        shared.registered.store(course.is_registered(), Ordering::Release);
    }
}

fn tell(registry: &dyn Registry, name: &str, news: &News) {
    let place = registry.place();
    match news {
        News::Registered => log::info!("{name} is registered: {place}"),
        News::Forgotten(error) => {
            log::warn!("{name} was forgotten and is registered again: {place}: {error}")
        }
        News::Failing(error) => log::warn!("{name} cannot be registered, and tries on: {place}: {error}"),
        News::Back => log::info!("{name} is registered again: {place}"),
    }
}

/// Deregisters, and tries again until it is abandoned.
fn farewell(registry: &mut dyn Registry, name: &str, shared: &Shared) {
    loop {
        match registry.deregister(&shared.abandon) {
            Ok(()) => {
                shared.registered.store(false, Ordering::Release);
                shared.deregistered.store(true, Ordering::Release);
                return log::info!("{name} is deregistered: {}", registry.place());
            }
            Err(error) if shared.abandon.wait(FAREWELL_DELAY) => {
                return log::warn!("{name} cannot be deregistered: {}: {error}", registry.place());
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A registry of which the test hears each request, and answers.
    struct Played {
        asked: Sender<&'static str>,
        answers: Receiver<bool>,
    }

    impl Played {
        fn ask(&mut self, what: &'static str) -> Result<(), RegistryError> {
            let _ = self.asked.send(what);
            let refused = || RegistryError::Settings { what: "played".to_owned() };
            if self.answers.recv() == Ok(true) { Ok(()) } else { Err(refused()) }
        }
    }

    impl Registry for Played {
        fn place(&self) -> String {
            "a play".to_owned()
        }
        fn register(&mut self, _: &Stop) -> Result<Duration, RegistryError> {
            self.ask("register").map(|()| Duration::from_millis(100))
        }
        fn beat(&mut self, _: &Stop) -> Result<Option<Duration>, RegistryError> {
            self.ask("beat").map(|()| None)
        }
        fn deregister(&mut self, _: &Stop) -> Result<(), RegistryError> {
            self.ask("deregister")
        }
    }

    fn start() -> (Registrar, Receiver<&'static str>, Sender<bool>) {
        let ((asked, hears), (answer, answers)) = (channel(), channel());
        let registrar = Registrar::run(Box::new(Played { asked, answers }), "chat".to_owned()).unwrap();
        (registrar, hears, answer)
    }

    #[test]
    fn it_registers_beats_registers_again_and_goes() {
        let (registrar, hears, answer) = start();
        for (expected, good) in [("register", true), ("beat", true), ("beat", false), ("register", true)] {
            assert_eq!(hears.recv_timeout(PATIENCE), Ok(expected));
            answer.send(good).unwrap();
        }
        assert_eq!(hears.recv_timeout(PATIENCE), Ok("beat"));
        assert!(registrar.is_registered() && registrar.failure().is_none());
        let leaver = std::thread::spawn(move || registrar.deregister(PATIENCE));
        // The beat is under way; only then, and a second time because it is refused, comes the farewell.
        answer.send(true).unwrap();
        loop {
            match hears.recv_timeout(PATIENCE).unwrap() {
                "beat" => answer.send(true).unwrap(),
                other => break assert_eq!(other, "deregister"),
            }
        }
        answer.send(false).unwrap();
        assert_eq!(hears.recv_timeout(PATIENCE), Ok("deregister"));
        answer.send(true).unwrap();
        assert!(leaver.join().unwrap(), "the registry has confirmed it");
        assert!(hears.recv_timeout(PATIENCE).is_err(), "the thread has ended");
    }

    #[test]
    fn it_says_why_it_is_not_registered() {
        let (registrar, hears, answer) = start();
        hears.recv_timeout(PATIENCE).unwrap();
        answer.send(false).unwrap();
        // The next try comes after the failure was told.
        assert_eq!(hears.recv_timeout(PATIENCE), Ok("register"));
        assert!(!registrar.is_registered());
        assert_eq!(registrar.failure().unwrap().to_string(), "played");
        answer.send(true).unwrap();
        assert_eq!(hears.recv_timeout(PATIENCE), Ok("beat"));
        assert!(registrar.is_registered() && registrar.failure().is_none());
        drop(answer);
    }

    #[test]
    fn a_registry_that_does_not_answer_is_given_up() {
        let (registrar, hears, answer) = start();
        assert_eq!(hears.recv_timeout(PATIENCE), Ok("register"));
        assert!(!registrar.deregister(Duration::from_millis(50)));
        drop(answer);
        assert!(hears.recv_timeout(PATIENCE).is_err(), "and the thread ends with what was under way");
    }
}

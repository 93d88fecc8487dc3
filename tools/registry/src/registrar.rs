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

/// Says how the instance is, before each beat.
pub type IsHealthy = Arc<dyn Fn() -> bool + Send + Sync>;

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
    /// No more beats; ends one that is under way.
    leave: Stop,
    /// Ends a registration that is under way.
    hurry: Stop,
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
        Registrar::start_judged(target, registration, Arc::new(|| true))
    }

    /// The same, and asks before each beat whether the instance is healthy. While it is not, Consul is told so where we
    /// say how it is ([`crate::Check::Ttl`]), and Nacos gets no beats; it is registered, also again, when it is.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start_judged(
        target: Target,
        registration: Registration,
        is_healthy: IsHealthy,
    ) -> io::Result<Registrar> {
        let name = registration.name.clone();
        let registry: Box<dyn Registry> = match target {
            Target::Consul(settings) => Box::new(Agent::new(&settings, registration)),
            Target::Nacos { settings, group, namespace, cluster } => {
                Box::new(Member::new(&settings, [group, namespace, cluster], registration))
            }
        };
        Registrar::run(registry, name, is_healthy)
    }

    fn run(mut registry: Box<dyn Registry>, name: String, is_healthy: IsHealthy) -> io::Result<Registrar> {
        let shared = Arc::<Shared>::default();
        let of_thread = shared.clone();
        std::thread::Builder::new().name("registrar".to_owned()).spawn(move || {
            keep(registry.as_mut(), &name, &of_thread, &*is_healthy);
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
    /// confirmed it. A beat under way is cut off at once, a registration only after half of that time: one that arrives
    /// late would undo this.
    pub fn deregister(self, within: Duration) -> bool {
        self.shared.deregisters.store(true, Ordering::Release);
        self.shared.leave.set();
        if !self.shared.ended.wait(within / 2) {
            self.shared.hurry.set();
            self.shared.ended.wait(within / 2);
        }
        self.shared.deregistered.load(Ordering::Acquire)
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.shared.leave.set();
        self.shared.hurry.set();
        self.shared.abandon.set();
    }
}

/// Registers and beats until it is time to leave.
fn keep(registry: &mut dyn Registry, name: &str, shared: &Shared, is_healthy: &dyn Fn() -> bool) {
    let mut course = Course::new(now(), registry.renew_every());
    loop {
        let (_, at) = course.next();
        if shared.leave.wait(at.saturating_duration_since(now())) {
            return;
        }
        let is_healthy = is_healthy();
        let (is_due, news) = course.judged(now(), is_healthy);
        note(registry, name, shared, news);
        if !is_due {
            continue;
        }
        let news = match course.next().0 {
            Step::Register => {
                let result = registry.register(&shared.hurry);
                course.registered(now(), result, random_u64())
            }
            Step::Beat => {
                let result = registry.beat(is_healthy, &shared.leave);
                course.beaten(now(), result, random_u64())
            }
        };
        if shared.leave.is_set() {
            return;
        }
        note(registry, name, shared, news);
        shared.registered.store(course.is_registered(), Ordering::Release);
    }
}

/// Tells what is new, and keeps why it is not registered.
fn note(registry: &dyn Registry, name: &str, shared: &Shared, news: Option<News>) {
    let Some(news) = news else { return };
    tell(registry, name, &news);
    match news {
        News::Failing(error) => *shared.failure.lock() = Some(error),
        News::Registered | News::Forgotten(_) | News::Back => *shared.failure.lock() = None,
        News::Missed(_) | News::Resumed | News::Unwell | News::Well => {}
    }
}

fn tell(registry: &dyn Registry, name: &str, news: &News) {
    let place = registry.place();
    match news {
        News::Registered => log::info!("{name} is registered: {place}"),
        News::Forgotten(error) => {
            log::warn!("{name} was forgotten and is registered again: {place}: {error}")
        }
        News::Missed(error) => {
            log::warn!("a beat of {name} has failed, and is tried again: {place}: {error}")
        }
        News::Resumed => log::info!("beats of {name} arrive again: {place}"),
        News::Unwell => log::warn!("{name} is not healthy, and {place} is told so"),
        News::Well => log::info!("{name} is healthy again, and {place} is told so"),
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
            let refused = || RegistryError::refused("a play", 404, "played");
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
        fn beat(&mut self, is_healthy: bool, _: &Stop) -> Result<Option<Duration>, RegistryError> {
            self.ask(if is_healthy { "beat" } else { "unwell" }).map(|()| None)
        }
        fn deregister(&mut self, _: &Stop) -> Result<(), RegistryError> {
            self.ask("deregister")
        }
    }

    fn start() -> (Registrar, Receiver<&'static str>, Sender<bool>) {
        let ((asked, hears), (answer, answers)) = (channel(), channel());
        let played = Box::new(Played { asked, answers });
        let registrar = Registrar::run(played, "chat".to_owned(), Arc::new(|| true)).unwrap();
        (registrar, hears, answer)
    }

    #[test]
    fn beats_say_how_it_is() {
        let ((asked, hears), (answer, answers)) = (channel(), channel());
        let is_healthy = Arc::new(AtomicBool::new(true));
        let of_thread = is_healthy.clone();
        let judge = Arc::new(move || of_thread.load(Ordering::Acquire));
        let played = Box::new(Played { asked, answers });
        let registrar = Registrar::run(played, "chat".to_owned(), judge).unwrap();
        for (expected, next) in [("register", true), ("beat", false), ("unwell", true), ("beat", true)] {
            assert_eq!(hears.recv_timeout(PATIENCE), Ok(expected));
            is_healthy.store(next, Ordering::Release);
            answer.send(true).unwrap();
        }
        drop((registrar, answer));
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
        assert_eq!(registrar.failure().unwrap().to_string(), "a play says 404: played");
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

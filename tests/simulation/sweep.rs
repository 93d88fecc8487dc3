//! Many seeds, on every core; some of them twice.

use moorgate::base::clock::Clock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every so many seeds one is run twice: the second run must be the same.
const REPEAT_EVERY: u64 = 16;
/// A sweep that has found so many gives up.
const FAILURES_MAX: usize = 10;

/// A number that the environment gives.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: no number: {value}")))
}

/// What a run reports, or why it is wrong: a panic is too.
pub fn caught<R>(run: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// What a sweep runs.
pub struct Sweep<R, S> {
    pub run: fn(u64) -> Result<R, String>,
    /// Two runs of one seed have the same.
    pub hash: fn(&R) -> u64,
    /// Adds what a run has seen to what all have.
    pub add: fn(&mut S, R),
    /// The variable and the test by which a seed is replayed.
    pub replay: [&'static str; 2],
}

impl<R, S: Default + Send> Sweep<R, S> {
    /// Runs all of them: what they have seen, and the seconds it took. Fails when one of them does.
    pub fn all(&self, seeds: u64) -> (S, f64) {
        let (next, failures, sums) = (AtomicU64::new(0), Mutex::default(), Mutex::default());
        let clock = Clock::start();
        let begun = clock.read().mono;
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| self.work((&next, seeds), &failures, &sums));
            }
        });
        let failures: Vec<String> = failures.into_inner().unwrap();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        (sums.into_inner().unwrap(), clock.read().mono.since(begun).as_secs_f64().max(0.001))
    }

    fn work(&self, (next, seeds): (&AtomicU64, u64), failures: &Mutex<Vec<String>>, sums: &Mutex<S>) {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || failures.lock().unwrap().len() >= FAILURES_MAX {
                return;
            }
            let failed = match (self.run)(seed) {
                Ok(report) => {
                    let hash = (self.hash)(&report);
                    (self.add)(&mut sums.lock().unwrap(), report);
                    let is_same =
                        || (self.run)(seed).map(|again| (self.hash)(&again)).is_ok_and(|again| again == hash);
                    (seed.is_multiple_of(REPEAT_EVERY) && !is_same())
                        .then(|| "it does not repeat itself".to_owned())
                }
                Err(error) => Some(error),
            };
            if let Some(error) = failed {
                let [variable, test] = self.replay;
                let replay = format!(
                    "{variable}={seed} cargo test --profile ci --test simulation -- --nocapture {test}"
                );
                failures.lock().unwrap().push(format!("seed {seed}: {error}\n  {replay}"));
            }
        }
    }
}

/// Prints how often each path was taken; a sweep that `is_long` must have taken all of them.
pub fn paths(sums: &[(String, u64)], is_long: bool) {
    sums.iter().for_each(|(text, sum)| println!("{sum:>10} {text}"));
    let missed: Vec<&str> = sums.iter().filter(|(_, sum)| *sum == 0).map(|(text, _)| text.as_str()).collect();
    assert!(missed.is_empty() || !is_long, "no seed has reached: {missed:#?}");
}

/// Whether one of the first seeds, run by `run` with a bug in it, fails with these words.
pub fn found<R>(seeds: u64, run: impl Fn(u64) -> Result<R, String>, what: &dyn std::fmt::Debug, words: &str) {
    let errors: Vec<String> = (0..seeds).filter_map(|seed| run(seed).err()).collect();
    assert!(errors.iter().any(|error| error.contains(words)), "{what:?} was not found: {errors:?}");
}

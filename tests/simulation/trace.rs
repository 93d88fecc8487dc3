//! What happened: always as a hash, and for one seed as text.

use moorgate_proto::time::Mono;

pub struct Trace {
    hash: u64,
    printed: bool,
}

impl Trace {
    pub fn new(printed: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, printed }
    }

    pub fn note(&mut self, now: Mono, what: &str, (a, b): (u64, u64), text: impl FnOnce() -> String) {
        for part in [now.as_nanos(), what.len() as u64, a, b] {
            self.hash = (self.hash ^ part).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        if self.printed {
            println!("{:>12.6} {what:<8} {}", now.as_nanos() as f64 / 1e9, text());
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}

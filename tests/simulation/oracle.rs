//! Judges a run by what clients asked and heard and what services ran, never by what the gateway believes.

use moorgate_proto::status::Code;
use moorgate_proto::v1::{Execution, Source};
use std::collections::BTreeMap;
use std::time::Duration;

/// One request: of which session of which client, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked {
    pub incarnation: u32,
    pub up_seq: u64,
}

impl Asked {
    pub const BYTES: usize = 12;

    pub fn to_bytes(self) -> [u8; Asked::BYTES] {
        let mut bytes = [0; Asked::BYTES];
        bytes[..4].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes[4..].copy_from_slice(&self.up_seq.to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Asked {
        Asked {
            incarnation: u32::from_be_bytes(bytes[..4].try_into().unwrap()),
            up_seq: u64::from_be_bytes(bytes[4..Asked::BYTES].try_into().unwrap()),
        }
    }
}

/// How a request ended, as its client heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub code: Option<Code>,
    pub source: Source,
    pub execution: Execution,
}

#[derive(Debug, Default)]
struct Entry {
    payload: Vec<u8>,
    /// By which services know a request that is asked again.
    key: Vec<u8>,
    heard: Option<Heard>,
    runs: u32,
}

/// A call of an ordered route that a service is running.
#[derive(Debug, Clone, Copy)]
struct Running {
    asked: Asked,
    connection: usize,
    /// Its own one of a pair; `connection` is the main link's, for both.
    own: usize,
    /// Before then the gateway waits for its reply.
    until: Duration,
}

#[derive(Debug, Default)]
pub struct Oracle {
    entries: BTreeMap<Asked, Entry>,
    ordered: BTreeMap<u32, Running>,
    pub violation: Option<String>,
    pub answered: u64,
    pub unanswered: u64,
}

impl Oracle {
    pub fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub fn asked(&mut self, asked: Asked, payload: &[u8], key: &[u8]) {
        let entry = Entry { payload: payload.to_vec(), key: key.to_vec(), ..Entry::default() };
        if self.entries.insert(asked, entry).is_some() {
            self.violated(format!("{asked:?} was asked twice"));
        }
    }

    /// A service runs a call.
    pub fn ran(&mut self, asked: Asked, payload: &[u8], key: &[u8]) {
        let Some(entry) = self.entries.get_mut(&asked) else {
            return self.violated(format!("{asked:?} was run and never asked"));
        };
        entry.runs += 1;
        let (runs, same) = (entry.runs, entry.payload == payload && entry.key == key);
        if runs > 1 {
            self.violated(format!("{asked:?} was run {runs} times"));
        }
        if !same {
            self.violated(format!("{asked:?} was run with another payload or key"));
        }
    }

    /// A service runs a call of an ordered route, which came over this connection; the gateway waits until then, unless it
    /// has ended the bulk link of the call: before it can write the end of the stream.
    pub fn ran_in_order(
        &mut self,
        asked: Asked,
        (connection, own): (usize, usize),
        (now, until): (Duration, Duration),
        may_be_ended: impl Fn(usize) -> bool,
    ) {
        let before = self.ordered.insert(asked.incarnation, Running { asked, connection, own, until });
        let Some(before) = before.filter(|before| before.connection == connection) else { return };
        if before.own != connection && may_be_ended(before.own) {
            return;
        }
        if before.asked.up_seq >= asked.up_seq {
            // One whose grace had ended may come late on the other link of its pair.
            if before.own != own {
                return;
            }
            self.violated(format!("{asked:?} ran after {:?}", before.asked));
        } else if now < before.until {
            self.violated(format!("{asked:?} ran while {:?} had no reply", before.asked));
        }
    }

    /// The gateway has given up a connection: if it was one of a pair, those that run on it are lost, and the other goes on.
    pub fn given_up(&mut self, own: usize) {
        self.ordered.retain(|_, running| running.own != own || running.connection == own);
    }

    /// A service has replied to a call of an ordered route.
    pub fn replied_in_order(&mut self, asked: Asked) {
        if let Some(running) = self.ordered.get_mut(&asked.incarnation)
            && running.asked == asked
        {
            running.until = Duration::ZERO;
        }
    }

    /// A client hears an outcome; `payload` of a Response that is OK.
    pub fn heard(&mut self, asked: Asked, heard: Heard, payload: Option<&[u8]>) {
        let Some(entry) = self.entries.get_mut(&asked) else {
            return self.violated(format!("{asked:?} was answered and never asked"));
        };
        let problem = match (entry.heard, payload) {
            (Some(before), _) => Some(format!("heard {heard:?} after {before:?}")),
            (None, Some(payload)) if payload != entry.payload => Some("got another's payload".to_owned()),
            (None, _) if heard.code == Some(Code::Ok) && entry.runs == 0 => {
                Some("succeeded and was never run".to_owned())
            }
            (None, _) => None,
        };
        entry.heard = Some(heard);
        match heard.code {
            Some(_) => self.answered += 1,
            None => self.unanswered += 1,
        }
        if let Some(problem) = problem {
            self.violated(format!("{asked:?} {problem}"));
        }
    }

    /// All is calm: every outcome was heard.
    pub fn all_heard(&mut self) {
        if let Some((asked, _)) = self.entries.iter().find(|(_, entry)| entry.heard.is_none()) {
            let asked = *asked;
            self.violated(format!("{asked:?} was never answered"));
        }
    }

    /// Nothing can run any more: what was said of executions was true.
    pub fn executions_were_true(&mut self) {
        let lie = self.entries.iter().find_map(|(asked, entry)| {
            let heard = entry.heard?;
            match (heard.execution, entry.runs) {
                (Execution::NotExecuted, 1..) => Some(format!("{asked:?} ran; its client heard {heard:?}")),
                (Execution::Executed, 0) => Some(format!("{asked:?} never ran; its client heard {heard:?}")),
                (Execution::Unspecified, _) => Some(format!("{asked:?} heard {heard:?}")),
                _ => None,
            }
        });
        if let Some(lie) = lie {
            self.violated(lie);
        }
    }
}

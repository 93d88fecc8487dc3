//! How other threads reach the loop: what they have for it, and the bell that wakes it.

use crate::core::CancelFlag;
use crate::dedup::DedupKey;
use crate::push::{LinkId, Submission};
use crate::reply::EncodedReply;
use crossbeam_channel::{Receiver, Sender, unbounded};
use moorgate_proto::v1;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// One call, wherever its answer is made.
#[derive(Debug, Clone)]
pub(crate) struct CallPlace {
    pub(crate) link: LinkId,
    pub(crate) call_id: u64,
    pub(crate) cancel: CancelFlag,
    /// Its reply is to be remembered.
    pub(crate) dedup: Option<DedupKey>,
}

/// What a thread has for the loop.
#[derive(Debug)]
pub(crate) enum Mail {
    Reply { place: CallPlace, reply: EncodedReply },
    Verdict { link: LinkId, verdict: v1::SessionVerdict },
    Push(Box<Submission>),
}

/// The loop's letter box. It is not bounded itself: each call and each check has one answer at most, and pushes have
/// their own bound. So posting never blocks, and handlers may answer each other's calls.
#[derive(Debug)]
pub(crate) struct Post {
    sender: Sender<Mail>,
    /// Set once there is a loop.
    waker: OnceLock<mio::Waker>,
    /// The loop was woken, and has not looked since.
    rung: AtomicBool,
}

impl Post {
    pub(crate) fn new() -> (Post, Receiver<Mail>) {
        let (sender, receiver) = unbounded();
        (Post { sender, waker: OnceLock::new(), rung: AtomicBool::new(false) }, receiver)
    }

    /// The loop exists; it looks once by itself.
    pub(crate) fn connect(&self, waker: mio::Waker) {
        let _ = self.waker.set(waker);
    }

    /// `Err`: the loop has ended.
    pub(crate) fn send(&self, mail: Mail) -> Result<(), Mail> {
        self.sender.send(mail).map_err(|error| error.0)?;
        self.wake();
        Ok(())
    }

    /// The loop looks at everything that was set or sent before.
    pub(crate) fn wake(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.waker.get()
        {
            let _ = waker.wake();
        }
    }

    /// From now on the loop is woken again. To be said before it looks.
    pub(crate) fn answer_bell(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

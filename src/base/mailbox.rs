//! A bounded mailbox between two threads, with the receiver's bell.
//!
//! Sending never blocks: a full mailbox gives the message back. Sending does not ring either, so that one ring
//! serves a whole turn's messages.

use crate::base::bell::{Bell, Wake};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::sync::Arc;

/// The sending half.
#[derive(Debug)]
pub struct Outbox<T, W> {
    sender: Sender<T>,
    bell: Arc<Bell<W>>,
}

impl<T, W> Clone for Outbox<T, W> {
    fn clone(&self) -> Self {
        Outbox { sender: self.sender.clone(), bell: self.bell.clone() }
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Inbox<T> {
    receiver: Receiver<T>,
}

/// A mailbox for at most `capacity` messages to the thread that sleeps by `bell`.
pub fn mailbox<T, W>(capacity: usize, bell: Arc<Bell<W>>) -> (Outbox<T, W>, Inbox<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    (Outbox { sender, bell }, Inbox { receiver })
}

impl<T, W: Wake> Outbox<T, W> {
    /// Puts a message in without ringing.
    ///
    /// # Errors
    /// Gives the message back when the mailbox is full, or its receiver is gone.
    pub fn post(&self, message: T) -> Result<(), T> {
        self.sender.try_send(message).map_err(|error| match error {
            TrySendError::Full(message) | TrySendError::Disconnected(message) => message,
        })
    }

    /// Rings the receiver's bell, for everything posted since the last ring.
    pub fn ring(&self) {
        self.bell.ring();
    }
}

impl<T> Inbox<T> {
    /// The next message, if there is one.
    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Takes what is there now, and not what comes meanwhile: whoever posts without a pause does not keep the reader.
    pub fn waiting(&self) -> impl Iterator<Item = T> {
        self.receiver.try_iter().take(self.receiver.len())
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug, Default)]
    struct Rings(Arc<AtomicUsize>);

    impl Wake for Rings {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_full_mailbox_gives_the_message_back_and_an_awake_receiver_is_not_rung() {
        let rings = Arc::new(AtomicUsize::new(0));
        let bell = Arc::new(Bell::new(Rings(rings.clone())));
        let (outbox, inbox) = mailbox(1, bell.clone());
        assert_eq!(outbox.post(1), Ok(()));
        assert_eq!(outbox.post(2), Err(2));
        outbox.ring();
        assert_eq!(rings.load(Ordering::Relaxed), 0);
        assert_eq!(inbox.take(), Some(1));
        assert!(bell.arm(|| inbox.is_empty()));
        outbox.ring();
        bell.disarm();
        assert_eq!(rings.load(Ordering::Relaxed), 1);
        outbox.post(2).unwrap();
        let taken: Vec<_> = inbox.waiting().inspect(|taken| outbox.post(taken + 1).unwrap()).collect();
        assert_eq!((taken, inbox.take()), (vec![2], Some(3)));
        drop(inbox);
        assert_eq!(outbox.post(3), Err(3));
    }
}

//! The upward stream: each request admitted at most once, in order, and answered exactly once.

use super::Fault;
use crate::base::ids::Ticket;

/// What a numbered frame is to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The next one: to be admitted.
    Next,
    /// Admitted before: to be ignored.
    Repeated,
}

/// What a Cancel names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelTarget {
    /// The next number: to be consumed as cancelled.
    Next,
    /// A call that is outstanding.
    Outstanding(Ticket),
    /// Answered, or about to be: nothing to do.
    Answered,
}

#[derive(Debug)]
struct Pending {
    up_seq: u64,
    ticket: Ticket,
}

/// The numbers of one session's requests.
#[derive(Debug, Default)]
pub struct Up {
    admitted: u64,
    /// Requests that were forwarded and have no answer, by rising number. Short: bounded by the in-flight limit.
    pending: Vec<Pending>,
}

impl Up {
    /// The highest number admitted.
    pub fn admitted(&self) -> u64 {
        self.admitted
    }

    /// Requests without an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Where a numbered frame belongs.
    ///
    /// # Errors
    /// [`Fault::SequenceGap`] when one before it is missing; [`Fault::NumberMissing`] for number 0.
    pub fn arrive(&self, up_seq: u64) -> Result<Arrival, Fault> {
        let expected = self.admitted.saturating_add(1);
        match up_seq {
            0 => Err(Fault::NumberMissing),
            _ if up_seq == expected => Ok(Arrival::Next),
            _ if up_seq < expected => Ok(Arrival::Repeated),
            _ => Err(Fault::SequenceGap { expected, got: up_seq }),
        }
    }

    /// Consumes the next number.
    pub fn admit(&mut self) -> u64 {
        self.admitted = self.admitted.saturating_add(1);
        self.admitted
    }

    /// Notes that the number just admitted is outstanding under `ticket`.
    pub fn forwarded(&mut self, up_seq: u64, ticket: Ticket) {
        debug_assert!(self.pending.last().is_none_or(|last| last.up_seq < up_seq));
        self.pending.push(Pending { up_seq, ticket });
    }

    /// Notes that a request has its answer; whether it was waiting for one.
    pub fn answered(&mut self, up_seq: u64) -> bool {
        match self.position(up_seq) {
            Some(at) => {
                self.pending.remove(at);
                true
            }
            None => false,
        }
    }

    /// What a Cancel of `up_seq` means.
    ///
    /// # Errors
    /// As [`Up::arrive`].
    pub fn cancel(&self, up_seq: u64) -> Result<CancelTarget, Fault> {
        Ok(match self.arrive(up_seq)? {
            Arrival::Next => CancelTarget::Next,
            Arrival::Repeated => match self.position(up_seq).and_then(|at| self.pending.get(at)) {
                Some(pending) => CancelTarget::Outstanding(pending.ticket),
                None => CancelTarget::Answered,
            },
        })
    }

    fn position(&self, up_seq: u64) -> Option<usize> {
        self.pending.binary_search_by_key(&up_seq, |pending| pending.up_seq).ok()
    }

    /// Gives back the memory of an empty list.
    pub fn shrink(&mut self) {
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }

    /// Whether it holds no memory but its own.
    #[cfg(test)]
    pub(super) fn is_bare(&self) -> bool {
        self.pending.capacity() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: E-11, U-2, U-3, U-4
    #[test]
    fn numbers_are_consumed_once_and_in_order() {
        let mut up = Up::default();
        assert_eq!(up.arrive(0), Err(Fault::NumberMissing));
        assert_eq!(up.arrive(2), Err(Fault::SequenceGap { expected: 1, got: 2 }));
        assert_eq!(up.arrive(1), Ok(Arrival::Next));
        assert_eq!(up.admit(), 1);
        assert_eq!(up.arrive(1), Ok(Arrival::Repeated));
    }

    // spec: C-2, C-5, U-5
    #[test]
    fn each_is_answered_once() {
        let mut up = Up::default();
        let tickets = [Ticket::new(1, 0), Ticket::new(2, 0), Ticket::new(3, 0)];
        for ticket in tickets {
            let up_seq = up.admit();
            up.forwarded(up_seq, ticket);
        }
        assert_eq!(up.cancel(2), Ok(CancelTarget::Outstanding(tickets[1])));
        assert!(up.answered(2));
        assert!(!up.answered(2));
        assert_eq!(up.cancel(2), Ok(CancelTarget::Answered));
        assert_eq!(up.cancel(4), Ok(CancelTarget::Next));
        assert_eq!(up.cancel(5), Err(Fault::SequenceGap { expected: 4, got: 5 }));
        assert_eq!(up.pending(), 2);
    }
}

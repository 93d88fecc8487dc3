//! `order = session`: the calls of one session go to one link, one at a time.

use crate::base::ids::{CallKey, LinkKey, SessionId, SessionKey, ShardId};
use std::collections::{HashMap, VecDeque};

/// Whose calls stand in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) shard: ShardId,
    pub(super) session: SessionKey,
}

#[derive(Debug)]
struct Queue {
    /// The session, as services know it.
    session_id: SessionId,
    /// The one that may be sent, or was.
    head: Option<CallKey>,
    /// Where calls of this line went last, while the line is not empty.
    link: Option<LinkKey>,
    behind: VecDeque<CallKey>,
}

/// The lines of one service that are not empty.
#[derive(Debug, Default)]
pub(super) struct Orders {
    lines: HashMap<Line, Queue, foldhash::fast::FixedState>,
}

impl Orders {
    /// Puts a call at the end of its line; whether it is the head.
    pub(super) fn join(&mut self, line: Line, session_id: SessionId, call: CallKey) -> bool {
        let empty = Queue { session_id, head: None, link: None, behind: VecDeque::new() };
        let queue = self.lines.entry(line).or_insert(empty);
        match queue.head {
            None => {
                queue.head = Some(call);
                true
            }
            Some(_) => {
                queue.behind.push_back(call);
                false
            }
        }
    }

    /// Whether a call is the head of its line.
    pub(super) fn is_head(&self, line: Line, call: CallKey) -> bool {
        self.lines.get(&line).is_some_and(|queue| queue.head == Some(call))
    }

    /// The link that the line's calls went to.
    pub(super) fn link(&self, line: Line) -> Option<LinkKey> {
        self.lines.get(&line)?.link
    }

    /// The link that the calls of a session went to.
    pub(super) fn link_of(&self, session_id: SessionId) -> Option<LinkKey> {
        self.lines.values().filter(|queue| queue.session_id == session_id).find_map(|queue| queue.link)
    }

    /// The session of a line, as services know it.
    pub(super) fn session_id(&self, line: Line) -> Option<SessionId> {
        self.lines.get(&line).map(|queue| queue.session_id)
    }

    /// Notes where the head was sent.
    pub(super) fn sent(&mut self, line: Line, link: LinkKey) {
        if let Some(queue) = self.lines.get_mut(&line) {
            queue.link = Some(link);
        }
    }

    /// The head goes elsewhere than the calls before it.
    pub(super) fn unpin(&mut self, line: Line) {
        if let Some(queue) = self.lines.get_mut(&line) {
            queue.link = None;
        }
    }

    /// The head has another key from now on.
    pub(super) fn replace(&mut self, line: Line, old: CallKey, new: CallKey) {
        if let Some(queue) = self.lines.get_mut(&line)
            && queue.head == Some(old)
        {
            queue.head = Some(new);
        }
    }

    /// Takes a finished call out; the new head, if it was the head and another stands behind it.
    pub(super) fn leave(&mut self, line: Line, call: CallKey) -> Option<CallKey> {
        let queue = self.lines.get_mut(&line)?;
        if queue.head == Some(call) {
            queue.head = queue.behind.pop_front();
            if queue.head.is_none() {
                self.lines.remove(&line);
                return None;
            }
            return queue.head;
        }
        queue.behind.retain(|behind| *behind != call);
        None
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: L-29
    #[test]
    fn one_at_a_time_in_order() {
        let line = Line { shard: ShardId(0), session: SessionKey::new(1, 0) };
        let call = |n| CallKey::new(n, 0);
        let mut orders = Orders::default();
        let id = SessionId([7; 16]);
        assert!(orders.join(line, id, call(1)));
        assert!(!orders.join(line, id, call(2)) && !orders.join(line, id, call(3)));
        orders.sent(line, LinkKey::new(7, 0));
        assert_eq!(orders.leave(line, call(2)), None, "cancelled while it waited");
        assert_eq!(orders.leave(line, call(1)), Some(call(3)));
        assert_eq!(orders.link(line), Some(LinkKey::new(7, 0)));
        assert_eq!((orders.session_id(line), orders.link_of(id)), (Some(id), orders.link(line)));
        assert!(orders.is_head(line, call(3)));
        assert_eq!(orders.leave(line, call(3)), None);
        assert!(orders.is_empty());
    }
}

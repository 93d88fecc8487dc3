//! The upward stream as its sender keeps it: numbers, what is sent and unanswered, what waits for a place in flight.
//! A session that may be resumed keeps its requests whole, so that they can be sent again.

use super::{Fault, RequestOptions};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Execution;
use moorgate_proto::view::RequestView;
use std::collections::VecDeque;
use std::time::Duration;

/// A request, kept to be sent later or again.
#[derive(Debug)]
pub(super) struct Request {
    command: u32,
    version: u32,
    timeout: Duration,
    key: Box<[u8]>,
    payload: Box<[u8]>,
}

impl Request {
    pub(super) fn new(options: &RequestOptions<'_>, payload: &[u8]) -> Request {
        Request {
            command: options.command,
            version: options.version,
            timeout: options.timeout,
            key: options.idempotency_key.into(),
            payload: payload.into(),
        }
    }

    /// As it is written with this time.
    pub(super) fn view(&self, timeout: Duration) -> RequestView<'_> {
        RequestView {
            command: self.command,
            version: self.version,
            timeout_ms: millis(timeout),
            idempotency_key: &self.key,
            payload: &self.payload,
            ..RequestView::default()
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// What waits for a place: its number is its place in the queue.
#[derive(Debug)]
pub(super) enum Waiting {
    Request(Request),
    /// It was cancelled before it was sent.
    Cancelled,
}

/// Sent and unanswered.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: u64,
    /// `NEVER`: its time is the route's own.
    pub(super) due: Mono,
    pub(super) is_cancelled: bool,
    /// It was sent on an earlier connection only.
    pub(super) is_of_earlier: bool,
    /// `None`: the session is not resumed, or it is nothing but a number to be consumed.
    pub(super) request: Option<Request>,
}

impl Open {
    pub(super) fn new(now: Mono, id: u64, timeout: Duration, request: Option<Request>) -> Open {
        let due = if timeout.is_zero() { Mono::NEVER } else { now + timeout };
        Open { id, due, is_cancelled: false, is_of_earlier: false, request }
    }

    /// What is left of its time, for another sending; `None`: it must not run any more.
    pub(super) fn left(&self, now: Mono) -> Option<Duration> {
        match self.due {
            _ if self.is_cancelled => None,
            Mono::NEVER => Some(Duration::ZERO),
            due => Some(due.since(now)).filter(|left| !left.is_zero()),
        }
    }
}

/// What a cancel has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancels {
    /// Tell the gateway.
    Sent,
    /// Nothing: it had not been sent, or is answered.
    Nothing,
}

/// Whose answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// Of a request of this connection.
    Own,
    /// Of a request that an earlier connection has brought.
    OfEarlier,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Upward {
    /// Requests are kept whole.
    keeps: bool,
    /// The last number given to a request.
    numbered: u64,
    /// By rising number.
    open: VecDeque<Open>,
    waiting: VecDeque<Waiting>,
    in_flight_max: usize,
    /// An Error has said that nothing above was admitted.
    admitted_max: u64,
    /// Requests of an earlier process that are in flight, as far as is known.
    strays: usize,
    /// Up to this number requests may be an earlier process's.
    strays_max: u64,
    /// All that is known of an earlier process is not settled yet.
    is_restored: bool,
}

impl Upward {
    pub(super) fn new(keeps: bool) -> Upward {
        Upward {
            keeps,
            numbered: 0,
            open: VecDeque::new(),
            waiting: VecDeque::new(),
            in_flight_max: 0,
            admitted_max: u64::MAX,
            strays: 0,
            strays_max: 0,
            is_restored: false,
        }
    }

    /// Of an earlier process, which had so many in flight when it had sent this number.
    pub(super) fn restored(numbered: u64, in_flight: usize) -> Upward {
        Upward { numbered, strays: in_flight, is_restored: true, ..Upward::new(true) }
    }

    pub(super) fn set_in_flight_max(&mut self, in_flight_max: usize) {
        self.in_flight_max = in_flight_max;
    }

    /// The last number that was sent.
    pub(super) fn sent(&self) -> u64 {
        self.numbered.saturating_sub(self.waiting.len() as u64)
    }

    /// In flight but for Responses that are not acknowledged.
    pub(super) fn in_flight(&self) -> usize {
        self.open.len().saturating_add(self.strays)
    }

    /// Places for requests, when Responses hold so many.
    pub(super) fn free_places(&self, kept_places: usize) -> usize {
        self.in_flight_max.saturating_sub(self.in_flight().saturating_add(kept_places))
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests without an answer.
    pub(super) fn unanswered(&self) -> usize {
        self.open.len().saturating_add(self.waiting.len())
    }

    /// The next request is sent now; its number.
    pub(super) fn send(&mut self, now: Mono, options: &RequestOptions<'_>, payload: &[u8]) -> u64 {
        let request = self.keeps.then(|| Request::new(options, payload));
        self.numbered = self.numbered.saturating_add(1);
        self.open.push_back(Open::new(now, self.numbered, options.timeout, request));
        self.numbered
    }

    /// The next request waits; its number.
    pub(super) fn wait(&mut self, options: &RequestOptions<'_>, payload: &[u8]) -> u64 {
        self.numbered = self.numbered.saturating_add(1);
        self.waiting.push_back(Waiting::Request(Request::new(options, payload)));
        self.numbered
    }

    /// What waits longest, with its number.
    pub(super) fn next_waiting(&mut self) -> Option<(u64, Waiting)> {
        let id = self.sent().saturating_add(1);
        self.waiting.pop_front().map(|waiting| (id, waiting))
    }

    /// What waited was sent.
    pub(super) fn opened(&mut self, now: Mono, id: u64, request: Option<Request>) {
        let timeout = request.as_ref().map_or(Duration::ZERO, Request::timeout);
        let is_cancelled = request.is_none();
        let request = request.filter(|_| self.keeps);
        self.open.push_back(Open { is_cancelled, ..Open::new(now, id, timeout, request) });
    }

    /// A request is not wanted any more.
    pub(super) fn cancel(&mut self, id: u64) -> Cancels {
        let sent = self.sent();
        if id > sent {
            let at = usize::try_from(id.saturating_sub(sent).saturating_sub(1)).unwrap_or(usize::MAX);
            if let Some(waiting) = self.waiting.get_mut(at) {
                *waiting = Waiting::Cancelled;
            }
            return Cancels::Nothing;
        }
        match self.open.binary_search_by_key(&id, |open| open.id) {
            Ok(at) => {
                if let Some(open) = self.open.get_mut(at) {
                    open.is_cancelled = true;
                }
                Cancels::Sent
            }
            Err(_) => Cancels::Nothing,
        }
    }

    /// A Response to this request has come.
    pub(super) fn answered(&mut self, id: u64) -> Result<Answered, Fault> {
        match self.open.binary_search_by_key(&id, |open| open.id) {
            Ok(at) => {
                let is_of_earlier = self.open.remove(at).is_some_and(|open| open.is_of_earlier);
                Ok(if is_of_earlier { Answered::OfEarlier } else { Answered::Own })
            }
            Err(_) if (1..=self.strays_max).contains(&id) => {
                self.strays = self.strays.saturating_sub(1);
                Ok(Answered::OfEarlier)
            }
            Err(_) => Err(Fault::UnknownRequest(id)),
        }
    }

    /// An Error has said what was admitted.
    pub(super) fn set_admitted_max(&mut self, admitted: u64) {
        self.admitted_max = admitted;
    }

    /// The session is resumed: what is open above the number admitted, to be sent again and given back with
    /// [`Upward::resent`].
    pub(super) fn resumed(&mut self, admitted: u64) -> Result<VecDeque<Open>, Fault> {
        self.admitted_max = u64::MAX;
        let sent = self.sent();
        if self.is_restored {
            // What of the earlier process's requests was not admitted is nobody's: its numbers are free.
            let strays = (self.strays as u64).saturating_add(admitted);
            let strays = strays.checked_sub(sent).ok_or(Fault::Admitted(admitted))?;
            self.strays = usize::try_from(strays).unwrap_or(usize::MAX);
            (self.numbered, self.strays_max, self.is_restored) = (admitted, admitted, false);
            return Ok(VecDeque::new());
        }
        let at = self.open.partition_point(|open| open.id <= admitted);
        // What is answered was admitted.
        if admitted > sent || sent.saturating_sub(admitted) != self.open.len().saturating_sub(at) as u64 {
            return Err(Fault::Admitted(admitted));
        }
        let above = self.open.split_off(at);
        self.open.iter_mut().for_each(|open| open.is_of_earlier = true);
        Ok(above)
    }

    /// What was sent again is open as before.
    pub(super) fn resent(&mut self, mut above: VecDeque<Open>) {
        self.open.append(&mut above);
    }

    /// The numbers of cancelled requests that are open, up to this one.
    pub(super) fn cancelled_up_to(&self, admitted: u64) -> Vec<u64> {
        let open = self.open.iter().take_while(|open| open.id <= admitted);
        open.filter(|open| open.is_cancelled).map(|open| open.id).collect()
    }

    /// The session is over: each request without an answer, and what is known of it.
    pub(super) fn settle(&mut self) -> impl Iterator<Item = (u64, Execution)> + use<> {
        let (sent, numbered) = (self.sent(), self.numbered);
        let admitted = self.admitted_max.min(sent);
        self.waiting.clear();
        let open = std::mem::take(&mut self.open).into_iter().map(|open| open.id);
        open.chain(sent.saturating_add(1)..=numbered)
            .map(move |id| (id, if id > admitted { Execution::NotExecuted } else { Execution::Unknown }))
    }
}

/// Rounded up: zero means something else.
pub(super) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

//! What one client has asked, and what has come to it, read from the wire beside the client kit: what the kit would
//! leave out as a repeat is counted here.

use crate::connection::{Sent, failure};
use crate::ledger::Ledger;
use crate::pattern::Pattern;
use crate::receiver::JOIN;
use crate::roamer::Heard;
use crate::streams::Streams;
use moorgate_client::core::RequestId;
use moorgate_proto::codec::Assembler;
use moorgate_proto::envelope::Envelope;
use moorgate_proto::envelope::member::gateway;
use moorgate_proto::limits::FRAME_BYTES_CEILING;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Execution, Gap, ResumeResult};
use moorgate_proto::view::{PushView, ResponseView};
use prost::Message;
use std::collections::VecDeque;
use std::sync::Arc;

/// The command of the requests.
pub(crate) const REQUEST: u32 = 0x0102;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// A request's own echo; it was made at that time.
    Echo(Mono),
    /// The connection is in its group.
    Joined,
    /// It is not yet, because there is no link to the service; in words.
    NotJoined(String),
    /// It will not be, in words.
    JoinRefused(String),
    /// An answer to what is answered already.
    AnsweredTwice,
    /// An answer that is no success, in words.
    Refused(String),
    /// An answer or a push that nobody has sent so.
    Wrong(&'static str),
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Books {
    number: u32,
    streams: Arc<Streams>,
    assembler: Assembler,
    /// Requests that were made, which is the next one's number.
    asked: u64,
    open: VecDeque<Sent>,
    /// The last request of this session.
    last: RequestId,
    joining: Option<RequestId>,
    pub(crate) ledgers: Vec<Ledger>,
    /// Pushes of which the gateway has said that they will not come: their ledgers miss them.
    pub(crate) gaps: u64,
}

impl Books {
    pub(crate) fn new(number: u32, streams: Arc<Streams>) -> Books {
        Books {
            number,
            ledgers: streams.ledgers(),
            streams,
            assembler: Assembler::default(),
            asked: 0,
            open: VecDeque::new(),
            last: RequestId(0),
            joining: None,
            gaps: 0,
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Requests that were made.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// Requests without an answer.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// The next request's payload.
    pub(crate) fn request<'a>(&self, pattern: &'a mut Pattern) -> &'a [u8] {
        pattern.fill(self.number, self.asked)
    }

    /// It was made, at that time.
    pub(crate) fn made(&mut self, id: RequestId, at: Mono) {
        self.open.push_back(Sent { id, counter: self.asked, at });
        self.asked = self.asked.saturating_add(1);
        self.last = id;
    }

    /// The payload by which the connection joins its group.
    pub(crate) fn join(&self) -> (u32, [u8; 4]) {
        (JOIN, self.streams.group_of(self.number).to_be_bytes())
    }

    /// It joins.
    pub(crate) fn joins(&mut self, id: RequestId) {
        (self.joining, self.last) = (Some(id), id);
    }

    /// There is another connection.
    pub(crate) fn reconnected(&mut self) {
        self.assembler.clear();
    }

    /// A request will have no answer. Whether it was one of those that are counted.
    pub(crate) fn unanswered(&mut self, id: RequestId) -> bool {
        let at = self.open.iter().position(|sent| sent.id == id);
        at.and_then(|at| self.open.remove(at)).is_some()
    }

    /// Another session: its numbers begin again.
    pub(crate) fn begin_anew(&mut self) {
        (self.last, self.joining) = (RequestId(0), None);
    }

    /// Bytes from the connection; `patterns` are those of requests and of pushes.
    pub(crate) fn read(
        &mut self,
        mut bytes: &[u8],
        patterns: (&Pattern, &Pattern),
        visit: &mut impl FnMut(Read),
    ) {
        let mut assembler = std::mem::take(&mut self.assembler);
        while let Ok(Some(frame)) = assembler.next(&mut bytes, FRAME_BYTES_CEILING) {
            let member = Envelope::decode(frame).ok().and_then(|envelope| envelope.member);
            match member {
                Some((gateway::RESPONSE, body)) => match ResponseView::decode(body) {
                    Ok(view) => visit(self.response(&view, patterns.0)),
                    Err(_) => visit(Read::Wrong("a Response that cannot be read")),
                },
                Some((gateway::PUSH, body)) => {
                    let view = PushView::decode(body).ok();
                    let place = view.and_then(|view| self.streams.place(self.number, &view, patterns.1));
                    match place {
                        Some((stream, count)) => self.came(stream, count),
                        None => visit(Read::Wrong("a push that is not for this connection")),
                    }
                }
                Some((gateway::GAP, body)) => self.gap(&Gap::decode(body).unwrap_or_default()),
                _ => {}
            }
        }
        self.assembler = assembler;
    }

    /// Raw frames from a bare server. The first one of a connection says that it is open; the others are echoes, in order.
    pub(crate) fn read_raw(
        &mut self,
        mut bytes: &[u8],
        pattern: &Pattern,
        is_open: bool,
        visit: &mut impl FnMut(Read),
    ) -> Option<Heard> {
        let mut first = None;
        let mut assembler = std::mem::take(&mut self.assembler);
        while let Ok(Some(frame)) = assembler.next(&mut bytes, FRAME_BYTES_CEILING) {
            if !is_open && first.is_none() {
                first = Some(Heard::Fresh(ResumeResult::None));
                continue;
            }
            visit(match self.open.pop_front() {
                Some(sent) if pattern.matches(self.number, sent.counter, frame) => Read::Echo(sent.at),
                _ => Read::Wrong("a frame that is not its request's echo"),
            });
        }
        self.assembler = assembler;
        first
    }

    fn response(&mut self, view: &ResponseView<'_>, pattern: &Pattern) -> Read {
        let id = RequestId(view.up_seq);
        let is_ok = view.status == Code::Ok.to_wire();
        if self.joining == Some(id) {
            self.joining = None;
            let is_absent = view.execution == i32::from(Execution::NotExecuted);
            return match is_ok {
                true => Read::Joined,
                false if is_absent && view.status == Code::Unavailable.to_wire() => {
                    Read::NotJoined(failure(view))
                }
                false => Read::JoinRefused(failure(view)),
            };
        }
        let Some(at) = self.open.iter().position(|sent| sent.id == id) else {
            let was_asked = (RequestId(1)..=self.last).contains(&id);
            return if was_asked { Read::AnsweredTwice } else { Read::Wrong("an answer to no request") };
        };
        let Some(sent) = self.open.remove(at) else { return Read::AnsweredTwice };
        match is_ok {
            true if pattern.matches(self.number, sent.counter, view.payload) => Read::Echo(sent.at),
            true => Read::Wrong("an answer that is not its request's echo"),
            false => Read::Refused(failure(view)),
        }
    }

    fn came(&mut self, stream: usize, count: u64) {
        if let Some(ledger) = self.ledgers.get_mut(stream)
            && ledger.came(count)
        {
            self.streams.arrived(1);
        }
    }

    fn gap(&mut self, gap: &Gap) {
        let numbered = if gap.first == 0 { 0 } else { gap.last.saturating_sub(gap.first).saturating_add(1) };
        let count = gap.count.saturating_add(numbered);
        self.gaps = self.gaps.saturating_add(count);
        self.streams.arrived(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::STAMP_BYTES;
    use moorgate_proto::codec::put_frame;
    use moorgate_proto::envelope::Numbers;
    use moorgate_proto::view::Body;

    /// What the books of a client say to a frame.
    fn read(books: &mut Books, member: u32, body: &impl Body) -> Vec<Read> {
        let (mut bytes, mut reads) = (Vec::new(), Vec::new());
        put_frame(&mut bytes, Numbers { seq: 1, ack: 0 }, member, body);
        let patterns = (&Pattern::new(20), &Pattern::new(STAMP_BYTES));
        // In two parts, as the network may have it.
        let (head, tail) = bytes.split_at(3);
        books.read(head, patterns, &mut |read| reads.push(read));
        books.read(tail, patterns, &mut |read| reads.push(read));
        reads
    }

    fn answer(books: &mut Books, up_seq: u64, payload: &[u8], status: Code) -> Vec<Read> {
        let view = ResponseView { up_seq, payload, status: status.to_wire(), ..ResponseView::default() };
        read(books, gateway::RESPONSE, &view)
    }

    #[test]
    fn each_answer_is_judged_by_its_request() {
        let mut books = Books::new(3, Arc::new(Streams::none()));
        let mut pattern = Pattern::new(20);
        let mut payloads = Vec::new();
        for id in 1..=3 {
            payloads.push(books.request(&mut pattern).to_vec());
            books.made(RequestId(id), Mono::from_nanos(id));
        }
        assert_eq!(answer(&mut books, 2, &payloads[1], Code::Ok), [Read::Echo(Mono::from_nanos(2))]);
        assert_eq!(answer(&mut books, 2, &payloads[1], Code::Ok), [Read::AnsweredTwice]);
        assert!(matches!(answer(&mut books, 1, &payloads[2], Code::Ok)[..], [Read::Wrong(_)]), "another's");
        assert!(matches!(answer(&mut books, 3, b"", Code::Internal)[..], [Read::Refused(_)]));
        assert!(matches!(answer(&mut books, 4, b"", Code::Ok)[..], [Read::Wrong(_)]), "nobody's");
        assert_eq!((books.asked(), books.open()), (3, 0));
        assert!(!books.unanswered(RequestId(3)));
    }

    #[test]
    fn a_connection_joins_again_until_it_has_joined() {
        let mut books = Books::new(3, Arc::new(Streams::none()));
        books.joins(RequestId(1));
        let absent = ResponseView {
            up_seq: 1,
            status: Code::Unavailable.to_wire(),
            execution: Execution::NotExecuted.into(),
            ..ResponseView::default()
        };
        assert!(matches!(read(&mut books, gateway::RESPONSE, &absent)[..], [Read::NotJoined(_)]));
        books.joins(RequestId(1));
        assert!(matches!(answer(&mut books, 1, b"", Code::Unimplemented)[..], [Read::JoinRefused(_)]));
        books.joins(RequestId(2));
        assert_eq!(answer(&mut books, 2, b"", Code::Ok), [Read::Joined]);
        assert_eq!(answer(&mut books, 2, b"", Code::Ok), [Read::AnsweredTwice]);
    }

    #[test]
    fn what_the_kit_would_leave_out_is_counted() {
        let streams = Arc::new(Streams::new(5, STAMP_BYTES, true));
        let mut books = Books::new(3, streams);
        let payload = 7u64.to_be_bytes().into_iter().chain([0; 8]).collect::<Vec<u8>>();
        let push = PushView { command: 0x0111, payload: &payload, ..PushView::default() };
        // The same frame, with the same number.
        assert_eq!(read(&mut books, gateway::PUSH, &push), []);
        assert_eq!(read(&mut books, gateway::PUSH, &push), []);
        let tally = books.ledgers[0].closed(1);
        assert_eq!((tally.received, tally.duplicated, tally.lost), (1, 1, 0));
        let others = PushView { command: 0x0112, ..push };
        assert!(matches!(read(&mut books, gateway::PUSH, &others)[..], [Read::Wrong(_)]));
        read(&mut books, gateway::GAP, &Gap { first: 4, last: 6, count: 0, reason: 0 });
        assert_eq!(books.gaps, 3);
    }
}

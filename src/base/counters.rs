//! Counters: one [`Cells`] per thread, written by that thread alone, merged when somebody asks.
//!
//! A cell is an atomic with a single writer, so adding is a plain load and store: no locked instruction, no
//! shared cache line. Names and help texts stand here, beside what they count; `telemetry` renders them.

use super::route_counts::RouteCounts;
use moorgate_proto::status::Code;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a counter is called outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Prometheus name.
    pub metric: &'static str,
    /// One label as `key="value"`, or empty.
    pub label: &'static str,
    /// One line of help; the same for all labels of a metric.
    pub help: &'static str,
}

macro_rules! counters {
    ($($variant:ident $metric:literal $label:literal $help:literal;)*) => {
        /// Everything that is counted by a thread, but for outcomes and latencies.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Count {
            $($variant,)*
        }

        impl Count {
            /// Every counter; those of one metric stand together.
            pub const ALL: &'static [Count] = &[$(Count::$variant,)*];

            /// Its name outside.
            pub fn name(self) -> Name {
                match self {
                    $(Count::$variant => Name { metric: $metric, label: $label, help: $help },)*
                }
            }
        }
    };
}

counters! {
    ConnectionsAccepted "moorgate_connections_accepted_total" "" "Connections accepted.";
    ConnectionsClosed "moorgate_connections_closed_total" "" "Connections closed.";
    RefusedLimit "moorgate_connections_refused_total" "why=\"limit\"" "Connections refused before a session.";
    RefusedAddress "moorgate_connections_refused_total" "why=\"address\"" "Connections refused before a session.";
    RefusedDescriptors "moorgate_connections_refused_total" "why=\"descriptors\"" "Connections refused before a session.";
    RefusedHandshakes "moorgate_connections_refused_total" "why=\"handshakes\"" "Connections refused before a session.";
    RefusedReserve "moorgate_connections_refused_total" "why=\"reserve\"" "Connections refused before a session.";
    RefusedBanned "moorgate_connections_refused_total" "why=\"banned\"" "Connections refused before a session.";
    AcceptErrors "moorgate_accept_errors_total" "" "Errors of accept other than a lack of descriptors.";
    ListenerPauses "moorgate_listener_pauses_total" "" "Times a listener was paused for want of descriptors.";
    AcceptRests "moorgate_accept_rests_total" "" "Times a listener rested since it had accepted as fast as it may.";
    SessionsOpened "moorgate_sessions_opened_total" "" "Sessions opened.";
    SessionsEnded "moorgate_sessions_ended_total" "" "Sessions ended.";
    SessionsDetached "moorgate_sessions_detached_total" "" "Sessions that lost their connection and were kept.";
    SessionsResumed "moorgate_resumes_total" "result=\"resumed\"" "Hellos that were to resume a session.";
    ResumesUnknown "moorgate_resumes_total" "result=\"unknown_session\"" "Hellos that were to resume a session.";
    ResumesStale "moorgate_resumes_total" "result=\"stale\"" "Hellos that were to resume a session.";
    ResumesInvalid "moorgate_resumes_total" "result=\"invalid\"" "Hellos that were to resume a session.";
    ResumesEnded "moorgate_resumes_total" "result=\"ended\"" "Hellos that were to resume a session.";
    TakeOvers "moorgate_take_overs_total" "" "Resumes of sessions whose old connection was still there.";
    DetachedExpired "moorgate_detached_ended_total" "why=\"time\"" "Sessions that ended without a connection.";
    DetachedEvicted "moorgate_detached_ended_total" "why=\"room\"" "Sessions that ended without a connection.";
    DetachedEnded "moorgate_detached_ended_total" "why=\"ordered\"" "Sessions that ended without a connection.";
    OpeningsShed "moorgate_openings_shed_total" "" "Hellos refused since too many fresh sessions were opened at once.";
    ConnectionsHandedOver "moorgate_connections_handed_over_total" "" "Connections that went to the shard that has their session.";
    SessionsAnonymous "moorgate_sessions_anonymous_total" "" "Sessions opened without an access token.";
    CloseProtocol "moorgate_close_reasons_total" "reason=\"protocol\"" "Why connections were closed.";
    CloseForeignProtocol "moorgate_close_reasons_total" "reason=\"foreign_protocol\"" "Why connections were closed.";
    CloseOpening "moorgate_close_reasons_total" "reason=\"opening_refused\"" "Why connections were closed.";
    CloseHandshakeTimeout "moorgate_close_reasons_total" "reason=\"handshake_timeout\"" "Why connections were closed.";
    CloseFrameTimeout "moorgate_close_reasons_total" "reason=\"frame_timeout\"" "Why connections were closed.";
    CloseHeartbeat "moorgate_close_reasons_total" "reason=\"heartbeat_timeout\"" "Why connections were closed.";
    CloseWriteStalled "moorgate_close_reasons_total" "reason=\"write_stalled\"" "Why connections were closed.";
    CloseTokenExpired "moorgate_close_reasons_total" "reason=\"token_expired\"" "Why connections were closed.";
    ClosePeer "moorgate_close_reasons_total" "reason=\"peer\"" "Why connections were closed.";
    CloseBye "moorgate_close_reasons_total" "reason=\"bye\"" "Why connections were closed.";
    CloseDrain "moorgate_close_reasons_total" "reason=\"drain\"" "Why connections were closed.";
    CloseSuperseded "moorgate_close_reasons_total" "reason=\"superseded\"" "Why connections were closed.";
    CloseConflict "moorgate_close_reasons_total" "reason=\"conflict\"" "Why connections were closed.";
    CloseKicked "moorgate_close_reasons_total" "reason=\"kicked\"" "Why connections were closed.";
    CloseLoggedOut "moorgate_close_reasons_total" "reason=\"logged_out\"" "Why connections were closed.";
    CloseTokenRevoked "moorgate_close_reasons_total" "reason=\"token_revoked\"" "Why connections were closed.";
    CloseOverload "moorgate_close_reasons_total" "reason=\"overload\"" "Why connections were closed.";
    CloseLimited "moorgate_close_reasons_total" "reason=\"rate_limited\"" "Why connections were closed.";
    CloseBanned "moorgate_close_reasons_total" "reason=\"banned\"" "Why connections were closed.";
    LoginsDone "moorgate_logins_total" "result=\"done\"" "Logins that a service has asked for.";
    LoginsRefused "moorgate_logins_total" "result=\"refused\"" "Logins that a service has asked for.";
    RefreshesDone "moorgate_access_refreshes_total" "result=\"done\"" "Access tokens shown on a live session.";
    RefreshesRefused "moorgate_access_refreshes_total" "result=\"refused\"" "Access tokens shown on a live session.";
    ChecksAsked "moorgate_session_checks_total" "result=\"asked\"" "Sessions that a service was asked to confirm, and how it ended.";
    ChecksAdmitted "moorgate_session_checks_total" "result=\"admitted\"" "Sessions that a service was asked to confirm, and how it ended.";
    ChecksRefused "moorgate_session_checks_total" "result=\"refused\"" "Sessions that a service was asked to confirm, and how it ended.";
    ChecksFailed "moorgate_session_checks_total" "result=\"failed\"" "Sessions that a service was asked to confirm, and how it ended.";
    ChecksCached "moorgate_session_checks_total" "result=\"cached\"" "Sessions that a service was asked to confirm, and how it ended.";
    GroupsJoined "moorgate_group_changes_total" "what=\"joined\"" "Sessions that joined or left a group.";
    GroupsLeft "moorgate_group_changes_total" "what=\"left\"" "Sessions that joined or left a group.";
    GroupsRefused "moorgate_group_changes_total" "what=\"refused\"" "Sessions that joined or left a group.";
    PushesSent "moorgate_push_deliveries_total" "result=\"sent\"" "Pushes to sessions, each session counted.";
    PushesWaiting "moorgate_push_deliveries_total" "result=\"waiting\"" "Pushes to sessions, each session counted.";
    PushesOverflowed "moorgate_push_deliveries_total" "result=\"overflow\"" "Pushes to sessions, each session counted.";
    PushesExpired "moorgate_push_deliveries_total" "result=\"expired\"" "Pushes to sessions, each session counted.";
    PushesCollapsed "moorgate_push_deliveries_total" "result=\"collapsed\"" "Pushes to sessions, each session counted.";
    PushesNobody "moorgate_push_deliveries_total" "result=\"gone\"" "Pushes to sessions, each session counted.";
    ReceiptsDropped "moorgate_push_receipts_total" "result=\"dropped\"" "Receipts of pushes for services.";
    ReceiptsSent "moorgate_push_receipts_total" "result=\"sent\"" "Receipts of pushes for services.";
    FramesReceived "moorgate_frames_received_total" "" "Frames from clients.";
    FramesSent "moorgate_frames_sent_total" "" "Frames to clients.";
    BytesReceived "moorgate_bytes_received_total" "" "Bytes read from clients.";
    BytesSent "moorgate_bytes_sent_total" "" "Bytes written to clients.";
    NoticesSent "moorgate_notices_sent_total" "" "Notices sent to clients.";
    ControlFramesShed "moorgate_control_frames_shed_total" "" "Pongs and notices left out since the client does not read.";
    RequestsAdmitted "moorgate_requests_admitted_total" "" "Requests that took their number in the upward stream.";
    RequestsRepeated "moorgate_requests_repeated_total" "" "Requests ignored since their number was admitted before.";
    RequestsForwarded "moorgate_requests_forwarded_total" "" "Requests handed to a worker.";
    RequestsCancelled "moorgate_requests_cancelled_total" "" "Cancels that named an unanswered request.";
    RepliesOrphaned "moorgate_replies_orphaned_total" "" "Settled calls whose session was gone.";
    PayloadsDropped "moorgate_payloads_dropped_total" "" "Replies sent without their payload: too large for the client, or too much waited for it.";
    ForwardsRefused "moorgate_forwards_refused_total" "" "Requests refused since the credit of the shard at its worker was used up, or the part of it that the service may use.";
    LimitedConnection "moorgate_limited_total" "limit=\"connection\"" "What was refused for a limit: requests, and connections for their frames.";
    LimitedUser "moorgate_limited_total" "limit=\"user\"" "What was refused for a limit: requests, and connections for their frames.";
    LimitedAddress "moorgate_limited_total" "limit=\"address\"" "What was refused for a limit: requests, and connections for their frames.";
    LimitedApplication "moorgate_limited_total" "limit=\"application\"" "What was refused for a limit: requests, and connections for their frames.";
    LimitedRoute "moorgate_limited_total" "limit=\"route\"" "What was refused for a limit: requests, and connections for their frames.";
    LimitedOutstandingUser "moorgate_limited_total" "limit=\"outstanding_user\"" "What was refused for a limit: requests, and connections for their frames.";
    LimitedOutstandingAddress "moorgate_limited_total" "limit=\"outstanding_address\"" "What was refused for a limit: requests, and connections for their frames.";
    LimitedOutstandingApplication "moorgate_limited_total" "limit=\"outstanding_application\"" "What was refused for a limit: requests, and connections for their frames.";
    LimitedFrames "moorgate_limited_total" "limit=\"frames\"" "What was refused for a limit: requests, and connections for their frames.";
    LimitedLogins "moorgate_limited_total" "limit=\"logins\"" "What was refused for a limit: requests, and connections for their frames.";
    OffencesToken "moorgate_offences_total" "kind=\"token\"" "What may lead to a ban.";
    OffencesProof "moorgate_offences_total" "kind=\"proof\"" "What may lead to a ban.";
    OffencesLogin "moorgate_offences_total" "kind=\"login\"" "What may lead to a ban.";
    OffencesViolation "moorgate_offences_total" "kind=\"violation\"" "What may lead to a ban.";
    OffencesRate "moorgate_offences_total" "kind=\"rate\"" "What may lead to a ban.";
    PartialBudgetExceeded "moorgate_partial_budget_exceeded_total" "" "Connections closed since unfinished frames held too much memory.";
    OpeningsOusted "moorgate_openings_ousted_total" "" "Connections without a session closed to make room for others.";
    OwedShed "moorgate_unacknowledged_shed_total" "" "Sessions that lost the payloads of kept Responses because all of them held too much memory.";
    AccessLogDropped "moorgate_access_log_dropped_total" "" "Access log lines that were not written because the writer was behind or the output failed.";
    CallsSent "moorgate_calls_sent_total" "" "Calls written to services.";
    CallsExpired "moorgate_calls_expired_total" "" "Calls that reached their deadline.";
    CallsExpiredUnsent "moorgate_calls_expired_unsent_total" "" "Calls dropped before they were sent, their deadline having passed.";
    CallsCancelled "moorgate_calls_cancelled_total" "" "Cancels passed on to services.";
    CallsLost "moorgate_calls_lost_total" "" "Calls settled since their link was lost.";
    CallsUnavailable "moorgate_calls_unavailable_total" "" "Calls for which no endpoint was ready.";
    CallsShedLow "moorgate_calls_shed_total" "priority=\"low\"" "Calls refused since the service's bound or the queue was full.";
    CallsShedNormal "moorgate_calls_shed_total" "priority=\"normal\"" "Calls refused since the service's bound or the queue was full.";
    CallsShedHigh "moorgate_calls_shed_total" "priority=\"high\"" "Calls refused since the service's bound or the queue was full.";
    CallsMoved "moorgate_calls_moved_total" "" "Calls taken back from a lost link that had not sent them, for another.";
    CallsNotKept "moorgate_calls_not_kept_total" "" "Calls whose content was not kept for another attempt, for want of room.";
    RetriesTried "moorgate_retries_total" "result=\"tried\"" "Attempts that failed, and whether another was made.";
    RetriesAnswered "moorgate_retries_total" "result=\"answered\"" "Attempts that failed, and whether another was made.";
    RetriesNoBudget "moorgate_retries_total" "result=\"no_budget\"" "Attempts that failed, and whether another was made.";
    RetriesNotKept "moorgate_retries_total" "result=\"not_kept\"" "Attempts that failed, and whether another was made.";
    RetriesNoEndpoint "moorgate_retries_total" "result=\"no_endpoint\"" "Attempts that failed, and whether another was made.";
    HedgesSent "moorgate_hedges_total" "result=\"sent\"" "Second attempts beside slow ones.";
    HedgesWon "moorgate_hedges_total" "result=\"won\"" "Second attempts beside slow ones.";
    HedgesRefused "moorgate_hedges_total" "result=\"refused\"" "Second attempts beside slow ones.";
    ChoicesPanic "moorgate_choices_total" "why=\"panic\"" "Choices of an endpoint that were special.";
    ChoicesCanary "moorgate_choices_total" "why=\"canary\"" "Choices of an endpoint that were special.";
    ChoicesFallback "moorgate_choices_total" "why=\"fallback\"" "Choices of an endpoint that were special.";
    ChoicesSpilled "moorgate_choices_total" "why=\"spilled\"" "Choices of an endpoint that were special.";
    ChoicesFull "moorgate_choices_total" "why=\"full\"" "Choices of an endpoint that were special.";
    EndpointsJoined "moorgate_endpoint_changes_total" "what=\"joined\"" "Endpoints that joined a service or left it, at each worker.";
    EndpointsLeft "moorgate_endpoint_changes_total" "what=\"left\"" "Endpoints that joined a service or left it, at each worker.";
    RepliesReceived "moorgate_replies_received_total" "" "Replies of services that settled a call.";
    RepliesLate "moorgate_replies_late_total" "" "Replies to calls that were settled before.";
    RepliesUnknown "moorgate_replies_unknown_total" "" "Replies to calls that the link was not given.";
    RepliesInvalid "moorgate_replies_invalid_total" "" "Replies that could not be used.";
    DirectivesDone "moorgate_directives_total" "result=\"done\"" "Directives of services.";
    DirectivesRefused "moorgate_directives_total" "result=\"refused\"" "Directives of services.";
    DirectivesInvalid "moorgate_directives_total" "result=\"invalid\"" "Directives of services.";
    DirectivesStale "moorgate_directives_total" "result=\"stale\"" "Directives of services.";
    PushesTaken "moorgate_pushes_total" "result=\"taken\"" "Pushes from services.";
    PushesRepeated "moorgate_pushes_total" "result=\"repeated\"" "Pushes from services.";
    PushesRefused "moorgate_pushes_total" "result=\"refused\"" "Pushes from services.";
    PushesShed "moorgate_pushes_total" "result=\"shed\"" "Pushes from services.";
    PresenceEvents "moorgate_presence_events_total" "" "Users whose presence a service was told, each instance counted.";
    PresenceSnapshots "moorgate_presence_snapshots_total" "" "Times an instance of a service was told of everybody who is here.";
    PresenceCoalesced "moorgate_presence_coalesced_total" "" "Changes of presence that were told together with others of the same user.";
    PresenceOverflowed "moorgate_presence_overflows_total" "" "Times changes of presence were given up, and everybody was told anew instead.";
    PresenceRefused "moorgate_presence_refused_total" "" "Services that asked for presence without the right to it.";
    LinksOpened "moorgate_links_opened_total" "" "Links to endpoints that became ready.";
    BulkLinksOpened "moorgate_bulk_links_opened_total" "" "Bulk links that became ready, for large frames beside a link.";
    LinksLost "moorgate_links_lost_total" "" "Links to endpoints that ended.";
    LinksFailed "moorgate_links_failed_total" "" "Attempts to open a link that failed.";
    LinkProofsRefused "moorgate_link_proofs_refused_total" "" "Services refused for a wrong proof or name.";
    LinkFramesPassedOver "moorgate_link_frames_too_large_total" "" "Frames of services above links.frame, passed over; their calls fail with REPLY_TOO_LARGE.";
    LinkNotices "moorgate_link_notices_total" "" "Notices to services of what they did wrong without breaking the contract.";
    LinkGarbage "moorgate_link_protocol_errors_total" "" "Links closed because the service broke the contract.";
    Wakeups "moorgate_loop_turns_total" "" "Turns of the loop.";
    Visits "moorgate_loop_visits_total" "" "Turns that another loop's thread did for this one while it slept.";
}

/// Upper bounds of the latency buckets are powers of two microseconds, from 2^4 (16 us) on.
pub const LATENCY_BUCKET_FIRST: u32 = 4;
/// Number of latency buckets; the last one takes everything above 2^26 us (67 s).
pub const LATENCY_BUCKETS: usize = 24;

const CODES: usize = 17;
const OUTCOMES_AT: usize = Count::ALL.len();
const LATENCY_AT: usize = OUTCOMES_AT + CODES;
const LATENCY_SUM_AT: usize = LATENCY_AT + LATENCY_BUCKETS;
const CELLS: usize = LATENCY_SUM_AT + 1;

/// The counters of one thread.
#[derive(Debug)]
pub struct Cells {
    cells: [AtomicU64; CELLS],
    /// What is counted of each route.
    pub routes: RouteCounts,
}

impl Default for Cells {
    fn default() -> Self {
        Cells { cells: [const { AtomicU64::new(0) }; CELLS], routes: RouteCounts::default() }
    }
}

impl Cells {
    /// Cells of a thread that judges requests for so many routes.
    pub fn with_routes(routes: usize) -> Cells {
        Cells { routes: RouteCounts::new(routes), ..Cells::default() }
    }

    /// Adds to a counter. Only who runs what is counted calls this: one thread at a time.
    #[inline]
    pub fn add(&self, count: Count, amount: u64) {
        self.add_at(count as usize, amount);
    }

    /// Counts one event.
    #[inline]
    pub fn count(&self, count: Count) {
        self.add(count, 1);
    }

    /// Counts one answered request by its outcome and its time from receipt to answer.
    #[inline]
    pub fn outcome(&self, code: Code, latency: Duration) {
        let code = usize::try_from(code.to_wire()).unwrap_or_default();
        self.add_at(OUTCOMES_AT.saturating_add(code), 1);
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.add_at(LATENCY_AT.saturating_add(bucket_of(us)), 1);
        self.add_at(LATENCY_SUM_AT, us);
    }

    #[inline]
    fn add_at(&self, at: usize, amount: u64) {
        if let Some(cell) = self.cells.get(at) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// What a counter stands at.
    pub fn value(&self, count: Count) -> u64 {
        self.value_at(count as usize)
    }

    fn value_at(&self, at: usize) -> u64 {
        self.cells.get(at).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

fn bucket_of(us: u64) -> usize {
    let bits = u64::BITS.saturating_sub(us.saturating_sub(1).leading_zeros());
    (bits.saturating_sub(LATENCY_BUCKET_FIRST) as usize).min(LATENCY_BUCKETS - 1)
}

/// The sum over all threads.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    values: Vec<u64>,
}

impl Totals {
    /// Merges the cells of all threads as they stand.
    pub fn of<'a>(threads: impl IntoIterator<Item = &'a Cells>) -> Totals {
        let mut values = vec![0u64; CELLS];
        for cells in threads {
            for (at, value) in values.iter_mut().enumerate() {
                *value = value.wrapping_add(cells.value_at(at));
            }
        }
        Totals { values }
    }

    fn at(&self, at: usize) -> u64 {
        self.values.get(at).copied().unwrap_or_default()
    }

    /// A counter.
    pub fn value(&self, count: Count) -> u64 {
        self.at(count as usize)
    }

    /// Requests answered with this code.
    pub fn outcomes(&self, code: Code) -> u64 {
        self.at(OUTCOMES_AT.saturating_add(usize::try_from(code.to_wire()).unwrap_or_default()))
    }

    /// Upper bound in microseconds (none for the last) and count of each latency bucket, not cumulative.
    pub fn latency_buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        (0..LATENCY_BUCKETS).map(|bucket| {
            let exponent = LATENCY_BUCKET_FIRST.saturating_add(u32::try_from(bucket).unwrap_or_default());
            let bound = (bucket + 1 < LATENCY_BUCKETS).then(|| 1u64 << exponent);
            (bound, self.at(LATENCY_AT.saturating_add(bucket)))
        })
    }

    /// Sum of all latencies, in microseconds.
    pub fn latency_sum_us(&self) -> u64 {
        self.at(LATENCY_SUM_AT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_merged() {
        let (one, two) = (Cells::default(), Cells::default());
        one.count(Count::FramesReceived);
        two.add(Count::FramesReceived, 2);
        one.outcome(Code::Ok, Duration::from_micros(17));
        two.outcome(Code::Unavailable, Duration::from_secs(1000));
        let totals = Totals::of([&one, &two]);
        assert_eq!(totals.value(Count::FramesReceived), 3);
        assert_eq!((totals.outcomes(Code::Ok), totals.outcomes(Code::Unavailable)), (1, 1));
        let buckets: Vec<_> = totals.latency_buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(buckets, [(Some(32), 1), (None, 1)]);
        assert_eq!(totals.latency_sum_us(), 1_000_000_017);
    }

    #[test]
    fn buckets_hold_what_their_bound_says() {
        assert_eq!(
            (bucket_of(0), bucket_of(16), bucket_of(17), bucket_of(32), bucket_of(33)),
            (0, 0, 1, 1, 2)
        );
        assert_eq!(bucket_of(u64::MAX), LATENCY_BUCKETS - 1);
    }

    #[test]
    fn one_metric_stands_together_with_one_help_text() {
        let names: Vec<Name> = Count::ALL.iter().map(|count| count.name()).collect();
        for pair in names.windows(2) {
            if pair[0].metric == pair[1].metric {
                assert_eq!(pair[0].help, pair[1].help);
            }
        }
        let mut metrics: Vec<&str> = names.iter().map(|name| name.metric).collect();
        metrics.dedup();
        let runs = metrics.len();
        metrics.sort_unstable();
        metrics.dedup();
        assert_eq!(metrics.len(), runs);
    }
}

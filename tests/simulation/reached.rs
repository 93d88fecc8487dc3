//! Rare paths, as the simulator sees them from outside: a sweep that has never taken one proves nothing about it.

macro_rules! paths {
    ($($variant:ident $text:literal;)*) => {
        /// A path that a sweep must have taken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Path {
            $($variant,)*
        }

        impl Path {
            pub const ALL: &'static [Path] = &[$(Path::$variant,)*];

            pub fn text(self) -> &'static str {
                match self {
                    $(Path::$variant => $text,)*
                }
            }
        }
    };
}

paths! {
    HelloDelayed "Hellos that came late";
    HelloAbandoned "Hellos whose client had given up and come again";
    HelloTwice "Hellos that came twice";
    WelcomeCut "connections cut right after their Hello was read";
    WelcomeSwallowed "connections that fell silent right after their Hello was read";
    ResumedProven "resumes by the proven generation, which was not the newest";
    ResumedBetween "resumes by a generation between proven and newest";
    ResumedNewest "resumes by the newest generation";
    ResumedKept "resumes of sessions that were left with a Bye that keeps them";
    ResumedAfterWait "resumes after a second or more without a connection";
    RefusedAttempt "resumes refused for their attempt";
    RefusedAttemptZero "resumes refused for an attempt of 0";
    RefusedGeneration "resumes refused for their generation";
    RefusedForged "resumes refused for a forged token";
    RefusedElsewhere "resumes refused for another device or application";
    RefusedOtherBoot "resumes refused since the gateway had started again";
    ToldEnded "resumes told that the session was ended";
    ToldUnknown "resumes told that nobody knows the session";
    RefusedIdentity "resumes refused for another user's access token";
    RefusedExpired "resumes refused since the session's access had expired";
    TakenOver "resumes of sessions whose old connection still stood";
    HandedOver "connections handed over to another shard";
    ReplayLong "replays that an output could not hold at once";
    ReplayGap "Gaps with a range in a replay";
    ResponseWaited "Responses that waited for a resume";
    RequestResent "requests resent and admitted";
    RequestKnown "requests open and admitted before a resume";
    RequestRepeated "requests sent again although they were admitted";
    CancelRepeated "Cancels repeated after a resume";
    Retried "requests asked again in a fresh session, by their key";
    ApplicationRestarted "applications killed, whose next process went on";
    EvictedUser "runs with sessions given up for others of their users";
    EvictedAddress "runs with sessions given up for others of their addresses";
    EvictedApplication "runs with sessions given up for others of their applications";
    EvictedTotal "runs with sessions given up since there were too many";
    ThiefRefused "thieves refused";
    ThiefIn "thieves who got in with a current token";
    Robbed "clients back with a session after a thief had theirs";
    Restarted "restarts of the gateway";
    Crashed "services that came back as new instances";
    Jumped "jumps of the gateway's clock";
    Revoked "clients with a revoked token";
    Bulk "bulk links that became ready";
    BulkReply "large replies on bulk links";
    PausedBriefly "pauses of the gateway that its clock counts";
    PausedLong "pauses of the gateway that its clock does not count";
    PausedClient "pauses of clients";
    PausedService "pauses of services";
    PausedBacklog "pauses with connections that were not accepted";
    PausedOpening "pauses with connections without a session";
    PausedSession "pauses with attached sessions";
    PausedDetached "pauses with detached sessions";
    PausedPartial "pauses with unfinished frames";
    PausedOwed "pauses with unacknowledged Responses";
    PausedCalls "pauses with calls";
    PausedDialling "pauses with links that were being dialled";
    PausedLinked "pauses with links";
    PausedReply "calls whose Reply arrived during a pause";
    AllLeft "runs at whose end everyone had left";
}

/// How often each path was taken.
#[derive(Debug, Clone)]
pub struct Reached(Vec<u64>);

impl Default for Reached {
    fn default() -> Self {
        Reached(vec![0; Path::ALL.len()])
    }
}

impl Reached {
    pub fn note(&mut self, path: Path) {
        self.0[path as usize] += 1;
    }

    pub fn count(&self, path: Path) -> u64 {
        self.0[path as usize]
    }
}

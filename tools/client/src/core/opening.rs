//! Saying Hello, and what becomes of it: a fresh session, or the one before resumed.

use super::upward::{Answered, Open, Upward, millis};
use super::{ClientCore, Event, Fault, State};
use moorgate_proto::VERSION;
use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::{client, gateway};
use moorgate_proto::limits::FRAME_BYTES_OPENING;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, ResumeResult};
use std::collections::VecDeque;
use std::time::Duration;

impl ClientCore {
    /// The connection stands: says Hello, and asks to resume the session that is kept, if one is. An empty token opens
    /// an anonymous session where none is resumed.
    pub fn connected(&mut self, now: Mono, access_token: &str) {
        self.connected_with_proof(now, access_token, None);
    }

    /// As [`ClientCore::connected`], with the [application's proof](super::Options::application_proof).
    pub fn connected_with_proof(
        &mut self,
        now: Mono,
        access_token: &str,
        application_proof: Option<v1::ApplicationProof>,
    ) {
        self.assembler = Assembler::default();
        self.output.clear();
        if self.state != State::Detached {
            self.begin_anew();
        }
        let resume = self.resume.ask(self.downward.ack());
        let options = &self.options;
        let hello = v1::Hello {
            version_min: VERSION,
            version_max: VERSION,
            application: options.application.clone(),
            application_proof,
            app_version: options.app_version.clone(),
            platform: options.platform.clone(),
            device_id: options.device_id.clone(),
            heartbeat_ms: millis(options.heartbeat),
            frame_bytes_max: options.frame_bytes_max,
            access_token: access_token.to_owned(),
            resume,
            ..v1::Hello::default()
        };
        put_frame(&mut self.output, Numbers::NONE, client::HELLO, &hello);
        self.state = State::Opening;
        self.pulse.connected(now);
    }

    /// Another session begins: its numbers do, too.
    fn begin_anew(&mut self) {
        self.upward = Upward::new(self.resume.is_wanted());
        self.downward = self.downward.next_session();
        self.resume.forget();
    }

    pub(super) fn welcomed(
        &mut self,
        now: Mono,
        welcome: v1::Welcome,
        visit: &mut impl FnMut(&mut ClientCore, Event<'_>),
    ) -> Result<(), Fault> {
        if self.state != State::Opening {
            return Err(Fault::Unexpected(gateway::WELCOME));
        }
        if welcome.version != VERSION {
            return Err(Fault::Version(welcome.version));
        }
        let is_resumed = self.resume.is_asked() && welcome.resume_result() == ResumeResult::Resumed;
        let above = if is_resumed { self.upward.resumed(welcome.admitted)? } else { self.lost(visit) };
        let limits = welcome.limits.unwrap_or_default();
        self.upward.set_in_flight_max(limits.in_flight_max.max(1) as usize);
        self.downward.set_window(u64::from(limits.window_max.max(1)));
        self.frame_bytes_max = (limits.frame_bytes_max as usize).max(FRAME_BYTES_OPENING);
        self.pulse.negotiated(Duration::from_millis(u64::from(welcome.heartbeat_ms.max(1))));
        self.state = State::Open;
        self.resume.welcomed(&welcome);
        if is_resumed {
            self.go_on(now, welcome.admitted, above);
        }
        if self.pulse.is_unannounced() {
            self.ping(now);
        }
        if is_resumed {
            visit(self, Event::Resumed(Box::new(welcome)));
        } else {
            visit(self, Event::Welcomed(Box::new(welcome)));
        }
        Ok(())
    }

    /// The session that was kept is gone: its requests are settled, and another begins.
    fn lost(&mut self, visit: &mut impl FnMut(&mut ClientCore, Event<'_>)) -> VecDeque<Open> {
        if self.resume.is_asked() {
            self.settle(visit);
            self.begin_anew();
        }
        VecDeque::new()
    }

    /// The session is resumed: acknowledges at once, which also proves that the Welcome has come, and sends again what
    /// was not admitted.
    fn go_on(&mut self, now: Mono, admitted: u64, mut above: VecDeque<Open>) {
        self.acknowledge(now);
        for up_seq in self.upward.cancelled_up_to(admitted) {
            self.put(now, 0, client::CANCEL, &v1::Cancel { up_seq });
        }
        for open in &mut above {
            open.is_of_earlier = false;
            match (&open.request, open.left(now)) {
                (Some(request), Some(left)) => self.put(now, open.id, client::REQUEST, &request.view(left)),
                // Its number is consumed, and it is never run.
                _ => self.put(now, 0, client::CANCEL, &v1::Cancel { up_seq: open.id }),
            }
        }
        self.upward.resent(above);
    }

    /// A login names the session's user and has a newer resume token; if it is replayed, Welcome's is the newest.
    pub(super) fn logged_in(&mut self, answered: Answered, login: Option<v1::LoginResult>) {
        let Some(login) = login else { return };
        if answered == Answered::Own {
            self.resume.renew(&login.resume_token);
        }
        self.resume.set_user(login.user_id);
    }
}

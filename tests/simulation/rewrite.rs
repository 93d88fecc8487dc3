//! A planted bug's way to the bytes that the gateway writes: it cuts them into frames and alters some.

use crate::network::{ConnId, Side};
use crate::plant::Plant;
use crate::world::World;
use moorgate_proto::limits::FRAME_BYTES_CEILING;
use moorgate_proto::v1::gateway_frame::Member;
use moorgate_proto::v1::{self, ResumeResult};
use prost::Message;

impl World {
    pub fn rewrites(&self) -> bool {
        matches!(
            self.plant,
            Some(
                Plant::ReplayLost
                    | Plant::ReplayOther
                    | Plant::ReplayGap
                    | Plant::AdmittedForgotten
                    | Plant::LimitsShrunk
            )
        )
    }

    /// What the gateway writes to a socket goes there, as far as there is room; `None`: the socket is dead.
    pub fn write_out(&mut self, conn: ConnId, bytes: &[u8]) -> Option<usize> {
        if !self.rewrites() {
            let most = self.appetite();
            let count = self.net.write(conn, Side::Accepter, bytes, most)?;
            self.tap_down(conn, &bytes[..count]);
            return Some(count);
        }
        let mut left = bytes;
        let mut assembler = self.rewriters.remove(&conn).unwrap_or_default();
        while let Ok(Some(frame)) = assembler.next(&mut left, FRAME_BYTES_CEILING) {
            let Some(frame) = self.rewritten(conn, frame) else { continue };
            let mut output = (frame.len() as u32).to_be_bytes().to_vec();
            output.extend_from_slice(&frame);
            // Its pipes have room for everything.
            let count = self.net.write(conn, Side::Accepter, &output, usize::MAX)?;
            assert_eq!(count, output.len());
            self.tap_down(conn, &output);
        }
        self.rewriters.insert(conn, assembler);
        Some(bytes.len())
    }

    /// What becomes of a frame; `None`: nothing.
    fn rewritten(&self, conn: ConnId, frame: &[u8]) -> Option<Vec<u8>> {
        let mut decoded = v1::GatewayFrame::decode(frame).ok()?;
        let seq = decoded.down_seq;
        let is_replay = self.sessions.is_replay(conn, seq);
        match (self.plant, decoded.member.as_mut()) {
            (Some(Plant::ReplayLost), _) if is_replay => return None,
            (Some(Plant::ReplayOther), Some(Member::Push(push))) if is_replay => {
                push.push_id = 0_u64.to_be_bytes().to_vec().into();
            }
            (Some(Plant::ReplayGap), Some(Member::Response(_))) if is_replay => {
                decoded.member = Some(Member::Gap(v1::Gap { first: seq, last: seq, ..v1::Gap::default() }));
            }
            (Some(Plant::AdmittedForgotten), Some(Member::Welcome(welcome))) => welcome.admitted = 0,
            (Some(Plant::LimitsShrunk), Some(Member::Welcome(welcome)))
                if welcome.resume_result() == ResumeResult::Resumed =>
            {
                welcome.limits = Some(v1::Limits { window_max: 1, ..welcome.limits.unwrap_or_default() });
            }
            _ => return Some(frame.to_vec()),
        }
        Some(decoded.encode_to_vec())
    }
}

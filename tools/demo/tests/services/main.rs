//! The demo services, as a gateway by hand sees them.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod accounts;
mod binary;
mod chat;
#[path = "../../../service/tests/sockets/gateway.rs"]
#[allow(dead_code, reason = "it is made for the service kit's tests, which use more of it")]
mod gateway;

use gateway::{Gateway, call_of};
use moorgate_proto::v1;
use moorgate_service::{Code, Execution, Reason};
use prost::Message;

/// A call with a payload.
fn call(call_id: u64, command: u32, user_id: &str, payload: &impl Message) -> Vec<u8> {
    let payload = payload.encode_to_vec().into();
    call_of(user_id, v1::Call { call_id, command, payload, ..v1::Call::default() })
}

/// Calls, and has the reply.
fn ask(gateway: &mut Gateway, command: u32, user_id: &str, payload: &impl Message) -> v1::Reply {
    gateway.send(&call(1, command, user_id, payload));
    gateway.reply()
}

fn outcome(reply: &v1::Reply) -> (Code, Reason, Execution) {
    (Code::from_wire(reply.status), reply.reason(), reply.execution())
}

const FINE: (Code, Reason, Execution) = (Code::Ok, Reason::Unspecified, Execution::Unspecified);
const INVALID: (Code, Reason, Execution) =
    (Code::InvalidArgument, Reason::Unspecified, Execution::NotExecuted);

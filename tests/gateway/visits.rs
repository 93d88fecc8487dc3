//! What is too little to wake a thread for.

use crate::child::Process;
use crate::site::{command, echo_service, text, until};

#[test]
fn lone_requests_are_carried_by_the_threads_that_are_awake() {
    let service = echo_service();
    let process = Process::start(&text(service.address(), ""));
    process.ready();
    let mut client = process.open();
    let mut up_seq = 0;
    until("a sleeping loop's turn is done by another", || {
        up_seq += 1;
        let payload = up_seq.to_string();
        assert_eq!(client.ask(up_seq, command::OPEN, payload.as_bytes()).payload, payload);
        process.metric("moorgate_loop_visits_total") >= 10
    });
    drop(client);
    drop(process);
    service.stop();
    service.join();
}

//! A gateway's operator address, behind which nothing is done but remembered.

use moorgate::admin::{Admin, OperateError, Operation, Outcome, Pages};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// What an operation is answered with.
type Answer = fn(Operation) -> Result<Outcome, OperateError>;

struct Remembering {
    operations: Mutex<Sender<Operation>>,
    answer: Answer,
}

impl Pages for Remembering {
    fn is_live(&self) -> bool {
        true
    }
    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }
    fn metrics(&self) -> String {
        String::new()
    }
    fn operate(&self, operation: Operation) -> Result<Outcome, OperateError> {
        self.operations.lock().unwrap().send(operation.clone()).unwrap();
        (self.answer)(operation)
    }
}

/// The operations that come are received, too.
pub(crate) fn remembering(answer: Answer) -> (Admin, Receiver<Operation>) {
    let (sender, operations) = channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pages = Remembering { operations: Mutex::new(sender), answer };
    (Admin::start(listener, Vec::new(), Arc::new(pages)).unwrap(), operations)
}

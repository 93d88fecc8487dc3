//! Logs in with the demo's accounts service, sends a message to the user itself, and prints what is pushed:
//! `cargo run -p moorgate-client --example login -- 127.0.0.1:7000 alice secret`.
//!
//! A user who is new is registered. The access token of the login opens the sessions to come, so the gateway may be
//! restarted meanwhile.

use moorgate_client::{Client, ClientError, Code, Event, Events, State};
use prost::Message;
use std::process::ExitCode;
use std::time::Duration;

const REGISTER: u32 = 0x0200;
const LOGIN: u32 = 0x0201;
const SEND: u32 = 0x0210;
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the demo's accounts service wants, see `tools/demo/proto/demo.proto`.
#[derive(Clone, PartialEq, Message)]
struct Credentials {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    password: String,
}

/// What the demo's chat service wants.
#[derive(Clone, PartialEq, Message)]
struct Send {
    #[prost(string, tag = "1")]
    to: String,
    #[prost(string, tag = "2")]
    text: String,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, user, password] = words.as_slice() else {
        eprintln!("Usage: login ADDRESS USER PASSWORD");
        return ExitCode::from(2);
    };
    let (client, events) = match Client::builder(address).start_with_events() {
        Ok(both) => both,
        Err(error) => {
            eprintln!("no thread for the client: {error}");
            return ExitCode::FAILURE;
        }
    };
    match log_in(&client, user, password) {
        Ok(()) => listen(&events),
        Err(error) => {
            eprintln!("{address}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn log_in(client: &Client, user: &str, password: &str) -> Result<(), ClientError> {
    client.opened(TIMEOUT)?;
    let credentials = Credentials { user: user.to_owned(), password: password.to_owned() }.encode_to_vec();
    let mut answer = client.request(REGISTER, &credentials, TIMEOUT)?;
    if answer.code == Code::AlreadyExists {
        answer = client.request(LOGIN, &credentials, TIMEOUT)?;
    }
    if !answer.is_ok() {
        return Err(ClientError::Answered(Box::new(answer)));
    }
    let greeting = Send { to: user.to_owned(), text: format!("hello, {user}") };
    let answer = client.request(SEND, &greeting.encode_to_vec(), TIMEOUT)?;
    println!("sent: {answer}");
    Ok(())
}

/// Prints what comes, until the client ends.
fn listen(events: &Events) {
    while let Some(event) = events.next_within(Duration::MAX) {
        match event {
            Event::Push(push) => println!("push {:#06x}, {} bytes", push.command, push.payload.len()),
            Event::Resync(missed) => println!("something may be missing: {missed:?}"),
            Event::State(State::Open { user_id, .. }) => println!("open for {user_id:?}"),
            Event::State(State::Away { retry_in, why }) => println!("{why}; again in {retry_in:?}"),
            Event::State(State::Ended(ending)) => println!("over: {ending}"),
            event => println!("{event:?}"),
        }
    }
}

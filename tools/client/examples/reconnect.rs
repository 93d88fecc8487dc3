//! Asks an echo service again and again, whatever happens to the gateways, until it is stopped:
//! `cargo run -p moorgate-client --example reconnect -- 127.0.0.1:7000,127.0.0.1:7002 [TOKEN [FILE DEVICE]]`.
//!
//! Cut the connection: the session is resumed on the next one, and nothing is missed. Stop a gateway and start it again:
//! its sessions are gone; what is asked in between waits, and is answered then. With a file and a name for this device,
//! stop this program and start it again: it goes on with its session, too.

use moorgate_client::{
    Backoff, Client, ClientError, Event, FileStore, Missed, Options, Policy, RequestOptions, State, fresh_key,
};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

const ECHO: u32 = 0x0001;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let addresses = words.next().unwrap_or("127.0.0.1:7000".to_owned());
    let token = words.next().unwrap_or_default();
    let (tell_end, ended) = channel();
    let (file, device) = (words.next(), words.next().unwrap_or_default());
    let mut builder = Client::builder("");
    if let Some(file) = file {
        builder = builder.store(FileStore::new(file));
    }
    let client = builder
        .options(Options { device_id: device, ..Options::default() })
        .addresses(addresses.split(','))
        .policy(Policy::Failover)
        .backoff(Backoff { base: Duration::from_millis(500), max: Duration::from_secs(5) })
        .access_token(token)
        .on_event(move |event| match event {
            Event::Resync(Missed::Session) => println!("a fresh session: something may have been missed"),
            Event::State(State::Open { address, .. }) => println!("open: {address}"),
            Event::State(State::Away { retry_in, why }) => println!("{why}; again in {retry_in:?}"),
            Event::State(State::Ended(ending)) => {
                println!("over: {ending}");
                let _ = tell_end.send(());
            }
            _ => {}
        })
        .start();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            eprintln!("no thread for the client: {error}");
            return ExitCode::FAILURE;
        }
    };
    for number in 1_u64.. {
        if let Err(error) = ask(&client, number) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
        // One second, or until the client ends.
        if ended.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    ExitCode::FAILURE
}

/// With a key, so that it is also sent again when nobody knows whether it was executed.
fn ask(client: &Client, number: u64) -> Result<(), ClientError> {
    let key = fresh_key();
    let timeout = Duration::from_secs(60);
    let options = RequestOptions { idempotency_key: &key, timeout, ..RequestOptions::command(ECHO) };
    let tell = move |answer: Result<_, ClientError>| match answer {
        Ok(answer) => println!("{number}: {answer}"),
        Err(error) => println!("{number}: {error}"),
    };
    client.start_with(&options, &number.to_be_bytes(), tell).map(|_| ())
}

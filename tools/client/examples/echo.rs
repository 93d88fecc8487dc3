//! Asks a gateway's echo service, with or without an access token:
//! `cargo run -p moorgate-client --example echo -- 127.0.0.1:7000 [TOKEN]`.

use moorgate_client::{Client, Options};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or("127.0.0.1:7000".to_owned()).parse()?;
    let token = words.next().unwrap_or_default();
    let mut client = Client::connect(address, Options::default(), &token)?;
    let answer = client.request(0x0001, b"hello, gateway", Duration::from_secs(5))?;
    println!("{}: {}", answer.code.name(), String::from_utf8_lossy(&answer.payload));
    client.bye()?;
    Ok(())
}

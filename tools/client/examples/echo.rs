//! Asks a gateway's echo service, with or without an access token:
//! `cargo run -p moorgate-client --example echo -- 127.0.0.1:7000 [TOKEN]`.

use moorgate_client::{Code, Connection, ConnectionError, Options};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or("127.0.0.1:7000".to_owned());
    let token = words.next().unwrap_or_default();
    let Ok(address) = address.parse() else {
        eprintln!("`{address}` is no address; write for example 127.0.0.1:7000");
        return ExitCode::FAILURE;
    };
    match ask(address, &token) {
        Ok(answer) => println!("{answer}"),
        Err(error) => {
            eprintln!("{address}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn ask(address: SocketAddr, token: &str) -> Result<String, ConnectionError> {
    let mut client = Connection::connect(address, Options::default(), token)?;
    let answer = client.request(0x0001, b"hello, gateway", Duration::from_secs(5))?;
    client.bye()?;
    Ok(match answer.code {
        Code::Ok => format!("{answer}: {}", String::from_utf8_lossy(&answer.payload)),
        _ => answer.to_string(),
    })
}

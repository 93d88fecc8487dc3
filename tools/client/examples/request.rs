//! Makes one request of any command and prints how it ended:
//! `cargo run -p moorgate-client --example request -- 127.0.0.1:7000 0x0300 "good morning" [TOKEN]`.

use moorgate_client::{Answer, Code, Connection, ConnectionError, Options};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [address, command, text, token @ ..] = words.as_slice() else {
        eprintln!("Usage: request ADDRESS COMMAND TEXT [TOKEN]");
        return ExitCode::from(2);
    };
    let number = command.strip_prefix("0x").map_or(command.parse(), |hex| u32::from_str_radix(hex, 16));
    let (Ok(address), Ok(number)) = (address.parse(), number) else {
        eprintln!("write for example: request 127.0.0.1:7000 0x0300 \"good morning\"");
        return ExitCode::from(2);
    };
    match ask(address, number, text, token.first().unwrap_or(&"")) {
        Ok(answer) => {
            match answer.code {
                Code::Ok => println!("{answer}: {}", String::from_utf8_lossy(&answer.payload)),
                _ => println!("{answer}"),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(address: SocketAddr, command: u32, text: &str, token: &str) -> Result<Answer, ConnectionError> {
    let mut client = Connection::connect(address, Options::default(), token)?;
    let answer = client.request(command, text.as_bytes(), Duration::from_secs(5))?;
    client.bye()?;
    Ok(answer)
}

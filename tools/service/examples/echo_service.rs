//! A service that answers each request with its own payload:
//! `cargo run -p moorgate-service --example echo_service -- 127.0.0.1:7100 [KEY_FILE]`.
//! With a key, gateways must prove that they hold it too.

use moorgate_service::{LinkKey, Reply, Service};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or("127.0.0.1:7100".to_owned()).parse()?;
    let mut echo = Service::named("echo")
        .handle(0x0001..=0x00ff, |call, responder| responder.reply(Reply::ok(call.payload())));
    if let Some(path) = words.next() {
        // White space at the end of a key file is no part of the key, here as in the gateway.
        let key = LinkKey::new(std::fs::read(&path)?.trim_ascii_end());
        echo = echo.key(key.ok_or("a key has at least 16 bytes")?);
    }
    let listening = echo.listen(address)?;
    println!("echo listens on {}", listening.address());
    listening.run();
    Ok(())
}

//! A service that answers each request with its own payload:
//! `cargo run -p moorgate-service --example echo_service -- 127.0.0.1:7100`.

use moorgate_service::{Reply, Service};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7100".to_owned()).parse()?;
    let echo = Service::named("echo")
        .handle(0x0001..=0x00ff, |call, responder| responder.reply(Reply::ok(call.payload())));
    let listening = echo.listen(address)?;
    println!("echo listens on {}", listening.address());
    listening.run();
    Ok(())
}

//! A service that greets whoever asks, by the name that the gateway vouches for:
//! `cargo run -p moorgate-service --example greeter -- 127.0.0.1:7101 [KEY_FILE]`.

use moorgate_service::{LinkKey, Reply, Service};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or("127.0.0.1:7101".to_owned()).parse()?;
    let mut greeter = Service::named("greeter").handle(0x0300..=0x0300, |call, responder| {
        let user = call.caller().user_id;
        let text = String::from_utf8_lossy(call.payload());
        responder.reply(Reply::ok(format!("hello, {user}: {text}").as_bytes()));
    });
    if let Some(path) = words.next() {
        let key = LinkKey::new(std::fs::read(&path)?.trim_ascii_end());
        greeter = greeter.key(key.ok_or("a key has at least 16 bytes")?);
    }
    let listening = greeter.listen(address)?;
    println!("greeter listens on {}", listening.address());
    listening.run();
    Ok(())
}

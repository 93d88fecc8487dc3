//! A service that passes on what somebody says to everybody in a room:
//! `cargo run -p moorgate-service --example push_service -- 127.0.0.1:7103 [KEY_FILE]`.
//! The gateway must grant it `groups`.

use moorgate_service::{Code, Directive, LinkKey, Push, Reply, Service};

const JOIN: u32 = 0x0310;
const SAY: u32 = 0x0311;
const SAID: u32 = 0x0320;
const ROOM: &str = "room";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or("127.0.0.1:7103".to_owned()).parse()?;
    let room = Service::named("room");
    let pusher = room.pusher();
    let mut room = room
        .handle(JOIN..=JOIN, |_, responder| responder.reply(Reply::ok(b"").with(Directive::join(ROOM))))
        .handle(SAY..=SAY, move |call, responder| {
            let later = responder.later();
            let push = Push::to_group(ROOM, SAID, call.payload().to_vec());
            pusher.send_then(push, |sent| match sent {
                Ok(report) if report.is_accepted() => later.reply(Reply::ok(b"said")),
                Ok(_) => later.reply(Reply::error(Code::Unavailable, "no gateway takes pushes")),
                Err(error) => later.reply(Reply::error(Code::ResourceExhausted, &error.to_string())),
            });
        });
    if let Some(path) = words.next() {
        let key = LinkKey::new(std::fs::read(&path)?.trim_ascii_end());
        room = room.key(key.ok_or("a key has at least 16 bytes")?);
    }
    let listening = room.listen(address)?;
    println!("room listens on {}", listening.address());
    listening.run();
    Ok(())
}

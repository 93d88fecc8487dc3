//! A service that passes on what somebody says to everybody in a room:
//! `cargo run -p moorgate-service --example push_service -- 127.0.0.1:7103 [KEY_FILE]`.
//! The gateway must grant it `groups` and `push`.

use moorgate_service::{Directive, LinkKey, Push, Reply, Service};

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
            let sent = pusher.send_then(push, |report| match report.is_accepted() {
                true => later.reply(Reply::ok(b"said")),
                false => later.reply(Reply::ok(b"nobody could be told")),
            });
            if let Err(error) = sent {
                // The answer went with the push that was not sent: it says INTERNAL.
                eprintln!("not pushed: {error}");
            }
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

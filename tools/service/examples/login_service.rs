//! A service that logs users in, and keeps the thread of its links free while it hashes:
//! `cargo run -p moorgate-service --example login_service -- 127.0.0.1:7102 [KEY_FILE]`.
//! The gateway must grant it `login`, and let anonymous sessions ask it.

use moorgate_service::{Code, LinkKey, Reply, Service};
use std::time::Duration;

const LOGIN: u32 = 0x0300;
const LOGOUT: u32 = 0x0301;

/// Who may log in, with what. A real service has a database, and hashes.
fn is_known(user: &str, password: &str) -> bool {
    matches!((user, password), ("alice", "wonderland") | ("bob", "builder"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or("127.0.0.1:7102".to_owned()).parse()?;
    let mut accounts = Service::named("accounts")
        .handle_blocking(LOGIN..=LOGIN, |call, later| {
            let text = String::from_utf8_lossy(call.payload());
            match text.split_once(' ') {
                Some((user, password)) if is_known(user, password) => {
                    later.reply(Reply::ok(b"").with_login(user, &["member"], Duration::from_secs(3600)));
                }
                _ => later.reply(Reply::error(Code::Unauthenticated, "no such user, or another password")),
            }
        })
        .handle(LOGOUT..=LOGOUT, |_, responder| responder.reply(Reply::ok(b"").with_logout()));
    if let Some(path) = words.next() {
        let key = LinkKey::new(std::fs::read(&path)?.trim_ascii_end());
        accounts = accounts.key(key.ok_or("a key has at least 16 bytes")?);
    }
    let listening = accounts.listen(address)?;
    println!("accounts listens on {}", listening.address());
    listening.run();
    Ok(())
}

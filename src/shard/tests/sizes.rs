//! What an idle client costs: `cargo test sizes -- --nocapture` shows the table.

use super::*;
use crate::base::sizes::{Bound, check, slab_entry_bytes};
use crate::relay::{AccessRecord, Caller};
use crate::session::Session;
use crate::shard::Outstanding;
use crate::shard::connection::Connection;
use crate::shard::detached::DetachedTable;

/// What the allocator adds to each allocation of its own.
const ALLOCATION: usize = 16;

/// A client whose names are as long as names are.
fn typical() -> (World, ConnectionKey) {
    let mut world = World::new();
    let client = world.accept();
    let claims = serde_json::json!({"sub": "0123456789abcdef", "exp": BEGIN_UNIX_MS / 1000 + 86_400});
    let access_token = mint(&SigningKey::new("k", SECRET).unwrap(), &claims);
    let hello = v1::Hello {
        access_token,
        application: "im".to_owned(),
        platform: "android".to_owned(),
        app_version: "1.2.3".to_owned(),
        device_id: "0123456789abcdef".to_owned(),
        ..hello()
    };
    world.say(client, 0, client_frame::Member::Hello(hello));
    assert_eq!(world.got(client).len(), 1);
    (world, client)
}

#[test]
fn sizes_of_a_client_s_structures() {
    let (world, client) = typical();
    let session = world.shard.session_of(client).and_then(|key| world.shard.sessions.get(key)).unwrap();
    let caller = &session.caller;
    // Two counts in front of what is shared.
    let shared = 2 * size_of::<usize>();
    let user = shared + caller.user_id.len() + ALLOCATION;
    let caller = shared + size_of::<Caller>() + ALLOCATION + caller.encoded.len() + ALLOCATION + user;
    let connection_entry = slab_entry_bytes(&world.shard.connections);
    let session_entry = slab_entry_bytes(&world.shard.sessions);
    let wheel_entry = size_of::<(ConnectionKey, Mono)>();
    let client = connection_entry + session_entry + wheel_entry + caller;
    let bound = |name, bytes, bytes_max, why| Bound { name, bytes, bytes_max, why };
    check(
        "a client",
        &[
            bound("Connection", size_of::<Connection>(), 144, "one for every socket, idle or not"),
            bound("its slab entry", connection_entry, 148, "the tag of the slab hides in a niche"),
            bound("Session", size_of::<Session>(), 192, "one for every client"),
            bound("its slab entry", session_entry, 196, "the tag of the slab hides in a niche"),
            bound("wheel entry", wheel_entry, 16, "one for every connection: deadlines are lazy"),
            bound("Caller with all it owns, typical", caller, 272, "shared with the requests under way"),
            bound(
                "all of an idle client, typical",
                client,
                624,
                "sockets not counted; goal: 700 bytes of RSS",
            ),
            bound(
                "all of a detached client, typical",
                session_entry + caller + DetachedTable::bytes_of_one(),
                client,
                "less than an attached one",
            ),
            bound("Outstanding", size_of::<Outstanding>(), 64, "one for every request under way"),
            bound("Forward", size_of::<Forward>(), 80, "moved once from shard to worker"),
            bound("AccessRecord", size_of::<AccessRecord>(), 104, "moved once to the log's writer"),
        ],
    );
}

#[test]
fn an_idle_client_owns_no_buffer() {
    let (mut world, client) = typical();
    let frame = bytes(&v1::ClientFrame { up_seq: 1, ack: 0, member: Some(request(CHAT, b"hi")) });
    let (head, tail) = frame.split_at(5);
    world.shard.received(world.now, client, head);
    world.shard.received(world.now, client, tail);
    let ticket = world.tickets()[0];
    world.settle(ticket, b"payload");
    world.got(client);
    world.ack(client, 1);
    // The next deadline of the connection finds it idle.
    world.pass(2 * session::Settings::default().heartbeat - SECOND);
    world.say(client, 0, ping(0));
    world.got(client);
    world.pass(2 * SECOND);
    let connection = world.shard.connections.get(client).unwrap();
    assert_eq!((connection.assembler.capacity_bytes(), connection.output.bytes.capacity()), (0, 0));
    let session = world.shard.session_of(client).and_then(|key| world.shard.sessions.get(key)).unwrap();
    assert!(session.is_bare());
}

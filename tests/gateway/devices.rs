//! Which devices of a user may be here at once, and how many sessions.

use crate::link::site_and_granted_link;
use crate::site::{Site, command};
use crate::token::token;
use crate::wire::{RawClient, hello, hello_frame, request};
use moorgate_proto::status::Code;
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::{self, Reason};

const CLASSES: &str = "classes = { phone = [\"android\", \"ios\"] }";

/// Alice on a device of this platform, who has said Hello.
fn arrives(site: &Site, device: &str, platform: &str) -> RawClient {
    let mut client = site.connect();
    let hello = v1::Hello {
        access_token: token("alice", &[]),
        device_id: device.to_owned(),
        platform: platform.to_owned(),
        ..hello()
    };
    client.send(&hello_frame(&hello));
    client
}

/// The same, and she is let in.
fn enters(site: &Site, device: &str, platform: &str) -> RawClient {
    let mut client = arrives(site, device, platform);
    client.welcome();
    client
}

/// A client gets a final Error, after which it must not come back.
fn is_ended(client: &mut RawClient, code: Code, reason: Reason) {
    let error = client.error();
    assert_eq!((Code::from_wire(error.status), error.reason()), (code, reason));
    let reconnect = error.reconnect.unwrap();
    assert!(!reconnect.allowed && !reconnect.resumable);
}

fn conflicts(client: &mut RawClient) {
    is_ended(client, Code::Aborted, Reason::DeviceConflict);
}

fn serves(client: &mut RawClient, up_seq: u64) {
    assert_eq!(client.ask(up_seq, command::OPEN, b"x").status, 0);
}

/// A site on two shards.
fn start(devices: &str) -> Site {
    Site::start_with(&format!("[devices]\n{devices}\n"), |settings| settings.reactor.shards = 2)
}

// spec
#[test]
fn one_device_of_each_class_the_newer_stays() {
    let site = start(&format!("policy = \"one_per_class\"\n{CLASSES}"));
    let mut phone = enters(&site, "phone", "Android");
    let mut laptop = enters(&site, "laptop", "macos");
    let mut other_phone = enters(&site, "other phone", "iOS");
    conflicts(&mut phone);
    serves(&mut laptop, 1);
    serves(&mut other_phone, 1);
    let mut again = enters(&site, "other phone", "ios");
    is_ended(&mut other_phone, Code::Aborted, Reason::Superseded);
    serves(&mut again, 1);
    assert_eq!(site.metric("moorgate_close_reasons_total{reason=\"conflict\"}"), 1);
    drop((laptop, again));
    site.end();
}

// spec
#[test]
fn one_device_of_each_class_the_older_stays() {
    let site = start(&format!("policy = \"one_per_class\"\nwins = \"older\"\n{CLASSES}"));
    let mut phone = enters(&site, "phone", "android");
    conflicts(&mut arrives(&site, "other phone", "ios"));
    let mut laptop = enters(&site, "laptop", "macos");
    serves(&mut laptop, 1);
    serves(&mut phone, 1);
    let mut again = enters(&site, "phone", "android");
    is_ended(&mut phone, Code::Aborted, Reason::Superseded);
    // Once the older is gone there is room.
    drop(again);
    site.metric_becomes("moorgate_sessions", 1);
    again = enters(&site, "other phone", "ios");
    serves(&mut again, 1);
    drop((laptop, again));
    site.end();
}

// spec
#[test]
fn one_device_at_all() {
    for older in [false, true] {
        let wins = if older { "older" } else { "newer" };
        let site = start(&format!("policy = \"one\"\nwins = \"{wins}\""));
        let mut phone = enters(&site, "phone", "android");
        let mut laptop = arrives(&site, "laptop", "macos");
        // Another user's are not counted.
        let mut bob = RawClient::log_in(site.address(), token("bob", &[]), "phone");
        if older {
            conflicts(&mut laptop);
            serves(&mut phone, 1);
        } else {
            laptop.welcome();
            conflicts(&mut phone);
            serves(&mut laptop, 1);
        }
        serves(&mut bob, 1);
        drop((phone, laptop, bob));
        site.end();
    }
}

#[test]
fn without_a_policy_all_devices_are_let_in() {
    let site = start("");
    let mut all: Vec<RawClient> =
        ["a", "b", "c"].into_iter().map(|device| enters(&site, device, "ios")).collect();
    all.iter_mut().for_each(|client| serves(client, 1));
    drop(all);
    site.end();
}

// spec: A-30
#[test]
fn a_login_is_judged_like_an_opening() {
    let (site, mut link) = site_and_granted_link("[devices]\npolicy = \"one\"\nwins = \"older\"\n");
    let mut phone = enters(&site, "phone", "android");
    let mut anonymous = site.connect();
    anonymous.send(&hello_frame(&v1::Hello { device_id: "laptop".to_owned(), ..hello() }));
    anonymous.welcome();
    anonymous.send(&request(1, command::OPEN, b"password"));
    let call = link.call();
    let login = v1::Login { user_id: "alice".to_owned(), ..v1::Login::default() };
    link.direct(call.call_id, [Action::Login(login)]);
    conflicts(&mut anonymous);
    phone.nothing_else();
    drop((phone, anonymous));
    site.end();
}

// spec: A-32
#[test]
fn a_user_has_no_more_sessions_than_one_may_have() {
    let site = start("sessions_per_user = 2");
    let mut clients: Vec<RawClient> = ["a", "b", "c"].map(|device| enters(&site, device, "")).into();
    is_ended(&mut clients[0], Code::ResourceExhausted, Reason::SessionLimit);
    serves(&mut clients[1], 1);
    serves(&mut clients[2], 1);
    drop(clients);
    site.end();
    let site = start("sessions_per_user = 2\nwins = \"older\"");
    let mut clients: Vec<RawClient> = ["a", "b"].map(|device| enters(&site, device, "")).into();
    is_ended(&mut arrives(&site, "c", ""), Code::ResourceExhausted, Reason::SessionLimit);
    clients.iter_mut().for_each(|client| serves(client, 1));
    drop(clients);
    site.end();
    let site = start("sessions_per_user = 0");
    let mut clients: Vec<RawClient> = (0..40).map(|at| enters(&site, &at.to_string(), "")).collect();
    clients.iter_mut().for_each(|client| serves(client, 1));
    drop(clients);
    site.end();
}

//! `moorgate operator`: what it asks a gateway for, and what it says of the answer.

use crate::loopback::nobody;
use crate::pages::remembering;
use crate::running::Running;
use crate::{Ended, refused, run};
use moorgate::admin::{
    Ban, BanTarget, EndpointShown, KickTarget, OperateError, Operation, Outcome, RevokeTarget,
};
use moorgate::routing::Calls;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

fn listener() -> TcpListener {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

fn answer(operation: Operation) -> Result<Outcome, OperateError> {
    match operation {
        Operation::Bans => {
            let target = BanTarget::Address([192, 0, 2, 7].into());
            let bans = vec![Ban { target, left: Duration::from_secs(60), reason: "operator" }];
            Ok(Outcome::Bans { bans, total: 1 })
        }
        Operation::Ban { .. } => Err(OperateError::Full),
        Operation::Unban(BanTarget::User(user)) if user == "nobody" => Ok(Outcome::Changed(0)),
        Operation::Unban(_) => Ok(Outcome::Changed(1)),
        Operation::Kick { target: KickTarget::User(user), .. } if user == "nobody" => {
            Ok(Outcome::Sessions(0))
        }
        Operation::Revoke(RevokeTarget::User(user)) if user == "nobody" => Ok(Outcome::Sessions(0)),
        Operation::Kick { .. } | Operation::Revoke(_) => Ok(Outcome::Sessions(3)),
        Operation::Endpoints => {
            Ok(Outcome::Endpoints { endpoints: endpoints(), total: 3, notes: Vec::new() })
        }
        Operation::Explain(question) => {
            Err(OperateError::NoRoute { command: question.command, version: question.version })
        }
        Operation::Canary { service, share } if service == "chat" => {
            Ok(Outcome::Share { before: 500, now: share })
        }
        Operation::Canary { service, .. } => {
            Err(OperateError::NoService { name: service, known: vec!["chat".to_owned()] })
        }
    }
}

fn endpoints() -> Vec<EndpointShown> {
    let one = EndpointShown {
        service: "chat".to_owned(),
        id: 1,
        address: "10.0.0.1:7100".to_owned(),
        weight: 100,
        standing: "in",
        links: 2,
        sources: vec!["config".to_owned()],
        ..EndpointShown::default()
    };
    let other = EndpointShown {
        id: 12,
        address: "[2001:db8::1]:7100".to_owned(),
        weight: 50,
        zone: "eu-1".to_owned(),
        tags: vec!["canary".to_owned(), "fast".to_owned()],
        standing: "doubted",
        links: 0,
        ejected: Some(Duration::from_millis(2500)),
        calls: Calls { sent: 1234, failed: [5, 0, 0, 67] },
        sources: vec!["consul".to_owned(), "does not answer".to_owned()],
        ..one.clone()
    };
    vec![one, other]
}

fn operator(words: &[&str], admin: SocketAddr) -> Ended {
    run(&[&["operator"], words, &["--admin", &admin.to_string()]].concat())
}

#[test]
fn each_operation_reaches_the_gateway_as_it_was_written() {
    let (admin, operations) = remembering(answer);
    let session = "0123456789abcdef0123456789abcdef";
    let sessions = "{\"sessions\":3}\n";
    let cases: [(&[&str], &str, &str); 11] = [
        (
            &["canary", "chat", "2.5%"],
            "canary service=\"chat\" share=2.5%",
            "{\"before\":\"5%\",\"now\":\"2.5%\"}\n",
        ),
        (
            &["endpoints"],
            "endpoints",
            "SERVICE  ID  ADDRESS             WEIGHT  ZONE  TAGS         STANDING  LINKS  EJECTED  CALLS  FAILED              SOURCES\n\
             chat     1   10.0.0.1:7100       100     -     -            in        2      -        0      -                   config\n\
             chat     12  [2001:db8::1]:7100  50      eu-1  canary,fast  doubted   0      2.5s     1234   failure 5, lost 67  consul, does not answer\n\
             1 more\n",
        ),
        // A name that must be encoded, whatever is in it.
        (&["kick", "--user", "al &=?#%+ice\n你"], "kick user=\"al &=?#%+ice\\n\\u{4f60}\"", sessions),
        (
            &["kick", "--user=bob", "--message", "go, please"],
            "kick user=\"bob\" message=\"go, please\"",
            sessions,
        ),
        (&["kick", "--session", session], "kick session=0123456789abcdef0123456789abcdef", sessions),
        (&["revoke", "--user", "bob"], "revoke user=\"bob\"", sessions),
        // The tokens are refused from now on, whether or not a session lives by one of them.
        (&["revoke", "--user", "nobody"], "revoke user=\"nobody\"", "{\"sessions\":0}\n"),
        (&["revoke", "--token", "t-1"], "revoke token=\"t-1\"", sessions),
        (&["unban", "--address", "2001:db8::1"], "unban address=2001:db8::1", "{\"changed\":1}\n"),
        (&["unban", "--user", "bob"], "unban user=\"bob\"", "{\"changed\":1}\n"),
        (
            &["bans"],
            "bans",
            "{\"bans\":[{\"address\":\"192.0.2.7\",\"reason\":\"operator\",\"seconds\":60}],\"total\":1}\n",
        ),
    ];
    for (words, operation, answer) in cases {
        let ended = operator(words, admin.address());
        assert_eq!((ended.code, ended.err.as_str(), ended.out.as_str()), (Some(0), "", answer), "{words:?}");
        assert_eq!(operations.recv().unwrap().to_string(), operation);
    }
    admin.stop();
}

#[test]
fn what_was_not_done_is_exit_code_1_with_the_gateways_words() {
    let (admin, operations) = remembering(answer);
    let cases: [(&[&str], &str); 4] = [
        (&["canary", "chta", "5%"], "there is no service `chta`; there are: chat"),
        (
            &["ban", "--address", "192.0.2.7", "--for", "10m"],
            "there are as many bans by operators as there may be; lift one, or wait for an end",
        ),
        (&["kick", "--user", "nobody"], "this gateway has no such session: nothing was ended"),
        (
            &["unban", "--user", "nobody"],
            "there is no such ban: nothing was lifted; `moorgate operator bans` lists those there are",
        ),
    ];
    for (words, message) in cases {
        let Ended { code, out, err } = operator(words, admin.address());
        let expected = format!("moorgate: {message}\n");
        assert_eq!((code, out.as_str(), err), (Some(1), "", expected), "{words:?}");
    }
    assert_eq!(operations.try_iter().count(), 4, "what is understood reaches the gateway");
    admin.stop();
}

#[test]
fn missing_and_wrong_parameters_are_usage_errors() {
    let (admin, operations) = remembering(answer);
    let kick = "write `moorgate operator kick (--user U | --session HEX) [--message TEXT]`";
    let cases: [(&[&str], &str); 14] = [
        (&["kick"], kick),
        (&["kick", "--message", "go"], kick),
        (&["kick", "--user", "a", "--session", "0123456789abcdef0123456789abcdef"], kick),
        (&["revoke"], "write `moorgate operator revoke (--user U | --token ID)`"),
        (&["ban"], "write `moorgate operator ban --address A --for TIME`"),
        (&["ban", "--address", "192.0.2.7"], "write `moorgate operator ban --address A --for TIME`"),
        (&["unban"], "write `moorgate operator unban (--address A | --user U)`"),
        (&["canary", "chat"], "write `moorgate operator canary SERVICE SHARE`, as `canary chat 5%`"),
        // What the values must be is the gateway's to judge.
        (
            &["canary", "chat", "5"],
            "`5` is no share; write \"0%\" to \"100%\", with two decimals at the most, as \"5%\" or \"0.25%\"",
        ),
        (&["kick", "--user", "a", "--user", "b"], "`user` stands there twice; leave one out"),
        (&["kick", "--user", ""], "user has 0 bytes; write 1 to 128"),
        (
            &["kick", "--session", "ab"],
            "session is `ab`; write the 32 hexadecimal digits that the access log has",
        ),
        (
            &["unban", "--address", "alice"],
            "address is `alice`; write an IP address without a port, as 192.0.2.7",
        ),
        (&["bans", "extra"], "unexpected argument \"extra\""),
    ];
    for (words, message) in cases {
        let ended = operator(words, admin.address());
        let expected = format!("moorgate operator: {message}\nTry `moorgate operator --help`.\n");
        assert_eq!((ended.code, ended.out.as_str(), ended.err), (Some(2), "", expected), "{words:?}");
    }
    assert_eq!(operations.try_iter().count(), 0, "nothing of it is carried out");
    admin.stop();
}

#[test]
fn missing_parameters_are_told_without_a_gateway() {
    let nobody = nobody();
    for words in [["kick"], ["revoke"], ["ban"], ["unban"], ["canary"]] {
        assert_eq!(operator(&words, nobody).code, Some(2), "{words:?}");
    }
}

#[test]
fn nobody_there_and_somebody_else_there_are_told() {
    let nobody = nobody();
    let said = |admin: SocketAddr, why: &str| {
        format!(
            "moorgate: no answer from the gateway at {admin}: {why}; is it running, is that its [admin]?\n"
        )
    };
    let refuses = said(nobody, "Connection refused (os error 111)");
    refused(&["operator", "bans", "--admin", &nobody.to_string()], 1, &refuses);
    let else_there = listener();
    let address = else_there.local_addr().unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = else_there.accept().unwrap();
        let head = BufReader::new(&stream).lines().map_while(Result::ok);
        head.take_while(|line| !line.is_empty()).for_each(drop);
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
    });
    let foreign = said(address, "what answers there does not speak HTTP");
    refused(&["operator", "bans", "--admin", &address.to_string()], 1, &foreign);
    answers.join().unwrap();
}

#[test]
fn a_running_gateway_is_asked_at_the_address_of_its_operator() {
    let mut gateway = Running::dev();
    let (clients, admin) = gateway.addresses();
    for words in
        [["kick", "--user", "nobody"], ["unban", "--user", "nobody"], ["unban", "--address", "192.0.2.7"]]
    {
        let ended = operator(&words, admin);
        assert!(ended.code == Some(1) && ended.err.contains(": nothing was "), "{ended:?}");
    }
    // The port for clients is not the operator's: they learn nothing, and nothing is done.
    assert_eq!(operator(&["bans"], clients).code, Some(1));
    gateway.signal("-TERM");
    assert_eq!(gateway.ended().code, Some(0));
}

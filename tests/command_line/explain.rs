//! `moorgate explain`: what it asks for and how it tells the answer; and the lines of an access log in words.

use crate::pages::remembering;
use crate::{Directory, done, ended, moorgate, refused, run};
use moorgate::admin::{
    CandidateShown, EndpointShown, Explained, OperateError, Operation, Outcome, WorkerShown,
};
use moorgate::routing::Calls;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

fn answer(operation: Operation) -> Result<Outcome, OperateError> {
    match operation {
        Operation::Explain(question) if question.command == 0x9999 => {
            Err(OperateError::NoRoute { command: question.command, version: question.version })
        }
        Operation::Explain(_) => Ok(Outcome::Explained(Box::new(explained()))),
        _ => Err(OperateError::Busy),
    }
}

fn explained() -> Explained {
    let candidate = CandidateShown {
        address: "10.0.0.1:7100".to_owned(),
        usable: true,
        outstanding: 3,
        weight_percent: 40,
        latency_us: 1200,
        cost_us: 4800,
        ..CandidateShown::default()
    };
    let ejected = CandidateShown {
        address: "10.0.0.2:7100".to_owned(),
        usable: false,
        notes: vec!["ejected for 3 s".to_owned()],
        outstanding: 0,
        weight_percent: 0,
        latency_us: 0,
        cost_us: 0,
    };
    let worker = WorkerShown {
        worker: 0,
        chosen: Ok("10.0.0.1:7100".to_owned()),
        why: "peak_ewma:cand=2,ejected=1,cost=4.8ms,canary".to_owned(),
        canary: true,
        retry: "never tried again".to_owned(),
        candidates: vec![candidate, ejected],
    };
    let empty = WorkerShown {
        worker: 1,
        chosen: Err("no endpoint has a ready link"),
        why: "-".to_owned(),
        canary: false,
        retry: "never tried again".to_owned(),
        candidates: Vec::new(),
    };
    let endpoint = EndpointShown {
        service: "accounts".to_owned(),
        id: 1,
        address: "10.0.0.1:7100".to_owned(),
        weight: 100,
        zone: "eu-1".to_owned(),
        tags: vec!["canary".to_owned()],
        standing: "in",
        links: 2,
        ejected: None,
        calls: Calls { sent: 7, failed: [0, 0, 2, 1] },
        sources: vec!["config".to_owned(), "consul".to_owned()],
    };
    let other = EndpointShown {
        id: 2,
        address: "10.0.0.2:7100".to_owned(),
        zone: String::new(),
        tags: Vec::new(),
        standing: "doubted",
        links: 1,
        ejected: Some(Duration::from_secs(3)),
        calls: Calls::default(),
        sources: vec!["consul".to_owned()],
        ..endpoint.clone()
    };
    Explained {
        route: "0x0200-0x0202".to_owned(),
        terms: vec!["timeout 5s".to_owned(), "idempotent".to_owned()],
        service: "accounts".to_owned(),
        refused: Some("the user has none of its roles".to_owned()),
        canary_share: Some("5%".to_owned()),
        workers: vec![worker, empty],
        silent: vec![2],
        endpoints: vec![endpoint, other],
        sources: vec!["consul lists 2".to_owned()],
    }
}

const IN_WORDS: &str = "\
command 0x0201, version 2, of user alice
  route      0x0200-0x0202: timeout 5s, idempotent
  service    accounts
  refused    the user has none of its roles
  canary     5% of users
  worker 0   10.0.0.1:7100
             by peak_ewma: of two drawn by weight it had the lower cost, latency times unanswered calls, or with near-equal latencies fewer unanswered calls
             2 could have been chosen
             1 were ejected
             it was expected to take 4.8ms
             canary: the caller goes to the instances with the tag
             never tried again
             - 10.0.0.1:7100 can take it: 3 outstanding, 40% of its weight, latency 1.2ms, cost 4.8ms
             - 10.0.0.2:7100 cannot take it: 0 outstanding, ejected for 3 s
  worker 1   no endpoint has a ready link
             never tried again
  worker 2   did not answer within a second: it is busy, or stuck
  endpoints  10.0.0.1:7100 weight 100 zone eu-1 tags canary: in, 2 links, 7 calls of which failed: lost 1, timeout 2; by config, consul
             10.0.0.2:7100 weight 100: doubted, 1 link, ejected for 3.0s, 0 calls; by consul
  sources    consul lists 2
";

#[test]
fn the_question_reaches_the_gateway_and_its_answer_is_told_in_words() {
    let (admin, operations) = remembering(answer);
    let address = admin.address().to_string();
    let mut words = vec!["explain", "--command", "0x0201", "--version", "2", "--user", "alice"];
    words.extend(["--session", "000000000000000000000000000000ab", "--role", "a b", "--role", "ü&"]);
    words.extend(["--application", "im", "--app-version", "2.0", "--platform", "ios", "--device", "d-1"]);
    words.extend(["--address", "192.0.2.7", "--admin", &address]);
    assert_eq!(done(&words), IN_WORDS);
    let Operation::Explain(question) = operations.recv().unwrap() else { panic!("another operation") };
    assert_eq!((question.command, question.version, question.user_id.as_str()), (0x201, 2, "alice"));
    assert_eq!(question.session.unwrap().to_string(), "000000000000000000000000000000ab");
    assert_eq!(question.roles, ["a b", "ü&"]);
    let hello = (question.application.as_str(), question.app_version.as_str(), question.platform.as_str());
    assert_eq!(hello, ("im", "2.0", "ios"));
    assert_eq!((question.device_id.as_str(), question.address), ("d-1", Some([192, 0, 2, 7].into())));
    let anonymous = done(&["explain", "--command", "7", "--admin", &address]);
    assert!(anonymous.starts_with("command 7, version 1, of an anonymous session\n"), "{anonymous}");
    admin.stop();
}

#[test]
fn what_the_gateway_cannot_explain_is_exit_code_1() {
    let (admin, _operations) = remembering(answer);
    let address = admin.address().to_string();
    let no_route = "moorgate: no route leads to command 0x9999 in version 1; look at [[route]]\n";
    refused(&["explain", "--command", "0x9999", "--admin", &address], 1, no_route);
    let no_number = "moorgate explain: command is `login`; write a number such as 0x0201 or 7\n\
                     Try `moorgate explain --help`.\n";
    refused(&["explain", "--command", "login", "--admin", &address], 2, no_number);
    admin.stop();
}

const SESSION: &str = "01010101010101010101010101010101";
const LINE: &str = "time=2027-01-15T08:00:00.123Z session=01010101010101010101010101010101 seq=7 user=alice \
                    peer=127.0.0.1 command=0x0201 service=chat endpoint=10.0.0.1:7100 status=ABORTED \
                    reason=ENDPOINT_LOST source=gateway execution=unknown us=1234 bytes_in=5 bytes_out=0 \
                    why=peak_ewma:cand=2,ejected=1,cost=1.2ms,rival=10.0.0.2:7100@9ms,attempt=2,retry\n";
const LINE_IN_WORDS: &str = "\
request 7 of session 01010101010101010101010101010101, of user alice from 127.0.0.1, at 2027-01-15T08:00:00.123Z
  command    0x0201
  service    chat
  endpoint   10.0.0.1:7100
  outcome    ABORTED, ENDPOINT_LOST, said by the gateway; whether it ran is not known
  took       1234 us, 5 bytes in, 0 bytes out
  why        by peak_ewma: of two drawn by weight it had the lower cost, latency times unanswered calls, or with near-equal latencies fewer unanswered calls
             2 could have been chosen
             1 were ejected
             it was expected to take 1.2ms
             it was compared with 10.0.0.2:7100, which was expected to take 9ms
             it was sent for time number 2
             retry: it was sent again, to another endpoint than before
";

#[test]
fn a_line_of_the_access_log_is_told_in_words() {
    let directory = Directory::new("explain-log");
    // A user whose name looks like the request that is looked for.
    let forger = LINE
        .replace(&format!("session={SESSION} seq=7"), "session=02020202020202020202020202020202 seq=1")
        .replace("user=alice", &format!("user=\"x session={SESSION} seq=7 y\""));
    let path = directory.file("access.log", &format!("nonsense\n{forger}{LINE}"));
    assert_eq!(done(&["explain", "--log", &path, "--request", &format!("{SESSION}:7")]), LINE_IN_WORDS);
    let none = format!("{SESSION}:8");
    let message = format!("moorgate: {path} has no line of request {none}\n");
    refused(&["explain", "--log", &path, "--request", &none], 1, &message);
    let ended = run(&["explain", "--log", "/nowhere/log", "--request", &none]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.starts_with("moorgate: /nowhere/log cannot be read: "), "{}", ended.err);
}

#[test]
fn lines_are_read_from_standard_input() {
    let explain = |text: &str| {
        let mut child = moorgate(&["explain", "--log", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let twice = format!("{LINE}{LINE}");
    assert_eq!(explain(&twice), (Some(0), format!("{LINE_IN_WORDS}{LINE_IN_WORDS}"), String::new()));
    let (code, _, error) = explain("hello\n");
    assert_eq!((code, error.as_str()), (Some(1), "moorgate: this is no line of an access log: hello\n"));
    let old = LINE.split(" why=").next().unwrap();
    assert!(explain(old).1.ends_with("  why        its line does not say: it is of an older gateway\n"));
    let strange = format!("{old} why=tea_leaves:cand=1\n");
    let expected = "moorgate: why=tea_leaves:cand=1: `tea_leaves` is no rule that is known here\n";
    assert_eq!(explain(&strange).2, expected);
    // Nobody there to read: no panic.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(ended(moorgate(&["explain", "--help"]).stdout(writer)).code, Some(0));
}

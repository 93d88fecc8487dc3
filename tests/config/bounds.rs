//! Bounds of what the check prints: a mistake repeats the beginning of a value only, and the number of listed mistakes is
//! bounded, however large the file is.

use crate::mistakes::GOOD;
use crate::{Directory, sample};

/// Larger than whatever is a value.
const LARGE: usize = 5 << 20;

/// A file may be large, what is said of it is not.
#[track_caller]
fn is_bounded(lines: &[String], what: &str) {
    let bytes: usize = lines.iter().map(String::len).sum();
    assert!(!lines.is_empty(), "{what} is taken");
    assert!(lines.iter().all(|line| line.len() <= 2100) && bytes < 128 << 10, "{what}: {bytes} bytes");
}

#[test]
fn a_large_value_is_never_repeated_whole() {
    let directory = Directory::new("large-value");
    let whole = sample::whole();
    let large = "x".repeat(LARGE);
    let mut keys = 0;
    for (at, line) in whole.lines().enumerate() {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        keys += 1;
        // As a text, in a list, and in place of the key.
        let changed = match keys % 3 {
            0 => format!("{key} = [\"{large}\"]"),
            1 => format!("{key} = \"{large}\""),
            _ if value.starts_with('[') => format!("{key} = [\"{large}\"]"),
            _ => format!("{key} = {}", "9".repeat(LARGE)),
        };
        let text: Vec<&str> = whole
            .lines()
            .enumerate()
            .map(|(other, line)| if other == at { changed.as_str() } else { line })
            .collect();
        if let Err(error) = directory.parse(&text.join("\n")) {
            is_bounded(&error.lines, key);
        }
        if keys % 10 == 0 {
            let changed = format!("{large} = {value}");
            let error = directory.parse(&whole.replacen(line, &changed, 1)).unwrap_err();
            is_bounded(&error.lines, key);
        }
    }
    assert!(keys > 150, "{keys}");
    for text in [format!("[{large}]"), format!("[[service]]\n[service.{large}]"), large.clone()] {
        is_bounded(&directory.parse(&text).unwrap_err().lines, "the file");
    }
}

#[test]
fn very_many_mistakes_are_bounded_and_counted() {
    let directory = Directory::new("many-mistakes");
    let mistakes = |more: &str| {
        let lines = directory.parse(&format!("{GOOD}{more}")).unwrap_err().lines;
        is_bounded(&lines, "many mistakes");
        let last = lines.last().unwrap().clone();
        (lines.len(), last.rsplit(' ').next().unwrap().parse::<usize>().unwrap_or_default())
    };
    const MANY: usize = 20_000;
    let each = |text: &dyn Fn(usize) -> String| (0..MANY).map(text).collect::<String>();
    assert_eq!(mistakes(&each(&|number| format!("x{number} = 1\n"))), (101, MANY - 100));
    let services =
        each(&|number| format!("[[service]]\nname = \"s{number}\"\nendpoints = []\nwithout_proofs = true\n"));
    assert_eq!(mistakes(&services).0, 101);
    // Each of a service that there is not, while there are many.
    let routes =
        each(&|number| format!("[[route]]\ncommands = {}\nservice = \"y{number}\"\n", 1000 + number));
    assert_eq!(mistakes(&format!("{services}{routes}")).0, 101);
    // All in each other's way.
    let routes = each(&|_| "[[route]]\ncommands = \"0x1000-0x2000\"\nservice = \"chat\"\n".to_owned());
    assert_eq!(mistakes(&routes), (101, MANY - 1 - 100));
    let listeners = each(&|_| "[[listener]]\naddress = \"127.0.0.1:7000\"\n".to_owned());
    assert_eq!(mistakes(&listeners).0, 101);
    let keys = each(&|_| "[[auth.key]]\nid = \"a\"\nsecret_file = \"access.secret\"\n".to_owned());
    assert_eq!(mistakes(&keys), (101, MANY - 100));
    let endpoints = each(&|_| "\"10.0.0.1:7100\", ".to_owned());
    let text = GOOD.replace("\"10.0.0.1:7100\"", &endpoints);
    is_bounded(&directory.parse(&text).unwrap_err().lines, "endpoints");
}

#[test]
fn counts_have_the_bounds_that_are_documented() {
    let directory = Directory::new("counts");
    let endpoints = |count: usize| {
        let list = (0..count).map(|host| format!("\"10.0.{}.{}:7100\"", host / 256, host % 256));
        GOOD.replace("\"10.0.0.1:7100\"", &list.collect::<Vec<_>>().join(", "))
    };
    assert!(directory.parse(&endpoints(4096)).is_ok());
    let lines = directory.parse(&endpoints(4100)).unwrap_err().lines;
    assert_eq!(lines, ["gate.toml:10: service.endpoints: 4100 of them; write 4096 or fewer"]);
    let services = |count: usize| {
        let service = |number| {
            let consul = "without_proofs = true\n[service.consul]";
            let route = format!("[[route]]\ncommands = {}\nservice = \"s{number}\"\n", 1000 + number);
            format!("[[service]]\nname = \"s{number}\"\n{consul}\n{route}")
        };
        (1..count).map(service).fold(GOOD.to_owned(), |text, service| text + &service)
    };
    assert_eq!(directory.parse(&services(4096)).unwrap().services.len(), 4096);
    let lines = directory.parse(&services(4097)).unwrap_err().lines;
    assert_eq!(lines, ["gate.toml: 4097 of [[service]]; write 4096 or fewer"]);
}

#[test]
fn what_a_time_is_too_fine_for_is_refused_and_not_dropped() {
    let directory = Directory::new("grain");
    let whole = sample::whole();
    let (mut milliseconds, mut seconds) = (0, 0);
    for line in whole.lines() {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let Some(time) = text.and_then(|text| humantime::parse_duration(text).ok()) else { continue };
        let finer = |more: &str| {
            let more = format!("{key} = \"{} {more}\"", humantime::format_duration(time));
            directory.parse(&whole.replacen(line, &more, 1)).map(|settings| format!("{settings:?}"))
        };
        let before = format!("{:?}", directory.parse(&whole).unwrap());
        let message = finer("1us").unwrap_err().to_string();
        assert!(message.contains("is too fine") || message.contains("out of bounds"), "{key}: {message}");
        match finer("1ms") {
            // It is not dropped.
            Ok(after) => {
                milliseconds += 1;
                assert_ne!(after, before, "{key}");
            }
            Err(error) => {
                let message = error.to_string();
                let is_known = ["is too fine; write whole seconds", "out of bounds", "must"];
                assert!(is_known.iter().any(|known| message.contains(known)), "{key}: {message}");
                seconds += usize::from(message.contains("whole seconds"));
            }
        }
    }
    assert!(milliseconds > 20 && seconds >= 5, "{milliseconds} {seconds}");
}

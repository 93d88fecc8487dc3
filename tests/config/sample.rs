//! `moorgate.toml` at the top of the repository says what is true, and all of it.

use crate::{Directory, mistakes_of};
use moorgate::config::Settings;
use std::collections::BTreeSet;

const SAMPLE: &str = include_str!("../../moorgate.toml");

/// The key of a line `mark key = value`.
fn key_of<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let (key, _) = line.strip_prefix(mark)?.split_once(" = ")?;
    key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then_some(key)
}

/// The sample without the tables that not every deployment has, and these tables.
fn parts() -> (String, Vec<String>) {
    let (mut always, mut optional, mut within) = (String::new(), Vec::new(), false);
    for line in SAMPLE.lines() {
        if line.starts_with("#? [") {
            optional.push(String::new());
            within = true;
        }
        within &= !line.is_empty();
        let part = match optional.last_mut() {
            Some(table) if within => table,
            _ => &mut always,
        };
        part.push_str(line);
        part.push('\n');
    }
    (always, optional)
}

/// The sample with each line that has the mark without it.
fn without_mark(mark: &str) -> String {
    let line = |line: &str| match key_of(line, mark) {
        Some(_) => line.replacen(mark, "", 1),
        None => line.to_owned(),
    };
    parts().0.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The sample with every key and every table, at addresses of loopback.
pub(crate) fn whole() -> String {
    // Of several ways only one can be written.
    let other_way =
        ["_env = ", "_credential = ", "srv = ", "socket_name", "hash_by", "prefer_tag", "without_proofs"];
    let has_no_other = |line: &&str| other_way.iter().all(|other| !line.contains(other));
    let always = without_mark("# ");
    let always = always.lines().map(|line| match key_of(line, "#? ") {
        Some("issuer" | "audience" | "prefer_zone" | "commands" | "issue_with") => {
            line.replacen("#? ", "", 1)
        }
        _ => line.to_owned(),
    });
    let always = always.collect::<Vec<_>>().join("\n");
    let tables = parts().1.concat();
    let tables = tables.lines().filter_map(|line| line.strip_prefix("#? "));
    let lines = always.lines().filter(|line| !line.starts_with('#')).chain(tables);
    let secrets = ["im-android.key", "consul.token", "nacos.password"];
    let text =
        lines.filter(has_no_other).filter(|line| !line.starts_with("ca_file")).collect::<Vec<_>>().join("\n");
    secrets
        .iter()
        .fold(text, |text, name| text.replace(name, "echo.key"))
        .replace("service = \"accounts\"", "service = \"echo\"")
        .replace("10.0.0.", "127.0.0.")
}

fn shown(settings: &Settings) -> String {
    format!("{settings:#?}")
}

#[test]
fn the_sample_is_good_as_it_stands() {
    let directory = Directory::new("sample");
    let settings = directory.parse(SAMPLE).unwrap();
    assert_eq!(settings.services.len(), 1);
    assert_eq!(settings.routes.len(), 1);
    assert!(settings.services[0].key.is_some());
}

#[test]
fn the_defaults_that_it_tells_are_the_real_ones() {
    let directory = Directory::new("defaults");
    let all = without_mark("# ");
    assert!(SAMPLE.lines().filter(|line| key_of(line, "# ").is_some()).count() > 40);
    assert_eq!(shown(&directory.parse(&all).unwrap()), shown(&directory.parse(SAMPLE).unwrap()));
}

#[test]
fn a_change_of_any_default_changes_something() {
    let directory = Directory::new("changed");
    let before = shown(&directory.parse(SAMPLE).unwrap());
    let sample = parts().0;
    let defaults: Vec<&str> = sample.lines().filter(|line| key_of(line, "# ").is_some()).collect();
    for line in defaults {
        let key = key_of(line, "# ").unwrap();
        let other = other_value(key, line.split_once(" = ").unwrap().1);
        let changed = SAMPLE.replacen(line, &format!("{key} = {other}"), 1);
        // A key without proofs beside a file with the key is a mistake of its own.
        let changed =
            if key == "without_proofs" { changed.replacen("\nkey_file", "\n# key_file", 1) } else { changed };
        let settings = directory.parse(&changed).unwrap_or_else(|error| panic!("{key} = {other}: {error}"));
        assert_ne!(shown(&settings), before, "{key} = {other} changes nothing");
    }
}

/// Another good value than the default.
fn other_value(key: &str, default: &str) -> String {
    let special = match key {
        "hedge" if default == "false" => "true\nidempotent = true",
        "priority" => "\"high\"",
        "attempts" | "probe_rise" => "3",
        // Only an adaptive bound has them.
        "adaptive_min" => "30\nadaptive = true",
        "adaptive_max" => "300\nadaptive = true",
        "accept" => "\"shared\"",
        "balance" => "\"round_robin\"",
        "order" => "\"session\"",
        "level" => "\"warn\"",
        "access" => "\"stdout\"",
        "id" => "\"gate-2\"",
        "roles" => "[\"admin\"]",
        // It changes nothing yet: there is one version.
        "protocol_min" => return "1\nversions = \"1-2\"".to_owned(),
        "versions" => "\"1-2\"",
        "heartbeat_min" => "\"6s\"",
        "frame" => "\"32 KiB\"",
        "window" if !default.starts_with('"') => "300",
        "longest" => "\"2h\"",
        "unfinished_frames" => "\"1 MiB\"",
        "reconnect_max" => "\"1m\"",
        "heartbeat_max" => "\"20m\"",
        "access_ttl_max" => "\"2h\"",
        "grants" => "[\"push\"]",
        "policy" => "\"one\"",
        "wins" => "\"older\"",
        "lease" => "\"1m\"",
        _ => "",
    };
    if !special.is_empty() {
        return special.to_owned();
    }
    let inner = default.trim_matches('"');
    match default {
        "false" => "true".to_owned(),
        "true" => "false".to_owned(),
        // As many frames as requests, and requests as frames.
        _ if inner == "off" || inner.contains("/s") || inner.contains("/m") => {
            "\"400/s, burst 300\"".to_owned()
        }
        _ if inner.ends_with('%') => "\"7%\"".to_owned(),
        _ if inner.ends_with("iB") => "\"128 KiB\"".to_owned(),
        _ if default.starts_with('"') => "\"7s\"".to_owned(),
        _ => "2".to_owned(),
    }
}

#[test]
fn its_examples_are_good_too() {
    let directory = Directory::new("examples");
    let sample = parts().0;
    let examples: Vec<&str> = sample.lines().filter(|line| key_of(line, "#? ").is_some()).collect();
    assert!(examples.len() >= 5, "{examples:?}");
    for line in examples {
        let example = line.strip_prefix("#? ").unwrap();
        let replaced = match (key_of(line, "#? ").unwrap(), example) {
            ("secret_env" | "secret_credential", _) => "secret_file = \"access.secret\"",
            ("key_env" | "key_credential", _) => "key_file = \"echo.key\"",
            ("hash_by", _) => "# balance = \"peak_ewma\"",
            (_, "socket_name = \"clients\"") => "address = \"0.0.0.0:7000\"",
            (_, "socket_name = \"operator\"") => "address = \"127.0.0.1:7001\"",
            _ => "",
        };
        let instead = if example.starts_with("hash_by") { "balance = \"consistent_hash\"" } else { "" };
        let text = SAMPLE.replacen(line, example, 1).replacen(replaced, instead, 1);
        assert!(text.contains(example));
        directory.parse(&text).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn the_tables_that_not_everybody_has_are_good_too() {
    let directory = Directory::new("optional");
    std::fs::write(directory.0.join("ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let before = shown(&directory.parse(SAMPLE).unwrap());
    let tables = parts().1;
    assert!(tables.len() >= 2);
    for table in tables {
        // Of several ways to name a secret only one can be written, and DNS has a host or a service; the rest names what
        // this directory has.
        let other_way = ["_env = ", "_credential = ", "srv = "];
        let lines = table.lines().filter_map(|line| line.strip_prefix("#? "));
        let lines: Vec<&str> =
            lines.filter(|line| other_way.iter().all(|other| !line.contains(other))).collect();
        let written = ["im-android.key", "consul.token", "nacos.password"]
            .iter()
            .fold(lines.join("\n"), |text, name| text.replace(name, "echo.key"))
            .replace("\"accounts\"", "\"echo\"");
        // Nacos has to be somewhere.
        let nacos = if ["[service.nacos]", "[register]"].iter().any(|of| written.starts_with(of)) {
            "[nacos]\n"
        } else {
            ""
        };
        let written = format!("{written}\n{nacos}");
        let settings = directory.parse(&format!("{SAMPLE}\n{written}")).unwrap();
        assert_ne!(shown(&settings), before, "{written}");
    }
}

/// What an unknown key in that table is answered with: every key that is known.
fn known(text: &str) -> BTreeSet<String> {
    let mistakes = mistakes_of(text);
    let list =
        mistakes.iter().find_map(|line| line.split_once("there are: ").filter(|_| line.contains("no such")));
    let (_, list) = list.unwrap_or_else(|| panic!("{text}: {mistakes:?}"));
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn it_has_every_key_that_is_known_and_no_other() {
    let tables = [
        "[gateway]",
        "[[listener]]",
        "[admin]",
        "[log]",
        "[limits]",
        "[rates]",
        "[bans]",
        "[session]",
        "[devices]",
        "[presence]",
        "[links]",
        "[auth]",
        "[[auth.key]]",
        "[[service]]",
        "[service.ejection]",
        "[service.slow_start]",
        "[service.bounds]",
        "[service.retry]",
        "[service.canary]",
        "[service.dns]",
        "[service.consul]",
        "[service.nacos]",
        "[discovery]",
        "[dns]",
        "[consul]",
        "[nacos]",
        "[register]",
        "[[route]]",
        "[[application]]",
        "[session_check]",
    ];
    let mut top = BTreeSet::new();
    for table in tables {
        let mut found: BTreeSet<String> = keys_below(table);
        if table == "[auth]" {
            found.insert("key".to_owned());
        }
        if table == "[[service]]" {
            let within = tables.iter().filter_map(|table| table.strip_prefix("[service."));
            found.extend(within.map(|name| name.trim_end_matches(']').to_owned()));
        }
        let before = if table.starts_with("[service.") { "[[service]]\n" } else { "" };
        assert_eq!(known(&format!("{before}{table}\nnonsense = 1")), found, "{table}");
        top.insert(table.trim_matches(['[', ']']).split('.').next().unwrap().to_owned());
    }
    assert_eq!(known("[nonsense]"), top);
}

/// The keys, set or not, that the sample has below a header.
fn keys_below(header: &str) -> BTreeSet<String> {
    // A table that not every deployment has is written behind a mark.
    let is_it = |line: &str| line == header || line.strip_prefix("#? ") == Some(header);
    let below = SAMPLE.lines().skip_while(|line| !is_it(line)).skip(1);
    let table = below.take_while(|line| !line.starts_with('[') && !line.starts_with("#? ["));
    table
        .filter_map(|line| key_of(line, "#? ").or_else(|| key_of(line, "# ")).or_else(|| key_of(line, "")))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_configurations_of_the_readme_are_good() {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let [ten_lines, service, grants, found, in_consul] = blocks.collect::<Vec<_>>()[..] else {
        panic!("five pieces of TOML")
    };
    let directory = Directory::new("readme");
    std::fs::copy(directory.0.join("echo.key"), directory.0.join("greeter.key")).unwrap();
    assert_eq!(ten_lines.lines().count(), 10);
    assert_eq!(directory.parse(ten_lines).unwrap().routes.len(), 1);
    let service = service.replacen("[[service]]\n", &format!("[[service]]\n{grants}"), 1);
    let settings = directory.parse(&format!("{SAMPLE}\n{service}")).unwrap();
    assert_eq!(settings.services.len(), 2);
    assert_eq!(settings.routes.len(), 2);
    // The found one stands in the place of the sample's.
    let (before, rest) = SAMPLE.split_once("[[service]]\n").unwrap();
    let after = rest.split_once("# ---- Routes").unwrap().1;
    let (head, file) = found.split_once("endpoints_file").unwrap();
    let (_, rest) = file.split_once('\n').unwrap();
    let settings = directory.parse(&format!("{before}{head}{rest}{in_consul}\n# {after}")).unwrap();
    assert_eq!(settings.discovery.services[0].consul.as_ref().unwrap().name, "echo");
    let settings = directory.parse(&format!("{before}{found}\n# {after}")).unwrap();
    assert!(settings.services[0].endpoints.is_empty() && settings.discovery.services[0].is_found());
    assert_eq!(settings.services[0].pool.canary.as_ref().unwrap().tag, "canary");
}

//! Configurations with a few mistakes, drawn from a seed: lines and tables that are left out, doubled, swapped or renamed,
//! and values of every kind at every key.

use moorgate::base::rng::Rng;

/// Values of every kind. Addresses are of loopback: what is good is started. No file of them is written to but within the
/// directory of the test.
const KINDS: [&[&str]; 9] = [
    &[
        "\"0s\"",
        "\"1ms\"",
        "\"500ms\"",
        "\"1500us\"",
        "\"1s\"",
        "\"1500ms\"",
        "\"7s\"",
        "\"1h\"",
        "\"2days\"",
        "\"1000000000days\"",
    ],
    &["\"1 B\"", "\"4 KiB\"", "\"64 MiB\"", "\"1 GiB\"", "\"2000 GiB\""],
    &["\"0%\"", "\"7%\"", "\"50%\"", "\"100%\"", "\"101%\""],
    &["\"off\"", "\"10/s\"", "\"1/h, burst 7\"", "\"600/s, burst 3000\"", "\"0/s\""],
    &["0", "1", "2", "7", "3", "200", "-1", "65536", "1000001", "4294967296", "9223372036854775807", "0x10"],
    &["true", "false"],
    &[
        "[]",
        "[\"\"]",
        "[\"a\"]",
        "[\"a\", \"a\"]",
        "[1]",
        "[\"127.0.0.1:7100\"]",
        "[\"127.0.0.3:7100\", \"127.0.0.3:7100\"]",
        "[\"127.0.0.1:7000\"]",
    ],
    &[
        "\"\"",
        "\"x\"",
        "\"a b\"",
        "\"missing/file\"",
        "\".\"",
        "\"off\"",
        "\"echo\"",
        "\"127.0.0.1:0\"",
        "\"127.0.0.1:7000\"",
        "\"http://127.0.0.1:1\"",
        "\"0\"",
        "\"1-2\"",
        "\"2-1\"",
        "\"0x0100-0x01ff\"",
    ],
    &["1.5", "nan", "{}", "{ a = \"b\" }", "{ a = [\"b\"] }", "1979-05-27"],
];

/// The kind of a value.
fn kind(value: &str) -> usize {
    let inner = value.trim_matches('"');
    match value {
        "true" | "false" => 5,
        _ if value.starts_with('[') => 6,
        _ if !value.starts_with('"') => 4,
        _ if inner == "off" || inner.contains("/s") => 3,
        _ if inner.ends_with('%') => 2,
        _ if inner.ends_with('B') => 1,
        _ if humantime::parse_duration(inner).is_ok() => 0,
        _ => 7,
    }
}

/// The header of a table.
fn is_header(line: &str) -> bool {
    line.starts_with('[')
}

fn at(rng: &mut Rng, count: usize) -> usize {
    usize::try_from(rng.next_u64() % count.max(1) as u64).unwrap()
}

/// A line that sets a key, as key and value.
fn pair(line: &str) -> Option<(&str, &str)> {
    line.split_once(" = ").filter(|(key, _)| !key.starts_with('#'))
}

/// The places of the lines of which this holds; the first line where there is none.
fn one_of(rng: &mut Rng, lines: &[String], holds: impl Fn(&str) -> bool) -> usize {
    let places: Vec<usize> = (0..lines.len()).filter(|place| holds(&lines[*place])).collect();
    places.get(at(rng, places.len())).copied().unwrap_or_default()
}

/// Where the table that begins at a line ends.
fn end_of(lines: &[String], header: usize) -> usize {
    let rest = lines.iter().enumerate().skip(header + 1);
    rest.filter(|(_, line)| is_header(line)).map(|(place, _)| place).next().unwrap_or(lines.len())
}

/// The text with one to three changes.
pub(crate) fn mutated(text: &str, seed: u64) -> String {
    let mut rng = Rng::new(seed);
    let mut lines: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    // Most have one change, so that many mutants are valid.
    for _ in 0..=at(&mut rng, 6).saturating_sub(3) {
        if lines.is_empty() {
            break;
        }
        change(&mut rng, &mut lines);
    }
    lines.join("\n")
}

fn change(rng: &mut Rng, lines: &mut Vec<String>) {
    let line = at(rng, lines.len());
    let key = one_of(rng, lines, |line| pair(line).is_some());
    let header = one_of(rng, lines, is_header);
    let other = lines[one_of(rng, lines, |line| pair(line).is_some())].clone();
    let (name, value) =
        pair(&lines[key]).map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap_or_default();
    let (other_name, other_value) = pair(&other).unwrap_or(("x", "1"));
    match at(rng, 24) {
        0 => drop(lines.remove(line)),
        1 => lines.insert(line, lines[line].clone()),
        2 => {
            let with = at(rng, lines.len());
            lines.swap(line, with);
        }
        3 => drop(lines.drain(header..end_of(lines, header))),
        4 => {
            let table = lines[header..end_of(lines, header)].to_vec();
            lines.extend(table);
        }
        5 => {
            let renamed =
                ["[session]", "[[session]]", "[service.dns]", "[x]", "[[listener]]", "[service", "[log]"];
            lines[header] = renamed[at(rng, renamed.len())].to_owned();
        }
        6 => lines[key] = format!("{other_name} = {value}"),
        7 => lines[key] = format!("{}x = {value}", name.get(1..).unwrap_or_default()),
        8 => lines.truncate(line),
        9 => {
            let length = at(rng, lines[line].len());
            let cut = lines[line].floor_char_boundary(length);
            lines[line].truncate(cut);
        }
        10 => lines[key] = format!("{name} = {other_value}"),
        11 => {
            let values = KINDS[at(rng, KINDS.len())];
            lines[key] = format!("{name} = {}", values[at(rng, values.len())]);
        }
        _ => {
            let values = KINDS[kind(&value)];
            lines[key] = format!("{name} = {}", values[at(rng, values.len())]);
        }
    }
}

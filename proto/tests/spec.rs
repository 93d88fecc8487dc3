//! `protocol-spec.md` is consistent with itself, with the `.proto` files, with the vectors, and with the tests that name
//! its sentences.
//!
//! A test names what it shows in a comment of its own line: two slashes, a space, `spec:`, and the numbers.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "contract/document.rs"]
mod document;
#[path = "contract/schema.rs"]
mod schema;
#[path = "contract/vector_file.rs"]
mod vector_file;

use document::Document;
use moorgate_proto::bounded::{self, RepeatedField};
use moorgate_proto::limits;
use moorgate_proto::v1::{Feature, Reason};
use schema::Schema;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use vector_file::top;

#[test]
fn sentences_are_numbered_in_order() {
    let mut last: BTreeMap<char, u32> = BTreeMap::new();
    let mut letters = Vec::new();
    for sentence in Document::read().sentences() {
        let count = last.entry(sentence.letter).or_insert(0);
        assert_eq!(sentence.count, *count + 1, "{}: unique, ascending, without a hole", sentence.number);
        *count = sentence.count;
        if letters.last() != Some(&sentence.letter) {
            letters.push(sentence.letter);
        }
    }
    assert_eq!(letters.len(), last.len(), "a letter belongs to one section: {letters:?}");
    assert!(last.len() > 10);
}

#[test]
fn each_number_is_one_normative_sentence() {
    for sentence in Document::read().sentences() {
        let (number, text) = (&sentence.number, &sentence.text);
        let is_normative = ["MUST", "SHOULD", "MAY"].iter().any(|word| text.contains(word));
        assert!(is_normative, "{number}: no MUST, SHOULD or MAY");
        assert!(text.ends_with('.'), "{number}: it does not end with a full stop: {text}");
        assert!(!text.contains(". "), "{number}: more than one sentence");
        assert!(!text.contains("later)"), "{number}: `(later)` stands at the end");
    }
}

#[test]
fn frame_tables_are_those_of_the_proto_files() {
    let (document, schema) = (Document::read(), Schema::read());
    for frame in ["ClientFrame", "GatewayFrame", "ToService", "ToGateway"] {
        let rows = document.table(&format!("\n`{frame}`: "), &["member", "message"]);
        let of_document: Vec<(u32, String)> =
            rows.iter().map(|row| (row[0].parse().unwrap(), row[1].clone())).collect();
        assert_eq!(of_document, schema.members(frame), "{frame}");
    }
}

#[test]
fn the_reason_table_is_the_enum() {
    let rows = Document::read().table("## 12. Reasons", &["action"]);
    let actions: HashSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    let rows =
        Document::read().table("- [N-5]", &["number", "reason", "meaning", "not executed", "may have been"]);
    let of_enum: Vec<(i32, &str)> = (0..1000)
        .filter_map(|number| Some((number, Reason::try_from(number).ok()?.as_str_name())))
        .map(|(number, name)| (number, name.strip_prefix("REASON_").unwrap()))
        .collect();
    let of_document: Vec<(i32, &str)> =
        rows.iter().map(|row| (row[0].parse().unwrap(), row[1].as_str())).collect();
    assert_eq!(of_document, of_enum);
    for row in &rows {
        assert!(row[3..].iter().all(|action| actions.contains(action.as_str())), "{row:?}");
    }
}

#[test]
fn the_feature_table_is_the_enum() {
    let rows = Document::read().table("## 13. Features", &["number", "feature"]);
    let of_enum: Vec<(i32, &str)> = (0..64)
        .filter_map(|number| Some((number, Feature::try_from(number).ok()?.as_str_name())))
        .map(|(number, name)| (number, name.strip_prefix("FEATURE_").unwrap()))
        .collect();
    let of_document: Vec<(i32, &str)> =
        rows.iter().map(|row| (row[0].parse().unwrap(), row[1].as_str())).collect();
    assert_eq!(of_document, of_enum);
}

#[test]
fn the_limits_are_the_constants() {
    let rows = Document::read().table("## 14. Limits", &["name", "value"]);
    let of_document: Vec<(&str, usize)> =
        rows.iter().map(|row| (row[0].as_str(), row[1].parse().unwrap())).collect();
    let of_code = [
        ("FRAME_BYTES_OPENING", limits::FRAME_BYTES_OPENING),
        ("FRAME_BYTES_CEILING", limits::FRAME_BYTES_CEILING),
        ("FRAME_BYTES_MAIN_LINK", limits::FRAME_BYTES_MAIN_LINK),
        ("FRAME_OVERHEAD", limits::FRAME_OVERHEAD),
        ("IDEMPOTENCY_KEY_BYTES", limits::IDEMPOTENCY_KEY_BYTES),
        ("NAME_BYTES", limits::NAME_BYTES),
        ("USER_ID_BYTES", limits::USER_ID_BYTES),
        ("DIRECTIVES", limits::DIRECTIVES),
        ("PUSH_TARGETS", limits::PUSH_TARGETS),
        ("ROLES", limits::ROLES),
        ("MESSAGE_BYTES", limits::MESSAGE_BYTES),
    ];
    assert_eq!(of_document, of_code);
}

#[test]
fn every_repeated_field_is_counted_before_it_is_decoded() {
    let schema = Schema::read();
    let repeated = schema.messages.iter().flat_map(|(message, fields)| {
        fields.iter().filter(|field| field.is_repeated).map(move |field| (message.as_str(), field.number))
    });
    let repeated: BTreeSet<(&str, u32)> = repeated.collect();
    let mut counted = BTreeSet::new();
    for (message, fields) in bounded::ALL {
        for RepeatedField { path, .. } in *fields {
            let mut at = *message;
            let (last, before) = path.split_last().unwrap();
            for number in before {
                at = &schema.messages[at].iter().find(|field| field.number == *number).unwrap().kind;
            }
            counted.insert((at, *last));
        }
    }
    assert_eq!(counted, repeated);
}

#[test]
fn minimal_profile_names_few_rules_that_exist() {
    let document = Document::read();
    let of_clients = document.sentences().into_iter().filter(|rule| rule.binds.contains('C'));
    let numbers: HashSet<String> = of_clients.map(|rule| rule.number).collect();
    let rows = document.table("## 17. The minimal profile", &["what", "rules"]);
    let named: Vec<&str> = rows.iter().flat_map(|row| row[1].split(", ")).collect();
    let wrong: Vec<_> = named.iter().filter(|number| !numbers.contains(**number)).collect();
    assert!(wrong.is_empty(), "no rules of clients: {wrong:?}");
    let distinct: HashSet<&&str> = named.iter().collect();
    assert_eq!(distinct.len(), named.len(), "a rule is named twice");
    assert!((28..=36).contains(&named.len()), "{} rules are not a small profile", named.len());
}

/// What they ask of other people's clients and services, and of later versions, no test here can show.
const OF_OTHERS: [&str; 7] = ["F-13", "S-6", "S-14", "V-1", "V-2", "V-3", "V-4"];

/// The numbers that the comments of one file name.
fn citations(file: &Path, cited: &mut Vec<(String, String)>) {
    let text = std::fs::read_to_string(file).unwrap();
    for line in text.lines().map(str::trim_start) {
        let Some(numbers) = line.strip_prefix(concat!("// ", "spec: ")) else { continue };
        for number in numbers.split([',', ' ']).filter(|number| !number.is_empty()) {
            cited.push((number.to_owned(), file.display().to_string()));
        }
    }
}

fn walk(directory: &Path, cited: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, cited);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            citations(&path, cited);
        }
    }
}

/// What tests and vectors name, and where.
fn cited() -> Vec<(String, String)> {
    let mut cited = Vec::new();
    for directory in ["proto", "src", "tests", "tools"] {
        let directory = top().join(directory);
        if directory.is_dir() {
            walk(&directory, &mut cited);
        }
    }
    for vector in vector_file::read_all() {
        let before = cited.len();
        let place = format!("vector {}", vector.name());
        cited.extend(vector.spec().map(|number| (number.to_owned(), place.clone())));
        assert!(cited.len() > before, "{place} names no sentence");
    }
    cited
}

#[test]
fn what_is_cited_exists_and_what_is_served_is_cited() {
    let sentences = Document::read().sentences();
    let numbers: HashSet<&str> = sentences.iter().map(|sentence| sentence.number.as_str()).collect();
    let cited = cited();
    let wrong: Vec<_> = cited.iter().filter(|(number, _)| !numbers.contains(number.as_str())).collect();
    assert!(wrong.is_empty(), "not in protocol-spec.md: {wrong:?}");
    let named: HashSet<&str> = cited.iter().map(|(number, _)| number.as_str()).collect();
    assert!(OF_OTHERS.iter().all(|number| numbers.contains(number) && !named.contains(number)));
    let is_shown = |number: &str| !OF_OTHERS.contains(&number);
    let served = sentences.iter().filter(|sentence| !sentence.later && is_shown(&sentence.number));
    let unnamed: Vec<_> = served
        .filter(|sentence| !named.contains(sentence.number.as_str()))
        .map(|sentence| format!("[{}] {}", sentence.number, sentence.text))
        .collect();
    assert!(unnamed.is_empty(), "named by no test and no vector: {unnamed:#?}");
}

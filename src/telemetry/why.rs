//! The `why=` of an access log's line: why a call went where it went, in a word for machines, and in words for people.
//!
//! ```text
//! why=peak_ewma:cand=10,ejected=1,cost=1.2ms,rival=10.0.0.2:7100@9ms,attempt=2,retry,canary
//! ```

use crate::routing::{Decision, How, Marks};
use std::fmt::Write as _;

/// Writes a decision; `rival` is the address of the endpoint that was compared with.
pub(super) fn write_why(text: &mut String, decision: &Decision, rival: &str) {
    if decision.how == How::None {
        text.push('-');
        return;
    }
    text.push_str(decision.how.name());
    let _ = write!(text, ":cand={}", decision.candidates);
    if decision.ejected > 0 {
        let _ = write!(text, ",ejected={}", decision.ejected);
    }
    if decision.cost_us > 0 {
        text.push_str(",cost=");
        write_us(text, decision.cost_us);
    }
    if decision.rival.0 != 0 {
        text.push_str(",rival=");
        text.push_str(rival);
        text.push('@');
        write_us(text, decision.rival_cost_us);
    }
    if decision.attempt > 1 {
        let _ = write!(text, ",attempt={}", decision.attempt);
    }
    for (mark, name) in Marks::NAMES {
        if decision.marks.has(mark) {
            text.push(',');
            text.push_str(name);
        }
    }
}

/// The same as a text of its own.
pub fn why_of(decision: &Decision, rival: &str) -> String {
    let mut text = String::new();
    write_why(&mut text, decision, rival);
    text
}

/// Microseconds with two digits that count, in the unit that suits.
fn write_us(text: &mut String, us: u32) {
    let (unit, name) = match us {
        0..1_000 => (1, "us"),
        1_000..1_000_000 => (1_000, "ms"),
        _ => (1_000_000, "s"),
    };
    let (whole, tenths) = (us / unit, us % unit * 10 / unit);
    let _ = match (whole, tenths) {
        (0..10, 1..) => write!(text, "{whole}.{tenths}{name}"),
        _ => write!(text, "{whole}{name}"),
    };
}

/// Writes what a call's endpoint would cost: for people.
pub fn time_of(us: u32) -> String {
    let mut text = String::new();
    write_us(&mut text, us);
    text
}

/// A rule in plain words.
fn rule_in_words(how: How) -> &'static str {
    match how {
        How::None => "no endpoint was chosen",
        How::Only => "it was the only one",
        How::Pinned => "an earlier call of the session went there, and its calls keep their order",
        How::Probe => "it was ejected, and this call was to show whether it is back",
        How::RoundRobin => "its turn had come",
        How::WeightedRoundRobin => "its turn had come, by weight",
        How::Random => "it was drawn at random, by weight",
        How::LeastOutstanding => "it had the fewest unanswered calls for its weight",
        How::PeakEwma => {
            "of two drawn by weight it had the lower cost, latency times unanswered calls, or with near-equal latencies fewer \
             unanswered calls"
        }
        How::ConsistentHash => "the caller's hash leads there",
    }
}

/// A mark in plain words.
fn mark_in_words(name: &str) -> Option<&'static str> {
    Some(match name {
        "panic" => "panic: so few could be used that ejected and doubted ones were used too",
        "canary" => "canary: the caller goes to the instances with the tag",
        "fallback" => "fallback: where the caller belongs, the canary or the others, nobody could take it",
        "spilled" => "spilled: those that are preferred could not carry it",
        "full" => "full: the first choice was at its bound",
        "hedge" => "hedge: it was sent a second time, since the first answer was slow",
        "retry" => "retry: it was sent again, to another endpoint than before",
        _ => return None,
    })
}

/// What a `why=` says, a sentence each.
///
/// # Errors
/// What cannot be read of it.
pub fn why_in_words(why: &str) -> Result<Vec<String>, String> {
    if why == "-" {
        return Ok(vec!["no endpoint was chosen".to_owned()]);
    }
    let (rule, rest) = why.split_once(':').unwrap_or((why, ""));
    let how = RULES.into_iter().find(|how| how.name() == rule);
    let how = how.ok_or_else(|| format!("`{}` is no rule that is known here", rule.escape_debug()))?;
    let mut words = vec![format!("by {rule}: {}", rule_in_words(how))];
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        let sentence = match part.split_once('=') {
            Some(("cand", count)) => format!("{count} could have been chosen"),
            Some(("ejected", count)) => format!("{count} were ejected"),
            Some(("cost", cost)) => format!("it was expected to take {cost}"),
            Some(("rival", rival)) => {
                let (rival, cost) = rival.rsplit_once('@').unwrap_or((rival, "?"));
                format!("it was compared with {rival}, which was expected to take {cost}")
            }
            Some(("attempt", number)) => format!("it was sent for time number {number}"),
            None if mark_in_words(part).is_some() => mark_in_words(part).unwrap_or_default().to_owned(),
            _ => return Err(format!("`{}` is not known here", part.escape_debug())),
        };
        words.push(sentence);
    }
    Ok(words)
}

/// All rules that choose.
const RULES: [How; 9] = [
    How::Only,
    How::Pinned,
    How::Probe,
    How::RoundRobin,
    How::WeightedRoundRobin,
    How::Random,
    How::LeastOutstanding,
    How::PeakEwma,
    How::ConsistentHash,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::EndpointId;
    use proptest::prelude::*;

    fn written(decision: &Decision) -> String {
        why_of(decision, "10.0.0.2:7100")
    }

    #[test]
    fn a_decision_is_a_word() {
        assert_eq!(written(&Decision::default()), "-");
        let decision = Decision {
            how: How::PeakEwma,
            marks: Marks::RETRY.with(Marks::CANARY),
            attempt: 2,
            candidates: 10,
            ejected: 1,
            cost_us: 1200,
            rival: EndpointId(2),
            rival_cost_us: 9000,
        };
        let expected =
            "peak_ewma:cand=10,ejected=1,cost=1.2ms,rival=10.0.0.2:7100@9ms,attempt=2,canary,retry";
        assert_eq!(written(&decision), expected);
        let only = Decision { how: How::Only, candidates: 1, attempt: 1, ..Decision::default() };
        assert_eq!(written(&only), "only:cand=1");
    }

    #[test]
    fn times_have_two_digits_that_count() {
        let cases = [
            (0, "0us"),
            (999, "999us"),
            (1_000, "1ms"),
            (1_950, "1.9ms"),
            (30_400, "30ms"),
            (5_100_000, "5.1s"),
        ];
        for (us, text) in cases {
            assert_eq!(time_of(us), text);
        }
    }

    #[test]
    fn a_word_that_is_not_known_is_told() {
        assert!(why_in_words("tea_leaves:cand=1").unwrap_err().contains("`tea_leaves` is no rule"));
        assert!(why_in_words("only:cand=1,luck").unwrap_err().contains("`luck` is not known"));
        assert_eq!(why_in_words("-").unwrap(), ["no endpoint was chosen"]);
    }

    proptest! {
        #[test]
        fn every_decision_is_told_in_words(
            how in 0..RULES.len(), marks in 0u8..128, attempt: u8, cost: u32, rival in 0u32..3, rival_cost: u32,
        ) {
            let marks = Marks::NAMES.iter().enumerate().filter(|(at, _)| marks >> at & 1 == 1);
            let marks = marks.fold(Marks::default(), |all, (_, (mark, _))| all.with(*mark));
            let (rival, rival_cost_us) = (EndpointId(rival), rival_cost);
            let (candidates, ejected) = (7, 2);
            let decision =
                Decision { how: RULES[how], marks, attempt, candidates, ejected, cost_us: cost, rival, rival_cost_us };
            let text = written(&decision);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{}", text);
            let words = why_in_words(&text);
            prop_assert!(words.is_ok(), "{}: {:?}", text, words);
            let told = Marks::NAMES.iter().filter(|(mark, _)| marks.has(*mark)).count();
            prop_assert_eq!(words.unwrap().len(), 3 + usize::from(cost > 0) + usize::from(rival.0 > 0)
                + usize::from(attempt > 1) + told);
        }
    }
}

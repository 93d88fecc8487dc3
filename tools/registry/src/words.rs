//! What others have written, made fit for a line of a log.

/// Characters of it; what is longer is cut.
pub(crate) const WORDS_MAX: usize = 200;

/// On one line, without characters that a terminal obeys, and with a bound.
pub(crate) fn fit(text: &str) -> String {
    let mut line = String::new();
    let mut count = 0usize;
    for c in text.trim().chars() {
        let written: String = if is_harmless(c) { c.into() } else { c.escape_default().collect() };
        count = count.saturating_add(written.chars().count());
        if count > WORDS_MAX {
            line.push('…');
            break;
        }
        line.push_str(&written);
    }
    line
}

/// No control character, no other end of a line, and nothing that turns the direction of what follows.
fn is_harmless(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') && !turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_harmless_line_with_a_bound() {
        assert_eq!(fit(" naïve \"服务\"\n"), "naïve \"服务\"");
        assert_eq!(fit("a\x1b[2J\r\nb\u{202e}c\0"), "a\\u{1b}[2J\\r\\nb\\u{202e}c\\u{0}");
        let long = fit(&"\x1b".repeat(100_000));
        assert!(long.chars().count() <= WORDS_MAX + 1 && long.ends_with('…'), "{long}");
        assert_eq!(fit(&"x".repeat(WORDS_MAX)), "x".repeat(WORDS_MAX));
    }
}

//! Text as a terminal shows it: cleaned, measured, wrapped.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// What may be shown of a text from somebody else: nothing in it can steer the terminal or turn the writing direction.
/// Line ends stay.
pub(crate) fn clean(text: &str) -> String {
    let shown = |letter: char| match letter {
        '\n' => '\n',
        '\t' => ' ',
        letter if letter.is_control() || is_steering(letter) => char::REPLACEMENT_CHARACTER,
        letter => letter,
    };
    text.replace("\r\n", "\n").chars().map(shown).collect()
}

/// Marks that turn or embed the writing direction, beyond their own text.
fn is_steering(letter: char) -> bool {
    matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The text in rows of at most `columns`, broken between words where that is possible.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    text.split('\n').flat_map(|line| wrap_line(line, columns.max(1))).collect()
}

fn wrap_line(line: &str, columns: usize) -> Vec<String> {
    let mut rows = Vec::new();
    let mut row = String::new();
    for word in line.split_word_bounds() {
        if width(&row) + width(word) <= columns {
            row.push_str(word);
        } else if word.trim().is_empty() {
            // The space at which a row ends is not shown.
            rows.push(std::mem::take(&mut row));
        } else {
            if !row.is_empty() {
                rows.push(std::mem::take(&mut row).trim_end().to_owned());
            }
            break_word(word, columns, &mut rows, &mut row);
        }
    }
    rows.push(row);
    rows
}

/// A word that may be longer than a row.
fn break_word(word: &str, columns: usize, rows: &mut Vec<String>, row: &mut String) {
    for cluster in word.graphemes(true) {
        if !row.is_empty() && width(row) + width(cluster) > columns {
            rows.push(std::mem::take(row));
        }
        row.push_str(cluster);
    }
}

/// As much of the start of a text as fits.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let mut fitting = String::new();
    let mut used = 0;
    for cluster in text.graphemes(true) {
        used += width(cluster);
        if used > columns {
            break;
        }
        fitting.push_str(cluster);
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}c\u{7f}"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
        assert_eq!(clean("one\r\ntwo\tthree\rfour"), "one\ntwo three\u{fffd}four");
        assert_eq!(clean("\u{202e}evil\u{2066}"), "\u{fffd}evil\u{fffd}");
        assert_eq!(clean("grüße 👋🏽 مرحبا"), "grüße 👋🏽 مرحبا");
    }

    #[test]
    fn rows_break_between_words_and_within_long_ones() {
        assert_eq!(wrap("the quick brown fox", 10), ["the quick", "brown fox"]);
        assert_eq!(wrap("a-very-long-word", 6), ["a-very", "-long-", "word"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("one\n\ntwo", 10), ["one", "", "two"]);
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("x y", 0), ["x", "y"]);
    }

    #[test]
    fn wide_letters_count_twice_and_are_not_torn() {
        assert_eq!(wrap("日本語です", 4), ["日本", "語で", "す"]);
        assert_eq!(width("👨‍👩‍👧"), 2);
        assert_eq!(wrap("👨‍👩‍👧👨‍👩‍👧", 2), ["👨‍👩‍👧", "👨‍👩‍👧"]);
        assert_eq!(fit("日本語", 5), "日本");
        assert_eq!(fit("e\u{301}e\u{301}", 1), "e\u{301}");
    }

    #[test]
    fn every_row_fits() {
        let text = "words of many lengths, 日本語, a_very_long_identifier_without_any_space and  two spaces";
        for columns in 2..40 {
            assert!(wrap(text, columns).iter().all(|row| width(row) <= columns), "{columns}");
        }
    }
}

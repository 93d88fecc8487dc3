//! Text that comes from elsewhere, within bounds.

/// Stands where a text goes on.
const MORE: char = '…';

/// The longest start of `text` within `bytes_max` bytes that is whole characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}

/// A text that others wrote, fit for a terminal and for a line: what moves the cursor, breaks the line or turns the
/// order of letters stands there escaped, as `\u{1b}`. At most `bytes_max` bytes (and a mark, if it went on).
pub fn shown(text: &str, bytes_max: usize) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        let before = shown.len();
        match is_plain(letter) {
            true => shown.push(letter),
            false => shown.extend(letter.escape_default()),
        }
        if shown.len() > bytes_max {
            shown.truncate(before);
            shown.push(MORE);
            break;
        }
    }
    shown
}

/// Neither a control character nor one that is not seen and changes how others are: separators of lines, marks of
/// direction, and what has no width.
fn is_plain(letter: char) -> bool {
    let is_unseen = matches!(
        letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    !letter.is_control() && !is_unseen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_a_terminal_is_escaped() {
        let hostile = "eu\x1b[2J\r\n\u{9b}1m\u{202e}\u{200b}\u{2028}\0-zürich";
        let expected = "eu\\u{1b}[2J\\r\\n\\u{9b}1m\\u{202e}\\u{200b}\\u{2028}\\u{0}-zürich";
        assert_eq!(shown(hostile, 1000), expected);
    }

    #[test]
    fn what_is_long_is_cut_at_a_whole_character() {
        assert_eq!(shown("zürich", 2), "z…");
        assert_eq!(shown("zürich", 7), "zürich");
        assert_eq!(shown("a\x1bb", 3), "a…", "an escape is shown whole or not at all");
        assert_eq!(shown(&"x".repeat(2 << 20), 64).chars().count(), 65);
    }
}

//! The line that is being written: letters, a cursor, and the lines before it.

use crate::text::width;
use std::collections::VecDeque;
use unicode_segmentation::UnicodeSegmentation;

/// Lines that are remembered.
const HISTORY_MAX: usize = 200;

/// A line and its cursor.
#[derive(Debug, Default)]
pub(crate) struct Editor {
    text: String,
    /// In bytes, between two letters.
    cursor: usize,
    history: VecDeque<String>,
    /// Which line of the history is shown, counted from the latest.
    shown: Option<usize>,
    /// What was written before the history was looked into.
    draft: String,
    /// What was written before something else was asked.
    aside: String,
}

/// What of the line is on the screen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Visible {
    pub(crate) text: String,
    /// In columns.
    pub(crate) cursor: usize,
}

impl Editor {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Puts letters in at the cursor, without line ends and other marks that a line cannot have, as far as `bytes_max`
    /// allows.
    pub(crate) fn insert(&mut self, text: &str, bytes_max: usize) {
        for cluster in text.graphemes(true) {
            let cluster = if cluster.contains(char::is_control) { " " } else { cluster };
            if self.text.len() + cluster.len() > bytes_max {
                return;
            }
            self.text.insert_str(self.cursor, cluster);
            self.cursor += cluster.len();
        }
    }

    fn before(&self) -> &str {
        self.text.get(..self.cursor).unwrap_or_default()
    }

    fn after(&self) -> &str {
        self.text.get(self.cursor..).unwrap_or_default()
    }

    fn previous(&self) -> usize {
        self.before().grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    fn next(&self) -> usize {
        self.cursor + self.after().graphemes(true).next().map_or(0, str::len)
    }

    fn previous_word(&self) -> usize {
        self.before().unicode_word_indices().next_back().map_or(0, |(at, _)| at)
    }

    fn next_word(&self) -> usize {
        let end = self.after().unicode_word_indices().next().map(|(at, word)| at + word.len());
        end.map_or(self.text.len(), |end| self.cursor + end)
    }

    /// Takes out what lies between the cursor and this place.
    fn cut(&mut self, to: usize) {
        let (start, end) = (self.cursor.min(to), self.cursor.max(to));
        self.text.replace_range(start..end, "");
        self.cursor = start;
    }

    pub(crate) fn left(&mut self) {
        self.cursor = self.previous();
    }

    pub(crate) fn right(&mut self) {
        self.cursor = self.next();
    }

    pub(crate) fn word_left(&mut self) {
        self.cursor = self.previous_word();
    }

    pub(crate) fn word_right(&mut self) {
        self.cursor = self.next_word();
    }

    pub(crate) fn home(&mut self) {
        self.cursor = 0;
    }

    pub(crate) fn end(&mut self) {
        self.cursor = self.text.len();
    }

    pub(crate) fn backspace(&mut self) {
        self.cut(self.previous());
    }

    pub(crate) fn delete(&mut self) {
        self.cut(self.next());
    }

    pub(crate) fn cut_word(&mut self) {
        self.cut(self.previous_word());
    }

    pub(crate) fn cut_to_start(&mut self) {
        self.cut(0);
    }

    pub(crate) fn cut_to_end(&mut self) {
        self.cut(self.text.len());
    }

    fn set(&mut self, text: String) {
        self.cursor = text.len();
        self.text = text;
    }

    /// The line before the one that is shown.
    pub(crate) fn up(&mut self) {
        let at = self.shown.map_or(0, |at| at + 1);
        let Some(line) = self.history.get(at).cloned() else { return };
        if self.shown.is_none() {
            self.draft = std::mem::take(&mut self.text);
        }
        self.shown = Some(at);
        self.set(line);
    }

    /// The line after the one that is shown; behind the latest what was being written.
    pub(crate) fn down(&mut self) {
        let Some(at) = self.shown else { return };
        self.shown = at.checked_sub(1);
        let line = self.shown.and_then(|at| self.history.get(at).cloned());
        let line = line.unwrap_or_else(|| std::mem::take(&mut self.draft));
        self.set(line);
    }

    /// The line is done. It is remembered unless it is a secret.
    pub(crate) fn take(&mut self, is_secret: bool) -> String {
        let line = std::mem::take(&mut self.text);
        (self.cursor, self.shown) = (0, None);
        self.draft.clear();
        if !is_secret && !line.trim().is_empty() && self.history.front() != Some(&line) {
            self.history.push_front(line.clone());
            self.history.truncate(HISTORY_MAX);
        }
        line
    }

    /// Something else is asked: what is written must not become its answer.
    pub(crate) fn set_aside(&mut self) {
        self.aside = std::mem::take(&mut self.text);
        (self.cursor, self.shown) = (0, None);
    }

    /// What was set aside goes on.
    pub(crate) fn bring_back(&mut self) {
        let text = std::mem::take(&mut self.aside);
        self.set(text);
    }

    /// Completes the word at the cursor to what all candidates that begin like it have in common.
    pub(crate) fn complete<'a>(&mut self, candidates: impl Iterator<Item = &'a str>) {
        let word = self.before().rsplit(' ').next().unwrap_or_default().to_owned();
        let mut found = candidates.filter(|candidate| candidate.starts_with(&word));
        let Some(first) = found.next() else { return };
        let mut common = first;
        let mut is_only = true;
        for other in found.filter(|other| *other != first) {
            is_only = false;
            let same = common.chars().zip(other.chars()).take_while(|(one, two)| one == two);
            let len = same.map(|(letter, _)| letter.len_utf8()).sum();
            common = common.get(..len).unwrap_or_default();
        }
        let rest = common.get(word.len()..).unwrap_or_default().to_owned();
        let space = if is_only && !self.after().starts_with(' ') { " " } else { "" };
        self.insert(&format!("{rest}{space}"), usize::MAX);
    }

    /// What fits into so many columns around the cursor.
    pub(crate) fn visible(&self, columns: usize, is_secret: bool) -> Visible {
        if is_secret {
            let dots = |text: &str| "•".repeat(text.graphemes(true).count());
            return window(&dots(self.before()), &dots(self.after()), columns);
        }
        window(self.before(), self.after(), columns)
    }
}

/// The end of `before` and the start of `after`; the last column is the cursor's at the end of the line.
fn window(before: &str, after: &str, columns: usize) -> Visible {
    let room = columns.saturating_sub(1);
    let mut start = before.len();
    let mut cursor = 0;
    for (at, cluster) in before.grapheme_indices(true).rev() {
        if cursor + width(cluster) > room {
            break;
        }
        cursor += width(cluster);
        start = at;
    }
    let mut text = before.get(start..).unwrap_or_default().to_owned();
    text.push_str(&crate::text::fit(after, columns.saturating_sub(cursor)));
    Visible { text, cursor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Editor {
        let mut editor = Editor::default();
        editor.insert(text, usize::MAX);
        editor
    }

    fn seen(editor: &Editor) -> String {
        format!("{}|{}", editor.before(), editor.after())
    }

    #[test]
    fn letters_are_whole_whatever_they_are_made_of() {
        let mut editor = with("a👨‍👩‍👧e\u{301}");
        editor.left();
        assert_eq!(seen(&editor), "a👨‍👩‍👧|e\u{301}");
        editor.backspace();
        assert_eq!(seen(&editor), "a|e\u{301}");
        editor.delete();
        assert_eq!(seen(&editor), "a|");
        editor.delete();
        editor.right();
        editor.backspace();
        editor.backspace();
        editor.left();
        assert_eq!(seen(&editor), "|");
    }

    #[test]
    fn words_and_ends_are_reached_and_cut() {
        let mut editor = with("one two, three");
        editor.word_left();
        assert_eq!(seen(&editor), "one two, |three");
        editor.word_left();
        editor.cut_word();
        assert_eq!(seen(&editor), "|two, three");
        editor.word_right();
        assert_eq!(seen(&editor), "two|, three");
        editor.cut_to_end();
        assert_eq!(seen(&editor), "two|");
        editor.home();
        editor.insert("x", usize::MAX);
        editor.cut_to_start();
        editor.end();
        assert_eq!(seen(&editor), "two|");
    }

    #[test]
    fn what_is_pasted_is_one_line_and_has_a_bound() {
        assert_eq!(seen(&with("one\r\ntwo\nthree\x07")), "one two three |");
        let mut editor = with("");
        editor.insert("日本語", 7);
        assert_eq!(editor.text(), "日本");
    }

    #[test]
    fn history_keeps_the_draft_and_no_secrets() {
        let mut editor = with("first");
        assert_eq!(editor.take(false), "first");
        editor.insert("hush", usize::MAX);
        assert_eq!(editor.take(true), "hush");
        for _ in 0..2 {
            editor.insert("second", usize::MAX);
            editor.take(false);
        }
        editor.insert("draft", usize::MAX);
        editor.down();
        editor.up();
        assert_eq!(seen(&editor), "second|");
        editor.up();
        editor.up();
        assert_eq!(seen(&editor), "first|");
        editor.down();
        editor.down();
        assert_eq!(seen(&editor), "draft|");
        editor.take(false);
        for line in 0..2 * HISTORY_MAX {
            editor.insert(&line.to_string(), usize::MAX);
            editor.take(false);
        }
        assert_eq!(editor.history.len(), HISTORY_MAX);
    }

    #[test]
    fn what_is_written_does_not_become_a_password() {
        let mut editor = with("half a mess");
        editor.set_aside();
        assert_eq!(seen(&editor), "|");
        editor.insert("secret", usize::MAX);
        assert_eq!(editor.take(true), "secret");
        editor.bring_back();
        assert_eq!(seen(&editor), "half a mess|");
    }

    #[test]
    fn completion_goes_as_far_as_it_is_sure() {
        let names = ["/to", "/join", "alice", "alina"];
        let mut editor = with("/j");
        editor.complete(names.into_iter());
        assert_eq!(seen(&editor), "/join |");
        let mut editor = with("/to al");
        editor.complete(names.into_iter());
        assert_eq!(seen(&editor), "/to ali|");
        editor.insert("c", usize::MAX);
        editor.complete(names.into_iter());
        assert_eq!(seen(&editor), "/to alice |");
        editor.insert("x", usize::MAX);
        editor.complete(names.into_iter());
        assert_eq!(seen(&editor), "/to alice x|");
    }

    #[test]
    fn a_long_line_is_seen_around_its_cursor() {
        let mut editor = with("abcdefgh");
        assert_eq!(editor.visible(20, false), Visible { text: "abcdefgh".into(), cursor: 8 });
        assert_eq!(editor.visible(5, false), Visible { text: "efgh".into(), cursor: 4 });
        editor.home();
        assert_eq!(editor.visible(5, false), Visible { text: "abcde".into(), cursor: 0 });
        assert_eq!(with("日本").visible(4, false), Visible { text: "本".into(), cursor: 2 });
        assert_eq!(with("hush").visible(20, true), Visible { text: "••••".into(), cursor: 4 });
        assert_eq!(with("x").visible(0, false), Visible { text: String::new(), cursor: 0 });
    }
}

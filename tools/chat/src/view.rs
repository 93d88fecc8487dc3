//! What is on the screen: the messages, a status line, and the line that is being written.

use crate::app::{App, Entry, EntryId, Fate, Message, Moment, What};
use crate::command::Target;
use crate::editor::Editor;
use crate::style::{Row, Style};
use crate::text::{fit, width, wrap};

/// Columns before each entry's text: the time, a mark, and spaces.
const MARGIN: usize = 8;

/// Turns milliseconds of Unix time into hours and minutes.
pub(crate) type Clock = fn(u64) -> String;

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl Size {
    /// Rows for messages.
    fn height(self) -> usize {
        self.rows.saturating_sub(2)
    }
}

/// The whole screen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) rows: Vec<Row>,
    /// Column and row.
    pub(crate) cursor: (usize, usize),
}

/// Which messages are looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Viewport {
    /// The last entry in view, and how many of its rows are below the view; `None`: the latest.
    bottom: Option<(EntryId, usize)>,
}

/// What shows entries in rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) size: Size,
    pub(crate) clock: Clock,
}

impl View {
    /// The screen as it is now.
    pub(crate) fn frame(&self, app: &App, editor: &Editor, viewport: Viewport, now: Moment) -> Frame {
        let Size { columns, rows } = self.size;
        let mut all = self.messages(app, viewport);
        all.truncate(self.size.height());
        let mut frame: Vec<Row> = vec![Row::default(); self.size.height().saturating_sub(all.len())];
        all.reverse();
        frame.extend(all);
        if rows >= 2 {
            frame.push(self.status(app, viewport, now));
        }
        let (row, cursor) = input(app, editor, columns);
        frame.push(row);
        Frame { rows: frame, cursor: (cursor, rows.saturating_sub(1)) }
    }

    /// Rows of the entries in view, from the bottom up.
    fn messages(&self, app: &App, viewport: Viewport) -> Vec<Row> {
        let mut found = Vec::new();
        for entry in app.entries().latest_first() {
            let hidden = match viewport.bottom {
                Some((bottom, _)) if entry.id > bottom => continue,
                Some((bottom, hidden)) if entry.id == bottom => hidden,
                _ => 0,
            };
            found.extend(self.rows_of(app, entry).into_iter().rev().skip(hidden));
            if found.len() >= self.size.height() {
                break;
            }
        }
        found
    }

    /// Goes so many rows back, not beyond the first entry.
    pub(crate) fn up(&self, app: &App, viewport: &mut Viewport, rows: usize) {
        let mut above = Vec::new();
        for entry in app.entries().latest_first() {
            let count = self.rows_of(app, entry).len();
            let hidden = match viewport.bottom {
                Some((bottom, _)) if entry.id > bottom => continue,
                Some((bottom, hidden)) if entry.id == bottom => hidden,
                _ => 0,
            };
            above.extend((hidden..count).map(|hidden| (entry.id, hidden)));
            if above.len() >= rows + self.size.height() {
                break;
            }
        }
        let most = above.len().saturating_sub(self.size.height());
        if let Some(bottom) = above.get(rows.min(most)).filter(|_| most > 0) {
            viewport.bottom = Some(*bottom);
        }
    }

    /// Goes so many rows towards the latest entry.
    pub(crate) fn down(&self, app: &App, viewport: &mut Viewport, rows: usize) {
        let Some((bottom, hidden)) = viewport.bottom else { return };
        let mut below = Vec::new();
        for entry in app.entries().latest_first().take_while(|entry| entry.id >= bottom) {
            let rows = if entry.id == bottom { hidden } else { self.rows_of(app, entry).len() };
            below.extend((0..rows).map(|hidden| (entry.id, hidden)));
        }
        // From the latest row up; the view's own last row is behind the last of them.
        viewport.bottom =
            below.len().checked_sub(rows).filter(|at| *at > 0).and_then(|at| below.get(at).copied());
    }

    /// Rows of one entry.
    fn rows_of(&self, app: &App, entry: &Entry) -> Vec<Row> {
        let columns = self.size.columns.saturating_sub(MARGIN).max(1);
        let (mark, mark_style) = mark(entry);
        let (head, style) = head(app, entry);
        let (text, text_style) = text(entry);
        let (tail, tail_style) = tail(entry);
        let mut rows = Vec::new();
        for (at, line) in wrap(&format!("{head}{text}{tail}"), columns).into_iter().enumerate() {
            let mut row = Row::default();
            if at > 0 {
                row.add(fit(&" ".repeat(MARGIN), self.size.columns), Style::PLAIN);
            } else if self.size.columns >= MARGIN {
                row.add(format!("{:5} ", (self.clock)(entry.unix_ms)), Style::DIM);
                row.add(mark, mark_style);
                row.add(" ", Style::PLAIN);
            }
            let rest = match line.strip_prefix(&head).filter(|_| at == 0) {
                Some(rest) => {
                    row.add(&*head, style);
                    rest
                }
                None => &line,
            };
            match rest.strip_suffix(&tail).filter(|_| !tail.is_empty()) {
                Some(rest) => {
                    row.add(rest, text_style);
                    row.add(&*tail, tail_style);
                }
                None => row.add(rest, text_style),
            }
            rows.push(row);
        }
        rows
    }

    fn status(&self, app: &App, viewport: Viewport, now: Moment) -> Row {
        let status = app.status(now);
        let mark = if status.is_connected { "●" } else { "○" };
        let mut right = String::new();
        if status.waiting > 0 {
            right = format!("{} waiting ", status.waiting);
        }
        if let Some((bottom, _)) = viewport.bottom {
            let below = app.entries().latest_first().take_while(|entry| entry.id > bottom).count();
            right.push_str(&format!("↓ {below} more "));
        }
        let room = self.size.columns.saturating_sub(width(&right));
        let left = fit(&format!(" {mark} {} ", status.text), room);
        let gap = " ".repeat(room.saturating_sub(width(&left)));
        let mut row = Row::default();
        row.add(fit(&format!("{left}{gap}{right}"), self.size.columns), Style::REVERSE);
        row
    }
}

/// What an entry is, in one column.
fn mark(entry: &Entry) -> (&'static str, Style) {
    match &entry.what {
        What::Note(_) => ("*", Style::DIM),
        What::Problem(_) => ("!", Style::PROBLEM),
        What::Message(message) => match message.fate {
            Fate::Received => (" ", Style::PLAIN),
            Fate::Waiting => ("…", Style::DIM),
            Fate::Sent => ("✓", Style::DIM),
            Fate::Missed | Fate::Failed(_) => ("✗", Style::PROBLEM),
        },
    }
}

/// Who speaks to whom.
fn head(app: &App, entry: &Entry) -> (String, Style) {
    match &entry.what {
        What::Note(_) | What::Problem(_) => (String::new(), Style::PLAIN),
        What::Message(message) => (speaker(app.user(), message), Style::of_name(&message.from)),
    }
}

/// For example `bob: `, `#team bob: `, `you to bob: `.
pub(crate) fn speaker(user: Option<&str>, message: &Message) -> String {
    let is_own = message.fate != Fate::Received || user == Some(&message.from);
    match &message.target {
        Target::Group(group) if is_own => format!("#{group} you: "),
        Target::Group(group) => format!("#{group} {}: ", message.from),
        Target::User(to) if is_own => format!("you to {to}: "),
        Target::User(_) => format!("{}: ", message.from),
    }
}

fn text(entry: &Entry) -> (&str, Style) {
    match &entry.what {
        What::Note(text) => (text, Style::DIM),
        What::Problem(text) => (text, Style::PROBLEM),
        What::Message(message) => (&message.text, Style::PLAIN),
    }
}

fn tail(entry: &Entry) -> (String, Style) {
    match &entry.what {
        What::Message(message) => (fate(&message.fate), Style::PROBLEM),
        What::Note(_) | What::Problem(_) => (String::new(), Style::PLAIN),
    }
}

/// What is said behind a message of ours that has not come to anybody.
pub(crate) fn fate(fate: &Fate) -> String {
    match fate {
        Fate::Received | Fate::Waiting | Fate::Sent => String::new(),
        Fate::Missed => " (not online: it is lost)".to_owned(),
        Fate::Failed(why) => format!(" (not sent: {why})"),
    }
}

/// The prompt and the line, and the cursor's column.
fn input(app: &App, editor: &Editor, columns: usize) -> (Row, usize) {
    let prompt = app.prompt();
    let shown = fit(&prompt.text, columns / 2);
    let visible = editor.visible(columns.saturating_sub(width(&shown)), prompt.is_secret);
    let cursor = (width(&shown) + visible.cursor).min(columns.saturating_sub(1));
    let mut row = Row::default();
    row.add(shown, Style::BOLD);
    row.add(visible.text, Style::PLAIN);
    (row, cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorgate_client::{Event, Missed, Reason, State};
    use moorgate_proto::time::Mono;
    use std::time::Duration;

    const NOW: Moment = Moment { mono: Mono::ZERO, unix_ms: 0 };

    fn view(columns: usize, rows: usize) -> View {
        View { size: Size { columns, rows }, clock: |_| "12:34".to_owned() }
    }

    fn texts(frame: &Frame) -> Vec<String> {
        frame.rows.iter().map(|row| row.text().trim_end().to_owned()).collect()
    }

    /// An app that has told this many things.
    fn app(notes: usize) -> App {
        let mut app = App::new([0; 16], None);
        (0..notes).for_each(|number| tell(&mut app, number));
        app
    }

    /// In two rows of forty columns.
    fn tell(app: &mut App, number: usize) {
        let missed = Missed::Pushes(number as u64, Reason::PushOverflow);
        app.kit(NOW, Event::Resync(missed));
    }

    #[test]
    fn the_screen_has_messages_a_status_and_an_input_line() {
        let mut app = App::new([0; 16], Some("alice".to_owned()));
        app.kit(NOW, Event::State(State::Connecting { address: "g:1".to_owned() }));
        app.line(NOW, "");
        app.line(NOW, "böb");
        let mut editor = Editor::default();
        editor.insert("bob", 100);
        let frame = view(40, 6).frame(&app, &editor, Viewport::default(), NOW);
        let rows = [
            "",
            "",
            "12:34 ! a name has 1 to 32 letters (a to",
            "        z), digits, '-', '_' or '.'",
            " ○ connecting to g:1",
            "your name: bob",
        ];
        assert_eq!(texts(&frame), rows);
        assert_eq!(frame.cursor, (14, 5));
        assert_eq!(width(&frame.rows[4].text()), 40, "the status line is filled");
    }

    #[test]
    fn a_password_is_not_seen() {
        let app = App::new([0; 16], Some("alice".to_owned()));
        let mut editor = Editor::default();
        editor.insert("hush", 100);
        let frame = view(40, 3).frame(&app, &editor, Viewport::default(), NOW);
        assert_eq!(texts(&frame)[2], "password of alice: ••••");
    }

    #[test]
    fn any_size_gives_rows_that_fit() {
        let app = app(3);
        for columns in 0..50 {
            for rows in 0..6 {
                let frame = view(columns, rows).frame(&app, &Editor::default(), Viewport::default(), NOW);
                assert_eq!(frame.rows.len(), rows.max(1), "{columns} x {rows}");
                let widest = frame.rows.iter().map(|row| width(&row.text())).max();
                // One letter is the least that can be shown.
                assert!(widest <= Some(columns.max(MARGIN + 1)), "{columns} x {rows}");
            }
        }
    }

    #[test]
    fn paging_goes_back_to_the_first_row_and_forth_to_the_last() {
        let app = app(20);
        let view = view(40, 6);
        let first = |viewport: Viewport| {
            let frame = view.frame(&app, &Editor::default(), viewport, NOW);
            texts(&frame)[..4].to_vec()
        };
        let mut viewport = Viewport::default();
        let latest = first(viewport);
        let mut seen = vec![latest.clone()];
        for _ in 0..20 {
            view.up(&app, &mut viewport, 3);
            seen.push(first(viewport));
        }
        assert_eq!(seen[1][3], latest[0], "one row is seen twice");
        assert_eq!(seen[19], seen[20]);
        let oldest = app.entries().latest_first().last().unwrap();
        assert_eq!(texts(&Frame { rows: view.rows_of(&app, oldest), cursor: (0, 0) }), seen[20][..2]);
        let page = seen.iter().position(|page| *page == seen[20]).unwrap();
        for _ in 0..page {
            view.down(&app, &mut viewport, 3);
        }
        assert_eq!(viewport, Viewport::default());
        view.down(&app, &mut viewport, 3);
        assert_eq!(first(viewport), latest);
    }

    #[test]
    fn what_is_looked_at_stays_while_more_comes() {
        let mut app = app(20);
        let view = view(40, 6);
        let mut viewport = Viewport::default();
        view.up(&app, &mut viewport, 3);
        let before = texts(&view.frame(&app, &Editor::default(), viewport, NOW));
        tell(&mut app, 20);
        let after = texts(&view.frame(&app, &Editor::default(), viewport, NOW));
        assert_eq!(before[..4], after[..4]);
        assert!(after[4].ends_with("more"), "{:?}", after[4]);
        let short = App::new([0; 16], None);
        let mut viewport = Viewport::default();
        view.up(&short, &mut viewport, 3);
        assert_eq!(viewport, Viewport::default(), "there is nothing above");
    }

    #[test]
    fn the_countdown_is_in_the_status_line() {
        let mut app = app(0);
        let why = moorgate_client::Setback::NotConnected("Connection refused (os error 111)".to_owned());
        app.kit(NOW, Event::State(State::Away { retry_in: Duration::from_millis(1_500), why }));
        let at = |millis| {
            let now = Moment { mono: Mono::ZERO + Duration::from_millis(millis), unix_ms: 0 };
            texts(&view(60, 3).frame(&app, &Editor::default(), Viewport::default(), now))[1].clone()
        };
        assert_eq!(at(0), " ○ reconnecting in 2 s (connection refused)");
        assert_eq!(at(501), " ○ reconnecting in 1 s (connection refused)");
        assert_eq!(at(1_500), " ○ reconnecting (connection refused)");
    }
}

//! The terminal: taken over, drawn on, given back.

use crate::ambient::Clocks;
use crate::app::{App, Effect, Moment};
use crate::editor::Editor;
use crate::happening::{Bringer, Happening, Happenings};
use crate::link::Link;
use crate::style::{Colour, Row, Span, Style};
use crate::view::{Clock, Frame, Size, View, Viewport};
use crossterm::event::{
    DisableBracketedPaste, EnableBracketedPaste, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use moorgate_proto::time::Mono;
use std::io::{self, Stdout, Write};
use std::thread;
use std::time::Duration;

/// So much is looked at before the screen is drawn again.
const TOGETHER_MAX: usize = 64;
/// Looks at the clock at least so often.
const IDLE: Duration = Duration::from_secs(60);

/// The terminal while it is ours. It is given back when this is dropped.
struct Terminal {
    out: Stdout,
    has_colours: bool,
    /// What is on it.
    shown: Vec<Row>,
}

/// Gives the terminal back. What fails is not told: there is nowhere to tell it.
fn restore() {
    let mut out = io::stdout();
    let _ = execute!(out, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

/// A panic, on any thread, gives the terminal back before it says what has happened; the program ends then.
fn restore_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        before(panic);
        std::process::exit(101);
    }));
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

impl Terminal {
    fn take(has_colours: bool) -> io::Result<Terminal> {
        enable_raw_mode()?;
        let mut terminal = Terminal { out: io::stdout(), has_colours, shown: Vec::new() };
        execute!(terminal.out, EnterAlternateScreen, EnableBracketedPaste)?;
        Ok(terminal)
    }

    /// Draws the rows that have changed.
    fn draw(&mut self, frame: Frame) -> io::Result<()> {
        queue!(self.out, BeginSynchronizedUpdate)?;
        for (at, row) in frame.rows.iter().enumerate() {
            if self.shown.get(at) == Some(row) {
                continue;
            }
            queue!(self.out, cursor::MoveTo(0, cell(at)), Clear(ClearType::UntilNewLine))?;
            for span in &row.spans {
                self.print(span)?;
            }
        }
        let (column, row) = frame.cursor;
        queue!(self.out, cursor::MoveTo(cell(column), cell(row)), EndSynchronizedUpdate)?;
        self.out.flush()?;
        self.shown = frame.rows;
        Ok(())
    }

    fn print(&mut self, span: &Span) -> io::Result<()> {
        let Style { colour, is_bold, is_dim, is_reverse } = span.style;
        for attribute in
            [(is_bold, Attribute::Bold), (is_dim, Attribute::Dim), (is_reverse, Attribute::Reverse)]
        {
            if attribute.0 {
                queue!(self.out, SetAttribute(attribute.1))?;
            }
        }
        if let Some(colour) = colour.filter(|_| self.has_colours) {
            queue!(self.out, SetForegroundColor(of_terminal(colour)))?;
        }
        queue!(self.out, Print(&span.text), SetAttribute(Attribute::Reset))?;
        if colour.is_some() && self.has_colours {
            queue!(self.out, ResetColor)?;
        }
        Ok(())
    }

    /// Whatever was on it is gone.
    fn forget(&mut self) -> io::Result<()> {
        self.shown.clear();
        queue!(self.out, Clear(ClearType::All))
    }
}

fn cell(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

fn of_terminal(colour: Colour) -> Color {
    match colour {
        Colour::Red => Color::DarkRed,
        Colour::Green => Color::DarkGreen,
        Colour::Magenta => Color::DarkMagenta,
        Colour::Cyan => Color::DarkCyan,
    }
}

/// What a key has led to.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    /// Nothing beyond the editor and the view.
    Nothing,
    /// A line.
    Line(String),
    /// The whole screen is to be drawn again.
    Redraw,
    Quit,
}

/// The chat on a screen.
struct Screen {
    app: App,
    editor: Editor,
    viewport: Viewport,
    size: Size,
    clock: Clock,
}

impl Screen {
    fn view(&self) -> View {
        View { size: self.size, clock: self.clock }
    }

    fn frame(&self, now: Moment) -> Frame {
        self.view().frame(&self.app, &self.editor, self.viewport, now)
    }

    fn page(&self) -> usize {
        self.size.rows.saturating_sub(3).max(1)
    }

    fn typed(&mut self, key: KeyEvent) -> Typed {
        let (view, page) = (self.view(), self.page());
        let Screen { app, editor, viewport, .. } = self;
        let is_secret = app.prompt().is_secret;
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Char('c') if ctrl => return Typed::Quit,
            KeyCode::Char('d') if ctrl && editor.text().is_empty() => return Typed::Quit,
            KeyCode::Char('l') if ctrl => return Typed::Redraw,
            KeyCode::Enter => {
                *viewport = Viewport::default();
                return Typed::Line(editor.take(!app.is_chatting()));
            }
            KeyCode::PageUp => view.up(app, viewport, page),
            KeyCode::PageDown => view.down(app, viewport, page),
            KeyCode::Home if ctrl => view.up(app, viewport, usize::MAX / 2),
            KeyCode::End if ctrl => *viewport = Viewport::default(),
            KeyCode::Esc => *viewport = Viewport::default(),
            KeyCode::Up if !is_secret => editor.up(),
            KeyCode::Down if !is_secret => editor.down(),
            KeyCode::Tab if app.is_chatting() => editor.complete(app.completions()),
            _ => edit(editor, key.code, ctrl, alt, app.line_bytes_max()),
        }
        Typed::Nothing
    }
}

/// Keys that change the line.
fn edit(editor: &mut Editor, code: KeyCode, ctrl: bool, alt: bool, bytes_max: usize) {
    match code {
        KeyCode::Left if ctrl || alt => editor.word_left(),
        KeyCode::Right if ctrl || alt => editor.word_right(),
        KeyCode::Char('b') if alt => editor.word_left(),
        KeyCode::Char('f') if alt => editor.word_right(),
        KeyCode::Left => editor.left(),
        KeyCode::Right => editor.right(),
        KeyCode::Home => editor.home(),
        KeyCode::End => editor.end(),
        KeyCode::Backspace if ctrl || alt => editor.cut_word(),
        KeyCode::Backspace => editor.backspace(),
        KeyCode::Delete => editor.delete(),
        KeyCode::Char(letter) if ctrl => match letter {
            'a' => editor.home(),
            'e' => editor.end(),
            'b' => editor.left(),
            'f' => editor.right(),
            'd' => editor.delete(),
            'h' => editor.backspace(),
            'k' => editor.cut_to_end(),
            'u' => editor.cut_to_start(),
            'w' => editor.cut_word(),
            _ => {}
        },
        KeyCode::Char(letter) if !alt => editor.insert(letter.encode_utf8(&mut [0; 4]), bytes_max),
        _ => {}
    }
}

/// Passes on what happens at the keyboard.
fn listen(bringer: Bringer) -> io::Result<()> {
    thread::Builder::new().name("keyboard".to_owned()).spawn(move || {
        while let Ok(event) = crossterm::event::read() {
            if !bringer.bring(Happening::Terminal(event)) {
                return;
            }
        }
        bringer.bring(Happening::InputEnds);
    })?;
    Ok(())
}

/// Chats until the end.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) fn run(
    app: App,
    link: &mut Link,
    clocks: &Clocks,
    (bringer, happenings): (Bringer, &Happenings),
) -> io::Result<()> {
    let (columns, rows) = crossterm::terminal::size()?;
    let size = Size { columns: columns.into(), rows: rows.into() };
    restore_on_panic();
    let mut terminal = Terminal::take(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))?;
    listen(bringer)?;
    let clock = crate::ambient::hours_and_minutes;
    let mut screen = Screen { app, editor: Editor::default(), viewport: Viewport::default(), size, clock };
    loop {
        if !perform(&mut screen.app, link)? {
            return Ok(());
        }
        let now = clocks.now();
        terminal.draw(screen.frame(now))?;
        let deadline = screen.app.next_deadline(now.mono);
        let wait = if deadline == Mono::NEVER { IDLE } else { deadline.since(now.mono).min(IDLE) };
        let mut next = happenings.next(wait);
        // What has come together is drawn together.
        let mut together = 0;
        while let Some(happening) = next {
            if !take(&mut screen, &mut terminal, link, (clocks.now(), happening))? {
                return Ok(());
            }
            together += 1;
            next = if together < TOGETHER_MAX { happenings.next(Duration::ZERO) } else { None };
        }
        screen.app.tick(clocks.now());
    }
}

/// Does what the chat wants. Whether it goes on.
fn perform(app: &mut App, link: &mut Link) -> io::Result<bool> {
    while let Some(effect) = app.poll() {
        match effect {
            Effect::Connect => link.connect()?,
            Effect::Ask(asked, request) => link.ask(asked, &request),
            // It is drawn with the rest.
            Effect::Show(_) => {}
            Effect::Quit => return Ok(false),
        }
    }
    Ok(true)
}

/// What is written belongs to the chat, or to the question, not to both.
fn keep_apart(screen: &mut Screen, was_chatting: bool) {
    match (was_chatting, screen.app.is_chatting()) {
        (true, false) => screen.editor.set_aside(),
        (false, true) => screen.editor.bring_back(),
        _ => {}
    }
}

/// Whether the chat goes on.
fn take(
    screen: &mut Screen,
    terminal: &mut Terminal,
    link: &mut Link,
    (now, happening): (Moment, Happening),
) -> io::Result<bool> {
    let was_chatting = screen.app.is_chatting();
    match happening {
        Happening::Kit(generation, event) if link.is_current(generation) => screen.app.kit(now, event),
        Happening::Answered(generation, asked, result) if link.is_current(generation) => {
            screen.app.answered(now, asked, result);
        }
        Happening::Kit(..) | Happening::Answered(..) | Happening::Line(_) => {}
        Happening::Terminal(Event::Key(key)) if key.kind != KeyEventKind::Release => {
            match screen.typed(key) {
                Typed::Nothing => {}
                Typed::Line(line) => screen.app.line(now, &line),
                Typed::Redraw => terminal.forget()?,
                Typed::Quit => return Ok(false),
            }
        }
        Happening::Terminal(Event::Paste(text)) => {
            let most = screen.app.line_bytes_max();
            screen.editor.insert(&text, most);
        }
        Happening::Terminal(Event::Resize(columns, rows)) => {
            screen.size = Size { columns: columns.into(), rows: rows.into() };
            terminal.forget()?;
        }
        Happening::Terminal(_) => {}
        Happening::InputEnds | Happening::Terminate => return Ok(false),
    }
    keep_apart(screen, was_chatting);
    perform(&mut screen.app, link)
}

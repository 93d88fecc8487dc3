//! Lines in, lines out: for pipes, for tests, and for who reads with other means than a screen.
//!
//! Lines that begin with `*` or `!` are the chat's own, those with `?` ask for a line; all others are messages. When no
//! more lines come, what waits is sent, and then it ends; it fails when no gateway has answered, or something still waits.

use crate::ambient::{Clocks, hours_and_minutes};
use crate::app::{App, Effect, Entry, Fate, Prompt, Status, What};
use crate::happening::{Bringer, Happening, Happenings};
use crate::link::Link;
use crate::view::{fate, speaker};
use moorgate_proto::time::Mono;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

/// Who has no more lines waits so long for what is on its way.
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks at the clock at least so often.
const IDLE: Duration = Duration::from_secs(60);

/// The standard input, read only as far as its lines are wanted.
struct Reader {
    wants: Sender<()>,
    /// A line was wanted and has not come.
    is_reading: bool,
}

impl Reader {
    fn new(bringer: Bringer) -> io::Result<Reader> {
        let (wants, wanted) = channel();
        thread::Builder::new().name("lines".to_owned()).spawn(move || {
            let mut lines = io::stdin().lock().lines();
            while let (Ok(()), Some(Ok(line))) = (wanted.recv(), lines.next()) {
                bringer.bring(Happening::Line(line));
            }
            bringer.bring(Happening::InputEnds);
        })?;
        Ok(Reader { wants, is_reading: false })
    }

    /// Asks for one more line.
    fn want(&mut self) {
        if !std::mem::replace(&mut self.is_reading, true) {
            // It fails once no more lines come.
            let _ = self.wants.send(());
        }
    }
}

/// Whether what is typed is seen; as before, when this is dropped.
struct Echo {
    before: Option<Termios>,
    is_off: bool,
}

impl Echo {
    fn new() -> Echo {
        Echo { before: tcgetattr(io::stdin()).ok(), is_off: false }
    }

    fn set_off(&mut self, is_off: bool) {
        let Some(before) = self.before.as_ref().filter(|_| is_off != self.is_off) else { return };
        let mut modes = before.clone();
        modes.local_modes.set(LocalModes::ECHO, !is_off);
        // A terminal that is gone has nobody who looks on.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        self.is_off = is_off;
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.set_off(false);
    }
}

/// What was written last of what changes by itself.
struct Writer<W> {
    out: W,
    prompt: Option<Prompt>,
    status: Option<String>,
}

impl<W: Write> Writer<W> {
    /// A prompt of its own, where there is nobody logged in.
    fn prompt(&mut self, app: &App) -> io::Result<()> {
        let prompt = (!app.is_chatting() && !app.is_busy()).then(|| app.prompt());
        if prompt != self.prompt
            && let Some(prompt) = &prompt
        {
            writeln!(self.out, "? {}", prompt.text.trim_end())?;
        }
        self.prompt = prompt;
        Ok(())
    }

    /// Without the countdown.
    fn status(&mut self, status: &Status) -> io::Result<()> {
        let text = if status.text.starts_with("reconnecting") { "reconnecting" } else { &status.text };
        if self.status.as_deref() != Some(text) {
            writeln!(self.out, "* {}", status.text)?;
            self.status = Some(text.to_owned());
        }
        Ok(())
    }

    fn entry(&mut self, user: Option<&str>, entry: &Entry) -> io::Result<()> {
        let time = hours_and_minutes(entry.unix_ms);
        match &entry.what {
            What::Note(text) => writeln!(self.out, "* {text}"),
            What::Problem(text) => writeln!(self.out, "! {text}"),
            // It is written once, when its fate is known.
            What::Message(message) if message.fate == Fate::Waiting => Ok(()),
            What::Message(message) => {
                let text = message.text.replace('\n', "\n      ");
                let (speaker, fate) = (speaker(user, message), fate(&message.fate));
                writeln!(self.out, "{time} {speaker}{text}{fate}")
            }
        }
    }
}

/// Chats until the end.
///
/// # Errors
/// When nobody reads what is written; at the end of the lines, when no gateway has answered or not everything was sent.
pub(crate) fn run(
    mut app: App,
    link: &mut Link,
    clocks: &Clocks,
    (bringer, happenings): (Bringer, &Happenings),
) -> io::Result<()> {
    let mut reader = Reader::new(bringer)?;
    let mut echo = Echo::new();
    let mut writer = Writer { out: io::stdout(), prompt: None, status: None };
    let mut ends_at = Mono::NEVER;
    loop {
        let now = clocks.now();
        while let Some(effect) = app.poll() {
            match effect {
                Effect::Connect => link.connect()?,
                Effect::Ask(asked, request) => link.ask(asked, &request),
                Effect::Show(id) => {
                    if let Some(entry) = app.entries().find(id) {
                        writer.entry(app.user(), entry)?;
                    }
                }
                Effect::Quit => return Ok(()),
            }
        }
        writer.status(&app.status(now))?;
        writer.prompt(&app)?;
        writer.out.flush()?;
        echo.set_off(app.prompt().is_secret);
        if ends_at <= now.mono || ends_at != Mono::NEVER && !app.is_busy() && app.reached().is_some() {
            return result(&app, link);
        }
        if app.takes_lines() {
            reader.want();
        }
        let deadline = app.next_deadline(now.mono).min(ends_at);
        let wait = if deadline == Mono::NEVER { IDLE } else { deadline.since(now.mono).min(IDLE) };
        let happening = happenings.next(wait);
        let now = clocks.now();
        match happening {
            Some(Happening::Kit(generation, event)) if link.is_current(generation) => app.kit(now, event),
            Some(Happening::Answered(generation, asked, result)) if link.is_current(generation) => {
                app.answered(now, asked, result);
            }
            Some(Happening::Line(line)) => {
                reader.is_reading = false;
                app.line(now, &line);
            }
            Some(Happening::InputEnds) => ends_at = now.mono + PATIENCE,
            Some(Happening::Terminate) => return Ok(()),
            Some(Happening::Kit(..) | Happening::Answered(..) | Happening::Terminal(_)) | None => {}
        }
        app.tick(now);
    }
}

/// What has come of the lines, now that there are no more.
fn result(app: &App, link: &Link) -> io::Result<()> {
    let why = match app.reached() {
        Some(Ok(())) if app.is_busy() => "not everything was sent and answered".to_owned(),
        Some(Ok(())) => return Ok(()),
        Some(Err(why)) => format!("no gateway at {}: {why}", link.addresses()),
        None => format!("no gateway at {}: no answer", link.addresses()),
    };
    Err(io::Error::other(why))
}

//! `moorgate-chat`: a chat client for the terminal, on the client kit.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`app`] | the chat as a machine: logins, messages, groups; without screen and network |
//! | [`command`] | what a line means |
//! | [`editor`], [`view`], [`text`], [`style`] | the line that is written, and what is on the screen; without a terminal |
//! | [`screen`], [`plain`] | the terminal; lines in and lines out |
//! | [`link`] | the kit's client |
//! | [`ambient`] | clocks |
//!
//! One thread does all the work; the kit, the keyboard and signals bring it what happens.

mod ambient;
mod app;
mod command;
mod editor;
mod happening;
mod link;
mod options;
mod plain;
mod screen;
mod style;
mod text;
mod view;

use ambient::Clocks;
use app::App;
use happening::{Bringer, Happening, Happenings};
use link::Link;
use options::{Options, Wanted};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    let wanted = match options::read(lexopt::Parser::from_env()) {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("moorgate-chat: {error}\nTry `moorgate-chat --help`.");
            return ExitCode::from(2);
        }
    };
    let result = match wanted {
        Wanted::Help => write!(io::stdout(), "{}", options::HELP),
        Wanted::Version => writeln!(io::stdout(), "moorgate-chat {}", env!("CARGO_PKG_VERSION")),
        Wanted::Chat(options) => chat(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever has read enough of the output is gone.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moorgate-chat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn chat(options: Options) -> io::Result<()> {
    let (bringer, happenings) = Happenings::new();
    heed_signals(bringer.clone())?;
    let mut link = Link::new(options.gateways, options.state, bringer.clone())?;
    let app = App::new(moorgate_client::fresh_key(), options.user);
    let clocks = Clocks::new();
    let is_screen = io::stdout().is_terminal() && io::stdin().is_terminal() && !is_dumb();
    let result = if is_screen && !options.is_plain {
        screen::run(app, &mut link, &clocks, (bringer, &happenings))
    } else {
        plain::run(app, &mut link, &clocks, (bringer, &happenings))
    };
    // A gateway that says no more is none of the user's business now.
    let _ = link.leave();
    result
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// The first signal ends the chat in good order, the second at once.
fn heed_signals(bringer: Bringer) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut arrived = signals.forever();
        arrived.next();
        bringer.bring(Happening::Terminate);
        if let Some(signal) = arrived.next() {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

//! The terminal while the screen is ours. However the program ends, it is given back as it was.

use super::screen::{Colours, Screen};
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste, Event};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size};
use crossterm::{cursor, execute};
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// Whether the terminal is ours at the moment.
static OURS: AtomicBool = AtomicBool::new(false);

/// Keys read ahead.
const KEYS_MAX: usize = 256;

/// The terminal, until dropped.
pub(super) struct Terminal {
    shown: Option<Screen>,
    colours: Colours,
}

impl Terminal {
    /// Takes the terminal over.
    pub fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        OURS.store(true, Ordering::SeqCst);
        // A panic speaks only after the terminal can show it; with `panic = "abort"` nothing is dropped.
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
        let terminal = Self { shown: None, colours: colours() };
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
        Ok(terminal)
    }

    /// An empty screen of its size.
    pub fn screen() -> Screen {
        let (wide, high) = size().unwrap_or((80, 24));
        Screen::new(usize::from(wide).max(1), usize::from(high).max(1))
    }

    /// Shows a screen.
    pub fn show(&mut self, screen: Screen) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(&screen.difference(self.shown.as_ref(), self.colours))?;
        out.flush()?;
        self.shown = Some(screen);
        Ok(())
    }

    /// The next [`Self::show`] draws everything: somebody else wrote to the terminal.
    pub fn forget(&mut self) {
        self.shown = None;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, once.
fn restore() {
    if OURS.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
}

fn colours() -> Colours {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() || set("TERM").is_none_or(|term| term == "dumb") { Colours::No } else { Colours::Yes }
}

/// Whether the terminal shows more than ASCII.
pub(super) fn speaks_unicode() -> bool {
    // The first that is set counts.
    let named =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    named.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// A thread that waits for keys.
pub(super) fn read_keys() -> mpsc::Receiver<io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    std::thread::spawn(move || {
        loop {
            let event = crossterm::event::read();
            let is_over = event.is_err();
            if sender.blocking_send(event).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}

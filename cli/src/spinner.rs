//! A line on standard error that turns while something is waited for. Nothing about the terminal is changed, so there is
//! nothing to restore but the line itself.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Back to the first column, and erase to the end of the line (ECMA-48, section 8.3.41).
const ERASE: &str = "\r\x1b[K";
/// The width of a terminal that does not say.
const USUAL_COLUMNS: usize = 80;

/// The one line that there is: also the thread that ends the process draws on it.
static SCREEN: Mutex<Screen> = Mutex::new(Screen { is_drawn: false, is_closed: false });

struct Screen {
    is_drawn: bool,
    is_closed: bool,
}

/// Draws only where a person looks.
pub(crate) struct Spinner {
    is_live: bool,
    frame: usize,
    columns: usize,
}

impl Spinner {
    pub(crate) fn new() -> Self {
        Self { is_live: columns().is_some(), frame: 0, columns: columns().unwrap_or(USUAL_COLUMNS) }
    }

    /// The next frame, with this text. A line that is wrapped could not be erased, so it is cut.
    pub(crate) fn turn(&mut self, text: &str) {
        if self.is_live {
            self.frame = (self.frame + 1) % FRAMES.len();
            let text: String = text.chars().take(self.columns.saturating_sub(3)).collect();
            let line = format!("{ERASE}{} {text}", FRAMES[self.frame]);
            change(|screen| {
                let is_open = !screen.is_closed;
                screen.is_drawn |= is_open;
                is_open.then_some(line.as_str())
            });
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        erase();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        erase();
    }
}

/// The width of the terminal that standard error is; `None` where it is none, or one that cannot move its cursor.
pub(crate) fn columns() -> Option<usize> {
    let is_clever = std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty()) || cfg!(windows);
    if !is_clever || !std::io::stderr().is_terminal() {
        return None;
    }
    #[cfg(unix)]
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stderr())
        && size.ws_col > 0
    {
        return Some(size.ws_col.into());
    }
    Some(USUAL_COLUMNS)
}

/// Takes the line away, if one is there.
pub(crate) fn erase() {
    change(|screen| std::mem::take(&mut screen.is_drawn).then_some(ERASE));
}

/// The same, and nothing is drawn any more.
#[cfg(unix)]
pub(crate) fn close() {
    erase();
    change(|screen| {
        screen.is_closed = true;
        None
    });
}

fn change<'t>(decide: impl FnOnce(&mut Screen) -> Option<&'t str>) {
    let mut screen = SCREEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = decide(&mut screen) {
        let mut out = std::io::stderr().lock();
        // A terminal that went away needs no spinner.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

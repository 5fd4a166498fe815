//! A line on standard error that turns while something is waited for. Nothing about the terminal is changed, so there is
//! nothing to restore but the line itself.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Back to the first column, and erase to the end of the line (ECMA-48, section 8.3.41).
const ERASE: &str = "\r\x1b[K";

/// Whether a line stands there now; read when a signal ends the process.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// Draws only where a person looks.
pub(crate) struct Spinner {
    is_live: bool,
    frame: usize,
}

impl Spinner {
    pub(crate) fn new() -> Self {
        Self { is_live: Self::is_for_a_person(), frame: 0 }
    }

    /// Whether standard error is a terminal that can move its cursor.
    pub(crate) fn is_for_a_person() -> bool {
        std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty())
    }

    /// The next frame, with this text.
    pub(crate) fn turn(&mut self, text: &str) {
        if self.is_live {
            self.frame = (self.frame + 1) % FRAMES.len();
            DRAWN.store(true, Ordering::Relaxed);
            write(&format!("{ERASE}{} {text}", FRAMES[self.frame]));
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

/// Takes the line away, if one is there.
pub(crate) fn erase() {
    if DRAWN.swap(false, Ordering::Relaxed) {
        write(ERASE);
    }
}

fn write(text: &str) {
    let mut out = std::io::stderr().lock();
    // A terminal that went away needs no spinner.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

//! Ctrl-C while a command works: at once, but never between getting a new refresh token and keeping it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held while an interrupt has to wait. What it waits for is bounded by the timeouts of HTTP.
static BUSY: Mutex<()> = Mutex::new(());

/// Lets an interrupt wait until this is dropped.
pub(crate) fn hold() -> MutexGuard<'static, ()> {
    // It guards no data that a panic could leave half done.
    BUSY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM and SIGHUP end the process with a clean line, as whoever sent them expects.
#[cfg(unix)]
pub(crate) fn watch() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    // Where signals cannot be watched they do what they always do, and a write that is cut off leaves the old file.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _finished = hold();
            crate::spinner::close();
            if signal == SIGINT {
                eprintln!("gprxy: interrupted");
            }
            // Dies of the same signal, so that a shell script around us stops too.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            std::process::exit(128 + signal);
        }
    });
}

/// Elsewhere Ctrl-C ends the process by itself.
#[cfg(not(unix))]
pub(crate) fn watch() {}

//! What was logged, at every level.

use std::cell::RefCell;
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    static LINES: RefCell<Option<Vec<Line>>> = const { RefCell::new(None) };
}

/// A line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// How bad it is.
    pub level: log::Level,
    /// What it says.
    pub text: String,
}

struct Collector;

impl Log for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // A thread that ends has no cell any more, and nobody who would read it.
        let _ = LINES.try_with(|lines| {
            if let Ok(mut lines) = lines.try_borrow_mut()
                && let Some(lines) = &mut *lines
            {
                lines.push(Line { level: record.level(), text: record.args().to_string() });
            }
        });
    }

    fn flush(&self) {}
}

/// Keeps from now on what this thread logs.
///
/// # Panics
/// When the process has a logger of another kind.
pub fn capture() {
    static COLLECTOR: Collector = Collector;
    static SET: Once = Once::new();
    SET.call_once(|| {
        assert!(log::set_logger(&COLLECTOR).is_ok(), "the process has another logger");
        log::set_max_level(LevelFilter::Trace);
    });
    LINES.set(Some(Vec::new()));
}

/// What this thread has logged since [`capture`], which ends here.
#[must_use]
pub fn captured() -> Vec<Line> {
    LINES.take().unwrap_or_default()
}

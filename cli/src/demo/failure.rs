//! Why the demo cannot go on.

use std::fmt;
use std::io;

/// The demo ends here: a person stopped it, or a part of it does not work on this machine.
#[derive(Debug)]
pub(super) enum Failure {
    /// Ctrl-C, or a signal that asks to end.
    Interrupted,
    /// What happened, what was expected, what to do.
    Broken(String),
}

/// The result of everything that can end the demo.
pub(super) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A part does not work.
    pub(super) fn broken(message: impl Into<String>) -> Self {
        Self::Broken(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Broken(message) => f.write_str(message),
        }
    }
}

/// Says what was being done when the system refused.
pub(super) trait Doing<T> {
    /// `what` completes "cannot …".
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::broken(format!("cannot {what}: {error}")))
    }
}

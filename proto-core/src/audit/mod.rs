//! One record per executed statement, and per session start, end and refusal.
//!
//! A [`Record`] is made by the session that saw the event and turned into a line of JSON by the thread that writes it.
//! What is the same for all records of a session is serialised once, as [`SessionFacts`]; statement text has its
//! secrets masked before anything keeps it, as [`StatementText`]. `docs/audit.md` explains every field.

mod facts;
mod json;
pub mod mask;
mod record;
mod text;

use std::fmt;

pub use facts::{SessionFacts, Sheet, Tls};
pub use record::{CommandTag, Event, Protocol, Record, Refused, SessionEnd, Statement};
pub use text::{DEFAULT_TEXT_LIMIT, StatementText};

/// What happens when records cannot be written (`audit.on_failure`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFailure {
    /// No statement runs that cannot be recorded.
    #[default]
    Refuse,
    /// Statements run; the records that are lost are counted and the count is logged.
    Count,
}

/// How statements are written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditProfile {
    /// Bytes of statement text that are kept.
    pub statement_bytes: usize,
    /// No statement runs without a place for its record.
    pub required: bool,
}

impl Default for AuditProfile {
    /// As much text as usual, and no statement without its record.
    fn default() -> Self {
        Self { statement_bytes: DEFAULT_TEXT_LIMIT, required: true }
    }
}

/// Why no statement may run at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AuditDown {
    /// More records wait to be written than may.
    Full,
    /// The last write failed.
    Failing,
    /// The log was closed, or its writer has died.
    Closed,
}

impl fmt::Display for AuditDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many audit records wait to be written",
            Self::Failing => "the audit log cannot be written",
            Self::Closed => "the audit log is closed",
        })
    }
}

impl std::error::Error for AuditDown {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_words_of_its_own() {
        let words = [AuditDown::Full, AuditDown::Failing, AuditDown::Closed].map(|why| why.to_string());
        assert_eq!(
            words,
            ["too many audit records wait to be written", "the audit log cannot be written", "the audit log is closed"]
        );
    }
}

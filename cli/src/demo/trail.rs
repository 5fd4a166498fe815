//! The audit trail as a table that a person can read.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::failure::{Doing, Result};
use super::table::{Align, Column, Table};
use super::terminal::{Terminal, Tone};

/// What the demo reads of a record; the rest is in `docs/audit.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// RFC 3339, in UTC.
    pub(super) time: String,
    /// The kind of record.
    pub(super) event: String,
    /// The verified name; none where nobody was verified.
    pub(super) user: Option<String>,
    /// What a refused client said it was.
    pub(super) claimed_user: Option<String>,
    /// The PostgreSQL account that ran it.
    pub(super) account: Option<String>,
    /// The database.
    pub(super) database: Option<String>,
    /// The text, for executed statements.
    pub(super) statement: Option<String>,
    /// Rows returned or changed.
    pub(super) rows: Option<u64>,
    /// PostgreSQL's command tag.
    pub(super) command_tag: Option<String>,
    /// The SQLSTATE of an error.
    pub(super) sqlstate: Option<String>,
    /// From the statement to its outcome.
    pub(super) duration_us: Option<u64>,
}

impl Record {
    /// Whether this is an executed statement.
    pub(super) fn is_statement(&self) -> bool {
        self.event == "statement"
    }

    /// Whether this is a login that was refused.
    pub(super) fn is_refusal(&self) -> bool {
        self.event == "refusal"
    }

    /// The SQLSTATE when it is an error.
    pub(super) fn error(&self) -> Option<&str> {
        self.sqlstate.as_deref().filter(|code| *code != "00000")
    }

    /// What was tried: the statement, or the login.
    fn attempt(&self) -> String {
        match (&self.statement, &self.claimed_user) {
            (Some(statement), _) => statement.clone(),
            (None, _) if self.is_statement() => "(function call)".to_owned(),
            (None, Some(claimed)) => format!("(login as {claimed})"),
            (None, None) => "(login)".to_owned(),
        }
    }

    fn outcome(&self) -> String {
        match (self.error(), self.rows, &self.command_tag) {
            (Some(code), _, _) => code.to_owned(),
            (None, Some(1), _) => "1 row".to_owned(),
            (None, Some(rows), _) => format!("{rows} rows"),
            (None, None, Some(tag)) => tag.clone(),
            (None, None, None) => "ok".to_owned(),
        }
    }
}

/// The trail as it stands: its records, and the raw text for a look at what must not be there.
pub(super) struct Trail {
    /// One per complete line.
    pub(super) records: Vec<Record>,
    /// The whole file.
    pub(super) text: String,
}

impl Trail {
    /// Reads the file; a line that is still being written is left for the next time.
    pub(super) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self { records: Vec::new(), text: String::new() });
        }
        let text = fs::read_to_string(path).doing(format_args!("read the audit trail {}", path.display()))?;
        Ok(Self { records: parse(&text), text })
    }
}

fn parse(text: &str) -> Vec<Record> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Statements and refusals; session starts and ends are left to the file.
pub(super) fn print(records: &[Record], terminal: &Terminal) {
    let column = |title, align, least, dispensable| Column { title, align, least, dispensable };
    let mut table = Table::new(vec![
        column("time", Align::Left, 8, 1),
        column("user", Align::Left, 9, 0),
        column("account", Align::Left, 10, 0),
        column("db", Align::Left, 4, 3),
        column("statement", Align::Left, 16, 0),
        column("outcome", Align::Left, 7, 0),
        column("ms", Align::Right, 6, 2),
    ]);
    for record in records.iter().filter(|record| record.is_statement() || record.is_refusal()) {
        let dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
        let tone = if record.error().is_some() { Tone::Bad } else { Tone::Plain };
        let cells = [
            clock(&record.time).to_owned(),
            dash(&record.user),
            dash(&record.account),
            dash(&record.database),
            record.attempt(),
            record.outcome(),
            record.duration_us.map(milliseconds).unwrap_or_default(),
        ];
        table.push(tone, cells);
    }
    table.print(terminal);
}

/// The time of day of an RFC 3339 timestamp, to the second; the whole when it is none.
fn clock(time: &str) -> &str {
    time.split_once('T').and_then(|(_, clock)| clock.get(..8)).unwrap_or(time)
}

/// Microseconds as milliseconds with one digit behind the point, by integers alone.
fn milliseconds(us: u64) -> String {
    let tenths = us.saturating_add(50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        r#"{"time":"2026-03-01T09:30:15.123456Z","event":"statement","user":"alice@example.com","account":"app_reader","#,
        r#""statement":"select 1","rows":1,"command_tag":"SELECT 1","sqlstate":"00000","duration_us":1249,"more":{"x":1}}"#,
        "\n",
        r#"{"time":"2026-03-01T09:30:16.1Z","event":"refusal","user":null,"claimed_user":"bob@example.com","sqlstate":"28P01"}"#,
        "\n",
        r#"{"time":"2026-03-01T09:30:17"#,
    );

    #[test]
    fn complete_lines_are_read_and_the_last_half_one_is_left() {
        let records = parse(LINES);
        assert_eq!(records.len(), 2);
        assert!(records[0].is_statement() && records[0].error().is_none());
        assert_eq!(records[0].outcome(), "1 row");
        assert!(records[1].is_refusal() && !records[1].is_statement());
        assert_eq!(records[1].outcome(), "28P01");
        assert_eq!(records[1].attempt(), "(login as bob@example.com)");
    }

    #[test]
    fn a_file_that_does_not_exist_yet_is_an_empty_trail() {
        assert!(Trail::read(Path::new("/nonexistent/audit.jsonl")).unwrap().records.is_empty());
    }

    #[test]
    fn times_and_durations_are_short() {
        assert_eq!(clock("2026-03-01T09:30:15.123456Z"), "09:30:15");
        assert_eq!(clock("yesterday"), "yesterday");
        assert_eq!(milliseconds(1249), "1.2");
        assert_eq!(milliseconds(1250), "1.3");
        assert_eq!(milliseconds(60_000_000), "60000.0");
        assert_eq!(milliseconds(u64::MAX), "18446744073709551.6");
    }
}

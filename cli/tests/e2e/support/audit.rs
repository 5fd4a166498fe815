//! Audit lines as a reader sees them. The names of the fields stand here and nowhere else in the tests.

use std::path::Path;

use serde_json::Value;

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line(pub(crate) Value);

/// Every whole line of the file. A line that is no JSON is a failure, except a last one that is still being written.
pub(crate) fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in audit line {line}"));
    whole.lines().map(|line| Line(parse(line))).collect()
}

impl Line {
    #[track_caller]
    fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).and_then(Value::as_str)
    }

    fn number(&self, field: &str) -> Option<u64> {
        self.0.get(field).and_then(Value::as_u64)
    }

    pub(crate) fn event(&self) -> &str {
        self.text("event").expect("every line has an event")
    }

    pub(crate) fn time(&self) -> &str {
        self.text("time").expect("every line has a time")
    }

    pub(crate) fn session(&self) -> &Value {
        &self.0["session_id"]
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.text("user")
    }

    pub(crate) fn subject(&self) -> Option<&str> {
        self.text("subject")
    }

    pub(crate) fn issuer(&self) -> Option<&str> {
        self.text("issuer")
    }

    pub(crate) fn account(&self) -> Option<&str> {
        self.text("account")
    }

    pub(crate) fn database(&self) -> Option<&str> {
        self.text("database")
    }

    pub(crate) fn application(&self) -> Option<&str> {
        self.text("application")
    }

    pub(crate) fn statement(&self) -> Option<&str> {
        self.text("statement")
    }

    pub(crate) fn command_tag(&self) -> Option<&str> {
        self.text("command_tag")
    }

    pub(crate) fn rows(&self) -> Option<u64> {
        self.number("rows")
    }

    pub(crate) fn duration_us(&self) -> Option<u64> {
        self.number("duration_us")
    }

    pub(crate) fn sqlstate(&self) -> Option<&str> {
        self.text("sqlstate")
    }
}

//! What gathers while a configuration is read: problems, warnings, and the effective settings with their origins.

use std::fmt;

use super::problem::{Origin, Problem};
use crate::logging::one_line;

/// Reading never stops at the first mistake: everything is collected here.
#[derive(Default)]
pub(crate) struct Draft {
    /// What keeps the proxy from starting.
    pub(crate) problems: Vec<Problem>,
    /// What an operator should know.
    pub(crate) warnings: Vec<String>,
    /// What holds in the end.
    pub(crate) effective: Effective,
}

impl Draft {
    /// Notes a problem.
    pub(crate) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Notes a warning.
    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        let warning = one_line(&warning.into()).into_owned();
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// The effective settings as TOML: secrets as `"(set)"`, each line with a comment that says where the value came from.
#[derive(Default)]
pub(crate) struct Effective {
    tables: Vec<Block>,
    /// PgBouncer's options that are no setting of one name here, with their values as its file has them.
    pub(crate) options: Vec<(&'static str, String)>,
}

/// One table of the effective settings.
pub(crate) struct Block {
    header: String,
    lines: Vec<Line>,
}

struct Line {
    key: &'static str,
    literal: Option<String>,
    /// As the admin console shows it.
    plain: String,
    note: String,
}

/// A setting of a table that stands once, for the admin console.
pub(crate) struct Shown<'e> {
    /// The table's name.
    pub(crate) section: &'e str,
    /// The setting's name.
    pub(crate) key: &'static str,
    /// Its value in PgBouncer's spelling; empty when it has none.
    pub(crate) value: &'e str,
}

impl Block {
    /// A table; the header is written as it stands, brackets included.
    pub(crate) fn new(header: impl Into<String>) -> Self {
        Self { header: header.into(), lines: Vec::new() }
    }

    /// A setting in TOML's spelling, and as the admin console shows it.
    pub(crate) fn set(&mut self, key: &'static str, (literal, plain): (String, String), origin: &Origin) {
        self.lines.push(Line { key, literal: Some(literal), plain, note: origin.to_string() });
    }

    /// A setting without a value, and why.
    pub(crate) fn unset(&mut self, key: &'static str, why: &str) {
        self.lines.push(Line { key, literal: None, plain: String::new(), note: why.to_owned() });
    }
}

impl Effective {
    /// Appends a table.
    pub(crate) fn push(&mut self, block: Block) {
        self.tables.push(block);
    }

    /// The settings of the tables that stand once, as they were read.
    pub(crate) fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        self.tables.iter().flat_map(|block| {
            let name = block.header.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let section = name.filter(|name| name.chars().all(|c| c.is_ascii_alphabetic()));
            let lines = section.map(|section| (section, &block.lines));
            lines.into_iter().flat_map(|(section, lines)| {
                lines.iter().map(move |line| Shown { section, key: line.key, value: &line.plain })
            })
        })
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, block) in self.tables.iter().enumerate() {
            if nth > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{}", block.header)?;
            for line in &block.lines {
                let note = one_line(&line.note);
                match &line.literal {
                    Some(literal) => writeln!(f, "{} = {literal}  # {note}", line.key)?,
                    None => writeln!(f, "# {}: {note}", line.key)?,
                }
            }
        }
        Ok(())
    }
}

/// Text as a TOML basic string.
pub(crate) fn toml_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_read_back_as_they_were() {
        for text in ["", "a\"b\\c", "x\ny\tz\r", "\u{1b}[31m", "é\u{2028}", "\u{7f}\u{85}"] {
            let line = format!("v = {}", toml_string(text));
            assert!(!line.contains('\n'));
            let table: toml::Table = line.parse().unwrap();
            assert_eq!(table["v"].as_str(), Some(text));
        }
    }

    #[test]
    fn notes_cannot_break_out_of_their_comment() {
        let mut effective = Effective::default();
        let mut block = Block::new("[server]");
        block.set("listen_port", ("1".into(), "1".into()), &Origin::File { path: "a\nworkers = 9".into(), line: 1 });
        block.unset("workers", "not\nset");
        effective.push(block);
        assert_eq!(effective.to_string().lines().count(), 3);
    }

    #[test]
    fn the_same_warning_is_told_once() {
        let mut draft = Draft::default();
        draft.warn("x");
        draft.warn("x");
        assert_eq!(draft.warnings.len(), 1);
    }
}

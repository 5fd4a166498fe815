//! A configuration file as a tree of values that know their line.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use gprxy_proto::secret::Secret;

use super::problem::quoted;

/// A value as it stands in a file or in the environment (there it is always text).
pub(crate) enum Value {
    /// Any text may turn out to be a password, so all of it is handled as one.
    Text(Secret<String>),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// `[ ... ]`, or `[[name]]` tables.
    List(Vec<Value>),
    /// `[name]` or `{ ... }`.
    Table(Table),
    /// A date or a number that fits nowhere; in words.
    Other(&'static str),
}

/// A table, its entries in the order of the file.
pub(crate) struct Table {
    /// Where it begins, counted from 1.
    pub(crate) line: usize,
    /// What it holds.
    pub(crate) entries: Vec<Item>,
}

/// A key with its value.
pub(crate) struct Item {
    /// As spelled in the file.
    pub(crate) key: String,
    /// Where the key stands, counted from 1.
    pub(crate) line: usize,
    /// What it is set to.
    pub(crate) value: Value,
}

impl Value {
    /// A text value.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(Secret::new(text.into()))
    }

    /// The text, when it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.expose()),
            _ => None,
        }
    }

    /// For a message: the value itself. Not for settings that are secret.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Text(text) => quoted(text.expose()),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(flag) => flag.to_string(),
            Self::List(_) | Self::Table(_) | Self::Other(_) => self.form().into(),
        }
    }

    /// For a message: only what kind of value it is.
    pub(crate) fn form(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(words) => words,
        }
    }
}

/// A syntax error: its line, and what the parser says. The text of the line is not repeated, it may hold a password.
pub(crate) struct SyntaxError {
    /// Counted from 1.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) message: String,
}

/// Reads a TOML document as far as it can be read, and all of its syntax errors.
pub(crate) fn parse(text: &str) -> (Table, Vec<SyntaxError>) {
    let lines = Lines::new(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    let errors = errors
        .into_iter()
        .map(|error| SyntaxError {
            line: error.span().map_or(1, |span| lines.at(span.start)),
            message: error.message().to_owned(),
        })
        .collect();
    (table(root.get_ref(), 1, &lines), errors)
}

struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte offset, counted from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|&newline| newline < offset) + 1
    }
}

fn table(source: &DeTable<'_>, line: usize, lines: &Lines) -> Table {
    let mut items: Vec<_> = source.iter().collect();
    items.sort_by_key(|(key, _)| key.span().start);
    let entries = items.into_iter().map(|(key, item)| Item {
        key: key.get_ref().to_string(),
        line: lines.at(key.span().start),
        value: value(item, lines),
    });
    Table { line, entries: entries.collect() }
}

fn value(source: &Spanned<DeValue<'_>>, lines: &Lines) -> Value {
    match source.get_ref() {
        DeValue::String(text) => Value::text(text.as_ref()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number beyond 64 bits"),
        },
        // `min_version = 1.2` is a natural slip; kinds that read text may take it.
        DeValue::Float(number) => Value::text(number.as_str()),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::List(items.iter().map(|item| value(item, lines)).collect()),
        DeValue::Table(inner) => Value::Table(table(inner, lines.at(source.span().start), lines)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_line_and_the_order_of_the_file_is_kept() {
        let (root, errors) = parse("[pool]\nz = 1\na = \"x\"\n\n[[role]]\nname = 'r'\n\n[[role]]\nname = 's'\n");
        assert!(errors.is_empty());
        let Value::Table(pool) = &root.entries[0].value else { panic!("pool is a table") };
        assert_eq!(pool.entries.iter().map(|i| (i.key.as_str(), i.line)).collect::<Vec<_>>(), [("z", 2), ("a", 3)]);
        let Value::List(roles) = &root.entries[1].value else { panic!("role is a list") };
        let Value::Table(second) = &roles[1] else { panic!("a role is a table") };
        assert_eq!((second.line, second.entries[0].line), (8, 9));
    }

    #[test]
    fn all_syntax_errors_are_told_with_their_lines_and_without_their_text() {
        let (root, errors) = parse("a = \nb = 2\nc = hunter2 hunter2\n");
        assert!(errors.iter().any(|e| e.line == 1), "the missing value");
        assert!(errors.iter().any(|e| e.line == 3), "the bare words");
        assert!(errors.iter().all(|e| !e.message.contains("hunter2")));
        assert!(root.entries.iter().any(|i| i.key == "b" && matches!(i.value, Value::Integer(2))));
    }

    #[test]
    fn numbers_beyond_64_bits_are_no_panic() {
        let (root, _) = parse("a = 99999999999999999999\nb = 1.2\nc = 0x10\nd = 1979-05-27");
        assert!(matches!(root.entries[0].value, Value::Other(_)));
        assert_eq!(root.entries[1].value.as_text(), Some("1.2"));
        assert!(matches!(root.entries[2].value, Value::Integer(16)));
        assert!(matches!(root.entries[3].value, Value::Other("a date")));
    }
}

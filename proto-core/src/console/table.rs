//! Rows of the console, and how they are written: as text, or in binary where a driver asks for it.

use std::borrow::Cow;

use crate::codec::backend::{Field, emit_data_row, emit_row_description};

/// The type of a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// text
    Text,
    /// integer
    Int4,
    /// bigint
    Int8,
    /// numeric
    Numeric,
    /// bytea
    Bytea,
}

impl Kind {
    /// The type's oid and size in PostgreSQL's catalogue (`pg_type.dat`).
    const fn oid(self) -> (u32, i16) {
        match self {
            Self::Text => (25, -1),
            Self::Int4 => (23, 4),
            Self::Int8 => (20, 8),
            Self::Numeric => (1700, -1),
            Self::Bytea => (17, -1),
        }
    }
}

/// A column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its type.
    pub kind: Kind,
}

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// NULL.
    Null,
    /// Of a [`Kind::Text`] or [`Kind::Bytea`] column.
    Text(Cow<'static, str>),
    /// Of a column of numbers.
    Int(i64),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    /// A number; one beyond the type's end stays at its end.
    pub fn count(number: impl TryInto<i64>) -> Self {
        Self::Int(number.try_into().unwrap_or(i64::MAX))
    }

    /// NULL for nothing.
    pub fn or_null<T: Into<String>>(text: Option<T>) -> Self {
        text.map_or(Self::Null, |text| Self::text(text))
    }
}

/// How the values of one column are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// As psql shows them.
    #[default]
    Text,
    /// As PostgreSQL's send functions do.
    Binary,
}

/// The formats of a Bind: one for all columns, or one for each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Formats(pub(super) Vec<Format>);

impl Formats {
    fn of(&self, column: usize) -> Format {
        match &self.0[..] {
            [] => Format::Text,
            [all] => *all,
            each => each.get(column).copied().unwrap_or_default(),
        }
    }

    /// Whether there are as many as a result of so many columns may have (manual, section 54.7, Bind).
    pub(super) fn fit(&self, columns: usize) -> bool {
        matches!(self.0.len(), 0 | 1) || self.0.len() == columns
    }
}

/// Appends a RowDescription.
pub(super) fn describe(out: &mut Vec<u8>, columns: &[Column], formats: &Formats) {
    let fields = columns.iter().enumerate().map(|(place, column)| {
        let (oid, size) = column.kind.oid();
        Field { name: &column.name, oid, size, binary: formats.of(place) == Format::Binary }
    });
    emit_row_description(out, fields);
}

/// Appends a DataRow.
pub(super) fn row(out: &mut Vec<u8>, columns: &[Column], values: &[Value], formats: &Formats) {
    let values = columns.iter().zip(values).enumerate().map(|(place, (column, value))| match value {
        Value::Null => None,
        Value::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
        Value::Int(number) => Some(Cow::Owned(match formats.of(place) {
            Format::Text => number.to_string().into_bytes(),
            Format::Binary => binary(column.kind, *number),
        })),
    });
    emit_data_row(out, values);
}

fn binary(kind: Kind, number: i64) -> Vec<u8> {
    match kind {
        Kind::Int4 => {
            let end = if number < 0 { i32::MIN } else { i32::MAX };
            i32::try_from(number).unwrap_or(end).to_be_bytes().into()
        }
        Kind::Int8 => number.to_be_bytes().into(),
        Kind::Numeric => numeric(number),
        Kind::Text | Kind::Bytea => number.to_string().into_bytes(),
    }
}

/// Digits to the base of 10,000, the most significant first (`numeric_send` in PostgreSQL's numeric.c).
fn numeric(number: i64) -> Vec<u8> {
    let mut digits = Vec::new();
    let mut left = number.unsigned_abs();
    while left > 0 {
        digits.push(u16::try_from(left % 10_000).unwrap_or(0));
        left /= 10_000;
    }
    // 19 decimal digits are five of these at most.
    let weight = u16::try_from(digits.len().saturating_sub(1)).unwrap_or(0);
    while digits.first() == Some(&0) {
        digits.remove(0);
    }
    let count = u16::try_from(digits.len()).unwrap_or(0);
    let sign: u16 = if number < 0 { 0x4000 } else { 0 };
    let words = [count, weight, sign, 0].into_iter().chain(digits.into_iter().rev());
    words.flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_postgresql_sends_them() {
        assert_eq!(binary(Kind::Int4, -2), [0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(binary(Kind::Int4, i64::MAX), i32::MAX.to_be_bytes());
        assert_eq!(binary(Kind::Int8, 1), [0, 0, 0, 0, 0, 0, 0, 1]);
        // select numeric_send(0), numeric_send(12345678), numeric_send(-20000), of a PostgreSQL.
        assert_eq!(binary(Kind::Numeric, 0), [0; 8]);
        assert_eq!(binary(Kind::Numeric, 12_345_678), [0, 2, 0, 1, 0, 0, 0, 0, 0x04, 0xd2, 0x16, 0x2e]);
        assert_eq!(binary(Kind::Numeric, -20_000), [0, 1, 0, 1, 0x40, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn one_format_counts_for_all_columns() {
        let both = Formats(vec![Format::Binary]);
        assert!(both.of(0) == Format::Binary && both.of(7) == Format::Binary && both.fit(9));
        let each = Formats(vec![Format::Text, Format::Binary]);
        assert!(each.of(0) == Format::Text && each.of(1) == Format::Binary && each.fit(2) && !each.fit(3));
    }
}

//! The words of a console command: PgBouncer's grammar, with SQL's comments and quotes.

use std::borrow::Cow;

use super::refusals::syntax;
use crate::fault::Refusal;

/// The longest text of one message that is looked at, in bytes: commands are short.
pub const MAX_TEXT: usize = 64 * 1024;

/// A word, a string, or a character that stands for itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Word<'a> {
    /// A bare word or number.
    Bare(&'a str),
    /// In double quotes: a name.
    Name(Cow<'a, str>),
    /// In single quotes: a value.
    Text(Cow<'a, str>),
    /// Anything else.
    Sign(char),
}

impl Word<'_> {
    /// Whether this is that keyword, in any case.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// What it is called, of a word that may be a name.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Bare(word) => Some(word),
            Self::Name(name) => Some(name),
            Self::Text(_) | Self::Sign(_) => None,
        }
    }

    /// What it says, of a word that may be a value.
    pub(super) fn value(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            other => other.name(),
        }
    }
}

/// Cuts a text into its statements, each with its own text; empty ones are left out.
///
/// # Errors
/// 42601 for a quote or comment without its end.
pub(super) fn statements(text: &str) -> Result<Vec<(&str, Vec<Word<'_>>)>, Refusal> {
    let mut all = Vec::new();
    let mut words = Vec::new();
    let mut rest = text;
    let (mut began, mut ended) = (0, 0);
    loop {
        rest = skip_blank(rest)?;
        let at = text.len() - rest.len();
        if rest.is_empty() || rest.starts_with(';') {
            if !words.is_empty() {
                all.push((&text[began..ended], std::mem::take(&mut words)));
            }
            if rest.is_empty() {
                return Ok(all);
            }
            rest = &rest[1..];
            continue;
        }
        if words.is_empty() {
            began = at;
        }
        let (word, behind) = word(rest)?;
        words.push(word);
        rest = behind;
        ended = text.len() - rest.len();
    }
}

fn word(text: &str) -> Result<(Word<'_>, &str), Refusal> {
    match text.as_bytes()[0] {
        b'"' => quoted(text, '"').map(|(name, rest)| (Word::Name(name), rest)),
        b'\'' => quoted(text, '\'').map(|(value, rest)| (Word::Text(value), rest)),
        _ => {
            let end = bare(text);
            if end > 0 {
                return Ok((Word::Bare(&text[..end]), &text[end..]));
            }
            let sign = text.chars().next().unwrap_or(' ');
            Ok((Word::Sign(sign), &text[sign.len_utf8()..]))
        }
    }
}

/// How long the bare word at the front is. A minus sign belongs to it, as in names of databases, unless a comment begins.
fn bare(text: &str) -> usize {
    let bytes = text.as_bytes();
    (0..bytes.len())
        .find(|&at| match bytes[at] {
            b'-' => at == 0 && !bytes.get(1).is_some_and(u8::is_ascii_digit) || bytes.get(at + 1) == Some(&b'-'),
            b'_' | b'.' => false,
            byte => byte.is_ascii() && !byte.is_ascii_alphanumeric(),
        })
        .unwrap_or(bytes.len())
}

/// A quote inside is doubled.
fn quoted(text: &str, quote: char) -> Result<(Cow<'_, str>, &str), Refusal> {
    let inside = &text[1..];
    let mut from = 0;
    let mut doubled = false;
    loop {
        let Some(at) = inside[from..].find(quote).map(|at| from + at) else {
            return Err(syntax(format!("unterminated quoted string at {quote}")));
        };
        if inside[at + 1..].starts_with(quote) {
            doubled = true;
            from = at + 2;
            continue;
        }
        let (one, two) = (quote.to_string(), format!("{quote}{quote}"));
        let value = &inside[..at];
        let value = if doubled { Cow::Owned(value.replace(&two, &one)) } else { Cow::Borrowed(value) };
        return Ok((value, &inside[at + 1..]));
    }
}

/// White space and comments, which nest (PostgreSQL manual, section 4.1.5).
fn skip_blank(mut text: &str) -> Result<&str, Refusal> {
    loop {
        text = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        if text.starts_with("--") {
            text = text.find('\n').map_or("", |end| &text[end..]);
        } else if text.starts_with("/*") {
            text = behind_comment(text).ok_or_else(|| syntax("unterminated /* comment".into()))?;
        } else {
            return Ok(text);
        }
    }
}

fn behind_comment(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(&text[at..]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        statements(text).unwrap().into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn statements_are_cut_at_semicolons_outside_of_quotes_and_comments() {
        assert_eq!(texts(" SHOW POOLS ; reload;;"), ["SHOW POOLS", "reload"]);
        assert_eq!(
            texts("PAUSE \"a;b\"; SET x = ';' -- ; no\n; /* ; /* ; */ */ RESUME"),
            ["PAUSE \"a;b\"", "SET x = ';'", "RESUME"]
        );
        assert!(texts("; -- nothing\n /* at all */ ;").is_empty());
        for open in ["PAUSE \"x", "SET a = 'b''", "/* a /* b */"] {
            assert_eq!(statements(open).unwrap_err().code, crate::fault::SqlState::SYNTAX_ERROR, "{open}");
        }
    }

    #[test]
    fn names_and_values_lose_their_quotes() {
        let (_, words) = statements("SET \"a\"\"b\" = 'it''s' my-db 1.5 -3 --x").unwrap().remove(0);
        assert_eq!(
            words,
            [
                Word::Bare("SET"),
                Word::Name("a\"b".into()),
                Word::Sign('='),
                Word::Text("it's".into()),
                Word::Bare("my-db"),
                Word::Bare("1.5"),
                Word::Bare("-3"),
            ]
        );
    }

    #[test]
    fn a_name_may_have_any_letters() {
        let (_, words) = statements("pause größe$").unwrap().remove(0);
        assert_eq!(words, [Word::Bare("pause"), Word::Bare("größe"), Word::Sign('$')]);
    }
}

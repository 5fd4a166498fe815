//! Secrets inside literals and comments: connection strings, URIs, nested SQL, JSON.

use std::ops::Range;

use memchr::{memchr, memmem};

use super::lexer::{dollar_tag, is_space};
use super::secret_word_end;

/// What the end of a literal says about the literals behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Nothing.
    Settled,
    /// It ends where a secret would begin: `password=`.
    Announced,
    /// It has a place for a secret: `PASSWORD %L`.
    Template,
}

/// Adds the secrets in `text[from..]`. `cut_off` says that the literal goes on behind the end of `text`.
pub(super) fn scan(text: &[u8], from: usize, cut_off: bool, spans: &mut Vec<Range<usize>>) -> Ending {
    let mut ending = Ending::Settled;
    let mut at = from;
    while let Some(&byte) = text.get(at) {
        at = match byte {
            // The word must lie inside as a whole, hence its four letters in front of the `w`.
            b'w' | b'W' | b'_' if byte == b'_' || at >= from + 4 => match secret_word_end(text, at) {
                None => at + 1,
                Some(end) => match find_value(text, end) {
                    Value::Here { secret, template } => {
                        if template {
                            ending = Ending::Template;
                        }
                        let next = secret.end;
                        spans.push(secret);
                        next
                    }
                    Value::None(next) => next,
                    Value::Behind => return if ending == Ending::Template { ending } else { Ending::Announced },
                },
            },
            b':' if text[at..].starts_with(b"://") => uri(text, at + 3, cut_off, spans),
            _ => at + 1,
        };
    }
    ending
}

/// What stands behind a word that announces a secret.
enum Value {
    /// The secret, or the place in a template where it will be.
    Here { secret: Range<usize>, template: bool },
    /// No secret; go on from here.
    None(usize),
    /// The end of the literal.
    Behind,
}

fn skip_spaces(text: &[u8], at: usize) -> usize {
    text[at..].iter().position(|&b| !is_space(b)).map_or(text.len(), |n| at + n)
}

fn skip_while(text: &[u8], at: usize, accept: impl Fn(u8) -> bool) -> usize {
    text[at..].iter().position(|&b| !accept(b)).map_or(text.len(), |n| at + n)
}

fn find_value(text: &[u8], word_end: usize) -> Value {
    // The closing quote of a JSON member's name.
    let name_end = word_end + usize::from(text.get(word_end) == Some(&b'"'));
    let sign = skip_spaces(text, name_end);
    let sign_end = skip_while(text, sign, |b| matches!(b, b'=' | b':' | b'>'));
    let named = sign_end > sign;
    // Without a sign only a quote announces a value, and a word in between would end the search.
    let start = skip_prefix(text, skip_spaces(text, sign_end));
    let Some(&first) = text.get(start) else { return Value::Behind };
    let secret = match first {
        b'\'' => match apostrophes(text, start) {
            Some(secret) => secret,
            None => return Value::Behind,
        },
        // An escaped quote: how the rest is escaped depends on the nesting, so all of it goes.
        b'\\' if text.get(start + 1) == Some(&b'\'') => start + 2..text.len(),
        b'"' => start + 1..double_quote_end(text, start + 1),
        b'$' if dollar_tag(text, start).is_some() => dollar(text, start),
        _ if named || is_placeholder(&text[start..]) => start..bare_end(text, start),
        _ => return Value::None(start),
    };
    let template = is_placeholder(&text[secret.start..]);
    Value::Here { secret, template }
}

/// Passes the prefix of a string constant (`E'`, `N'`, `U&'`), if one stands here.
fn skip_prefix(text: &[u8], at: usize) -> usize {
    match text.get(at..).unwrap_or_default() {
        [b'e' | b'E' | b'n' | b'N', b'\'' | b'\\', ..] => at + 1,
        [b'u' | b'U', b'&', b'\'' | b'\\', ..] => at + 2,
        _ => at,
    }
}

/// `%s`, `%I`, `%L`, `%1$L`, with a width as in `%-10s` (format(), manual section 9.4.1).
fn is_placeholder(text: &[u8]) -> bool {
    if text.first() != Some(&b'%') {
        return false;
    }
    let end = skip_while(text, 1, |b| b.is_ascii_digit() || matches!(b, b'$' | b'-' | b'*'));
    matches!(text.get(end), Some(b's' | b'I' | b'L'))
}

/// A nested literal: its quotes are doubled once for each level around it, so `k` of them open it and `k` close it,
/// while `2k` stand for one quote within. `None` when nothing follows.
fn apostrophes(text: &[u8], at: usize) -> Option<Range<usize>> {
    let start = skip_while(text, at, |b| b == b'\'');
    let level = start - at;
    if start == text.len() {
        return None;
    }
    let mut end = start;
    while let Some(n) = memchr(b'\'', &text[end..]) {
        let run = end + n;
        end = skip_while(text, run, |b| b == b'\'');
        let closing = (end - run) % (2 * level);
        if closing >= level {
            return Some(start..end - closing);
        }
    }
    Some(start..text.len())
}

fn double_quote_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn dollar(text: &[u8], at: usize) -> Range<usize> {
    let tag = dollar_tag(text, at).unwrap_or_default();
    let start = at + tag.len();
    start..memmem::find(&text[start..], tag).map_or(text.len(), |n| start + n)
}

/// A value without quotes goes up to white space; a backslash escapes any byte (libpq, manual section 34.1.1.1).
fn bare_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if is_space(byte) => return at,
            _ => at += 1,
        }
    }
    text.len()
}

/// The password in `user:password@host` (RFC 3986 section 3.2.1). Returns where to go on.
fn uri(text: &[u8], start: usize, cut_off: bool, spans: &mut Vec<Range<usize>>) -> usize {
    let end =
        skip_while(text, start, |b| !is_space(b) && !matches!(b, b'/' | b'?' | b'#' | b'\'' | b'"' | b'<' | b'>'));
    let authority = &text[start..end];
    let Some(colon) = memchr(b':', authority) else { return end };
    let password = start + colon + 1;
    match memchr::memrchr(b'@', authority) {
        Some(at) if at > colon => spans.push(password..start + at),
        // Whether this is a password or a port stands behind the cut.
        None if cut_off && end == text.len() => spans.push(password..end),
        _ => {}
    }
    end
}

//! Takes the secrets out of statement text before it is written down.
//!
//! What is masked, always as `***` in place of the secret and with the quotes around it kept:
//! - the literal behind a word that ends in `password`, `passwd` or `_secret` (any case): `ALTER ROLE … PASSWORD '…'`,
//!   `OPTIONS (password '…')`, `password = '…'`, `password => '…'`, `password = crypt('…', …)`;
//! - inside literals and comments: `password=…` of connection strings, nested SQL (`EXECUTE 'ALTER ROLE … PASSWORD
//!   ''…'''`), JSON members, and the password in `scheme://user:password@host`;
//! - the literal that is joined to one that ends in such a word (`'password=' || '…'`, `set_config('x.password', '…')`),
//!   and every literal of a statement with a template such as `format('… PASSWORD %L', '…')`;
//! - anything that looks like a JSON Web Token (`eyJ….….…`), wherever it stands.
//!
//! Only the content of literals, quoted identifiers and comments is ever replaced (tokens apart), and where those begin
//! and end is decided as PostgreSQL's own lexer does it (manual, section 4.1): a statement cannot hide behind a mask.
//! What it cannot know: strings read with `standard_conforming_strings = off`, and passwords in clear of another name.
//!
//! Time is linear in the length of the text, for any bytes at all.

mod inside;
mod lexer;
mod rules;
mod token;

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr_iter, memchr2_iter, memmem};

const MASK: &[u8] = b"***";

/// The text with its secrets replaced; borrowed, and without any allocation, when it holds none.
///
/// `truncated` says that `text` is the beginning of something longer. A secret that is cut off by its end is masked up
/// to there in any case.
#[must_use]
pub fn mask(text: &[u8], truncated: bool) -> Cow<'_, [u8]> {
    if !may_hold_secret(text) {
        return Cow::Borrowed(text);
    }
    let mut spans = Vec::new();
    rules::scan(text, 0, truncated, 0, &mut spans);
    finish(text, truncated, spans)
}

/// The same for prose, such as an error message: read as the inside of one literal.
#[must_use]
pub fn mask_message(text: &str) -> Cow<'_, [u8]> {
    let text = text.as_bytes();
    if !may_hold_secret(text) {
        return Cow::Borrowed(text);
    }
    let mut spans = Vec::new();
    let _ = inside::scan(text, 0, false, &mut spans);
    finish(text, false, spans)
}

fn finish(text: &[u8], truncated: bool, mut spans: Vec<Range<usize>>) -> Cow<'_, [u8]> {
    token::scan(text, truncated, &mut spans);
    if spans.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(replace(text, spans)) }
}

/// The cheap first look: most statements hold none of the marks that every rule needs.
fn may_hold_secret(text: &[u8]) -> bool {
    memchr2_iter(b'w', b'W', text).any(|at| secret_word_end(text, at).is_some())
        || memchr_iter(b'_', text).any(|at| secret_word_end(text, at).is_some())
        || memmem::find(text, b"eyJ").is_some()
        || memmem::find(text, b"://").is_some()
}

/// Where a word that announces a secret ends, when the byte at `at` is the `w` of `password` or `passwd`, or the
/// underscore of `_secret`.
fn secret_word_end(text: &[u8], at: usize) -> Option<usize> {
    let behind = text.get(at + 1..)?;
    let end = match text.get(at)? {
        b'w' | b'W' if at >= 4 && text[at - 4..at].eq_ignore_ascii_case(b"pass") => {
            at + 1 + if starts_with(behind, b"ord") { 3 } else { usize::from(starts_with(behind, b"d")) }
        }
        b'_' if starts_with(behind, b"secret") => at + 7,
        _ => return None,
    };
    // `passw` alone announces nothing, and neither does a longer word (`password_encryption`).
    (end != at + 1 && !text.get(end).is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'_')).then_some(end)
}

fn starts_with(text: &[u8], lower: &[u8]) -> bool {
    text.get(..lower.len()).is_some_and(|head| head.eq_ignore_ascii_case(lower))
}

/// Puts the mask in place of every span. They come as a few ascending runs, which the stable sort merges in linear time.
fn replace(text: &[u8], mut spans: Vec<Range<usize>>) -> Vec<u8> {
    spans.sort_by_key(|span| span.start);
    let mut out = Vec::with_capacity(text.len() + MASK.len());
    let mut copied = 0;
    let mut masked = None;
    for span in spans {
        if masked.is_some_and(|end| span.start <= end) {
            // Overlaps the one before: a token inside a masked literal.
            copied = copied.max(span.end);
        } else {
            out.extend_from_slice(&text[copied..span.start]);
            out.extend_from_slice(MASK);
            copied = span.end;
        }
        masked = Some(copied);
    }
    out.extend_from_slice(&text[copied..]);
    out
}

#[cfg(test)]
mod tests;

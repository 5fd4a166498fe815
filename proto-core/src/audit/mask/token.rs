//! JSON Web Tokens in the compact form (RFC 7515 section 7.1): three base64url parts with dots between.

use std::ops::Range;

use memchr::memmem;

/// The end of the base64url characters (RFC 4648 section 5) from `at` on.
fn part_end(text: &[u8], at: usize) -> usize {
    text[at..]
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')))
        .map_or(text.len(), |n| at + n)
}

/// Adds what looks like a token: `eyJ` is base64url for `{"`, the start of every header. A part is passed only once.
pub(super) fn scan(text: &[u8], truncated: bool, spans: &mut Vec<Range<usize>>) {
    let mut at = 0;
    while let Some(n) = memmem::find(&text[at..], b"eyJ") {
        let start = at + n;
        let mut end = part_end(text, start);
        let mut dots = 0;
        while dots < 2 && text.get(end) == Some(&b'.') {
            dots += 1;
            end = part_end(text, end + 1);
        }
        let cut_off = truncated && end == text.len();
        if dots == 2 || cut_off {
            spans.push(start..end);
        }
        at = end;
    }
}

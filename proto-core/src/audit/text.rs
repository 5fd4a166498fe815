//! The text of a statement as it may be kept.

use std::fmt;
use std::sync::Arc;

use super::mask::mask;

/// Bytes of statement text in a record when nothing else is configured.
pub const DEFAULT_TEXT_LIMIT: usize = 16_384;

/// Statement text without its secrets, bounded, and shared by all executions of the statement.
#[derive(Clone, PartialEq, Eq)]
pub struct StatementText {
    kept: Arc<[u8]>,
    length: u64,
    truncated: bool,
}

impl StatementText {
    /// Masks the secrets in `seen` and keeps at most `limit` bytes of the result.
    ///
    /// `seen` is the beginning of a text of `length` bytes, or all of it: the more of it is shown, the better can
    /// secrets be told from other text.
    #[must_use]
    pub fn new(seen: &[u8], length: u64, limit: usize) -> Self {
        let cut = (seen.len() as u64) < length;
        let masked = mask(seen, cut);
        let kept = if masked.len() > limit { &masked[..boundary(&masked, limit)] } else { &masked[..] };
        Self { kept: kept.into(), length, truncated: cut || kept.len() < masked.len() }
    }

    /// The same, with at most `limit` bytes kept.
    #[must_use]
    pub fn shortened(&self, limit: usize) -> Self {
        if self.kept.len() <= limit {
            return self.clone();
        }
        Self { kept: self.kept[..boundary(&self.kept, limit)].into(), length: self.length, truncated: true }
    }

    /// What is kept, in the client's encoding.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.kept
    }

    /// The length in bytes of the whole text as the client sent it.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Whether the text went on behind what is kept.
    #[must_use]
    pub const fn truncated(&self) -> bool {
        self.truncated
    }
}

impl fmt::Debug for StatementText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" of {} bytes", self.kept.escape_ascii(), self.length)
    }
}

/// The last place at or before `limit` that is not inside a UTF-8 character (continuation bytes are 0x80 to 0xbf, RFC
/// 3629 section 3). A text in another encoding loses three bytes at most.
fn boundary(text: &[u8], limit: usize) -> usize {
    (limit.saturating_sub(3)..=limit).rev().find(|&at| !matches!(text.get(at), Some(0x80..=0xbf))).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_up_to_the_limit_and_says_so() {
        let text = StatementText::new(b"select 1", 8, 8);
        assert_eq!((text.bytes(), text.length(), text.truncated()), (&b"select 1"[..], 8, false));
        let text = StatementText::new(b"select 1", 8, 6);
        assert_eq!((text.bytes(), text.length(), text.truncated()), (&b"select"[..], 8, true));
        let text = StatementText::new(b"select 1", 9_000_000_000, 100);
        assert_eq!((text.bytes(), text.length(), text.truncated()), (&b"select 1"[..], 9_000_000_000, true));
    }

    #[test]
    fn masks_before_it_cuts() {
        // The whole URI was seen, the cut lies inside its password.
        let seen = b"select dblink('postgres://a:hunter2@h/d')";
        let text = StatementText::new(seen, seen.len() as u64, 31);
        assert_eq!(text.bytes(), b"select dblink('postgres://a:***");
        assert!(text.truncated());
        // A masked text may be shorter than what was sent, and is whole nevertheless.
        let text = StatementText::new(b"alter role a password 'hunter2'", 31, 31);
        assert_eq!((text.bytes(), text.truncated()), (&b"alter role a password '***'"[..], false));
    }

    #[test]
    fn cuts_between_characters() {
        let seen = "select '\u{20ac}\u{20ac}'".as_bytes();
        assert_eq!(StatementText::new(seen, 15, 10).bytes(), b"select '");
        assert_eq!(StatementText::new(seen, 15, 11).bytes(), "select '\u{20ac}".as_bytes());
        assert_eq!(StatementText::new(&[0x81; 9], 9, 6).bytes(), [0x81; 6]);
        assert_eq!(StatementText::new(b"abc", 3, 0).bytes(), b"");
    }
}

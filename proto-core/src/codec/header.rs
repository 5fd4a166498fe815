//! The five bytes in front of every message after the startup.

use crate::fault::Violation;

/// Tag and length: what must be seen before a message can be cut out of the stream.
pub const HEADER_LEN: usize = 5;

/// The largest value of a length field that PostgreSQL accepts (`PQ_LARGE_MESSAGE_LIMIT`, `MaxAllocSize - 1`).
pub const MAX_MESSAGE_LEN: u32 = 0x3fff_fffe;

/// A message's tag and the size of its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The message type.
    pub tag: u8,
    /// Bytes behind the header.
    pub body: u32,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` while fewer than [`HEADER_LEN`] are there.
    ///
    /// # Errors
    /// [`Violation::BadLength`] when the length does not cover itself or is above [`MAX_MESSAGE_LEN`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let len = u32::from_be_bytes([a, b, c, d]);
        if !(4..=MAX_MESSAGE_LEN).contains(&len) {
            return Err(Violation::BadLength);
        }
        Ok(Some(Self { tag, body: len - 4 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tag_and_body_length() {
        assert_eq!(Header::parse(b"Z\0\0\0\x05I"), Ok(Some(Header { tag: b'Z', body: 1 })));
        assert_eq!(Header::parse(b"Z\0\0\0"), Ok(None));
    }

    #[test]
    fn refuses_lengths_outside_the_protocol() {
        assert_eq!(Header::parse(b"Q\0\0\0\x03"), Err(Violation::BadLength));
        assert_eq!(Header::parse(b"Q\xff\xff\xff\xff"), Err(Violation::BadLength));
        assert_eq!(Header::parse(b"Q\x40\0\0\0"), Err(Violation::BadLength));
    }
}

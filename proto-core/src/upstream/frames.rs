//! Whole messages out of a stream that is chopped anywhere.

use crate::codec::{HEADER_LEN, Header};
use crate::fault::Violation;
use crate::secret::Secret;

/// The longest message body that a handshake holds. A ParameterStatus, notice or error has rarely more than 1 KiB;
/// libpq itself gives up on an error of more than 30,000 bytes at this stage.
pub(super) const MAX_BODY: u32 = 64 * 1024;

/// A message, whole. Its body may be a cancel key.
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Secret<Vec<u8>>,
}

/// Collects the bytes of one message at a time.
pub(super) struct Frames {
    header: [u8; HEADER_LEN],
    filled: usize,
    expected: usize,
    body: Secret<Vec<u8>>,
}

impl Frames {
    pub(super) const fn new() -> Self {
        Self { header: [0; HEADER_LEN], filled: 0, expected: 0, body: Secret::new(Vec::new()) }
    }

    /// Takes bytes up to the end of the message in work: how many, and the message when it is whole.
    ///
    /// # Errors
    /// [`Violation::BadLength`] for a length outside the protocol, or above [`MAX_BODY`], before room is made for it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Result<Option<Frame>, Violation>) {
        let head = bytes.len().min(HEADER_LEN - self.filled);
        if head > 0 {
            self.header[self.filled..self.filled + head].copy_from_slice(&bytes[..head]);
            self.filled += head;
            match Header::parse(&self.header[..self.filled]) {
                Ok(None) => return (head, Ok(None)),
                Ok(Some(header)) if header.body <= MAX_BODY => self.expected = header.body as usize,
                Ok(Some(_)) | Err(_) => return (head, Err(Violation::BadLength)),
            }
            // Exactly once and never grown: growing would leave a copy of a key behind.
            self.body.expose_mut().reserve_exact(self.expected);
        } else if bytes.is_empty() {
            return (0, Ok(None));
        }
        let body = self.body.expose_mut();
        let part = (bytes.len() - head).min(self.expected - body.len());
        body.extend_from_slice(&bytes[head..head + part]);
        let frame = (body.len() == self.expected).then(|| {
            self.filled = 0;
            Frame { tag: self.header[0], body: std::mem::replace(&mut self.body, Secret::new(Vec::new())) }
        });
        (head + part, Ok(frame))
    }

    /// What has been seen of the header.
    pub(super) fn header(&self) -> &[u8] {
        &self.header[..self.filled]
    }

    /// What has been seen of a body whose header is complete.
    pub(super) fn partial(&self) -> Option<(u8, &[u8])> {
        (self.filled == HEADER_LEN).then(|| (self.header[0], self.body.expose().as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(frames: &mut Frames, mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut whole = Vec::new();
        while !bytes.is_empty() {
            let (used, frame) = frames.take(bytes);
            assert!(used > 0, "every call makes progress");
            bytes = &bytes[used..];
            if let Some(frame) = frame.unwrap() {
                whole.push((frame.tag, frame.body.expose().clone()));
            }
        }
        whole
    }

    #[test]
    fn any_split_gives_the_same_messages() {
        let stream = b"Z\0\0\0\x05I1\0\0\0\x04S\0\0\0\x08a\0b\0";
        let expected = vec![(b'Z', b"I".to_vec()), (b'1', vec![]), (b'S', b"a\0b\0".to_vec())];
        assert_eq!(cut(&mut Frames::new(), stream), expected);
        for at in 0..=stream.len() {
            let mut frames = Frames::new();
            let mut whole = cut(&mut frames, &stream[..at]);
            whole.extend(cut(&mut frames, &stream[at..]));
            assert_eq!(whole, expected, "split at {at}");
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_it_allocates() {
        for length in [0u32, 3, MAX_BODY + 5, 0x3fff_fffe, 0x7fff_ffff, u32::MAX] {
            let mut frames = Frames::new();
            let bytes = [&b"S"[..], &length.to_be_bytes(), b"more"].concat();
            let (used, frame) = frames.take(&bytes);
            assert_eq!(used, HEADER_LEN);
            assert_eq!(frame.err(), Some(Violation::BadLength), "{length}");
            assert_eq!(frames.body.expose().capacity(), 0);
        }
    }

    #[test]
    fn a_partial_body_can_be_seen() {
        let mut frames = Frames::new();
        assert_eq!(cut(&mut frames, b"E\0\0"), vec![]);
        assert_eq!((frames.header(), frames.partial()), (&b"E\0\0"[..], None));
        assert_eq!(cut(&mut frames, b"\0\x20SFATAL"), vec![]);
        assert_eq!(frames.partial(), Some((b'E', &b"SFATAL"[..])));
    }
}

//! Where one direction of the relay stands between message boundaries.
//!
//! Payload passes by: the framer counts it down and keeps at most a small prefix of the few messages that must be
//! looked into and were cut by a read.

use crate::codec::Header;

/// Position inside one direction's stream.
#[derive(Debug, Default)]
pub(super) struct Framer {
    tag: u8,
    body: u32,
    left: u32,
    /// How much of the body may still be kept.
    keep: u32,
    kept: Vec<u8>,
}

impl Framer {
    /// Whether the next byte belongs to a message that has begun.
    pub(super) const fn is_inside(&self) -> bool {
        self.left > 0
    }

    /// Begins a message whose body is not all there: `keep` bytes of it will be wanted at its end.
    pub(super) fn begin(&mut self, header: Header, keep: usize) {
        self.tag = header.tag;
        self.body = header.body;
        self.left = header.body;
        self.keep = u32::try_from(keep).unwrap_or(u32::MAX).min(header.body);
    }

    /// Lets bytes of the current message pass; how many of the slice belong to it.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.left as usize);
        if self.keep > 0 {
            let keep = n.min(self.keep as usize);
            self.kept.extend_from_slice(&bytes[..keep]);
            self.keep -= keep as u32; // keep <= self.keep
        }
        self.left -= n as u32; // n <= self.left
        n
    }

    /// The message whose last byte has just passed. What was kept is handed out, so that an idle framer holds nothing.
    pub(super) fn take_kept(&mut self) -> (u8, u32, Vec<u8>) {
        (self.tag, self.body, std::mem::take(&mut self.kept))
    }
}

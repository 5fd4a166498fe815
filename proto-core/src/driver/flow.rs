//! One direction of a connection: what was read from one side, and what is to be written to the other.
//!
//! ```text
//!  source socket ──read──▶ [ span | not judged yet ]  (borrowed buffer)
//!                             │
//!          before ───▶ span ──┴──▶ after ──write──▶ target socket
//! ```
//! Bytes that the machine forwards are written from the buffer that they were read into: no copy. Own bytes of the
//! proxy go before the span when nothing is half written, behind it otherwise.

use std::io;
use std::task::{Context, Poll, ready};

use super::buffers::{Buffer, LARGE, SMALL};
use super::link::Link;
use super::runtime::Socket;

/// What was read from a side and not yet written or taken.
#[derive(Default)]
pub(super) struct Inbound {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    /// The machine waits: these bytes were judged and nothing is to be done before more come.
    pub(super) waiting: bool,
    pub(super) closed: bool,
    /// Nothing more has come in this wake-up, and the socket wakes the task when something does.
    drained: bool,
    bulk: bool,
}

impl Inbound {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.start..self.end])
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) const fn len(&self) -> usize {
        self.end - self.start
    }

    /// A new wake-up: something may have come.
    pub(super) const fn look_again(&mut self) {
        self.drained = false;
    }

    /// Lets go of bytes at the front; an empty buffer is given back.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.buffer = None;
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.consume(self.end - self.start);
    }

    /// Reads once. Zero bytes are the end of the stream; a full buffer is pending without a waker, since only
    /// writing can make room. A socket that had nothing is asked once per wake-up.
    pub(super) fn poll_read<S: Socket>(
        &mut self,
        link: &mut Link<S>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.drained {
            return Poll::Pending;
        }
        let bulk = self.bulk;
        let buffer = self.buffer.get_or_insert_with(|| if bulk { Buffer::large() } else { Buffer::small() });
        if self.start > 0 && self.end == buffer.len() {
            buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let room = &mut buffer[self.end..];
        if room.is_empty() {
            return Poll::Pending;
        }
        let result = link.poll_read(context, room);
        match result {
            Poll::Ready(Ok(n)) => {
                self.bulk = if self.bulk { n >= SMALL } else { n == room.len() };
                self.end += n;
                self.waiting = false;
            }
            Poll::Ready(Err(_)) | Poll::Pending => {
                self.drained = result.is_pending();
                if self.is_empty() {
                    self.clear();
                }
            }
        }
        debug_assert!(self.end <= LARGE);
        result
    }

    /// Bytes that were read behind a negotiation and belong to the transport's next layer.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.bytes().to_vec();
        self.clear();
        rest
    }
}

/// What is on its way to a side.
#[derive(Default)]
pub(super) struct Outbound {
    before: Vec<u8>,
    written: usize,
    /// Bytes at the front of the other side's [`Inbound`] that go out behind `before`.
    span: usize,
    after: Vec<u8>,
    flushed: bool,
}

impl Outbound {
    /// Own bytes of the proxy.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        let queue = if self.span == 0 { &mut self.before } else { &mut self.after };
        if queue.is_empty() {
            *queue = bytes;
        } else {
            queue.extend_from_slice(&bytes);
        }
    }

    /// The front of the other side's bytes.
    pub(super) fn forward(&mut self, n: usize) {
        debug_assert_eq!(self.span, 0, "one span at a time");
        self.span = n;
    }

    /// Forwarded bytes that are not written yet.
    pub(super) const fn span(&self) -> usize {
        self.span
    }

    /// Own bytes of the proxy that are not written yet.
    pub(super) const fn own(&self) -> usize {
        self.before.len() - self.written + self.after.len()
    }

    /// Everything has been handed to the transport.
    pub(super) const fn is_empty(&self) -> bool {
        self.before.is_empty() && self.span == 0 && self.after.is_empty()
    }

    /// Writes until all is out or the socket is full; `from` holds the span.
    pub(super) fn poll_write<S: Socket>(
        &mut self,
        link: &mut Link<S>,
        from: &mut Inbound,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            self.flushed = false;
            let own = &self.before[self.written..];
            let n = ready!(link.poll_write(context, own, &from.bytes()[..self.span]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n, from);
        }
        if !self.flushed {
            ready!(link.poll_flush(context))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, n: usize, from: &mut Inbound) {
        let own = n.min(self.before.len() - self.written);
        self.written += own;
        if self.written == self.before.len() {
            self.before = Vec::new();
            self.written = 0;
        }
        let forwarded = n - own;
        if forwarded > 0 {
            self.span -= forwarded;
            from.consume(forwarded);
        }
        if self.span == 0 && self.before.is_empty() {
            self.before = std::mem::take(&mut self.after);
        }
    }

    /// Drops what was to be forwarded: its source is gone.
    pub(super) fn drop_all(&mut self) {
        *self = Self::default();
    }
}

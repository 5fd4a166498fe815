//! A socket in front of which bytes stand that were read too early.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::runtime::Socket;

/// Gives back what was read to find out that a client speaks TLS without asking, then the socket's own bytes.
pub(super) struct Replayed<S> {
    front: Vec<u8>,
    at: usize,
    socket: S,
}

impl<S> Replayed<S> {
    pub(super) const fn new(socket: S) -> Self {
        Self { front: Vec::new(), at: 0, socket }
    }

    /// What was read of a client that speaks TLS without asking comes again.
    pub(super) fn replay(&mut self, front: Vec<u8>) {
        self.front = front;
        self.at = 0;
    }
}

impl<S: Socket> AsyncRead for Replayed<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.at < self.front.len() {
            let n = buffer.len().min(self.front.len() - self.at);
            buffer[..n].copy_from_slice(&self.front[self.at..self.at + n]);
            self.at += n;
            if self.at == self.front.len() {
                self.front = Vec::new();
                self.at = 0;
            }
            return Poll::Ready(Ok(n));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: Socket> AsyncWrite for Replayed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context)
    }
}

//! A socket, or TLS over one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::{client, server};

use super::runtime::Socket;

/// One side's transport.
pub enum Link<S> {
    /// As it came.
    Plain(S),
    /// TLS, with the proxy as its server.
    Accepted(Box<server::TlsStream<S>>),
    /// TLS, with the proxy as its client.
    Connected(Box<client::TlsStream<S>>),
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self {
            Link::Plain($io) => {
                let $io = Pin::new($io);
                $call
            }
            Link::Accepted($io) => {
                let $io = Pin::new(&mut **$io);
                $call
            }
            Link::Connected($io) => {
                let $io = Pin::new(&mut **$io);
                $call
            }
        }
    };
}

impl<S: Socket> Link<S> {
    /// Reads into `buffer`; zero is the end.
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_read(context, buffer))
    }

    /// Writes some of these bytes.
    pub fn poll_write(&mut self, context: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        if first.is_empty() {
            each!(self, io => io.poll_write(context, second))
        } else if second.is_empty() {
            each!(self, io => io.poll_write(context, first))
        } else {
            each!(self, io => io.poll_write_vectored(context, &[IoSlice::new(first), IoSlice::new(second)]))
        }
    }

    /// Gives everything written so far to the network: TLS records may still be held here.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Accepted(io) => Pin::new(&mut **io).poll_flush(context),
            Self::Connected(io) => Pin::new(&mut **io).poll_flush(context),
        }
    }

    /// Says goodbye in the way of the transport.
    pub fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_close(context))
    }
}

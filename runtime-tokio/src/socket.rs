//! Stream sockets, TCP and Unix.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};
use gprxy_proto::policy::{Endpoint, SocketOptions};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket.
#[derive(Debug)]
pub enum TokioSocket {
    /// TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl TokioSocket {
    pub(crate) async fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp { host, port } => Self::tcp(TcpStream::connect((&**host, *port)).await?),
            Endpoint::Unix(path) => UnixStream::connect(&**path).await.map(Self::Unix),
        }
    }

    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// Our end of a TCP connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// What the kernel does for a TCP connection.
    pub(crate) fn tune(&self, options: &SocketOptions) -> io::Result<()> {
        let Self::Tcp(stream) = self else { return Ok(()) };
        let socket = SockRef::from(stream);
        socket.set_keepalive(options.keepalive)?;
        if options.keepalive {
            let mut keepalive = TcpKeepalive::new();
            if let Some(time) = options.keepidle {
                keepalive = keepalive.with_time(time);
            }
            if let Some(interval) = options.keepintvl {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = options.keepcnt {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(target_os = "linux")]
        if options.user_timeout.is_some() {
            socket.set_tcp_user_timeout(options.user_timeout)?;
        }
        if let Some(size) = options.buffer {
            socket.set_send_buffer_size(size)?;
            socket.set_recv_buffer_size(size)?;
        }
        Ok(())
    }
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self.get_mut() {
            TokioSocket::Tcp($io) => {
                let $io = Pin::new($io);
                $call
            }
            TokioSocket::Unix($io) => {
                let $io = Pin::new($io);
                $call
            }
        }
    };
}

impl AsyncRead for TokioSocket {
    /// A short read clears the readiness: no call to the kernel is spent on finding out that nothing more is there.
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(each!(self, io => io.poll_read(context, &mut buffer)))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for TokioSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write_vectored(context, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(context))
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(context))
    }
}

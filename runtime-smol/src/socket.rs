//! Stream sockets, TCP and Unix.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Async;
use futures_io::{AsyncRead, AsyncWrite};
use gprxy_proto::policy::Endpoint;
use socket2::{SockRef, TcpKeepalive};

/// A connected socket.
#[derive(Debug)]
pub enum SmolSocket {
    /// TCP, with Nagle's algorithm off and keep-alive on.
    Tcp(Async<TcpStream>),
    /// A Unix socket.
    Unix(Async<UnixStream>),
}

impl SmolSocket {
    pub(crate) async fn connect(endpoint: Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp { host, port } => Self::connect_tcp(host, port).await,
            Endpoint::Unix(path) => Async::<UnixStream>::connect(&*path).await.map(Self::Unix),
        }
    }

    /// Tries a name's addresses in their order.
    async fn connect_tcp(host: Arc<str>, port: u16) -> io::Result<Self> {
        let mut failure = None;
        for address in resolve(host, port).await? {
            match Async::<TcpStream>::connect(address).await {
                Ok(stream) => return Self::tcp(stream),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name has no address")))
    }

    pub(crate) fn tcp(stream: Async<TcpStream>) -> io::Result<Self> {
        stream.get_ref().set_nodelay(true)?;
        // A peer that is gone without a word is noticed after about two minutes.
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Self::Tcp(stream))
    }
}

/// Names are looked up by the system, which blocks; addresses need no look.
async fn resolve(host: Arc<str>, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host.parse() {
        Ok(ip) => Ok(vec![SocketAddr::new(ip, port)]),
        Err(_) => smol::unblock(move || (&*host, port).to_socket_addrs().map(Iterator::collect)).await,
    }
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self.get_mut() {
            SmolSocket::Tcp($io) => {
                let $io = Pin::new($io);
                $call
            }
            SmolSocket::Unix($io) => {
                let $io = Pin::new($io);
                $call
            }
        }
    };
}

impl AsyncRead for SmolSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_read(context, buffer))
    }
}

impl AsyncWrite for SmolSocket {
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

    /// Says that nothing more comes; `async-io` itself leaves that to the drop of the socket.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match each!(self, io => io.get_ref().shutdown(Shutdown::Write)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

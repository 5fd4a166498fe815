//! Stream sockets, TCP and Unix.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_io::Async;
use futures_io::{AsyncRead, AsyncWrite};
use gprxy_proto::policy::{Endpoint, SocketOptions};
use socket2::{SockRef, TcpKeepalive};

/// A connected socket.
#[derive(Debug)]
pub struct SmolSocket {
    stream: Stream,
    /// The last read took all that was there. Another one would find nothing, most likely: first it is waited for.
    drained: bool,
    /// Which task read last, by its address: compared, never followed.
    reader: usize,
}

#[derive(Debug)]
enum Stream {
    /// TCP, with Nagle's algorithm off.
    Tcp(Async<TcpStream>),
    /// A Unix socket.
    Unix(Async<UnixStream>),
}

impl SmolSocket {
    pub(crate) async fn connect(endpoint: Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp { host, port } => Self::connect_tcp(host, port).await,
            Endpoint::Unix(path) => Async::<UnixStream>::connect(&*path).await.map(Self::unix),
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
        Ok(Self { stream: Stream::Tcp(stream), drained: false, reader: 0 })
    }

    /// Our end of a TCP connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.get_ref().local_addr().ok(),
            Stream::Unix(_) => None,
        }
    }

    /// What the kernel does for a TCP connection.
    pub(crate) fn tune(&self, options: &SocketOptions) -> io::Result<()> {
        let Stream::Tcp(stream) = &self.stream else { return Ok(()) };
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

    pub(crate) const fn unix(stream: Async<UnixStream>) -> Self {
        Self { stream: Stream::Unix(stream), drained: false, reader: 0 }
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
    ($stream:expr, $io:ident => $call:expr) => {
        match &mut $stream {
            Stream::Tcp($io) => $call,
            Stream::Unix($io) => $call,
        }
    };
}

/// Reads, and waits only when nothing is there; `drained` says so of the call before and learns it from this one.
///
/// A reader that is registered is not lost by waiting first: the reactor looks at the socket itself, so bytes, an end
/// or an error that are there already make it ready.
fn poll_read_from<'a, T>(
    io: &'a Async<T>,
    drained: &mut bool,
    reader: &mut usize,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>>
where
    &'a T: Read,
{
    // What one reader has found says nothing to another, who comes later: only who waits is told when bytes come.
    let asks = context.waker().data().addr();
    if std::mem::replace(reader, asks) != asks {
        *drained = false;
    }
    loop {
        if *drained {
            ready!(io.poll_readable(context))?;
            *drained = false;
        }
        match io.get_ref().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => *drained = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(n) => {
                *drained = 0 < n && n < buffer.len();
                return Poll::Ready(Ok(n));
            }
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

impl AsyncRead for SmolSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { stream, drained, reader } = self.get_mut();
        each!(*stream, io => poll_read_from(io, drained, reader, context, buffer))
    }
}

impl AsyncWrite for SmolSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut().stream, io => Pin::new(io).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut().stream, io => Pin::new(io).poll_write_vectored(context, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut().stream, io => Pin::new(io).poll_flush(context))
    }

    /// Says that nothing more comes; `async-io` itself leaves that to the drop of the socket.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match each!(self.get_mut().stream, io => io.get_ref().shutdown(Shutdown::Write)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

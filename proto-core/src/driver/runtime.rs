//! What the driver needs of an executor: nouns only. A runtime crate implements these traits and nothing else.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use crate::policy::{Endpoint, SocketOptions};
use crate::session::Peer;
use crate::time::{Now, Tick};

/// A connected stream socket.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket for T {}

/// A timer that can be set again without being made anew.
pub trait Alarm: Send + Unpin + 'static {
    /// Rings at this tick, or never.
    fn set(&mut self, at: Option<Tick>);

    /// Ready once when the tick has passed.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// Who is at the other end of an accepted socket.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Address and port, or `unix`.
    pub address: Arc<str>,
    /// Loopback or a Unix socket.
    pub is_local: bool,
    /// Over a Unix socket, the user that the peer's process ran as when it connected; `None` where the system does not
    /// say.
    pub uid: Option<u32>,
}

impl Caller {
    /// At the other end of a TCP connection. An IPv4 address stays one when it comes in over an IPv6 socket.
    #[must_use]
    pub fn tcp(peer: SocketAddr) -> Self {
        let ip = peer.ip().to_canonical();
        Self { address: SocketAddr::new(ip, peer.port()).to_string().into(), is_local: ip.is_loopback(), uid: None }
    }

    /// At the other end of a Unix socket: somebody on this machine.
    #[must_use]
    pub fn unix(uid: Option<u32>) -> Self {
        Self { address: "unix".into(), is_local: true, uid }
    }
}

impl From<Caller> for Peer {
    fn from(caller: Caller) -> Self {
        Self { address: caller.address, is_local: caller.is_local, uid: caller.uid }
    }
}

/// A listening socket.
pub trait Listener: Send + Sync + 'static {
    /// What it accepts.
    type Socket: Socket;

    /// The next client.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, Caller)>> + Send;

    /// Nobody new is to come here any more where somebody else listens on the same address; who has begun to connect is still
    /// accepted. Whether that is so: otherwise everybody still comes.
    ///
    /// # Errors
    /// The operating system's. Closing the socket may then reset whoever connects at that moment.
    fn turn_away(&self) -> io::Result<bool> {
        Ok(false)
    }
}

/// An executor with its clock and network.
pub trait Runtime: Copy + Send + Sync + 'static {
    /// A stream socket.
    type Socket: Socket;
    /// A timer.
    type Alarm: Alarm;

    /// Both clocks.
    fn now() -> Now;

    /// A timer that is not set.
    fn alarm() -> Self::Alarm;

    /// Connects to a server.
    fn connect(endpoint: Endpoint) -> impl Future<Output = io::Result<Self::Socket>> + Send;

    /// Has the kernel treat a connection like this. A socket that is none of TCP, or knows nothing of these, stays as it is.
    ///
    /// # Errors
    /// What the kernel does not take.
    fn tune(_socket: &Self::Socket, _options: &SocketOptions) -> io::Result<()> {
        Ok(())
    }

    /// Our end of a TCP connection, for those who look for it in the server's or the network's own records.
    fn local_address(_socket: &Self::Socket) -> Option<SocketAddr> {
        None
    }

    /// Runs a future by itself, on the worker that this is called on. A panic ends this future and nothing else.
    fn spawn(future: impl Future<Output = ()> + Send + 'static);

    /// Runs a blocking call on a thread where it stops nobody. Its panic becomes a panic of the future.
    fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> + Send;
}

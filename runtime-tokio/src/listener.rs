//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use gprxy_proto::driver::runtime::{Caller, Listener};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::socket::TokioSocket;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A bound socket that any worker can listen on.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl Bound {
    /// Binds a TCP address.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // IPv4 has sockets of its own.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self::Tcp(socket.into()))
    }

    /// Binds a Unix socket.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(listener))
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn share(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }

    /// The address that was bound; `None` for Unix sockets.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Listens on the worker that this is called on.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn listen(&self) -> io::Result<TokioListener> {
        match self {
            Self::Tcp(listener) => TcpListener::from_std(listener.try_clone()?).map(TokioListener::Tcp),
            Self::Unix(listener) => UnixListener::from_std(listener.try_clone()?).map(TokioListener::Unix),
        }
    }
}

/// A listening socket of one worker.
#[derive(Debug)]
pub enum TokioListener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener for TokioListener {
    type Socket = TokioSocket;

    async fn accept(&self) -> io::Result<(TokioSocket, Caller)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let is_local = peer.ip().to_canonical().is_loopback();
                let address = SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string();
                Ok((TokioSocket::tcp(stream)?, Caller { address: address.into(), is_local }))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((TokioSocket::Unix(stream), Caller { address: "unix".into(), is_local: true }))
            }
        }
    }
}

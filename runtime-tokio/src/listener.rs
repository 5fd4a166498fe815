//! Listening sockets.

use std::io;

use gprxy_proto::driver::host::Bound;
#[cfg(target_os = "linux")]
use gprxy_proto::driver::host::NO_NEW_CONNECTION;
use gprxy_proto::driver::runtime::{Caller, Listener};
#[cfg(target_os = "linux")]
use socket2::SockFilter;
use socket2::SockRef;
use tokio::net::{TcpListener, UnixListener};

use crate::socket::TokioSocket;

/// A listening socket of one worker.
#[derive(Debug)]
pub enum TokioListener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl TokioListener {
    pub(crate) fn new(bound: Bound) -> io::Result<Self> {
        match bound {
            Bound::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            Bound::Unix(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Self::Unix)
            }
        }
    }
}

impl Listener for TokioListener {
    type Socket = TokioSocket;

    async fn accept(&self) -> io::Result<(TokioSocket, Caller)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((TokioSocket::tcp(stream)?, Caller::tcp(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                Ok((TokioSocket::Unix(stream), Caller::unix(uid)))
            }
        }
    }
    fn turn_away(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(listener) => turn_away(&SockRef::from(listener)),
            Self::Unix(_) => Ok(false),
        }
    }
}

/// A socket that shares its address is given no new connection by the kernel from now on.
#[cfg(target_os = "linux")]
fn turn_away(socket: &SockRef<'_>) -> io::Result<bool> {
    if !socket.reuse_port()? {
        return Ok(false);
    }
    let filter = NO_NEW_CONNECTION.map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k));
    socket.attach_filter(&filter).map(|()| true)
}

/// There is no filter for that here.
#[cfg(not(target_os = "linux"))]
const fn turn_away(_: &SockRef<'_>) -> io::Result<bool> {
    Ok(false)
}

//! Listening sockets.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};

use async_io::Async;
use gprxy_proto::driver::host::Bound;
#[cfg(target_os = "linux")]
use gprxy_proto::driver::host::NO_NEW_CONNECTION;
use gprxy_proto::driver::runtime::{Caller, Listener};
#[cfg(target_os = "linux")]
use socket2::SockFilter;
use socket2::SockRef;

use crate::socket::SmolSocket;

/// A listening socket of one worker.
#[derive(Debug)]
pub enum SmolListener {
    /// TCP.
    Tcp(Async<TcpListener>),
    /// A Unix socket.
    Unix(Async<UnixListener>),
}

impl SmolListener {
    pub(crate) fn new(bound: Bound) -> io::Result<Self> {
        match bound {
            Bound::Tcp(listener) => Async::new(listener).map(Self::Tcp),
            Bound::Unix(listener) => Async::new(listener).map(Self::Unix),
        }
    }
}

/// The user at the other end (SO_PEERCRED), as it was when it connected.
#[cfg(target_os = "linux")]
fn peer_uid(stream: &Async<UnixStream>) -> Option<u32> {
    rustix::net::sockopt::socket_peercred(stream).ok().map(|peer| peer.uid.as_raw())
}

/// Not known here: whoever asks for a certain user lets nobody in.
#[cfg(not(target_os = "linux"))]
const fn peer_uid(_: &Async<UnixStream>) -> Option<u32> {
    None
}

impl Listener for SmolListener {
    type Socket = SmolSocket;

    async fn accept(&self) -> io::Result<(SmolSocket, Caller)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((SmolSocket::tcp(stream)?, Caller::tcp(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = peer_uid(&stream);
                Ok((SmolSocket::unix(stream), Caller::unix(uid)))
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

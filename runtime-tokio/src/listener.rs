//! Listening sockets.

use std::io;

use gprxy_proto::driver::host::Bound;
use gprxy_proto::driver::runtime::{Caller, Listener};
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
}

//! What a process needs around a [`Runtime`] to serve clients with it: threads, listening sockets, signals.
#![expect(clippy::disallowed_types, reason = "a bound socket is handed on here, never read or written")]

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use super::runtime::{Listener, Runtime};

/// A bound socket that any worker can listen on.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Bound {
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
}

/// A packet filter (`linux/filter.h`: code, jump if true, jump if false, operand) that lets no new connection begin at a
/// listening socket of TCP, while those that have begun go on: it drops what has SYN and not ACK in its flags, the 14th
/// byte of the header (RFC 9293, section 3.1).
///
/// Closing a socket resets whoever the kernel had given to it in the meantime, even where another process listens beside it
/// (`SO_REUSEPORT`). Whose SYN was dropped sends it once more after a second, and comes to that process.
pub const NO_NEW_CONNECTION: [(u16, u8, u8, u32); 5] = [
    (LOAD_BYTE, 0, 0, 13),
    (AND, 0, 0, SYN | ACK),
    (JUMP_IF_EQUAL, 0, 1, SYN),
    (RETURN, 0, 0, 0),
    (RETURN, 0, 0, u32::MAX),
];
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// The signals that mean something to a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

/// Waits for signals.
pub trait Signals: Sized {
    /// From here on these signals no longer end the process by themselves. Called inside of [`Host::block_on`].
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    fn install() -> io::Result<Self>;

    /// The next signal. Signals that come between two calls are not lost; several of one kind may count as one.
    fn next(&mut self) -> impl Future<Output = Signal>;
}

/// A runtime that a process can be built on.
pub trait Host: Runtime {
    /// A listening socket of one worker.
    type Listener: Listener<Socket = Self::Socket>;
    /// What the operator tells a running process.
    type Signals: Signals;

    /// Listens on the worker that this is called on.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    fn listen(bound: Bound) -> io::Result<Self::Listener>;

    /// Runs a future on this thread, and what it spawns until it has ended.
    ///
    /// # Errors
    /// When the runtime cannot be set up.
    fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T>;

    /// Runs a future on a thread of its own, and what it spawns until it has ended.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be set up.
    fn start_worker<F>(index: usize, make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
    where
        F: Future<Output = ()>;
}

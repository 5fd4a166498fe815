//! The sockets that clients connect to.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gprxy_proto::driver::host::Bound;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listen;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
#[cfg(feature = "login")]
const BACKLOG: i32 = 4096;

/// A bound socket; a Unix socket's file goes with it.
pub(crate) struct Listening {
    bound: Bound,
    file: Option<SocketFile>,
}

/// The file of a Unix socket, and which one it is: another process may have put its own in its place.
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Listening {
    /// The same socket for a worker.
    pub(crate) fn share(&self) -> Result<Bound, String> {
        self.bound.share().map_err(|error| format!("{self} cannot be shared with a worker: {error}"))
    }

    /// Whether it is a Unix socket.
    pub(crate) const fn is_local(&self) -> bool {
        self.file.is_some()
    }

    /// The address that was bound; `None` for Unix sockets.
    #[cfg(feature = "login")]
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.bound.address()
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.bound.address()) {
            (Some(file), _) => write!(f, "{}", file.path.display()),
            (None, Some(address)) => write!(f, "{address}"),
            (None, None) => f.write_str("a socket without an address"),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some(SocketFile { path, inode }) = &self.file else { return };
        if path.symlink_metadata().is_ok_and(|metadata| metadata.ino() == *inode) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Binds everything that is configured.
pub(super) fn bind(listen: &Listen) -> Result<Vec<Listening>, String> {
    let mut all = Vec::new();
    for name in &listen.addresses {
        for address in resolve(name, listen.port)? {
            let how = Tcp { backlog: listen.backlog, reuse_port: listen.reuse_port, defer_accept: listen.defer_accept };
            match listen_tcp_with(address, &how) {
                Ok(listening) => all.push(listening),
                // "*" means what the machine has, and not every machine has IPv6.
                Err(_) if name == "*" && address.is_ipv6() => {}
                Err(problem) => return Err(problem),
            }
        }
    }
    if let Some(directory) = &listen.unix_socket_dir {
        let path = directory.join(format!(".s.PGSQL.{}", listen.port));
        if listen.reuse_port {
            // Another process goes on serving whom it has accepted; new clients come here.
            let _ = std::fs::remove_file(&path);
        }
        let listening = listen_unix(&path)?;
        open_up(&path, listen).map_err(|error| format!("{}: {error}", path.display()))?;
        all.push(listening);
    }
    if all.is_empty() { Err("there is no address to listen on".into()) } else { Ok(all) }
}

/// Lets those at the socket who are meant to be.
fn open_up(path: &Path, listen: &Listen) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // The group first: a mode that is open to it must never be open to another one.
    if let Some(group) = listen.unix_socket_group {
        std::os::unix::fs::chown(path, None, Some(group))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(listen.unix_socket_mode))
}

fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if name == "*" {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        return Ok(any.map(|ip| SocketAddr::new(ip, port)).into());
    }
    match (name, port).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(format!("listen_addr: {name:?} is no address of this machine: {error}")),
    }
}

/// Listens on one address, alone.
#[cfg(feature = "login")]
pub(crate) fn listen_tcp(address: SocketAddr) -> Result<Listening, String> {
    listen_tcp_with(address, &Tcp { backlog: BACKLOG, reuse_port: false, defer_accept: Duration::ZERO })
}

/// How to listen.
struct Tcp {
    backlog: i32,
    reuse_port: bool,
    defer_accept: Duration,
}

fn listen_tcp_with(address: SocketAddr, how: &Tcp) -> Result<Listening, String> {
    match bind_tcp(address, how) {
        Ok(bound) => Ok(Listening { bound: Bound::Tcp(bound.into()), file: None }),
        Err(error) => Err(format!("cannot listen on {address}: {error}")),
    }
}

fn bind_tcp(address: SocketAddr, how: &Tcp) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process that still fade away must not keep this one from starting.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(how.reuse_port)?;
    if address.is_ipv6() {
        // IPv4 has sockets of its own.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    if !how.defer_accept.is_zero() {
        defer_accept(&socket, how.defer_accept)?;
    }
    socket.listen(how.backlog)?;
    Ok(socket)
}

/// The kernel shows a client only when it has said something (tcp(7), `TCP_DEFER_ACCEPT`).
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no library that is used here has this option")]
fn defer_accept(socket: &Socket, time: Duration) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let seconds = libc::c_int::try_from(time.as_secs().max(1)).unwrap_or(libc::c_int::MAX);
    let length = size_of::<libc::c_int>() as libc::socklen_t; // four bytes
    // SAFETY: the descriptor is open as long as `socket` is borrowed; the kernel reads `length` bytes of `seconds`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn defer_accept(_: &Socket, _: Duration) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "tcp_defer_accept is an option of Linux"))
}

/// Listens on a Unix socket. A file that nobody listens on is left over from a process that was killed.
pub(crate) fn listen_unix(path: &Path) -> Result<Listening, String> {
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
    match std::os::unix::net::UnixListener::bind(path) {
        Ok(listener) => {
            let inode = path.symlink_metadata().map(|metadata| metadata.ino());
            let inode = inode.map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Listening { bound: Bound::Unix(listener), file: Some(SocketFile { path: path.into(), inode }) })
        }
        Err(error) => Err(format!("cannot listen on {}: {error}", path.display())),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::task::Poll;

    use gprxy_proto::driver::host::Host;
    use gprxy_proto::driver::runtime::Listener as _;

    use super::*;

    #[test]
    fn a_client_that_says_nothing_is_not_seen_where_the_kernel_keeps_it() {
        for (seconds, is_seen) in [(0, true), (30, false)] {
            let how = Tcp { backlog: 8, reuse_port: false, defer_accept: Duration::from_secs(seconds) };
            let socket = bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), &how).unwrap();
            socket.set_nonblocking(true).unwrap();
            let address = socket.local_addr().unwrap().as_socket().unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            assert_eq!(socket.accept().is_ok(), is_seen, "{seconds} s");
            client.write_all(b"hello").unwrap();
            if !is_seen {
                socket.set_nonblocking(false).unwrap();
                socket.accept().unwrap();
            }
        }
    }

    /// A SYN is under way, or has been answered already.
    fn begin_to_connect(address: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address.into());
        socket
    }

    /// Of two sockets on one address the first one closes while clients connect.
    fn nobody_is_reset_when_one_of_two_sockets_closes<H: Host>() {
        const CLIENTS: usize = 64;
        let how = Tcp { backlog: 128, reuse_port: true, defer_accept: Duration::ZERO };
        let first = bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), &how).unwrap();
        let address = first.local_addr().unwrap().as_socket().unwrap();
        let second = TcpListener::from(bind_tcp(address, &how).unwrap());
        let greeter = std::thread::spawn(move || {
            for _ in 0..CLIENTS {
                second.accept().unwrap().0.write_all(b"!").unwrap();
            }
        });
        H::block_on(async {
            let leaving = H::listen(Bound::Tcp(first.into())).unwrap();
            assert!(leaving.turn_away().unwrap());
            let clients: Vec<_> = (0..CLIENTS).map(|_| begin_to_connect(address)).collect();
            assert!(clients.iter().any(|client| client.peer_addr().is_err()), "the kernel shares them out");
            {
                let mut accepting = std::pin::pin!(leaving.accept());
                let is_pending = poll_fn(|context| Poll::Ready(accepting.as_mut().poll(context).is_pending())).await;
                assert!(is_pending, "nobody has come here");
            }
            drop(leaving);
            for mut client in clients {
                client.set_nonblocking(false).unwrap();
                assert_eq!(client.read(&mut [0]).expect("nobody is reset"), 1);
            }
        })
        .unwrap();
        greeter.join().unwrap();
    }

    #[test]
    #[cfg(feature = "tokio")]
    fn nobody_is_reset_by_tokio() {
        nobody_is_reset_when_one_of_two_sockets_closes::<gprxy_tokio::Tokio>();
    }

    #[test]
    #[cfg(feature = "smol")]
    fn nobody_is_reset_by_smol() {
        nobody_is_reset_when_one_of_two_sockets_closes::<gprxy_smol::Smol>();
    }
}

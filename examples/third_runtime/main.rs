//! A third runtime: what gprxy needs of an executor that is neither tokio nor smol.
//!
//! `cargo run -p gprxy-examples --example third_runtime -- 127.0.0.1:7777 127.0.0.1:5432` serves a whole gprxy with it
//! (pools, cancels and all) to people who log in with PostgreSQL passwords of their own.
//! `cargo test -p gprxy-examples --test third_runtime` holds it to the suite that tokio and smol pass.
//!
//! The executor itself is in `executor.rs`, and yours would be there in its place. This file is what has to be written: a
//! socket, a listener, an alarm, signals, and the two traits that name them.

pub(crate) mod executor;

use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use executor::{Source, Timer, Way};
use futures_io::{AsyncRead, AsyncWrite};
use gprxy_proto::auth::jwks::{KeySetLimits, KeySets};
use gprxy_proto::driver::host::{Bound, Host, Signal, Signals};
use gprxy_proto::driver::runtime::{Alarm, Caller, Listener, Runtime};
use gprxy_proto::driver::shared::{Parts, Shared};
use gprxy_proto::driver::{clock, entropy::SystemEntropy, serve::serve};
use gprxy_proto::hub::Hub;
use gprxy_proto::policy::{Database, Databases, Endpoint, SocketOptions};
use gprxy_proto::session::Profile;
use gprxy_proto::time::{Now, Tick};
use rustix::net::{AddressFamily, sockopt};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// A connected socket. To read(2), write(2) and shutdown(2) TCP is no different from a Unix socket.
pub(crate) struct Socket(Source<UnixStream>);

impl Socket {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(Source::new(stream)))
    }

    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Self::new(OwnedFd::from(stream).into())
    }

    fn tune(&self, options: &SocketOptions) -> io::Result<()> {
        let socket = &self.0.io;
        if sockopt::socket_domain(socket)? == AddressFamily::UNIX {
            return Ok(());
        }
        sockopt::set_socket_keepalive(socket, options.keepalive)?;
        if let Some(time) = options.keepidle {
            sockopt::set_tcp_keepidle(socket, time)?;
        }
        if let Some(interval) = options.keepintvl {
            sockopt::set_tcp_keepintvl(socket, interval)?;
        }
        if let Some(times) = options.keepcnt {
            sockopt::set_tcp_keepcnt(socket, times)?;
        }
        if let Some(timeout) = options.user_timeout {
            sockopt::set_tcp_user_timeout(socket, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?;
        }
        if let Some(size) = options.buffer {
            sockopt::set_socket_send_buffer_size(socket, size)?;
            sockopt::set_socket_recv_buffer_size(socket, size)?;
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.attempt(Way::In, context, |mut io| io.read(buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.attempt(Way::Out, context, |mut io| io.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.0.io.shutdown(Shutdown::Write) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

/// A listening socket of one worker.
pub(crate) enum Door {
    Tcp(Source<TcpListener>),
    Unix(Source<UnixListener>),
}

impl Listener for Door {
    type Socket = Socket;

    async fn accept(&self) -> io::Result<(Socket, Caller)> {
        match self {
            Self::Tcp(door) => {
                let accept = poll_fn(|context| door.attempt(Way::In, context, TcpListener::accept));
                let (stream, peer) = accept.await?;
                Ok((Socket::tcp(stream)?, Caller::tcp(peer)))
            }
            Self::Unix(door) => {
                let accept = poll_fn(|context| door.attempt(Way::In, context, UnixListener::accept));
                let stream = accept.await?.0;
                let uid = sockopt::socket_peercred(&stream).ok().map(|peer| peer.uid.as_raw());
                Ok((Socket::new(stream)?, Caller::unix(uid)))
            }
        }
    }
}

impl Alarm for Timer {
    fn set(&mut self, at: Option<Tick>) {
        Timer::set(self, at);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Timer::poll(self, context)
    }
}

/// A pipe for each signal, into which its handler writes.
pub(crate) struct Pipes(Vec<(Signal, Source<UnixStream>)>);

impl Signals for Pipes {
    fn install() -> io::Result<Self> {
        let pipe = |signal, number| {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(number, theirs)?;
            io::Result::Ok((signal, Source::new(ours)))
        };
        let numbers = [
            (Signal::Hangup, SIGHUP),
            (Signal::Interrupt, SIGINT),
            (Signal::Terminate, SIGTERM),
            (Signal::Quit, SIGQUIT),
            (Signal::User1, SIGUSR1),
            (Signal::User2, SIGUSR2),
        ];
        numbers.into_iter().map(|(signal, number)| pipe(signal, number)).collect::<io::Result<_>>().map(Self)
    }

    async fn next(&mut self) -> Signal {
        let next = poll_fn(|context| {
            let has_come =
                |pipe: &Source<_>| pipe.attempt(Way::In, context, |mut io: &UnixStream| io.read(&mut [0; 64]));
            let come = self.0.iter().find(|(_, pipe)| has_come(pipe).is_ready());
            come.map_or(Poll::Pending, |(signal, _)| Poll::Ready(*signal))
        });
        next.await
    }
}

/// The runtime, as the driver sees it.
#[derive(Clone, Copy)]
pub(crate) struct Polled;

impl Runtime for Polled {
    type Socket = Socket;
    type Alarm = Timer;

    fn now() -> Now {
        clock::now()
    }

    fn alarm() -> Timer {
        Timer::new()
    }

    async fn connect(endpoint: Endpoint) -> io::Result<Socket> {
        Self::blocking(move || match endpoint {
            Endpoint::Tcp { host, port } => Socket::tcp(TcpStream::connect((&*host, port))?),
            Endpoint::Unix(path) => Socket::new(UnixStream::connect(&*path)?),
        })
        .await
    }

    fn tune(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
        socket.tune(options)
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        executor::spawn(future);
    }

    async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        executor::blocking(call).await
    }
}

impl Host for Polled {
    type Listener = Door;
    type Signals = Pipes;

    fn listen(bound: Bound) -> io::Result<Door> {
        Ok(match bound {
            Bound::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Door::Tcp(Source::new(listener))
            }
            Bound::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Door::Unix(Source::new(listener))
            }
        })
    }

    fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
        Ok(executor::block_on(future))
    }

    fn start_worker<F>(index: usize, make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
    where
        F: Future<Output = ()>,
    {
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let ended = Self::block_on(async { make().await });
            ended.expect("nothing has to be set up");
        })
    }
}

/// Serves whoever comes, at one server for every database.
pub(crate) fn run(listener: TcpListener, server: Endpoint) -> Result<(), Box<dyn std::error::Error>> {
    let databases = Databases::new([(Databases::ANY.into(), Database::new([server]))]);
    let profile = Profile { password_fallback: true, databases, ..Profile::default() };
    let keys = KeySets::new(Vec::new(), KeySetLimits::default(), clock::now())?;
    let hub = Hub::new(keys, &profile.limits, Box::new(SystemEntropy::new()));
    let parts = Parts::new(profile, hub, ureq::Agent::new_with_defaults());
    Polled::block_on(async {
        let shared = Shared::<Polled>::new(parts);
        Polled::spawn(shared.clone().keep());
        serve(shared, Polled::listen(Bound::Tcp(listener))?).await;
        Ok(())
    })?
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let [listen, server] = &addresses[..] else { return Err("usage: third_runtime LISTEN SERVER".into()) };
    let (host, port) = server.rsplit_once(':').ok_or("SERVER is HOST:PORT")?;
    run(TcpListener::bind(listen)?, Endpoint::Tcp { host: host.into(), port: port.parse()? })
}

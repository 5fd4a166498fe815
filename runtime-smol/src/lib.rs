//! gprxy on smol: sockets, timers, spawn and blocking calls, nothing else.
//!
//! Every worker is an executor of its own; a session's client and server sockets are driven by the same task. The
//! sockets of all workers are watched by one reactor, that of `async-io`: whichever worker has nothing to do polls it.

mod alarm;
mod listener;
mod signals;
mod socket;
mod worker;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use gprxy_proto::driver::clock;
use gprxy_proto::driver::host::{Bound, Host};
use gprxy_proto::driver::runtime::Runtime;
use gprxy_proto::policy::{Endpoint, SocketOptions};
use gprxy_proto::time::Now;

pub use alarm::SmolAlarm;
pub use listener::SmolListener;
pub use signals::Signals;
pub use socket::SmolSocket;

/// The smol runtime, as the driver sees it.
#[derive(Clone, Copy, Debug)]
pub struct Smol;

impl Runtime for Smol {
    type Socket = SmolSocket;
    type Alarm = SmolAlarm;

    fn now() -> Now {
        clock::now()
    }

    fn alarm() -> SmolAlarm {
        SmolAlarm::default()
    }

    async fn connect(endpoint: Endpoint) -> io::Result<SmolSocket> {
        SmolSocket::connect(endpoint).await
    }

    fn tune(socket: &SmolSocket, options: &SocketOptions) -> io::Result<()> {
        socket.tune(options)
    }

    fn local_address(socket: &SmolSocket) -> Option<SocketAddr> {
        socket.local_address()
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        worker::spawn(future);
    }

    async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        smol::unblock(call).await
    }
}

impl Host for Smol {
    type Listener = SmolListener;
    type Signals = Signals;

    fn listen(bound: Bound) -> io::Result<SmolListener> {
        SmolListener::new(bound)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
        Ok(worker::block_on(future))
    }

    fn start_worker<F>(index: usize, make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
    where
        F: Future<Output = ()>,
    {
        worker::start_worker(index, make)
    }
}

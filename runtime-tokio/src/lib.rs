//! gprxy on tokio: sockets, timers, spawn and blocking calls, nothing else.
//!
//! Every worker is a current-thread runtime of its own; a session's client and server sockets are driven by the same
//! task, so no message crosses threads.

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

pub use alarm::TokioAlarm;
pub use listener::TokioListener;
pub use signals::Signals;
pub use socket::TokioSocket;

/// The tokio runtime, as the driver sees it.
#[derive(Clone, Copy, Debug)]
pub struct Tokio;

impl Runtime for Tokio {
    type Socket = TokioSocket;
    type Alarm = TokioAlarm;

    fn now() -> Now {
        clock::now()
    }

    fn alarm() -> TokioAlarm {
        TokioAlarm::default()
    }

    async fn connect(endpoint: Endpoint) -> io::Result<TokioSocket> {
        TokioSocket::connect(&endpoint).await
    }

    fn tune(socket: &TokioSocket, options: &SocketOptions) -> io::Result<()> {
        socket.tune(options)
    }

    fn local_address(socket: &TokioSocket) -> Option<SocketAddr> {
        socket.local_address()
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(future);
    }

    async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        match tokio::task::spawn_blocking(call).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Blocking calls are only cancelled when the runtime is shut down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Host for Tokio {
    type Listener = TokioListener;
    type Signals = Signals;

    fn listen(bound: Bound) -> io::Result<TokioListener> {
        TokioListener::new(bound)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
        worker::block_on(future)
    }

    fn start_worker<F>(index: usize, make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
    where
        F: Future<Output = ()>,
    {
        worker::start_worker(index, make)
    }
}

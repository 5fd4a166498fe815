//! What the operator tells a running process.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use gprxy_proto::driver::host::{self, Signal};
use tokio::signal::unix::{self, SignalKind};

/// Waits for signals.
#[derive(Debug)]
pub struct Signals([(Signal, unix::Signal); 6]);

impl host::Signals for Signals {
    fn install() -> io::Result<Self> {
        Ok(Self([
            (Signal::Hangup, unix::signal(SignalKind::hangup())?),
            (Signal::Interrupt, unix::signal(SignalKind::interrupt())?),
            (Signal::Terminate, unix::signal(SignalKind::terminate())?),
            (Signal::Quit, unix::signal(SignalKind::quit())?),
            (Signal::User1, unix::signal(SignalKind::user_defined1())?),
            (Signal::User2, unix::signal(SignalKind::user_defined2())?),
        ]))
    }

    async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (name, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
    }
}

//! What the operator tells a running process.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{self, SignalKind};

/// The signals that mean something to gprxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// Waits for signals.
#[derive(Debug)]
pub struct Signals([(Signal, unix::Signal); 3]);

impl Signals {
    /// From here on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self([
            (Signal::Hangup, unix::signal(SignalKind::hangup())?),
            (Signal::Interrupt, unix::signal(SignalKind::interrupt())?),
            (Signal::Terminate, unix::signal(SignalKind::terminate())?),
        ]))
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
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

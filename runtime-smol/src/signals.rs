//! What the operator tells a running process.

use std::io;

use async_signal::Signal as Caught;
use gprxy_proto::driver::host::{self, Signal};
use smol::stream::StreamExt as _;

/// Waits for signals.
#[derive(Debug)]
pub struct Signals(async_signal::Signals);

impl host::Signals for Signals {
    fn install() -> io::Result<Self> {
        let wanted = [Caught::Hup, Caught::Int, Caught::Term, Caught::Quit, Caught::Usr1, Caught::Usr2];
        async_signal::Signals::new(wanted).map(Self)
    }

    async fn next(&mut self) -> Signal {
        loop {
            match self.0.next().await {
                Some(Ok(Caught::Hup)) => return Signal::Hangup,
                Some(Ok(Caught::Int)) => return Signal::Interrupt,
                Some(Ok(Caught::Term)) => return Signal::Terminate,
                Some(Ok(Caught::Quit)) => return Signal::Quit,
                Some(Ok(Caught::Usr1)) => return Signal::User1,
                Some(Ok(Caught::Usr2)) => return Signal::User2,
                // Nothing else was asked for.
                Some(Ok(_)) => {}
                // The pipe that signals come through is broken, and no other comes. Without it the process could not
                // be told to end: it ends in order while it can.
                Some(Err(_)) | None => return Signal::Terminate,
            }
        }
    }
}

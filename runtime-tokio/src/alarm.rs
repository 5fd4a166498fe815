//! A timer that can be set again.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use gprxy_proto::driver::clock;
use gprxy_proto::driver::runtime::Alarm;
use gprxy_proto::time::Tick;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer on tokio's wheel; it is there only while it is set.
#[derive(Debug, Default)]
pub struct TokioAlarm(Option<Pin<Box<Sleep>>>);

impl Alarm for TokioAlarm {
    fn set(&mut self, at: Option<Tick>) {
        let at = at.map(|tick| Instant::from_std(clock::instant(tick)));
        match (&mut self.0, at) {
            (Some(sleep), Some(at)) => sleep.as_mut().reset(at),
            (slot, at) => *slot = at.map(|at| Box::pin(sleep_until(at))),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.0 else { return Poll::Pending };
        let result = sleep.as_mut().poll(context);
        if result.is_ready() {
            self.0 = None;
        }
        result
    }
}

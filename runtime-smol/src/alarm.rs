//! A timer that can be set again.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use async_io::Timer;
use gprxy_proto::driver::clock;
use gprxy_proto::driver::runtime::Alarm;
use gprxy_proto::time::Tick;

/// A timer in the reactor; it is there only while it is set.
///
/// Setting one anew wakes the reactor. Deadlines mostly move away, so such a move leaves the timer as it is: when it
/// rings too early, it is set for the rest.
#[derive(Debug, Default)]
pub struct SmolAlarm(Option<Armed>);

#[derive(Debug)]
struct Armed {
    /// When it is to ring.
    at: Instant,
    /// When the timer does, not later.
    timer_at: Instant,
    timer: Timer,
}

impl Alarm for SmolAlarm {
    fn set(&mut self, at: Option<Tick>) {
        let Some(at) = at.map(clock::instant) else {
            self.0 = None;
            return;
        };
        match &mut self.0 {
            Some(armed) => {
                armed.at = at;
                if at < armed.timer_at {
                    armed.rearm();
                }
            }
            none => *none = Some(Armed { at, timer_at: at, timer: Timer::at(at) }),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(armed) = &mut self.0 else { return Poll::Pending };
        loop {
            ready!(Pin::new(&mut armed.timer).poll(context));
            if armed.timer_at == armed.at {
                self.0 = None;
                return Poll::Ready(());
            }
            armed.rearm();
        }
    }
}

impl Armed {
    fn rearm(&mut self) {
        self.timer_at = self.at;
        self.timer.set_at(self.at);
    }
}

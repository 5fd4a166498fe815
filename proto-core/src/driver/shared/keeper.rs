//! The task that keeps the hub's deadlines.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::Shared;
use crate::driver::mailbox::lock;
use crate::driver::runtime::{Alarm, Runtime};
use crate::hub::Hub;
use crate::time::Deadline;

impl<R: Runtime> Shared<R> {
    /// Keeps the hub's deadlines. One task per process runs this for ever.
    pub async fn keep(self: Arc<Self>) {
        let mut alarm = R::alarm();
        let mut set = None;
        self.with_hub(Hub::handle_timeout);
        self.stand();
        std::future::poll_fn(|context| self.poll_keep(context, &mut alarm, &mut set)).await
    }

    fn poll_keep(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        alarm: &mut R::Alarm,
        set: &mut Option<Deadline>,
    ) -> Poll<()> {
        self.keeper.register(context.waker());
        loop {
            let next = {
                let hub = lock(&self.hub);
                let next = hub.poll_timeout();
                // Under the hub's lock: whoever changes the deadlines next compares with this.
                self.keeper_set.store(next.map_or(u64::MAX, |deadline| deadline.at.as_nanos()), Ordering::Release);
                next
            };
            if next != *set {
                *set = next;
                alarm.set(next.map(|deadline| deadline.at));
            }
            if next.is_none() || alarm.poll(context).is_pending() {
                return Poll::Pending;
            }
            *set = None;
            self.with_hub(|hub, now| hub.handle_timeout(now));
            // A round of fetches may have ended by its time limit: its own task has nothing to tell, or is no more.
            self.tell_key_waiters();
        }
    }
}

//! The end of a process: sessions end, what they left running is cancelled, the audit trail is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use super::Shared;
use crate::driver::mailbox::{Mail, lock};
use crate::driver::runtime::Runtime;
use crate::fault::{Refusal, SqlState};

/// How long the last audit records may take to be written.
const AUDIT_CLOSING: Duration = Duration::from_secs(10);

/// A server connection on its way back; the drain waits for it.
pub(in crate::driver) struct Returning<R: Runtime>(Arc<Shared<R>>);

impl<R: Runtime> Drop for Returning<R> {
    fn drop(&mut self) {
        self.0.returning.fetch_sub(1, Ordering::AcqRel);
        if self.0.is_closed() {
            self.0.wake_watchers();
        }
    }
}

/// Somebody waits for what the hub's state must become.
struct Watching<'a>(&'a AtomicUsize);

impl<'a> Watching<'a> {
    fn new(watched: &'a AtomicUsize) -> Self {
        watched.fetch_add(1, Ordering::AcqRel);
        Self(watched)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Clients come to a listener until this is dropped.
pub(in crate::driver) struct Accepting<R: Runtime>(Arc<Shared<R>>);

impl<R: Runtime> Drop for Accepting<R> {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::AcqRel);
        self.0.wake_watchers();
    }
}

impl<R: Runtime> Shared<R> {
    /// Whether the process is being stopped.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether nobody is let in any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Nobody is accepted any more, but for those who have connected already; sessions go on.
    pub fn stop_accepting(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake_watchers();
    }

    /// Nobody gets a server connection, until [`Self::resume`].
    pub fn pause(self: &Arc<Self>) {
        self.with_hub(|hub, now| hub.pools.pause(None, now));
    }

    /// Nobody gets a server connection any more: who needs one is refused.
    pub fn close_pools(self: &Arc<Self>) {
        self.with_hub(|hub, now| hub.pools.close(now));
    }

    /// Ends [`Self::pause`].
    pub fn resume(self: &Arc<Self>) {
        self.with_hub(|hub, now| hub.pools.resume(None, now));
    }

    /// Server connections that are not idle.
    #[must_use]
    pub fn leased(&self) -> usize {
        lock(&self.hub).pools.leased(None)
    }

    /// Sessions end as soon as nothing runs in them.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.closed.store(true, Ordering::Release);
        self.wake_watchers();
        for mailbox in self.all_mailboxes() {
            mailbox.put(Mail::Drain);
        }
    }

    pub(super) fn wake_watchers(&self) {
        for waker in lock(&self.watchers).drain(..) {
            waker.wake();
        }
    }

    /// Resolves when nobody is accepted any more.
    pub async fn accepting_ended(&self) {
        self.watch(|| self.is_closed()).await;
    }

    /// Clients come to one more listener until this is dropped.
    pub(in crate::driver) fn begin_accepting(self: &Arc<Self>) -> Accepting<R> {
        self.accepting.fetch_add(1, Ordering::AcqRel);
        Accepting(self.clone())
    }

    /// Resolves when the last clients have come who had connected before nobody was to be accepted any more.
    pub async fn arrivals_ended(&self) {
        self.watch(|| self.accepting.load(Ordering::Acquire) == 0).await;
    }

    /// Resolves when sessions are told to end.
    pub async fn draining_begun(&self) {
        self.watch(|| self.is_draining()).await;
    }

    /// A server connection is on its way back until this is dropped; begun before its session departs.
    pub(in crate::driver) fn begin_return(self: &Arc<Self>) -> Returning<R> {
        self.returning.fetch_add(1, Ordering::AcqRel);
        Returning(self.clone())
    }

    /// Resolves when no session is left, and what the last ones left running is cancelled.
    pub async fn emptied(&self) {
        self.watch(|| self.sessions() == 0 && self.returning.load(Ordering::Acquire) == 0).await;
    }

    /// Resolves when nobody is left, not even at the console.
    pub async fn deserted(&self) {
        self.watch(|| self.everybody() == 0 && self.returning.load(Ordering::Acquire) == 0).await;
    }

    /// Resolves when that is so; it is looked at whenever something changes in the hub.
    pub(in crate::driver) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let _watching = Watching::new(&self.watched);
        self.watch(|| is_so(self)).await;
    }

    async fn watch(&self, is_so: impl Fn() -> bool) {
        std::future::poll_fn(|context| {
            let mut watchers = lock(&self.watchers);
            if is_so() {
                return Poll::Ready(());
            }
            if !watchers.iter().any(|waker| waker.will_wake(context.waker())) {
                watchers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Sessions end now.
    pub fn kill_all(&self) {
        for mailbox in self.all_mailboxes() {
            mailbox.put(Mail::Kill(Refusal::new(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command: gprxy is shutting down",
            )));
        }
    }

    /// Closes all idle server connections.
    pub fn close_idle(self: &Arc<Self>) {
        self.with_hub(|hub, _| hub.pools.close_idle(None));
    }

    /// Opens the audit file anew, for rotation.
    pub fn reopen_audit(&self) {
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
    }

    /// Writes what is left of the audit trail.
    pub fn close_audit(&self) {
        if let Some(audit) = &self.audit {
            audit.close(AUDIT_CLOSING);
        }
    }
}

//! SUSPEND: nothing is read of anybody any more, and what was read is written out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use super::Shared;
use crate::driver::mailbox::{Mail, lock};
use crate::driver::runtime::Runtime;

/// Held by each session until its bytes are out.
pub(in crate::driver) struct Unwritten {
    left: Arc<AtomicUsize>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.left.fetch_sub(1, Ordering::AcqRel);
        (self.wake)();
    }
}

/// Whether all of them are.
pub(in crate::driver) struct Flushed(Arc<AtomicUsize>);

impl Flushed {
    pub(in crate::driver) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

impl<R: Runtime> Shared<R> {
    /// Whether nothing is read.
    pub(in crate::driver) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }

    /// Whether some database is paused.
    pub(in crate::driver) fn any_paused(&self) -> bool {
        let terms = self.terms();
        let hub = lock(&self.hub);
        terms.profile.databases.entries().any(|(name, _)| hub.pools.is_paused(Some(name)))
    }

    /// Whether a connection of this database, or of any, is only still there because a session has it.
    pub(in crate::driver) fn any_stale(&self, database: Option<&str>) -> bool {
        let hub = lock(&self.hub);
        let mut servers = hub.pools.servers();
        servers.any(|server| server.stale && database.is_none_or(|name| *server.key.database == *name))
    }

    /// Connections of this database, or of any, that are not idle.
    pub(in crate::driver) fn leased_of(&self, database: Option<&str>) -> usize {
        lock(&self.hub).pools.leased(database)
    }

    /// Sessions read nothing any more, and say when their bytes are out.
    pub(in crate::driver) fn suspend_reading(self: &Arc<Self>) -> Flushed {
        let left = Arc::new(AtomicUsize::new(0));
        let present = lock(&self.present);
        self.suspended.store(true, Ordering::Release);
        for present in present.values() {
            left.fetch_add(1, Ordering::AcqRel);
            let shared: Weak<Self> = Arc::downgrade(self);
            let wake = Box::new(move || {
                if let Some(shared) = shared.upgrade() {
                    shared.wake_watchers();
                }
            });
            present.mailbox.put(Mail::Suspend(Some(Unwritten { left: left.clone(), wake })));
        }
        Flushed(left)
    }

    /// Sessions read again. `false`: they did already.
    pub(in crate::driver) fn resume_reading(&self) -> bool {
        if !self.suspended.swap(false, Ordering::AcqRel) {
            return false;
        }
        for mailbox in self.all_mailboxes() {
            mailbox.put(Mail::Resume);
        }
        true
    }
}

//! What other tasks tell a session.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use atomic_waker::AtomicWaker;

use super::shared::Unwritten;
use crate::fault::Refusal;
use crate::pool::{How, Lease};

/// A message to a session's task.
pub(super) enum Mail {
    /// Its turn has come.
    Granted(Lease, How),
    /// There will be no server connection.
    Refused(Refusal),
    /// Something to tell the person who waits.
    Notice(Refusal),
    /// The keys of some issuer may have been fetched, or it is known that they cannot be.
    KeysFetched,
    /// Its own cancel key was used while it waited.
    Cancel,
    /// End when nothing runs.
    Drain,
    /// End when no transaction runs: its server connection is to be closed.
    Stale,
    /// End now.
    Kill(Refusal),
    /// Read nothing more, and drop this when all is written.
    Suspend(Option<Unwritten>),
    /// Read again.
    Resume,
}

/// One session's letter box.
#[derive(Default)]
pub(super) struct Mailbox {
    full: AtomicBool,
    letters: Mutex<Vec<Mail>>,
    waker: AtomicWaker,
}

impl Mailbox {
    pub(super) fn put(&self, mail: Mail) {
        lock(&self.letters).push(mail);
        self.full.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Lets the task look again.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// From here on this task is woken by mail.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Everything that has come, oldest first. An empty box costs one load.
    pub(super) fn take(&self) -> Vec<Mail> {
        if self.full.load(Ordering::Acquire) && self.full.swap(false, Ordering::AcqRel) {
            std::mem::take(&mut *lock(&self.letters))
        } else {
            Vec::new()
        }
    }
}

/// Locks, also behind a thread that panicked: what these locks guard is consistent after every statement.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

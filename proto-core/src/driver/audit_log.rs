//! The audit log: a bounded queue of records, and the thread that writes them.
//!
//! A statement's record is made when the statement is over, and then it must find room: what has run cannot be refused
//! any more. So room is reserved first, with [`AuditLog::try_reserve`], and a [`Permit`] is the proof of it.
//!
//! ```text
//!   try_reserve ──▶ Permit ──▶ (the statement runs) ──▶ Permit::record ──▶ queue ──▶ writer thread ──▶ AuditSink
//!        │             └─ dropped: the slot is free again
//!        └─ AuditDown: nothing may run (OnFailure::Refuse)
//! ```
//!
//! Sessions only move a record into the queue; it is serialised and written by the thread. When the sink fails, the
//! thread keeps what it has and tries again: a record that was accepted is lost only with the process, or when
//! [`AuditLog::close`] runs out of time.

mod writer;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::audit::{AuditDown, OnFailure, Record};

/// Where the lines go: a file, or standard output.
pub trait AuditSink: Send {
    /// Writes a part of `bytes`, from its start, and says how much. What is left is offered again, so a short write
    /// tears no line.
    ///
    /// # Errors
    /// Whatever the file says; the bytes are offered again later.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Hands on what the sink itself holds back. Called when there is nothing more to write at the moment.
    ///
    /// # Errors
    /// As for `write`.
    fn flush(&mut self) -> io::Result<()>;

    /// Opens the file again under its name, after somebody has moved it away.
    ///
    /// # Errors
    /// When that is not possible; the sink then goes on with the file that it has.
    fn reopen(&mut self) -> io::Result<Reopened>;
}

/// What came of reopening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reopened {
    /// Another file: a line of which only a part was written before is written again from its start.
    Other,
    /// The same file, or a sink that cannot be reopened: such a line is continued.
    Same,
}

/// Bounds and behaviour of an [`AuditLog`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What happens when records cannot be written.
    pub on_failure: OnFailure,
    /// Records waiting and permits given out, together. It has to exceed the number of clients, each of which may be
    /// in the middle of a statement.
    pub max_records: usize,
    /// Bytes of waiting records at which no more permits are given out. Those that are out may still add theirs.
    pub max_bytes: usize,
    /// How long the writer collects records before it writes them. One wake-up and one write then serve many.
    pub linger: Duration,
    /// The pause after a failed write; it doubles with each further failure, up to `max_retry`.
    pub min_retry: Duration,
    /// The longest pause between two tries.
    pub max_retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            on_failure: OnFailure::default(),
            max_records: 65_536,
            max_bytes: 64 << 20,
            linger: Duration::from_millis(5),
            min_retry: Duration::from_millis(100),
            max_retry: Duration::from_secs(5),
        }
    }
}

/// The handle of an audit log. Clones share one log; with the last of them, and of its permits, the writer ends.
#[derive(Clone)]
pub struct AuditLog {
    handle: Arc<Handle>,
}

/// The right to record one event. Dropping it unused gives the slot back.
#[must_use = "a statement runs only with a permit that is kept for its record"]
pub struct Permit {
    log: AuditLog,
    /// False with [`OnFailure::Count`] when there was no room at the time.
    slot: bool,
}

/// Numbers for metrics and for tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Records that were written.
    pub written: u64,
    /// Records that were lost.
    pub dropped: u64,
    /// Records that wait, and permits that are out.
    pub reserved: usize,
    /// Whether the last write failed.
    pub failing: bool,
}

/// Closes the queue when the last handle is gone; the writer itself holds only the [`Shared`] part.
struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    /// Slots that are taken: by permits, by waiting records, and by those that are being written.
    reserved: AtomicUsize,
    /// Bytes of the waiting records and of those that are being written.
    bytes: AtomicUsize,
    failing: AtomicBool,
    closed: AtomicBool,
    dropped: AtomicU64,
    /// Drops since the queue was last empty and healthy.
    dropped_lately: AtomicU64,
    queue: Mutex<Queue>,
    /// The writer has something to do.
    work: Condvar,
    /// The writer has done something.
    progress: Condvar,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Record>,
    /// Records that ever entered the queue, and of these, those that were written.
    accepted: u64,
    written: u64,
    /// The writer sleeps until `work` is signalled.
    idle: bool,
    /// Somebody waits: do not linger.
    hurry: bool,
    reopen: bool,
    closing: bool,
    abandon: bool,
    writer_gone: bool,
}

/// Waiting records at which the writer stops lingering.
const BATCH_RECORDS: usize = 1024;

impl AuditLog {
    /// Starts the writer thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(sink: impl AuditSink + 'static, settings: Settings) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            settings,
            reserved: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            dropped_lately: AtomicU64::new(0),
            queue: Mutex::new(Queue { records: VecDeque::with_capacity(BATCH_RECORDS), ..Queue::default() }),
            work: Condvar::new(),
            progress: Condvar::new(),
        });
        let writer = writer::Writer::new(shared.clone(), sink);
        std::thread::Builder::new().name("gprxy-audit".into()).spawn(move || writer.run())?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Sets room for one record aside. Neither blocks nor allocates.
    ///
    /// # Errors
    /// With [`OnFailure::Refuse`], when the record could not be written: then the statement must not run. With
    /// [`OnFailure::Count`] there is always a permit.
    pub fn try_reserve(&self) -> Result<Permit, AuditDown> {
        let shared = self.shared();
        let slot = match shared.settings.on_failure {
            OnFailure::Refuse if shared.closed.load(Ordering::Acquire) => return Err(AuditDown::Closed),
            OnFailure::Refuse if shared.failing.load(Ordering::Acquire) => return Err(AuditDown::Failing),
            OnFailure::Refuse => shared.take_slot().map(|()| true)?,
            OnFailure::Count => shared.take_slot().is_ok(),
        };
        Ok(Permit { log: self.clone(), slot })
    }

    /// Records an event for which nobody reserved room, such as a refusal. Returns whether there was room; if not, the
    /// loss is counted.
    pub fn offer(&self, record: Record) -> bool {
        Permit { log: self.clone(), slot: false }.record(record)
    }

    /// Makes the writer reopen its file before it writes the next line.
    pub fn reopen(&self) {
        let shared = self.shared();
        let mut queue = shared.lock();
        queue.reopen = true;
        queue.hurry = true;
        shared.work.notify_one();
    }

    /// Waits until all that was recorded so far is written, at most for `limit`. Returns whether it is.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        let shared = self.shared();
        let mut queue = shared.lock();
        queue.hurry = true;
        shared.work.notify_one();
        let target = queue.accepted;
        let queue = shared.wait_progress(queue, limit, |queue| queue.written < target && !queue.writer_gone);
        queue.written >= target
    }

    /// Accepts no more permits and waits until all is written, at most for `limit`. Returns the number of accepted
    /// records that were not written; these are lost.
    pub fn close(&self, limit: Duration) -> u64 {
        let shared = self.shared();
        shared.closed.store(true, Ordering::Release);
        let mut queue = shared.lock();
        queue.closing = true;
        queue.hurry = true;
        shared.work.notify_one();
        let mut queue = shared.wait_progress(queue, limit, |queue| !queue.writer_gone);
        queue.abandon = true;
        shared.work.notify_one();
        let lost = queue.accepted - queue.written;
        drop(queue);
        if lost > 0 {
            log::error!("audit: closed with {lost} records unwritten");
        }
        lost
    }

    /// The state of the log.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let shared = self.shared();
        Counters {
            written: shared.lock().written,
            dropped: shared.dropped.load(Ordering::Acquire),
            reserved: shared.reserved.load(Ordering::Acquire),
            failing: shared.failing.load(Ordering::Acquire),
        }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

impl Permit {
    /// Records the event. Never blocks on the sink. Returns false when the record was lost, which happens only to a
    /// permit that was given out without room ([`OnFailure::Count`]), or after the writer's end.
    pub fn record(mut self, record: Record) -> bool {
        let shared = self.log.shared();
        if !self.slot && shared.take_slot().is_err() {
            shared.count_drop();
            return false;
        }
        // From here on the slot is given back here, or by the writer.
        self.slot = false;
        shared.push(record)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.slot {
            self.log.shared().reserved.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that can panic runs under the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_progress<'a>(
        &self,
        queue: MutexGuard<'a, Queue>,
        limit: Duration,
        pending: impl Fn(&Queue) -> bool,
    ) -> MutexGuard<'a, Queue> {
        let waited = self.progress.wait_timeout_while(queue, limit, |queue| pending(queue));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn take_slot(&self) -> Result<(), AuditDown> {
        if self.closed.load(Ordering::Acquire) {
            return Err(AuditDown::Closed);
        }
        if self.bytes.load(Ordering::Acquire) >= self.settings.max_bytes {
            return Err(AuditDown::Full);
        }
        let one_more = |taken| (taken < self.settings.max_records).then_some(taken + 1);
        let taken = self.reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.map(|_| ()).map_err(|_| AuditDown::Full)
    }

    fn push(&self, record: Record) -> bool {
        let size = record.size();
        let mut queue = self.lock();
        if queue.writer_gone {
            drop(queue);
            self.reserved.fetch_sub(1, Ordering::AcqRel);
            self.count_drop();
            return false;
        }
        self.bytes.fetch_add(size, Ordering::AcqRel);
        queue.accepted += 1;
        queue.records.push_back(record);
        // A writer that lingers is woken only when there is enough for a write of its own.
        if queue.idle || queue.records.len() == BATCH_RECORDS {
            self.work.notify_one();
        }
        true
    }

    /// Counts a lost record, and logs the 1st, 2nd, 4th, 8th, … of a row: a flood of losses makes no flood of lines.
    fn count_drop(&self) {
        self.dropped.fetch_add(1, Ordering::AcqRel);
        let lately = self.dropped_lately.fetch_add(1, Ordering::AcqRel) + 1;
        if lately.is_power_of_two() {
            let why = if self.closed.load(Ordering::Acquire) {
                "the audit log is closed"
            } else if self.failing.load(Ordering::Acquire) {
                "the audit log cannot be written and its queue is full"
            } else {
                "they come faster than they can be written"
            };
            log::error!("audit: {lately} records lost so far: {why}");
        }
    }
}

#[cfg(test)]
mod tests;

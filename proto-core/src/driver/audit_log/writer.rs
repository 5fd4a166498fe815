//! The writer thread.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use memchr::memrchr;

use super::{AuditSink, BATCH_RECORDS, Reopened, Shared};
use crate::audit::Record;

/// Bytes of lines after which a write is due.
const WRITE_BYTES: usize = 256 * 1024;

/// What the queue asks for.
enum Step {
    Reopen,
    Write,
    Stop,
}

/// Told to stop although not all is written.
struct Abandoned;

pub(super) struct Writer<S> {
    shared: Arc<Shared>,
    sink: S,
    /// Records taken from the queue; the two buffers are swapped, so neither is allocated again.
    batch: VecDeque<Record>,
    lines: Vec<u8>,
    /// Failures in a row.
    failures: u64,
}

impl<S: AuditSink> Writer<S> {
    pub(super) fn new(shared: Arc<Shared>, sink: S) -> Self {
        let batch = VecDeque::with_capacity(BATCH_RECORDS);
        Self { shared, sink, batch, lines: Vec::with_capacity(WRITE_BYTES + WRITE_BYTES / 4), failures: 0 }
    }

    pub(super) fn run(mut self) {
        loop {
            let done = match self.wait() {
                Step::Reopen => {
                    let _ = self.reopen();
                    Ok(())
                }
                Step::Write => self.write_batch(),
                Step::Stop => return,
            };
            if let Err(Abandoned) = done {
                return;
            }
        }
    }

    /// Sleeps until there is something to do, and takes it.
    fn wait(&mut self) -> Step {
        let shared = &self.shared;
        let mut queue = shared.lock();
        loop {
            if mem::take(&mut queue.reopen) {
                return Step::Reopen;
            }
            if !queue.records.is_empty() {
                let linger = shared.settings.linger;
                let waited = shared.work.wait_timeout_while(queue, linger, |queue| {
                    !queue.hurry && !queue.closing && queue.records.len() < BATCH_RECORDS
                });
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                if queue.reopen {
                    continue;
                }
                mem::swap(&mut queue.records, &mut self.batch);
                return Step::Write;
            }
            queue.hurry = false;
            if queue.closing {
                queue.writer_gone = true;
                return Step::Stop;
            }
            queue.idle = true;
            queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle = false;
        }
    }

    /// Writes the batch in pieces of whole lines.
    fn write_batch(&mut self) -> Result<(), Abandoned> {
        while !self.batch.is_empty() {
            self.lines.clear();
            let (mut records, mut bytes) = (0, 0);
            while self.lines.len() < WRITE_BYTES
                && let Some(record) = self.batch.pop_front()
            {
                record.write_line(&mut self.lines);
                records += 1;
                bytes += record.size();
            }
            self.write_lines()?;
            self.settle(records, bytes);
        }
        // A queue that was emptied from its front goes on behind that: few records would walk through all of its memory.
        self.batch.clear();
        Ok(())
    }

    /// Gets `self.lines` out, however long it takes.
    fn write_lines(&mut self) -> Result<(), Abandoned> {
        let mut at = 0;
        loop {
            let step = if at < self.lines.len() {
                match self.sink.write(&self.lines[at..]) {
                    Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                    other => other,
                }
            } else {
                match self.sink.flush() {
                    Ok(()) => break,
                    Err(error) => Err(error),
                }
            };
            match step {
                Ok(n) => at = (at + n).min(self.lines.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.report_failure(&error);
                    if self.pause()? && self.reopen() == Some(Reopened::Other) {
                        // The other file has nothing of the line that was torn.
                        at = memrchr(b'\n', &self.lines[..at]).map_or(0, |end| end + 1);
                    }
                }
            }
        }
        if self.failures > 0 {
            log::info!("audit: written again after {} failed tries", self.failures);
            self.failures = 0;
            self.shared.failing.store(false, Ordering::Release);
        }
        Ok(())
    }

    fn report_failure(&mut self, error: &io::Error) {
        self.failures += 1;
        self.shared.failing.store(true, Ordering::Release);
        // The 1st, 2nd, 4th, … of a row, so that a full disk does not fill the log as well.
        if self.failures.is_power_of_two() {
            log::error!("audit: cannot write ({} tries so far), trying again: {error}", self.failures);
        }
    }

    /// Waits before the next try. Returns whether the sink is to be reopened first.
    fn pause(&self) -> Result<bool, Abandoned> {
        let shared = &self.shared;
        let mut queue = shared.lock();
        if !queue.reopen && !queue.abandon {
            let waited = shared.work.wait_timeout(queue, self.back_off());
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.abandon { Err(Abandoned) } else { Ok(mem::take(&mut queue.reopen)) }
    }

    fn back_off(&self) -> Duration {
        let settings = &self.shared.settings;
        let doublings = u32::try_from(self.failures.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
        settings.min_retry.saturating_mul(1 << doublings).min(settings.max_retry)
    }

    fn reopen(&mut self) -> Option<Reopened> {
        match self.sink.reopen() {
            Ok(reopened) => {
                log::info!("audit: reopened");
                Some(reopened)
            }
            Err(error) => {
                log::error!("audit: cannot reopen, going on with the file that is open: {error}");
                None
            }
        }
    }

    /// Frees the slots of what was written.
    fn settle(&self, records: usize, bytes: usize) {
        let shared = &self.shared;
        shared.bytes.fetch_sub(bytes, Ordering::AcqRel);
        shared.reserved.fetch_sub(records, Ordering::AcqRel);
        let mut queue = shared.lock();
        queue.written += records as u64;
        let caught_up = queue.records.is_empty() && self.batch.is_empty();
        drop(queue);
        shared.progress.notify_all();
        if caught_up {
            let lost = shared.dropped_lately.swap(0, Ordering::AcqRel);
            if lost > 0 {
                log::error!("audit: caught up again; {lost} records were lost meanwhile");
            }
        }
    }
}

/// However the thread ends, by a panic in the sink too: nobody waits for it any more.
impl<S> Drop for Writer<S> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.lock().writer_gone = true;
        self.shared.progress.notify_all();
        if std::thread::panicking() {
            log::error!("audit: the writer has panicked; nothing is written any more");
        }
    }
}

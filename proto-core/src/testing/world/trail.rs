//! Where a world's statements are written down.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use super::runtime::lock;
use crate::driver::audit_log::{AuditSink, Reopened};

/// An audit trail in memory, behind a gate.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Trail>);

#[derive(Default)]
struct Trail {
    bytes: Mutex<Vec<u8>>,
    blocked: Mutex<bool>,
    opened: Condvar,
}

impl Lines {
    /// Everything so far.
    pub(super) fn bytes(&self) -> Vec<u8> {
        lock(&self.0.bytes).clone()
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        *lock(&self.0.blocked) = blocked;
        self.0.opened.notify_all();
    }
}

impl AuditSink for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gate = self.0.opened.wait_while(lock(&self.0.blocked), |blocked| *blocked);
        drop(gate);
        lock(&self.0.bytes).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<Reopened> {
        Ok(Reopened::Same)
    }
}

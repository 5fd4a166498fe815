//! What is counted of a session for its operator.

use super::Relay;
use crate::codec::frontend::tag as front;

/// Counters of one session.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Parse messages of the client.
    pub(super) client_parses: u64,
    /// Those that went to a server, and gprxy's own.
    pub(super) server_parses: u64,
    binds: u64,
    /// Answers to queries of gprxy's own.
    pub(super) own_answers: u32,
}

impl Counts {
    /// A whole message of the client goes to the server.
    #[inline]
    pub(super) const fn handle_frontend(&mut self, tag: u8) {
        match tag {
            front::PARSE => {
                self.client_parses += 1;
                self.server_parses += 1;
            }
            front::BIND => self.binds += 1,
            _ => {}
        }
    }
}

impl Relay {
    /// Queries of the client that were answered, and transactions that have ended with one; both begin again at zero behind
    /// the last number.
    #[must_use]
    pub const fn completed(&self) -> (u32, u32) {
        let (answers, transactions) = self.tracker.completed();
        let own = self.counts.own_answers;
        (answers.wrapping_sub(own), transactions.wrapping_sub(own))
    }

    /// Messages of the client that prepared a statement, statements that were prepared on servers, and messages that bound
    /// one.
    #[must_use]
    pub const fn prepared(&self) -> (u64, u64, u64) {
        (self.counts.client_parses, self.counts.server_parses, self.counts.binds)
    }

    /// Statements that the session has prepared by name, where that is followed.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.pooled.as_ref().map_or(0, |pooled| pooled.statements.count() as u64)
    }
}

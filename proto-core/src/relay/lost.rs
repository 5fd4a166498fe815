//! A simple query that is skipped because of a Parse or Close of gprxy's own that went for it and failed.
//!
//! The server skips up to a Sync, and for a simple query a client sends none: it would wait for ever. So a Sync of gprxy's goes
//! behind the query, and the client gets the error, and ReadyForQuery, as of a query that fails by itself.

use super::tracker::Op;
use super::{Relay, Step};
use crate::codec::backend::tag as back;
use crate::codec::frontend::tag as front;

/// Where the relay stands with that.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lost {
    /// Nothing is lost.
    #[default]
    Nothing,
    /// Something of gprxy's own has failed, and the message that it went for is not all sent.
    Next,
    /// A query is lost, and its Sync is to be sent.
    Query,
}

impl Lost {
    /// A message of the server, in answer to this.
    pub(super) fn handle_backend(&mut self, tag: u8, answers: Option<Op>) {
        match tag {
            back::ERROR_RESPONSE if answers.is_some_and(Op::goes_for_another) => *self = Self::Next,
            back::READY_FOR_QUERY => *self = Self::Nothing,
            _ => {}
        }
    }

    /// An error has removed this operation. Whether it is a query that is lost.
    pub(super) fn handle_dropped(&mut self, op: Op) -> bool {
        let is_next = *self == Self::Next && !op.goes_for_another();
        if is_next {
            *self = if op == Op::Query { Self::Query } else { Self::Nothing };
        }
        is_next && op == Op::Query
    }
}

impl Relay {
    /// A message of the client was sent that the server skips: the query that is lost, or what its client ends by a Sync.
    pub(super) fn skipped_query(&mut self, tag: u8) -> Option<Op> {
        if self.lost != Lost::Next {
            return None;
        }
        let is_lost = self.lost.handle_dropped(if tag == front::QUERY { Op::Query } else { Op::Sync });
        is_lost.then_some(Op::Query)
    }

    /// Whether a query is lost, and all of it is sent.
    #[must_use]
    pub const fn is_sync_due(&self) -> bool {
        matches!(self.lost, Lost::Query) && !self.from_client.is_inside()
    }

    /// The Sync that goes behind a query that is lost.
    pub fn sync_for_query(&mut self) -> Option<Step> {
        if !self.is_sync_due() {
            return None;
        }
        self.lost = Lost::Nothing;
        self.tracker.handle_frontend(front::SYNC);
        if let Some(pooled) = &mut self.pooled {
            pooled.statements.handle_sync();
        }
        Some(Step::SayServer(vec![front::SYNC, 0, 0, 0, 4]))
    }
}

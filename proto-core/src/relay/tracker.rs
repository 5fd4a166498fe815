//! What the server still owes the client, and whether its protocol state is provably clean.
//!
//! Every frontend message that gets an answer is queued and leaves the queue with that answer. Three rules of
//! PostgreSQL's main loop make this exact:
//! * after an error in an extended-query message everything up to the next Sync is skipped (section 54.2.3);
//! * Sync and Flush that arrive while the server reads COPY data are ignored (section 54.2.6). Whether it still does
//!   when they arrive is known only where nothing but the Execute precedes them: bad data, or a cancel, ends a COPY at
//!   any point. A Sync of which that cannot be known confuses the book, and a confused book ends the session;
//! * an error in Sync itself (a deferred constraint) does not begin a skip: its ReadyForQuery follows.

use std::collections::VecDeque;

use crate::codec::backend::{TransactionStatus, tag as back};
use crate::codec::frontend::tag as front;

use super::pins::Pins;

mod op;

pub use op::Op;

/// What a server message meant for the operation at the head of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Nothing is decided by it.
    Nothing,
    /// A result of a simple query is complete; more may follow.
    Result,
    /// This operation got its answer.
    Done(Op),
    /// This operation failed; behind it, everything up to the next Sync was dropped.
    Failed(Op),
    /// An error that no operation caused: the server is about to end the connection.
    Unsolicited,
    /// ReadyForQuery answered this operation.
    Ready(Op),
}

/// PostgreSQL answers at least five bytes an operation and flushes every 8 KiB, so that with this many
/// unanswered operations answers are on their way: waiting for them cannot deadlock.
pub const MAX_UNANSWERED: usize = 16_384;

/// The book of what is owed.
#[derive(Debug)]
pub struct Tracker {
    ops: VecDeque<Op>,
    /// The server ignores everything up to the next Sync.
    skipping: bool,
    /// Extended-query messages have been sent since the last Sync or Query.
    unsynced: bool,
    copy_in: bool,
    copy_out: bool,
    status: TransactionStatus,
    /// Answers and questions no longer fit together: the connection must not be used again.
    confused: bool,
    /// ReadyForQuery messages, and those among them behind which no transaction was open.
    completed: (u32, u32),
}

impl Default for Tracker {
    /// Right after the ReadyForQuery of a login.
    fn default() -> Self {
        Self {
            ops: VecDeque::new(),
            skipping: false,
            unsynced: false,
            copy_in: false,
            copy_out: false,
            status: TransactionStatus::Idle,
            confused: false,
            completed: (0, 0),
        }
    }
}

impl Tracker {
    /// The status in the last ReadyForQuery.
    #[must_use]
    pub const fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Nothing is owed and nothing is half done: a transaction block may be open.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.ops.is_empty() && !self.unsynced && !self.skipping && !self.copy_in && !self.copy_out && !self.confused
    }

    /// Whether no further operation should be taken in before some are answered.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ops.len() >= MAX_UNANSWERED
    }

    /// Whether answers and questions no longer fit together.
    #[must_use]
    pub const fn is_confused(&self) -> bool {
        self.confused
    }

    /// How many ReadyForQuery messages have come, and how many of them outside of a transaction. Both begin again behind
    /// the last number.
    #[must_use]
    pub const fn completed(&self) -> (u32, u32) {
        self.completed
    }

    /// A message of gprxy itself goes to the server, between messages of the client; or one of the client's goes no
    /// further. As all of the extended protocol it comes to nothing while the server skips to a Sync.
    pub fn handle_own(&mut self, op: Op) {
        if op == Op::Own {
            self.ops.push_back(op);
            return;
        }
        self.unsynced = true;
        if !self.skipping {
            self.ops.push_back(op);
        }
    }

    /// The newest operation is one that the server will refuse, because of what it would leave behind.
    pub fn refuse_newest(&mut self, leaves: Pins) {
        match self.ops.back_mut() {
            Some(op @ Op::Query) => *op = Op::Refused(leaves),
            Some(op @ Op::Parse) => *op = Op::RefusedParse(leaves),
            _ => {}
        }
    }

    /// Whether the server ignores what it is sent up to the next Sync.
    #[must_use]
    pub const fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether something of the client's waits for an answer that will come once the server is asked for it.
    #[must_use]
    pub fn answers_to_come(&self) -> bool {
        let comes = |op: &Op| !op.is_marker() && *op != Op::Own && !op.goes_for_another();
        !self.skipping && !self.copy_in && self.ops.iter().any(comes)
    }

    /// Whether the newest operation is a query behind something of gprxy's own that may fail and have it skipped. What came
    /// behind it would be skipped as well.
    pub fn is_query_in_question(&self) -> bool {
        let mut newest = self.ops.iter().rev();
        newest.next() == Some(&Op::Query) && newest.next().is_some_and(|op| op.goes_for_another())
    }

    /// Whether the server reads COPY data.
    #[must_use]
    pub const fn is_copying_in(&self) -> bool {
        self.copy_in
    }

    /// Whether the server may keep answers to itself until it is asked for them.
    #[must_use]
    pub const fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Whether something waits for an answer that may change the settings.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Query | Op::Bind | Op::Execute | Op::FunctionCall))
    }

    /// The operation that is to be answered next.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<Op> {
        self.ops.iter().find(|op| !op.is_marker()).copied()
    }

    /// gprxy has answered a simple query in the server's place, at a moment when nothing is owed.
    pub const fn handle_query_answered(&mut self) {
        self.count_ready();
    }

    const fn count_ready(&mut self) {
        self.completed.0 = self.completed.0.wrapping_add(1);
        if matches!(self.status, TransactionStatus::Idle) {
            self.completed.1 = self.completed.1.wrapping_add(1);
        }
    }

    /// gprxy has answered what was its own to answer.
    pub fn handle_answered(&mut self) {
        if matches!(self.head(), Some(Op::AnsweredParse | Op::AnsweredClose)) {
            self.ops.pop_front();
        }
    }

    /// A whole message of the client has been forwarded. The operation that it queued, if the server will act on it.
    pub fn handle_frontend(&mut self, tag: u8) -> Option<Op> {
        let op = match tag {
            front::QUERY => Op::Query,
            front::FUNCTION_CALL => Op::FunctionCall,
            front::PARSE => Op::Parse,
            front::BIND => Op::Bind,
            front::DESCRIBE => Op::Describe,
            front::EXECUTE => Op::Execute,
            front::CLOSE => Op::Close,
            front::SYNC => return self.sync(),
            front::COPY_DATA => {
                if !self.copy_in && !self.skipping && self.ops.back().is_some_and(|op| !op.is_marker()) {
                    self.ops.push_back(Op::CopyData);
                }
                return None;
            }
            front::COPY_DONE | front::COPY_FAIL => {
                if self.copy_in {
                    self.copy_in = false;
                } else if !self.skipping && self.ops.back().is_some_and(|&op| op != Op::CopyEnd) {
                    self.ops.push_back(Op::CopyEnd);
                }
                return None;
            }
            _ => return None,
        };
        let commits = matches!(op, Op::Query | Op::FunctionCall);
        if !commits {
            self.unsynced = true;
        }
        if self.skipping {
            return None;
        }
        if commits {
            self.unsynced = false;
        }
        self.ops.push_back(op);
        Some(op)
    }

    fn sync(&mut self) -> Option<Op> {
        if self.copy_in {
            // It is ignored if the server still reads COPY data, and answered if it does not any more.
            self.confused = true;
            return None;
        }
        self.skipping = false;
        self.unsynced = false;
        self.ops.push_back(Op::Sync);
        Some(Op::Sync)
    }

    /// A whole message of the server has been forwarded. `dropped` is told of every operation that an error
    /// removes from the queue, in order.
    pub fn handle_backend(&mut self, tag: u8, body: &[u8], mut dropped: impl FnMut(Op)) -> Settled {
        match tag {
            back::DATA_ROW | back::COPY_DATA => Settled::Nothing,
            back::COMMAND_COMPLETE | back::EMPTY_QUERY_RESPONSE | back::PORTAL_SUSPENDED => {
                self.copy_out = false;
                match self.head() {
                    Some(Op::Query | Op::Own | Op::Refused(_)) => Settled::Result,
                    _ => self.settle(Op::Execute),
                }
            }
            back::READY_FOR_QUERY => self.ready(body),
            back::PARSE_COMPLETE if self.head() == Some(Op::OwnParse) => self.settle(Op::OwnParse),
            back::CLOSE_COMPLETE if self.head() == Some(Op::OwnClose) => self.settle(Op::OwnClose),
            back::PARSE_COMPLETE => self.settle(Op::Parse),
            back::BIND_COMPLETE => self.settle(Op::Bind),
            back::CLOSE_COMPLETE => self.settle(Op::Close),
            back::ROW_DESCRIPTION | back::NO_DATA => match self.head() {
                Some(Op::Query | Op::Own) => Settled::Nothing,
                _ => self.settle(Op::Describe),
            },
            back::COPY_IN_RESPONSE => {
                self.begin_copy_in();
                Settled::Nothing
            }
            back::COPY_OUT_RESPONSE => {
                self.copy_out = true;
                Settled::Nothing
            }
            back::COPY_DONE => {
                self.copy_out = false;
                Settled::Nothing
            }
            back::ERROR_RESPONSE => self.fail(&mut dropped),
            _ => Settled::Nothing,
        }
    }

    /// The oldest operation without an answer.
    fn head(&mut self) -> Option<Op> {
        while self.ops.front().is_some_and(|op| op.is_marker()) {
            self.ops.pop_front();
        }
        self.ops.front().copied()
    }

    fn settle(&mut self, expected: Op) -> Settled {
        if self.head() == Some(expected) {
            self.ops.pop_front();
            Settled::Done(expected)
        } else {
            self.confused = true;
            Settled::Nothing
        }
    }

    fn ready(&mut self, body: &[u8]) -> Settled {
        self.copy_in = false;
        self.copy_out = false;
        self.skipping = false;
        match body.first().copied().and_then(TransactionStatus::from_byte) {
            Some(status) => {
                self.status = status;
                self.count_ready();
            }
            None => self.confused = true,
        }
        match self.head() {
            Some(op @ (Op::Query | Op::FunctionCall | Op::Sync | Op::Own | Op::Refused(_))) => {
                self.ops.pop_front();
                self.head();
                Settled::Ready(op)
            }
            _ => {
                self.confused = true;
                Settled::Nothing
            }
        }
    }

    /// The server reads COPY data from here on: what came before the client's CopyDone and is a Sync gets no answer.
    fn begin_copy_in(&mut self) {
        self.copy_in = true;
        self.head();
        let mut fed = false;
        while let Some(op) = self.ops.get(1) {
            match op {
                Op::CopyData => fed = true,
                // Behind data, the COPY may have failed before it.
                Op::Sync => self.confused |= fed,
                Op::CopyEnd => self.copy_in = false,
                // Everything else ends the connection, unless an error has ended the COPY before: what follows is no
                // part of it.
                _ => {
                    self.copy_in = false;
                    break;
                }
            }
            self.ops.remove(1);
            if !self.copy_in {
                break;
            }
        }
        // An Execute that has lost its Sync is as open as before.
        let ends_transaction = |op: &Op| matches!(op, Op::Sync | Op::Query | Op::FunctionCall | Op::Refused(_));
        self.unsynced |= !self.ops.iter().any(ends_transaction);
    }

    fn fail(&mut self, dropped: &mut impl FnMut(Op)) -> Settled {
        self.copy_in = false;
        self.copy_out = false;
        match self.head() {
            None => Settled::Unsolicited,
            Some(op @ (Op::Query | Op::FunctionCall | Op::Sync | Op::Own | Op::Refused(_))) => Settled::Failed(op),
            Some(op) => {
                self.skipping = true;
                self.ops.pop_front();
                while let Some(&next) = self.ops.front() {
                    if next == Op::Sync {
                        self.skipping = false;
                        break;
                    }
                    self.ops.pop_front();
                    dropped(next);
                }
                Settled::Failed(op)
            }
        }
    }
}

#[cfg(test)]
mod tests;

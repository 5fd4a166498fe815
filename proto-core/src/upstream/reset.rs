//! Cleaning a server connection before somebody else gets it: `ROLLBACK` when it is in a transaction, then a query of the
//! operator's, then [`Discard`], then what every connection begins with, then the startup parameters of one that was opened
//! without, then a `SELECT` of a random text. With nothing
//! discarded it is a check.
//!
//! They go out together, as simple queries of their own (`DISCARD ALL` cannot run inside the implicit transaction
//! of a shared one). Only the exact replies prove that the connection is clean; at the slightest doubt it is broken,
//! and the caller closes it. The random text is what the former client cannot have foreseen: replies that it left
//! behind, however much they look like those of a reset, do not contain it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::failure::ServerError;
use super::frames::{Frame, Frames};
use super::{Parameters, remember};
use crate::codec::backend::{self, TransactionStatus, tag};
use crate::codec::{Malformed, Reader, frontend};
use crate::fault::{Lost, Violation};
use crate::time::{Deadline, Now, Timer};

mod plan;

pub use plan::{Discard, ResetPlan};

/// What a reset wants done, in this order.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
#[non_exhaustive]
pub enum ResetOutput {
    /// Send these bytes.
    Send(Vec<u8>),
    /// The end.
    Finished(ResetOutcome),
}

/// How a reset ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ResetOutcome {
    /// The connection is as good as new, apart from these parameters, which have other values now; see
    /// [`remember`].
    Clean(Parameters),
    /// The connection must be closed.
    Broken(ResetFault),
}

/// Why a connection could not be cleaned.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ResetFault {
    /// It is in a transaction: the plan had no `ROLLBACK`, or the server was still in one after it.
    NotIdle(TransactionStatus),
    /// The server answered with an error.
    Server(ServerError),
    /// It refused a query of the operator's.
    Query(ServerError),
    /// It refused startup parameters.
    Startup(ServerError),
    /// The server did what the protocol does not allow, or not as the answer to what was sent.
    Protocol(Violation),
    /// Bytes behind the last reply: they answer something that nobody asked.
    BytesBehind,
    /// More different parameters than are kept.
    TooManyParameters,
    /// The transport ended.
    Lost(Lost),
    /// It took longer than it may.
    TimedOut,
}

impl From<Violation> for ResetFault {
    fn from(violation: Violation) -> Self {
        Self::Protocol(violation)
    }
}

impl From<Malformed> for ResetFault {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.into())
    }
}

impl std::fmt::Display for ResetFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotIdle(_) => f.write_str("the server connection is still in a transaction"),
            Self::Server(error) => write!(f, "the server refused the reset: {}", error.one_line()),
            Self::Query(error) => {
                write!(f, "a query of the configuration's failed there: {}", error.one_line())
            }
            Self::Startup(error) => {
                write!(f, "startup parameters cannot be set behind a login: {}", error.one_line())
            }
            Self::Protocol(violation) => {
                write!(f, "the server broke the protocol during reset: {}", violation.describe())
            }
            Self::BytesBehind => f.write_str("the server sent more than the replies to the reset"),
            Self::TooManyParameters => f.write_str("the server reported too many parameters during reset"),
            Self::Lost(Lost::Closed) => f.write_str("the server closed the connection during reset"),
            Self::Lost(Lost::Broken) => f.write_str("the server connection broke during reset"),
            Self::TimedOut => f.write_str("the server did not finish the reset in time"),
        }
    }
}

/// The reply that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// CommandComplete with a tag that begins with this word.
    Command(&'static str),
    /// Whatever a query is answered with, up to its ReadyForQuery, outside of a transaction.
    Replies,
    /// The same, of the query with the startup parameters.
    StartupReplies,
    /// ReadyForQuery, outside of a transaction.
    Ready,
    /// The RowDescription in front of the proof.
    Description,
    /// The row with the proof.
    Proof,
}

/// The machine.
pub struct Reset {
    /// Empty when it has ended.
    due: VecDeque<Due>,
    proof: String,
    frames: Frames,
    deadline: Deadline,
    parameters: Parameters,
    /// Nothing is prepared there any more.
    deallocated: bool,
    connect_query: Option<Arc<str>>,
    startup_query: Option<Arc<str>>,
    outputs: VecDeque<ResetOutput>,
}

impl Reset {
    /// Begins with a connection whose last ReadyForQuery told this status, and that owes no other reply.
    #[must_use]
    pub fn new(status: TransactionStatus, plan: ResetPlan, timeout: Duration, now: Now) -> Self {
        let mut reset = Self {
            due: VecDeque::new(),
            proof: plan.proof.iter().map(|byte| format!("{byte:02x}")).collect(),
            frames: Frames::new(),
            deadline: Deadline { at: now.tick.after(timeout), why: Timer::ServerReset },
            parameters: Vec::new(),
            deallocated: plan.discard == Discard::All,
            connect_query: plan.connect_query,
            startup_query: plan.startup_query.filter(|query| plan.restores && !query.is_empty()),
            outputs: VecDeque::new(),
        };
        let in_transaction = status != TransactionStatus::Idle;
        if in_transaction && !plan.rollback {
            reset.finish(ResetOutcome::Broken(ResetFault::NotIdle(status)));
            return reset;
        }
        let mut bytes = Vec::new();
        if in_transaction {
            frontend::emit_query(&mut bytes, b"ROLLBACK");
            reset.due.extend([Due::Command("ROLLBACK"), Due::Ready]);
        }
        if let Some(query) = &plan.query {
            reset.query(query, &mut bytes);
        }
        match plan.discard {
            Discard::Nothing if plan.prove || !reset.due.is_empty() => {
                reset.start(&mut bytes);
                reset.prove(&mut bytes);
            }
            Discard::Nothing => {}
            Discard::All => reset.discard_all(&mut bytes),
        }
        if reset.due.is_empty() {
            reset.finish_clean();
        } else {
            reset.outputs.push_back(ResetOutput::Send(bytes));
        }
        reset
    }

    fn query(&mut self, query: &str, bytes: &mut Vec<u8>) {
        frontend::emit_query(bytes, query.as_bytes());
        self.due.push_back(Due::Replies);
    }

    fn discard_all(&mut self, bytes: &mut Vec<u8>) {
        frontend::emit_query(bytes, b"DISCARD ALL");
        self.due.extend([Due::Command("DISCARD"), Due::Ready]);
        self.connect(bytes);
        self.start(bytes);
        self.prove(bytes);
    }

    /// Everything is as it was behind the login; so must be what the operator does there.
    fn connect(&mut self, bytes: &mut Vec<u8>) {
        if let Some(query) = self.connect_query.clone() {
            self.query(&query, bytes);
        }
    }

    /// A bare connection gets what others are opened with.
    fn start(&mut self, bytes: &mut Vec<u8>) {
        if let Some(query) = self.startup_query.take() {
            frontend::emit_query(bytes, query.as_bytes());
            self.due.push_back(Due::StartupReplies);
        }
    }

    fn prove(&mut self, bytes: &mut Vec<u8>) {
        frontend::emit_query(bytes, format!("SELECT '{}'", self.proof).as_bytes());
        self.due.extend([Due::Description, Due::Proof, Due::Command("SELECT"), Due::Ready]);
    }

    /// Takes bytes from the server, chopped in any way, and says how many it took: all of them, up to the end.
    pub fn handle_input(&mut self, bytes: &[u8], _now: Now) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.due.is_empty() {
            let (used, frame) = self.frames.take(&bytes[taken..]);
            taken += used;
            let result = match frame {
                Ok(None) => Ok(()),
                Ok(Some(frame)) => self.handle_message(&frame, taken < bytes.len()),
                Err(violation) => Err(violation.into()),
            };
            if let Err(fault) = result {
                self.finish(ResetOutcome::Broken(fault));
            }
        }
        taken
    }

    /// Says that the transport has ended.
    pub fn handle_close(&mut self, how: Lost, _now: Now) {
        if !self.due.is_empty() {
            self.finish(ResetOutcome::Broken(ResetFault::Lost(how)));
        }
    }

    /// Gives up when the deadline has come. Early, late and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        if !self.due.is_empty() && now.tick >= self.deadline.at {
            self.finish(ResetOutcome::Broken(ResetFault::TimedOut));
        }
    }

    /// When `handle_timeout` has work to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        (!self.due.is_empty()).then_some(self.deadline)
    }

    /// Whether the prepared statements went with it, once it has ended well.
    #[must_use]
    pub const fn has_deallocated(&self) -> bool {
        self.deallocated
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<ResetOutput> {
        self.outputs.pop_front()
    }

    fn handle_message(&mut self, frame: &Frame, more: bool) -> Result<(), ResetFault> {
        let body = frame.body.expose().as_slice();
        match frame.tag {
            // Listening ended with the DISCARD at the latest; what still comes was meant for the former client.
            tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE => return Ok(()),
            tag::ERROR_RESPONSE => {
                let error = ServerError::new(body, None);
                return Err(match self.due.front() {
                    Some(Due::Replies) => ResetFault::Query(error),
                    Some(Due::StartupReplies) => ResetFault::Startup(error),
                    _ => ResetFault::Server(error),
                });
            }
            tag::PARAMETER_STATUS => {
                let (name, value) = backend::parameter_status(body)?;
                let room = remember(&mut self.parameters, name, value);
                return if room { Ok(()) } else { Err(ResetFault::TooManyParameters) };
            }
            tag::COMMAND_COMPLETE if self.takes_any() => {
                self.deallocated |= matches!(body, b"DISCARD ALL\0" | b"DEALLOCATE ALL\0");
                return Ok(());
            }
            tag::ROW_DESCRIPTION | tag::DATA_ROW | tag::EMPTY_QUERY_RESPONSE if self.takes_any() => return Ok(()),
            _ => {}
        }
        // The right number of replies is not enough: these must be the replies to what was sent.
        match (self.due.pop_front(), frame.tag) {
            (Some(Due::Command(word)), tag::COMMAND_COMPLETE) => {
                let mut reader = Reader::new(body);
                let command = reader.cstr()?;
                reader.finish()?;
                let fits = command.split(|&byte| byte == b' ').next() == Some(word.as_bytes());
                if fits { Ok(()) } else { Err(Violation::UnexpectedMessage(frame.tag).into()) }
            }
            (Some(Due::Ready | Due::Replies | Due::StartupReplies), tag::READY_FOR_QUERY) => {
                self.handle_ready(body, more)
            }
            (Some(Due::Description), tag::ROW_DESCRIPTION) => Ok(()),
            (Some(Due::Proof), tag::DATA_ROW) if is_row_of(body, self.proof.as_bytes()) => Ok(()),
            (_, other) => Err(Violation::UnexpectedMessage(other).into()),
        }
    }

    fn takes_any(&self) -> bool {
        matches!(self.due.front(), Some(Due::Replies | Due::StartupReplies))
    }

    fn handle_ready(&mut self, body: &[u8], more: bool) -> Result<(), ResetFault> {
        let &[status] = body else { return Err(Violation::Malformed.into()) };
        let status = TransactionStatus::from_byte(status).ok_or(Violation::Malformed)?;
        if status != TransactionStatus::Idle {
            return Err(ResetFault::NotIdle(status));
        }
        if !self.due.is_empty() {
            return Ok(());
        }
        if more {
            return Err(ResetFault::BytesBehind);
        }
        self.finish_clean();
        Ok(())
    }

    fn finish_clean(&mut self) {
        let parameters = std::mem::take(&mut self.parameters);
        self.finish(ResetOutcome::Clean(parameters));
    }

    fn finish(&mut self, outcome: ResetOutcome) {
        self.due.clear();
        self.outputs.push_back(ResetOutput::Finished(outcome));
    }
}

/// Whether a DataRow has one column with this text.
fn is_row_of(body: &[u8], text: &[u8]) -> bool {
    let mut reader = Reader::new(body);
    let header = (reader.i16(), reader.i32());
    header == (Ok(1), i32::try_from(text.len()).map_err(|_| Malformed)) && reader.rest() == text
}

#[cfg(test)]
mod tests;

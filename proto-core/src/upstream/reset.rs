//! Cleaning a server connection before somebody else gets it: `ROLLBACK` when it is in a transaction, then what the
//! [`Scope`] says, then a `SELECT` of a random text.
//!
//! They go out together. Only the exact replies prove that the connection is clean; at the slightest doubt it is broken,
//! and the caller closes it. The random text is what the former client cannot have foreseen: replies that it left
//! behind, however much they look like those of a reset, do not contain it.
//!
//! Between two identities the prepared statements of the protocol stay, since they are shared and their texts are known.
//! Those that somebody has made by SQL, perhaps inside of a function, are not: the `SELECT` counts them, and where there
//! are any, `DISCARD ALL` follows.

use std::collections::VecDeque;
use std::time::Duration;

use super::failure::ServerError;
use super::frames::{Frame, Frames};
use super::{Parameters, remember};
use crate::codec::backend::{self, TransactionStatus, tag};
use crate::codec::{Malformed, Reader, frontend};
use crate::fault::{Lost, Violation};
use crate::time::{Deadline, Now, Timer};

/// How much of a session is undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All of it: `DISCARD ALL`.
    Everything,
    /// All but prepared statements and plans: settings, roles, cursors, listening, temporary objects, sequences, advisory
    /// locks. What `DISCARD ALL` does besides (PostgreSQL manual, DISCARD).
    Identity,
}

/// What may be done to the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResetPlan {
    /// Send `ROLLBACK` when a transaction is open. Without it, such a connection is broken.
    pub rollback: bool,
    /// How much is undone; `None`: nothing.
    pub scope: Option<Scope>,
    /// Fresh random bytes: the server repeats them behind everything else.
    pub proof: [u8; 16],
}

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
    /// The connection is as good as new.
    Clean {
        /// Parameters that have other values now; see [`remember`].
        parameters: Parameters,
        /// Whether prepared statements are gone.
        statements_gone: bool,
    },
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
    /// ReadyForQuery, outside of a transaction.
    Ready,
    /// The RowDescription in front of the proof.
    Description,
    /// The row with the proof; with `counted`, also with the number of statements that were prepared by SQL.
    Proof { counted: bool },
}

/// What is undone between two identities, and the words that the tags begin with.
const IDENTITY: [(&str, &str); 7] = [
    ("SET SESSION AUTHORIZATION DEFAULT", "SET"),
    ("RESET ROLE", "RESET"),
    ("RESET ALL", "RESET"),
    ("CLOSE ALL", "CLOSE"),
    ("UNLISTEN *", "UNLISTEN"),
    ("DISCARD TEMP", "DISCARD"),
    ("DISCARD SEQUENCES", "DISCARD"),
];

/// The machine.
pub struct Reset {
    /// Empty when it has ended.
    due: VecDeque<Due>,
    /// Somebody has prepared statements by SQL.
    foreign_statements: bool,
    statements_gone: bool,
    proof: String,
    frames: Frames,
    deadline: Deadline,
    parameters: Parameters,
    outputs: VecDeque<ResetOutput>,
}

impl Reset {
    /// Begins with a connection whose last ReadyForQuery told this status, and that owes no other reply.
    #[must_use]
    pub fn new(status: TransactionStatus, plan: ResetPlan, timeout: Duration, now: Now) -> Self {
        let mut reset = Self {
            due: VecDeque::new(),
            foreign_statements: false,
            statements_gone: false,
            proof: plan.proof.iter().map(|byte| format!("{byte:02x}")).collect(),
            frames: Frames::new(),
            deadline: Deadline { at: now.tick.after(timeout), why: Timer::ServerReset },
            parameters: Vec::new(),
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
        match plan.scope {
            Some(Scope::Everything) => reset.discard_all(&mut bytes),
            Some(Scope::Identity) => reset.discard_identity(&mut bytes),
            None if in_transaction => reset.prove(&mut bytes),
            None => {}
        }
        if reset.due.is_empty() {
            reset.finish_clean();
        } else {
            reset.outputs.push_back(ResetOutput::Send(bytes));
        }
        reset
    }

    fn discard_all(&mut self, bytes: &mut Vec<u8>) {
        // On its own: it cannot run inside of the implicit transaction of a shared query.
        frontend::emit_query(bytes, b"DISCARD ALL");
        self.due.extend([Due::Command("DISCARD"), Due::Ready]);
        self.statements_gone = true;
        self.prove(bytes);
    }

    fn discard_identity(&mut self, bytes: &mut Vec<u8>) {
        let mut text = String::new();
        for (statement, word) in IDENTITY {
            text.push_str(statement);
            text.push(';');
            self.due.push_back(Due::Command(word));
        }
        let proof = &self.proof;
        text.push_str(&format!(
            "SELECT '{proof}', pg_catalog.pg_advisory_unlock_all(), (SELECT pg_catalog.count(*) FROM \
             pg_catalog.pg_prepared_statements WHERE from_sql)"
        ));
        frontend::emit_query(bytes, text.as_bytes());
        self.due.extend([Due::Description, Due::Proof { counted: true }, Due::Command("SELECT"), Due::Ready]);
    }

    fn prove(&mut self, bytes: &mut Vec<u8>) {
        frontend::emit_query(bytes, format!("SELECT '{}'", self.proof).as_bytes());
        self.due.extend([Due::Description, Due::Proof { counted: false }, Due::Command("SELECT"), Due::Ready]);
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

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<ResetOutput> {
        self.outputs.pop_front()
    }

    fn handle_message(&mut self, frame: &Frame, more: bool) -> Result<(), ResetFault> {
        let body = frame.body.expose().as_slice();
        match frame.tag {
            // Listening ended with the DISCARD at the latest; what still comes was meant for the former client.
            tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE => return Ok(()),
            tag::ERROR_RESPONSE => return Err(ResetFault::Server(ServerError::new(body, None))),
            tag::PARAMETER_STATUS => {
                let (name, value) = backend::parameter_status(body)?;
                let room = remember(&mut self.parameters, name, value);
                return if room { Ok(()) } else { Err(ResetFault::TooManyParameters) };
            }
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
            (Some(Due::Ready), tag::READY_FOR_QUERY) => self.handle_ready(body, more),
            (Some(Due::Description), tag::ROW_DESCRIPTION) => Ok(()),
            (Some(Due::Proof { counted: false }), tag::DATA_ROW) if is_row_of(body, &[&self.proof]) => Ok(()),
            (Some(Due::Proof { counted: true }), tag::DATA_ROW) if self.is_proof_and_count(body) => Ok(()),
            (_, other) => Err(Violation::UnexpectedMessage(other).into()),
        }
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
        if std::mem::take(&mut self.foreign_statements) {
            let mut bytes = Vec::new();
            self.discard_all(&mut bytes);
            self.outputs.push_back(ResetOutput::Send(bytes));
        } else {
            self.finish_clean();
        }
        Ok(())
    }

    /// The proof, the `void` of the unlocking, and a number.
    fn is_proof_and_count(&mut self, body: &[u8]) -> bool {
        self.foreign_statements = !is_row_of(body, &[&self.proof, "", "0"]);
        !self.foreign_statements || is_row_of_any_count(body, &[&self.proof, ""])
    }

    fn finish_clean(&mut self) {
        let parameters = std::mem::take(&mut self.parameters);
        self.finish(ResetOutcome::Clean { parameters, statements_gone: self.statements_gone });
    }

    fn finish(&mut self, outcome: ResetOutcome) {
        self.due.clear();
        self.outputs.push_back(ResetOutput::Finished(outcome));
    }
}

/// Whether a DataRow has these columns and no others.
fn is_row_of(body: &[u8], columns: &[&str]) -> bool {
    let mut reader = Reader::new(body);
    reader.i16().ok() == i16::try_from(columns.len()).ok()
        && has_columns(&mut reader, columns)
        && reader.rest().is_empty()
}

/// Whether a DataRow has these columns, and behind them one that is a number.
fn is_row_of_any_count(body: &[u8], columns: &[&str]) -> bool {
    let mut reader = Reader::new(body);
    if reader.i16().ok() != i16::try_from(columns.len() + 1).ok() || !has_columns(&mut reader, columns) {
        return false;
    }
    let length = reader.i32();
    let number = reader.rest();
    length.is_ok_and(|length| usize::try_from(length) == Ok(number.len()))
        && !number.is_empty()
        && number.iter().all(u8::is_ascii_digit)
}

fn has_columns(reader: &mut Reader<'_>, columns: &[&str]) -> bool {
    columns.iter().all(|column| {
        reader.i32().ok() == i32::try_from(column.len()).ok() && reader.take(column.len()) == Ok(column.as_bytes())
    })
}

#[cfg(test)]
mod tests;

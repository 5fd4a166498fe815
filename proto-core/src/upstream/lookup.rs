//! Asking a server what it keeps of a user's password: PgBouncer's `auth_query`.
//!
//! ```text
//!  Parse Bind Describe Execute Sync ──▶
//!  ◀── ParseComplete BindComplete RowDescription(2) [ DataRow ] CommandComplete ReadyForQuery(I)
//! ```
//! Whoever asks to be let in is not proven yet, so their name travels as a parameter and never as a part of the SQL.
//! Only the exact replies count. At everything else, and be it one row too many, nothing is known of the user, and the
//! caller closes the connection.

use std::collections::VecDeque;
use std::sync::Arc;

use super::failure::ServerError;
use super::frames::{Frame, Frames};
use super::{Parameters, remember};
use crate::auth::users::MAX_SECRET;
use crate::codec::backend::{self, TransactionStatus, tag};
use crate::codec::{Malformed, Reader, frontend};
use crate::fault::{Lost, Violation};
use crate::secret::Secret;
use crate::time::{Deadline, Now, Tick, Timer};

/// What the query must give: the name, and what is kept of the password.
const COLUMNS: i16 = 2;

/// Rows that are asked for. One is an answer; a second one shows that the query does not tell users apart.
const MOST_ROWS: u32 = 2;

/// The most that a server may send. The answer has some hundred bytes; notices of functions may add to it.
const MAX_BYTES: usize = 256 * 1024;

/// What a lookup wants done, in this order.
#[must_use]
#[non_exhaustive]
pub enum LookupOutput {
    /// Send these bytes.
    Send(Vec<u8>),
    /// The end.
    Finished(LookupOutcome),
}

/// How a lookup ended.
#[non_exhaustive]
pub enum LookupOutcome {
    /// The user exists. What is kept of the password; empty where that is NULL, which lets nobody in who is asked for one.
    Found(Secret<Vec<u8>>, Parameters),
    /// There is no such user, as far as the query tells: no row, or one without a name.
    Nobody(Parameters),
    /// The query has told of another user than it was asked for: this one is not known.
    SomebodyElse(Parameters),
    /// It is not known whether the user exists, and the connection must be closed.
    Broken(LookupFault),
}

/// Why a user could not be looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LookupFault {
    /// The query or the name holds a zero byte.
    ZeroByte,
    /// The server answered with an error.
    Server(ServerError),
    /// The query has another number of columns.
    Columns(i16),
    /// The query gave more than one row.
    TwoRows,
    /// What the row has as a password is longer than a password may be, or holds a zero byte.
    NoPassword,
    /// The query left a transaction open.
    NotIdle(TransactionStatus),
    /// The server did what the protocol does not allow, or not as the answer to what was sent.
    Protocol(Violation),
    /// More bytes or parameters than is plausible, or bytes behind the last reply.
    TooMuchData,
    /// The transport ended.
    Lost(Lost),
    /// It took longer than it may.
    TimedOut,
}

impl LookupFault {
    /// Whether the same question may be answered later, by all that is known: the server or the way to it was the trouble
    /// (classes 53 and 57, or a session that it ended), and not what was asked.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Lost(_) | Self::TimedOut => true,
            Self::Server(error) => {
                let class = error.code().map(|code| [code.0[0], code.0[1]]);
                error.fields().is_fatal() || matches!(class, Some([b'5', b'3' | b'7']))
            }
            _ => false,
        }
    }
}

impl From<Violation> for LookupFault {
    fn from(violation: Violation) -> Self {
        Self::Protocol(violation)
    }
}

impl From<Malformed> for LookupFault {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.into())
    }
}

impl std::fmt::Display for LookupFault {
    /// One line for the log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ZeroByte => f.write_str("the query or the user name holds a zero byte"),
            Self::Server(error) => write!(f, "the server refused the query: {}", error.one_line()),
            Self::Columns(n) => write!(f, "expected 2 columns from auth_query, name and password, not {n}"),
            Self::TwoRows => f.write_str("auth_query gave more than one row: it must select one user by $1"),
            Self::NoPassword => f.write_str("auth_query gave what no password can be: too long, or with a zero byte"),
            Self::NotIdle(_) => f.write_str("auth_query left a transaction open"),
            Self::Protocol(violation) => write!(f, "the server broke the protocol: {}", violation.describe()),
            Self::TooMuchData => f.write_str("the server sent more than the answer"),
            Self::Lost(Lost::Closed) => f.write_str("the server closed the connection"),
            Self::Lost(Lost::Broken) => f.write_str("the connection to the server broke"),
            Self::TimedOut => f.write_str("the server did not answer in time"),
        }
    }
}

/// The reply that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Parsed,
    Bound,
    Described,
    Rows,
    Ready,
    Nothing,
}

/// What the rows have told.
enum Row {
    None,
    Of(Secret<Vec<u8>>),
    OfNobody,
    OfSomebodyElse,
}

/// The machine. See the [module](self) for what it says and hears.
pub struct Lookup {
    user: Arc<str>,
    due: Due,
    row: Row,
    frames: Frames,
    received: usize,
    deadline: Deadline,
    parameters: Parameters,
    outputs: VecDeque<LookupOutput>,
}

impl Lookup {
    /// Begins on a connection that stands between two transactions and owes no reply.
    #[must_use]
    pub fn new(query: &str, user: Arc<str>, until: Tick) -> Self {
        let mut lookup = Self {
            due: Due::Parsed,
            row: Row::None,
            frames: Frames::new(),
            received: 0,
            deadline: Deadline { at: until, why: Timer::UserLookup },
            parameters: Vec::new(),
            outputs: VecDeque::new(),
            user,
        };
        if query.contains('\0') || lookup.user.contains('\0') {
            lookup.fail(LookupFault::ZeroByte);
            return lookup;
        }
        let mut bytes = Vec::new();
        // No types: the server finds the one of $1 itself.
        let definition = [query.as_bytes(), b"\0\0\0"].concat();
        frontend::emit_parse(&mut bytes, b"", &definition);
        frontend::emit_bind(&mut bytes, &[lookup.user.as_bytes()]);
        frontend::emit_describe_portal(&mut bytes);
        frontend::emit_execute(&mut bytes, MOST_ROWS);
        frontend::emit_sync(&mut bytes);
        lookup.outputs.push_back(LookupOutput::Send(bytes));
        lookup
    }

    /// Takes bytes from the server, chopped in any way, all of them: what comes behind the answer is a fault.
    pub fn handle_input(&mut self, bytes: &[u8], _now: Now) {
        let mut taken = 0;
        while taken < bytes.len() && self.due != Due::Nothing {
            let (used, frame) = self.frames.take(&bytes[taken..]);
            taken += used;
            self.received += used;
            let result = match frame {
                _ if self.received > MAX_BYTES => Err(LookupFault::TooMuchData),
                Ok(None) => Ok(()),
                Ok(Some(frame)) => self.handle_message(&frame, taken < bytes.len()),
                Err(violation) => Err(violation.into()),
            };
            if let Err(fault) = result {
                self.fail(fault);
            }
        }
    }

    /// Says that the transport has ended.
    pub fn handle_close(&mut self, how: Lost, _now: Now) {
        if self.due != Due::Nothing {
            self.fail(LookupFault::Lost(how));
        }
    }

    /// Gives up when the deadline has come. Early, late and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.due != Due::Nothing && now.tick >= self.deadline.at {
            self.fail(LookupFault::TimedOut);
        }
    }

    /// When `handle_timeout` has work to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        (self.due != Due::Nothing).then_some(self.deadline)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<LookupOutput> {
        self.outputs.pop_front()
    }

    fn handle_message(&mut self, frame: &Frame, more: bool) -> Result<(), LookupFault> {
        let body = frame.body.expose().as_slice();
        match (self.due, frame.tag) {
            (_, tag::ERROR_RESPONSE) => {
                // An error that repeats what the row said is not for the log.
                let known = if let Row::Of(secret) = &self.row { Some(secret.expose().as_slice()) } else { None };
                Err(LookupFault::Server(ServerError::new(body, known)))
            }
            (_, tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE) => Ok(()),
            (_, tag::PARAMETER_STATUS) => {
                let (name, value) = backend::parameter_status(body)?;
                let room = remember(&mut self.parameters, name, value);
                if room { Ok(()) } else { Err(LookupFault::TooMuchData) }
            }
            (Due::Parsed, tag::PARSE_COMPLETE) => self.bare(body, Due::Bound),
            (Due::Bound, tag::BIND_COMPLETE) => self.bare(body, Due::Described),
            (Due::Described, tag::ROW_DESCRIPTION) => {
                self.due = Due::Rows;
                match Reader::new(body).i16()? {
                    COLUMNS => Ok(()),
                    other => Err(LookupFault::Columns(other)),
                }
            }
            (Due::Described, tag::NO_DATA) => Err(LookupFault::Columns(0)),
            (Due::Rows, tag::DATA_ROW) => self.handle_row(body),
            (Due::Rows, tag::COMMAND_COMPLETE) => {
                let mut reader = Reader::new(body);
                reader.cstr()?;
                reader.finish()?;
                self.due = Due::Ready;
                Ok(())
            }
            (Due::Ready, tag::READY_FOR_QUERY) => self.handle_ready(body, more),
            (_, other) => Err(Violation::UnexpectedMessage(other).into()),
        }
    }

    fn bare(&mut self, body: &[u8], next: Due) -> Result<(), LookupFault> {
        self.due = next;
        if body.is_empty() { Ok(()) } else { Err(Malformed.into()) }
    }

    fn handle_row(&mut self, body: &[u8]) -> Result<(), LookupFault> {
        if !matches!(self.row, Row::None) {
            return Err(LookupFault::TwoRows);
        }
        let mut reader = Reader::new(body);
        match reader.i16()? {
            COLUMNS => {}
            other => return Err(LookupFault::Columns(other)),
        }
        let name = value(&mut reader)?;
        let password = value(&mut reader)?.unwrap_or_default();
        reader.finish()?;
        if password.len() > MAX_SECRET || password.contains(&0) {
            return Err(LookupFault::NoPassword);
        }
        self.row = match name {
            Some(name) if name == self.user.as_bytes() => Row::Of(Secret::new(password.to_vec())),
            Some(_) => Row::OfSomebodyElse,
            // What a function with two OUT parameters gives that has found nobody.
            None => Row::OfNobody,
        };
        Ok(())
    }

    fn handle_ready(&mut self, body: &[u8], more: bool) -> Result<(), LookupFault> {
        let &[status] = body else { return Err(Malformed.into()) };
        match TransactionStatus::from_byte(status).ok_or(Malformed)? {
            TransactionStatus::Idle if more => Err(LookupFault::TooMuchData),
            TransactionStatus::Idle => {
                let parameters = std::mem::take(&mut self.parameters);
                let outcome = match std::mem::replace(&mut self.row, Row::None) {
                    Row::None | Row::OfNobody => LookupOutcome::Nobody(parameters),
                    Row::Of(password) => LookupOutcome::Found(password, parameters),
                    Row::OfSomebodyElse => LookupOutcome::SomebodyElse(parameters),
                };
                self.finish(outcome);
                Ok(())
            }
            status => Err(LookupFault::NotIdle(status)),
        }
    }

    fn fail(&mut self, fault: LookupFault) {
        self.row = Row::None;
        self.finish(LookupOutcome::Broken(fault));
    }

    fn finish(&mut self, outcome: LookupOutcome) {
        self.due = Due::Nothing;
        self.outputs.push_back(LookupOutput::Finished(outcome));
    }
}

/// The next value of a DataRow; `None` for NULL.
fn value<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    match reader.i32()? {
        -1 => Ok(None),
        length => reader.take(usize::try_from(length).map_err(|_| Malformed)?).map(Some),
    }
}

#[cfg(test)]
mod tests;

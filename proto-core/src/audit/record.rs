//! An event of a session, and its line of JSON.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::facts::SessionFacts;
use super::json::Object;
use super::mask::mask_message;
use super::text::StatementText;
use crate::fault::{Refusal, SqlState};
use crate::time::UnixMicros;

/// The longest command tag (PostgreSQL's `COMPLETION_TAG_BUFSIZE` is 64, the terminator included).
const MAX_COMMAND_TAG: usize = 63;

/// One line of the audit log.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the event was over: for a statement, when its outcome was known.
    pub time: UnixMicros,
    /// What the session's records have in common.
    pub facts: Arc<SessionFacts>,
    /// What happened.
    pub event: Event,
}

/// What a record is about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// gprxy has started. It shows at once whether the trail can be written.
    ProxyStart,
    /// A client has logged in, and its account and database are settled.
    SessionStart,
    /// A statement was executed, or was tried and failed.
    Statement(Statement),
    /// A session that had started is over.
    SessionEnd(SessionEnd),
    /// A client was turned away before its session started, or a statement before it ran.
    Refusal(Box<Refused>),
}

/// How a statement came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// As a Query message.
    Simple,
    /// As Parse, Bind and Execute.
    Extended,
    /// As a FunctionCall message; it has no text.
    FunctionCall,
}

/// An executed statement and its outcome.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Statement {
    /// Counted from 1 within the session.
    pub id: u64,
    /// How it came.
    pub protocol: Protocol,
    /// Its text; `None` when it is not known.
    pub text: Option<StatementText>,
    /// The name of the prepared statement; `None` or empty when it had none.
    pub prepared: Option<Arc<[u8]>>,
    /// From its arrival at the proxy to its outcome.
    pub duration: Duration,
    /// As counted by the server in its command tag.
    pub rows: Option<u64>,
    /// What the server answered when it was done; of several statements in one Query, the last one's.
    pub command_tag: Option<CommandTag>,
    /// `00000` on success; `None` when the connection ended before the outcome.
    pub sqlstate: Option<SqlState>,
    /// Bytes of its answer, as relayed.
    pub bytes_to_client: u64,
    /// Bytes of its messages, as relayed.
    pub bytes_to_server: u64,
}

/// The end of a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionEnd {
    /// Statements that were executed.
    pub statements: u64,
    /// Since the session's start.
    pub duration: Duration,
    /// Why it ended, in words.
    pub reason: Cow<'static, str>,
    /// The error that ended it; `None` when it ended in order.
    pub sqlstate: Option<SqlState>,
    /// All bytes relayed to the client.
    pub bytes_to_client: u64,
    /// All bytes relayed to the server.
    pub bytes_to_server: u64,
}

/// Why a client or a statement was refused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refused {
    /// What the client was told.
    pub refusal: Refusal,
    /// The `user` of its startup packet: a claim, not an identity.
    pub claimed_user: Option<Box<[u8]>>,
}

/// A server's command tag (`SELECT 5`), without an allocation of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommandTag {
    length: u8,
    bytes: [u8; MAX_COMMAND_TAG],
}

impl CommandTag {
    /// Keeps a tag. PostgreSQL sends none of more than 63 bytes; of a longer one the beginning is kept.
    #[must_use]
    pub fn new(tag: &[u8]) -> Self {
        let length = tag.len().min(MAX_COMMAND_TAG);
        let mut bytes = [0; MAX_COMMAND_TAG];
        bytes[..length].copy_from_slice(&tag[..length]);
        Self { length: u8::try_from(length).unwrap_or(0), bytes }
    }

    /// The tag.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for CommandTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.bytes().escape_ascii())
    }
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::FunctionCall => "function_call",
        }
    }
}

impl Event {
    const fn name(&self) -> &'static str {
        match self {
            Self::ProxyStart => "proxy_start",
            Self::SessionStart => "session_start",
            Self::Statement(_) => "statement",
            Self::SessionEnd(_) => "session_end",
            Self::Refusal(_) => "refusal",
        }
    }
}

impl Record {
    /// Appends the record as one line of JSON, its newline included. No other newline is in it.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        write_time(object.member("time"), self.time);
        object.string("event", Some(self.event.name()));
        // As text: not every reader keeps all 64 bits of a number.
        // Writing to a `Vec` does not fail.
        drop(write!(object.member("session_id"), "\"{}\"", self.facts.session()));
        object.members(self.facts.members());
        match &self.event {
            Event::ProxyStart | Event::SessionStart => {}
            Event::Statement(statement) => statement.write_members(&mut object),
            Event::SessionEnd(end) => end.write_members(&mut object),
            Event::Refusal(refused) => refused.write_members(&mut object),
        }
        object.close();
        out.push(b'\n');
    }

    /// About how many bytes it occupies until it is written; what a queue of records is bounded by.
    #[must_use]
    pub fn size(&self) -> usize {
        let own = match &self.event {
            Event::ProxyStart | Event::SessionStart => 0,
            Event::Statement(statement) => statement.text.as_ref().map_or(0, |text| text.bytes().len()),
            Event::SessionEnd(end) => end.reason.len(),
            Event::Refusal(refused) => refused.refusal.message.len() + self.facts.members().len(),
        };
        size_of::<Self>() + own
    }
}

impl Statement {
    fn write_members(&self, object: &mut Object<'_>) {
        object.number("statement_id", Some(self.id));
        object.string("protocol", Some(self.protocol.name()));
        object.text("statement", self.text.as_ref().map(StatementText::bytes));
        object.number("statement_length", self.text.as_ref().map(StatementText::length));
        object.boolean("statement_truncated", self.text.as_ref().is_some_and(StatementText::truncated));
        object.text("prepared", self.prepared.as_deref().filter(|name| !name.is_empty()));
        object.number("duration_us", Some(micros(self.duration)));
        object.number("rows", self.rows);
        object.text("command_tag", self.command_tag.as_ref().map(CommandTag::bytes));
        object.string("sqlstate", self.sqlstate.as_ref().map(SqlState::as_str));
        object.number("bytes_to_client", Some(self.bytes_to_client));
        object.number("bytes_to_server", Some(self.bytes_to_server));
    }
}

impl SessionEnd {
    fn write_members(&self, object: &mut Object<'_>) {
        object.number("statements", Some(self.statements));
        object.number("duration_us", Some(micros(self.duration)));
        object.string("reason", Some(&self.reason));
        object.string("sqlstate", self.sqlstate.as_ref().map(SqlState::as_str));
        object.number("bytes_to_client", Some(self.bytes_to_client));
        object.number("bytes_to_server", Some(self.bytes_to_server));
    }
}

impl Refused {
    fn write_members(&self, object: &mut Object<'_>) {
        object.text("claimed_user", self.claimed_user.as_deref());
        // The message may repeat what a server said.
        object.text("reason", Some(&mask_message(&self.refusal.message)));
        object.string("sqlstate", Some(self.refusal.code.as_str()));
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC with all six digits of the microseconds.
fn write_time(out: &mut Vec<u8>, time: UnixMicros) {
    // jiff ends with the year 9999, as RFC 3339 does.
    let end = if time.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let time = Timestamp::from_microsecond(time.0).unwrap_or(end);
    // Writing to a `Vec` does not fail.
    drop(write!(out, "\"{time:.6}\""));
}

#[cfg(test)]
mod tests;

//! The server's side of the protocol for one client of the console (manual, chapter 54).
//!
//! One message after the other: while a command waits for the driver nothing more is looked at. What is answered collects
//! until the input is used up or the driver is asked, and goes out then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::command::{self, Command};
use super::courtesy::{PARAMETERS, Speaker};
use super::refusals::{cancelled, no_sql_here, syntax, unknown};
use super::run::Running;
use super::table::{Column, Format, Formats, Value, describe};
use super::{Errand, MAX_TEXT, Standing, tables};
use crate::audit::{AuditProfile, Statement};
use crate::codec::backend::{
    Severity, TransactionStatus, emit_bare, emit_error, emit_no_parameters, emit_parameter_status,
    emit_ready_for_query, tag as back,
};
use crate::codec::frontend::{Target, tag as front, target};
use crate::codec::{HEADER_LEN, Header, Malformed, Reader};
use crate::fault::{Refusal, SqlState, Violation};
use crate::time::Now;

/// Prepared statements that a client may have.
const MAX_STATEMENTS: usize = 256;
/// The longest text of one.
const MAX_PREPARED: usize = 8 * 1024;
/// Portals that a client may have.
const MAX_PORTALS: usize = 16;

/// What became of the bytes that were shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Input {
    /// So many were used.
    Took(usize),
    /// None, before the driver has answered.
    Wait,
    /// The client leaves in order.
    Left,
    /// It broke the protocol.
    Broken(Violation),
}

/// What the console wants done, in this order.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// These bytes go to the client.
    Send(Vec<u8>),
    /// Answer: [`Console::handle_found`].
    Ask(Errand),
    /// A place in the audit trail for the command that is about to run: [`Console::handle_reserved`].
    Reserve,
    /// What was asked for is no longer wanted.
    GiveUp,
    /// For the audit trail; `true`: it has a place of its own.
    Record(Box<Statement>, bool),
}

/// Who is at the console.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// What they may do.
    pub standing: Standing,
    /// The user of their startup packet.
    pub user: Arc<str>,
    /// The database of their startup packet.
    pub database: Arc<str>,
    /// The name of their program.
    pub application: Option<Arc<str>>,
}

/// A statement that was parsed; without a command it is empty.
pub(super) struct Prepared {
    pub(super) name: Arc<[u8]>,
    pub(super) text: Box<str>,
    pub(super) command: Option<Command>,
}

/// A statement that was bound.
pub(super) struct Portal {
    pub(super) prepared: Arc<Prepared>,
    pub(super) formats: Formats,
    /// What is left of its rows once it has run, and its command tag.
    pub(super) rest: Option<(VecDeque<Vec<Value>>, String)>,
}

/// One client at the console.
pub struct Console {
    pub(super) visitor: Visitor,
    pub(super) pid: u32,
    pub(super) audit: Option<AuditProfile>,
    pub(super) out: VecDeque<Output>,
    /// What was answered and is not on its way.
    pub(super) answer: Vec<u8>,
    /// The beginning of a message.
    partial: Vec<u8>,
    pub(super) statements: BTreeMap<Box<[u8]>, Arc<Prepared>>,
    pub(super) portals: BTreeMap<Box<[u8]>, Portal>,
    pub(super) status: TransactionStatus,
    /// Something has failed, and everything up to the next Sync is skipped.
    pub(super) skipping: bool,
    pub(super) running: Option<Running>,
    /// The commands of a Query that are still to be executed.
    pub(super) queue: Option<VecDeque<(Box<str>, Command)>>,
    /// Commands so far.
    pub(super) commands: u64,
    queries: u32,
    transactions: u32,
}

impl Console {
    /// For somebody who may use it.
    #[must_use]
    pub const fn new(visitor: Visitor, audit: Option<AuditProfile>) -> Self {
        Self {
            visitor,
            pid: 0,
            audit,
            out: VecDeque::new(),
            answer: Vec::new(),
            partial: Vec::new(),
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            status: TransactionStatus::Idle,
            skipping: false,
            running: None,
            queue: None,
            commands: 0,
            queries: 0,
            transactions: 0,
        }
    }

    /// What the client is told behind its cancel key, whose process id is known from here on.
    pub fn handle_enrolled(&mut self, pid: u32) {
        self.pid = pid;
        let application = self.visitor.application.as_deref().unwrap_or("");
        let own = [("application_name", application), ("session_authorization", &*self.visitor.user)];
        for (name, value) in PARAMETERS.iter().copied().chain(own) {
            emit_parameter_status(&mut self.answer, name.as_bytes(), value.as_bytes());
        }
        emit_ready_for_query(&mut self.answer, TransactionStatus::Idle);
        self.flush();
    }

    /// Whether a command waits for the driver.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.running.is_some()
    }

    /// Commands that were executed.
    #[must_use]
    pub const fn commands(&self) -> u64 {
        self.commands
    }

    /// What was answered with a ReadyForQuery, and how often a transaction was over then.
    #[must_use]
    pub const fn counts(&self) -> (u32, u32) {
        (self.queries, self.transactions)
    }

    /// Bytes from the client.
    pub fn handle_input(&mut self, bytes: &[u8], now: Now) -> Input {
        let mut used = 0;
        while self.running.is_none() && used < bytes.len() {
            let fresh = &bytes[used..];
            let result = if self.partial.is_empty() { self.front(fresh, now) } else { self.continued(fresh, now) };
            match result {
                Ok(Some(n)) => used += n,
                Ok(None) => {
                    self.flush();
                    return Input::Left;
                }
                Err(violation) => {
                    self.flush();
                    return Input::Broken(violation);
                }
            }
        }
        self.flush();
        if used == 0 { Input::Wait } else { Input::Took(used) }
    }

    /// The message at the front; what is not whole is kept.
    fn front(&mut self, bytes: &[u8], now: Now) -> Result<Option<usize>, Violation> {
        if let Some(header) = checked(bytes)? {
            let whole = HEADER_LEN + header.body as usize;
            if let Some(message) = bytes.get(..whole) {
                return Ok(self.message(header.tag, &message[HEADER_LEN..], now)?.then_some(whole));
            }
        }
        self.partial.extend_from_slice(bytes);
        Ok(Some(bytes.len()))
    }

    /// More of the message of which the beginning is kept.
    fn continued(&mut self, bytes: &[u8], now: Now) -> Result<Option<usize>, Violation> {
        let wanted = match checked(&self.partial)? {
            None => HEADER_LEN,
            Some(header) => HEADER_LEN + header.body as usize,
        };
        let n = (wanted - self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..n]);
        if let Some(header) = checked(&self.partial)?
            && self.partial.len() == HEADER_LEN + header.body as usize
        {
            let message = std::mem::take(&mut self.partial);
            return Ok(self.message(header.tag, &message[HEADER_LEN..], now)?.then_some(n));
        }
        Ok(Some(n))
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// The client's own cancel key was used, or it has gone: what waits is given up.
    pub fn handle_cancel(&mut self, now: Now) {
        if self.running.as_ref().is_some_and(Running::may_be_cancelled) {
            self.out.push_back(Output::GiveUp);
            self.fail(cancelled(), now);
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        if !self.answer.is_empty() {
            self.out.push_back(Output::Send(std::mem::take(&mut self.answer)));
        }
    }

    /// Whether the session goes on.
    fn message(&mut self, tag: u8, body: &[u8], now: Now) -> Result<bool, Violation> {
        let skipped = self.skipping && !matches!(tag, front::SYNC | front::TERMINATE | front::QUERY);
        match tag {
            front::TERMINATE => return Ok(false),
            _ if skipped && is_known(tag) => {}
            front::QUERY => self.query(body, now)?,
            front::SYNC => self.sync(),
            front::PARSE | front::BIND | front::DESCRIBE | front::EXECUTE | front::CLOSE => {
                if let Err(refusal) = self.extended(tag, body, now)? {
                    self.fail_extended(&refusal);
                }
            }
            // What was answered goes out with the end of the input anyway.
            front::FLUSH => {}
            front::FUNCTION_CALL => {
                let refusal = Refusal::new(SqlState::FEATURE_NOT_SUPPORTED, "the admin console has no functions");
                emit_error(&mut self.answer, Severity::Error, &refusal);
                self.ready();
            }
            // What is left of a COPY that has failed is ignored, as by PostgreSQL.
            front::COPY_DATA | front::COPY_DONE | front::COPY_FAIL => {}
            other => return Err(Violation::UnexpectedMessage(other)),
        }
        Ok(true)
    }

    fn query(&mut self, body: &[u8], now: Now) -> Result<(), Violation> {
        self.skipping = false;
        self.portals.clear();
        let mut reader = Reader::new(body);
        let text = reader.cstr()?;
        reader.finish()?;
        let Ok(text) = std::str::from_utf8(text) else {
            self.refuse_text(text, &not_utf8(), now);
            return Ok(());
        };
        match self.understand(text) {
            Err(refusal) => self.refuse_text(text.as_bytes(), &refusal, now),
            Ok(commands) if commands.is_empty() => {
                emit_bare(&mut self.answer, back::EMPTY_QUERY_RESPONSE);
                self.ready();
            }
            Ok(commands) => {
                let all = commands.into_iter().map(|(text, command)| (text.into(), command)).collect();
                self.run_simple(all, now);
            }
        }
        Ok(())
    }

    /// Sync.
    fn sync(&mut self) {
        self.skipping = false;
        if self.status == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.ready();
    }

    pub(super) fn ready(&mut self) {
        self.queries = self.queries.wrapping_add(1);
        self.transactions = self.transactions.wrapping_add(u32::from(self.status == TransactionStatus::Idle));
        emit_ready_for_query(&mut self.answer, self.status);
    }

    /// A message of the extended protocol: everything behind a failed one is skipped up to the next Sync.
    fn extended(&mut self, tag: u8, body: &[u8], now: Now) -> Result<Result<(), Refusal>, Malformed> {
        Ok(match tag {
            front::PARSE => self.parse(body, now)?,
            front::BIND => self.bind(body)?,
            front::DESCRIBE => self.describe(body)?,
            front::CLOSE => {
                match target(body)? {
                    (Target::Statement, name) => drop(self.statements.remove(name)),
                    (Target::Portal, name) => drop(self.portals.remove(name)),
                }
                emit_bare(&mut self.answer, back::CLOSE_COMPLETE);
                Ok(())
            }
            _ => {
                let mut reader = Reader::new(body);
                let (portal, most) = (reader.cstr()?, reader.i32()?);
                self.execute(portal, usize::try_from(most).unwrap_or(0), now)
            }
        })
    }

    /// The commands of a text. pgcli takes a server for a pooler's console, and asks no catalog of it, when `SELECT 1` is
    /// refused as PgBouncer does that; anything else is a database to it, whose catalogs it cannot do without.
    fn understand<'a>(&self, text: &'a str) -> Result<Vec<(&'a str, Command)>, Refusal> {
        let commands = command::parse(text);
        if self.visitor.application.as_deref() != Some("pgcli") {
            return commands;
        }
        match commands {
            Ok(commands) if commands.iter().any(|(_, command)| command.is_select()) => Err(no_sql_here(text)),
            Err(refusal) if refusal.code == SqlState::FEATURE_NOT_SUPPORTED => Err(no_sql_here(text)),
            other => other,
        }
    }

    fn parse(&mut self, body: &[u8], now: Now) -> Result<Result<(), Refusal>, Malformed> {
        let mut reader = Reader::new(body);
        let (name, text) = (reader.cstr()?, reader.cstr()?);
        // Types of parameters, of which there are none, may be named in advance.
        reader.take(usize::from(reader.clone().i16()?.cast_unsigned()) * 4 + 2)?;
        reader.finish()?;
        let prepared = self.prepare(name, text);
        if let Err(refusal) = &prepared {
            self.record_refused(text, refusal, now);
        }
        Ok(prepared.map(|prepared| {
            self.statements.insert(name.into(), Arc::new(prepared));
            emit_bare(&mut self.answer, back::PARSE_COMPLETE);
        }))
    }

    fn prepare(&mut self, name: &[u8], text: &[u8]) -> Result<Prepared, Refusal> {
        if name.is_empty() {
            self.statements.remove(name);
        } else if self.statements.contains_key(name) {
            let name = String::from_utf8_lossy(name);
            return Err(Refusal::new(
                SqlState::DUPLICATE_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        if self.statements.len() >= MAX_STATEMENTS || text.len() > MAX_PREPARED {
            let words = "the admin console keeps at most 256 prepared statements of 8 KiB";
            return Err(Refusal::new(SqlState::LIMIT_EXCEEDED, words));
        }
        let text = std::str::from_utf8(text).map_err(|_| not_utf8())?;
        let mut commands = self.understand(text)?;
        if commands.len() > 1 {
            return Err(syntax("cannot insert multiple commands into a prepared statement".into()));
        }
        let (text, command) = match commands.pop() {
            Some((text, command)) => (text, Some(command)),
            None => ("", None),
        };
        Ok(Prepared { name: name.into(), text: text.into(), command })
    }

    fn bind(&mut self, body: &[u8]) -> Result<Result<(), Refusal>, Malformed> {
        let mut reader = Reader::new(body);
        let (portal, name) = (reader.cstr()?, reader.cstr()?);
        let _ = formats(&mut reader)?;
        let parameters = reader.i16()?;
        for _ in 0..parameters.max(0) {
            let length = reader.i32()?;
            reader.take(usize::try_from(length).unwrap_or(0))?;
        }
        let formats = formats(&mut reader)?;
        reader.finish()?;
        Ok(self.bound(portal, name, parameters, formats))
    }

    fn bound(&mut self, portal: &[u8], name: &[u8], parameters: i16, formats: Formats) -> Result<(), Refusal> {
        let prepared = self.prepared(name)?.clone();
        if parameters != 0 {
            let words = format!("bind message supplies {parameters} parameters, but a command of the console has none");
            return Err(Refusal::new(SqlState::PROTOCOL_VIOLATION, words));
        }
        if !formats.fit(columns(&prepared).map_or(0, |columns| columns.len())) {
            let words = "bind message has not as many result formats as the command has columns";
            return Err(Refusal::new(SqlState::PROTOCOL_VIOLATION, words));
        }
        if portal.is_empty() {
            self.portals.remove(portal);
        } else if self.portals.contains_key(portal) || self.portals.len() >= MAX_PORTALS {
            let words = "this portal exists already, or there are too many of them";
            return Err(Refusal::new(SqlState::LIMIT_EXCEEDED, words));
        }
        self.portals.insert(portal.into(), Portal { prepared, formats, rest: None });
        emit_bare(&mut self.answer, back::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<Result<(), Refusal>, Malformed> {
        let text = Formats::default();
        let (columns, formats) = match target(body)? {
            (Target::Statement, name) => match self.prepared(name) {
                Ok(prepared) => {
                    let columns = columns(prepared);
                    emit_no_parameters(&mut self.answer);
                    (columns, &text)
                }
                Err(refusal) => return Ok(Err(refusal)),
            },
            (Target::Portal, name) => match self.portals.get(name) {
                Some(portal) => (columns(&portal.prepared), &portal.formats),
                None => return Ok(Err(unknown("portal", name, SqlState::INVALID_CURSOR_NAME))),
            },
        };
        match columns {
            Some(columns) => describe(&mut self.answer, &columns, formats),
            None => emit_bare(&mut self.answer, back::NO_DATA),
        }
        Ok(Ok(()))
    }

    fn prepared(&self, name: &[u8]) -> Result<&Arc<Prepared>, Refusal> {
        let prepared = self.statements.get(name);
        prepared.ok_or_else(|| unknown("prepared statement", name, SqlState::INVALID_STATEMENT_NAME))
    }

    pub(super) fn fail_extended(&mut self, refusal: &Refusal) {
        emit_error(&mut self.answer, Severity::Error, refusal);
        self.skipping = true;
        self.fail_transaction();
    }

    pub(super) fn fail_transaction(&mut self) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
    }

    pub(super) fn speaker(&self) -> Speaker<'_> {
        Speaker { user: &self.visitor.user, database: &self.visitor.database, pid: self.pid }
    }
}

/// The columns of a statement's answer.
fn columns(prepared: &Prepared) -> Option<Vec<Column>> {
    prepared.command.as_ref().and_then(columns_of)
}

/// The columns of a command's answer.
pub(super) fn columns_of(command: &Command) -> Option<Vec<Column>> {
    match command {
        Command::Show(show) => tables::columns(*show),
        Command::Courtesy(courtesy) => courtesy.columns(),
        Command::Verb(_) => None,
    }
}

/// A header whose message may be kept whole.
fn checked(bytes: &[u8]) -> Result<Option<Header>, Violation> {
    let header = Header::parse(bytes)?;
    match header {
        Some(header) if header.body as usize > MAX_TEXT => Err(Violation::BadLength),
        header => Ok(header),
    }
}

const fn is_known(tag: u8) -> bool {
    matches!(tag, front::PARSE | front::BIND | front::DESCRIBE | front::EXECUTE | front::CLOSE | front::FLUSH)
        || matches!(tag, front::FUNCTION_CALL | front::COPY_DATA | front::COPY_DONE | front::COPY_FAIL)
}

fn formats(reader: &mut Reader<'_>) -> Result<Formats, Malformed> {
    let count = reader.i16()?;
    let formats = (0..count.max(0)).map(|_| match reader.i16()? {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        _ => Err(Malformed),
    });
    Ok(Formats(formats.collect::<Result<_, _>>()?))
}

fn not_utf8() -> Refusal {
    syntax("the text is not UTF-8, and the admin console takes no other encoding".into())
}

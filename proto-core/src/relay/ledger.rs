//! The audit trail's side of a session: which statement an answer belongs to, and what came of it.
//!
//! [`Statements`] knows what runs; the ledger adds when it began, how many bytes and rows it moved and how it ended:
//! exactly one outcome per executed statement. A Parse or Bind that fails is written down too, as the statement that
//! did not come to run.

use std::collections::VecDeque;
use std::sync::Arc;

use super::statements::{Execution, Limits, Statements};
use super::tracker::Op;
use crate::audit::AuditProfile;
use crate::audit::{CommandTag, Event, Record, SessionFacts, Statement};
use crate::codec::backend::{ErrorFields, TransactionStatus, rows_of, tag as back};
use crate::codec::frontend::{BindView, tag as front, target};
use crate::codec::{HEADER_LEN, Reader};
use crate::fault::SqlState;
use crate::time::{Now, Tick, UnixMicros};

/// A statement that was sent and has no outcome yet.
struct Draft {
    id: u64,
    began: Tick,
    bytes_to_server: u64,
}

/// What the server has said so far of the statement that it runs.
#[derive(Default)]
struct Progress {
    rows: Option<u64>,
    command_tag: Option<CommandTag>,
    sqlstate: Option<SqlState>,
    bytes_to_client: u64,
}

/// A statement with its outcome.
pub struct Outcome {
    time: UnixMicros,
    statement: Statement,
    ran: bool,
}

impl Outcome {
    /// Whether it was run, and so has a place of its own in the audit trail. What failed to be parsed or bound has not.
    #[must_use]
    pub const fn ran(&self) -> bool {
        self.ran
    }

    /// The audit record for it.
    #[must_use]
    pub fn into_record(self, facts: &Arc<SessionFacts>) -> Record {
        Record { time: self.time, facts: facts.clone(), event: Event::Statement(self.statement) }
    }
}

/// All statements of a session.
pub struct Ledger {
    profile: AuditProfile,
    statements: Statements,
    drafts: VecDeque<Draft>,
    progress: Progress,
    outcomes: VecDeque<Outcome>,
    /// Places in the audit trail that are set aside for statements of this session.
    permits: u32,
    recorded: u64,
    /// Bytes from and to the client, over the whole session.
    totals: (u64, u64),
}

impl Ledger {
    /// For a session that begins.
    #[must_use]
    pub fn new(profile: AuditProfile) -> Self {
        let limits = Limits { text: profile.statement_bytes, ..Limits::default() };
        Self {
            profile,
            statements: Statements::new(limits),
            drafts: VecDeque::new(),
            progress: Progress::default(),
            outcomes: VecDeque::new(),
            permits: 0,
            recorded: 0,
            totals: (0, 0),
        }
    }

    /// How much of a statement's text is kept.
    #[must_use]
    pub const fn text_limit(&self) -> usize {
        self.profile.statement_bytes
    }

    /// Outcomes so far.
    #[must_use]
    pub const fn recorded(&self) -> u64 {
        self.recorded
    }

    /// Bytes from the client and to the client so far.
    #[must_use]
    pub const fn totals(&self) -> (u64, u64) {
        self.totals
    }

    /// Whether no more may be taken in before something is answered.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.statements.is_full()
    }

    /// A place in the audit trail has been set aside.
    pub const fn handle_permit(&mut self) {
        self.permits += 1;
    }

    /// Places in the audit trail that are set aside.
    pub(super) const fn permits(&self) -> u32 {
        self.permits
    }

    /// Whether there are places for so many statements; they are counted only where that matters.
    pub(super) fn has_permits(&self, statements: impl FnOnce() -> u32) -> bool {
        !self.profile.required || self.permits >= statements()
    }

    /// Takes a place for the statement that begins; `false` when one must be asked for first.
    pub const fn take_permit(&mut self) -> bool {
        if !self.profile.required {
            return true;
        }
        if self.permits == 0 {
            return false;
        }
        self.permits -= 1;
        true
    }

    /// The next outcome to write down.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Bytes of an answer pass to the client.
    #[inline]
    pub const fn count_answer(&mut self, body: u32) {
        let bytes = body as u64 + HEADER_LEN as u64;
        self.progress.bytes_to_client += bytes;
        self.totals.1 += bytes;
    }

    /// A whole message of the client was forwarded; `op` is what it asks the server to do, if the server will do it.
    /// `false` when the names in it are longer than what is looked at: what is executed under them could not be told.
    #[must_use]
    pub(super) fn handle_frontend(&mut self, tag: u8, op: Option<Op>, seen: &[u8], body: u32, now: Now) -> bool {
        let sent = u64::from(body) + HEADER_LEN as u64;
        self.totals.0 += sent;
        if op.is_none() && super::begins_statement(tag) {
            // The server skips it.
            self.return_permit();
        }
        let mut names_are_known = true;
        let id = match tag {
            front::QUERY => {
                let text = seen.strip_suffix(b"\0").unwrap_or(seen);
                self.statements.query(text, u64::from(body).saturating_sub(1))
            }
            front::EXECUTE => match Reader::new(seen).cstr() {
                Ok(portal) => self.statements.execute(portal),
                Err(_) => return false,
            },
            front::FUNCTION_CALL => self.statements.function_call(),
            _ => {
                match tag {
                    front::PARSE => names_are_known = self.parse(seen, u64::from(body)),
                    front::BIND => match BindView::parse(seen) {
                        Ok(names) => self.statements.bind(names.portal, names.statement),
                        Err(_) => names_are_known = false,
                    },
                    front::DESCRIBE => self.statements.describe(),
                    front::CLOSE => match target(seen) {
                        Ok((kind, name)) => self.statements.close(kind, name),
                        Err(_) => names_are_known = false,
                    },
                    front::SYNC => self.statements.sync(),
                    front::COPY_DONE | front::COPY_FAIL => self.statements.copy_end(),
                    _ => {}
                }
                return names_are_known;
            }
        };
        if op.is_some() {
            self.drafts.push_back(Draft { id, began: now.tick, bytes_to_server: sent });
        }
        true
    }

    fn parse(&mut self, seen: &[u8], body: u64) -> bool {
        let mut reader = Reader::new(seen);
        let Ok(name) = reader.cstr() else { return false };
        let rest = reader.rest();
        match memchr::memchr(0, rest) {
            Some(end) => self.statements.parse(name, &rest[..end], end as u64),
            // The parameter types behind a text that was cut off count as its length.
            None => self.statements.parse(name, rest, body.saturating_sub(name.len() as u64 + 1)),
        }
        true
    }

    /// An error in front of it removed this operation: it will not run.
    pub(super) const fn handle_dropped(&mut self, op: Op) {
        if matches!(op, Op::Query | Op::Refused(_) | Op::Execute | Op::FunctionCall) {
            self.return_permit();
        }
    }

    const fn return_permit(&mut self) {
        if self.profile.required {
            self.permits += 1;
        }
    }

    /// Places that no statement under way needs: an idle session holds none.
    pub fn take_spare_permits(&mut self) -> u32 {
        std::mem::take(&mut self.permits)
    }

    /// A whole message of the server was forwarded.
    pub(super) fn handle_backend(&mut self, tag: u8, seen: &[u8], status: TransactionStatus, now: Now) {
        match tag {
            back::COMMAND_COMPLETE => {
                let command_tag = seen.strip_suffix(b"\0").unwrap_or(seen);
                self.note_result(command_tag);
                self.complete(command_tag, now);
            }
            back::EMPTY_QUERY_RESPONSE | back::PORTAL_SUSPENDED => self.complete(b"", now),
            // What cannot be remembered is written down now, since its executions will have no text.
            back::PARSE_COMPLETE => {
                let forgotten = self.statements.handle_parse_complete();
                self.close_any(forgotten, now);
            }
            back::BIND_COMPLETE => {
                let forgotten = self.statements.handle_bind_complete();
                self.close_any(forgotten, now);
            }
            back::CLOSE_COMPLETE => self.statements.handle_close_complete(),
            back::ROW_DESCRIPTION | back::NO_DATA => self.statements.handle_describe_complete(),
            back::COPY_IN_RESPONSE => self.statements.handle_copy_in(),
            back::ERROR_RESPONSE => {
                self.progress.sqlstate = Some(ErrorFields::parse(seen).code.unwrap_or(SqlState::INTERNAL_ERROR));
                if let Some(execution) = self.statements.handle_error() {
                    self.close(execution, now);
                }
            }
            back::READY_FOR_QUERY => {
                if let Some(execution) = self.statements.handle_ready(status) {
                    self.close(execution, now);
                }
                self.progress = Progress::default();
            }
            _ => {}
        }
    }

    /// A simple query may hold many statements: rows add up, the last tag stays.
    fn note_result(&mut self, command_tag: &[u8]) {
        if let Some(rows) = rows_of(command_tag) {
            self.progress.rows = Some(self.progress.rows.unwrap_or(0).saturating_add(rows));
        }
        self.progress.command_tag = Some(CommandTag::new(command_tag));
    }

    fn complete(&mut self, command_tag: &[u8], now: Now) {
        if let Some(execution) = self.statements.handle_command_complete(command_tag) {
            self.close(execution, now);
        }
    }

    fn close_any(&mut self, execution: Option<Execution>, now: Now) {
        if let Some(execution) = execution {
            self.close(execution, now);
        }
    }

    fn close(&mut self, execution: Execution, now: Now) {
        self.progress.sqlstate.get_or_insert(SqlState::SUCCESS);
        self.close_as_it_is(execution, now);
    }

    fn close_as_it_is(&mut self, execution: Execution, now: Now) {
        let ran = execution.id.is_some();
        let draft = self.draft_of(execution.id);
        let progress = std::mem::take(&mut self.progress);
        self.recorded += 1;
        let statement = Statement {
            id: self.recorded,
            protocol: execution.protocol,
            text: execution.text,
            prepared: execution.prepared,
            duration: now.tick.since(draft.as_ref().map_or(now.tick, |draft| draft.began)),
            rows: progress.rows,
            command_tag: progress.command_tag,
            sqlstate: progress.sqlstate,
            bytes_to_client: progress.bytes_to_client,
            bytes_to_server: draft.as_ref().map_or(0, |draft| draft.bytes_to_server),
        };
        self.outcomes.push_back(Outcome { time: now.unix, statement, ran });
    }

    /// The draft with this number; those before it never ran.
    fn draft_of(&mut self, id: Option<u64>) -> Option<Draft> {
        let id = id?;
        while let Some(draft) = self.drafts.pop_front() {
            if draft.id == id {
                return Some(draft);
            }
        }
        None
    }

    /// The session is over: what has no answer will not get one.
    pub fn handle_end(&mut self, now: Now) {
        while let Some(execution) = self.statements.poll_unfinished() {
            self.close_as_it_is(execution, now);
        }
    }
}

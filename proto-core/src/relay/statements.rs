//! Which text an Execute runs: the book of one session that joins Parse, Bind, Execute and their outcome.
//!
//! The book follows the server, not the client. What the client sends is only noted, in order; what the server answers
//! decides, in the same order, what becomes of it. So a Parse that fails replaces nothing, what stands between an error
//! and the next Sync never happened, and a Bind finds what the server found. A lookup at the time of sending would be
//! simpler and could be lied to: a pipelined Parse that is bound to fail would lend its harmless text to an older
//! statement of the same name.
//!
//! ```text
//!   client:  parse  bind  describe  execute  close  query  sync      ── noted ──▶  outstanding
//!   server:  handle_parse_complete … handle_command_complete            the oldest is applied
//!            handle_error                                               it, and all up to the Sync, are dropped
//!            handle_ready                                               a Sync, Query or FunctionCall is over
//! ```
//!
//! Memory is bounded: see [`Limits`], and [`Statements::is_full`], which the relay has to obey.

mod answers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::by_sql;
use super::names::Name;

use crate::audit::{Protocol, StatementText};
use crate::codec::frontend::Target;

/// Bounds on what one session makes the book keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one statement's text (`audit.max_statement_bytes`).
    pub text: usize,
    /// Bytes of all prepared statements' texts, and again of all texts on their way. Behind that only the first
    /// [`SHORT_TEXT`] bytes of a text are kept.
    pub all_texts: usize,
    /// Prepared statements, and again portals, that are known by name.
    pub names: usize,
    /// Messages without their answer at which [`Statements::is_full`] becomes true.
    pub outstanding: usize,
}

/// What is kept of a text when there is no room for more of it, in bytes.
pub const SHORT_TEXT: usize = 128;

impl Default for Limits {
    fn default() -> Self {
        Self {
            text: crate::audit::DEFAULT_TEXT_LIMIT,
            all_texts: 512 * 1024,
            names: 4096,
            // More than the answers of five bytes that fit into the 8 KiB which PostgreSQL collects before it sends
            // without a Sync or Flush (PQ_SEND_BUFFER_SIZE): waiting for one of them cannot wait for ever.
            outstanding: 4096,
        }
    }
}

/// A statement that was run, or that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Execution {
    /// The number that [`Statements::execute`], [`Statements::query`] or [`Statements::function_call`] gave it; `None`
    /// for a Parse or Bind that failed before anything ran.
    pub id: Option<u64>,
    /// How it came.
    pub protocol: Protocol,
    /// Its text; `None` when the book does not know it (a function call, a cursor or statement made in SQL).
    pub text: Option<StatementText>,
    /// The name of its prepared statement; `None` for a simple query and for a portal that is not known.
    pub prepared: Option<Arc<[u8]>>,
}

/// A prepared statement.
struct Definition {
    name: Arc<[u8]>,
    text: StatementText,
    /// Whether its text counts against [`Limits::all_texts`] until it is gone. The unnamed statement's does not once
    /// it is parsed: there are only two places for it, itself and the unnamed portal.
    counted: bool,
}

/// A message that the server has not answered.
enum Outstanding {
    Parse(Name, Arc<Definition>),
    Bind {
        portal: Name,
        statement: Name,
    },
    Describe,
    Execute {
        id: u64,
        portal: Name,
    },
    Close(Target, Name),
    Query {
        id: u64,
        text: StatementText,
    },
    FunctionCall {
        id: u64,
    },
    /// CopyDone or CopyFail: no answer of its own.
    CopyEnd,
    Sync,
}

/// The book of one session.
pub struct Statements {
    limits: Limits,
    statements: BTreeMap<Name, Arc<Definition>>,
    /// `None`: bound to a statement that is not known, of which the name is kept.
    portals: BTreeMap<Name, Result<Arc<Definition>, Arc<[u8]>>>,
    outstanding: VecDeque<Outstanding>,
    last_id: u64,
    /// Bytes of text of the counted definitions, and of those on their way.
    counted: usize,
    passing: usize,
    /// An error has been answered and its Sync has not been sent: the server ignores everything up to it.
    skipping: bool,
    /// The server reads CopyData and ignores Sync.
    copying: bool,
    /// Something was deallocated in SQL and it is not known what.
    in_doubt: bool,
}

/// What the client sends.
impl Statements {
    /// An empty book.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            outstanding: VecDeque::new(),
            last_id: 0,
            counted: 0,
            passing: 0,
            skipping: false,
            copying: false,
            in_doubt: false,
        }
    }

    /// Whether so many messages wait for an answer that the client is not to be read before one has come.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.outstanding.len() >= self.limits.outstanding
    }

    /// Parse: `seen` is the beginning of a text of `length` bytes.
    pub fn parse(&mut self, name: &[u8], seen: &[u8], length: u64) {
        if self.skipping {
            return;
        }
        let key = Name::new(name);
        let counted = !key.is_empty();
        let used = if counted { self.counted } else { self.passing };
        let text = self.text(seen, length, used);
        *(if counted { &mut self.counted } else { &mut self.passing }) += text.bytes().len();
        self.note(Outstanding::Parse(key, Arc::new(Definition { name: key.bytes().into(), text, counted })));
    }

    /// Bind.
    pub fn bind(&mut self, portal: &[u8], statement: &[u8]) {
        self.note(Outstanding::Bind { portal: Name::new(portal), statement: Name::new(statement) });
    }

    /// Describe, of either kind.
    pub fn describe(&mut self) {
        self.note(Outstanding::Describe);
    }

    /// Execute. Returns the number of this execution within the session.
    pub fn execute(&mut self, portal: &[u8]) -> u64 {
        let id = self.next_id();
        self.note(Outstanding::Execute { id, portal: Name::new(portal) });
        id
    }

    /// Close.
    pub fn close(&mut self, target: Target, name: &[u8]) {
        self.note(Outstanding::Close(target, Name::new(name)));
    }

    /// A simple Query. Returns the number of this execution within the session.
    pub fn query(&mut self, seen: &[u8], length: u64) -> u64 {
        let id = self.next_id();
        if !self.skipping {
            let text = self.text(seen, length, self.passing);
            self.passing += text.bytes().len();
            self.note(Outstanding::Query { id, text });
        }
        id
    }

    /// A FunctionCall. Returns the number of this execution within the session.
    pub fn function_call(&mut self) -> u64 {
        let id = self.next_id();
        self.note(Outstanding::FunctionCall { id });
        id
    }

    /// CopyDone or CopyFail.
    pub fn copy_end(&mut self) {
        if !std::mem::take(&mut self.copying) {
            // The server's CopyInResponse is still on its way, or there will be none and it ignores this.
            if !matches!(self.outstanding.back(), None | Some(Outstanding::CopyEnd)) {
                self.note(Outstanding::CopyEnd);
            }
        }
    }

    /// Sync.
    pub fn sync(&mut self) {
        // While the server reads CopyData it ignores Sync (manual, section 54.2.6). Clients of the extended protocol send
        // one together with the Execute, before they know that it is a COPY, and another one behind the CopyDone.
        if !self.copying {
            self.skipping = false;
            self.note(Outstanding::Sync);
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn text(&self, seen: &[u8], length: u64, used: usize) -> StatementText {
        let room = self.limits.all_texts.saturating_sub(used);
        StatementText::new(seen, length, self.limits.text.min(room.max(SHORT_TEXT)))
    }

    fn note(&mut self, message: Outstanding) {
        if !self.skipping {
            self.outstanding.push_back(message);
        }
    }
}

impl Statements {
    /// Removes what has no answer of its own from the front.
    fn settle(&mut self) {
        while matches!(self.outstanding.front(), Some(Outstanding::CopyEnd)) {
            self.outstanding.pop_front();
        }
    }

    fn pop_if(&mut self, wanted: impl Fn(&Outstanding) -> bool) -> Option<Outstanding> {
        self.settle();
        self.outstanding.pop_front_if(|front| wanted(front))
    }

    /// What a message runs, or would have run.
    fn execution(&self, message: &Outstanding) -> Option<Execution> {
        let extended = |id, bound: Option<Result<&Arc<Definition>, &Arc<[u8]>>>| Execution {
            id,
            protocol: Protocol::Extended,
            text: bound.and_then(Result::ok).map(|definition| definition.text.clone()),
            prepared: bound.map(|bound| bound.map_or_else(Clone::clone, |definition| definition.name.clone())),
        };
        Some(match message {
            Outstanding::Execute { id, portal } => extended(Some(*id), self.portals.get(portal).map(Result::as_ref)),
            Outstanding::Parse(_, definition) => extended(None, Some(Ok(definition))),
            Outstanding::Bind { statement, .. } => {
                let unknown = statement.bytes().into();
                extended(None, Some(self.statements.get(statement).ok_or(&unknown)))
            }
            Outstanding::Query { id, text } => {
                Execution { id: Some(*id), protocol: Protocol::Simple, text: Some(text.clone()), prepared: None }
            }
            Outstanding::FunctionCall { id } => {
                Execution { id: Some(*id), protocol: Protocol::FunctionCall, text: None, prepared: None }
            }
            Outstanding::Describe | Outstanding::Close(..) | Outstanding::CopyEnd | Outstanding::Sync => return None,
        })
    }

    /// What SQL does to the names of prepared statements, which it shares with the protocol. What a function does
    /// inside is not seen.
    fn follow_sql(&mut self, tag: &[u8], text: &[u8]) {
        match tag {
            b"DEALLOCATE ALL" | b"DISCARD ALL" => self.forget_named(),
            b"DEALLOCATE" => match by_sql::deallocated(text) {
                Some(name) => {
                    let gone = self.statements.remove(&name);
                    self.release(gone);
                }
                None => self.in_doubt = true,
            },
            // It may have taken a name that the book holds for something that is gone.
            b"PREPARE" if self.in_doubt => self.forget_named(),
            _ => {}
        }
    }

    fn forget_named(&mut self) {
        self.in_doubt = false;
        for (name, definition) in std::mem::take(&mut self.statements) {
            if name.is_empty() {
                self.statements.insert(name, definition);
            } else {
                self.release(Some(definition));
            }
        }
    }

    fn forget_portals(&mut self) {
        for bound in std::mem::take(&mut self.portals).into_values() {
            self.release(bound.ok());
        }
    }

    /// A message that will have no effect (any more).
    fn discard(&mut self, message: Outstanding) {
        match message {
            Outstanding::Query { text, .. } => self.passing -= text.bytes().len(),
            Outstanding::Parse(_, definition) => {
                self.landed(&definition);
                self.release(Some(definition));
            }
            _ => {}
        }
    }

    /// A Parse is on its way no more.
    fn landed(&mut self, definition: &Definition) {
        if !definition.counted {
            self.passing -= definition.text.bytes().len();
        }
    }

    /// Lets go of a definition; its text counts until nothing refers to it.
    fn release(&mut self, definition: Option<Arc<Definition>>) {
        if let Some(definition) = definition.and_then(Arc::into_inner).filter(|definition| definition.counted) {
            self.counted -= definition.text.bytes().len();
        }
    }
}

#[cfg(test)]
mod tests;

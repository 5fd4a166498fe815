//! PostgreSQL's main loop in miniature: what it does with each message, in what order it answers, what it ignores.
//!
//! Sources: PostgreSQL manual, sections 54.2.2 to 54.2.6, and the behaviour of PostgreSQL 15 and 18 where they are
//! silent: what is neither data nor the end of it ends a COPY and the connection; Sync and Flush do not.

use std::collections::{BTreeMap, VecDeque};

use super::Ran;
use crate::audit::Protocol;
use crate::codec::backend::{self, Severity, TransactionStatus, emit_error};
use crate::codec::frontend;
use crate::fault::{Refusal, SqlState};

/// What the client sends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    Parse { name: &'static str, text: &'static str },
    Bind { portal: &'static str, statement: &'static str },
    Describe { statement: bool, name: &'static str },
    Execute { portal: &'static str },
    Close { statement: bool, name: &'static str },
    Query { text: &'static str },
    FunctionCall,
    CopyData,
    CopyEnd { failed: bool },
    Flush,
    Sync,
}

impl Message {
    pub(super) fn bytes(self) -> Vec<u8> {
        let of = |tag: u8, parts: &[&[u8]]| {
            let body = parts.concat();
            [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
        };
        let kind = |statement: bool| if statement { b"S" } else { b"P" };
        match self {
            Self::Parse { name, text } => of(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"]),
            Self::Bind { portal, statement } => {
                of(b'B', &[portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0\0\0\0\0"])
            }
            Self::Describe { statement, name } => of(b'D', &[kind(statement), name.as_bytes(), b"\0"]),
            Self::Execute { portal } => of(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"]),
            Self::Close { statement, name } => of(b'C', &[kind(statement), name.as_bytes(), b"\0"]),
            Self::Query { text } => {
                let mut out = Vec::new();
                frontend::emit_query(&mut out, text.as_bytes());
                out
            }
            Self::FunctionCall => of(b'F', &[b"\0\0\0\x01\0\0\0\0\0\0"]),
            Self::CopyData => of(b'd', &[b"row\n"]),
            Self::CopyEnd { failed: false } => of(b'c', &[]),
            Self::CopyEnd { failed: true } => of(b'f', &[b"no\0"]),
            Self::Flush => of(b'H', &[]),
            Self::Sync => of(b'S', &[]),
        }
    }
}

/// The server.
pub(super) struct Server {
    inbox: VecDeque<Message>,
    /// Messages that have not arrived yet.
    pub(super) said: VecDeque<Vec<u8>>,
    /// The outcomes of statements, in their order.
    pub(super) ran: Vec<Ran>,
    pub(super) status: TransactionStatus,
    statements: BTreeMap<&'static str, &'static str>,
    portals: BTreeMap<&'static str, &'static str>,
    /// An error of an extended-query message: nothing counts up to the next Sync.
    skipping: bool,
    /// Extended-query messages since the last Sync or Query.
    unsynced: bool,
    /// A COPY that reads its data.
    copying: Option<Copying>,
    gone: bool,
}

#[derive(Clone, Copy)]
struct Copying {
    simple: bool,
    text: &'static str,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            inbox: VecDeque::new(),
            said: VecDeque::new(),
            ran: Vec::new(),
            status: TransactionStatus::Idle,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            skipping: false,
            unsynced: false,
            copying: None,
            gone: false,
        }
    }
}

impl Server {
    pub(super) fn receive(&mut self, message: Message) {
        self.inbox.push_back(message);
    }

    /// Whether there is something to work off.
    pub(super) fn is_busy(&self) -> bool {
        !self.inbox.is_empty() && !self.gone
    }

    pub(super) const fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) const fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    /// Nothing to do, nothing to say, nothing half done. What it ignores where it stands does not count.
    pub(super) fn is_quiet(&self) -> bool {
        let ignored = |it: &Message| matches!(it, Message::CopyData | Message::CopyEnd { .. } | Message::Flush);
        let half_done = self.skipping || self.unsynced || self.copying.is_some() || self.gone;
        self.inbox.iter().all(ignored) && self.said.is_empty() && !half_done
    }

    /// Works off one message; `luck` says how it goes.
    pub(super) fn work(&mut self, luck: u8) {
        if self.gone {
            return;
        }
        let Some(message) = self.inbox.pop_front() else { return };
        match (self.copying, message) {
            (Some(copying), message) => self.copy(copying, message, luck),
            (None, Message::Sync) => self.sync(luck),
            (None, _) if self.skipping => {}
            (None, Message::Query { text }) => self.query(text, luck),
            (None, Message::FunctionCall) => self.function_call(luck),
            (None, Message::CopyData | Message::CopyEnd { .. } | Message::Flush) => {}
            (None, message) => {
                self.unsynced = true;
                self.extended(message, luck);
            }
        }
    }

    fn say(&mut self, tag: u8, body: &[u8]) {
        self.said.push_back([&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat());
    }

    fn error(&mut self, severity: Severity) {
        let mut out = Vec::new();
        emit_error(&mut out, severity, &Refusal::new(SqlState(*b"22012"), "division by zero"));
        self.said.push_back(out);
    }

    fn ready(&mut self) {
        if self.status == TransactionStatus::Idle {
            self.portals.clear();
        }
        let mut out = Vec::new();
        backend::emit_ready_for_query(&mut out, self.status);
        self.said.push_back(out);
    }

    fn note(&mut self, protocol: Protocol, text: Option<&'static str>, failed: bool) {
        self.ran.push(Ran { protocol, text, failed });
    }

    /// An error fails the transaction block, or undoes the implicit transaction.
    fn abort(&mut self) {
        if self.status != TransactionStatus::Idle {
            self.status = TransactionStatus::Failed;
        }
    }

    fn fail_extended(&mut self) {
        self.error(Severity::Error);
        self.abort();
        self.skipping = true;
    }

    fn sync(&mut self, luck: u8) {
        // A deferred constraint fails in the commit.
        if luck.is_multiple_of(8) && self.unsynced && !self.skipping && self.status == TransactionStatus::Idle {
            self.error(Severity::Error);
        }
        self.skipping = false;
        self.unsynced = false;
        self.ready();
    }

    fn extended(&mut self, message: Message, luck: u8) {
        let fails = luck.is_multiple_of(6);
        match message {
            Message::Parse { name, text } => {
                if fails || (!name.is_empty() && self.statements.contains_key(name)) {
                    self.note(Protocol::Extended, Some(text), true);
                    return self.fail_extended();
                }
                self.statements.insert(name, text);
                self.say(b'1', b"");
            }
            Message::Bind { portal, statement } => {
                let text = self.statements.get(statement).copied();
                match text {
                    Some(text) if !fails && (portal.is_empty() || !self.portals.contains_key(portal)) => {
                        self.portals.insert(portal, text);
                        self.say(b'2', b"");
                    }
                    _ => {
                        self.note(Protocol::Extended, text, true);
                        self.fail_extended();
                    }
                }
            }
            Message::Describe { statement, name } => {
                let known = if statement { &self.statements } else { &self.portals };
                if fails || !known.contains_key(name) {
                    return self.fail_extended();
                }
                if statement {
                    self.say(b't', b"\0\0");
                }
                if luck & 1 == 0 { self.say(b'T', b"\0\0") } else { self.say(b'n', b"") }
            }
            Message::Execute { portal } => self.execute(portal, luck),
            Message::Close { statement, name } => {
                if statement {
                    self.statements.remove(name);
                } else {
                    self.portals.remove(name);
                }
                self.say(b'3', b"");
            }
            _ => {}
        }
    }

    fn execute(&mut self, portal: &str, luck: u8) {
        let Some(text) = self.portals.get(portal).copied() else {
            self.note(Protocol::Extended, None, true);
            return self.fail_extended();
        };
        if luck.is_multiple_of(6) {
            self.note(Protocol::Extended, Some(text), true);
            return self.fail_extended();
        }
        if self.begin_copy(text, false) {
            return;
        }
        if luck.is_multiple_of(5) && text.starts_with("select") {
            self.say(b'D', b"\0\0");
            self.say(b's', b"");
        } else {
            self.run(text);
        }
        self.note(Protocol::Extended, Some(text), false);
    }

    /// COPY FROM STDIN wants data before it goes on.
    fn begin_copy(&mut self, text: &'static str, simple: bool) -> bool {
        let begins = text == "copy t from stdin";
        if begins {
            self.say(b'G', b"\0\0\0");
            self.copying = Some(Copying { simple, text });
        }
        begins
    }

    /// What a statement answers when all goes well, and what it does.
    fn run(&mut self, text: &str) {
        match text {
            "" => return self.say(b'I', b""),
            "begin" => {
                if self.status == TransactionStatus::Idle {
                    self.status = TransactionStatus::InTransaction;
                }
            }
            "commit" => self.status = TransactionStatus::Idle,
            "deallocate all" => self.statements.retain(|name, _| name.is_empty()),
            "copy t to stdout" => {
                self.say(b'H', b"\0\0\0");
                self.say(b'd', b"row\n");
                self.say(b'c', b"");
            }
            _ => self.say(b'D', b"\0\0"),
        }
        let tag: &[u8] = match text {
            "begin" => b"BEGIN\0",
            "commit" => b"COMMIT\0",
            "deallocate all" => b"DEALLOCATE ALL\0",
            "copy t to stdout" => b"COPY 1\0",
            _ => b"SELECT 1\0",
        };
        self.say(b'C', tag);
    }

    fn query(&mut self, text: &'static str, luck: u8) {
        self.unsynced = false;
        self.statements.remove("");
        self.portals.remove("");
        if luck.is_multiple_of(6) {
            self.error(Severity::Error);
            self.abort();
            return self.end_query(text, true);
        }
        if self.begin_copy(text, true) {
            return;
        }
        for _ in 0..=luck % 2 {
            if text.starts_with("select") {
                self.say(b'T', b"\0\0");
            }
            self.run(text);
        }
        self.end_query(text, false);
    }

    fn end_query(&mut self, text: &'static str, failed: bool) {
        self.note(Protocol::Simple, Some(text), failed);
        self.ready();
    }

    fn function_call(&mut self, luck: u8) {
        let fails = luck.is_multiple_of(6);
        if fails {
            self.error(Severity::Error);
            self.abort();
        } else {
            self.say(b'V', b"\0\0\0\0");
        }
        self.note(Protocol::FunctionCall, None, fails);
        self.unsynced = false;
        self.ready();
    }

    fn copy(&mut self, copying: Copying, message: Message, luck: u8) {
        let failed = match message {
            Message::CopyData if !luck.is_multiple_of(4) => return,
            Message::Flush | Message::Sync => return,
            Message::CopyData => true,
            Message::CopyEnd { failed } => failed || luck.is_multiple_of(4),
            _ => {
                // The connection's protocol state is lost.
                self.error(Severity::Fatal);
                self.gone = true;
                let protocol = if copying.simple { Protocol::Simple } else { Protocol::Extended };
                return self.note(protocol, Some(copying.text), true);
            }
        };
        self.copying = None;
        if failed {
            self.error(Severity::Error);
            self.abort();
        } else {
            self.say(b'C', b"COPY 1\0");
        }
        if copying.simple {
            return self.end_query(copying.text, failed);
        }
        self.note(Protocol::Extended, Some(copying.text), failed);
        self.skipping = failed;
    }
}

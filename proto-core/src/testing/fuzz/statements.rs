//! Statements and their outcomes, joined by the relay's books beside a server that keeps its own.
//!
//! The client sends anything; the server is honest, and late. Whatever is sent in whatever order: each statement that the
//! server runs has exactly one record, with its own text and outcome, and the relay calls a connection quiet only when
//! the server has nothing left to do or to say. One thing a client can do makes that impossible, a Sync behind data of a
//! COPY that fails: then nothing more may pass, and nothing may be missing.

mod server;

use std::collections::VecDeque;
use std::sync::Arc;

use super::cuts::Script;
use crate::audit::{AuditProfile, Event, Protocol, SessionFacts, Sheet, StatementText};
use crate::fault::{SqlState, Violation};
use crate::relay::{Ledger, Relay, Step};
use crate::session_id::SessionId;
use crate::time::Now;

use server::{Message, Server};

const NAMES: [&str; 4] = ["", "a", "b", "c"];
const TEXTS: [&str; 8] =
    ["select 1", "select 2", "begin", "commit", "deallocate all", "copy t from stdin", "copy t to stdout", ""];

/// A byte of settings, then steps of two bytes: the client sends, the server works, the server is heard.
pub fn statements(data: &[u8]) {
    let mut script = Script::new(data);
    let mut walk = Walk::new(script.byte());
    while !script.is_over() && !walk.server.is_gone() && !walk.relay.tracker().is_confused() {
        let (what, with) = (script.byte(), script.byte());
        match what % 24 {
            0..=12 => walk.send(message(what % 24, with)),
            13..=17 => walk.server.work(with),
            _ => walk.hear(1 + usize::from(with % 4)),
        }
        walk.check();
    }
    walk.finish();
}

/// One of few names and texts, so that they meet again.
fn message(what: u8, with: u8) -> Message {
    let name = |shift: u8| NAMES[usize::from(with >> shift & 3)];
    match what {
        0 | 1 => Message::Parse { name: name(0), text: TEXTS[usize::from(with >> 2 & 7)] },
        2 | 3 => Message::Bind { portal: name(0), statement: name(2) },
        4 => Message::Describe { statement: with & 4 != 0, name: name(0) },
        5 | 6 => Message::Execute { portal: name(0) },
        7 => Message::Close { statement: with & 4 != 0, name: name(0) },
        8 => Message::Query { text: TEXTS[usize::from(with & 7)] },
        9 => Message::FunctionCall,
        10 => Message::CopyData,
        11 => Message::CopyEnd { failed: with & 1 != 0 },
        _ if with & 7 == 0 => Message::Flush,
        _ => Message::Sync,
    }
}

/// What a record must say.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Ran {
    protocol: Protocol,
    text: Option<&'static str>,
    failed: bool,
}

struct Walk {
    relay: Relay,
    server: Server,
    required: bool,
    grants: usize,
    facts: Arc<SessionFacts>,
    records: VecDeque<(Protocol, Option<StatementText>, Option<SqlState>)>,
    recorded: usize,
    /// How many of the server's outcomes have been compared.
    compared: usize,
    /// The client has sent COPY data, or been asked for it, and not said that it ends.
    data_open: bool,
    /// It has sent a Sync then.
    odd: bool,
}

impl Walk {
    fn new(setup: u8) -> Self {
        let required = setup & 1 != 0;
        let profile = AuditProfile { statement_bytes: 64, required };
        Self {
            relay: Relay::new(Some(Box::new(Ledger::new(profile))), None),
            server: Server::default(),
            required,
            grants: 0,
            facts: Arc::new(SessionFacts::new(SessionId(1), &Sheet::default())),
            records: VecDeque::new(),
            recorded: 0,
            compared: 0,
            data_open: false,
            odd: false,
        }
    }

    fn send(&mut self, message: Message) {
        let bytes = message.bytes();
        loop {
            match self.relay.handle_client(&bytes, Now::default()) {
                Step::Forward(n) => {
                    assert_eq!(n, bytes.len());
                    match message {
                        Message::CopyData => self.data_open = true,
                        Message::CopyEnd { .. } => self.data_open = false,
                        Message::Sync => self.odd |= self.data_open,
                        _ => {}
                    }
                    return self.server.receive(message);
                }
                Step::NeedPermit => {
                    assert!(self.required);
                    self.grants += 1;
                    self.relay.ledger_mut().expect("it has one").handle_permit();
                }
                // The client is stopped: it has sent so much that answers must be on their way.
                Step::Wait => {
                    assert!(self.server.is_busy());
                    return;
                }
                step => panic!("{step:?} for an honest message"),
            }
        }
    }

    /// Some of what the server has said arrives.
    fn hear(&mut self, messages: usize) {
        for _ in 0..messages {
            if self.relay.tracker().is_confused() {
                return;
            }
            let Some(bytes) = self.server.said.pop_front() else { return };
            assert_eq!(self.relay.handle_server(&bytes, Now::default()), Step::Forward(bytes.len()));
            match bytes[0] {
                b'G' => self.data_open = true,
                b'C' | b'Z' if !self.server.is_busy() && self.server.said.is_empty() => self.data_open = false,
                _ => {}
            }
            self.collect();
        }
    }

    fn collect(&mut self) {
        let ledger = self.relay.ledger_mut().expect("it has one");
        while let Some(outcome) = ledger.poll_outcome() {
            self.recorded += usize::from(outcome.ran());
            let Event::Statement(statement) = outcome.into_record(&self.facts).event else { panic!("not a statement") };
            self.records.push_back((statement.protocol, statement.text, statement.sqlstate));
        }
    }

    fn check(&mut self) {
        assert!(self.odd || !self.relay.tracker().is_confused(), "an honest server's answers do not fit");
        assert!(!self.relay.is_quiet() || self.server.is_quiet(), "quiet, and the server is not");
        if self.relay.is_quiet() {
            assert_eq!(self.relay.status(), self.server.status);
        }
        assert!(!self.required || self.recorded <= self.grants, "a record without a place");
        while let Some((protocol, text, sqlstate)) = self.records.pop_front() {
            let text = text.as_ref().map(|text| std::str::from_utf8(text.bytes()).expect("ours are ASCII"));
            let expected = self.server.ran.get(self.compared);
            let expected = expected.unwrap_or_else(|| panic!("a record of {text:?}, which did not run"));
            let failed = sqlstate != Some(SqlState::SUCCESS);
            assert_eq!((protocol, text, failed), (expected.protocol, expected.text, expected.failed));
            self.compared += 1;
        }
    }

    /// Everything is worked off and heard, so everything is recorded.
    fn finish(&mut self) {
        while self.server.is_busy() {
            self.server.work(0x55);
        }
        while !self.server.said.is_empty() && !self.relay.tracker().is_confused() {
            self.hear(1);
            self.check();
        }
        if self.relay.tracker().is_confused() {
            return self.nothing_is_missing();
        }
        if !self.server.is_gone() {
            assert_eq!(self.relay.is_quiet(), self.server.is_quiet());
            self.all_are_recorded();
        }
        self.end();
        if self.server.is_gone() {
            // What the dead server has not looked at follows, without an outcome.
            self.records.truncate(self.server.ran.len() - self.compared);
            self.check();
            self.all_are_recorded();
        } else {
            // The COPY that waits for its data.
            assert_eq!(self.records.len(), usize::from(self.server.is_copying()));
            assert!(self.records.iter().all(|(_, _, sqlstate)| sqlstate.is_none()));
        }
    }

    fn end(&mut self) {
        self.relay.ledger_mut().expect("it has one").handle_end(Now::default());
        self.collect();
    }

    /// Nobody knows any more what came of what was under way, but all of it is written down, and nothing else passes.
    fn nothing_is_missing(&mut self) {
        let query = Message::Query { text: "select 1" }.bytes();
        self.relay.ledger_mut().expect("it has one").handle_permit();
        let broken = Step::Broken(Violation::OutOfStep);
        assert_eq!(self.relay.handle_client(&query, Now::default()), broken);
        assert!(!self.relay.is_quiet());
        self.end();
        let seen = self.records.iter().map(|(how, text, _)| (*how, text.as_ref().map(StatementText::bytes)));
        let mut recorded: Vec<_> = seen.rev().collect();
        for ran in self.server.ran.iter().skip(self.compared).filter(|ran| !ran.failed) {
            // Which text an Execute ran depends on what failed before it.
            let text = ran.text.map(str::as_bytes).filter(|_| ran.protocol == Protocol::Simple);
            let is_it = |it: &(Protocol, Option<&[u8]>)| it.0 == ran.protocol && (text.is_none() || it.1 == text);
            let place = recorded.iter().rposition(is_it);
            recorded.truncate(place.unwrap_or_else(|| panic!("not recorded: {ran:?}")));
        }
    }

    fn all_are_recorded(&self) {
        assert_eq!(self.compared, self.server.ran.len(), "not recorded: {:?}", &self.server.ran[self.compared..]);
    }
}

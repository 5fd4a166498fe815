//! `RESET` and `DISCARD ALL` lead back to what the session began with.
//!
//! The server takes its settings back to those of its login. Where the session began with others (the name of its
//! application, which follows it to connections that know nothing of that; its startup parameters on a bare connection), what
//! the server has then is not what the client asked for when it logged in. So such a value is taken for the session's first
//! one, which the client is told, and the server, before what it says next on another connection.

use std::sync::Arc;

use super::pins::{self, words};
use crate::codec::backend::emit_parameter_status;
use crate::upstream::{Parameters, Reported};

/// Settings of one query or pipeline that are remembered by name.
const MOST_NAMES: usize = 32;

/// What is to be known for that.
#[derive(Default)]
pub(super) struct Resetting {
    /// What this connection's login has reported, without the session's own startup parameters.
    login: Arc<Parameters>,
    /// The session's startup parameters were set behind the login.
    is_bare: bool,
    said: Said,
    /// The server has done some of it.
    is_done: bool,
    /// Settings that have their first value again, of which the client knows another.
    untold: Vec<Box<[u8]>>,
}

/// What has been said since the last ReadyForQuery, in its order.
#[derive(Default)]
struct Said {
    /// All settings are taken back,
    all: bool,
    /// or these,
    back: Vec<Box<[u8]>>,
    /// and these have another value behind that.
    set: Vec<Box<[u8]>>,
}

impl Resetting {
    /// The session goes on on this connection. What its client is to be told.
    pub(super) fn handle_connection(
        &mut self,
        connection: &Reported,
        bare: Option<Arc<Parameters>>,
        told: &Reported,
        tell: &mut Vec<u8>,
    ) {
        self.is_bare = bare.is_some();
        self.login = bare.unwrap_or_else(|| connection.base_values().clone());
        for name in self.untold.drain(..) {
            if let Some(value) = told.get(&name) {
                emit_parameter_status(tell, &name, value);
            }
        }
    }

    /// A text goes to the server that sets something, or takes it back.
    pub(super) fn handle_text(&mut self, text: &[u8]) {
        let mut statements = words::Cut::new(&text[..text.len().min(pins::LOOK)]);
        while let Some(words) = statements.next_statement() {
            let word = |n: usize| words.get(n).copied().unwrap_or_default();
            let name = |n: usize| match word(n) {
                time if time.is("time") && word(n + 1).is("zone") => b"TimeZone",
                names if names.is("names") => &b"client_encoding"[..],
                name => name.bytes(),
            };
            match word(0) {
                verb if verb.is("discard") || verb.is("reset") => match word(1) {
                    all if all.is("all") => self.said = Said { all: true, ..Said::default() },
                    _ if verb.is("reset") => self.said.take_back(name(1)),
                    _ => {}
                },
                verb if verb.is("set") && !word(1).is("local") => {
                    let name = name(1 + usize::from(word(1).is("session")));
                    match words.last() {
                        Some(last) if last.is_keyword("default") => self.said.take_back(name),
                        _ => self.said.set(name),
                    }
                }
                _ => {}
            }
        }
    }

    /// A statement with this tag is complete. Whether a bare connection may have lost its startup parameters.
    pub(super) fn handle_complete(&mut self, tag: &[u8]) -> bool {
        let takes_back = match tag {
            b"RESET\0" | b"DISCARD ALL\0" => true,
            b"SET\0" => !self.said.back.is_empty(),
            _ => false,
        };
        self.is_done |= takes_back;
        takes_back && self.is_bare
    }

    /// ReadyForQuery: what was taken back has its first value, as far as the session is concerned.
    pub(super) fn handle_ready(&mut self, told: &mut Reported, start: &Reported) {
        let is_done = std::mem::take(&mut self.is_done);
        if !is_done && self.said.is_empty() {
            return;
        }
        let said = std::mem::take(&mut self.said);
        for (name, first) in start.iter().filter(|(name, _)| is_done && said.takes_back(name)) {
            let of_login = self.login.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value);
            let Some(now) = told.get(name) else { continue };
            if now != first && Some(now) == of_login && told.set(name, first) {
                self.untold.push(name.into());
            }
        }
    }
}

impl Said {
    const fn is_empty(&self) -> bool {
        !self.all && self.back.is_empty() && self.set.is_empty()
    }

    fn take_back(&mut self, name: &[u8]) {
        self.set.retain(|known| !known.eq_ignore_ascii_case(name));
        if self.back.len() < MOST_NAMES {
            self.back.push(name.into());
        }
    }

    fn set(&mut self, name: &[u8]) {
        self.back.retain(|known| !known.eq_ignore_ascii_case(name));
        if self.set.len() < MOST_NAMES {
            self.set.push(name.into());
        }
    }

    fn takes_back(&self, name: &[u8]) -> bool {
        let is_among = |names: &[Box<[u8]>]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        is_among(&self.back) || self.all && !is_among(&self.set)
    }
}

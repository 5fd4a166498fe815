//! What the server answers, and what becomes of the messages that it answers.

use std::sync::Arc;

use super::{Definition, Execution, Outstanding, SHORT_TEXT, Statements};
use crate::audit::{Protocol, StatementText};
use crate::codec::backend::TransactionStatus;
use crate::codec::frontend::Target;
use crate::relay::names::Name;

/// What was parsed or bound and will be executed under a name that the book has no room for.
fn forgotten(definition: &Definition) -> Execution {
    Execution {
        id: None,
        protocol: Protocol::Extended,
        text: Some(definition.text.clone()),
        prepared: Some(definition.name.clone()),
    }
}

impl Statements {
    /// ParseComplete. Returns what there is no room to remember: its text is not known when it is executed.
    #[must_use]
    pub fn handle_parse_complete(&mut self) -> Option<Execution> {
        let Some(Outstanding::Parse(name, definition)) = self.pop_if(|o| matches!(o, Outstanding::Parse(..))) else {
            return None;
        };
        self.landed(&definition);
        let old = self.statements.remove(&name);
        self.release(old);
        if name.is_empty() || self.statements.len() < self.limits.names {
            self.statements.insert(name, definition);
            None
        } else {
            let forgotten = forgotten(&definition);
            self.release(Some(definition));
            Some(forgotten)
        }
    }

    /// BindComplete. Returns what there is no room to remember, as for Parse.
    #[must_use]
    pub fn handle_bind_complete(&mut self) -> Option<Execution> {
        let Some(Outstanding::Bind { portal, statement }) = self.pop_if(|o| matches!(o, Outstanding::Bind { .. }))
        else {
            return None;
        };
        let old = self.portals.remove(&portal);
        self.release(old.and_then(Result::ok));
        if !portal.is_empty() && self.portals.len() >= self.limits.names {
            return self.statements.get(&statement).map(|definition| forgotten(definition));
        }
        let bound = match self.statements.get(&statement) {
            None => Err(statement.bytes().into()),
            Some(definition) if portal.is_empty() || definition.counted => Ok(definition.clone()),
            // A named portal may outlive the unnamed statement by far, and there may be many.
            Some(definition) => {
                let text =
                    definition.text.shortened(self.limits.all_texts.saturating_sub(self.counted).max(SHORT_TEXT));
                self.counted += text.bytes().len();
                Ok(Arc::new(Definition { name: definition.name.clone(), text, counted: true }))
            }
        };
        self.portals.insert(portal, bound);
        None
    }

    /// RowDescription or NoData. Those of a simple query change nothing.
    pub fn handle_describe_complete(&mut self) {
        let _ = self.pop_if(|o| matches!(o, Outstanding::Describe));
    }

    /// CloseComplete.
    pub fn handle_close_complete(&mut self) {
        let gone = match self.pop_if(|o| matches!(o, Outstanding::Close(..))) {
            Some(Outstanding::Close(Target::Statement, name)) => self.statements.remove(&name),
            Some(Outstanding::Close(Target::Portal, name)) => self.portals.remove(&name).and_then(Result::ok),
            _ => None,
        };
        self.release(gone);
    }

    /// CopyInResponse or CopyBothResponse: every Sync up to the end of the copy is ignored by the server.
    pub fn handle_copy_in(&mut self) {
        self.settle();
        let copies = |running: &Outstanding| matches!(running, Outstanding::Execute { .. } | Outstanding::Query { .. });
        if !self.outstanding.front().is_some_and(copies) {
            return;
        }
        while let Some(next) = self.outstanding.get(1) {
            match next {
                Outstanding::Sync => drop(self.outstanding.remove(1)),
                Outstanding::CopyEnd => return drop(self.outstanding.remove(1)),
                // Anything else is an error to the server, which says so and ends the connection.
                _ => return,
            }
        }
        self.copying = true;
    }

    /// CommandComplete with its tag; EmptyQueryResponse and PortalSuspended with an empty one. Returns what an Execute
    /// ran; a simple query is over with its ReadyForQuery.
    #[must_use]
    pub fn handle_command_complete(&mut self, tag: &[u8]) -> Option<Execution> {
        let done = self.pop_if(|o| matches!(o, Outstanding::Execute { .. }));
        let execution = match &done {
            Some(done) => self.execution(done),
            None => self.outstanding.front().and_then(|running| self.execution(running)),
        };
        let text = execution.as_ref().and_then(|execution| execution.text.as_ref());
        self.follow_sql(tag, text.map_or(&[], StatementText::bytes));
        execution.filter(|_| done.is_some())
    }

    /// ErrorResponse. Returns what failed, when that was a Parse, a Bind or an Execute: the server then ignores
    /// everything up to the next Sync, and the executions numbered in between never happen. The error of a simple
    /// query or function call belongs to what its ReadyForQuery returns.
    #[must_use]
    pub fn handle_error(&mut self) -> Option<Execution> {
        self.settle();
        self.copying = false;
        let by_itself = |o: &Outstanding| {
            matches!(o, Outstanding::Sync | Outstanding::Query { .. } | Outstanding::FunctionCall { .. })
        };
        if self.outstanding.front().is_none_or(by_itself) {
            return None;
        }
        let failed = self.outstanding.front().and_then(|failed| self.execution(failed));
        self.skipping = true;
        while let Some(message) = self.outstanding.pop_front() {
            if matches!(message, Outstanding::Sync) {
                self.skipping = false;
                self.outstanding.push_front(message);
                break;
            }
            self.discard(message);
        }
        failed
    }

    /// ReadyForQuery. Returns the simple query or function call that is over with it.
    #[must_use]
    pub fn handle_ready(&mut self, status: TransactionStatus) -> Option<Execution> {
        self.copying = false;
        self.skipping = false;
        let mut over = None;
        while let Some(message) = self.outstanding.pop_front() {
            let last =
                matches!(message, Outstanding::Sync | Outstanding::Query { .. } | Outstanding::FunctionCall { .. });
            if last {
                over = self.execution(&message);
            }
            if matches!(message, Outstanding::Query { .. }) {
                // It uses the places of the unnamed statement and portal itself (manual, section 54.2.3).
                let statement = self.statements.remove(&Name::new(b""));
                let portal = self.portals.remove(&Name::new(b"")).and_then(Result::ok);
                self.release(statement);
                self.release(portal);
            }
            self.discard(message);
            if last {
                break;
            }
        }
        if status == TransactionStatus::Idle {
            self.forget_portals();
        }
        over
    }

    /// At the end of a session: what was sent and has no outcome, one by one, as if nothing of it had failed.
    pub fn poll_unfinished(&mut self) -> Option<Execution> {
        loop {
            let unfinished = match self.outstanding.front()? {
                Outstanding::Parse(..) => {
                    let _ = self.handle_parse_complete();
                    continue;
                }
                Outstanding::Bind { .. } => {
                    let _ = self.handle_bind_complete();
                    continue;
                }
                running => self.execution(running),
            };
            if let Some(message) = self.outstanding.pop_front() {
                self.discard(message);
            }
            if unfinished.is_some() {
                return unfinished;
            }
        }
    }
}

//! `RESET` and `DISCARD ALL` lead back to what the session began with.
//!
//! The server takes its settings back to those of its login. Where the session began with others (the name of its
//! application, which follows it to connections that know nothing of that; all its startup parameters on a bare connection),
//! what the server reports then is not what the client asked for when it logged in. So such a value is taken for the
//! session's first one, which the client is told, and the server, before the session's next statement.

use std::sync::Arc;

use crate::codec::backend::emit_parameter_status;
use crate::upstream::{Parameters, Reported};

/// What is to be known for that.
#[derive(Default)]
pub(super) struct Resetting {
    /// What this connection's login has reported, without the session's own startup parameters.
    login: Arc<Parameters>,
    /// The session's startup parameters were set behind the login.
    is_bare: bool,
    /// Settings have been taken back since the last ReadyForQuery.
    is_under_way: bool,
    /// The settings that were reported since then.
    reported: Vec<Box<[u8]>>,
    /// Those that have their first value again, and of which the client knows another.
    untold: Vec<Box<[u8]>>,
}

impl Resetting {
    /// Whether the server knows the session's startup parameters only as settings that can be taken back.
    pub(super) const fn is_bare(&self) -> bool {
        self.is_bare
    }

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

    /// `RESET` or `DISCARD ALL` is complete.
    pub(super) const fn handle_reset(&mut self) {
        self.is_under_way = true;
    }

    /// The server has reported a setting. Before version 14 it does so in front of the statement's end.
    pub(super) fn handle_reported(&mut self, name: &[u8]) {
        self.reported.push(name.into());
    }

    /// ReadyForQuery: what was taken back has its first value, as far as the session is concerned.
    pub(super) fn handle_ready(&mut self, told: &mut Reported, start: &Reported) {
        if self.reported.is_empty() {
            self.is_under_way = false;
            return;
        }
        let is_reset = std::mem::take(&mut self.is_under_way);
        for name in self.reported.drain(..).filter(|_| is_reset) {
            let of_login = self.login.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value);
            let (Some(now), Some(first)) = (told.get(&name), start.get(&name)) else { continue };
            if now != first && Some(now) == of_login && told.set(&name, first) {
                self.untold.push(name);
            }
        }
    }
}

//! What a session needs that changes its server connection: its reported parameters, what ties it to one, and queries of
//! gprxy's own that bring a connection to the session's parameters.

use super::pins::{self, Pins};
use super::tracker::Settled;
use super::{Relay, Step};
use crate::codec::backend::{TransactionStatus, parameter_status, tag as back};
use crate::codec::frontend::tag as front;
use crate::codec::{HEADER_LEN, Header, Reader};
use crate::fault::Violation;
use crate::upstream::{Differences, Reported};

/// The longest answer to a query of gprxy's own: a ParameterStatus, or an error with its texts.
const MAX_OWN_ANSWER: u32 = 16 * 1024;

/// What goes with a session from one server connection to the next.
pub struct Pooled {
    told: Reported,
    pins: pins::Book,
}

impl Pooled {
    /// For a client that has been told these values.
    #[must_use]
    pub fn new(told: Reported) -> Self {
        Self { told, pins: pins::Book::default() }
    }

    pub(super) fn handle_server(&mut self, tag: u8, seen: &[u8]) {
        match tag {
            back::PARAMETER_STATUS => {
                if let Ok((name, value)) = parameter_status(seen) {
                    let _ = self.told.set(name, value);
                }
            }
            back::ERROR_RESPONSE => self.pins.handle_error(),
            back::READY_FOR_QUERY if seen.first() == Some(&b'I') => self.pins.handle_idle(),
            _ => {}
        }
    }
}

impl Relay {
    /// What ties the session to its server connection.
    #[must_use]
    pub fn pins(&self) -> Pins {
        self.pooled.as_ref().map_or_else(Pins::default, |pooled| pooled.pins.pins())
    }

    /// Whether the server connection may go to somebody else: nothing is owed, half said, open or pinned.
    #[must_use]
    pub fn is_between_transactions(&self) -> bool {
        self.is_quiet() && self.status() == TransactionStatus::Idle && self.fault.is_none() && self.pins().is_empty()
    }

    /// Whether a transaction block is open that a statement has begun.
    #[must_use]
    pub fn is_in_transaction_block(&self) -> bool {
        self.is_quiet() && self.status() != TransactionStatus::Idle
    }

    /// The session goes on on this connection. What must be sent there first, and told to the client.
    pub fn handle_connection(&mut self, connection: &Reported) -> Differences {
        let Some(pooled) = &mut self.pooled else { return Differences::default() };
        if pooled.told.fits(connection) {
            return Differences::default();
        }
        let differences = pooled.told.bring_to(connection);
        if !differences.set.is_empty() {
            self.tracker.handle_own();
        }
        differences
    }

    pub(super) fn look_for_pins(&mut self, tag: u8, seen: &[u8]) {
        if !matches!(tag, front::QUERY | front::PARSE) {
            return;
        }
        let alone = tag == front::QUERY && self.tracker.is_quiet() && self.status() == TransactionStatus::Idle;
        let Some(pooled) = &mut self.pooled else { return };
        let (mut text, mut named) = (seen, false);
        if tag == front::PARSE {
            let mut reader = Reader::new(seen);
            named = reader.cstr().is_ok_and(|name| !name.is_empty());
            text = reader.rest();
        }
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        let told = &pooled.told;
        let is_reported = |name: &[u8]| told.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        pooled.pins.handle_statement(pins::effect(text, is_reported), alone);
        if named {
            pooled.pins.handle_named();
        }
    }

    /// The server answers a query of gprxy's own: nothing of it is for the client.
    pub(super) fn own_answer(&mut self, header: Header, bytes: &[u8]) -> Step {
        if header.body > MAX_OWN_ANSWER {
            return Step::Broken(Violation::ParametersRefused);
        }
        let length = HEADER_LEN + header.body as usize;
        let Some(body) = bytes.get(HEADER_LEN..length) else { return Step::Wait };
        match header.tag {
            back::PARAMETER_STATUS => {
                let reported = parameter_status(body);
                let room = reported.is_ok_and(|(name, value)| crate::upstream::remember(&mut self.changed, name, value));
                if !room {
                    return Step::Broken(Violation::TooManyParameters);
                }
            }
            back::NOTICE_RESPONSE | back::NOTIFICATION_RESPONSE => {}
            back::ROW_DESCRIPTION | back::DATA_ROW | back::COMMAND_COMPLETE | back::READY_FOR_QUERY => {
                if let Settled::Ready(_) = self.tracker.handle_backend(header.tag, body, |_| {})
                    && self.status() != TransactionStatus::Idle
                {
                    return Step::Broken(Violation::ParametersRefused);
                }
            }
            _ => return Step::Broken(Violation::ParametersRefused),
        }
        Step::Discard(length)
    }
}

//! What a session needs that changes its server connection: its reported parameters, what ties it to one, and queries of
//! gprxy's own that bring a connection to the session's parameters.

use std::sync::Arc;

use super::meaning;
use super::on_server::OnServer;
use super::pins::{self, Pin, Pins};
use super::prepared::Statements;
use super::refusing::refused;
use super::resetting::Resetting;
use super::tracker::{Op, Settled};
use super::{Relay, Step};
use crate::codec::backend::{ErrorFields, TransactionStatus, parameter_status, tag as back};
use crate::codec::frontend::tag as front;
use crate::codec::{HEADER_LEN, Header, Reader};
use crate::fault::{SqlState, Violation};
use crate::policy::{SessionState, SessionTerms};
use crate::time::Now;
use crate::upstream::{Differences, Parameters, Reported};

/// The longest answer to a query of gprxy's own: a ParameterStatus, or an error with its texts. With its header it fits
/// into one read buffer, since it is looked at whole.
const MAX_OWN_ANSWER: u32 = 12 * 1024;

/// What goes with a session from one server connection to the next.
pub struct Pooled {
    told: Reported,
    /// What the client began with, which RESET leads back to.
    start: Reported,
    resetting: Resetting,
    /// Statements that leave state behind which cannot follow are refused.
    pub(super) refuses: bool,
    pins: pins::Book,
    pub(super) statements: Statements,
}

impl Pooled {
    /// For a client that has been told these values.
    #[must_use]
    pub fn new(told: Reported, terms: &SessionTerms) -> Self {
        let refuses = terms.state == SessionState::Refuse;
        let statements = Statements::new(terms.cache_unnamed_statements);
        let (start, resetting) = (told.clone(), Resetting::default());
        Self { told, start, resetting, refuses, pins: pins::Book::default(), statements }
    }

    /// Looks up the settings that decide what a text means, where they have changed.
    pub(super) fn know_settings(&mut self) {
        self.statements.settings.get_or_insert_with(|| meaning::settings(&self.told));
    }

    /// What a statement leaves behind and clears; a zero byte ends it.
    pub(super) fn effect(&self, text: &[u8]) -> pins::Effect {
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        let is_reported = |name: &[u8]| self.told.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        pins::effect(text, is_reported)
    }

    pub(super) fn handle_server(&mut self, tag: u8, seen: &[u8]) {
        match tag {
            back::PARAMETER_STATUS => self.handle_reported(seen),
            back::ERROR_RESPONSE => {
                self.pins.handle_error();
                if ErrorFields::parse(seen).code == Some(SqlState::FEATURE_NOT_SUPPORTED) {
                    // "cached plan must not change result type"
                    if let Some(here) = &mut self.statements.here {
                        here.doubt();
                    }
                }
            }
            back::COMMAND_COMPLETE if seen.starts_with(b"D") => match seen.strip_suffix(b"\0").unwrap_or(seen) {
                b"DEALLOCATE ALL" => self.statements.handle_all_gone(),
                b"DISCARD ALL" => {
                    self.statements.handle_all_gone();
                    self.handle_taken_back(seen);
                }
                b"DEALLOCATE" => self.statements.handle_freed(),
                _ => {}
            },
            back::COMMAND_COMPLETE if matches!(seen, b"RESET\0" | b"SET\0") => self.handle_taken_back(seen),
            back::READY_FOR_QUERY => {
                self.statements.handle_ready();
                self.resetting.handle_ready(&mut self.told, &self.start);
                if seen.first() == Some(&b'I') {
                    self.pins.handle_idle();
                }
                // What is not reported may decide what a text means.
                let pins = self.pins.pins();
                self.statements.is_apart = [Pin::Temporary, Pin::Setting, Pin::Role].iter().any(|pin| pins.has(*pin));
            }
            _ => {}
        }
    }

    /// The server may have taken settings back to those of its login.
    fn handle_taken_back(&mut self, tag: &[u8]) {
        if self.resetting.handle_complete(tag) {
            // What the startup parameters say is not reported for the most part: it is all set anew before the next one.
            self.statements.handle_doubt();
        }
    }

    fn handle_reported(&mut self, seen: &[u8]) {
        let Ok((name, value)) = parameter_status(seen) else {
            // Longer than anything that is kept: it stays where it is, and nobody finds it there.
            self.pins.handle_unsettable();
            self.statements.handle_doubt();
            return;
        };
        let _ = self.told.set(name, value);
        if meaning::decides(name) {
            self.statements.settings = None;
        }
        if !value.is_ascii() {
            // It cannot be said to another connection, whatever that one's encoding is.
            self.pins.handle_unsettable();
        }
    }

    /// What an answer of the server means for prepared statements; `failed` others will not be answered because of it, and
    /// where the server `skips` nor will what is on its way. `false` when the server has other statements than are known
    /// here.
    #[must_use]
    pub(super) fn handle_settled(&mut self, settled: Settled, failed: usize, skips: bool) -> bool {
        match settled {
            Settled::Done(op) if op.prepares() => {
                let fixed = self.statements.fixed.len();
                let known = self.statements.handle_done();
                if self.statements.fixed.len() > fixed {
                    self.handle_unmovable();
                }
                return known;
            }
            Settled::Failed(op) => {
                self.statements.handle_failed(failed + usize::from(op.prepares()), op.prepares(), skips);
            }
            _ => {}
        }
        true
    }

    /// Something of a name of its own is prepared that cannot go elsewhere.
    pub(super) const fn handle_unmovable(&mut self) {
        self.pins.handle_named();
    }
}

impl Relay {
    /// What ties the session to its server connection.
    #[must_use]
    pub fn pins(&self) -> Pins {
        self.pooled.as_ref().map_or_else(Pins::default, |pooled| pooled.pins.pins())
    }

    /// Whether the connection may hold what is not known here, so that nobody may find it as it is.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.pooled.as_ref().is_some_and(|pooled| pooled.statements.is_in_doubt())
    }

    /// Whether the server connection may go to somebody else: nothing is owed, half said or open. What pins it is asked for
    /// by itself.
    #[must_use]
    pub fn is_between_transactions(&self) -> bool {
        self.is_quiet() && self.status() == TransactionStatus::Idle && self.fault.is_none() && !self.is_tied()
    }

    fn is_tied(&self) -> bool {
        self.pooled.as_ref().is_some_and(|pooled| pooled.statements.is_tied())
    }

    /// Whether a transaction block is open that a statement has begun.
    #[must_use]
    pub fn is_in_transaction_block(&self) -> bool {
        self.is_quiet() && self.status() != TransactionStatus::Idle
    }

    /// The session goes on on this connection; `bare`: what its login reported, where it was one without startup parameters.
    /// What must be sent there first, and told to the client.
    pub fn handle_connection(
        &mut self,
        connection: &Reported,
        bare: Option<Arc<Parameters>>,
        statements: Option<Box<OnServer>>,
    ) -> Differences {
        let Some(pooled) = &mut self.pooled else { return Differences::default() };
        if let Some(statements) = statements {
            pooled.statements.arrive(statements);
        }
        let mut differences = Differences::default();
        pooled.resetting.handle_connection(connection, bare, &pooled.told, &mut differences.tell);
        if pooled.told.fits(connection) {
            return differences;
        }
        pooled.told.bring_to(connection, &mut differences);
        if !differences.tell.is_empty() {
            pooled.statements.settings = None;
        }
        if !differences.set.is_empty() {
            self.tracker.handle_own(Op::Own);
        }
        differences
    }

    /// Whether the server is still to take over the session's parameters.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        self.tracker.next() == Some(Op::Own)
    }

    /// The connection goes: the prepared statements that it has.
    pub fn take_statements(&mut self) -> Option<Box<OnServer>> {
        self.pooled.as_mut()?.statements.depart()
    }

    pub(super) fn look_for_pins(&mut self, tag: u8, seen: &[u8]) {
        if self.pooled.is_none() || !matches!(tag, front::QUERY | front::PARSE) {
            return;
        }
        let alone = tag == front::QUERY && self.tracker.is_quiet() && self.status() == TransactionStatus::Idle;
        let Some(pooled) = &mut self.pooled else { return };
        let mut text = seen;
        if tag == front::PARSE {
            let mut reader = Reader::new(seen);
            // The text behind a name that is longer than what is seen is not seen either.
            text = reader.cstr().map_or(&[], |_| reader.rest());
        }
        let effect = pooled.effect(text);
        if effect.is_about_settings {
            pooled.resetting.handle_text(text.split(|&byte| byte == 0).next().unwrap_or_default());
        }
        pooled.pins.handle_statement(effect, alone);
    }

    /// Whether it is gprxy's turn: this message of the server answers something of gprxy's own, or comes behind something
    /// that gprxy has to answer.
    #[inline]
    pub(super) fn is_own_turn(&self, tag: u8) -> bool {
        match self.tracker.next() {
            Some(Op::Own | Op::AnsweredParse | Op::AnsweredClose) => true,
            // What it is warned of, the client was told when it parsed this itself.
            Some(Op::OwnParse) => matches!(tag, back::PARSE_COMPLETE | back::NOTICE_RESPONSE),
            Some(Op::OwnClose) => tag == back::CLOSE_COMPLETE,
            Some(Op::Refused(_) | Op::RefusedParse(_)) => tag == back::ERROR_RESPONSE,
            _ => false,
        }
    }

    /// Whether gprxy has an answer to give, and may.
    #[must_use]
    pub fn is_answer_due(&self) -> bool {
        self.pooled.is_some()
            && !self.from_server.is_inside()
            && matches!(self.tracker.next(), Some(Op::AnsweredParse | Op::AnsweredClose))
    }

    /// The next answer that is gprxy's own to give.
    pub fn answer_instead(&mut self, now: Now) -> Option<Step> {
        if !self.is_answer_due() {
            return None;
        }
        let tag =
            if self.tracker.next() == Some(Op::AnsweredParse) { back::PARSE_COMPLETE } else { back::CLOSE_COMPLETE };
        self.tracker.handle_answered();
        if let Some(ledger) = &mut self.ledger {
            ledger.count_answer(0);
            ledger.handle_backend(tag, b"", self.tracker.status(), now);
        }
        if let Some(pooled) = &mut self.pooled {
            let _ = pooled.statements.handle_done();
        }
        Some(Step::SayClient(vec![tag, 0, 0, 0, 4]))
    }

    /// The server answers a query of gprxy's own: nothing of it is for the client.
    pub(super) fn own_answer(&mut self, header: Header, bytes: &[u8], now: Now) -> Step {
        if let Some(step) = self.answer_instead(now) {
            return step;
        }
        if header.body > MAX_OWN_ANSWER {
            return Step::Broken(Violation::ParametersRefused);
        }
        let length = HEADER_LEN + header.body as usize;
        let Some(body) = bytes.get(HEADER_LEN..length) else { return Step::Wait };
        if let Some(leaves) = refused(self.tracker.next()) {
            return self.refused_answer(leaves, header, body, now);
        }
        match header.tag {
            back::PARAMETER_STATUS => {
                let reported = parameter_status(body);
                let room =
                    reported.is_ok_and(|(name, value)| crate::upstream::remember(&mut self.changed, name, value));
                if !room {
                    return Step::Broken(Violation::TooManyParameters);
                }
            }
            back::NOTICE_RESPONSE | back::NOTIFICATION_RESPONSE => {}
            back::PARSE_COMPLETE | back::CLOSE_COMPLETE => {
                let settled = self.tracker.handle_backend(header.tag, body, |_| {});
                if let Some(pooled) = &mut self.pooled {
                    let _ = pooled.handle_settled(settled, 0, false);
                }
            }
            back::ROW_DESCRIPTION | back::DATA_ROW | back::COMMAND_COMPLETE | back::READY_FOR_QUERY => {
                if let Settled::Ready(_) = self.tracker.handle_backend(header.tag, body, |_| {}) {
                    self.counts.own_answers = self.counts.own_answers.wrapping_add(1);
                    if self.status() != TransactionStatus::Idle {
                        return Step::Broken(Violation::ParametersRefused);
                    }
                }
            }
            back::ERROR_RESPONSE if ErrorFields::parse(body).is_fatal() => {
                // The server takes its leave, and says why.
                self.server_message(header.tag, header.body, body, now);
                return Step::Forward(length);
            }
            _ => return Step::Broken(Violation::ParametersRefused),
        }
        Step::Discard(length)
    }
}

//! Statements that are refused because of the state that they would leave behind ([`crate::policy::SessionState`]).
//!
//! The server gets words in their place that are no SQL, and refuses those: so what is pipelined behind is skipped, and an
//! open transaction fails, exactly as behind any other error. Its error goes to the client in gprxy's words.

use super::own::Pooled;
use super::pins::{self, Pins};
use super::tracker::Op;
use super::{Relay, Step, rules};
use crate::codec::backend::{ErrorFields, Severity, emit_error, tag as back};
use crate::codec::frontend::{emit_parse, emit_query, tag as front};
use crate::codec::{HEADER_LEN, Header, Reader};
use crate::fault::{Refusal, SqlState};
use crate::time::Now;

/// The name of what is prepared in a named statement's place, and never comes to be.
const NAME: &[u8] = b"gprxy_refused";

impl Relay {
    /// What is to be done with a statement, if it leaves state behind that is refused here.
    pub(super) fn refusal_of(&mut self, header: Header, seen: &[u8], front: bool, now: Now) -> Option<Step> {
        let pooled = self.pooled.as_ref().filter(|pooled| pooled.refuses)?;
        let mut reader = Reader::new(seen);
        let named = match header.tag {
            front::QUERY => false,
            front::PARSE => match reader.cstr() {
                Ok(name) => !name.is_empty(),
                // It is looked for, or refused, where names are followed.
                Err(_) => return None,
            },
            _ => return None,
        };
        let text = reader.rest();
        let whole = seen.len() == header.body as usize;
        if !whole && text.len() < pins::LOOK {
            return Some(Step::Wait);
        }
        let leaves = pooled.leaves(text);
        if leaves.is_empty() {
            return None;
        }
        if !front {
            return Some(Step::Wait);
        }
        if header.tag == front::QUERY && self.ledger.as_mut().is_some_and(|ledger| !ledger.take_permit()) {
            return Some(Step::NeedPermit);
        }
        Some(self.refuse(header, seen, named, leaves, now))
    }

    fn refuse(&mut self, header: Header, seen: &[u8], named: bool, leaves: Pins, now: Now) -> Step {
        let words = format!("gprxy refuses: {leaves}");
        let mut bytes = Vec::new();
        let is_query = header.tag == front::QUERY;
        if let Some(pooled) = &mut self.pooled {
            let statements = &mut pooled.statements;
            if is_query {
                emit_query(&mut bytes, words.as_bytes());
                statements.handle_query();
            } else {
                let definition = [words.as_bytes(), &[0, 0, 0]].concat();
                // The unnamed statement of before goes, as with every Parse of another one.
                if named {
                    statements.handle_other();
                } else {
                    statements.handle_unnamed(Some(&definition));
                }
                emit_parse(&mut bytes, if named { NAME } else { b"" }, &definition);
                statements.handle_own();
            }
        }
        let op = self.tracker.handle_frontend(header.tag);
        self.tracker.refuse_newest(leaves);
        if let Some(ledger) = &mut self.ledger {
            let keep = ledger.text_limit() + if is_query { 0 } else { rules::NAMES };
            // A name of any length has passed [`Self::refusal_of`] and fits.
            let _ = ledger.handle_frontend(header.tag, op, &seen[..seen.len().min(keep)], header.body, now);
        }
        self.touched = true;
        self.discard(header);
        Step::SayServer(bytes)
    }

    /// The server has refused what stands for a refused statement, or had another reason to.
    pub(super) fn refused_answer(&mut self, leaves: Pins, header: Header, body: &[u8], now: Now) -> Step {
        let length = HEADER_LEN + body.len();
        if ErrorFields::parse(body).code != Some(SqlState::SYNTAX_ERROR) {
            self.server_message(header.tag, header.body, body, now);
            return Step::Forward(length);
        }
        let mut own = Vec::new();
        emit_error(&mut own, Severity::Error, &refusal(leaves));
        let said = &own[HEADER_LEN..];
        self.server_message(back::ERROR_RESPONSE, u32::try_from(said.len()).unwrap_or(0), said, now);
        Step::Instead(length, own)
    }
}

impl Pooled {
    /// What the beginning of a statement leaves behind, as far as it shows.
    pub(super) fn leaves(&self, text: &[u8]) -> Pins {
        self.effect(text).leaves
    }
}

/// Whether the server's answer is to gprxy's words in a refused statement's place.
pub(super) const fn refused(op: Option<Op>) -> Option<Pins> {
    match op {
        Some(Op::Refused(leaves) | Op::RefusedParse(leaves)) => Some(leaves),
        _ => None,
    }
}

fn refusal(leaves: Pins) -> Refusal {
    let words = format!("this would tie the session to its server connection, which is not allowed here: {leaves}");
    Refusal::new(SqlState::FEATURE_NOT_SUPPORTED, words).hint(
        "Use what ends with its transaction (SET LOCAL, pg_advisory_xact_lock, ON COMMIT DROP), or a database whose \
         pool_mode is session; session_state = \"pin\" allows it.",
    )
}

//! The relay of an established session: header, skip, header, skip.
//!
//! [`Relay`] is shown what a socket has read and says how much of it may go to the other socket as it is. It owns
//! no payload: message bodies pass by, and only the few small ones that decide something are looked into.

mod by_sql;
mod caching;
mod counts;
mod framer;
mod ledger;
mod lookahead;
mod lost;
mod meaning;
mod names;
mod on_server;
mod own;
pub mod pins;
mod prepared;
mod refusing;
mod resetting;
mod rules;
pub mod statements;
pub mod tracker;
mod undo;
mod way;

use crate::codec::backend::{ErrorFields, TransactionStatus, parameter_status, tag as back};
use crate::codec::frontend::tag as front;
use crate::codec::{HEADER_LEN, Header};
use crate::fault::Violation;
use crate::time::Now;
use crate::upstream::{Parameters, remember};

use counts::Counts;
use framer::Framer;
pub use ledger::{Ledger, Outcome};
use lost::Lost;
pub use on_server::OnServer;
pub use own::Pooled;
use rules::Rule;
use tracker::{Settled, Tracker};
pub use way::shows_enough;

/// What the relay says of the bytes that it was shown.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Step {
    /// This many bytes at the front go to the other side.
    Forward(usize),
    /// This many bytes at the front are dropped: they belong to a statement that was refused.
    Discard(usize),
    /// In the place of this many bytes at the front these go to the other side.
    Instead(usize, Vec<u8>),
    /// These bytes of gprxy's own go to the server first; then the same bytes are to be shown again.
    SayServer(Vec<u8>),
    /// The same, to the client.
    SayClient(Vec<u8>),
    /// Nothing yet: more bytes are needed, or fewer unanswered operations.
    Wait,
    /// The client ends the session in order.
    Terminate,
    /// A statement begins at the front and its audit record has no place yet.
    NeedPermit,
    /// The peer broke the protocol.
    Broken(Violation),
}

/// Both directions of a session.
pub struct Relay {
    from_client: Framer,
    from_server: Framer,
    tracker: Tracker,
    ledger: Option<Box<Ledger>>,
    /// What a session needs that changes its server connection.
    pooled: Option<Box<Pooled>>,
    /// The server has announced its end by a FATAL error.
    server_is_leaving: bool,
    /// Bytes of a refused statement that are still to be dropped.
    discard: u32,
    /// The places in the audit trail that were there when another one was asked for ahead of its statement.
    asked_with: Option<u32>,
    /// What fails over something of gprxy's own.
    lost: Lost,
    /// The server was asked for all answers that it has, and has said nothing since.
    flushed: bool,
    /// Whether any message was forwarded: a session that never spoke leaves nothing behind.
    touched: bool,
    /// ParameterStatus values since the session began.
    changed: Parameters,
    /// Why nothing more may pass.
    fault: Option<Violation>,
    counts: Counts,
}

impl Relay {
    /// Right after the server's login; with a ledger, every statement is written down.
    #[must_use]
    pub fn new(ledger: Option<Box<Ledger>>, pooled: Option<Box<Pooled>>) -> Self {
        Self {
            from_client: Framer::default(),
            from_server: Framer::default(),
            tracker: Tracker::default(),
            ledger,
            pooled,
            server_is_leaving: false,
            discard: 0,
            asked_with: None,
            lost: Lost::default(),
            flushed: false,
            touched: false,
            changed: Vec::new(),
            fault: None,
            counts: Counts::default(),
        }
    }

    /// What is owed, and the state of the transaction.
    #[must_use]
    pub const fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Both directions stand between messages and nothing is owed; a transaction block may be open.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.tracker.is_quiet() && !self.from_client.is_inside() && !self.from_server.is_inside()
    }

    /// Own messages may be put into the stream to the client now.
    #[must_use]
    pub const fn is_between_server_messages(&self) -> bool {
        !self.from_server.is_inside()
    }

    /// Whether the server has announced its end itself.
    #[must_use]
    pub const fn server_is_leaving(&self) -> bool {
        self.server_is_leaving
    }

    /// Why nothing more may pass, when that is so.
    #[must_use]
    pub const fn fault(&self) -> Option<Violation> {
        self.fault
    }

    /// Whether the session sent anything at all.
    #[must_use]
    pub const fn is_touched(&self) -> bool {
        self.touched
    }

    /// The audit trail's side of the session.
    pub fn ledger_mut(&mut self) -> Option<&mut Ledger> {
        self.ledger.as_deref_mut()
    }

    /// The parameters that the server reported as changed, oldest first.
    pub fn take_changed(&mut self) -> Parameters {
        std::mem::take(&mut self.changed)
    }

    /// Bytes from the client.
    pub fn handle_client(&mut self, bytes: &[u8], now: Now) -> Step {
        if self.discard > 0 {
            return self.pass_discarded(bytes);
        }
        if let Some(step) = self.sync_for_query().or_else(|| self.answer_instead(now)) {
            return step;
        }
        if self.lacks_permits(bytes) {
            return Step::NeedPermit;
        }
        let mut at = 0;
        loop {
            if self.from_client.is_inside() {
                at += self.from_client.pass(&bytes[at..]);
                if self.from_client.is_inside() {
                    return forward_or_wait(at);
                }
                let (tag, body, kept) = self.from_client.take_kept();
                self.client_message(tag, body, &kept, now);
            }
            if let Some(fault) = self.fault {
                return forward_or(at, Step::Broken(fault));
            }
            let header = match Header::parse(&bytes[at..]) {
                Ok(Some(header)) => header,
                Ok(None) => return forward_or_wait(at),
                Err(violation) => return forward_or(at, Step::Broken(violation)),
            };
            let keep = match rules::from_client(header.tag, self.text_limit()) {
                Rule::Pass(keep) => keep,
                Rule::Terminate => return forward_or(at, Step::Terminate),
                Rule::Refuse => return forward_or(at, Step::Broken(Violation::UnexpectedMessage(header.tag))),
            };
            if self.is_full() {
                return if at > 0 { Step::Forward(at) } else { self.full() };
            }
            if self.tracker.is_query_in_question() || self.is_sync_due() {
                return forward_or_wait(at);
            }
            if self.ledger.is_some() && names_too_much(header) {
                return forward_or(at, Step::Broken(Violation::NameTooLong));
            }
            if self.pooled.is_some()
                && let Some(step) = self.way(header, &bytes[at..], at == 0, now)
            {
                let step = if step == Step::Wait { self.wait(at == 0) } else { step };
                return forward_or(at, step);
            }
            if begins_statement(header.tag)
                && let Some(ledger) = &mut self.ledger
                && !ledger.take_permit()
            {
                return forward_or(at, Step::NeedPermit);
            }
            at += HEADER_LEN;
            self.touched = true;
            match bytes.get(at..at + header.body as usize) {
                Some(body) => {
                    let seen = &body[..body.len().min(keep)];
                    self.client_message(header.tag, header.body, seen, now);
                    at += body.len();
                }
                None => self.from_client.begin(header, keep),
            }
        }
    }

    /// Whether so much is without its answer that no more is taken in.
    fn is_full(&self) -> bool {
        self.tracker.is_full()
            || self.ledger.as_ref().is_some_and(|ledger| ledger.is_full())
            || self.pooled.as_ref().is_some_and(|pooled| pooled.statements.holds_too_much())
    }

    /// No more is taken in before something is answered. What gprxy answers itself makes the server say nothing by itself:
    /// where that stands behind an answer that the server keeps for a Flush, it is asked for that.
    fn full(&mut self) -> Step {
        if self.pooled.is_some() { self.ask_once() } else { Step::Wait }
    }

    /// The server is asked for what it keeps, once until it says something.
    fn ask_once(&mut self) -> Step {
        if std::mem::replace(&mut self.flushed, true) {
            return Step::Wait;
        }
        Step::SayServer(vec![front::FLUSH, 0, 0, 0, 4])
    }

    /// Bytes from the server.
    pub fn handle_server(&mut self, bytes: &[u8], now: Now) -> Step {
        self.flushed = false;
        let mut at = 0;
        loop {
            if self.from_server.is_inside() {
                at += self.from_server.pass(&bytes[at..]);
                if self.from_server.is_inside() {
                    return forward_or_wait(at);
                }
                let (tag, body, kept) = self.from_server.take_kept();
                self.server_message(tag, body, &kept, now);
            }
            if let Some(fault) = self.fault {
                return forward_or(at, Step::Broken(fault));
            }
            let header = match Header::parse(&bytes[at..]) {
                Ok(Some(header)) => header,
                Ok(None) => return forward_or_wait(at),
                Err(violation) => return forward_or(at, Step::Broken(violation)),
            };
            if self.pooled.is_some() && self.is_own_turn(header.tag) {
                return if at > 0 { Step::Forward(at) } else { self.own_answer(header, bytes, now) };
            }
            let Rule::Pass(keep) = rules::from_server(header.tag, self.ledger.is_some() || self.pooled.is_some())
            else {
                return forward_or(at, Step::Broken(Violation::UnexpectedMessage(header.tag)));
            };
            at += HEADER_LEN;
            match bytes.get(at..at + header.body as usize) {
                Some(body) => {
                    let seen = &body[..body.len().min(keep)];
                    self.server_message(header.tag, header.body, seen, now);
                    at += body.len();
                }
                // Its one byte is worth waiting for: nothing has to be kept of what every query ends with.
                None if header.tag == back::READY_FOR_QUERY && header.body == 1 => {
                    return forward_or_wait(at - HEADER_LEN);
                }
                None => self.from_server.begin(header, keep),
            }
        }
    }

    /// The statement at the client's front is refused: its message will be dropped. `false` when that is not
    /// possible here because the server's state depends on what follows; the session must end then.
    pub fn handle_refused(&mut self, bytes: &[u8]) -> bool {
        match Header::parse(bytes) {
            // Inside of a transaction PostgreSQL would have failed all of it; an answer of ours could not.
            Ok(Some(header))
                if header.tag == front::QUERY
                    && self.is_quiet()
                    && self.status() != TransactionStatus::InTransaction =>
            {
                self.discard = header.body + HEADER_LEN as u32; // at most 1 GiB
                true
            }
            _ => false,
        }
    }

    /// Whether statements in sight have no place in the audit trail yet. Places for all of them before any of them
    /// goes: what a driver sends in one piece reaches the server in one. Where one is refused, each statement is
    /// decided on when it is at the front.
    fn lacks_permits(&mut self, bytes: &[u8]) -> bool {
        let Some(ledger) = &self.ledger else { return false };
        let asked_with = self.asked_with.take();
        if self.from_client.is_inside() || ledger.has_permits(|| lookahead::statements(bytes)) {
            return false;
        }
        let refused = asked_with.is_some_and(|before| ledger.permits() <= before);
        if !refused {
            self.asked_with = Some(ledger.permits());
        }
        !refused
    }

    /// The message at the client's front is to be dropped.
    pub const fn discard(&mut self, header: Header) {
        self.discard = header.body + HEADER_LEN as u32; // at most 1 GiB
    }

    /// Whether the next bytes of the client belong to a message that is dropped.
    #[must_use]
    pub const fn is_discarding(&self) -> bool {
        self.discard > 0
    }

    fn pass_discarded(&mut self, bytes: &[u8]) -> Step {
        let n = bytes.len().min(self.discard as usize);
        self.discard -= n as u32; // n <= self.discard
        if n == 0 { Step::Wait } else { Step::Discard(n) }
    }

    /// The status to report after an own answer in the server's place.
    #[must_use]
    pub const fn status(&self) -> TransactionStatus {
        self.tracker.status()
    }

    /// How much of a statement's text is wanted, if any.
    fn text_limit(&self) -> Option<usize> {
        let audited = self.ledger.as_ref().map(|ledger| ledger.text_limit());
        let pooled = self.pooled.as_ref().map(|_| pins::LOOK);
        audited.max(pooled)
    }

    fn client_message(&mut self, tag: u8, body: u32, seen: &[u8], now: Now) {
        self.look_for_pins(tag, seen);
        self.counts.handle_frontend(tag);
        let op = self.tracker.handle_frontend(tag).or_else(|| self.skipped_query(tag));
        if let Some(pooled) = &mut self.pooled {
            match tag {
                front::PARSE | front::CLOSE => pooled.statements.handle_whole(op.is_some()),
                // A Bind evaluates, too.
                front::BIND | front::EXECUTE | front::QUERY | front::FUNCTION_CALL => pooled.statements.has_run = true,
                _ => {}
            }
        }
        if let Some(ledger) = &mut self.ledger
            && !ledger.handle_frontend(tag, op, seen, body, now)
        {
            self.fault = Some(Violation::NameTooLong);
        }
        self.note_confusion();
    }

    /// Answers and questions that do not fit together any more could be somebody else's before long.
    fn note_confusion(&mut self) {
        if self.tracker.is_confused() && self.fault.is_none() {
            self.fault = Some(Violation::OutOfStep);
        }
    }

    #[inline]
    fn server_message(&mut self, tag: u8, body: u32, seen: &[u8], now: Now) {
        if tag == back::DATA_ROW || tag == back::COPY_DATA {
            if let Some(ledger) = &mut self.ledger {
                ledger.count_answer(body);
            }
            return;
        }
        match tag {
            back::ERROR_RESPONSE if ErrorFields::parse(seen).is_fatal() => self.server_is_leaving = true,
            back::PARAMETER_STATUS => {
                if let Ok((name, value)) = parameter_status(seen)
                    && !remember(&mut self.changed, name, value)
                {
                    self.fault = Some(Violation::TooManyParameters);
                }
            }
            _ => {}
        }
        if let Some(pooled) = &mut self.pooled {
            pooled.handle_server(tag, seen);
        }
        let Self { tracker, ledger, pooled, lost, .. } = self;
        let mut failed = 0;
        lost.handle_backend(tag, tracker.next());
        let settled = match ledger {
            None => tracker.handle_backend(tag, seen, |op| {
                failed += usize::from(op.prepares());
                lost.handle_dropped(op);
            }),
            Some(ledger) => {
                ledger.count_answer(body);
                let settled = tracker.handle_backend(tag, seen, |op| {
                    failed += usize::from(op.prepares());
                    // One that is lost has its outcome all the same.
                    if !lost.handle_dropped(op) {
                        ledger.handle_dropped(op);
                    }
                });
                ledger.handle_backend(tag, seen, tracker.status(), now);
                settled
            }
        };
        if let Some(pooled) = pooled {
            if matches!(settled, Settled::Ready(_)) {
                pooled.statements.has_run = tracker.is_running();
            }
            if pooled.statements.awaits_flush() && tracker.next().is_none() {
                pooled.statements.handle_all_answered();
            }
            if !pooled.handle_settled(settled, failed, tracker.is_skipping()) && self.fault.is_none() {
                self.fault = Some(Violation::OutOfStep);
            }
        }
        self.note_confusion();
    }
}

/// Whether a name in this message is longer than a ledger keeps: it goes nowhere, and needs no place.
fn names_too_much(header: Header) -> bool {
    matches!(header.tag, front::EXECUTE | front::CLOSE) && header.body as usize > rules::NAMES
}

/// Messages behind which a statement runs.
const fn begins_statement(tag: u8) -> bool {
    matches!(tag, front::QUERY | front::EXECUTE | front::FUNCTION_CALL)
}

fn forward_or_wait(at: usize) -> Step {
    forward_or(at, Step::Wait)
}

/// What precedes the message in question goes first; the question comes up again with it at the front.
fn forward_or(at: usize, step: Step) -> Step {
    if at > 0 { Step::Forward(at) } else { step }
}

#[cfg(test)]
mod tests;

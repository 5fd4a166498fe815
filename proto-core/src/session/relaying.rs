//! A session with its server connection.

use std::sync::Arc;

use crate::audit::{Event, Record, SessionEnd, SessionFacts};
use crate::auth::Authenticated;
use crate::codec::backend::{Severity, TransactionStatus, emit_error, emit_ready_for_query};
use crate::fault::{Lost, Refusal, SqlState, Violation};
use crate::pool::{Lease, PoolMode};
use crate::relay::pins::Pin;
use crate::relay::{Outcome, Relay, Step};
use crate::time::{Now, Tick};

use super::clocks::{Clocks, Standing};
use super::pooling;
use super::{Action, Finish, Output, Phase, Return, ReturnState, Session, Side, Verdict};

/// Cannot be built without a proof; nothing goes to a server without a lease.
pub(super) struct Relaying {
    /// Kept as long as the relay runs: who this is.
    pub(super) who: Authenticated,
    pub(super) server: Server,
    pub(super) mode: PoolMode,
    pub(super) facts: Arc<SessionFacts>,
    pub(super) relay: Relay,
    pub(super) draining: bool,
    /// Its server connection is to be closed, and the session with it.
    pub(super) stale: bool,
    /// A place in the audit trail was asked for; until it is there nothing of the client is looked at.
    reserving: bool,
    /// The audit trail has no place: the statement at the client's front is refused.
    unrecorded: bool,
    /// Why it ends with the next wake-up.
    pub(super) doomed: Option<Box<Refusal>>,
    /// Whether the client has been told that it keeps its server connection.
    pub(super) pinned: Pinned,
    /// The server has sent the beginning of something that is not judged yet.
    pub(super) unread: bool,
    /// Its server connection is being brought to its parameters.
    pub(super) preparing: bool,
    /// Whether what waits for a server connection has been cancelled.
    pub(super) cancelled: Cancelled,
    /// What was judged is still to be forwarded, and then the server connection may go.
    pub(super) leaving: bool,
    /// It keeps its server connection between transactions, and how often it has begun to.
    pub(super) held: bool,
    pub(super) times_held: u32,
    /// Where anything has a limit in time.
    pub(super) clocks: Option<Box<Clocks>>,
    began: Tick,
}

/// Whether a session has a server connection.
pub(super) enum Server {
    /// It has.
    Leased(Lease),
    /// It needs none before its client says something.
    Away,
    /// It waits for one.
    Asked,
}

/// What became of a statement that waited for a server connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// Nothing.
    No,
    /// It is cancelled and not yet answered.
    Untold,
    /// It is answered, and what belongs to it is skipped up to the next Sync.
    Skipping,
}

/// What a client knows of keeping its server connection between transactions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pinned {
    /// It does not, and never has.
    No,
    /// It does and will be told, once what was judged is forwarded.
    Untold,
    /// It has been told.
    Told,
}

impl Relaying {
    pub(super) fn new(
        who: Authenticated,
        lease: Option<Lease>,
        mode: PoolMode,
        facts: Arc<SessionFacts>,
        relay: Relay,
        now: Now,
    ) -> Self {
        let (server, began) = (lease.map_or(Server::Away, Server::Leased), now.tick);
        Self {
            who,
            server,
            mode,
            facts,
            relay,
            draining: false,
            stale: false,
            reserving: false,
            unrecorded: false,
            doomed: None,
            pinned: Pinned::No,
            unread: false,
            preparing: false,
            cancelled: Cancelled::No,
            leaving: false,
            held: false,
            times_held: 0,
            clocks: None,
            began,
        }
    }

    /// Whether messages can go to a server.
    pub(super) const fn has_server(&self) -> bool {
        matches!(self.server, Server::Leased(_))
    }

    /// A server connection was asked for and is not there yet.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.server, Server::Asked)
    }

    /// A place in the audit trail was asked for and is not there yet.
    pub(super) const fn is_reserving(&self) -> bool {
        self.reserving
    }

    /// A cancel while it waits for its server connection.
    pub(super) fn handle_cancel(&mut self) {
        self.server = Server::Away;
        self.cancelled = Cancelled::Untold;
    }

    /// Time goes on where anything has a limit.
    pub(super) fn keep_time(&mut self, heard: bool, now: Now) {
        let waiting = self.is_waiting();
        let Some(clocks) = &mut self.clocks else { return };
        let standing = Standing { busy: waiting || !self.relay.is_quiet(), waiting, heard };
        clocks.handle_progress(&self.relay, &standing, now.tick);
    }

    /// Something is to be said to the client behind what was judged.
    pub(super) fn has_something_to_say(&self) -> bool {
        self.leaving
            || self.relay.is_sync_due()
            || self.relay.is_answer_due()
            || self.pinned == Pinned::Untold && self.relay.is_between_server_messages()
    }

    /// The last of what the server will not listen to any more is on its way.
    fn may_leave(&self) -> bool {
        self.mode != PoolMode::Session && self.has_server() && self.relay.is_between_transactions()
    }

    /// It ends with the next wake-up: what was judged before is forwarded first.
    pub(super) fn is_over(&self) -> bool {
        self.relay.fault().is_some() || self.doomed.is_some() || self.may_drain()
    }

    /// The drain has begun and no transaction is under way.
    fn may_drain(&self) -> bool {
        (self.draining || self.stale) && self.relay.is_quiet() && self.relay.status() == TransactionStatus::Idle
    }
}

impl Session {
    /// Turns the relay's step into a verdict. The hot path is its first arm.
    #[inline]
    pub(super) fn relay_step(&mut self, from: Side, step: Step, bytes: &[u8], now: Now) -> Verdict {
        match step {
            Step::Forward(n) => {
                if from == Side::Server {
                    self.record_outcomes();
                    self.heard(n == bytes.len());
                    self.answered();
                } else if let Phase::Relaying(relaying) = &mut self.phase {
                    // The rest of COPY data, say, whose COPY has failed meanwhile.
                    relaying.leaving = relaying.may_leave();
                }
                Verdict::Forward(n)
            }
            // Said before.
            Step::Wait | Step::SayServer(_) | Step::SayClient(_) | Step::Instead(..) => Verdict::Wait,
            Step::Discard(n) => {
                if from == Side::Server {
                    let is_prepared = self.prepared();
                    self.heard(n == bytes.len());
                    // What the client has said, and the connection was borrowed for, goes first.
                    if !is_prepared {
                        self.answered();
                    }
                } else {
                    self.release_between();
                }
                Verdict::Take(n)
            }
            Step::NeedPermit => self.need_permit(bytes, now),
            Step::Terminate => {
                self.leave(Finish::Terminated, now);
                Verdict::Take(bytes.len())
            }
            Step::Broken(violation) => {
                self.broken(blame(violation).unwrap_or(from), violation, now);
                Verdict::Take(bytes.len())
            }
        }
    }

    #[inline]
    pub(super) fn record_outcomes(&mut self) {
        let Phase::Relaying(relaying) = &mut self.phase else { return };
        if let Some(ledger) = relaying.relay.ledger_mut() {
            while let Some(outcome) = ledger.poll_outcome() {
                self.out.push_back(statement_record(outcome, &relaying.facts));
            }
        }
        if relaying.relay.is_quiet()
            && let Some(ledger) = relaying.relay.ledger_mut()
        {
            let spare = ledger.take_spare_permits();
            if spare > 0 {
                self.out.push_back(Output::Do(Action::Unreserve(spare)));
            }
        }
    }

    /// What gprxy has to say behind what was forwarded.
    pub(super) fn answer_due(&mut self, now: Now) {
        let Phase::Relaying(relaying) = &mut self.phase else { return };
        if let Some(Step::SayServer(own)) = relaying.relay.sync_for_query() {
            self.out.push_back(Output::Send(Side::Server, own));
        }
        while let Some(Step::SayClient(own)) = relaying.relay.answer_instead(now) {
            self.out.push_back(Output::Send(Side::Client, own));
        }
        if relaying.pinned == Pinned::Untold && relaying.relay.is_between_server_messages() {
            relaying.pinned = Pinned::Told;
            let notice = pooling::pinned(relaying.relay.pins());
            self.write(|out| emit_error(out, Severity::Notice, &notice));
        }
    }

    fn need_permit(&mut self, bytes: &[u8], now: Now) -> Verdict {
        let Phase::Relaying(relaying) = &mut self.phase else { return Verdict::Wait };
        if relaying.unrecorded && relaying.relay.is_preparing() {
            // Its answer comes behind that of gprxy's own query.
            return Verdict::Wait;
        }
        if relaying.unrecorded {
            relaying.unrecorded = false;
            if !relaying.relay.handle_refused(bytes) {
                self.relaying_killed(unrecorded(), now);
                return Verdict::Take(bytes.len());
            }
            let status = relaying.relay.status();
            let Verdict::Take(n) = self.discard_front(bytes, now) else { return Verdict::Wait };
            self.write(|out| {
                emit_error(out, Severity::Error, &unrecorded());
                emit_ready_for_query(out, status);
            });
            self.release_between();
            return Verdict::Take(n);
        }
        if !relaying.reserving {
            relaying.reserving = true;
            self.out.push_back(Output::Do(Action::Reserve));
        }
        Verdict::Wait
    }

    fn discard_front(&mut self, bytes: &[u8], now: Now) -> Verdict {
        let Phase::Relaying(relaying) = &mut self.phase else { return Verdict::Wait };
        match relaying.relay.handle_client(bytes, now) {
            Step::Discard(n) => Verdict::Take(n),
            _ => Verdict::Wait,
        }
    }

    pub(super) fn relaying_reserved(&mut self, granted: bool) {
        let Phase::Relaying(relaying) = &mut self.phase else { return };
        if !std::mem::take(&mut relaying.reserving) {
            return;
        }
        match relaying.relay.ledger_mut() {
            Some(ledger) if granted => ledger.handle_permit(),
            _ => relaying.unrecorded = true,
        }
    }

    pub(super) fn relaying_closed(&mut self, side: Side, how: Lost, now: Now) {
        let Phase::Relaying(relaying) = &self.phase else { return };
        if side == Side::Client {
            return self.leave(Finish::Lost(side, how), now);
        }
        if !relaying.relay.server_is_leaving() && relaying.relay.is_between_server_messages() {
            let refusal = server_lost();
            self.write(|out| emit_error(out, Severity::Fatal, &refusal));
        }
        self.leave(Finish::Lost(side, how), now);
    }

    fn broken(&mut self, side: Side, violation: Violation, now: Now) {
        let Phase::Relaying(relaying) = &self.phase else { return };
        if relaying.relay.is_between_server_messages() {
            let refusal = match side {
                Side::Client => violation.into(),
                Side::Server => server_broke_protocol(violation),
            };
            self.write(|out| emit_error(out, Severity::Fatal, &refusal));
        }
        self.leave(Finish::Broken(side, violation), now);
    }

    pub(super) fn relaying_killed(&mut self, refusal: Refusal, now: Now) {
        let Phase::Relaying(relaying) = &self.phase else { return };
        if relaying.relay.is_between_server_messages() {
            self.write(|out| emit_error(out, Severity::Fatal, &refusal));
        }
        self.leave(Finish::Refused(refusal), now);
    }

    /// A limit in time may have passed.
    pub(super) fn end_if_timed_out(&mut self, now: Now) {
        let Phase::Relaying(relaying) = &mut self.phase else { return };
        relaying.keep_time(false, now);
        let passed = relaying.clocks.as_mut().and_then(|clocks| clocks.handle_timeout(now.tick));
        if let Some(refusal) = passed {
            self.relaying_killed(refusal, now);
        }
    }

    pub(super) fn end_if_over(&mut self, now: Now) {
        let Phase::Relaying(relaying) = &self.phase else { return };
        if let Some(fault) = relaying.relay.fault() {
            self.broken(blame(fault).unwrap_or(Side::Client), fault, now);
        } else if let Some(refusal) = relaying.doomed.clone() {
            self.relaying_killed(*refusal, now);
        } else if relaying.may_drain() && !relaying.draining {
            self.relaying_killed(Refusal::new(SqlState::ADMIN_SHUTDOWN, "database configuration changed"), now);
        } else if relaying.may_drain() {
            let refusal = Refusal::new(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command: gprxy is shutting down",
            );
            self.write(|out| emit_error(out, Severity::Fatal, &refusal));
            self.leave(Finish::Drained, now);
        }
    }

    /// The session is over: the server connection goes back in the state it is in.
    pub(super) fn leave(&mut self, finish: Finish, now: Now) {
        self.last = Some(Box::new(self.progress()));
        let phase = std::mem::replace(&mut self.phase, Phase::Closing(now.tick));
        let Phase::Relaying(relaying) = phase else { return };
        let Relaying { server, mode, facts, mut relay, began, .. } = *relaying;
        let server_unusable = matches!(finish, Finish::Lost(Side::Server, _) | Finish::Broken(Side::Server, _))
            || relay.server_is_leaving()
            || relay.tracker().is_confused()
            || relay.pins().has(Pin::Library);
        let said_goodbye = finish == Finish::Terminated;
        let state = if server_unusable || (said_goodbye && !relay.is_quiet()) {
            // A client that takes its leave behind its last statements has them run, as by PostgreSQL itself.
            ReturnState::Broken
        } else if relay.is_quiet() {
            // Between transactions it holds what its owner has left there before.
            let touched = relay.is_touched() || mode != PoolMode::Session;
            ReturnState::Quiet { status: relay.status(), touched }
        } else {
            ReturnState::Busy
        };
        if let Some(ledger) = relay.ledger_mut() {
            ledger.handle_end(now);
            while let Some(outcome) = ledger.poll_outcome() {
                self.out.push_back(statement_record(outcome, &facts));
            }
            let (from_client, to_client) = ledger.totals();
            let event = Event::SessionEnd(SessionEnd {
                statements: ledger.recorded(),
                duration: now.tick.since(began),
                reason: describe(&finish).into(),
                sqlstate: match &finish {
                    Finish::Refused(refusal) => Some(refusal.code),
                    _ => None,
                },
                bytes_to_client: to_client,
                bytes_to_server: from_client,
            });
            self.out.push_back(Output::Audit(Box::new(Record { time: now.unix, facts, event })));
        }
        match server {
            Server::Leased(lease) => {
                let (changed, statements) = (relay.take_changed(), relay.take_statements());
                self.out.push_back(Output::Do(Action::Release(Return { lease, state, changed, statements })));
            }
            Server::Asked => self.out.push_back(Output::Do(Action::GiveUp)),
            Server::Away => {}
        }
        self.finish(finish, now);
    }
}

/// Whose doing it is, where that does not depend on whose bytes showed it.
const fn blame(violation: Violation) -> Option<Side> {
    match violation {
        Violation::OutOfStep | Violation::NameTooLong => Some(Side::Client),
        Violation::TooManyParameters | Violation::ParametersRefused => Some(Side::Server),
        _ => None,
    }
}

/// What was run has a place in the trail; what failed before it ran takes one if there is any.
fn statement_record(outcome: Outcome, facts: &Arc<SessionFacts>) -> Output {
    let ran = outcome.ran();
    let record = Box::new(outcome.into_record(facts));
    if ran { Output::AuditStatement(record) } else { Output::Audit(record) }
}

/// The word for an end in the audit trail.
pub(super) const fn describe(finish: &Finish) -> &'static str {
    match finish {
        Finish::Terminated | Finish::Untouched | Finish::Cancel => "client terminated",
        Finish::Lost(Side::Client, _) => "client lost",
        Finish::Lost(Side::Server, _) => "server lost",
        Finish::Broken(Side::Client, _) => "client broke the protocol",
        Finish::Broken(Side::Server, _) => "server broke the protocol",
        Finish::Refused(_) => "terminated by gprxy",
        Finish::Drained => "shutdown",
    }
}

fn unrecorded() -> Refusal {
    Refusal::new(SqlState::IO_ERROR, "the audit trail cannot be written, and no statement runs unrecorded")
        .hint("The operator of gprxy finds the reason in its log; audit.on_failure decides what happens.")
}

fn server_lost() -> Refusal {
    Refusal::new(SqlState::ADMIN_SHUTDOWN, "the PostgreSQL server closed the connection unexpectedly")
        .hint("Connect again; the server may have been restarted or may have crashed.")
}

fn server_broke_protocol(violation: Violation) -> Refusal {
    Refusal::new(
        SqlState::PROTOCOL_VIOLATION,
        format!("the PostgreSQL server broke the protocol: {}", violation.describe()),
    )
}

//! A proven client waits for a server connection.

use std::sync::Arc;

use crate::audit::{Event, Record};
use crate::auth::Authenticated;
use crate::cancel::CancelKey;
use crate::codec::backend::{
    Severity, TransactionStatus, emit_authentication_ok, emit_backend_key_data, emit_error, emit_parameter_status,
    emit_ready_for_query,
};
use crate::fault::{Refusal, SqlState};
use crate::policy::{SessionTerms, Timeouts};
use crate::pool::{Lease, PoolMode};
use crate::preamble::Startup;
use crate::relay::{Ledger, OnServer, Pooled, Relay};
use crate::time::{Deadline, Now, Tick, Timer};
use crate::upstream::{Parameters, Reported};

use super::clocks::{self, Clocks};
use super::pooling;
use super::relaying::Relaying;
use super::{Action, Finish, Leased, Output, Phase, Return, ReturnState, Session, login_timed_out};

pub(super) struct Leasing {
    pub(super) startup: Startup,
    pub(super) who: Option<Authenticated>,
    pub(super) account: Option<Arc<str>>,
    pub(super) mode: PoolMode,
    /// What holds for the session once it is up.
    pub(super) terms: Arc<SessionTerms>,
    pub(super) timeouts: Timeouts,
    /// When its `query_timeout` is over, which counts for the wait, too.
    query_until: Option<Tick>,
    key: Option<CancelKey>,
}

impl Leasing {
    pub(super) fn new(startup: Startup, who: Option<Authenticated>, account: Option<Arc<str>>) -> Self {
        let (mode, terms) = (PoolMode::Session, Arc::default());
        Self { startup, who, account, mode, terms, timeouts: Timeouts::default(), query_until: None, key: None }
    }

    /// What holds for the session, its wait for a server connection included.
    pub(super) fn limit(&mut self, timeouts: Timeouts, now: Now) {
        self.timeouts = timeouts;
        self.query_until = (!timeouts.query.is_zero()).then(|| now.tick.after(timeouts.query));
    }

    /// Who waits without a proof waits on the login's time.
    pub(super) const fn poll_timeout(&self, login_until: Tick) -> Option<Deadline> {
        match (&self.who, self.query_until) {
            (None, _) => Some(Deadline { at: login_until, why: Timer::ClientLogin }),
            (Some(_), Some(at)) => Some(Deadline { at, why: Timer::Query }),
            (Some(_), None) => None,
        }
    }
}

/// The connection that a session begins with: what its login reported, where it was bare, and what is prepared there.
type Served = (Lease, Option<Arc<Parameters>>, Option<Box<OnServer>>);

impl Session {
    /// A client that is proven gets its cancel key before its turn, so that it can cancel while it waits.
    pub(super) fn leasing_enrolled(&mut self, key: CancelKey) {
        let Phase::Leasing(leasing) = &mut self.phase else { return };
        if leasing.who.is_some() {
            self.write(|out| emit_backend_key_data(out, key.pid(), key.key()));
        } else {
            leasing.key = Some(key);
        }
    }

    pub(super) fn leasing_timed_out(&mut self, now: Now) {
        let Phase::Leasing(leasing) = &self.phase else { return };
        let Some(due) = leasing.poll_timeout(self.login_until).filter(|due| due.at <= now.tick) else { return };
        let refusal = clocks::refusal(&leasing.timeouts, due.why).unwrap_or_else(login_timed_out);
        self.out.push_back(Output::Do(Action::GiveUp));
        self.refuse(refusal, now);
    }

    pub(super) fn leasing_waiting(&mut self, notice: &Refusal) {
        // Before AuthenticationOk a client expects nothing but the end of the login.
        let may_be_told = match &self.phase {
            Phase::Leasing(leasing) => leasing.who.is_some(),
            Phase::Relaying(relaying) => relaying.is_waiting(),
            _ => false,
        };
        if may_be_told {
            self.write(|out| emit_error(out, Severity::Notice, notice));
        }
    }

    pub(super) fn leasing_refused(&mut self, refusal: Refusal, now: Now) {
        match &self.phase {
            Phase::Leasing(_) => self.refuse(refusal, now),
            Phase::Looking(_) => self.looking_refused(&refusal, now),
            Phase::Relaying(relaying) if relaying.is_waiting() => self.relaying_killed(refusal, now),
            _ => {}
        }
    }

    /// The server's own words reach the client, with their SQLSTATE.
    pub(super) fn leasing_refused_by_server(&mut self, message: Box<[u8]>, refusal: Refusal, now: Now) {
        match &self.phase {
            Phase::Looking(_) => self.looking_refused(&refusal, now),
            Phase::Leasing(_) => {
                self.send(message.into_vec());
                self.note_refusal(&refusal, now);
                self.finish(Finish::Refused(refusal), now);
            }
            Phase::Relaying(relaying) if relaying.is_waiting() => {
                self.send(message.into_vec());
                self.leave(Finish::Refused(refusal), now);
            }
            _ => {}
        }
    }

    /// What the client is to be told of its server is known from others: it need not wait for one before it has something
    /// to say.
    pub(super) fn leasing_welcome(&mut self, reported: Reported, now: Now) {
        let Phase::Leasing(leasing) = &mut self.phase else { return };
        if let (Some(who), PoolMode::Transaction | PoolMode::Statement) = (leasing.who.take(), leasing.mode) {
            self.begin_relaying(who, None, &reported, now);
        }
    }

    /// A server connection is there: for a session that begins, or for its next transaction.
    pub(super) fn leased(&mut self, leased: Leased, now: Now) {
        let leasing = match &mut self.phase {
            Phase::Leasing(leasing) => leasing,
            Phase::Relaying(_) => return self.borrowed(leased),
            Phase::Looking(_) => return self.looking_leased(leased, now),
            _ => return self.give_back_unused(leased),
        };
        let proven_now = leasing.who.is_none();
        let Some(who) = leasing.who.take().or_else(|| leased.proof.clone()) else {
            return self.give_back_unused(leased);
        };
        let Leased { lease, parameters, bare, statements, .. } = leased;
        if proven_now {
            let key = leasing.key.take();
            self.write(|out| {
                emit_authentication_ok(out);
                if let Some(key) = key {
                    emit_backend_key_data(out, key.pid(), key.key());
                }
            });
        }
        self.begin_relaying(who, Some((lease, bare, statements)), &parameters, now);
    }

    fn begin_relaying(&mut self, who: Authenticated, server: Option<Served>, parameters: &Reported, now: Now) {
        let Phase::Leasing(leasing) = &self.phase else { return };
        let (startup, account, mode) = (&leasing.startup, leasing.account.as_deref(), leasing.mode);
        let clocks = Clocks::new(leasing.timeouts, now.tick);
        let facts = self.facts_of(startup, Some(&who), account);
        // What somebody else has set there since its login is not for this session.
        let mut reported = if mode == PoolMode::Session { parameters.clone() } else { parameters.at_login() };
        let pooled = (mode != PoolMode::Session).then(|| {
            pooling::take_on(startup, &mut reported);
            Box::new(Pooled::new(reported.clone(), &leasing.terms))
        });
        let notice = &self.profile.startup.login_notice;
        let notice = (!notice.is_empty()).then(|| Refusal::new(SqlState::SUCCESS, notice.clone()));
        self.write(|out| {
            for (name, value) in reported.iter() {
                emit_parameter_status(out, name, value);
            }
            if let Some(notice) = notice {
                emit_error(out, Severity::Notice, &notice);
            }
            emit_ready_for_query(out, TransactionStatus::Idle);
        });
        let ledger = self.profile.audit.map(|audit| Box::new(Ledger::new(audit)));
        if ledger.is_some() {
            let record = Record { time: now.unix, facts: facts.clone(), event: Event::SessionStart };
            self.out.push_back(Output::Audit(Box::new(record)));
        }
        let mut relay = Relay::new(ledger, pooled);
        let lease = server.map(|(lease, bare, statements)| {
            // It goes back at once, for what the client says first.
            let _ = relay.handle_connection(&reported, bare, statements);
            lease
        });
        let mut relaying = Relaying::new(who, lease, mode, facts, relay, now);
        relaying.clocks = clocks;
        self.phase = Phase::Relaying(Box::new(relaying));
        self.release_between();
    }

    pub(super) fn give_back_unused(&mut self, leased: Leased) {
        // Nobody has used it: it is what it was, and its owner's if it had one.
        let back = Return {
            lease: leased.lease,
            state: ReturnState::Between,
            changed: Vec::new(),
            statements: leased.statements,
        };
        self.out.push_back(Output::Do(Action::Release(back)));
    }
}

//! A proven client waits for a server connection.

use std::sync::Arc;

use crate::audit::{Event, Record};
use crate::auth::Authenticated;
use crate::cancel::CancelKey;
use crate::codec::backend::{
    Severity, TransactionStatus, emit_authentication_ok, emit_backend_key_data, emit_error, emit_parameter_status,
    emit_ready_for_query,
};
use crate::fault::Refusal;
use crate::preamble::Startup;
use crate::relay::{Ledger, Relay};
use crate::time::Now;

use super::relaying::Relaying;
use super::{Action, Finish, Leased, Output, Phase, Return, ReturnState, Session};

pub(super) struct Leasing {
    pub(super) startup: Startup,
    pub(super) who: Option<Authenticated>,
    pub(super) account: Option<Arc<str>>,
    key: Option<CancelKey>,
}

impl Leasing {
    pub(super) const fn new(startup: Startup, who: Option<Authenticated>, account: Option<Arc<str>>) -> Self {
        Self { startup, who, account, key: None }
    }
}

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

    pub(super) fn leasing_waiting(&mut self, notice: &Refusal) {
        // Before AuthenticationOk a client expects nothing but the end of the login.
        if let Phase::Leasing(leasing) = &self.phase
            && leasing.who.is_some()
        {
            self.write(|out| emit_error(out, Severity::Notice, notice));
        }
    }

    pub(super) fn leasing_refused(&mut self, refusal: Refusal, now: Now) {
        if matches!(self.phase, Phase::Leasing(_)) {
            self.refuse(refusal, now);
        }
    }

    /// The server's own words reach the client, with their SQLSTATE.
    pub(super) fn leasing_refused_by_server(&mut self, message: Box<[u8]>, refusal: Refusal, now: Now) {
        if matches!(self.phase, Phase::Leasing(_)) {
            self.send(message.into_vec());
            self.note_refusal(&refusal, now);
            self.finish(Finish::Refused(refusal), now);
        }
    }

    pub(super) fn leasing_leased(&mut self, leased: Leased, now: Now) {
        let Leased { lease, parameters, proof } = leased;
        let Phase::Leasing(leasing) = &mut self.phase else {
            return self.give_back_unused(lease);
        };
        let proven_now = leasing.who.is_none();
        let Some(who) = leasing.who.take().or(proof) else {
            return self.give_back_unused(lease);
        };
        let key = leasing.key.take();
        let (startup, account) = (leasing.startup.clone(), leasing.account.clone());
        let facts = self.facts_of(&startup, Some(&who), account.as_deref());

        let mut out = Vec::with_capacity(512);
        if proven_now {
            emit_authentication_ok(&mut out);
            if let Some(key) = key {
                emit_backend_key_data(&mut out, key.pid(), key.key());
            }
        }
        for (name, value) in &parameters {
            emit_parameter_status(&mut out, name, value);
        }
        emit_ready_for_query(&mut out, TransactionStatus::Idle);
        self.send(out);

        let ledger = self.profile.audit.map(|audit| Box::new(Ledger::new(audit)));
        if ledger.is_some() {
            let record = Record { time: now.unix, facts: facts.clone(), event: Event::SessionStart };
            self.out.push_back(Output::Audit(Box::new(record)));
        }
        self.phase = Phase::Relaying(Box::new(Relaying::new(who, lease, facts, Relay::new(ledger), now)));
    }

    fn give_back_unused(&mut self, lease: crate::pool::Lease) {
        let state = ReturnState::Quiet { status: TransactionStatus::Idle, touched: false };
        let back = Return { lease, state, changed: Vec::new() };
        self.out.push_back(Output::Do(Action::Release(Box::new(back))));
    }
}

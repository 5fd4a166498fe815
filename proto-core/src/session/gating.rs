//! Clients who prove themselves to the proxy's own [`Gate`](crate::auth::gate::Gate): what they are asked, one question after the other.

use std::sync::Arc;

use crate::auth::gate::{Admission, Backing, Gate, Passage, Question, Step};
use crate::auth::scram::{MECHANISM, NONCE_LEN, ScramKeys};
use crate::auth::users::StoredSecret;
use crate::codec::backend::{
    emit_authentication_ok, emit_cleartext_password, emit_md5_password, emit_sasl, emit_sasl_continue, emit_sasl_final,
};
use crate::policy::Account;
use crate::secret::Secret;
use crate::time::Now;

use super::leasing::Leasing;
use super::looking::Search;
use super::{Action, Credential, Output, Phase, Session, looking};

impl Session {
    /// A startup packet is there. Random bytes come first, for a nonce or a salt.
    pub(super) fn gate_opened(&mut self) {
        let Phase::Proving(proving) = &mut self.phase else { return };
        proving.waiting = true;
        self.out.push_back(Output::Do(Action::Nonce));
    }

    /// The way through the gate begins, for whoever it does not know with a look elsewhere.
    pub(super) fn gate_nonce(&mut self, nonce: [u8; NONCE_LEN], now: Now) {
        let Some(gate) = self.profile.gate.clone() else { return };
        let Phase::Proving(proving) = &self.phase else { return };
        if proving.passage.is_some() {
            return;
        }
        match self.search(&gate, &proving.startup) {
            Ok(Search::In(place)) => self.look_up(&gate, place, nonce, now),
            Ok(Search::Needless) => self.enter_gate(|gate, user| Passage::new(gate, user, nonce), now),
            Ok(Search::Nowhere) => {
                let place = proving.startup.database.clone();
                self.enter_gate(|gate, user| Passage::of_nowhere(gate, user, place, nonce), now);
            }
            Err(why) => {
                log::warn!("session {}: {why}", self.id);
                self.refuse(looking::misconfigured(), now);
            }
        }
    }

    /// The server has told what is kept of their password; `None`: it has nobody of this name.
    pub(super) fn gate_looked_up(&mut self, found: Option<StoredSecret>, nonce: [u8; NONCE_LEN], now: Now) {
        self.enter_gate(|gate, user| Passage::of_looked_up(gate, user, found, nonce), now);
    }

    fn enter_gate(&mut self, begin: impl FnOnce(Arc<Gate>, Arc<str>) -> (Passage, Step), now: Now) {
        let Some(gate) = self.profile.gate.clone() else { return };
        let Phase::Proving(proving) = &mut self.phase else { return };
        let (passage, step) = begin(gate, proving.startup.user.clone());
        proving.passage = Some(passage);
        self.gate_step(step, now);
    }

    /// The client's answer is whole.
    pub(super) fn gate_answered(&mut self, answer: &Secret<Vec<u8>>, now: Now) {
        let Phase::Proving(proving) = &mut self.phase else { return };
        let Some(passage) = &mut proving.passage else { return };
        proving.waiting = true;
        match passage.handle_answer(answer) {
            Ok(step) => self.gate_step(step, now),
            Err(violation) => self.violate(violation, now),
        }
    }

    pub(super) fn gate_derived(&mut self, keys: ScramKeys, now: Now) {
        let Phase::Proving(proving) = &mut self.phase else { return };
        let step = proving.passage.as_mut().and_then(|passage| passage.handle_derived(keys));
        if let Some(step) = step {
            self.gate_step(step, now);
        }
    }

    fn gate_step(&mut self, step: Step, now: Now) {
        match step {
            Step::Ask(question) => {
                if let Phase::Proving(proving) = &mut self.phase {
                    proving.expect_message();
                }
                self.write(|out| match question {
                    Question::Cleartext => emit_cleartext_password(out),
                    Question::Md5 { salt } => emit_md5_password(out, salt),
                    Question::Sasl => emit_sasl(out, &[MECHANISM]),
                    Question::SaslContinue(message) => emit_sasl_continue(out, &message),
                });
            }
            Step::Derive(derivation) => self.out.push_back(Output::Do(Action::Derive(derivation))),
            Step::Admitted(admission) => self.admit(*admission, now),
            Step::Refused(refusal) => self.refuse(refusal, now),
        }
    }

    fn admit(&mut self, admission: Admission, now: Now) {
        let Phase::Proving(proving) = &self.phase else { return };
        let Admission { who, backing, sasl_final } = admission;
        let (startup, for_console) = (proving.startup.clone(), self.proves_for_console(proving));
        self.write(|out| {
            if let Some(message) = sasl_final {
                emit_sasl_final(out, &message);
            }
            emit_authentication_ok(out);
        });
        if for_console {
            return self.enter_console(startup, who, now);
        }
        let target = self.profile.databases.find(&startup.database);
        let forced = target.and_then(|target| target.account.clone());
        let name = startup.user.clone();
        let account = forced.as_ref().map_or_else(|| name.clone(), |account| account.name.clone());
        self.phase = Phase::Leasing(Box::new(Leasing::new(startup, Some(who), Some(account))));
        let credential = match forced {
            Some(account) => {
                let own = (account.name == name).then_some(backing);
                credential_of_forced(self.profile.gate.as_deref(), &account, own)
            }
            None => credential_of(backing),
        };
        self.lease(credential, &name, now);
    }
}

/// What somebody logs in to the server with who runs as their own account.
pub(super) fn credential_of(backing: Backing) -> Credential {
    match backing {
        Backing::Account(account) => Credential::Account(account),
        Backing::Passed(credential) => Credential::Passed(credential),
        Backing::Provided => Credential::Provided,
    }
}

/// The same for whoever runs as the account that a database names: its password there, else what the list has of it,
/// and for the account itself what its own login has shown.
pub(super) fn credential_of_forced(gate: Option<&Gate>, account: &Arc<Account>, own: Option<Backing>) -> Credential {
    if account.password.is_some() {
        return Credential::Account(account.clone());
    }
    match own {
        Some(backing @ (Backing::Account(_) | Backing::Passed(_))) => credential_of(backing),
        _ => gate
            .and_then(|gate| gate.backing(&account.name))
            .map_or_else(|| Credential::Account(account.clone()), credential_of),
    }
}

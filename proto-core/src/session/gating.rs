//! Clients who prove themselves to the proxy's own [`Gate`](crate::auth::gate::Gate): what they are asked, one question after the other.

use crate::auth::gate::{Admission, Backing, Passage, Question, Step};
use crate::auth::scram::{MECHANISM, NONCE_LEN, ScramKeys};
use crate::codec::backend::{
    emit_authentication_ok, emit_cleartext_password, emit_md5_password, emit_sasl, emit_sasl_continue, emit_sasl_final,
};
use crate::secret::Secret;
use crate::time::Now;

use super::leasing::Leasing;
use super::{Action, Credential, Output, Phase, Session};

impl Session {
    /// A startup packet is there. Random bytes come first, for a nonce or a salt.
    pub(super) fn gate_opened(&mut self) {
        let Phase::Proving(proving) = &mut self.phase else { return };
        proving.waiting = true;
        self.out.push_back(Output::Do(Action::Nonce));
    }

    pub(super) fn gate_nonce(&mut self, nonce: [u8; NONCE_LEN], now: Now) {
        let Some(gate) = self.profile.gate.clone() else { return };
        let Phase::Proving(proving) = &mut self.phase else { return };
        if proving.passage.is_some() {
            return;
        }
        let (passage, step) = Passage::new(gate, proving.startup.user.clone(), nonce);
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
        let credential = match (forced, backing) {
            (Some(account), _) => Credential::Account(account),
            (None, backing) => credential_of(backing),
        };
        self.lease(credential, &name, now);
    }
}

/// What somebody logs in to the server with who runs as their own account.
fn credential_of(backing: Backing) -> Credential {
    match backing {
        Backing::Account(account) => Credential::Account(account),
        Backing::Passed(credential) => Credential::Passed(credential),
        Backing::Provided => Credential::Provided,
    }
}

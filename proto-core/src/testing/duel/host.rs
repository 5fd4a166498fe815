//! What a duel does for its session: the part of a driver.

use std::sync::Arc;

use super::{Duel, Permits};
use crate::audit::Event;
use crate::auth::Authenticated;
use crate::auth::jwt::Verdict as TokenVerdict;
use crate::entropy::Entropy as _;
use crate::fault::Lost;
use crate::pool::{How, PoolMode, PoolOutput, Returned};
use crate::relay::OnServer;
use crate::secret::Secret;
use crate::session::{Action, Credential, Leased, Output, Reply, Return, ReturnState, Side, Wish};
use crate::testing::postgres::Backend;
use crate::time::Now;
use crate::upstream::{self, LoggedIn, Login, LoginOutput, LoginSettings};

/// What a duel's source of credentials gives.
pub const PROVIDED: &[u8] = b"provided by the driver";

impl Duel {
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            assert!(self.finish.is_none(), "something came behind Finished");
            match output {
                Output::Send(Side::Client, bytes) => self.seen.extend(bytes),
                Output::Send(Side::Server, bytes) => self.forward_to_server(&bytes),
                Output::StartTls => self.wants_tls = true,
                Output::Audit(record) | Output::AuditStatement(record) => self.records.push(*record),
                Output::Finished(finish) => self.finish = Some(finish),
                Output::Do(action) => self.perform(action),
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Verify(token) => {
                let ring = self.keys.keyring().clone();
                let verdict = match ring.verify(token.expose(), self.now) {
                    TokenVerdict::Proven(who) => Ok(who),
                    TokenVerdict::Refused(refusal) => Err(refusal),
                    TokenVerdict::NeedsKey(issuer) => Err(ring.without_key(issuer)),
                };
                self.answer(Reply::Verified(verdict));
            }
            Action::Nonce => {
                let mut nonce = [0; 18];
                self.entropy.fill(&mut nonce);
                self.answer(Reply::Nonce(nonce));
            }
            Action::Derive(derivation) => self.answer(Reply::Derived(derivation.run())),
            Action::Lease(wish) => {
                let wish: Arc<Wish> = wish.into();
                let key = self.cancels.enroll(self.session.id(), wish.wide_key, &mut self.entropy);
                self.answer(Reply::Enrolled(key));
                if wish.mode != PoolMode::Session {
                    self.again = Some(wish.clone());
                }
                if self.lease_at_once {
                    self.open(&wish);
                } else {
                    self.wish = Some(wish);
                }
            }
            Action::LookUp(wish) => {
                let wish: Arc<Wish> = wish.into();
                if self.lease_at_once {
                    self.open(&wish);
                } else {
                    self.wish = Some(wish);
                }
            }
            Action::Enroll { wide_key } => {
                let key = self.cancels.enroll(self.session.id(), wide_key, &mut self.entropy);
                self.answer(Reply::Enrolled(key));
            }
            Action::Console(errand) => self.errands.push(errand),
            Action::Cancellable => {}
            Action::Borrow => {
                let wish = self.again.clone().expect("only sessions that share connections borrow one");
                if self.lease_at_once {
                    self.open(&wish);
                } else {
                    self.wish = Some(wish);
                }
            }
            Action::Unreserve(_) => {}
            Action::GiveUp => {
                self.wish = None;
                self.pools.handle_gave_up(self.session.id(), self.now);
            }
            Action::Reserve => match self.terms_permits {
                Permits::Grant => self.answer(Reply::Reserved(true)),
                Permits::Refuse => self.answer(Reply::Reserved(false)),
                Permits::Hold => self.wants_permit = true,
            },
            Action::Release(back) => self.take_back(back),
            Action::Cancel { pid, key } => self.cancel_requests.push((pid, key)),
        }
    }

    fn answer(&mut self, reply: Reply) {
        self.session.handle_reply(reply, self.now);
        self.lanes[0].waiting = false;
    }

    fn take_back(&mut self, back: Return) {
        self.returned.push(back.state);
        self.backend = None;
        let returned = match back.state {
            ReturnState::Quiet { .. } | ReturnState::Between => Returned::Clean,
            ReturnState::InDoubt => Returned::Broken,
            ReturnState::Busy | ReturnState::Broken => Returned::Broken,
        };
        self.pools.handle_release(back.lease, returned, self.now);
    }

    /// A lease of the pool, and a login under it.
    pub(super) fn open(&mut self, wish: &Wish) {
        self.pools.handle_request(wish.request(self.session.id()), self.now);
        let (lease, how) = match self.pools.poll_output() {
            Some(PoolOutput::Granted { lease, how, .. }) => (lease, how),
            other => panic!("an empty pool grants at once, and not {other:?}"),
        };
        let mut backend = Backend::new(&self.postgres);
        match log_in(wish, &mut backend, self.now) {
            Ok(login) => {
                // One that is there is opened anew all the same.
                if matches!(how, How::Open | How::OpenBare) {
                    self.pools.handle_opened(&lease, self.now);
                }
                let own = matches!(wish.credential, Credential::Own(_));
                let proof = if own { Authenticated::by_server(&login) } else { None };
                self.backend = Some(backend);
                let mut leased = Leased::new(lease, login.parameters, proof);
                leased.statements = (wish.mode != PoolMode::Session).then(|| Box::new(OnServer::new(200)));
                self.answer(Reply::Leased(leased));
            }
            Err(failure) => {
                self.pools.handle_release(lease, Returned::Broken, self.now);
                let refusal = failure.refusal();
                let reply = match &failure {
                    upstream::LoginFailure::Server(error) => {
                        let mut message = Vec::new();
                        error.emit(&mut message);
                        Reply::RefusedByServer(message.into(), refusal)
                    }
                    _ => Reply::Refused(refusal),
                };
                self.answer(reply);
            }
        }
    }
}

/// The proxy's login to a server in memory.
///
/// # Errors
/// As the server says.
pub fn log_in(wish: &Wish, backend: &mut Backend, now: Now) -> Result<LoggedIn, upstream::LoginFailure> {
    let settings = LoginSettings { tls_possible: false, ..wish.login_settings([7; 18]) };
    let credential = match &wish.credential {
        Credential::Provided => upstream::Credential::of(Some(Secret::new(PROVIDED.to_vec()).into())),
        _ => settings.credential,
    };
    let mut login = Login::new(LoginSettings { credential, ..settings }, now);
    loop {
        while let Some(output) = login.poll_output() {
            match output {
                LoginOutput::Send(bytes) => backend.handle_input(bytes.expose(), now),
                LoginOutput::StartTls(_) => login.handle_tls_failed("there is no TLS in a duel", now),
                LoginOutput::Derive(derivation) => login.handle_derived(derivation.run(), now),
                LoginOutput::Finished(result) => return result,
            }
        }
        match backend.poll_output() {
            Some(bytes) => assert_eq!(login.handle_input(&bytes, now), bytes.len(), "the login leaves nothing over"),
            None => login.handle_close(Lost::Closed, now),
        }
    }
}

pub(super) fn describe(event: &Event) -> String {
    match event {
        Event::ProxyStart => "proxy start".into(),
        Event::SessionStart => "start".into(),
        Event::Statement(statement) => {
            let text = statement.text.as_ref().map_or(&b"?"[..], |text| text.bytes());
            let code = statement.sqlstate.as_ref().map_or("none", |code| code.as_str());
            format!("statement({})={code}", text.escape_ascii())
        }
        Event::SessionEnd(end) => format!("end({})", end.statements),
        Event::Refusal(refused) => format!("refusal({})", refused.refusal.code),
    }
}

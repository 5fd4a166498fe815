//! The password message: a token for the issuers' keys, or a password for PostgreSQL itself.

use std::sync::Arc;

use crate::auth::gate::Passage;
use crate::auth::{Authenticated, looks_like_token};
use crate::codec::backend::emit_authentication_ok;
use crate::codec::frontend::tag;
use crate::codec::startup::PROTOCOL_3_2;
use crate::codec::{HEADER_LEN, Header};
use crate::fault::{Refusal, SqlState, Violation};
use crate::policy::Database;
use crate::pool::PoolMode;
use crate::preamble::Startup;
use crate::secret::Secret;
use crate::time::Now;
use crate::upstream::startup_query;

use super::leasing::Leasing;
use super::pooling;
use super::{Action, Credential, Finish, Output, Phase, Session, Verdict, Wish};

/// The first piece of memory for a secret: most tokens fit.
const FIRST_PIECE: usize = 2048;

pub(super) struct Proving {
    pub(super) startup: Startup,
    header: Vec<u8>,
    /// Bytes of the body that are still to come; `None` before the header is whole.
    left: Option<usize>,
    secret: Secret<Vec<u8>>,
    /// The token is being verified, or an answer judged: what comes meanwhile waits.
    pub(super) waiting: bool,
    /// Where there is a gate, and random bytes for it.
    pub(super) passage: Option<Passage>,
}

impl Proving {
    pub(super) const fn new(startup: Startup) -> Self {
        let secret = Secret::new(Vec::new());
        Self { startup, header: Vec::new(), left: None, secret, waiting: false, passage: None }
    }

    /// The next message of the client is due.
    pub(super) fn expect_message(&mut self) {
        self.header.clear();
        self.left = None;
        self.waiting = false;
    }

    /// The longest body that is taken.
    fn max_body(&self, max_password: usize) -> usize {
        self.passage.as_ref().map_or(max_password + 1, |passage| passage.max_answer(max_password))
    }

    /// Keeps a piece of the secret. Memory grows with what has really come, and old pieces are wiped.
    fn keep(&mut self, piece: &[u8]) {
        let have = self.secret.expose();
        let need = have.len() + piece.len();
        if need > have.capacity() {
            let mut larger = Vec::with_capacity(need.max(have.capacity() * 2).max(FIRST_PIECE));
            larger.extend_from_slice(have);
            self.secret = Secret::new(larger);
        }
        self.secret.expose_mut().extend_from_slice(piece);
    }
}

impl Session {
    pub(super) fn proving_input(&mut self, bytes: &[u8], now: Now) -> Verdict {
        let limit = self.profile.limits.max_password_bytes;
        let Phase::Proving(proving) = &mut self.phase else { return Verdict::Wait };
        if proving.waiting {
            return Verdict::Wait;
        }
        let Some(left) = proving.left else {
            let n = (HEADER_LEN - proving.header.len()).min(bytes.len());
            proving.header.extend_from_slice(&bytes[..n]);
            match Header::parse(&proving.header) {
                Ok(None) => {}
                Ok(Some(header)) if header.tag == tag::PASSWORD && header.body as usize <= proving.max_body(limit) => {
                    proving.left = Some(header.body as usize);
                    if header.body == 0 {
                        self.violate(Violation::Malformed, now);
                    }
                }
                Ok(Some(header)) if header.tag == tag::PASSWORD => self.refuse(too_long(header.body, limit), now),
                Ok(Some(header)) if header.tag == tag::TERMINATE => self.finish(Finish::Terminated, now),
                Ok(Some(header)) => self.violate(Violation::UnexpectedMessage(header.tag), now),
                Err(violation) => self.violate(violation, now),
            }
            return Verdict::Take(n);
        };
        let n = left.min(bytes.len());
        proving.keep(&bytes[..n]);
        proving.left = Some(left - n);
        if left == n {
            self.password_given(now);
        }
        Verdict::Take(n)
    }

    fn password_given(&mut self, now: Now) {
        let Phase::Proving(proving) = &mut self.phase else { return };
        let mut secret = std::mem::replace(&mut proving.secret, Secret::new(Vec::new()));
        if proving.passage.is_some() {
            return self.gate_answered(&secret, now);
        }
        let text = secret.expose_mut();
        if text.pop() != Some(0) || memchr::memchr(0, text).is_some() {
            return self.violate(Violation::Malformed, now);
        }
        proving.waiting = true;
        if text.is_empty() {
            self.refuse(Refusal::new(SqlState::INVALID_PASSWORD, "empty password returned by client"), now);
        } else if looks_like_token(text) {
            self.out.push_back(Output::Do(Action::Verify(secret)));
        } else if self.profile.password_fallback {
            self.lease_with_password(secret, now);
        } else {
            self.refuse(no_token(), now);
        }
    }

    pub(super) fn proving_verified(&mut self, verdict: Result<Authenticated, Refusal>, now: Now) {
        let Phase::Proving(proving) = &self.phase else { return };
        if !proving.waiting {
            return;
        }
        let who = match verdict {
            Ok(who) => who,
            Err(refusal) => return self.refuse(refusal, now),
        };
        if self.proves_for_console(proving) {
            let startup = proving.startup.clone();
            self.write(emit_authentication_ok);
            return self.enter_console(startup, who, now);
        }
        let granted = self.profile.roles.grant(who.identity(), &proving.startup.user);
        let startup = proving.startup.clone();
        let grant = match granted {
            Ok(grant) => grant,
            Err(refusal) => {
                self.phase = Phase::Leasing(Box::new(Leasing::new(startup, Some(who), None)));
                return self.refuse(refusal, now);
            }
        };
        let account = grant.account.name.clone();
        let leasing = Leasing::new(startup, Some(who), Some(account));
        self.phase = Phase::Leasing(Box::new(leasing));
        self.write(emit_authentication_ok);
        self.lease(Credential::Account(grant.account), &grant.role, now);
    }

    /// PostgreSQL itself checks the password, and the session runs as that user.
    fn lease_with_password(&mut self, secret: Secret<Vec<u8>>, now: Now) {
        let Phase::Proving(proving) = &self.phase else { return };
        if self.proves_for_console(proving) {
            return self.refuse_console_password(now);
        }
        let account = proving.startup.user.clone();
        self.phase = Phase::Leasing(Box::new(Leasing::new(proving.startup.clone(), None, Some(account.clone()))));
        self.lease(Credential::Own(Arc::new(secret)), &account, now);
    }

    /// Asks for a server connection; `name` is the role that the session runs in, or its user.
    pub(super) fn lease(&mut self, credential: Credential, name: &str, now: Now) {
        let Phase::Leasing(leasing) = &mut self.phase else { return };
        let startup = &leasing.startup;
        let Some(account) = leasing.account.clone() else { return };
        let Some(target) = self.profile.databases.find(&startup.database) else {
            let refusal = no_database(&startup.database);
            return self.refuse(refusal, now);
        };
        let settings = self.profile.pool_settings(&account, name, &target.pool);
        let (mode, owner, parameters) = pooling::terms(startup, leasing.who.as_ref(), &credential, &settings);
        leasing.mode = mode;
        leasing.terms = target.session.clone();
        leasing.limit(self.profile.users.timeouts(name, target.session.timeouts), now);
        let startup = &leasing.startup;
        let wish = Wish {
            account,
            credential,
            database: startup.database.clone(),
            target: Arc::<Database>::clone(target),
            role: name.into(),
            settings,
            identity: leasing.who.as_ref().map(|who| pooling::canonical(who.identity())),
            startup_query: (mode != PoolMode::Session).then(|| startup_query(&parameters)).flatten(),
            parameters,
            mode,
            owner,
            wide_key: startup.version >= PROTOCOL_3_2,
            for_lookup: false,
        };
        self.out.push_back(Output::Do(Action::Lease(Box::new(wish))));
    }
}

fn too_long(body: u32, limit: usize) -> Refusal {
    Refusal::new(
        SqlState::INVALID_PASSWORD,
        format!("the token or password has {} bytes, and gprxy takes at most {limit}", body.saturating_sub(1)),
    )
    .hint("Ask for a token with fewer claims, or raise limits.max_password_bytes.")
}

fn no_token() -> Refusal {
    Refusal::new(SqlState::INVALID_PASSWORD, "the password is not a token, and this gprxy accepts only tokens")
        .hint("Log in with your identity provider and send its access token as the password.")
}

pub(super) fn no_database(name: &str) -> Refusal {
    Refusal::new(SqlState::INVALID_CATALOG_NAME, format!("no such database: {name}"))
        .hint("gprxy serves those of [databases] in its configuration; a client that names none asks for one called like its user.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece of memory that `Vec` grew by itself would be freed unwiped.
    #[test]
    fn a_secret_grows_only_by_new_pieces() {
        let startup = Startup {
            version: PROTOCOL_3_2,
            negotiate: None,
            user: "alice".into(),
            database: "app".into(),
            application: None,
            parameters: [].into(),
        };
        let mut proving = Proving::new(startup);
        proving.keep(&[b'x'; 10]);
        assert_eq!(proving.secret.expose().capacity(), FIRST_PIECE);
        let first = proving.secret.expose().as_ptr();
        proving.keep(&[b'y'; FIRST_PIECE - 10]);
        assert_eq!(proving.secret.expose().as_ptr(), first, "what fits stays where it is");
        proving.keep(&[b'z'; 1]);
        assert_eq!(proving.secret.expose().capacity(), 2 * FIRST_PIECE);
        assert_eq!(proving.secret.expose().len(), FIRST_PIECE + 1);
    }
}

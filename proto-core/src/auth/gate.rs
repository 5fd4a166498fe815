//! Users who prove themselves by a password that the proxy itself can check: PgBouncer's `auth_type` and `auth_file`.
//!
//! ```text
//!                       trust ────────────────────────────────────────────▶ admitted
//!  startup ─▶ Passage ─ plain ─ password ──────────[ derive ]─────────────▶ admitted
//!               │       md5 ─── salt ─ answer ────────────────────────────▶ admitted
//!               └ scram-sha-256 ─ client-first ─ client-final ─[ derive ]─▶ admitted
//! ```
//! Whoever does not exist is asked for the same, waits for the same and is told the same as whoever has a wrong
//! password. No password in clear leaves this module, and none is compared in a time that depends on its content.

use std::num::NonZeroU32;
use std::sync::Arc;

use ring::digest;

use super::md5;
use super::scram::server::{
    ClientFault, ClientProof, DEFAULT_ITERATIONS, SALT_LEN, ScramServer, ServerChallenge, Verifier, salt_for,
};
use super::scram::{Derivation, MECHANISM, NONCE_LEN, ScramKeys};
use super::users::{StoredSecret, User, UserList};
use super::{Authenticated, Identity, Method};
use crate::codec::Reader;
use crate::entropy::Entropy;
use crate::fault::{Refusal, SqlState, Violation};
use crate::policy::{Account, AuthType};
use crate::secret::{Secret, equal_in_constant_time};
use crate::upstream::Credential;

/// Who is let in, by which proof, and what they have for the server.
pub struct Gate {
    auth_type: AuthType,
    users: Users,
    /// The one user of this machine whose processes may connect.
    peer: Option<u32>,
    /// What salts for users without a verifier are made of.
    mock: Secret<[u8; 32]>,
}

enum Users {
    /// Those of a list, who log in to the server as themselves.
    Listed(UserList),
    /// Whoever knows one secret, or is trusted, under any name.
    Anyone(Box<Option<User>>),
}

/// What somebody who was let in has for the server.
pub enum Backing {
    /// The account of their name.
    Account(Arc<Account>),
    /// What their own login showed, or what is kept of their password.
    Passed(Credential),
    /// Nothing of their own: whoever holds the gate has credentials for them.
    Provided,
}

/// Somebody who was let in.
pub struct Admission {
    /// The proof.
    pub who: Authenticated,
    /// What they have for the server.
    pub backing: Backing,
    /// The last SASL message for the client, in front of AuthenticationOk.
    pub sasl_final: Option<Vec<u8>>,
}

/// What a client is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// The password.
    Cleartext,
    /// The password under MD5.
    Md5 {
        /// With this salt.
        salt: [u8; 4],
    },
    /// SCRAM-SHA-256.
    Sasl,
    /// The next SCRAM message.
    SaslContinue(Vec<u8>),
}

/// What comes next on somebody's way through the gate.
#[must_use]
pub enum Step {
    /// The client is asked, and its answer goes to [`Passage::handle_answer`].
    Ask(Question),
    /// Work that may block; what it makes goes to [`Passage::handle_derived`].
    Derive(Derivation),
    /// The end: in.
    Admitted(Box<Admission>),
    /// The end: out.
    Refused(Refusal),
}

impl Gate {
    /// For the users of a list.
    #[must_use]
    pub fn listed(auth_type: AuthType, users: UserList, entropy: &mut dyn Entropy) -> Self {
        Self::new(auth_type, Users::Listed(users), entropy)
    }

    /// For whoever knows this one secret, whatever name they give; what they run with is provided by whoever holds the
    /// gate. The names are theirs to choose, so they say nothing about who somebody is.
    #[must_use]
    pub fn with_secret(auth_type: AuthType, secret: StoredSecret, entropy: &mut dyn Entropy) -> Self {
        let user = User::new("".into(), secret);
        Self::new(auth_type, Users::Anyone(Box::new(Some(user))), entropy)
    }

    /// For everybody who can connect: something else must have decided who that is.
    #[must_use]
    pub fn open(entropy: &mut dyn Entropy) -> Self {
        Self::new(AuthType::Trust, Users::Anyone(Box::new(None)), entropy)
    }

    /// For the processes of one user of this machine, whose Unix socket tells who connects.
    #[must_use]
    pub fn for_peer(uid: u32, entropy: &mut dyn Entropy) -> Self {
        Self { peer: Some(uid), ..Self::open(entropy) }
    }

    /// Why a process of this user may not connect; `None`: it may. Where the user is not known, it is not the right one.
    #[must_use]
    pub fn refuse_peer(&self, uid: Option<u32>) -> Option<Refusal> {
        let expected = self.peer.filter(|&expected| uid != Some(expected))?;
        let found = uid.map_or_else(|| "an unknown user".into(), |uid| format!("user id {uid}"));
        Some(Refusal::new(
            SqlState::INVALID_AUTHORIZATION,
            format!("this socket is for user id {expected} of this machine, and the client runs as {found}"),
        ))
    }

    fn new(auth_type: AuthType, users: Users, entropy: &mut dyn Entropy) -> Self {
        let mut mock = Secret::new([0; 32]);
        entropy.fill(mock.expose_mut());
        Self { auth_type, users, peer: None, mock }
    }

    /// Whether the password itself travels: then only where it may.
    #[must_use]
    pub const fn asks_in_clear(&self) -> bool {
        matches!(self.auth_type, AuthType::Plain)
    }

    fn find(&self, name: &str) -> Option<&User> {
        match &self.users {
            Users::Listed(list) => list.find(name),
            Users::Anyone(user) => Option::as_ref(user),
        }
    }

    /// A verifier of the list, to be like.
    fn some_verifier(&self) -> Option<&Arc<Verifier>> {
        match &self.users {
            Users::Listed(list) => list.some_verifier(),
            Users::Anyone(_) => None,
        }
    }

    fn salt(&self, name: &str) -> [u8; SALT_LEN] {
        salt_for(name.as_bytes(), &self.mock)
    }

    /// The salt and rounds of a challenge for this user, who need not exist.
    fn challenge(&self, name: &str) -> (Box<[u8]>, NonZeroU32) {
        match self.find(name).map(|user| (&user.secret, &user.verifier)) {
            Some((StoredSecret::Scram(verifier), _)) => (verifier.salt().into(), verifier.iterations()),
            Some((StoredSecret::Plain(_), made)) if made.get().is_some() => {
                made.get().map_or_else(|| self.mock(name), |made| (made.salt().into(), made.iterations()))
            }
            _ => self.mock(name),
        }
    }

    fn mock(&self, name: &str) -> (Box<[u8]>, NonZeroU32) {
        let iterations = self.some_verifier().map_or(DEFAULT_ITERATIONS, |verifier| verifier.iterations());
        (self.salt(name).into(), iterations)
    }

    fn admission(&self, name: &Arc<str>, shown: Option<Credential>, sasl_final: Option<Vec<u8>>) -> Step {
        let method = if self.auth_type == AuthType::Trust { Method::Trust } else { Method::Password };
        let who = Authenticated::new(Identity {
            issuer: "".into(),
            subject: name.clone(),
            user: name.clone(),
            roles: Arc::new([]),
            expires: None,
            method,
        });
        let backing = match (&self.users, self.find(name)) {
            (Users::Anyone(_), _) | (_, None) => Backing::Provided,
            (Users::Listed(_), Some(user)) => match (&user.secret, shown) {
                (StoredSecret::Scram(_), Some(shown)) => Backing::Passed(shown),
                (StoredSecret::Md5(digest), _) => Backing::Passed(Credential::Md5(digest.clone())),
                _ => Backing::Account(user.account.clone()),
            },
        };
        Step::Admitted(Box::new(Admission { who, backing, sasl_final }))
    }
}

enum State {
    Plain,
    /// A password in clear beside a verifier, or beside nothing at all.
    PlainDerived,
    Md5([u8; 4]),
    /// The mechanism is due.
    Sasl(ScramServer),
    /// The mechanism was chosen without a first message.
    SaslFirst(ScramServer),
    SaslFinal(ServerChallenge),
    /// The verifier of a password in clear is being made.
    SaslDerived(ClientProof),
    Over,
}

/// One client's way through a gate.
pub struct Passage {
    gate: Arc<Gate>,
    user: Arc<str>,
    state: State,
}

impl Passage {
    /// For whoever says to be `user`. The random bytes must be fresh.
    pub fn new(gate: Arc<Gate>, user: Arc<str>, nonce: [u8; NONCE_LEN]) -> (Self, Step) {
        let scram = || (State::Sasl(ScramServer::new(nonce)), Step::Ask(Question::Sasl));
        let (state, step) = match (gate.auth_type, gate.find(&user).map(|user| &user.secret)) {
            (AuthType::Trust, None) if matches!(gate.users, Users::Listed(_)) => {
                (State::Over, Step::Refused(unknown(&user)))
            }
            (AuthType::Trust, _) => (State::Over, gate.admission(&user, None, None)),
            (AuthType::Plain, _) => (State::Plain, Step::Ask(Question::Cleartext)),
            // As in PgBouncer and PostgreSQL: who has a verifier is asked by SCRAM where the setting says md5.
            (AuthType::Md5, Some(StoredSecret::Scram(_))) | (AuthType::ScramSha256, _) => scram(),
            (AuthType::Md5, _) => {
                let salt = [nonce[0], nonce[1], nonce[2], nonce[3]];
                (State::Md5(salt), Step::Ask(Question::Md5 { salt }))
            }
        };
        (Self { gate, user, state }, step)
    }

    /// The longest answer that is worth reading, when passwords have at most so many bytes.
    #[must_use]
    pub fn max_answer(&self, max_password: usize) -> usize {
        match self.state {
            State::Plain => max_password + 1,
            // The name of a mechanism, a length, and the message.
            _ => super::scram::MAX_MESSAGE + 64,
        }
    }

    /// The body of the client's message.
    ///
    /// # Errors
    /// What the protocol does not allow.
    pub fn handle_answer(&mut self, body: &Secret<Vec<u8>>) -> Result<Step, Violation> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Plain => Ok(self.check_plain(password(body.expose())?)),
            State::Md5(salt) => Ok(self.check_md5(password(body.expose())?, salt)),
            State::Sasl(server) => {
                let mut reader = Reader::new(body.expose());
                let mechanism = reader.cstr()?;
                if mechanism != MECHANISM.as_bytes() {
                    return Ok(Step::Refused(Refusal::new(
                        SqlState::PROTOCOL_VIOLATION,
                        "client selected an invalid SASL authentication mechanism",
                    )));
                }
                match reader.i32()? {
                    // No initial response: the mechanism begins with an empty challenge (RFC 4422 section 5).
                    -1 => {
                        reader.finish()?;
                        self.state = State::SaslFirst(server);
                        Ok(Step::Ask(Question::SaslContinue(Vec::new())))
                    }
                    length if usize::try_from(length) == Ok(reader.rest().len()) => {
                        let at = body.expose().len() - usize::try_from(length).unwrap_or_default();
                        Ok(self.client_first(server, &body.expose()[at..]))
                    }
                    _ => Err(Violation::Malformed),
                }
            }
            State::SaslFirst(server) => Ok(self.client_first(server, body.expose())),
            State::SaslFinal(challenge) => Ok(match challenge.handle_client_final(body.expose()) {
                Ok(proof) => self.check_proof(proof),
                Err(fault) => Step::Refused(not_scram(fault)),
            }),
            state @ (State::PlainDerived | State::SaslDerived(_) | State::Over) => {
                self.state = state;
                Err(Violation::OutOfStep)
            }
        }
    }

    /// What a derivation has made; without one that is awaited it changes nothing and gives `None`.
    pub fn handle_derived(&mut self, keys: ScramKeys) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::PlainDerived => {
                let user = self.gate.find(&self.user);
                let right = match user.map(|user| &user.secret) {
                    Some(StoredSecret::Scram(verifier)) => verifier.is_of(&keys),
                    _ => false,
                };
                Some(self.verdict(right, Some(Credential::Keys(Arc::new(keys)))))
            }
            State::SaslDerived(proof) => {
                let verifier = Arc::new(Verifier::new(&keys));
                if let Some(user) = self.gate.find(&self.user) {
                    let _ = user.verifier.set(verifier.clone());
                }
                Some(self.check_with(proof, &verifier))
            }
            state => {
                self.state = state;
                None
            }
        }
    }

    fn check_plain(&mut self, given: &[u8]) -> Step {
        if given.is_empty() {
            return Step::Refused(Refusal::new(SqlState::INVALID_PASSWORD, "empty password returned by client"));
        }
        let derive = |verifier: &Verifier| verifier.derivation(&Arc::new(Secret::new(given.to_vec())));
        let step = match self.gate.find(&self.user).map(|user| &user.secret) {
            Some(StoredSecret::Plain(password)) => {
                // Hashed first, so that not even the length shows.
                let [given, right] = [given, password.expose()].map(|text| digest::digest(&digest::SHA256, text));
                return self.verdict(equal_in_constant_time(given.as_ref(), right.as_ref()), None);
            }
            Some(StoredSecret::Md5(right)) => {
                let given = md5::stored(self.user.as_bytes(), given);
                return self.verdict(equal_in_constant_time(given.expose(), right.expose()), None);
            }
            Some(StoredSecret::Scram(verifier)) => Some(derive(verifier)),
            None => self.gate.some_verifier().map(|verifier| derive(verifier)),
        };
        match step {
            Some(derivation) => {
                self.state = State::PlainDerived;
                Step::Derive(derivation)
            }
            None => self.verdict(false, None),
        }
    }

    fn check_md5(&self, answer: &[u8], salt: [u8; 4]) -> Step {
        let name = self.user.as_bytes();
        let right = match self.gate.find(&self.user).map(|user| &user.secret) {
            Some(StoredSecret::Plain(password)) if !password.expose().is_empty() => {
                md5::is_answer(answer, &md5::stored(name, password.expose()), salt)
            }
            Some(StoredSecret::Md5(digest)) => md5::is_answer(answer, digest, salt),
            _ => {
                let _ = md5::is_answer(answer, &md5::stored(name, self.gate.mock.expose()), salt);
                false
            }
        };
        self.verdict(right, None)
    }

    fn client_first(&mut self, server: ScramServer, message: &[u8]) -> Step {
        let (salt, iterations) = self.gate.challenge(&self.user);
        match server.handle_client_first(message, &salt, iterations) {
            Ok((answer, challenge)) => {
                self.state = State::SaslFinal(challenge);
                Step::Ask(Question::SaslContinue(answer))
            }
            Err(fault) => Step::Refused(not_scram(fault)),
        }
    }

    fn check_proof(&mut self, proof: ClientProof) -> Step {
        let user = self.gate.find(&self.user);
        match user.map(|user| (&user.secret, user.verifier.get())) {
            Some((StoredSecret::Scram(verifier), _)) | Some((_, Some(verifier))) => self.check_with(proof, verifier),
            Some((StoredSecret::Plain(password), None)) if !password.expose().is_empty() => {
                let (salt, iterations) = self.gate.mock(&self.user);
                let derivation = Derivation::new(password, &salt, iterations);
                self.state = State::SaslDerived(proof);
                Step::Derive(derivation)
            }
            _ => self.verdict(false, None),
        }
    }

    fn check_with(&self, proof: ClientProof, verifier: &Verifier) -> Step {
        match proof.check(verifier) {
            Some(proven) => {
                let keys = Credential::Keys(Arc::new(proven.keys));
                self.gate.admission(&self.user, Some(keys), Some(proven.server_final))
            }
            None => Step::Refused(wrong(&self.user)),
        }
    }

    fn verdict(&self, right: bool, shown: Option<Credential>) -> Step {
        if right { self.gate.admission(&self.user, shown, None) } else { Step::Refused(wrong(&self.user)) }
    }
}

/// The text of a PasswordMessage.
fn password(body: &[u8]) -> Result<&[u8], Violation> {
    match body.split_last() {
        Some((0, text)) if memchr::memchr(0, text).is_none() => Ok(text),
        _ => Err(Violation::Malformed),
    }
}

/// PostgreSQL's words, the same for whoever does not exist.
fn wrong(user: &str) -> Refusal {
    Refusal::new(SqlState::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
}

fn unknown(user: &str) -> Refusal {
    Refusal::new(SqlState::INVALID_AUTHORIZATION, format!("user \"{user}\" is not in gprxy's list of users"))
        .hint("Connect under a name that is in auth_file, or add this one.")
}

fn not_scram(fault: ClientFault) -> Refusal {
    let code = match fault {
        ClientFault::AuthorizationIdentity => SqlState::FEATURE_NOT_SUPPORTED,
        _ => SqlState::PROTOCOL_VIOLATION,
    };
    Refusal::new(code, fault.to_string())
}

#[cfg(test)]
mod tests;

//! One client's way through a gate: what it is asked, one question after the other.

use std::sync::Arc;

use ring::digest;

use super::{Admission, Asked, Gate, Users};
use crate::auth::md5;
use crate::auth::scram::server::{ClientFault, ClientProof, ScramServer, ServerChallenge, Verifier};
use crate::auth::scram::{Derivation, MAX_MESSAGE, MECHANISM, NONCE_LEN, ScramKeys};
use crate::auth::users::{StoredSecret, User};
use crate::codec::Reader;
use crate::fault::{Refusal, SqlState, Violation};
use crate::policy::AuthType;
use crate::secret::{Secret, equal_in_constant_time};
use crate::upstream::Credential;

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

enum State {
    Plain,
    /// A password in clear beside a verifier.
    PlainDerived,
    Md5([u8; 4]),
    /// The mechanism is due.
    Sasl(ScramServer),
    /// The mechanism was chosen without a first message.
    SaslFirst(ScramServer),
    /// Kept with what was asked: what others make of the gate meanwhile does not change an open question.
    SaslFinal(ServerChallenge, Asked),
    /// The verifier of a password in clear is being made.
    SaslDerived(ClientProof),
    /// It is a refusal, and waits as long as others do.
    Refused,
    Over,
}

/// What is known of somebody besides the list.
enum Origin {
    /// Nothing: the list is all there is.
    List,
    /// They were looked up, and perhaps found.
    LookedUp(Option<Box<User>>),
    /// Others are looked up, but not where these asked to be let in.
    Nowhere(Arc<str>),
}

/// One client's way through a gate.
pub struct Passage {
    gate: Arc<Gate>,
    name: Arc<str>,
    origin: Origin,
    state: State,
}

impl Passage {
    /// For whoever says to be `user`. The random bytes must be fresh.
    pub fn new(gate: Arc<Gate>, user: Arc<str>, nonce: [u8; NONCE_LEN]) -> (Self, Step) {
        Self::begin(gate, user, Origin::List, nonce)
    }

    /// The same for somebody whom the gate does not know and who was looked up: what is kept of their password, `None`
    /// when they were not found.
    pub fn of_looked_up(
        gate: Arc<Gate>,
        user: Arc<str>,
        found: Option<StoredSecret>,
        nonce: [u8; NONCE_LEN],
    ) -> (Self, Step) {
        let found = found.map(|secret| {
            gate.strangers.learn(&secret);
            Box::new(User::new(user.clone(), secret))
        });
        Self::begin(gate, user, Origin::LookedUp(found), nonce)
    }

    /// The same where nobody can be looked up for `place`, but elsewhere they are: somebody whom the gate does not know is
    /// asked here as nobody is asked elsewhere. Who sees the same salt in both places would know by it that this user does
    /// not exist.
    pub fn of_nowhere(gate: Arc<Gate>, user: Arc<str>, place: Arc<str>, nonce: [u8; NONCE_LEN]) -> (Self, Step) {
        Self::begin(gate, user, Origin::Nowhere(place), nonce)
    }

    fn begin(gate: Arc<Gate>, name: Arc<str>, origin: Origin, nonce: [u8; NONCE_LEN]) -> (Self, Step) {
        let scram = || (State::Sasl(ScramServer::new(nonce)), Step::Ask(Question::Sasl));
        let mut passage = Self { gate, name, origin, state: State::Over };
        let gate = &passage.gate;
        let is_unknown = passage.user().is_none() && matches!(gate.users, Users::Listed(_));
        let (state, step) = match (gate.auth_type, passage.secret()) {
            (AuthType::Trust, _) if is_unknown => (State::Over, Step::Refused(unknown(&passage.name))),
            (AuthType::Trust, _) => (State::Over, passage.admitted(None, None)),
            (AuthType::Plain, _) => (State::Plain, Step::Ask(Question::Cleartext)),
            // As in PgBouncer and PostgreSQL: who has a verifier is asked by SCRAM where the setting says md5.
            (AuthType::Md5, Some(StoredSecret::Scram(_))) | (AuthType::ScramSha256, _) => scram(),
            (AuthType::Md5, None) if gate.strangers.by_scram() => scram(),
            (AuthType::Md5, _) => {
                let salt = [nonce[0], nonce[1], nonce[2], nonce[3]];
                (State::Md5(salt), Step::Ask(Question::Md5 { salt }))
            }
        };
        passage.state = state;
        (passage, step)
    }

    /// Whoever has this name.
    fn user(&self) -> Option<&User> {
        match &self.origin {
            Origin::LookedUp(found) => found.as_deref(),
            Origin::List | Origin::Nowhere(_) => self.gate.find(&self.name),
        }
    }

    /// What a challenge names for somebody without a verifier.
    fn mock(&self) -> Asked {
        match &self.origin {
            Origin::Nowhere(place) => self.gate.mock(&[self.name.as_bytes(), b"\0", place.as_bytes()].concat()),
            Origin::List | Origin::LookedUp(_) => self.gate.mock(self.name.as_bytes()),
        }
    }

    /// What is kept of their password. An empty one lets nobody in: they are asked as somebody who does not exist.
    fn secret(&self) -> Option<&StoredSecret> {
        self.user().map(|user| &user.secret).filter(|secret| !secret.is_empty())
    }

    fn admitted(&self, shown: Option<Credential>, sasl_final: Option<Vec<u8>>) -> Step {
        let admission = self.gate.admission(&self.name, self.user(), shown, sasl_final);
        Step::Admitted(Box::new(admission))
    }

    /// The longest answer that is worth reading, when passwords have at most so many bytes.
    #[must_use]
    pub fn max_answer(&self, max_password: usize) -> usize {
        match self.state {
            State::Plain => max_password + 1,
            // The name of a mechanism, a length, and the message.
            _ => MAX_MESSAGE + 64,
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
            State::SaslFinal(challenge, asked) => Ok(match challenge.handle_client_final(body.expose()) {
                Ok(proof) => self.check_proof(proof, &asked),
                Err(fault) => Step::Refused(not_scram(fault)),
            }),
            state @ (State::PlainDerived | State::SaslDerived(_) | State::Refused | State::Over) => {
                self.state = state;
                Err(Violation::OutOfStep)
            }
        }
    }

    /// What a derivation has made; without one that is awaited it changes nothing and gives `None`.
    pub fn handle_derived(&mut self, keys: ScramKeys) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::PlainDerived => Some(match self.secret() {
                Some(StoredSecret::Scram(verifier)) if verifier.is_of(&keys) => {
                    self.admitted(Some(Credential::Keys(Arc::new(keys))), None)
                }
                _ => self.wrong(),
            }),
            State::SaslDerived(proof) => {
                let verifier = Arc::new(Verifier::new(&keys));
                if let Some(user) = self.user() {
                    user.keep(verifier.clone());
                }
                Some(self.check_with(proof, &verifier).unwrap_or_else(|| self.wrong()))
            }
            State::Refused => Some(self.wrong()),
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
        let right = match self.secret() {
            Some(StoredSecret::Scram(verifier)) => {
                let derivation = verifier.derivation(&Arc::new(Secret::new(given.to_vec())));
                self.state = State::PlainDerived;
                return Step::Derive(derivation);
            }
            Some(StoredSecret::Plain(password)) => is_same(given, password.expose()),
            Some(StoredSecret::Md5(right)) => {
                let given = md5::stored(self.name.as_bytes(), given);
                equal_in_constant_time(given.expose(), right.expose())
            }
            None => {
                let _ = is_same(given, self.gate.mock.expose());
                false
            }
        };
        if right { self.admitted(None, None) } else { self.refuse(&self.mock()) }
    }

    fn check_md5(&self, answer: &[u8], salt: [u8; 4]) -> Step {
        let name = self.name.as_bytes();
        // Whoever is asked: one hash of a password and one with the salt.
        let stored = |password: &[u8]| md5::stored(name, password);
        let right = match self.secret() {
            Some(StoredSecret::Plain(password)) => md5::is_answer(answer, &stored(password.expose()), salt),
            Some(StoredSecret::Md5(digest)) => {
                let _ = stored(self.gate.mock.expose());
                md5::is_answer(answer, digest, salt)
            }
            Some(StoredSecret::Scram(_)) | None => {
                let _ = md5::is_answer(answer, &stored(self.gate.mock.expose()), salt);
                false
            }
        };
        if right { self.admitted(None, None) } else { self.wrong() }
    }

    fn client_first(&mut self, server: ScramServer, message: &[u8]) -> Step {
        let asked = match self.secret() {
            Some(StoredSecret::Scram(verifier)) => {
                Asked { salt: verifier.salt().into(), rounds: verifier.iterations() }
            }
            _ => self.mock(),
        };
        match server.handle_client_first(message, &asked.salt, asked.rounds) {
            Ok((answer, challenge)) => {
                self.state = State::SaslFinal(challenge, asked);
                Step::Ask(Question::SaslContinue(answer))
            }
            Err(fault) => Step::Refused(not_scram(fault)),
        }
    }

    fn check_proof(&mut self, proof: ClientProof, asked: &Asked) -> Step {
        let checked = match (self.secret(), self.user().and_then(|user| user.made(&asked.salt, asked.rounds))) {
            (Some(StoredSecret::Scram(verifier)), _) => self.check_with(proof, verifier),
            (Some(StoredSecret::Plain(_)), Some(made)) => self.check_with(proof, &made),
            (Some(StoredSecret::Plain(password)), None) => {
                let derivation = Derivation::new(password, &asked.salt, asked.rounds);
                self.state = State::SaslDerived(proof);
                return Step::Derive(derivation);
            }
            (Some(StoredSecret::Md5(_)) | None, _) => {
                proof.check_in_vain(&self.gate.mock);
                None
            }
        };
        checked.unwrap_or_else(|| self.refuse(asked))
    }

    fn check_with(&self, proof: ClientProof, verifier: &Verifier) -> Option<Step> {
        let proven = proof.check(verifier)?;
        let keys = Credential::Keys(Arc::new(proven.keys));
        Some(self.admitted(Some(keys), Some(proven.server_final)))
    }

    /// A wrong password that has cost no derivation yet: where one of somebody else does, this one does as well.
    fn refuse(&mut self, asked: &Asked) -> Step {
        let gate = &self.gate;
        if !gate.strangers.may_cost(gate.auth_type, matches!(self.origin, Origin::LookedUp(_))) {
            return self.wrong();
        }
        let password = Arc::new(Secret::new(gate.mock.expose().to_vec()));
        self.state = State::Refused;
        Step::Derive(Derivation::new(&password, &asked.salt, asked.rounds))
    }

    fn wrong(&self) -> Step {
        Step::Refused(wrong(&self.name))
    }
}

/// Hashed first, so that not even the length shows.
fn is_same(given: &[u8], right: &[u8]) -> bool {
    let [given, right] = [given, right].map(|text| digest::digest(&digest::SHA256, text));
    equal_in_constant_time(given.as_ref(), right.as_ref())
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
    Refusal::new(SqlState::INVALID_AUTHORIZATION, format!("\"trust\" authentication failed: no such user \"{user}\""))
        .hint("Connect under a name that is in auth_file or that auth_query finds, or add this one.")
}

fn not_scram(fault: ClientFault) -> Refusal {
    let code = match fault {
        ClientFault::AuthorizationIdentity => SqlState::FEATURE_NOT_SUPPORTED,
        _ => SqlState::PROTOCOL_VIOLATION,
    };
    Refusal::new(code, fault.to_string())
}

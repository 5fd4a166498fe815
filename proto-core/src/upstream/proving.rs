//! The part of a login in which the server asks who we are: from the startup packet to AuthenticationOk.
//!
//! ```text
//! Asked --Ok--> done (nothing was checked)
//!   |--Cleartext, MD5--> PasswordSent --Ok--> done
//!   '--SASL--> ScramFirst --Continue--> [Deriving] --> ScramFinal --Final--> ScramDone --Ok--> done
//! ```

use std::sync::Arc;

use super::failure::LoginFailure;
use super::settings::Credential;
use crate::auth::md5;
use crate::auth::scram::{Derivation, MECHANISM, ScramChallenge, ScramClient, ScramKeys, ScramProof};
use crate::codec::backend::{Authentication, tag};
use crate::codec::{HEADER_LEN, Reader, frontend};
use crate::fault::Violation;
use crate::secret::Secret;

/// What a server's Authentication messages are answered from.
pub(super) struct Evidence<'a> {
    pub(super) user: &'a str,
    pub(super) credential: &'a Credential,
    /// Whether the server has shown who it is, and nobody else can read what is sent.
    pub(super) verified: bool,
    pub(super) nonce: [u8; 18],
}

/// How far the server's question has come.
pub(super) enum Proving {
    Asked,
    PasswordSent { in_clear: bool },
    ScramFirst(ScramClient),
    Deriving(ScramChallenge),
    ScramFinal { proof: ScramProof, new_keys: Option<Arc<ScramKeys>> },
    ScramDone { new_keys: Option<Arc<ScramKeys>> },
}

/// What a message leads to.
pub(super) enum Step {
    /// To the next state, perhaps with an answer to the server.
    Next(Proving, Option<Secret<Vec<u8>>>),
    /// To work that is done elsewhere.
    Derive(ScramChallenge, Derivation),
    /// To the end: AuthenticationOk.
    Done(Checked),
}

/// What came out of it.
pub(super) struct Checked {
    pub(super) password: bool,
    pub(super) in_clear: bool,
    pub(super) new_keys: Option<Arc<ScramKeys>>,
}

impl Proving {
    /// Whether the server holds the password in clear by now.
    pub(super) const fn in_clear(&self) -> bool {
        matches!(self, Self::PasswordSent { in_clear: true })
    }

    /// Answers an Authentication message.
    ///
    /// A server that says AuthenticationOk in the middle of SCRAM has not proven itself, and is not believed.
    pub(super) fn handle(self, asked: &Authentication<'_>, with: &Evidence<'_>) -> Result<Step, LoginFailure> {
        match (self, asked) {
            (_, Authentication::Unsupported(kind)) => Err(LoginFailure::UnsupportedAuth(*kind)),
            (Self::Asked, Authentication::Ok) => Ok(done(false, false, None)),
            (Self::PasswordSent { in_clear }, Authentication::Ok) => Ok(done(true, in_clear, None)),
            (Self::ScramDone { new_keys }, Authentication::Ok) => Ok(done(true, false, new_keys)),
            (Self::Asked, Authentication::CleartextPassword) => {
                // As libpq does, over any transport: who must not send a password in clear to this server sets
                // sslmode to `require` or above, or gives the account a SCRAM verifier and demands it in pg_hba.conf.
                // A token opens more than one account, so it has a rule of its own.
                let secret = match with.credential {
                    Credential::Token { token, stays_here } if with.verified || *stays_here => token,
                    Credential::Token { .. } => return Err(LoginFailure::Unprotected),
                    credential => credential.password()?,
                };
                let answer = password_message(secret.expose())?;
                Ok(Step::Next(Self::PasswordSent { in_clear: true }, Some(answer)))
            }
            (Self::Asked, Authentication::Md5Password { salt }) => {
                let answer = match with.credential {
                    Credential::Md5(stored) => md5::answer_with(stored, *salt),
                    credential => md5::answer(with.user.as_bytes(), credential.password()?.expose(), *salt),
                };
                let answer = password_message(answer.expose())?;
                Ok(Step::Next(Self::PasswordSent { in_clear: false }, Some(answer)))
            }
            (Self::Asked, Authentication::Sasl { mechanisms }) => {
                choose(mechanisms)?;
                if !matches!(with.credential, Credential::Keys(_)) {
                    with.credential.password()?;
                }
                let client = ScramClient::new(with.nonce);
                let mut answer = Vec::new();
                frontend::emit_sasl_initial(&mut answer, MECHANISM.as_bytes(), &client.first_message());
                Ok(Step::Next(Self::ScramFirst(client), Some(Secret::new(answer))))
            }
            (Self::ScramFirst(client), Authentication::SaslContinue(message)) => {
                let challenge = client.handle_server_first(message).map_err(LoginFailure::Scram)?;
                Self::answer_challenge(challenge, with)
            }
            (Self::ScramFinal { proof, new_keys }, Authentication::SaslFinal(message)) => {
                proof.handle_server_final(message).map_err(LoginFailure::Scram)?;
                Ok(Step::Next(Self::ScramDone { new_keys }, None))
            }
            _ => Err(Violation::UnexpectedMessage(tag::AUTHENTICATION).into()),
        }
    }

    fn answer_challenge(challenge: ScramChallenge, with: &Evidence<'_>) -> Result<Step, LoginFailure> {
        if let Credential::Keys(keys) = with.credential {
            return match Self::prove(challenge, keys, None) {
                Step::Next(Self::Deriving(_), _) => Err(LoginFailure::Unfit("this SCRAM verifier")),
                step => Ok(step),
            };
        }
        let password = with.credential.password()?;
        let derivation = challenge.derivation(password);
        match with.credential.keys().filter(|keys| challenge.fits(keys, password)) {
            Some(keys) => Ok(Self::prove(challenge, keys, None)),
            None => Ok(Step::Derive(challenge, derivation)),
        }
    }

    /// Goes on with keys that were made for this challenge.
    pub(super) fn handle_derived(challenge: ScramChallenge, keys: ScramKeys) -> Step {
        let keys = Arc::new(keys);
        Self::prove(challenge, &keys, Some(keys.clone()))
    }

    fn prove(challenge: ScramChallenge, keys: &ScramKeys, new_keys: Option<Arc<ScramKeys>>) -> Step {
        match challenge.prove(keys) {
            Ok((message, proof)) => {
                let mut answer = Vec::new();
                frontend::emit_sasl_response(&mut answer, &message);
                Step::Next(Self::ScramFinal { proof, new_keys }, Some(Secret::new(answer)))
            }
            // Keys of some other derivation: still waiting for this one's.
            Err(challenge) => Step::Next(Self::Deriving(challenge), None),
        }
    }
}

const fn done(password: bool, in_clear: bool, new_keys: Option<Arc<ScramKeys>>) -> Step {
    Step::Done(Checked { password, in_clear, new_keys })
}

/// A PasswordMessage, made in one piece so that no copy of the password is left behind by a growing vector.
fn password_message(password: &[u8]) -> Result<Secret<Vec<u8>>, LoginFailure> {
    if password.contains(&0) {
        // It would end the message's string early, and a shorter password would be tried in its place.
        return Err(LoginFailure::Settings("the password holds a zero byte"));
    }
    let mut message = Secret::new(Vec::with_capacity(HEADER_LEN + password.len() + 1));
    frontend::emit_password(message.expose_mut(), password);
    Ok(message)
}

/// Looks for SCRAM-SHA-256 among zero-terminated names that end with an empty one.
fn choose(mechanisms: &[u8]) -> Result<(), LoginFailure> {
    let mut reader = Reader::new(mechanisms);
    let mut plus = false;
    loop {
        match reader.cstr()? {
            name if name == MECHANISM.as_bytes() => return Ok(()),
            b"" => return Err(LoginFailure::UnsupportedMechanisms { plus }),
            name => plus |= name == b"SCRAM-SHA-256-PLUS",
        }
    }
}

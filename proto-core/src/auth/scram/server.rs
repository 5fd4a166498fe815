//! SCRAM-SHA-256, the server's side: a client proves that it knows a password of which we may hold no more than a
//! verifier, and we prove that we hold it (RFC 5802, RFC 7677; PostgreSQL manual, section 54.3).
//!
//! ```text
//! ScramServer --client-first--> ServerChallenge --client-final--> ClientProof --check(verifier)--> proven
//! ```
//! Every step is used up by the next. The verifier is needed only for the last one, so a challenge for a user who does
//! not exist is made by the same code as any other. Channel binding is not offered, as on the client's side.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest;

use super::{Attributes, Derivation, KEY_LEN, NONCE_LEN, ScramFault, ScramKeys, sign, text};
use crate::secret::{Secret, equal_in_constant_time};

/// PBKDF2 rounds where no verifier names its own: PostgreSQL's default (`scram_iterations`). The compiler unwraps it.
pub const DEFAULT_ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// Bytes of salt in a verifier of ours, as many as PostgreSQL uses (`SCRAM_DEFAULT_SALT_LEN`).
pub const SALT_LEN: usize = 16;

/// The most bytes of salt in a verifier from outside.
const MAX_SALT: usize = 1024;

/// Why a client's SCRAM message is not accepted. A wrong password is none of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ClientFault {
    /// It is longer than [`super::MAX_MESSAGE`].
    TooLong,
    /// It lacks this, or has it in a form that does not parse.
    Malformed(&'static str),
    /// It wants channel binding, which was not offered.
    ChannelBinding,
    /// It names somebody to act for (`a=`).
    AuthorizationIdentity,
    /// It insists on an extension (`m=`); none is defined.
    MandatoryExtension,
    /// Its nonce is not the one of this exchange.
    Nonce,
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the client's SCRAM message has more than {} bytes", super::MAX_MESSAGE),
            Self::Malformed(what) => write!(f, "the client's SCRAM message has no valid {what}"),
            Self::ChannelBinding => f.write_str("the client wants SCRAM channel binding, which was not offered"),
            Self::AuthorizationIdentity => {
                f.write_str("the client's SCRAM message names an authorization identity, which is not supported")
            }
            Self::MandatoryExtension => f.write_str("the client insists on a SCRAM extension that gprxy does not know"),
            Self::Nonce => f.write_str("the client's SCRAM nonce is not the one of this exchange"),
        }
    }
}

impl From<ScramFault> for ClientFault {
    fn from(fault: ScramFault) -> Self {
        match fault {
            ScramFault::TooLong => Self::TooLong,
            ScramFault::Malformed(what) => Self::Malformed(what),
            ScramFault::MandatoryExtension => Self::MandatoryExtension,
            ScramFault::Nonce => Self::Nonce,
            _ => Self::Malformed("attribute"),
        }
    }
}

/// What a server keeps of a password (RFC 5802 section 3): enough to check a proof, not enough to make one.
pub struct Verifier {
    iterations: NonZeroU32,
    salt: Box<[u8]>,
    stored_key: Secret<[u8; KEY_LEN]>,
    server_key: Secret<[u8; KEY_LEN]>,
}

impl Verifier {
    /// Reads the form of `pg_authid.rolpassword`: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.strip_prefix("SCRAM-SHA-256$")?;
        let (parameters, keys) = text.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = super::iterations(iterations).ok()?;
        let salt = BASE64.decode(salt).ok().filter(|salt| (1..=MAX_SALT).contains(&salt.len()))?;
        Some(Self { iterations, salt: salt.into(), stored_key: decode(stored_key)?, server_key: decode(server_key)? })
    }

    /// Of keys that were derived from a password.
    #[must_use]
    pub fn new(keys: &ScramKeys) -> Self {
        let mut server_key = Secret::new([0; KEY_LEN]);
        server_key.expose_mut().copy_from_slice(keys.server_key.expose());
        let stored_key = hash(keys.client_key.expose());
        Self { iterations: keys.iterations, salt: keys.salt.clone(), stored_key, server_key }
    }

    /// The salt that a challenge names.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The rounds that a challenge names.
    #[must_use]
    pub const fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    /// The work that shows whether somebody's password is this one: see [`Verifier::is_of`].
    #[must_use]
    pub fn derivation(&self, password: &Arc<Secret<Vec<u8>>>) -> Derivation {
        Derivation::new(password, &self.salt, self.iterations)
    }

    /// Whether the other is the same.
    #[cfg(feature = "driver")]
    pub(in crate::auth) fn is_same(&self, other: &Self) -> bool {
        self.iterations == other.iterations
            && self.salt == other.salt
            && equal_in_constant_time(self.stored_key.expose(), other.stored_key.expose())
            && equal_in_constant_time(self.server_key.expose(), other.server_key.expose())
    }

    /// Whether keys with the same salt and rounds are of the same password.
    #[must_use]
    pub fn is_of(&self, keys: &ScramKeys) -> bool {
        keys.iterations == self.iterations
            && keys.salt == self.salt
            && equal_in_constant_time(hash(keys.client_key.expose()).expose(), self.stored_key.expose())
    }
}

fn decode(key: &str) -> Option<Secret<[u8; KEY_LEN]>> {
    let mut decoded = Secret::new(BASE64.decode(key).ok()?);
    let key: [u8; KEY_LEN] = decoded.expose_mut().as_slice().try_into().ok()?;
    Some(Secret::new(key))
}

fn hash(client_key: &[u8]) -> Secret<[u8; KEY_LEN]> {
    let mut stored_key = Secret::new([0; KEY_LEN]);
    stored_key.expose_mut().copy_from_slice(digest::digest(&digest::SHA256, client_key).as_ref());
    stored_key
}

/// A salt that belongs to this user and to nobody else, and looks like any other. The same user gets the same one
/// again, as a user with a verifier would (PostgreSQL: `scram_mock_salt`).
#[must_use]
pub fn salt_for(user: &[u8], secret: &Secret<[u8; KEY_LEN]>) -> [u8; SALT_LEN] {
    let tag = sign(secret.expose(), user);
    let mut salt = [0; SALT_LEN];
    salt.copy_from_slice(&tag.as_ref()[..SALT_LEN]);
    salt
}

/// An exchange that has not seen anything of the client yet.
pub struct ScramServer {
    nonce: String,
}

impl ScramServer {
    /// Starts with fresh random bytes; they must never be used twice.
    #[must_use]
    pub fn new(nonce: [u8; NONCE_LEN]) -> Self {
        Self { nonce: BASE64.encode(nonce) }
    }

    #[cfg(test)]
    pub(super) fn with(nonce: &str) -> Self {
        Self { nonce: nonce.into() }
    }

    /// Reads the client-first-message and answers it with the server-first-message, for AuthenticationSASLContinue.
    ///
    /// The user named in it is not looked at: PostgreSQL takes the one of the startup packet.
    ///
    /// # Errors
    /// [`ClientFault`] for a message that RFC 5802 does not allow, or that wants what was not offered.
    pub fn handle_client_first(
        self,
        message: &[u8],
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> Result<(Vec<u8>, ServerChallenge), ClientFault> {
        let text = text(message)?;
        // The gs2 header, RFC 5802 section 7: `y` says that the client could bind channels, had we offered it.
        let (binding, rest) = match text.split_once(',') {
            Some(("n", rest)) => ("n,,", rest),
            Some(("y", rest)) => ("y,,", rest),
            Some((binding, _)) if binding.starts_with("p=") => return Err(ClientFault::ChannelBinding),
            _ => return Err(ClientFault::Malformed("gs2 header")),
        };
        let bare = match rest.split_once(',') {
            Some(("", bare)) => bare,
            Some((identity, _)) if identity.starts_with("a=") => return Err(ClientFault::AuthorizationIdentity),
            _ => return Err(ClientFault::Malformed("gs2 header")),
        };
        let mut attributes = Attributes(Some(bare));
        attributes.take('n', "user name (n=)")?;
        let theirs = attributes.take('r', "nonce (r=)")?;
        if theirs.is_empty() || !theirs.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ClientFault::Malformed("nonce (r=)"));
        }
        attributes.finish()?;
        let nonce = format!("{theirs}{}", self.nonce);
        let answer = format!("r={nonce},s={},i={iterations}", BASE64.encode(salt));
        let so_far = format!("{bare},{answer},");
        Ok((answer.into_bytes(), ServerChallenge { binding, nonce, so_far }))
    }
}

/// The challenge is on its way; the client's proof is due.
pub struct ServerChallenge {
    binding: &'static str,
    nonce: String,
    /// The front of the AuthMessage (RFC 5802 section 3).
    so_far: String,
}

impl ServerChallenge {
    /// Reads the client-final-message.
    ///
    /// # Errors
    /// As for the first message.
    pub fn handle_client_final(self, message: &[u8]) -> Result<ClientProof, ClientFault> {
        let text = text(message)?;
        // The proof stands last, and is no part of what it signs.
        let (signed, proof) = text.rsplit_once(",p=").ok_or(ClientFault::Malformed("proof (p=)"))?;
        let mut attributes = Attributes(Some(signed));
        if attributes.take('c', "channel binding (c=)")? != BASE64.encode(self.binding) {
            return Err(ClientFault::Malformed("channel binding (c=)"));
        }
        if attributes.take('r', "nonce (r=)")? != self.nonce {
            return Err(ClientFault::Nonce);
        }
        attributes.finish()?;
        let proof = BASE64.decode(proof).ok().and_then(|proof| proof.try_into().ok());
        let proof = proof.ok_or(ClientFault::Malformed("proof (p=)"))?;
        Ok(ClientProof { proof: Secret::new(proof), auth_message: self.so_far + signed })
    }
}

/// What the client says is its proof.
pub struct ClientProof {
    proof: Secret<[u8; KEY_LEN]>,
    auth_message: String,
}

/// A client that knows the password.
pub struct Proven {
    /// The server-final-message, for AuthenticationSASLFinal: our own proof.
    pub server_final: Vec<u8>,
    /// The client's key: with it one can log in wherever the same verifier is kept.
    pub keys: ScramKeys,
}

impl ClientProof {
    /// The work of [`ClientProof::check`] for somebody who has no verifier.
    pub(in crate::auth) fn check_in_vain(self, any: &Secret<[u8; KEY_LEN]>) {
        let [stored_key, server_key] = [any, any].map(|any| hash(any.expose()));
        let verifier = Verifier { iterations: DEFAULT_ITERATIONS, salt: [].into(), stored_key, server_key };
        let _ = self.check(&verifier);
    }

    /// Checks it; `None` when the client does not know the password.
    #[must_use]
    pub fn check(self, verifier: &Verifier) -> Option<Proven> {
        // RFC 5802 section 3: ClientKey := ClientProof XOR HMAC(StoredKey, AuthMessage), and H(ClientKey) is StoredKey.
        let signature = sign(verifier.stored_key.expose(), self.auth_message.as_bytes());
        let mut client_key = self.proof;
        for (byte, mask) in client_key.expose_mut().iter_mut().zip(signature.as_ref()) {
            *byte ^= mask;
        }
        if !equal_in_constant_time(hash(client_key.expose()).expose(), verifier.stored_key.expose()) {
            return None;
        }
        let own = sign(verifier.server_key.expose(), self.auth_message.as_bytes());
        let mut server_key = Secret::new([0; KEY_LEN]);
        server_key.expose_mut().copy_from_slice(verifier.server_key.expose());
        let keys = ScramKeys {
            client_key,
            server_key,
            salt: verifier.salt.clone(),
            iterations: verifier.iterations,
            password: None,
        };
        Some(Proven { server_final: format!("v={}", BASE64.encode(own)).into_bytes(), keys })
    }
}

#[cfg(test)]
mod tests;

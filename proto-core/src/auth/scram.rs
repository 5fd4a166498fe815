//! SCRAM-SHA-256, the client's side ([`server`] has the other): proves to a PostgreSQL server that the proxy knows an account's password, and
//! makes the server prove that it does too (RFC 5802, RFC 7677; PostgreSQL manual, section 54.3).
//!
//! ```text
//! ScramClient --server-first--> ScramChallenge --keys--> ScramProof --server-final--> the server is proven
//!                                     |   ^
//!                           Derivation|   |ScramKeys      (or keys of an earlier login: `ScramChallenge::fits`)
//!                                     v   |
//!                                 PBKDF2, on a thread that may block
//! ```
//!
//! Every step is a type of its own and is used up by the next, so none can be left out or repeated. Channel binding
//! is not offered (gs2 header `n,,`): the TLS layer is the driver's and does not hand its certificate down here.

pub mod server;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use crate::secret::{Secret, equal_in_constant_time};

/// The mechanism's name, as it stands in AuthenticationSASL.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The most PBKDF2 rounds that a server may ask for. The server picks how much of our processor a login takes, so
/// there must be an end: this is some tenths of a second, and 244 times PostgreSQL's default (`scram_iterations`, 4096).
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// The longest SCRAM message that is read. PostgreSQL's own have about 100 bytes.
pub const MAX_MESSAGE: usize = 4096;

/// Random bytes in our nonce, as many as libpq uses (`SCRAM_RAW_NONCE_LEN`).
pub const NONCE_LEN: usize = 18;

/// The gs2 header: no channel binding, no authorization identity (RFC 5802 section 7).
const GS2_HEADER: &str = "n,,";
/// The gs2 header in base64, as the client-final-message repeats it.
const GS2_HEADER_BASE64: &str = "biws";
const KEY_LEN: usize = digest::SHA256_OUTPUT_LEN;
/// The longest reason of a server's `e=` that is kept. The longest in RFC 5802 has 40 bytes.
const MAX_REASON: usize = 64;

/// Why a SCRAM exchange failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ScramFault {
    /// A message above [`MAX_MESSAGE`].
    TooLong,
    /// A message without this attribute, or with one that does not parse.
    Malformed(&'static str),
    /// An extension (`m=`) that the server insists on; none is defined.
    MandatoryExtension,
    /// A nonce that is not ours with the server's own part behind it.
    Nonce,
    /// An iteration count of 0, or above [`MAX_ITERATIONS`].
    Iterations,
    /// The server does not know the password either: it is not the one that the account belongs to.
    ServerSignature,
    /// The server said no, for this reason (`e=`, RFC 5802 section 7).
    Refused(Box<str>),
}

impl fmt::Display for ScramFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the server's SCRAM message has more than {MAX_MESSAGE} bytes"),
            Self::Malformed(what) => write!(f, "the server's SCRAM message has no valid {what}"),
            Self::MandatoryExtension => f.write_str("the server insists on a SCRAM extension that gprxy does not know"),
            Self::Nonce => f.write_str("the server's SCRAM nonce does not extend the one that gprxy sent"),
            Self::Iterations => {
                write!(f, "the server's SCRAM iteration count is not between 1 and {MAX_ITERATIONS}")
            }
            Self::ServerSignature => f.write_str("the server could not prove that it knows the password's verifier"),
            Self::Refused(reason) => write!(f, "the server refused the SCRAM exchange: {reason}"),
        }
    }
}

/// An exchange that has not seen anything of the server yet.
pub struct ScramClient {
    first_bare: String,
    nonce_at: usize,
}

impl ScramClient {
    /// Starts with fresh random bytes; they must never be used twice.
    #[must_use]
    pub fn new(nonce: [u8; NONCE_LEN]) -> Self {
        // PostgreSQL takes the user from the startup packet and ignores this one; libpq leaves it empty as well.
        Self::with("", &BASE64.encode(nonce))
    }

    fn with(user: &str, nonce: &str) -> Self {
        let user = format!("n={user},r=");
        Self { nonce_at: user.len(), first_bare: user + nonce }
    }

    /// The client-first-message, for SASLInitialResponse.
    #[must_use]
    pub fn first_message(&self) -> Vec<u8> {
        [GS2_HEADER.as_bytes(), self.first_bare.as_bytes()].concat()
    }

    /// Reads the server-first-message: the body of AuthenticationSASLContinue.
    ///
    /// # Errors
    /// [`ScramFault`] for a message that RFC 5802 does not allow, or that goes beyond our bounds.
    pub fn handle_server_first(self, message: &[u8]) -> Result<ScramChallenge, ScramFault> {
        let text = text(message)?;
        let mut attributes = Attributes(Some(text));
        let nonce = attributes.take('r', "nonce (r=)")?;
        let ours = &self.first_bare[self.nonce_at..];
        // RFC 5802 section 5.1: the server's part follows ours; without one it could replay an old exchange.
        let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || !nonce.starts_with(ours) || nonce.len() == ours.len() {
            return Err(ScramFault::Nonce);
        }
        let salt = attributes.take('s', "salt (s=)")?;
        let salt =
            BASE64.decode(salt).ok().filter(|salt| !salt.is_empty()).ok_or(ScramFault::Malformed("salt (s=)"))?;
        let iterations = iterations(attributes.take('i', "iteration count (i=)")?)?;
        attributes.finish()?;
        let final_bare = format!("c={GS2_HEADER_BASE64},r={nonce}");
        let auth_message = format!("{},{text},{final_bare}", self.first_bare);
        Ok(ScramChallenge { salt: salt.into(), iterations, final_bare, auth_message })
    }
}

/// What the server asks for.
pub struct ScramChallenge {
    salt: Box<[u8]>,
    iterations: NonZeroU32,
    final_bare: String,
    auth_message: String,
}

impl ScramChallenge {
    /// Whether these keys, of an earlier login, answer this challenge: same salt, same iterations, same password.
    #[must_use]
    pub fn fits(&self, keys: &ScramKeys, password: &Arc<Secret<Vec<u8>>>) -> bool {
        self.asks_for(keys)
            && keys.password.as_ref().is_some_and(|known| {
                Arc::ptr_eq(known, password) || equal_in_constant_time(known.expose(), password.expose())
            })
    }

    fn asks_for(&self, keys: &ScramKeys) -> bool {
        keys.iterations == self.iterations && keys.salt == self.salt
    }

    /// The work that makes the keys. It takes from under a millisecond to some tenths of a second.
    #[must_use]
    pub fn derivation(&self, password: &Arc<Secret<Vec<u8>>>) -> Derivation {
        Derivation::new(password, &self.salt, self.iterations)
    }

    /// The client-final-message, for SASLResponse, and what is needed to check the server's answer to it.
    ///
    /// Gives the challenge back when the keys were derived from another salt or iteration count.
    ///
    /// # Errors
    /// The challenge itself.
    pub fn prove(self, keys: &ScramKeys) -> Result<(Vec<u8>, ScramProof), Self> {
        if !self.asks_for(keys) {
            return Err(self);
        }
        // RFC 5802 section 3: ClientProof := ClientKey XOR HMAC(H(ClientKey), AuthMessage)
        let stored_key = digest::digest(&digest::SHA256, keys.client_key.expose());
        let client_signature = sign(stored_key.as_ref(), self.auth_message.as_bytes());
        let mut proof = [0; KEY_LEN];
        for ((out, key), signature) in proof.iter_mut().zip(keys.client_key.expose()).zip(client_signature.as_ref()) {
            *out = key ^ signature;
        }
        let server_signature = sign(keys.server_key.expose(), self.auth_message.as_bytes());
        let message = format!("{},p={}", self.final_bare, BASE64.encode(proof));
        Ok((message.into_bytes(), ScramProof { server_signature }))
    }
}

/// PBKDF2 as a job to be carried elsewhere: pure, `Send`, `'static`.
pub struct Derivation {
    password: Arc<Secret<Vec<u8>>>,
    salt: Box<[u8]>,
    iterations: NonZeroU32,
}

impl Derivation {
    /// Of a password with this salt and so many rounds.
    #[must_use]
    pub fn new(password: &Arc<Secret<Vec<u8>>>, salt: &[u8], iterations: NonZeroU32) -> Self {
        Self { password: password.clone(), salt: salt.into(), iterations }
    }

    /// Rounds of PBKDF2: how much work it is.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    /// Does the work. Blocks the thread meanwhile.
    #[must_use]
    pub fn run(self) -> ScramKeys {
        let mut salted = Secret::new([0; KEY_LEN]);
        let prepared = prepare(self.password.expose());
        let password = prepared.as_ref().map_or(self.password.expose(), Secret::expose);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, self.iterations, &self.salt, password, salted.expose_mut());
        ScramKeys {
            client_key: key(salted.expose(), b"Client Key"),
            server_key: key(salted.expose(), b"Server Key"),
            salt: self.salt,
            iterations: self.iterations,
            password: Some(self.password),
        }
    }
}

/// What PBKDF2 made of a password: kept per account, so that the work is done once and not with every login.
///
/// As good as the password itself towards the server that issued the salt, hence secret. The password stays beside
/// it where it is known, because keys must never answer for another password than their own.
pub struct ScramKeys {
    client_key: Secret<[u8; KEY_LEN]>,
    server_key: Secret<[u8; KEY_LEN]>,
    salt: Box<[u8]>,
    iterations: NonZeroU32,
    /// `None` where a client's proof showed the keys, and the password itself was never here.
    password: Option<Arc<Secret<Vec<u8>>>>,
}

/// Our proof is on its way; the server's is due.
pub struct ScramProof {
    server_signature: hmac::Tag,
}

impl ScramProof {
    /// Reads the server-final-message: the body of AuthenticationSASLFinal.
    ///
    /// # Errors
    /// [`ScramFault::ServerSignature`] when the server could not prove itself, and others as for the first message.
    pub fn handle_server_final(self, message: &[u8]) -> Result<(), ScramFault> {
        let mut attributes = Attributes(Some(text(message)?));
        let verifier = attributes.take('v', "verifier (v=)")?;
        attributes.finish()?;
        let signature = BASE64.decode(verifier).map_err(|_| ScramFault::Malformed("verifier (v=)"))?;
        if equal_in_constant_time(&signature, self.server_signature.as_ref()) {
            Ok(())
        } else {
            Err(ScramFault::ServerSignature)
        }
    }
}

/// SASLprep (RFC 4013) as PostgreSQL applies it; `None` means the bytes as they are.
///
/// PostgreSQL's `pg_saslprep` leaves ASCII alone, and its callers fall back to the raw bytes for everything that is
/// not UTF-8 or not valid for the profile (an empty result included): a password need not be text.
fn prepare(password: &[u8]) -> Option<Secret<Vec<u8>>> {
    if password.is_ascii() {
        return None;
    }
    let prepared = stringprep::saslprep(std::str::from_utf8(password).ok()?).ok()?;
    (!prepared.is_empty()).then(|| Secret::new(prepared.into_owned().into_bytes()))
}

fn key(salted_password: &[u8], name: &[u8]) -> Secret<[u8; KEY_LEN]> {
    let mut key = Secret::new([0; KEY_LEN]);
    key.expose_mut().copy_from_slice(sign(salted_password, name).as_ref());
    key
}

fn sign(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

fn text(message: &[u8]) -> Result<&str, ScramFault> {
    if message.len() > MAX_MESSAGE {
        return Err(ScramFault::TooLong);
    }
    std::str::from_utf8(message).map_err(|_| ScramFault::Malformed("UTF-8"))
}

/// `posit-number` of RFC 5802 section 7: no sign, no leading zero.
fn iterations(digits: &str) -> Result<NonZeroU32, ScramFault> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ScramFault::Malformed("iteration count (i=)"));
    }
    // More digits than fit a number are also too many iterations.
    let count = digits.parse().ok().filter(|&count| count <= MAX_ITERATIONS).and_then(NonZeroU32::new);
    match count {
        Some(_) if digits.starts_with('0') => Err(ScramFault::Malformed("iteration count (i=)")),
        Some(count) => Ok(count),
        None => Err(ScramFault::Iterations),
    }
}

/// The comma-separated attributes of a message, in their fixed order (RFC 5802 section 5.1).
struct Attributes<'a>(Option<&'a str>);

impl<'a> Attributes<'a> {
    fn next(&mut self) -> Option<(char, &'a str)> {
        let (attribute, rest) = match self.0?.split_once(',') {
            Some((attribute, rest)) => (attribute, Some(rest)),
            None => (self.0?, None),
        };
        self.0 = rest;
        let mut chars = attribute.chars();
        let name = chars.next().filter(char::is_ascii_alphabetic)?;
        (chars.next()? == '=').then_some((name, chars.as_str()))
    }

    fn take(&mut self, name: char, what: &'static str) -> Result<&'a str, ScramFault> {
        match self.next() {
            Some((found, value)) if found == name => Ok(value),
            Some(('e', reason)) => Err(ScramFault::Refused(printable(reason))),
            Some(('m', _)) => Err(ScramFault::MandatoryExtension),
            _ => Err(ScramFault::Malformed(what)),
        }
    }

    /// Whatever follows must at least look like an attribute; unknown ones are ignored.
    fn finish(mut self) -> Result<(), ScramFault> {
        while self.0.is_some() {
            self.next().ok_or(ScramFault::Malformed("extension"))?;
        }
        Ok(())
    }
}

/// A server's reason as it may stand in a log line and in an error: bounded, one line.
fn printable(reason: &str) -> Box<str> {
    let text: String = reason.chars().filter(|c| c.is_ascii_graphic()).take(MAX_REASON).collect();
    text.into()
}

#[cfg(test)]
mod tests;

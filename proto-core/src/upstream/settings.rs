//! What a login to a server needs to know beforehand.

use std::sync::Arc;
use std::time::Duration;

use super::failure::LoginFailure;
use crate::auth::md5::StoredDigest;
use crate::auth::scram::{NONCE_LEN, ScramKeys};
use crate::codec::{Reader, startup};
use crate::policy::SslMode;
use crate::secret::Secret;

/// What a login proves itself with.
#[derive(Clone)]
#[non_exhaustive]
pub enum Credential {
    /// Nothing: the server must trust the proxy (trust, peer or certificate authentication).
    None,
    /// A password. An empty one counts as none, as for libpq.
    Password {
        /// Its bytes; they need not be UTF-8.
        password: Arc<Secret<Vec<u8>>>,
        /// The `new_keys` of an earlier login with it, if there was one. Used only when they fit.
        keys: Option<Arc<ScramKeys>>,
    },
    /// The keys of a verifier, where the password itself is not known: they serve a server that keeps the same one.
    Keys(Arc<ScramKeys>),
    /// A verifier alone, whose keys nobody has shown: it serves a server that does not ask for a password.
    Verifier,
    /// The hash of a password, as a server keeps it: as good as the password where that asks for MD5.
    Md5(Arc<StoredDigest>),
    /// A token, which is sent as it is, and so only where nobody else can read it.
    Token {
        /// As its issuer made it.
        token: Arc<Secret<Vec<u8>>>,
        /// Whether the server is on this machine: then it may be sent without verified TLS.
        stays_here: bool,
    },
}

impl Credential {
    /// This password, if there is one, without keys of an earlier login.
    #[must_use]
    pub fn of(password: Option<Arc<Secret<Vec<u8>>>>) -> Self {
        password.map_or(Self::None, |password| Self::Password { password, keys: None })
    }

    /// The same with the keys of an earlier login, where it is a password.
    #[must_use]
    pub fn with_keys(self, keys: Option<Arc<ScramKeys>>) -> Self {
        match self {
            Self::Password { password, .. } => Self::Password { password, keys },
            other => other,
        }
    }

    pub(super) fn password(&self) -> Result<&Arc<Secret<Vec<u8>>>, LoginFailure> {
        match self {
            Self::Password { password, .. } if !password.expose().is_empty() => Ok(password),
            Self::Password { .. } | Self::None => Err(LoginFailure::PasswordMissing),
            Self::Verifier => Err(LoginFailure::KeysUnknown),
            Self::Keys(_) => Err(LoginFailure::Unfit("a SCRAM verifier")),
            Self::Md5(_) => Err(LoginFailure::Unfit("an MD5 hash")),
            Self::Token { .. } => Err(LoginFailure::Unfit("a token")),
        }
    }

    /// What the server gets in clear, if it asks for that.
    pub(super) fn in_clear(&self) -> Option<&[u8]> {
        match self {
            Self::Password { password: secret, .. } | Self::Token { token: secret, .. } => Some(secret.expose()),
            Self::None | Self::Keys(_) | Self::Verifier | Self::Md5(_) => None,
        }
    }

    pub(super) const fn keys(&self) -> Option<&Arc<ScramKeys>> {
        match self {
            Self::Password { keys, .. } => keys.as_ref(),
            Self::Keys(keys) => Some(keys),
            Self::None | Self::Verifier | Self::Md5(_) | Self::Token { .. } => None,
        }
    }
}

/// Everything that a login needs to know beforehand; of a session's wish by [`crate::session::Wish::login_settings`].
pub struct LoginSettings {
    /// The account.
    pub user: Arc<str>,
    /// The database's name on the server.
    pub database: Arc<str>,
    /// Further startup parameters, each as `name\0value\0`, sent as they are. `user` and `database` must not be among
    /// them: PostgreSQL takes the last of two, so they would override the ones above.
    pub parameters: Arc<[u8]>,
    /// What to answer when the server asks.
    pub credential: Credential,
    /// Whether TLS is asked for, and what happens without it.
    pub sslmode: SslMode,
    /// `false` on a Unix socket, where libpq ignores `sslmode` as well.
    pub tls_possible: bool,
    /// Fresh random bytes for SCRAM.
    pub nonce: [u8; NONCE_LEN],
    /// How long all of it may take, the TLS handshake included.
    pub timeout: Duration,
}

/// The startup packet, or which setting cannot stand in one.
pub(super) fn startup_packet(settings: &LoginSettings) -> Result<Vec<u8>, &'static str> {
    let (user, database) = (settings.user.as_bytes(), settings.database.as_bytes());
    if user.is_empty() || user.contains(&0) {
        return Err("the user name is empty or holds a zero byte");
    }
    if database.contains(&0) {
        return Err("the database name holds a zero byte");
    }
    let mut pairs = vec![(&b"user"[..], user), (b"database", database)];
    let mut reader = Reader::new(&settings.parameters);
    while !reader.is_empty() {
        let (Ok(name), Ok(value)) = (reader.cstr(), reader.cstr()) else {
            return Err("a startup parameter has no end");
        };
        if matches!(name, b"" | b"user" | b"database") {
            return Err("a startup parameter is named \"user\" or \"database\", or has no name");
        }
        pairs.push((name, value));
    }
    let mut packet = Vec::new();
    startup::emit(&mut packet, startup::PROTOCOL_3_0, pairs);
    if packet.len() > startup::MAX_STARTUP_PACKET as usize {
        return Err("the startup parameters are longer than a server accepts (10000 bytes)");
    }
    Ok(packet)
}

//! Evidence in, proof out.

pub mod gate;
pub mod jwks;
pub mod jwt;
pub mod md5;
pub mod roles;
pub mod scram;
pub mod users;

use std::sync::Arc;

use crate::time::UnixMicros;

/// How somebody proved who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Method {
    /// A token of a configured issuer.
    Token,
    /// A password that PostgreSQL itself accepted, or that is in the proxy's own list of users.
    Password,
    /// Nothing: the settings trust whoever can connect.
    Trust,
    /// By running as gprxy's own user of this machine, as the Unix socket tells.
    Peer,
}

/// A verified person or service.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Identity {
    /// The token's `iss`; empty for a password.
    pub issuer: Arc<str>,
    /// The token's `sub`; the PostgreSQL user for a password. This is who they are.
    pub subject: Arc<str>,
    /// The readable name from the configured user claim (`email`, ...): what audit trails and `user` checks show.
    pub user: Arc<str>,
    /// Role names as the token spells them.
    pub roles: Arc<[Arc<str>]>,
    /// When the token ends; `None` for a password.
    pub expires: Option<UnixMicros>,
    /// How it was proven.
    pub method: Method,
}

/// The proof that an [`Identity`] was verified. Only this module and its children can make one.
#[derive(Clone, Debug)]
pub struct Authenticated(Arc<Identity>);

impl Authenticated {
    fn new(identity: Identity) -> Self {
        Self(Arc::new(identity))
    }

    /// The proof for a user whose password PostgreSQL itself has just checked.
    ///
    /// `None` when the server let the proxy in without asking for it (trust, ...): that proves nothing about anybody.
    #[must_use]
    pub fn by_server(login: &crate::upstream::LoggedIn) -> Option<Self> {
        let user = login.user().clone();
        login.password_checked().then(|| {
            Self::new(Identity {
                issuer: "".into(),
                subject: user.clone(),
                user,
                roles: Arc::new([]),
                expires: None,
                method: Method::Password,
            })
        })
    }

    /// The proof for a peer that runs as gprxy's own user of this machine; `None` when it does not, or that is not known.
    #[must_use]
    pub fn by_peer(peer: Option<u32>, own: Option<u32>, user: &Arc<str>) -> Option<Self> {
        (peer.is_some() && peer == own).then(|| {
            Self::new(Identity {
                issuer: "".into(),
                subject: user.clone(),
                user: user.clone(),
                roles: Arc::new([]),
                expires: None,
                method: Method::Peer,
            })
        })
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.0
    }
}

pub use roles::is_same_role;

/// Whether a password is meant as a token: it starts with `eyJ` (base64url of `{"`) and has exactly two dots.
#[must_use]
pub fn looks_like_token(password: &[u8]) -> bool {
    password.starts_with(b"eyJ") && memchr::memchr_iter(b'.', password).count() == 2
}

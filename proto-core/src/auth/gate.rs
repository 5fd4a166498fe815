//! Users who prove themselves by a password that the proxy itself can check: PgBouncer's `auth_type` and `auth_file`.
//!
//! ```text
//!                       trust ────────────────────────────────────────────▶ admitted
//!  startup ─▶ Passage ─ plain ─ password ──────────[ derive ]─────────────▶ admitted
//!               │       md5 ─── salt ─ answer ────────────────────────────▶ admitted
//!               └ scram-sha-256 ─ client-first ─ client-final ─[ derive ]─▶ admitted
//! ```
//! Whoever does not exist is asked for the same, waits for the same and is told the same as whoever has a wrong
//! password, and no secret is compared in a time that depends on its content.

mod passage;

use std::num::NonZeroU32;
use std::sync::Arc;

use super::scram::server::{DEFAULT_ITERATIONS, SALT_LEN, Verifier, salt_for};
use super::users::{StoredSecret, User, UserList};
use super::{Authenticated, Identity, Method};
use crate::entropy::Entropy;
use crate::fault::{Refusal, SqlState};
use crate::policy::{Account, AuthType};
use crate::secret::Secret;
use crate::upstream::Credential;

pub use passage::{Passage, Question, Step};

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

    /// Whether somebody who was let in like that would be let in by these settings, too.
    #[must_use]
    pub fn still_takes(&self, method: Method) -> bool {
        match method {
            Method::Password => true,
            Method::Trust => self.auth_type == AuthType::Trust,
            Method::Token | Method::Peer => false,
        }
    }

    /// What somebody who was let in under this name has for the server by these settings; `None`: they would not be let in.
    /// What only their login could show is not known here, and [`Backing::Provided`] stands for it.
    #[must_use]
    pub fn renew(&self, name: &str) -> Option<Backing> {
        let user = match &self.users {
            Users::Anyone(_) => return Some(Backing::Provided),
            Users::Listed(list) => list.find(name)?,
        };
        Some(match &user.secret {
            StoredSecret::Scram(_) => Backing::Provided,
            StoredSecret::Md5(digest) => Backing::Passed(Credential::Md5(digest.clone())),
            StoredSecret::Plain(_) => Backing::Account(user.account.clone()),
        })
    }

    /// Whether the names of those who are let in say who they are.
    #[must_use]
    pub const fn knows_names(&self) -> bool {
        matches!(self.users, Users::Listed(_))
    }

    /// The names of a list, in their order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let list = match &self.users {
            Users::Listed(list) => Some(list),
            Users::Anyone(_) => None,
        };
        list.into_iter().flat_map(UserList::names)
    }

    /// The account of a listed user.
    #[cfg(feature = "driver")]
    pub(crate) fn account(&self, name: &str) -> Option<Arc<Account>> {
        match &self.users {
            Users::Listed(list) => list.find(name).map(|user| user.account.clone()),
            Users::Anyone(_) => None,
        }
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

    fn admission(&self, name: &Arc<str>, shown: Option<Credential>, sasl_final: Option<Vec<u8>>) -> Admission {
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
        Admission { who, backing, sasl_final }
    }
}

#[cfg(test)]
mod tests;

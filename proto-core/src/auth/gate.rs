//! Users who prove themselves by a password that the proxy itself can check: PgBouncer's `auth_type` and `auth_file`.
//!
//! ```text
//!                       trust ────────────────────────────────────────────▶ admitted
//!  startup ─▶ Passage ─ plain ─ password ──────────[ derive ]─────────────▶ admitted
//!               │       md5 ─── salt ─ answer ────────────────────────────▶ admitted
//!               └ scram-sha-256 ─ client-first ─ client-final ─[ derive ]─▶ admitted
//! ```
//! Whoever does not exist is asked for the same, waits for the same and is told the same as whoever has a wrong
//! password, and no secret is compared in a time that depends on its content. Where a wrong password costs a derivation
//! for one kind of user, it costs one for all of them and for whoever does not exist: only who is let in may be faster.
//!
//! A name that is not in the list may have been looked up elsewhere, see [`Passage::of_looked_up`]; the gate itself asks
//! nobody.

mod passage;
mod strangers;

use std::num::NonZeroU32;
use std::sync::Arc;

use super::scram::server::{DEFAULT_ITERATIONS, salt_for};
use super::users::{StoredSecret, User, UserList};
use super::{Authenticated, Identity, Method};
use crate::entropy::Entropy;
use crate::fault::{Refusal, SqlState};
use crate::policy::{Account, AuthType};
use crate::secret::Secret;
use crate::upstream::Credential;

use strangers::Strangers;

pub use passage::{Passage, Question, Step};

/// Who is let in, by which proof, and what they have for the server.
pub struct Gate {
    auth_type: AuthType,
    users: Users,
    /// The one user of this machine whose processes may connect.
    peer: Option<u32>,
    /// What salts for users without a verifier are made of.
    mock: Secret<[u8; 32]>,
    /// How whoever does not exist is asked.
    strangers: Strangers,
}

enum Users {
    /// Those of a list, who log in to the server as themselves.
    Listed(UserList),
    /// Whoever knows one secret, or is trusted, under any name.
    Anyone(Box<Option<User>>),
}

/// What a challenge names, and what work it makes.
struct Asked {
    salt: Box<[u8]>,
    rounds: NonZeroU32,
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

    /// Whether this name need not be looked up: the list has it, or names do not matter.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        match &self.users {
            Users::Anyone(_) => true,
            Users::Listed(list) => list.find(name).is_some(),
        }
    }

    /// What somebody who was let in under this name has for the server by these settings; `None`: they are not listed.
    /// What only their login could show is not known here, and [`Backing::Provided`] stands for it.
    #[must_use]
    pub fn renew(&self, name: &str) -> Option<Backing> {
        let user = match &self.users {
            Users::Anyone(_) => return Some(Backing::Provided),
            Users::Listed(list) => list.find(name)?,
        };
        Some(match &user.secret {
            StoredSecret::Scram(_) => Backing::Provided,
            _ => Backing::of(user, None),
        })
    }

    /// What the list has to log in as this user with, whoever does; `None`: they are not listed.
    #[must_use]
    pub fn backing(&self, name: &str) -> Option<Backing> {
        match &self.users {
            Users::Anyone(_) => None,
            Users::Listed(list) => list.find(name).map(|user| Backing::of(user, None)),
        }
    }

    /// Other settings hold, and this gate stands where that one stood: strangers are asked as they were.
    #[cfg(feature = "driver")]
    pub(crate) fn follow(&self, before: &Self) {
        self.strangers.follow(&before.strangers);
    }

    /// Whether both have the same secret for this name, or none.
    #[cfg(feature = "driver")]
    pub(crate) fn has_same(&self, other: &Self, name: &str) -> bool {
        match (self.find(name), other.find(name)) {
            (Some(one), Some(other)) => one.secret.is_same(&other.secret),
            (one, other) => one.is_none() && other.is_none(),
        }
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
        let strangers = match &users {
            Users::Listed(list) => Strangers::beside(list),
            Users::Anyone(_) => Strangers::default(),
        };
        Self { auth_type, users, peer: None, mock, strangers }
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

    /// The salt and rounds of a challenge for somebody who has no verifier, and need not exist.
    fn mock(&self, name: &[u8]) -> Asked {
        Asked { salt: salt_for(name, &self.mock).into(), rounds: self.strangers.rounds().unwrap_or(DEFAULT_ITERATIONS) }
    }

    fn admission(
        &self,
        name: &Arc<str>,
        user: Option<&User>,
        shown: Option<Credential>,
        sasl_final: Option<Vec<u8>>,
    ) -> Admission {
        let method = if self.auth_type == AuthType::Trust { Method::Trust } else { Method::Password };
        let who = Authenticated::new(Identity {
            issuer: "".into(),
            subject: name.clone(),
            user: name.clone(),
            roles: Arc::new([]),
            expires: None,
            method,
        });
        let backing = match (&self.users, user) {
            (Users::Anyone(_), _) | (_, None) => Backing::Provided,
            (Users::Listed(_), Some(user)) => Backing::of(user, shown),
        };
        Admission { who, backing, sasl_final }
    }
}

impl Backing {
    /// Of a user, and of what their login has shown.
    fn of(user: &User, shown: Option<Credential>) -> Self {
        match (&user.secret, shown) {
            (StoredSecret::Scram(_), Some(shown)) => Self::Passed(shown),
            (StoredSecret::Scram(_), None) => Self::Passed(Credential::Verifier),
            (StoredSecret::Md5(digest), _) => Self::Passed(Credential::Md5(digest.clone())),
            (StoredSecret::Plain(_), _) => Self::Account(user.account.clone()),
        }
    }
}

#[cfg(test)]
mod tests;

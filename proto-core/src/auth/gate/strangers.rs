//! How somebody who does not exist is asked: as those are who do.

use std::num::NonZeroU32;
use std::sync::OnceLock;

use crate::auth::users::{StoredSecret, UserList};
use crate::policy::AuthType;

/// What is known of those who exist: from the list, and from the first ones who were looked up.
#[derive(Default)]
pub(super) struct Strangers {
    listed: Likeness,
    /// Whether the first one who was looked up has a verifier.
    found_verifier: OnceLock<bool>,
    /// The rounds of the first verifier that was looked up.
    found_rounds: OnceLock<NonZeroU32>,
}

#[derive(Default)]
struct Likeness {
    /// Whoever has a password at all has a verifier of it.
    only_verifiers: bool,
    /// Somebody has a password in clear.
    passwords: bool,
    /// The rounds of verifiers, where there are any.
    rounds: Option<NonZeroU32>,
}

impl Strangers {
    pub(super) fn beside(list: &UserList) -> Self {
        let listed = Likeness {
            only_verifiers: list.has_only_verifiers(),
            passwords: list.has_passwords(),
            rounds: list.some_verifier().map(|verifier| verifier.iterations()),
        };
        Self { listed, ..Self::default() }
    }

    /// Somebody was looked up, and this is what is kept of their password.
    pub(super) fn learn(&self, secret: &StoredSecret) {
        if secret.is_empty() {
            return;
        }
        let rounds = match secret {
            StoredSecret::Scram(verifier) => Some(verifier.iterations()),
            StoredSecret::Md5(_) | StoredSecret::Plain(_) => None,
        };
        let _ = self.found_verifier.set(rounds.is_some());
        if let Some(rounds) = rounds {
            let _ = self.found_rounds.set(rounds);
        }
    }

    /// What was learnt by another one is known here, too.
    #[cfg(feature = "driver")]
    pub(super) fn follow(&self, before: &Self) {
        if let Some(found) = before.found_verifier.get() {
            let _ = self.found_verifier.set(*found);
        }
        if let Some(rounds) = before.found_rounds.get() {
            let _ = self.found_rounds.set(*rounds);
        }
    }

    /// Where `auth_type` leaves it to what is kept of a user: by SCRAM, else by MD5.
    pub(super) fn by_scram(&self) -> bool {
        self.found_verifier.get().copied().unwrap_or(self.listed.only_verifiers)
    }

    /// The rounds of verifiers, where there are any.
    pub(super) fn rounds(&self) -> Option<NonZeroU32> {
        self.found_rounds.get().copied().or(self.listed.rounds)
    }

    /// Whether the wrong password of somebody may cost a derivation. Of those who are looked up anything may be kept.
    pub(super) fn may_cost(&self, auth_type: AuthType, looked_up: bool) -> bool {
        match auth_type {
            AuthType::Plain => looked_up || self.rounds().is_some(),
            AuthType::ScramSha256 => looked_up || self.listed.passwords,
            // A password in clear is asked for by MD5.
            AuthType::Md5 | AuthType::Trust => false,
        }
    }
}

//! The settings change while a session runs: its next server connection is wished by the new ones.

use std::sync::Arc;

use crate::auth::gate::Backing;
use crate::auth::jwt::Keyring;
use crate::auth::{Identity, Method};
use crate::fault::{Refusal, SqlState};
use crate::policy::Database;
use crate::pool::PoolMode;
use crate::upstream;

use super::gating::{credential_of, credential_of_forced};
use super::proving::no_database;
use super::{Credential, Phase, Profile, Session, Wish, pooling};

impl Session {
    /// Other settings hold. What follows for the connections that this session, which has none now, will ask for under
    /// its wish: the account's credentials, the place of the database and the terms of its pool are the new ones; what
    /// the session itself began with, its mode and its startup parameters, stays to its end.
    ///
    /// # Errors
    /// By the new settings it would not be let in. It may have no other server connection.
    pub fn renew(&mut self, profile: Arc<Profile>, keyring: &Keyring, wish: &Wish) -> Result<Wish, Refusal> {
        let Phase::Relaying(relaying) = &self.phase else { return Err(no_longer(&wish.account)) };
        let identity = relaying.who.identity().clone();
        let Some(target) = profile.databases.find(&wish.database).cloned() else {
            return Err(no_database(&wish.database));
        };
        let still_believed = match identity.method {
            Method::Token => keyring.trusts(&identity.issuer),
            method => profile.gate.as_ref().is_some_and(|gate| gate.still_takes(method)),
        };
        if !still_believed {
            return Err(no_longer(&wish.account));
        }
        let may_be_looked_up = self.was_looked_up(&identity.subject, &target, wish);
        let credential = credential(&profile, &identity, &target, wish, may_be_looked_up)?;
        let settings = profile.pool_settings(&wish.account, &wish.role, &target.pool);
        let owner = match wish.mode {
            PoolMode::Session => wish.owner.clone(),
            PoolMode::Transaction | PoolMode::Statement => pooling::owner(&identity, settings.isolation),
        };
        self.profile = profile;
        Ok(Wish {
            account: wish.account.clone(),
            credential,
            database: wish.database.clone(),
            target,
            role: wish.role.clone(),
            settings,
            identity: wish.identity.clone(),
            parameters: wish.parameters.clone(),
            startup_query: wish.startup_query.clone(),
            mode: wish.mode,
            owner,
            wide_key: wish.wide_key,
            for_lookup: false,
        })
    }

    /// Whether this user was not listed by the settings so far, and is looked up in the same way by those of `target`.
    fn was_looked_up(&self, user: &str, target: &Database, wish: &Wish) -> bool {
        let before = self.profile.databases.find(&wish.database);
        let same = before.is_some_and(|before| before.auth_query == target.auth_query) && target.auth_query.is_some();
        same && self.profile.gate.as_ref().is_some_and(|gate| !gate.knows(user))
    }
}

/// By the way that somebody was let in, so that nobody gets in by another one.
fn credential(
    profile: &Profile,
    identity: &Identity,
    target: &Database,
    wish: &Wish,
    may_be_looked_up: bool,
) -> Result<Credential, Refusal> {
    let (user, forced) = (&identity.subject, target.account.as_ref());
    let gate = match (&profile.gate, identity.method) {
        (None, Method::Token) => {
            return profile.roles.renew(identity, &wish.account).map(Credential::Account);
        }
        (Some(gate), Method::Password | Method::Trust) => gate,
        _ => return Err(no_longer(&wish.account)),
    };
    if *forced.map_or(user, |account| &account.name) != wish.account {
        return Err(no_longer(&wish.account));
    }
    let own = match gate.renew(user) {
        Some(own) => own,
        // Whoever was looked up before would be looked up again.
        None if may_be_looked_up => Backing::Provided,
        None => return Err(no_longer(&wish.account)),
    };
    let credential = match forced {
        Some(account) => credential_of_forced(Some(gate), account, (account.name == *user).then_some(own)),
        None => credential_of(own),
    };
    Ok(match credential {
        // What only their login could show is what it was.
        Credential::Provided | Credential::Passed(upstream::Credential::Verifier) => wish.credential.clone(),
        credential => credential,
    })
}

fn no_longer(account: &str) -> Refusal {
    Refusal::new(
        SqlState::INVALID_AUTHORIZATION,
        format!("gprxy's settings have changed, and this session may not run as {account:?} any more"),
    )
    .hint("Connect again.")
}

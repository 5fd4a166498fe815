//! Server connections that are kept for nobody in particular.

use super::gating::credential_of_forced;
use super::{Credential, Profile, Wish};
use crate::policy::Databases;
use crate::upstream;

impl Profile {
    /// What the pools are opened by that are kept at their `min_pool_size` before any client has come: those of databases
    /// where everybody runs as one account, so that it is known as whom.
    #[must_use]
    pub fn standing(&self) -> Vec<Wish> {
        let named = self.databases.entries().filter(|(name, _)| *name != Databases::ANY);
        let wishes = named.filter_map(|(name, target)| {
            let account = target.account.as_ref()?;
            let settings = self.pool_settings(&account.name, &account.name, &target.pool);
            let credential = credential_of_forced(self.gate.as_deref(), account, None);
            // A verifier is of use once a login has shown its keys.
            let is_known = !matches!(credential, Credential::Passed(upstream::Credential::Verifier));
            let is_wanted = settings.min_pool_size > 0 && credential.may_be_shared() && is_known;
            is_wanted.then(|| Wish {
                account: account.name.clone(),
                credential,
                database: name.into(),
                target: target.clone(),
                role: account.name.clone(),
                mode: settings.pool_mode,
                settings,
                identity: None,
                parameters: [].into(),
                startup_query: Some("".into()),
                owner: None,
                wide_key: false,
                for_lookup: false,
            })
        });
        wishes.collect()
    }
}

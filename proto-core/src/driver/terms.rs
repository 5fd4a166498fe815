//! What holds for sessions that begin now, as one piece that a reload replaces.

use std::sync::Arc;

use futures_rustls::rustls::{ClientConfig, ServerConfig};

use super::runtime::Runtime;
use super::shared::{ServerTls, Shared};
use crate::auth::jwt::IssuerSettings;
use crate::policy::{Account, TlsTerms};
use crate::pool::PoolKey;
use crate::session::Profile;

/// The settings of one generation.
pub(super) struct Terms {
    /// Counts the reloads.
    pub(super) generation: u64,
    /// Policy for every session.
    pub(super) profile: Arc<Profile>,
    /// TLS for clients, when there is a certificate.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// TLS for servers.
    pub(super) server_tls: ServerTls,
}

impl Terms {
    pub(super) fn server_tls(&self, terms: &TlsTerms) -> Option<Arc<ClientConfig>> {
        self.server_tls.get(terms).cloned()
    }

    /// Whether what a pool's connections were opened by is the same there.
    fn keeps(&self, key: &PoolKey, after: &Self) -> bool {
        let place = |terms: &Self| terms.profile.databases.find(&key.database).cloned();
        let (Some(old), Some(new)) = (place(self), place(after)) else { return false };
        // A connection that nobody owns by the old settings may hold the state of people who trusted each other.
        old.is_where(&new)
            && old.pool.isolation == new.pool.isolation
            // In session mode nobody writes down what is prepared on a connection.
            && old.pool.pool_mode == new.pool.pool_mode
            && self.profile.users.have_same_modes(&after.profile.users)
            && old.pool.connect_query == new.pool.connect_query
            && (key.own_password || same_password(&self.accounts(key), &after.accounts(key)))
            && self.same_user(key, after)
    }

    /// Whether the list of users has the same hash or verifier for them.
    fn same_user(&self, key: &PoolKey, after: &Self) -> bool {
        match (&self.profile.gate, &after.profile.gate) {
            (Some(before), Some(after)) => before.has_same(after, &key.account),
            _ => true,
        }
    }

    /// Who opens the connections of a pool, as far as the settings tell.
    fn accounts(&self, key: &PoolKey) -> Vec<Arc<Account>> {
        let profile = &self.profile;
        let listed = profile.gate.as_ref().and_then(|gate| gate.account(&key.account));
        profile.roles.accounts().filter(|account| account.name == key.account).cloned().chain(listed).collect()
    }
}

fn same_password(before: &[Arc<Account>], after: &[Arc<Account>]) -> bool {
    fn password(account: &Arc<Account>) -> Option<&[u8]> {
        account.password.as_ref().map(|password| password.expose().as_slice())
    }
    // A role and a listed user may name the same account: each of its passwords counts.
    let has = |one: &Arc<Account>, all: &[Arc<Account>]| all.iter().any(|other| password(other) == password(one));
    before.iter().all(|one| has(one, after)) && after.iter().all(|one| has(one, before))
}

/// What a reload brings.
pub struct Reload {
    /// Policy for every session that begins from here on.
    pub profile: Arc<Profile>,
    /// TLS for clients.
    pub tls: Option<Arc<ServerConfig>>,
    /// TLS for servers.
    pub server_tls: ServerTls,
    /// Whose tokens are believed.
    pub issuers: Vec<IssuerSettings>,
}

impl<R: Runtime> Shared<R> {
    /// Puts other settings into force. Nobody is disconnected: sessions that have a server connection go on with it,
    /// and a session that comes and goes by transaction asks for its next one by the new settings. Connections that
    /// lead elsewhere now, or were opened with another password, are closed as soon as nobody has them.
    ///
    /// # Errors
    /// What is wrong with the issuers; nothing has changed then.
    pub fn reload(self: &Arc<Self>, reload: Reload) -> Result<(), String> {
        let Reload { profile, tls, mut server_tls, issuers } = reload;
        let before = self.terms();
        // Connections that are open go on, and a cancel for one of them is sent as the connection itself was.
        for (terms, config) in &before.server_tls {
            server_tls.entry(terms.clone()).or_insert_with(|| config.clone());
        }
        if let (Some(gate), Some(before)) = (&profile.gate, &before.profile.gate) {
            gate.follow(before);
        }
        let after = Arc::new(Terms { generation: before.generation + 1, profile, tls, server_tls });
        let result = self.with_hub(|hub, now| {
            hub.keys.reload(issuers, now).map_err(|error| error.to_string())?;
            hub.set_limits(&after.profile.limits);
            hub.cancels.set_peers(after.profile.peers.clone());
            // Under the hub's lock: nobody can ask for a connection by the old terms after the pools have learnt the new.
            self.set_terms(after.clone());
            hub.pools.retire(|key| !before.keeps(key, &after));
            hub.pools.resettle(|key| after.profile.settings_of_pool(key), now);
            Ok(())
        });
        if result.is_ok() {
            self.stand();
        }
        self.forget_servers();
        self.close_fast();
        result
    }
}

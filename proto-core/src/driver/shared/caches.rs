//! What is kept for the next session: idle server connections, derived keys, greetings.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use super::Shared;
use crate::auth::scram::ScramKeys;
use crate::cancel::BackendTarget;
use crate::driver::dial::Hosts;
use crate::driver::mailbox::lock;
use crate::driver::runtime::Runtime;
use crate::driver::server::ServerConnection;
use crate::policy::{Database, Endpoint};
use crate::pool::{PoolKey, SlotId};
use crate::session::Wish;
use crate::upstream::Parameters;

/// Keys that were derived for an account and a server.
pub(super) type ScramCache = HashMap<(Arc<str>, Endpoint), Arc<ScramKeys>>;

/// Whose turn it is among the hosts of a list.
pub(super) type Turns = HashMap<Arc<[Endpoint]>, Arc<AtomicUsize>>;

/// What the servers of a pool report at a login with these startup parameters.
pub(super) type Welcomes = HashMap<(PoolKey, Arc<[u8]>), Arc<Parameters>>;

/// Accounts and servers of which keys are kept. Accounts that were looked up are as many as there are users; beyond that
/// number each login derives its own.
const MAX_SCRAM_KEYS: usize = 1024;
/// Welcomes that are kept. Beyond that many different startup packets, clients wait for a server to greet them.
const MAX_WELCOMES: usize = 1024;

/// Server connections by number. Those that are gone are left out when so many have come.
#[derive(Default)]
pub(super) struct Servers {
    noted: HashMap<SlotId, Noted>,
    tidy_at: usize,
}

/// What is known of a server connection, as long as it is there.
struct Noted {
    target: Weak<BackendTarget>,
    number: u64,
    local: Option<SocketAddr>,
}

/// Servers that are noted before anybody looks whether they are still there.
const MIN_TIDY: usize = 64;

impl<R: Runtime> Shared<R> {
    /// A server connection is there, with this number, and this at our end.
    pub(in crate::driver) fn note_server(&self, target: &Arc<BackendTarget>, number: u64, local: Option<SocketAddr>) {
        let mut servers = lock(&self.servers);
        if servers.noted.len() >= servers.tidy_at {
            servers.noted.retain(|_, noted| noted.target.strong_count() > 0);
            servers.tidy_at = (servers.noted.len() * 2).max(MIN_TIDY);
        }
        servers.noted.insert(target.slot, Noted { target: Arc::downgrade(target), number, local });
    }

    /// Where a server connection goes, its number, and our end of it.
    pub(super) fn server(&self, slot: SlotId) -> Option<(Arc<BackendTarget>, u64, Option<SocketAddr>)> {
        let servers = lock(&self.servers);
        let noted = servers.noted.get(&slot)?;
        Some((noted.target.upgrade()?, noted.number, noted.local))
    }

    pub(in crate::driver) fn take_parked(&self, slot: SlotId) -> Option<ServerConnection<R::Socket>> {
        lock(&self.shelf).remove(&slot)
    }

    pub(in crate::driver) fn park(&self, slot: SlotId, connection: ServerConnection<R::Socket>) {
        lock(&self.shelf).insert(slot, connection);
    }

    /// Keys that an earlier login of this account derived there: PBKDF2 runs once for each account and server.
    pub(in crate::driver) fn scram_keys(&self, account: &Arc<str>, endpoint: &Endpoint) -> Option<Arc<ScramKeys>> {
        lock(&self.scram).get(&(account.clone(), endpoint.clone())).cloned()
    }

    pub(in crate::driver) fn keep_scram_keys(&self, account: &Arc<str>, endpoint: &Endpoint, keys: Arc<ScramKeys>) {
        let (mut scram, place) = (lock(&self.scram), (account.clone(), endpoint.clone()));
        if scram.len() < MAX_SCRAM_KEYS || scram.contains_key(&place) {
            scram.insert(place, keys);
        }
    }

    /// An operator expects a parameter to follow sessions that a server does not report. Said once for each name.
    pub(in crate::driver) fn warn_untracked(&self, name: &str, database: &str) {
        if lock(&self.untracked).insert(name.into()) {
            log::warn!(
                "track_extra_parameters has {name}, which the server of database {database} does not report: it cannot \
                 follow a session, and SET of it ties the session to its server connection"
            );
        }
    }

    /// What servers said of themselves may be said by others now, and an account's keys may be those of another password.
    pub(in crate::driver) fn forget_servers(&self) {
        lock(&self.welcomes).clear();
        lock(&self.scram).clear();
        lock(&self.turns).clear();
    }

    /// Where the next connection to these hosts begins. They are those of the settings, so the table is bounded.
    pub(in crate::driver) fn hosts(&self, target: &Database) -> Hosts {
        if target.endpoints.len() < 2 {
            return Hosts::default();
        }
        let next = lock(&self.turns).entry(target.endpoints.clone()).or_default().clone();
        Hosts::new(target.host_order, next)
    }

    /// What a client of that pool will be told, when somebody has been told it before.
    pub(in crate::driver) fn welcome(&self, key: &PoolKey, parameters: &Arc<[u8]>) -> Option<Arc<Parameters>> {
        lock(&self.welcomes).get(&(key.clone(), parameters.clone())).cloned()
    }

    /// Keeps what a server has reported at a login as a wish says, by the settings of that `generation`: later ones may lead
    /// to another server. Equal reports become one, so that they are known to be equal.
    pub(in crate::driver) fn keep_welcome(
        &self,
        generation: u64,
        wish: &Wish,
        reported: &Parameters,
    ) -> Arc<Parameters> {
        let mut welcomes = lock(&self.welcomes);
        let place = (wish.pool(), wish.parameters.clone());
        if let Some(known) = welcomes.get(&place).filter(|known| ***known == *reported) {
            return known.clone();
        }
        let reported = Arc::new(reported.clone());
        let has_room = welcomes.len() < MAX_WELCOMES || welcomes.contains_key(&place);
        if has_room && generation == self.generation() {
            welcomes.insert(place, reported.clone());
        }
        reported
    }
}

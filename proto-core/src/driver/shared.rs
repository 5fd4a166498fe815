//! What all sessions of a process share: the hub behind a lock, idle server connections, letter boxes.
//!
//! No lock is held over an await, and none is taken per message: a session comes here when it begins, when it needs
//! or returns a server connection, and when it ends.

mod caches;
mod drain;
mod keeper;
mod look;
mod presence;
mod suspend;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::task::Waker;

use atomic_waker::AtomicWaker;
use futures_rustls::rustls::{ClientConfig, ServerConfig};

use super::audit_log::AuditLog;
use super::chores::Recipes;
use super::control::Control;
use super::mailbox::{Mail, lock};
use super::runtime::Runtime;
use super::server::ServerConnection;
use super::statistics::Statistics;
use super::terms::Terms;
use super::tokens::TokenSource;
use super::turnstile::Turnstile;
use crate::auth::jwks::Fetch;
use crate::auth::jwt::Keyring;
use crate::auth::scram::{Derivation, ScramKeys};
use crate::fault::{Refusal, SqlState};
use crate::hub::{Hub, HubOutput};
use crate::policy::TlsTerms;
use crate::pool::{How, Lease, PoolOutput, SlotId};
use crate::session::Profile;
use crate::session_id::SessionId;
use crate::time::Now;

use caches::{ScramCache, Servers, Turns, Welcomes};
pub(in crate::driver) use presence::Arrived;
use presence::Present;
pub(in crate::driver) use suspend::Unwritten;

/// Derivations at a time. At PostgreSQL's 4096 rounds, that is more than a thousand logins in a second.
const DERIVATIONS: usize = 2;

/// TLS configurations for servers, one for each way to verify.
pub type ServerTls = BTreeMap<TlsTerms, Arc<ClientConfig>>;

/// What a proxy is made of.
pub struct Parts {
    /// Policy for every session.
    pub profile: Arc<Profile>,
    /// The process-wide machine.
    pub hub: Hub,
    /// TLS for clients, when there is a certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// TLS for servers.
    pub server_tls: ServerTls,
    /// Where tokens for [`crate::session::Credential::Provided`] come from.
    pub tokens: Option<Arc<dyn TokenSource>>,
    /// Where statements are written down.
    pub audit: Option<AuditLog>,
    /// Who changes settings and ends the process when the admin console says so.
    pub control: Option<Arc<dyn Control>>,
    /// For issuers' documents; it gives up by itself and follows no redirects.
    pub http: ureq::Agent,
}

impl Parts {
    /// Without TLS and audit trail, which are set afterwards where they are wanted.
    #[must_use]
    pub fn new(profile: impl Into<Arc<Profile>>, hub: Hub, http: ureq::Agent) -> Self {
        Self {
            profile: profile.into(),
            hub,
            tls: None,
            server_tls: ServerTls::new(),
            tokens: None,
            audit: None,
            control: None,
            http,
        }
    }
}

/// What all sessions share.
pub struct Shared<R: Runtime> {
    terms: RwLock<Arc<Terms>>,
    /// Whether these are still the ones of that generation, without a lock.
    generation: AtomicU64,
    pub(super) tokens: Option<Arc<dyn TokenSource>>,
    pub(super) audit: Option<AuditLog>,
    http: ureq::Agent,
    hub: Mutex<Hub>,
    keyring: RwLock<Arc<Keyring>>,
    shelf: Mutex<HashMap<SlotId, ServerConnection<R::Socket>>>,
    present: Mutex<BTreeMap<SessionId, Present>>,
    /// Server connections that serve, or have served: where they go.
    servers: Mutex<Servers>,
    /// What has happened in each database.
    statistics: Mutex<Statistics>,
    /// How many sessions are at the console.
    consoles: AtomicUsize,
    /// How many at the console wait for something.
    watched: AtomicUsize,
    /// Nothing is read of clients and servers.
    suspended: AtomicBool,
    pub(super) control: Option<Arc<dyn Control>>,
    scram: Mutex<ScramCache>,
    welcomes: Mutex<Welcomes>,
    turns: Mutex<Turns>,
    /// Derivations for clients who are not proven yet.
    derivations: Arc<Turnstile>,
    pub(super) recipes: Recipes,
    /// What an operator has been told does not follow sessions.
    untracked: Mutex<BTreeSet<Box<str>>>,
    draining: AtomicBool,
    /// Nobody is accepted any more.
    closed: AtomicBool,
    /// Server connections that are cancelled, reset or closed behind their sessions.
    returning: AtomicUsize,
    /// Listeners that clients still come to.
    accepting: AtomicUsize,
    /// Who waits for the drain to begin, or for the last session to end.
    watchers: Mutex<Vec<Waker>>,
    /// Who waits for a fetch of keys to end.
    awaiting_keys: Mutex<BTreeSet<SessionId>>,
    /// Wakes the task that keeps the hub's deadlines.
    keeper: AtomicWaker,
    /// The tick for which that task is set; it is woken only for an earlier one.
    keeper_set: AtomicU64,
}

impl<R: Runtime> Shared<R> {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let keyring = RwLock::new(parts.hub.keyring());
        let Parts { profile, mut hub, tls, server_tls, .. } = parts;
        hub.cancels.set_peers(profile.peers.clone());
        let terms = Arc::new(Terms { generation: 0, profile, tls, server_tls });
        Arc::new(Self {
            terms: RwLock::new(terms),
            generation: AtomicU64::new(0),
            tokens: parts.tokens,
            audit: parts.audit,
            http: parts.http,
            hub: Mutex::new(hub),
            keyring,
            shelf: Mutex::default(),
            present: Mutex::default(),
            servers: Mutex::default(),
            statistics: Mutex::new(Statistics::new(R::now().tick)),
            consoles: AtomicUsize::new(0),
            watched: AtomicUsize::new(0),
            suspended: AtomicBool::new(false),
            control: parts.control,
            scram: Mutex::default(),
            welcomes: Mutex::default(),
            turns: Mutex::default(),
            derivations: Turnstile::new(DERIVATIONS),
            recipes: Recipes::default(),
            untracked: Mutex::default(),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            returning: AtomicUsize::new(0),
            accepting: AtomicUsize::new(0),
            watchers: Mutex::default(),
            awaiting_keys: Mutex::default(),
            keeper: AtomicWaker::new(),
            keeper_set: AtomicU64::new(u64::MAX),
        })
    }

    /// Does something with the hub, then everything that the hub wants done for it.
    pub(super) fn with_hub<T>(self: &Arc<Self>, call: impl FnOnce(&mut Hub, Now) -> T) -> T {
        self.with_hub_for(None, call).0
    }

    /// The same for a session, which gets its own turn first-hand when it has come already.
    pub(super) fn with_hub_for<T>(
        self: &Arc<Self>,
        session: Option<SessionId>,
        call: impl FnOnce(&mut Hub, Now) -> T,
    ) -> (T, Option<(Lease, How)>) {
        let now = R::now();
        let (mut outputs, mut turn) = (Vec::new(), None);
        let (result, earlier) = {
            let mut hub = lock(&self.hub);
            let result = call(&mut hub, now);
            while let Some(output) = hub.poll_output() {
                match output {
                    HubOutput::Pool(PoolOutput::Granted { session: whose, lease, how }) if Some(whose) == session => {
                        turn = Some((lease, how));
                    }
                    output => outputs.push(output),
                }
            }
            self.publish_keys(&hub);
            let set = self.keeper_set.load(Ordering::Acquire);
            (result, hub.poll_timeout().is_some_and(|deadline| deadline.at.as_nanos() < set))
        };
        for output in outputs {
            self.carry_out(output);
        }
        if earlier {
            self.keeper.wake();
        }
        if self.watched.load(Ordering::Acquire) > 0 {
            self.wake_watchers();
        }
        (result, turn)
    }

    /// Under the hub's lock, so before anybody can learn that a fetch has ended or that keys were dropped.
    fn publish_keys(&self, hub: &Hub) {
        let current = hub.keys.keyring();
        let is_current = Arc::ptr_eq(&self.keyring.read().unwrap_or_else(std::sync::PoisonError::into_inner), current);
        if !is_current {
            *self.keyring.write().unwrap_or_else(std::sync::PoisonError::into_inner) = current.clone();
        }
    }

    /// Looks at the hub, for tests of what is left when everybody has gone.
    #[cfg(any(test, feature = "testing"))]
    pub fn inspect<T>(&self, look: impl FnOnce(&Hub) -> T) -> T {
        look(&lock(&self.hub))
    }

    fn carry_out(self: &Arc<Self>, output: HubOutput) {
        match output {
            HubOutput::Pool(PoolOutput::Granted { session, lease, how }) => {
                self.post(session, Mail::Granted(lease, how));
            }
            HubOutput::Pool(PoolOutput::Open { key, parameters, lease }) => self.open_ahead(&key, &parameters, lease),
            HubOutput::Pool(PoolOutput::Clean { lease }) => self.clean_ahead(lease),
            HubOutput::Pool(PoolOutput::Refused { session, refusal }) => self.post(session, Mail::Refused(refusal)),
            HubOutput::Pool(PoolOutput::Notice { session, text }) => {
                self.post(session, Mail::Notice(Refusal::new(SqlState::SUCCESS, text)));
            }
            HubOutput::Pool(PoolOutput::Close { slot, why }) => {
                if let Some(connection) = self.take_parked(slot) {
                    self.tell_end(&connection, why.words());
                    R::spawn(connection.close::<R>());
                }
            }
            HubOutput::Fetch(fetch) => self.fetch(fetch),
        }
    }

    /// What holds for sessions that begin now.
    pub(super) fn terms(&self) -> Arc<Terms> {
        self.terms.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn set_terms(&self, terms: Arc<Terms>) {
        let generation = terms.generation;
        *self.terms.write().unwrap_or_else(std::sync::PoisonError::into_inner) = terms;
        self.generation.store(generation, Ordering::Release);
    }

    /// How often these have been replaced.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// TLS to a server, when these terms have any.
    pub(super) fn server_tls(&self, terms: &TlsTerms) -> Option<Arc<ClientConfig>> {
        self.terms().server_tls(terms)
    }

    /// Gives a lease back together with its connection, which is closed.
    pub(super) fn discard(self: &Arc<Self>, lease: Lease) {
        if let Some(connection) = self.take_parked(lease.slot()) {
            self.tell_end(&connection, super::told::NOT_READY);
            R::spawn(connection.close::<R>());
        }
        self.with_hub(|hub, now| hub.pools.handle_release(lease, crate::pool::Returned::Broken, now));
    }

    /// Does the work that a client's password makes, on a thread that may block, when its turn has come. Who leaves in the
    /// middle of it has not stopped it, and its turn lasts as long.
    pub(super) fn derive(&self, derivation: Derivation) -> impl Future<Output = ScramKeys> + Send + 'static {
        let enter = self.derivations.enter();
        async move {
            let turn = enter.await;
            let work = move || {
                let keys = derivation.run();
                drop(turn);
                keys
            };
            R::blocking(work).await
        }
    }

    fn fetch(self: &Arc<Self>, fetch: Fetch) {
        let shared = self.clone();
        R::spawn(async move {
            let request = fetch.request;
            let agent = shared.http.clone();
            let result = R::blocking(move || super::keys::get(&agent, &fetch.url, fetch.etag.as_deref())).await;
            shared.with_hub(|hub, now| hub.keys.handle_fetched(request, result, now));
            shared.tell_key_waiters();
        });
    }

    /// The trusted keys as they are now.
    pub(super) fn keyring(&self) -> Arc<Keyring> {
        self.keyring.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Whether every issuer's keys are known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        lock(&self.hub).keys.is_ready()
    }

    /// Whether a fetch of keys is under way.
    #[must_use]
    pub fn is_fetching(&self) -> bool {
        let hub = lock(&self.hub);
        hub.keys.issuers().any(|issuer| hub.keys.status(issuer).is_some_and(|status| status.fetching))
    }
}

#[cfg(test)]
mod tests;

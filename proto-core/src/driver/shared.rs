//! What all sessions of a process share: the hub behind a lock, idle server connections, letter boxes.
//!
//! No lock is held over an await, and none is taken per message: a session comes here when it begins, when it needs
//! or returns a server connection, and when it ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use futures_rustls::rustls::{ClientConfig, ServerConfig};

use super::audit_log::AuditLog;
use super::control::Control;
use super::mailbox::{Mail, Mailbox, lock};
use super::runtime::{Alarm, Runtime};
use super::server::ServerConnection;
use super::tokens::TokenSource;
use crate::auth::jwks::Fetch;
use crate::auth::jwt::Keyring;
use crate::auth::scram::ScramKeys;
use crate::fault::{Refusal, SqlState};
use crate::hub::{Hub, HubOutput};
use crate::policy::{Endpoint, TlsTerms};
use crate::pool::{How, Lease, PoolKey, PoolOutput, SlotId};
use crate::session::Profile;
use crate::session_id::SessionId;
use crate::time::{Deadline, Now};
use crate::upstream::Parameters;

/// TLS configurations for servers, one for each way to verify.
pub type ServerTls = HashMap<TlsTerms, Arc<ClientConfig>>;

/// How long the last audit records may take to be written.
const AUDIT_CLOSING: Duration = Duration::from_secs(10);

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

/// Keys that were derived for an account and a server.
type ScramCache = HashMap<(Arc<str>, Endpoint), Arc<ScramKeys>>;

/// What the servers of a pool report at a login with these startup parameters.
type Welcomes = HashMap<(PoolKey, Arc<[u8]>), Arc<Parameters>>;

/// Welcomes that are kept. Beyond that many different startup packets, clients wait for a server to greet them.
const MAX_WELCOMES: usize = 1024;

/// What all sessions share.
pub struct Shared<R: Runtime> {
    pub(super) profile: Arc<Profile>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    server_tls: ServerTls,
    pub(super) tokens: Option<Arc<dyn TokenSource>>,
    pub(super) audit: Option<AuditLog>,
    http: ureq::Agent,
    hub: Mutex<Hub>,
    keyring: RwLock<Arc<Keyring>>,
    shelf: Mutex<HashMap<SlotId, ServerConnection<R::Socket>>>,
    mailboxes: Mutex<BTreeMap<SessionId, Arc<Mailbox>>>,
    scram: Mutex<ScramCache>,
    welcomes: Mutex<Welcomes>,
    draining: AtomicBool,
    /// Server connections that are cancelled, reset or closed behind their sessions.
    returning: AtomicUsize,
    /// Who waits for the drain to begin, or for the last session to end.
    watchers: Mutex<Vec<Waker>>,
    /// Who waits for a fetch of keys to end.
    awaiting_keys: Mutex<BTreeSet<SessionId>>,
    /// Wakes the task that keeps the hub's deadlines.
    keeper: AtomicWaker,
    /// The tick for which that task is set; it is woken only for an earlier one.
    keeper_set: AtomicU64,
}

/// A server connection on its way back; the drain waits for it.
pub(super) struct Returning<R: Runtime>(Arc<Shared<R>>);

impl<R: Runtime> Drop for Returning<R> {
    fn drop(&mut self) {
        self.0.returning.fetch_sub(1, Ordering::AcqRel);
        if self.0.is_draining() {
            self.0.wake_watchers();
        }
    }
}

impl<R: Runtime> Shared<R> {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let keyring = RwLock::new(parts.hub.keyring());
        Arc::new(Self {
            profile: parts.profile,
            tls: parts.tls,
            server_tls: parts.server_tls,
            tokens: parts.tokens,
            audit: parts.audit,
            http: parts.http,
            hub: Mutex::new(parts.hub),
            keyring,
            shelf: Mutex::default(),
            mailboxes: Mutex::default(),
            scram: Mutex::default(),
            welcomes: Mutex::default(),
            draining: AtomicBool::new(false),
            returning: AtomicUsize::new(0),
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
        (result, turn)
    }

    /// Under the hub's lock, so before anybody can learn that a fetch has ended or that keys were dropped.
    fn publish_keys(&self, hub: &Hub) {
        let current = hub.keys.keyring();
        if !Arc::ptr_eq(&self.keyring(), current) {
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
            HubOutput::Pool(PoolOutput::Refused { session, refusal }) => self.post(session, Mail::Refused(refusal)),
            HubOutput::Pool(PoolOutput::Notice { session, text }) => {
                self.post(session, Mail::Notice(Refusal::new(SqlState::SUCCESS, text)));
            }
            HubOutput::Pool(PoolOutput::Close { slot }) => {
                if let Some(connection) = self.take_parked(slot) {
                    R::spawn(connection.close::<R>());
                }
            }
            HubOutput::Fetch(fetch) => self.fetch(fetch),
        }
    }

    /// Mail for a session that has gone goes nowhere, but a lease in it goes back.
    fn post(self: &Arc<Self>, session: SessionId, mail: Mail) {
        // Put under the lock: whoever departs finds in the box whatever was put into it.
        let mailboxes = lock(&self.mailboxes);
        match (mailboxes.get(&session), mail) {
            (Some(mailbox), mail) => mailbox.put(mail),
            (None, Mail::Granted(lease, _)) => {
                drop(mailboxes);
                self.discard(lease);
            }
            (None, _) => {}
        }
    }

    /// A session that waits for a server connection was cancelled.
    pub(super) fn cancel_waiting(self: &Arc<Self>, session: SessionId) {
        self.post(session, Mail::Cancel);
    }

    /// TLS to a server, when these terms have any.
    pub(super) fn server_tls(&self, terms: &TlsTerms) -> Option<Arc<ClientConfig>> {
        self.server_tls.get(terms).cloned()
    }

    /// Gives a lease back together with its connection, which is closed.
    pub(super) fn discard(self: &Arc<Self>, lease: Lease) {
        if let Some(connection) = self.take_parked(lease.slot()) {
            R::spawn(connection.close::<R>());
        }
        self.with_hub(|hub, now| hub.pools.handle_release(lease, crate::pool::Returned::Broken, now));
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

    /// Lets everybody who waits for keys look again; who waits for another round says so again.
    fn tell_key_waiters(self: &Arc<Self>) {
        for session in std::mem::take(&mut *lock(&self.awaiting_keys)) {
            self.post(session, Mail::KeysFetched);
        }
    }

    /// This session is told when a fetch may have ended. It says so before it asks whether one is under way.
    pub(super) fn await_keys(&self, session: SessionId) {
        lock(&self.awaiting_keys).insert(session);
    }

    /// This session waits for no fetch.
    pub(super) fn forget_awaiting(&self, session: SessionId) {
        lock(&self.awaiting_keys).remove(&session);
    }

    /// The trusted keys as they are now.
    pub(super) fn keyring(&self) -> Arc<Keyring> {
        self.keyring.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn take_parked(&self, slot: SlotId) -> Option<ServerConnection<R::Socket>> {
        lock(&self.shelf).remove(&slot)
    }

    pub(super) fn park(&self, slot: SlotId, connection: ServerConnection<R::Socket>) {
        lock(&self.shelf).insert(slot, connection);
    }

    /// Keys that an earlier login of this account derived there: PBKDF2 runs once for each account and server. Accounts
    /// and servers are those of the settings, so the table is bounded.
    pub(super) fn scram_keys(&self, account: &Arc<str>, endpoint: &Endpoint) -> Option<Arc<ScramKeys>> {
        lock(&self.scram).get(&(account.clone(), endpoint.clone())).cloned()
    }

    pub(super) fn keep_scram_keys(&self, account: &Arc<str>, endpoint: &Endpoint, keys: Arc<ScramKeys>) {
        lock(&self.scram).insert((account.clone(), endpoint.clone()), keys);
    }

    /// What a client of that pool will be told, when somebody has been told it before.
    pub(super) fn welcome(&self, key: &PoolKey, parameters: &Arc<[u8]>) -> Option<Arc<Parameters>> {
        lock(&self.welcomes).get(&(key.clone(), parameters.clone())).cloned()
    }

    /// Keeps what a server has reported at its login. Equal reports become one, so that they are known to be equal.
    pub(super) fn keep_welcome(&self, key: PoolKey, parameters: Arc<[u8]>, reported: &Parameters) -> Arc<Parameters> {
        let mut welcomes = lock(&self.welcomes);
        let place = (key, parameters);
        if let Some(known) = welcomes.get(&place).filter(|known| ***known == *reported) {
            return known.clone();
        }
        let reported = Arc::new(reported.clone());
        if welcomes.len() < MAX_WELCOMES || welcomes.contains_key(&place) {
            welcomes.insert(place, reported.clone());
        }
        reported
    }

    /// A client has connected: its number and letter box, and what it is to be told when there are too many.
    pub(super) fn arrive(self: &Arc<Self>) -> Result<(SessionId, Option<Refusal>, Arc<Mailbox>), Refusal> {
        let (id, crowded) = self.with_hub(|hub, _| match hub.handle_arrival() {
            Ok(id) => Ok((id, None)),
            Err(refusal) => hub.handle_surplus().map(|id| (id, Some(refusal.clone()))).ok_or(refusal),
        })?;
        let mailbox = Arc::new(Mailbox::default());
        lock(&self.mailboxes).insert(id, mailbox.clone());
        if self.is_draining() {
            mailbox.put(Mail::Drain);
        }
        Ok((id, crowded, mailbox))
    }

    /// A client has gone.
    pub(super) fn depart(self: &Arc<Self>, session: SessionId, mailbox: &Mailbox) {
        lock(&self.mailboxes).remove(&session);
        self.forget_awaiting(session);
        self.with_hub(|hub, now| hub.handle_departure(session, now));
        for mail in mailbox.take() {
            if let Mail::Granted(lease, _) = mail {
                self.discard(lease);
            }
        }
        if self.is_draining() {
            self.wake_watchers();
        }
    }

    /// Sessions that have not ended.
    #[must_use]
    pub fn sessions(&self) -> usize {
        lock(&self.mailboxes).len()
    }

    fn all_mailboxes(&self) -> Vec<Arc<Mailbox>> {
        lock(&self.mailboxes).values().cloned().collect()
    }

    /// Whether the process is being stopped.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Sessions end as soon as nothing runs in them.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake_watchers();
        for mailbox in self.all_mailboxes() {
            mailbox.put(Mail::Drain);
        }
    }

    fn wake_watchers(&self) {
        for waker in lock(&self.watchers).drain(..) {
            waker.wake();
        }
    }

    /// Resolves when the drain begins.
    pub async fn drain_begun(&self) {
        self.watch(|| self.is_draining()).await;
    }

    /// A server connection is on its way back until this is dropped; begun before its session departs.
    pub(super) fn begin_return(self: &Arc<Self>) -> Returning<R> {
        self.returning.fetch_add(1, Ordering::AcqRel);
        Returning(self.clone())
    }

    /// Resolves when no session is left, and what the last ones left running is cancelled.
    pub async fn emptied(&self) {
        self.watch(|| self.sessions() == 0 && self.returning.load(Ordering::Acquire) == 0).await;
    }

    async fn watch(&self, is_so: impl Fn() -> bool) {
        std::future::poll_fn(|context| {
            let mut watchers = lock(&self.watchers);
            if is_so() {
                return Poll::Ready(());
            }
            if !watchers.iter().any(|waker| waker.will_wake(context.waker())) {
                watchers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Sessions end now.
    pub fn kill_all(&self) {
        for mailbox in self.all_mailboxes() {
            mailbox.put(Mail::Kill(Refusal::new(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command: gprxy is shutting down",
            )));
        }
    }

    /// Closes all idle server connections.
    pub fn close_idle(self: &Arc<Self>) {
        self.with_hub(|hub, _| hub.pools.close_idle(None));
    }

    /// Opens the audit file anew, for rotation.
    pub fn reopen_audit(&self) {
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
    }

    /// Writes what is left of the audit trail.
    pub fn close_audit(&self) {
        if let Some(audit) = &self.audit {
            audit.close(AUDIT_CLOSING);
        }
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

    /// Keeps the hub's deadlines. One task per process runs this for ever.
    pub async fn keep(self: Arc<Self>) {
        let mut alarm = R::alarm();
        let mut set = None;
        self.with_hub(Hub::handle_timeout);
        std::future::poll_fn(|context| self.poll_keep(context, &mut alarm, &mut set)).await
    }

    fn poll_keep(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        alarm: &mut R::Alarm,
        set: &mut Option<Deadline>,
    ) -> Poll<()> {
        self.keeper.register(context.waker());
        loop {
            let next = {
                let hub = lock(&self.hub);
                let next = hub.poll_timeout();
                // Under the hub's lock: whoever changes the deadlines next compares with this.
                self.keeper_set.store(next.map_or(u64::MAX, |deadline| deadline.at.as_nanos()), Ordering::Release);
                next
            };
            if next != *set {
                *set = next;
                alarm.set(next.map(|deadline| deadline.at));
            }
            if next.is_none() || alarm.poll(context).is_pending() {
                return Poll::Pending;
            }
            *set = None;
            self.with_hub(|hub, now| hub.handle_timeout(now));
            // A round of fetches may have ended by its time limit: its own task has nothing to tell, or is no more.
            self.tell_key_waiters();
        }
    }
}

#[cfg(test)]
mod tests;

//! What others may know of a session while it runs.
//!
//! Only a session's own task writes its card: relaxed stores of what has changed, once for each wake-up, without a lock and
//! without reading back. Whoever shows cards reads a moment's values, each of which was true, if not all at once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::auth::Identity;
use crate::console::snapshot::{ClientFacts, ClientState, Figures};
use crate::relay::pins::Pins;
use crate::session::{About, Session};
use crate::session_id::SessionId;
use crate::time::{Now, Tick, UnixMicros};

const RELAXED: Ordering = Ordering::Relaxed;

/// What others may know of a session.
pub(super) struct Card {
    pub(super) id: SessionId,
    address: Arc<str>,
    local: Option<SocketAddr>,
    connected: UnixMicros,
    about: OnceLock<About>,
    /// Who PostgreSQL has said it is, of somebody with a password of their own.
    identity: OnceLock<Arc<Identity>>,
    /// A [`ClientState`].
    state: AtomicU8,
    pinned: AtomicU32,
    pid: AtomicU32,
    requested: AtomicI64,
    /// Since when it waits for a server connection; zero: it does not.
    waiting: AtomicU64,
    /// One more than the number of its server connection; zero: it has none.
    server: AtomicU64,
    prepared: AtomicU64,
    figures: [AtomicU64; FIGURES],
    /// It is at the console.
    pub(super) at_console: AtomicBool,
}

const FIGURES: usize = 13;

impl Card {
    pub(super) fn new(id: SessionId, address: Arc<str>, local: Option<SocketAddr>, connected: UnixMicros) -> Self {
        Self {
            id,
            address,
            local,
            connected,
            about: OnceLock::new(),
            identity: OnceLock::new(),
            state: AtomicU8::new(0),
            pinned: AtomicU32::new(0),
            pid: AtomicU32::new(0),
            requested: AtomicI64::new(0),
            waiting: AtomicU64::new(0),
            server: AtomicU64::new(0),
            prepared: AtomicU64::new(0),
            figures: Default::default(),
            at_console: AtomicBool::new(false),
        }
    }

    /// It is known what the client wants, and as a rule who it is.
    pub(super) fn introduce(&self, about: About, pid: u32) {
        let _ = self.about.set(about);
        self.pid.store(pid, RELAXED);
    }

    /// PostgreSQL has said who it is.
    pub(super) fn identify(&self, identity: &Arc<Identity>) {
        let _ = self.identity.set(identity.clone());
    }

    /// The database that it asked for.
    pub(super) fn database(&self) -> Option<&Arc<str>> {
        self.about.get().map(|about| &about.database)
    }

    /// The application's name, and who it is.
    pub(super) fn application(&self) -> Option<Arc<str>> {
        self.about.get().and_then(|about| about.application.clone())
    }

    pub(super) fn state(&self) -> ClientState {
        STATES[usize::from(self.state.load(RELAXED)) % STATES.len()]
    }

    /// What it has done.
    pub(super) fn figures(&self) -> Figures {
        let [
            assignments,
            transactions,
            queries,
            received,
            sent,
            transaction,
            query,
            wait,
            client,
            server,
            binds,
            logins,
            pins,
        ] = self.figures.each_ref().map(|figure| figure.load(RELAXED));
        Figures {
            assignments,
            transactions,
            queries,
            received,
            sent,
            transaction_time: Duration::from_nanos(transaction),
            query_time: Duration::from_nanos(query),
            wait_time: Duration::from_nanos(wait),
            client_parses: client,
            server_parses: server,
            binds,
            logins,
            pins,
        }
    }

    /// All of it.
    pub(super) fn facts(&self, now: Now) -> ClientFacts {
        let about = self.about.get();
        let identity = self.identity.get().or_else(|| about.and_then(|about| about.identity.as_ref()));
        let waiting = self.waiting.load(RELAXED);
        let requested = self.requested.load(RELAXED);
        ClientFacts {
            session: self.id.0,
            state: self.state(),
            user: about.map(|about| about.user.clone()),
            database: about.map(|about| about.database.clone()),
            address: Some(self.address.clone()),
            local: self.local,
            connected: self.connected,
            requested: (requested != 0).then_some(UnixMicros(requested)),
            waiting: (waiting != 0).then(|| now.tick.since(Tick::from_nanos(waiting))),
            server: self.server.load(RELAXED).checked_sub(1),
            tls: about.and_then(|about| about.tls.clone()),
            application: self.application(),
            prepared: self.prepared.load(RELAXED),
            pid: self.pid.load(RELAXED),
            identity: identity.map(|identity| identity.user.clone()),
            issuer: identity.map(|identity| identity.issuer.clone()),
            roles: identity.map(|identity| identity.roles.join(",").into()),
            account: about.and_then(|about| about.account.clone()),
            expires: identity.and_then(|identity| identity.expires),
            pinned: Pins::from_bits(self.pinned.load(RELAXED)),
        }
    }
}

const STATES: [ClientState; 7] = [
    ClientState::Login,
    ClientState::Idle,
    ClientState::Active,
    ClientState::Waiting,
    ClientState::Console,
    ClientState::Cancelling,
    ClientState::Closing,
];

/// A session's own counting, of which its card is a copy for others.
pub(super) struct Gauge {
    card: Arc<Card>,
    figures: Figures,
    state: ClientState,
    /// Answers and transactions at the last look.
    settled: (u32, u32),
    query: Option<Tick>,
    transaction: Option<Tick>,
    waiting: Option<Tick>,
    server: Option<u64>,
}

impl Gauge {
    pub(super) const fn new(card: Arc<Card>) -> Self {
        Self {
            card,
            figures: Figures::EMPTY,
            state: ClientState::Login,
            settled: (0, 0),
            query: None,
            transaction: None,
            waiting: None,
            server: None,
        }
    }

    pub(super) const fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// Bytes went on to the other side.
    #[inline]
    pub(super) const fn forwarded(&mut self, from_client: bool, bytes: usize) {
        let count = if from_client { &mut self.figures.received } else { &mut self.figures.sent };
        *count += bytes as u64;
    }

    /// A server connection is there.
    pub(super) fn leased(&mut self, slot: u64, now: Tick) {
        self.figures.assignments += 1;
        self.server = Some(slot);
        if let Some(since) = self.waiting.take() {
            self.figures.wait_time += now.since(since);
        }
    }

    /// It has gone.
    pub(super) const fn returned(&mut self) {
        self.server = None;
    }

    /// Looks at the session at the end of a wake-up.
    pub(super) fn observe(&mut self, session: &Session, now: Now) {
        let progress = session.progress();
        let tick = now.tick;
        let queries = progress.answers.wrapping_sub(self.settled.0);
        let transactions = progress.transactions.wrapping_sub(self.settled.1);
        self.settled = (progress.answers, progress.transactions);
        if queries > 0 {
            self.figures.queries += u64::from(queries);
            self.figures.query_time += self.query.take().map_or(Duration::ZERO, |since| tick.since(since));
        }
        if transactions > 0 {
            self.figures.transactions += u64::from(transactions);
            self.figures.transaction_time += self.transaction.take().map_or(Duration::ZERO, |since| tick.since(since));
        }
        if progress.busy && self.query.is_none() {
            self.query = Some(tick);
            self.card.requested.store(now.unix.0, RELAXED);
        }
        if (progress.busy || progress.in_block) && self.transaction.is_none() {
            self.transaction = Some(tick);
        }
        self.figures.logins |= u64::from(progress.logged_in);
        self.figures.pins = u64::from(progress.times_pinned);
        let waits = progress.state == ClientState::Waiting;
        if waits && self.waiting.is_none() {
            self.waiting = Some(tick);
        } else if !waits {
            self.waiting = None;
        }
        self.state = progress.state;
        (self.figures.client_parses, self.figures.server_parses, self.figures.binds) = progress.prepared;
        self.publish(&progress);
    }

    fn publish(&self, progress: &crate::session::Progress) {
        let (card, figures) = (&*self.card, &self.figures);
        card.state.store(self.state as u8, RELAXED);
        card.pinned.store(progress.pins.bits(), RELAXED);
        card.waiting.store(self.waiting.map_or(0, Tick::as_nanos), RELAXED);
        card.server.store(self.server.map_or(0, |server| server + 1), RELAXED);
        card.prepared.store(progress.statements, RELAXED);
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let values = [
            figures.assignments,
            figures.transactions,
            figures.queries,
            figures.received,
            figures.sent,
            nanos(figures.transaction_time),
            nanos(figures.query_time),
            nanos(figures.wait_time),
            figures.client_parses,
            figures.server_parses,
            figures.binds,
            figures.logins,
            figures.pins,
        ];
        for (place, value) in card.figures.iter().zip(values) {
            place.store(value, RELAXED);
        }
    }
}

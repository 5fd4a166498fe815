//! Looking around for the admin console: what sessions, pools and settings are at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Shared;
use crate::console::snapshot::{
    ClientFacts, ClientState, DatabaseFacts, DatabaseStatistics, Figures, MemoryFacts, PeerFacts, PoolFacts,
    ServerFacts, ServerState, Snapshot, State, UserFacts,
};
use crate::console::{ConsoleAccess, Show};
use crate::driver::card::Card;
use crate::driver::connection::Connection;
use crate::driver::mailbox::{Mail, lock};
use crate::driver::runtime::Runtime;
use crate::driver::server::ServerConnection;
use crate::fault::Refusal;
use crate::policy::{Database, Databases, Endpoint, HostOrder};
use crate::pool::{self, PoolMode, PoolSettings};
use crate::session_id::SessionId;
use crate::time::{Now, Tick, UnixMicros};

/// The console's own name among databases.
const OWN: &str = ConsoleAccess::DATABASES[0];

/// Sessions and server connections, counted by a name.
#[derive(Default)]
struct Counted(BTreeMap<Arc<str>, (usize, usize)>);

impl Counted {
    fn of(&self, name: &str) -> (usize, usize) {
        self.0.get(name).copied().unwrap_or_default()
    }
}

impl<R: Runtime> Shared<R> {
    /// What this table needs.
    pub(in crate::driver) fn look(&self, show: Show, now: Now) -> Snapshot {
        let mut snapshot = Snapshot { state: self.state(), ..Snapshot::default() };
        match show {
            Show::Clients => snapshot.clients = self.clients(now),
            Show::Servers => snapshot.servers = self.servers(&self.clients(now), now),
            Show::Stats | Show::StatsAverages | Show::StatsTotals | Show::Totals => {
                snapshot.statistics = self.statistics(now);
            }
            Show::Sockets | Show::ActiveSockets => {
                snapshot.clients = self.clients(now);
                snapshot.servers = self.servers(&snapshot.clients, now);
            }
            Show::Pools => snapshot.pools = self.pools(&self.clients(now), now),
            Show::Peers | Show::PeerPools => snapshot.peers = self.peers(),
            Show::Databases => snapshot.databases = self.databases(&self.clients(now)),
            Show::Users => snapshot.users = self.users(&self.clients(now)),
            Show::Lists => {
                snapshot.clients = self.clients(now);
                snapshot.servers = self.servers(&snapshot.clients, now);
                snapshot.pools = self.pools(&snapshot.clients, now);
                snapshot.databases = self.databases(&snapshot.clients);
                snapshot.users = self.users(&snapshot.clients);
                snapshot.peers = self.peers();
            }
            Show::Mem => snapshot.memory = self.memory(),
            _ => {}
        }
        snapshot
    }

    fn state(&self) -> State {
        let paused = lock(&self.hub).pools.is_paused(None);
        State { paused, suspended: self.is_suspended(), draining: self.is_draining() }
    }

    fn cards(&self) -> Vec<Arc<Card>> {
        lock(&self.present).values().map(|present| present.card.clone()).collect()
    }

    /// Those that have ended, and are only still told so, are not there any more.
    fn clients(&self, now: Now) -> Vec<ClientFacts> {
        let cards = self.cards().into_iter().map(|card| card.facts(now));
        cards.filter(|client| client.state != ClientState::Closing).collect()
    }

    fn servers(&self, clients: &[ClientFacts], now: Now) -> Vec<ServerFacts> {
        let by_session: BTreeMap<u64, &ClientFacts> = clients.iter().map(|client| (client.session, client)).collect();
        let mut servers: Vec<ServerFacts> = {
            let hub = lock(&self.hub);
            hub.pools.servers().map(|server| server_facts(&server, now)).collect()
        };
        for server in &mut servers {
            if let Some((target, id, local)) = self.server(pool::SlotId(server.number)) {
                server.id = id;
                server.local = local;
                server.address = Some(target.endpoint.to_string().into());
                server.pid = target.backend.pid;
                server.tls = target.tls.is_some().then(|| "TLS".into());
            }
            let client = server.session.and_then(|session| by_session.get(&session.0));
            server.application = client.and_then(|client| client.application.clone());
            if let Some(client) = client.filter(|client| client.identity.is_some()) {
                server.identity.clone_from(&client.identity);
            }
        }
        servers
    }

    fn pools(&self, clients: &[ClientFacts], now: Now) -> Vec<PoolFacts> {
        let mut at_work: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for client in clients.iter().filter(|client| client.state != ClientState::Waiting) {
            if let (Some(account), Some(database)) = (&client.account, &client.database) {
                *at_work.entry((account, database)).or_default() += 1;
            }
        }
        let profile = &self.terms().profile;
        let hub = lock(&self.hub);
        let mut cancels: BTreeMap<&pool::PoolKey, usize> = BTreeMap::new();
        let cancelled: BTreeSet<pool::SlotId> = hub.cancels.cancelled_slots().collect();
        for server in hub.pools.servers().filter(|server| cancelled.contains(&server.slot)) {
            *cancels.entry(server.key).or_default() += 1;
        }
        let pools = hub.pools.snapshot().map(|it| PoolFacts {
            key: it.key.clone(),
            mode: it.settings.pool_mode,
            host_order: profile.databases.find(&it.key.database).and_then(|database| host_order(database)),
            clients: at_work.get(&(&*it.key.account, &*it.key.database)).copied().unwrap_or(0),
            waiting: it.waiting,
            cancels: cancels.get(it.key).copied().unwrap_or(0),
            active: it.active,
            idle: it.idle,
            tested: it.tested,
            opening: it.opening,
            oldest_wait: it.oldest_wait.map(|since| now.tick.since(since)).unwrap_or_default(),
            paused: it.paused,
            replaced: it.totals.replaced,
        });
        pools.collect()
    }

    /// Server connections and sessions by something that both have.
    fn counted<'a>(
        &self,
        clients: &'a [ClientFacts],
        of_client: impl Fn(&'a ClientFacts) -> Option<&'a Arc<str>>,
        of_pool: impl Fn(&pool::PoolKey) -> &Arc<str>,
    ) -> Counted {
        let mut counted = Counted::default();
        for pool in lock(&self.hub).pools.snapshot() {
            counted.0.entry(of_pool(pool.key).clone()).or_default().0 += pool.active + pool.idle + pool.opening;
        }
        for name in clients.iter().filter_map(of_client) {
            counted.0.entry(name.clone()).or_default().1 += 1;
        }
        counted
    }

    fn databases(&self, clients: &[ClientFacts]) -> Vec<DatabaseFacts> {
        let counted = self.counted(clients, |client| client.database.as_ref(), |key| &key.database);
        let profile = &self.terms().profile;
        let hub = lock(&self.hub);
        let facts = |name: &str, database: &Database, (connections, clients): (usize, usize)| {
            let hosts: Vec<String> = database.endpoints.iter().map(host).collect();
            let port = database.endpoints.first().map_or(0, |endpoint| match endpoint {
                Endpoint::Tcp { port, .. } => *port,
                Endpoint::Unix(_) => 0,
            });
            DatabaseFacts {
                name: name.into(),
                host: hosts.join(","),
                port,
                host_order: host_order(database),
                dbname: database.dbname.clone().unwrap_or_else(|| name.into()),
                user: database.account.as_ref().map(|account| account.name.clone()),
                settings: database.pool.clone(),
                connections,
                clients,
                paused: hub.pools.is_paused(Some(name)),
                disabled: hub.pools.is_disabled(name),
            }
        };
        let named = profile.databases.entries().map(|(name, database)| facts(name, database, counted.of(name)));
        // Names that the `*` stands for, as far as somebody uses them.
        let others =
            counted.0.iter().filter(|(name, _)| !profile.databases.has(name) && **name != Databases::ANY.into());
        let others = others
            .filter(|(name, _)| !profile.is_console(name))
            .filter_map(|(name, counts)| profile.databases.find(name).map(|database| facts(name, database, *counts)));
        let at_console = counted.0.iter().filter(|(name, _)| profile.is_console(name)).map(|(_, (_, clients))| clients);
        let console = profile.is_console(OWN).then(|| console_facts(&profile.pool, at_console.sum()));
        named.chain(others).chain(console).collect()
    }

    /// Everybody who may log in by a password of gprxy's own, or whom a server connection or a session runs as.
    fn users(&self, clients: &[ClientFacts]) -> Vec<UserFacts> {
        let profile = &self.terms().profile;
        let by_name = profile.gate.as_ref().is_some_and(|gate| gate.knows_names());
        let of_client = |client: &'_ ClientFacts| if by_name { client.user.clone() } else { client.account.clone() };
        let names: Vec<_> = clients.iter().map(of_client).collect();
        let mut counted = Counted::default();
        for pool in lock(&self.hub).pools.snapshot() {
            counted.0.entry(pool.key.account.clone()).or_default().0 += pool.active + pool.idle + pool.opening;
        }
        for name in names.into_iter().flatten() {
            counted.0.entry(name).or_default().1 += 1;
        }
        let listed = profile.gate.iter().flat_map(|gate| gate.names());
        let configured = profile.users.names().filter(|_| by_name);
        for name in listed.chain(configured).chain(profile.roles.accounts().map(|account| &account.name)) {
            counted.0.entry(name.clone()).or_default();
        }
        let usual = &profile.pool;
        let users = counted.0.into_iter().map(|(name, (connections, clients))| {
            let own = profile.users.own_pool(&name).copied().unwrap_or_default();
            UserFacts {
                name,
                own,
                max_connections: own.max_user_connections.unwrap_or(usual.max_user_connections),
                connections,
                max_clients: own.max_user_client_connections.unwrap_or(usual.max_user_client_connections),
                clients,
            }
        });
        users.collect()
    }

    fn peers(&self) -> Vec<PeerFacts> {
        let hub = lock(&self.hub);
        let peers = hub.cancels.peers().map(|it| {
            let (host, port) = match &it.settings.endpoint {
                Endpoint::Tcp { host, port } => (&**host, *port),
                Endpoint::Unix(path) => {
                    let parts = path.rsplit_once("/.s.PGSQL.");
                    parts.map_or((&**path, 0), |(directory, port)| (directory, port.parse().unwrap_or(0)))
                }
            };
            PeerFacts {
                id: it.id.number(),
                host: host.to_owned(),
                port,
                pool_size: it.settings.pool_size,
                connecting: it.connecting,
                sent: it.sent,
            }
        });
        peers.collect()
    }

    fn memory(&self) -> Vec<MemoryFacts> {
        let used = self.everybody();
        let servers = lock(&self.hub).pools.servers().count();
        let of = |name, size, used| MemoryFacts { name, size, used, free: 0 };
        vec![
            of("client_cache", size_of::<Connection<R>>(), used),
            of("card_cache", size_of::<Card>(), used),
            of("server_cache", size_of::<ServerConnection<R::Socket>>(), servers),
        ]
    }

    fn live_figures(cards: &[Arc<Card>]) -> impl Iterator<Item = (Arc<str>, Figures)> + '_ {
        cards.iter().filter_map(|card| Some((card.database()?.clone(), card.figures())))
    }

    fn statistics(&self, now: Now) -> Vec<DatabaseStatistics> {
        // Whoever ends meanwhile is counted here or there, and not twice.
        let present = lock(&self.present);
        let cards: Vec<Arc<Card>> = present.values().map(|present| present.card.clone()).collect();
        lock(&self.statistics).look(Self::live_figures(&cards), now.tick)
    }

    /// A period of the statistics has ended.
    pub fn turn_statistics(&self) {
        let now = R::now().tick;
        let present = lock(&self.present);
        let cards: Vec<Arc<Card>> = present.values().map(|present| present.card.clone()).collect();
        lock(&self.statistics).turn(Self::live_figures(&cards), now);
    }

    /// The sessions that this is true of; those at the console are not asked.
    pub(in crate::driver) fn sessions_of(&self, database: Option<&str>) -> Vec<SessionId> {
        let profile = &self.terms().profile;
        let cards =
            self.cards().into_iter().filter(|card| !card.database().is_some_and(|name| profile.is_console(name)));
        let of = cards.filter(|card| match (database, card.database()) {
            (None, _) => true,
            (Some(wanted), Some(database)) => **database == *wanted,
            (Some(_), None) => false,
        });
        of.map(|card| card.id).collect()
    }

    /// Ends the sessions that keep a server connection that is to be closed, where their database wants that.
    pub(in crate::driver) fn close_fast(self: &Arc<Self>) {
        let profile = self.terms().profile.clone();
        let sessions: Vec<SessionId> = {
            let hub = lock(&self.hub);
            let keeps = |pool: pool::PoolFacts<'_>| {
                let fast = profile.databases.find(&pool.key.database).is_some_and(|it| it.session.fast_close);
                (fast && pool.settings.pool_mode == PoolMode::Session).then(|| pool.key.clone())
            };
            let pools: Vec<pool::PoolKey> = hub.pools.snapshot().filter_map(keeps).collect();
            let stale = hub.pools.servers().filter(|server| server.stale && pools.contains(server.key));
            stale.filter_map(|server| server.session).collect()
        };
        for session in sessions {
            self.post(session, Mail::Stale);
        }
    }

    /// The session with this number, or with these lower 32 bits of its number.
    pub(in crate::driver) fn session_called(&self, number: u64) -> Option<SessionId> {
        let short = u32::try_from(number).is_ok();
        let present = lock(&self.present);
        present.keys().find(|id| id.0 == number || short && id.0 & u64::from(u32::MAX) == number).copied()
    }

    /// Whether any of these is still there.
    pub(in crate::driver) fn any_present(&self, sessions: &[SessionId]) -> bool {
        let present = lock(&self.present);
        sessions.iter().any(|session| present.contains_key(session))
    }

    /// Ends these sessions.
    pub(in crate::driver) fn kill(&self, sessions: &[SessionId], refusal: &Refusal) {
        let present = lock(&self.present);
        for mailbox in sessions.iter().filter_map(|session| present.get(session)).map(|present| &present.mailbox) {
            mailbox.put(Mail::Kill(refusal.clone()));
        }
    }
}

/// Which of several hosts is tried first.
fn host_order(database: &Database) -> Option<HostOrder> {
    (database.endpoints.len() > 1).then_some(database.host_order)
}

fn server_facts(it: &pool::ServerFacts<'_>, now: Now) -> ServerFacts {
    let at = |tick: Tick| {
        let ago = i64::try_from(now.tick.since(tick).as_micros()).unwrap_or(i64::MAX);
        UnixMicros(now.unix.0.saturating_sub(ago))
    };
    // An owner is an issuer and a subject.
    let identity = it.owner.as_deref().and_then(|owner| owner.split_once('\0')).map(|(_, subject)| subject.into());
    ServerFacts {
        number: it.slot.0,
        id: 0,
        local: None,
        key: it.key.clone(),
        state: match it.state {
            pool::ServerState::Opening => ServerState::New,
            pool::ServerState::Active => ServerState::Active,
            pool::ServerState::Tested => ServerState::Tested,
            pool::ServerState::Idle => ServerState::Idle,
        },
        address: None,
        pid: 0,
        tls: None,
        connected: at(it.opened),
        requested: at(it.last_leased),
        stale: it.stale,
        session: it.session,
        application: None,
        identity,
        prepared: 0,
    }
}

/// The console as a database of its own, as PgBouncer shows it.
fn console_facts(usual: &PoolSettings, clients: usize) -> DatabaseFacts {
    DatabaseFacts {
        name: OWN.into(),
        host: String::new(),
        port: 0,
        host_order: None,
        dbname: OWN.into(),
        user: Some(OWN.into()),
        settings: Arc::new(PoolSettings { pool_mode: PoolMode::Statement, min_pool_size: 0, ..usual.clone() }),
        connections: 0,
        clients,
        paused: false,
        disabled: false,
    }
}

fn host(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp { host, .. } => host.to_string(),
        Endpoint::Unix(path) => path.to_string(),
    }
}

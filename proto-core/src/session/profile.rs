//! What holds for a session from its beginning: the operator's policy, and what is known of the client.

use std::sync::Arc;

use crate::audit::AuditProfile;
use crate::auth::gate::Gate;
use crate::auth::roles::RoleMap;
use crate::console::ConsoleAccess;
use crate::policy::{
    AllowPlaintext, AuthQuery, Databases, Limits, LogTerms, Peers, SocketOptions, StartupRules, Users,
};
use crate::pool::{PoolKey, PoolSettings};

/// What every session of a process has in common.
pub struct Profile {
    /// Whether clients can have TLS.
    pub tls: bool,
    /// Whether they must, but for those at a Unix socket.
    pub tls_required: bool,
    /// Where secrets may travel in clear.
    pub allow_plaintext: AllowPlaintext,
    /// Who is let in by another proof than a token; `None`: tokens count, and what `password_fallback` says.
    pub gate: Option<Arc<Gate>>,
    /// How the gate's users at the admin console are looked up whom its list does not have.
    pub auth_query: Option<Arc<AuthQuery>>,
    /// Whether a password that is no token may be checked by PostgreSQL itself.
    pub password_fallback: bool,
    /// Which role runs as which account.
    pub roles: RoleMap,
    /// Where the databases are.
    pub databases: Databases,
    /// What holds for pools of databases that say nothing else.
    pub pool: Arc<PoolSettings>,
    /// Bounds.
    pub limits: Limits,
    /// Who has timeouts of their own.
    pub users: Users,
    /// What becomes of the parameters in startup packets.
    pub startup: StartupRules,
    /// How the kernel treats connections.
    pub sockets: SocketOptions,
    /// Who may use the admin console; `None`: there is none, and its names are those of databases like others.
    pub console: Option<Arc<ConsoleAccess>>,
    /// Other processes behind the same address, to which cancel requests are passed on.
    pub peers: Arc<Peers>,
    /// What the log tells.
    pub log: LogTerms,
    /// Whether statements are written down, and how strictly.
    pub audit: Option<AuditProfile>,
}

impl Profile {
    /// Whether a client that asks for this database means the admin console: a database of that name goes before.
    #[must_use]
    pub fn is_console(&self, database: &str) -> bool {
        self.console.is_some() && ConsoleAccess::is_console(database) && !self.databases.has(database)
    }

    /// What holds for the pool of an account, as far as a session in this role, or of this user, is concerned. Where users log
    /// in under names of their own, the account is one of these names, too.
    #[must_use]
    pub fn pool_settings(&self, account: &str, role: &str, usual: &Arc<PoolSettings>) -> Arc<PoolSettings> {
        let pool = if self.gate.is_some() { account } else { role };
        self.users.pool(pool, role, usual)
    }

    /// What holds for a pool that is there, as far as its name tells: where roles have pools of their own, it does not.
    #[must_use]
    pub fn settings_of_pool(&self, key: &PoolKey) -> Option<Arc<PoolSettings>> {
        let usual = &self.databases.find(&key.database)?.pool;
        match (&self.gate, self.users.have_pools()) {
            (Some(_), _) => Some(self.pool_settings(&key.account, &key.account, usual)),
            (None, false) => Some(usual.clone()),
            (None, true) => None,
        }
    }

    /// The name that the clients of a user are counted under: its own where it has proven that, else the account.
    #[must_use]
    pub fn counted_as<'a>(&self, user: &'a Arc<str>, account: &'a Arc<str>) -> &'a Arc<str> {
        if self.gate.as_ref().is_some_and(|gate| gate.knows_names()) { user } else { account }
    }
}

impl Default for Profile {
    /// The narrowest one: no TLS, secrets in clear from this machine only, no roles, no databases, so that nobody gets in;
    /// the usual limits, and no audit trail.
    fn default() -> Self {
        Self {
            tls: false,
            tls_required: false,
            allow_plaintext: AllowPlaintext::default(),
            gate: None,
            auth_query: None,
            password_fallback: false,
            roles: RoleMap::default(),
            databases: Databases::default(),
            pool: Arc::default(),
            limits: Limits::default(),
            users: Users::default(),
            startup: StartupRules::default(),
            sockets: SocketOptions::default(),
            console: None,
            peers: Arc::default(),
            log: LogTerms::default(),
            audit: None,
        }
    }
}

/// What is known of a client before it says anything.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address and port, or `unix`.
    pub address: Arc<str>,
    /// Loopback or a Unix socket.
    pub is_local: bool,
    /// Over a Unix socket, the user that the peer's process ran as when it connected, where that is known.
    pub uid: Option<u32>,
}

impl Peer {
    /// Whether it is at a Unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        &*self.address == "unix"
    }
}

/// How a client's connection is encrypted, in PostgreSQL's words (`pg_stat_ssl`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encryption {
    /// `TLSv1.3`, ...
    pub version: Arc<str>,
    /// `TLS_AES_256_GCM_SHA384`, ...
    pub cipher: Arc<str>,
}

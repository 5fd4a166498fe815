//! What a session may do on its database, and for how long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::pool::{PoolMode, PoolSettings};

/// Limits on the time that a session takes, with PgBouncer's names; zero: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timeouts {
    /// For one query, the wait for its server connection included. It is cancelled and the session closed.
    pub query: Duration,
    /// For an open transaction whose client says nothing.
    pub idle_transaction: Duration,
    /// For a transaction from its first message to its end; a statement outside of a block is one, too.
    pub transaction: Duration,
    /// For a client that says nothing and is in no transaction.
    pub client_idle: Duration,
}

impl Timeouts {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// These, where somebody in particular has none of their own.
    #[must_use]
    pub fn for_user(self, own: &OwnTimeouts) -> Self {
        Self {
            query: own.query.unwrap_or(self.query),
            idle_transaction: own.idle_transaction.unwrap_or(self.idle_transaction),
            transaction: own.transaction.unwrap_or(self.transaction),
            client_idle: own.client_idle.unwrap_or(self.client_idle),
        }
    }
}

/// The same for one role or user, who may have others than the rest; `None`: those of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnTimeouts {
    /// For one query.
    pub query: Option<Duration>,
    /// For an open transaction whose client says nothing.
    pub idle_transaction: Option<Duration>,
    /// For a transaction.
    pub transaction: Option<Duration>,
    /// For a client that says nothing.
    pub client_idle: Option<Duration>,
}

/// What one role or user has otherwise than its database, of the pool's settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnPool {
    /// When its server connections come back.
    pub pool_mode: Option<PoolMode>,
    /// How many there are for each database.
    pub pool_size: Option<u32>,
    /// How many more when somebody has waited for long.
    pub reserve_pool_size: Option<u32>,
    /// How many there are of its account, over all databases.
    pub max_user_connections: Option<u32>,
    /// How many clients run as its account.
    pub max_user_client_connections: Option<u32>,
    /// How long somebody waits for one; zero: for ever.
    pub query_wait_timeout: Option<Duration>,
}

/// Roles, or users where a gate lets them in under their own names, that have timeouts or a pool of their own.
#[derive(Clone, Debug, Default)]
pub struct Users {
    named: BTreeSet<Arc<str>>,
    timeouts: BTreeMap<Arc<str>, OwnTimeouts>,
    pools: BTreeMap<Arc<str>, OwnPool>,
}

impl Users {
    /// By the name of the role as the configuration spells it, or of the user.
    #[must_use]
    pub fn new(users: impl IntoIterator<Item = (Arc<str>, OwnTimeouts)>) -> Self {
        let all: Vec<_> = users.into_iter().collect();
        let named = all.iter().map(|(name, _)| name.clone()).collect();
        let timeouts = all.into_iter().filter(|(_, own)| *own != OwnTimeouts::default()).collect();
        Self { named, timeouts, pools: BTreeMap::new() }
    }

    /// With these pools of their own, by the same names.
    #[must_use]
    pub fn with_pools(mut self, pools: impl IntoIterator<Item = (Arc<str>, OwnPool)>) -> Self {
        self.pools.extend(pools.into_iter().filter(|(_, own)| *own != OwnPool::default()));
        self
    }

    /// What holds for a role or user on a database whose pools have these settings. `pool`: whose server connections it uses,
    /// which is somebody else where a database has a user of its own.
    #[must_use]
    pub fn pool(&self, pool: &str, name: &str, usual: &Arc<PoolSettings>) -> Arc<PoolSettings> {
        let none = OwnPool::default();
        let (shared, own) = (self.own_pool(pool), self.own_pool(name));
        if shared.is_none() && own.is_none() {
            return usual.clone();
        }
        let (shared, own) = (shared.unwrap_or(&none), own.unwrap_or(&none));
        Arc::new(PoolSettings {
            pool_mode: shared.pool_mode.unwrap_or(usual.pool_mode),
            default_pool_size: shared.pool_size.unwrap_or(usual.default_pool_size),
            reserve_pool_size: shared.reserve_pool_size.unwrap_or(usual.reserve_pool_size),
            max_user_connections: shared.max_user_connections.unwrap_or(usual.max_user_connections),
            max_user_client_connections: own.max_user_client_connections.unwrap_or(usual.max_user_client_connections),
            query_wait_timeout: own.query_wait_timeout.unwrap_or(usual.query_wait_timeout),
            ..(**usual).clone()
        })
    }

    /// What a role or user has of its own.
    #[must_use]
    pub fn own_pool(&self, name: &str) -> Option<&OwnPool> {
        self.pools.get(name)
    }

    /// Whether any of them has a pool of its own.
    #[must_use]
    pub fn have_pools(&self) -> bool {
        !self.pools.is_empty()
    }

    /// Whether everybody's server connections come back when they do by the others.
    #[must_use]
    pub fn have_same_modes(&self, others: &Self) -> bool {
        let modes = |users: &Self| -> Vec<_> {
            let own = |(name, pool): (&Arc<str>, &OwnPool)| pool.pool_mode.map(|mode| (name.clone(), mode));
            users.pools.iter().filter_map(own).collect()
        };
        modes(self) == modes(others)
    }

    /// Those that anything was said about.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.named.iter()
    }

    /// The timeouts of a role or user on a database that has these.
    #[must_use]
    pub fn timeouts(&self, name: &str, usual: Timeouts) -> Timeouts {
        self.timeouts.get(name).map_or(usual, |own| usual.for_user(own))
    }
}

/// What happens to a statement that leaves state behind which cannot follow its session to another server connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SessionState {
    /// The session keeps its connection until the state is gone.
    #[default]
    Pin,
    /// The statement is refused (0A000).
    Refuse,
}

/// What holds for the sessions of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionTerms {
    /// How long they may take.
    pub timeouts: Timeouts,
    /// Whether they may have state that ties them to a server connection.
    pub state: SessionState,
    /// Whether an unnamed statement that is prepared again and again runs as a named one.
    pub cache_unnamed_statements: bool,
    /// Whether a session that keeps its server connection ends with its transaction when an operator or a reload wants the
    /// connection closed.
    pub fast_close: bool,
}

/// What the log tells of clients and server connections, with PgBouncer's names (`log_connections` and so on).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogTerms {
    /// Logins, and new connections to servers.
    pub connections: bool,
    /// Their ends, and why.
    pub disconnections: bool,
    /// What clients are refused with.
    pub pooler_errors: bool,
}

/// What becomes of the parameters in a client's startup packet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StartupRules {
    /// Names of parameters that go no further, `options` among them for what stands in that.
    pub ignore: Vec<String>,
    /// Whether the name of the application is told with the client's address behind it.
    pub add_host: bool,
    /// What every client is told by a NOTICE at its login; empty: nothing.
    pub login_notice: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_own_pool_goes_before_the_databases() {
        let own = OwnPool {
            reserve_pool_size: Some(2),
            query_wait_timeout: Some(Duration::from_secs(3)),
            ..OwnPool::default()
        };
        let big = OwnPool { pool_size: Some(30), query_wait_timeout: Some(Duration::MAX), ..OwnPool::default() };
        let users =
            Users::default().with_pools([("ann".into(), own), ("bob".into(), OwnPool::default()), ("app".into(), big)]);
        let usual = Arc::new(PoolSettings { default_pool_size: 9, ..PoolSettings::default() });
        let pool = users.pool("ann", "ann", &usual);
        assert_eq!((pool.reserve_pool_size, pool.query_wait_timeout), (2, Duration::from_secs(3)));
        assert_eq!(pool.default_pool_size, 9, "what it leaves open");
        let forced = users.pool("app", "ann", &usual);
        assert_eq!((forced.default_pool_size, forced.reserve_pool_size), (30, 0), "the connections are app's");
        assert_eq!(forced.query_wait_timeout, Duration::from_secs(3), "and the patience ann's");
        for nobody in ["bob", "eve"] {
            assert!(Arc::ptr_eq(&users.pool(nobody, nobody, &usual), &usual));
        }
    }
}

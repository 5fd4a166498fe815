//! Leases, waiters, sizes, lifetimes: who may use which server connection, and when.

use std::time::Duration;

/// Limits of one pool, with PgBouncer's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Server connections per (account, database), open or being opened.
    pub default_pool_size: u32,
    /// A server connection older than this is closed instead of reused.
    pub server_lifetime: Duration,
    /// An unused server connection is closed after this.
    pub server_idle_timeout: Duration,
    /// A client that waits longer for a server connection is refused (53300).
    pub query_wait_timeout: Duration,
    /// A client that waits this long is told so once by a NOTICE; zero: never.
    pub query_wait_notify: Duration,
    /// After a failed login to the server, the next try waits this long.
    pub server_login_retry: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            default_pool_size: 5,
            server_lifetime: Duration::from_secs(3600),
            server_idle_timeout: Duration::from_secs(1800),
            query_wait_timeout: Duration::from_secs(120),
            query_wait_notify: Duration::from_secs(5),
            server_login_retry: Duration::from_secs(15),
        }
    }
}

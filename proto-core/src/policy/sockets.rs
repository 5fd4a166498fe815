//! How the kernel treats TCP connections, with PgBouncer's names.

use std::time::Duration;

/// For connections of clients and to servers alike; Unix sockets have none of it. `None`: as the system has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketOptions {
    /// Whether a silent peer is asked for a sign of life (`tcp_keepalive`).
    pub keepalive: bool,
    /// After how much silence (`tcp_keepidle`).
    pub keepidle: Option<Duration>,
    /// How long until it is asked again (`tcp_keepintvl`).
    pub keepintvl: Option<Duration>,
    /// How often it may leave that unanswered (`tcp_keepcnt`).
    pub keepcnt: Option<u32>,
    /// How long sent bytes may stay unacknowledged (`tcp_user_timeout`; Linux).
    pub user_timeout: Option<Duration>,
    /// The kernel's buffers of a connection, each way, in bytes (`tcp_socket_buffer`).
    pub buffer: Option<usize>,
}

impl Default for SocketOptions {
    /// A peer that is gone without a word is noticed after a few minutes.
    fn default() -> Self {
        Self {
            keepalive: true,
            keepidle: Some(Duration::from_secs(60)),
            keepintvl: Some(Duration::from_secs(15)),
            keepcnt: None,
            user_timeout: None,
            buffer: None,
        }
    }
}

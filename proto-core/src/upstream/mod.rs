//! The server-facing handshakes as machines of their own.

use std::sync::Arc;

use crate::secret::Secret;

/// What the server told while it let the proxy in. Only a finished login makes one.
pub struct LoggedIn {
    /// ParameterStatus pairs in the order of their arrival, a later value in place of an earlier one.
    pub parameters: Vec<(Box<[u8]>, Box<[u8]>)>,
    /// The server process, and what cancels its work.
    pub key: BackendKey,
}

/// A server's process id and cancel key. The key never reaches a client or a log.
pub struct BackendKey {
    /// As told in BackendKeyData; 0 when the server sent none.
    pub pid: u32,
    /// 4 bytes (protocol 3.0) to 256 (3.2).
    pub key: Arc<Secret<Vec<u8>>>,
}

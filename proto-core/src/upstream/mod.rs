//! The server-facing handshakes as machines of their own: logging in ([`Login`]), cleaning a connection that comes
//! back ([`Reset`]), looking a user up ([`Lookup`]) and cancelling ([`CancelRequest`]).
//!
//! All of them have the same verbs: `handle_*` takes something in, `poll_output` and `poll_timeout` give something out.
//! A driver moves bytes between a socket and `handle_input`, does what `poll_output` names, and stops at `Finished`.

pub mod cancel_wire;
pub mod failure;
mod frames;
pub mod login;
pub mod lookup;
pub mod parameters;
mod proving;
pub mod reset;
pub mod settings;
mod startup_query;

use std::sync::Arc;

use crate::auth::scram::ScramKeys;
use crate::secret::Secret;

pub use cancel_wire::{CancelFailure, CancelOutput, CancelRequest, CancelTls};
pub use failure::{LoginFailure, ServerError};
pub use login::{Login, LoginOutput};
pub use lookup::{Lookup, LookupFault, LookupOutcome, LookupOutput};
pub use parameters::{Differences, Reported};
pub use reset::{Discard, Reset, ResetFault, ResetOutcome, ResetOutput, ResetPlan};
pub use settings::{Credential, LoginSettings};
pub use startup_query::startup_query;

/// Server parameters as told in ParameterStatus: name and value.
pub type Parameters = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What the server told while it let the proxy in. Only a finished login makes one.
pub struct LoggedIn {
    /// ParameterStatus pairs in the order of their arrival, a later value in place of an earlier one.
    pub parameters: Parameters,
    /// The server process, and what cancels its work.
    pub key: BackendKey,
    /// Keys that this login derived; to be kept with the account's password, so that the next one need not.
    pub new_keys: Option<Arc<ScramKeys>>,
    /// Whether the connection is under TLS; a cancel request must then be, too.
    pub tls: bool,
    user: Arc<str>,
    password_checked: bool,
}

impl LoggedIn {
    /// The account that was logged in to.
    #[must_use]
    pub const fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// Whether the server asked for the password and accepted it.
    ///
    /// `false` under trust, peer or certificate authentication: the connection is good, but says nothing about whether
    /// somebody who claimed to be this user knows the password.
    #[must_use]
    pub const fn password_checked(&self) -> bool {
        self.password_checked
    }
}

/// A server's process id and cancel key. The key never reaches a client or a log.
pub struct BackendKey {
    /// As told in BackendKeyData; 0 when the server sent none.
    pub pid: u32,
    /// 4 bytes (protocol 3.0) to 256 (3.2); empty when the server sent none.
    pub key: Arc<Secret<Vec<u8>>>,
}

/// The most parameters that are kept of one server. PostgreSQL 18 reports 15; extensions may add theirs.
const MAX_PARAMETERS: usize = 256;

/// Enters a ParameterStatus: in place of the earlier value of the same name, else at the end.
///
/// Gives back `false`, and changes nothing, when a server tells more different names than anybody needs (256).
#[must_use]
pub fn remember(parameters: &mut Parameters, name: &[u8], value: &[u8]) -> bool {
    if let Some((_, old)) = parameters.iter_mut().find(|(known, _)| **known == *name) {
        *old = value.into();
    } else if parameters.len() < MAX_PARAMETERS {
        parameters.push((name.into(), value.into()));
    } else {
        return false;
    }
    true
}

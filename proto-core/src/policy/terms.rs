//! What a session may do on its database, and for how long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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

/// Roles, or users where a gate lets them in under their own names, that have timeouts of their own.
#[derive(Clone, Debug, Default)]
pub struct Users(BTreeMap<Arc<str>, OwnTimeouts>);

impl Users {
    /// By the name of the role as the configuration spells it, or of the user.
    #[must_use]
    pub fn new(users: impl IntoIterator<Item = (Arc<str>, OwnTimeouts)>) -> Self {
        Self(users.into_iter().filter(|(_, own)| *own != OwnTimeouts::default()).collect())
    }

    /// The timeouts of a role or user on a database that has these.
    #[must_use]
    pub fn timeouts(&self, name: &str, usual: Timeouts) -> Timeouts {
        self.0.get(name).map_or(usual, |own| usual.for_user(own))
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
}

/// What becomes of the parameters in a client's startup packet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StartupRules {
    /// Names of parameters that go no further, `options` among them for what stands in that.
    pub ignore: Vec<String>,
    /// Whether the name of the application is told with the client's address behind it.
    pub add_host: bool,
}

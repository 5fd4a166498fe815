//! What holds for sessions, in `[pool]` for all of them, in `[databases.NAME]` and in `[[role]]` for some.

use gprxy_proto::policy::{OwnPool, OwnTimeouts, SessionState, SessionTerms, Timeouts};

use super::kinds::{Choice, Flag, Span};
use super::reader::Reader;
use super::server::{ANY_NUMBER, POOL_MODE, POOL_SIZE};

const STATE: Choice<SessionState> = Choice(&[("pin", SessionState::Pin), ("refuse", SessionState::Refuse)]);

/// Of `[pool]`.
pub(super) fn usual(reader: &mut Reader<'_>) -> SessionTerms {
    SessionTerms {
        timeouts: Timeouts {
            query: reader.read("query_timeout", &Span::ANY),
            idle_transaction: reader.read("idle_transaction_timeout", &Span::ANY),
            transaction: reader.read("transaction_timeout", &Span::ANY),
            client_idle: reader.read("client_idle_timeout", &Span::ANY),
        },
        state: reader.read("session_state", &STATE),
        cache_unnamed_statements: reader.read("cache_unnamed_statements", &Flag),
        ..SessionTerms::default()
    }
}

/// Of a database, where it does not leave it at the usual ones.
pub(super) fn of_database(reader: &mut Reader<'_>, usual: &SessionTerms) -> SessionTerms {
    let own = own_timeouts(reader);
    SessionTerms {
        timeouts: usual.timeouts.for_user(&own),
        state: reader.inherited("session_state", &STATE, usual.state),
        cache_unnamed_statements: reader.inherited("cache_unnamed_statements", &Flag, usual.cache_unnamed_statements),
        ..usual.clone()
    }
}

/// Of a role.
pub(super) fn own_timeouts(reader: &mut Reader<'_>) -> OwnTimeouts {
    let mut own = |name| if reader.is_set(name) { reader.optional(name, &Span::ANY) } else { None };
    OwnTimeouts {
        query: own("query_timeout"),
        idle_transaction: own("idle_transaction_timeout"),
        transaction: own("transaction_timeout"),
        client_idle: own("client_idle_timeout"),
    }
}

/// Of a role's pools.
pub(super) fn own_pool(reader: &mut Reader<'_>) -> OwnPool {
    let pool_mode = if reader.is_set("pool_mode") { reader.optional("pool_mode", &POOL_MODE) } else { None };
    let mut own = |name, kind| if reader.is_set(name) { reader.optional(name, kind) } else { None };
    OwnPool {
        pool_mode,
        pool_size: own("pool_size", &POOL_SIZE),
        max_user_connections: own("max_user_connections", &ANY_NUMBER),
        max_user_client_connections: own("max_user_client_connections", &ANY_NUMBER),
    }
}

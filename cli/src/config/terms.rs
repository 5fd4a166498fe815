//! What holds for sessions, in `[pool]` for all of them, in `[databases.NAME]` and in `[[role]]` for some.

use std::time::Duration;

use gprxy_proto::policy::{OwnPool, OwnTimeouts, SessionState, SessionTerms, SocketOptions, StartupRules, Timeouts};

use super::kinds::{Choice, Flag, Line, List, Size, Span, Whole};
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
        fast_close: reader.read("server_fast_close", &Flag),
    }
}

/// Of a database, where it does not leave it at the usual ones.
pub(super) fn of_database(reader: &mut Reader<'_>, usual: &SessionTerms) -> SessionTerms {
    let own = own_timeouts(reader);
    SessionTerms {
        timeouts: usual.timeouts.for_user(&own),
        state: reader.inherited("session_state", &STATE, usual.state),
        cache_unnamed_statements: reader.inherited("cache_unnamed_statements", &Flag, usual.cache_unnamed_statements),
        fast_close: usual.fast_close,
    }
}

/// Of a role.
pub(super) fn own_timeouts(reader: &mut Reader<'_>) -> OwnTimeouts {
    let mut own = |name| reader.own(name, &Span::ANY);
    OwnTimeouts {
        query: own("query_timeout"),
        idle_transaction: own("idle_transaction_timeout"),
        transaction: own("transaction_timeout"),
        client_idle: own("client_idle_timeout"),
    }
}

/// Of `[server]`: startup packets.
pub(super) fn startup(reader: &mut Reader<'_>) -> StartupRules {
    const NAMES: List = List("names of parameters, separated by commas");
    StartupRules {
        ignore: reader.optional("ignore_startup_parameters", &NAMES).unwrap_or_default(),
        add_host: reader.read("application_name_add_host", &Flag),
        login_notice: reader.read("login_notify_message", &Line),
    }
}

/// Of `[server]`: the kernel's options, within Linux's own bounds.
pub(super) fn sockets(reader: &mut Reader<'_>) -> SocketOptions {
    const SECONDS: Span = Span { min: Duration::from_secs(1), max: Duration::from_secs(32_767) };
    const TIMEOUT: Span = Span { min: Duration::from_millis(1), max: Duration::from_secs(86_400) };
    SocketOptions {
        keepalive: reader.read("tcp_keepalive", &Flag),
        keepidle: Some(reader.read("tcp_keepidle", &SECONDS)),
        keepintvl: Some(reader.read("tcp_keepintvl", &SECONDS)),
        keepcnt: reader.optional("tcp_keepcnt", &Whole { what: "a number of probes", min: 1, max: 127 }),
        user_timeout: reader.optional("tcp_user_timeout", &TIMEOUT),
        buffer: reader.optional("tcp_socket_buffer", &Size { min: 1 << 12, max: 1 << 30 }),
    }
}

/// Of a role's pools.
pub(super) fn own_pool(reader: &mut Reader<'_>) -> OwnPool {
    OwnPool {
        pool_mode: reader.own("pool_mode", &POOL_MODE),
        pool_size: reader.own("pool_size", &POOL_SIZE),
        reserve_pool_size: reader.own("reserve_pool_size", &ANY_NUMBER),
        max_user_connections: reader.own("max_user_connections", &ANY_NUMBER),
        max_user_client_connections: reader.own("max_user_client_connections", &ANY_NUMBER),
        query_wait_timeout: reader.own("query_wait_timeout", &Span::ANY),
    }
}

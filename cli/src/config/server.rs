//! `[server]`, `[pool]`, `[audit]`, `[limits]` and `[log]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::policy::{Limits, LogTerms, PeerId, SessionTerms, SocketOptions, StartupRules};
use gprxy_proto::pool::{Isolation, PoolMode, PoolSettings};
use log::LevelFilter;

use super::draft::Draft;
use super::kinds::{Choice, Flag, List, Query, Size, Span, Whole, Words};
use super::problem::Origin;
use super::reader::{Entry, Reader};
use super::schema;
use super::settings::{Access, AuditFailure, AuditPath, AuditSettings, Listen, LogFormat, LogSettings};
use super::terms;
use super::{access, listen, peers};

/// `[server]` as read; the default role is looked up among the roles later.
pub(crate) struct Server {
    /// Where clients connect.
    pub(crate) listen: Listen,
    /// Worker threads.
    pub(crate) workers: usize,
    /// The number of this process among its peers.
    pub(crate) peer_id: Option<PeerId>,
    /// How clients may prove who they are.
    pub(crate) access: Access,
    /// As spelled in the configuration, and where.
    pub(crate) default_role: Option<(String, Origin)>,
    /// How long a drain waits.
    pub(crate) drain_timeout: Duration,
    /// What becomes of the parameters in startup packets.
    pub(crate) startup: StartupRules,
    /// How the kernel treats connections.
    pub(crate) sockets: SocketOptions,
}

/// Reads `[server]`. `has_tls`: whether a certificate is set, which decides who can log in at all.
pub(crate) fn server(entry: Entry, has_tls: bool, draft: &mut Draft) -> Server {
    let mut reader = Reader::of_section(&schema::SERVER, entry, draft);
    let listen = listen::listen(&mut reader);
    let workers = workers(&mut reader);
    let peer_id = peers::own(&mut reader);
    let access = access::access(&mut reader, has_tls, &listen);
    let default_role =
        reader.optional("default_role", &Words("the name of a role")).map(|name| (name, reader.origin("default_role")));
    let drain_timeout = reader.read("drain_timeout", &Span { min: Duration::ZERO, max: Duration::from_secs(86_400) });
    let (startup, sockets) = (terms::startup(&mut reader), terms::sockets(&mut reader));
    reader.finish();
    Server { listen, workers, peer_id, access, default_role, drain_timeout, startup, sockets }
}

fn workers(reader: &mut Reader<'_>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if !reader.is_set("workers") {
        reader.remark("workers", &format!("not set, one for each core ({cores})"));
        return cores;
    }
    let threads = reader.optional("workers", &Whole { what: "a number of threads", min: 1, max: 1024 });
    threads.and_then(|threads| usize::try_from(threads).ok()).unwrap_or(cores)
}

/// The bounds of pool settings, the same in `[pool]` and in `[databases.NAME]`.
pub(crate) const POOL_MODE: Choice<PoolMode> = Choice(&[
    ("session", PoolMode::Session),
    ("transaction", PoolMode::Transaction),
    ("statement", PoolMode::Statement),
]);
pub(crate) const STATEMENTS: Whole = Whole { what: "a number of statements", min: 0, max: 100_000 };
pub(crate) const ISOLATION: Choice<Isolation> =
    Choice(&[("identity", Isolation::Identity), ("pgbouncer", Isolation::PgBouncer)]);
pub(crate) const POOL_SIZE: Whole = Whole { what: "a number of connections", min: 1, max: 100_000 };

/// Limits where zero means that there is none, and a reserve that may be empty.
pub(crate) const ANY_NUMBER: Whole = Whole { what: "a number of connections", min: 0, max: 1_000_000 };

/// `[pool]` as read: what holds for databases that say nothing else.
pub(crate) struct Usual {
    pub(crate) pool: PoolSettings,
    pub(crate) terms: SessionTerms,
    pub(crate) connect_timeout: Duration,
    /// How long a pool of a name that `*` stands for is kept; `None`: as others.
    pub(crate) autodb_idle_timeout: Option<Duration>,
}

/// Reads `[pool]`.
pub(crate) fn pool(entry: Entry, draft: &mut Draft) -> Usual {
    let mut reader = Reader::of_section(&schema::POOL, entry, draft);
    let settings = PoolSettings {
        pool_mode: reader.read("pool_mode", &POOL_MODE),
        isolation: reader.read("isolation", &ISOLATION),
        default_pool_size: reader.read("default_pool_size", &POOL_SIZE),
        min_pool_size: reader.read("min_pool_size", &ANY_NUMBER),
        reserve_pool_size: reader.read("reserve_pool_size", &ANY_NUMBER),
        reserve_pool_timeout: reader.read("reserve_pool_timeout", &Span::ANY),
        max_db_connections: reader.read("max_db_connections", &ANY_NUMBER),
        max_user_connections: reader.read("max_user_connections", &ANY_NUMBER),
        max_db_client_connections: reader.read("max_db_client_connections", &ANY_NUMBER),
        max_user_client_connections: reader.read("max_user_client_connections", &ANY_NUMBER),
        server_round_robin: reader.read("server_round_robin", &Flag),
        max_prepared_statements: reader.read("max_prepared_statements", &STATEMENTS),
        server_lifetime: reader.read("server_lifetime", &Span::ANY),
        server_idle_timeout: reader.read("server_idle_timeout", &Span::ANY),
        pool_idle_timeout: idle_timeout("pool_idle_timeout", &mut reader),
        server_check_delay: reader.read("server_check_delay", &Span::ANY),
        server_check_query: reader.read("server_check_query", &Query).into(),
        server_reset_query: reader.read("server_reset_query", &Query).into(),
        server_reset_query_always: reader.read("server_reset_query_always", &Flag),
        connect_query: None,
        track_extra_parameters: tracked(&mut reader),
        query_wait_timeout: reader.read("query_wait_timeout", &Span::ANY),
        query_wait_notify: reader.read("query_wait_notify", &Span::ANY),
        server_login_retry: reader.read("server_login_retry", &Span::ANY),
        wait_for_server: reader.read("wait_for_server", &Flag),
    };
    let autodb_idle_timeout = idle_timeout("autodb_idle_timeout", &mut reader);
    let connect_timeout = reader.read("server_connect_timeout", &Span::SOME);
    let terms = terms::usual(&mut reader);
    reader.finish();
    Usual { pool: settings, terms, connect_timeout, autodb_idle_timeout }
}

/// Zero: never.
fn idle_timeout(name: &'static str, reader: &mut Reader<'_>) -> Option<Duration> {
    Some(reader.read(name, &Span::ANY)).filter(|span| !span.is_zero())
}

fn tracked(reader: &mut Reader<'_>) -> Arc<[Box<str>]> {
    const NAMES: List = List("names of parameters, separated by commas");
    reader.read("track_extra_parameters", &NAMES).into_iter().map(String::into_boxed_str).collect()
}

/// Reads `[audit]`.
pub(crate) fn audit(entry: Entry, draft: &mut Draft) -> AuditSettings {
    const FAILURE: Choice<AuditFailure> = Choice(&[("refuse", AuditFailure::Refuse), ("count", AuditFailure::Count)]);
    let mut reader = Reader::of_section(&schema::AUDIT, entry, draft);
    let enabled = reader.read("enabled", &Flag);
    let path = match reader.read("path", &Words("a file, or - for standard output")).as_str() {
        "-" => AuditPath::Stdout,
        file => AuditPath::File(PathBuf::from(file)),
    };
    let statement_bytes = reader.read("statement_bytes", &Size { min: 0, max: 1 << 20 });
    let on_failure = reader.read("on_failure", &FAILURE);
    let queue = reader.read("queue", &Whole { what: "a number of records", min: 1, max: 1 << 20 });
    if let (true, AuditPath::File(file)) = (enabled, &path) {
        let folder = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let found = if file.is_dir() {
            Some("is a directory")
        } else if !folder.is_dir() {
            Some("is in a directory that is not there")
        } else {
            None
        };
        if let Some(fault) = found {
            let found = format!("{}, which {fault}", super::problem::quoted(&file.display().to_string()));
            reader.reject("path", found, "a file in an existing directory, or - for standard output");
        }
    }
    reader.finish();
    AuditSettings { enabled, path, statement_bytes, on_failure, queue: usize::try_from(queue).unwrap_or(1) }
}

/// Reads `[limits]`; the drain's limit comes from `[server]`.
pub(crate) fn limits(entry: Entry, drain_timeout: Duration, draft: &mut Draft) -> Limits {
    let short = || Span { min: Duration::from_millis(1), max: Duration::from_secs(3600) };
    let mut reader = Reader::of_section(&schema::LIMITS, entry, draft);
    let limits = Limits {
        max_client_conn: reader
            .read("max_client_conn", &Whole { what: "a number of connections", min: 1, max: 1_000_000 }),
        max_client_conn_per_identity: reader.read("max_client_conn_per_identity", &ANY_NUMBER),
        reserved_for_admins: reader.read("reserved_for_admins", &ANY_NUMBER),
        client_login_timeout: reader.read("client_login_timeout", &short()),
        // PostgreSQL takes no longer passwords (PG_MAX_AUTH_TOKEN_LENGTH); below 1 KiB no provider's token would fit.
        max_password_bytes: reader.read("max_password_bytes", &Size { min: 1 << 10, max: 1 << 16 }),
        drain_timeout,
        cancel_wait_timeout: reader.read("cancel_wait_timeout", &short()),
    };
    reader.finish();
    limits
}

/// Reads `[log]`. `production` and `debug` are the words of the first gprxy.
pub(crate) fn log(entry: Entry, draft: &mut Draft) -> LogSettings {
    const LEVEL: Choice<(LevelFilter, &str)> = Choice(&[
        ("production", (LevelFilter::Info, "production")),
        ("error", (LevelFilter::Error, "error")),
        ("warn", (LevelFilter::Warn, "warn")),
        ("info", (LevelFilter::Info, "info")),
        ("debug", (LevelFilter::Debug, "debug")),
        ("trace", (LevelFilter::Trace, "trace")),
    ]);
    const FORMAT: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let mut reader = Reader::of_section(&schema::LOG, entry, draft);
    let (level, _) = reader.read("level", &LEVEL);
    let format = reader.read("format", &FORMAT);
    let file = reader.optional("file", &Words("a file that is appended to")).map(PathBuf::from);
    let told = LogTerms {
        connections: reader.read("connections", &Flag),
        disconnections: reader.read("disconnections", &Flag),
        pooler_errors: reader.read("pooler_errors", &Flag),
    };
    reader.finish();
    LogSettings { level, format, file, quiet: false, told }
}

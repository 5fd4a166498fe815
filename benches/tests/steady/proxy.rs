//! A proxy that is ready to serve: every password is checked by the (scripted) server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::audit::AuditProfile;
use gprxy_proto::auth::gate::Gate;
use gprxy_proto::auth::jwks::{KeySetLimits, KeySets};
use gprxy_proto::auth::roles::RoleMap;
use gprxy_proto::auth::users::UserList;
use gprxy_proto::driver::audit_log::{self, AuditLog, AuditSink, Reopened};
use gprxy_proto::driver::entropy::SystemEntropy;
use gprxy_proto::driver::runtime::Runtime;
use gprxy_proto::driver::shared::{Parts, ServerTls, Shared};
use gprxy_proto::hub::Hub;
use gprxy_proto::policy::{
    AllowPlaintext, AuthType, Database, Databases, Endpoint, HostOrder, Limits, LogTerms, SocketOptions, SslMode,
    StartupRules, Users,
};
use gprxy_proto::pool::{PoolMode, PoolSettings};
use gprxy_proto::session::Profile;

/// In front of one server; with an audit trail, no statement runs without a place in it.
pub(crate) fn shared<R: Runtime>(server: Endpoint, audited: bool) -> Arc<Shared<R>> {
    in_mode(server, audited, PoolMode::Session)
}

/// The same in another mode, where `ann` has a password that gprxy itself checks: connections that somebody's own
/// password has opened are not shared.
pub(crate) fn in_mode<R: Runtime>(server: Endpoint, audited: bool, pool_mode: PoolMode) -> Arc<Shared<R>> {
    let limits = Limits::default();
    let keys = KeySets::new(Vec::new(), KeySetLimits::default(), R::now()).expect("no issuer is no mistake here");
    let database = Database {
        account: None,
        auth_query: None,
        dbname: None,
        endpoints: [server].into(),
        host_order: HostOrder::default(),
        sslmode: SslMode::Disable,
        sslrootcert: None,
        connect_timeout: Duration::from_secs(30),
        pool: Arc::new(PoolSettings { pool_mode, ..PoolSettings::default() }),
        session: Arc::default(),
    };
    let hub = Hub::new(keys, &limits, Box::new(SystemEntropy::new()));
    let profile = Profile {
        tls_required: false,
        tls: false,
        allow_plaintext: AllowPlaintext::Loopback,
        gate: (pool_mode != PoolMode::Session).then(gate),
        auth_query: None,
        password_fallback: true,
        roles: RoleMap::default(),
        databases: Databases::new([(Databases::ANY.into(), database)]),
        pool: Arc::default(),
        limits,
        users: Users::default(),
        startup: StartupRules::default(),
        sockets: SocketOptions::default(),
        console: None,
        peers: Arc::default(),
        log: LogTerms::default(),
        audit: audited.then_some(AuditProfile { statement_bytes: 1024, required: true }),
    };
    Shared::new(Parts {
        profile: Arc::new(profile),
        hub,
        tls: None,
        server_tls: ServerTls::new(),
        tokens: None,
        control: None,
        audit: audited.then(trail),
        http: ureq::Agent::new_with_defaults(),
    })
}

fn gate() -> Arc<Gate> {
    let users = UserList::parse(b"\"ann\" \"secret\"").expect("a list");
    Arc::new(Gate::listed(AuthType::Plain, users, &mut SystemEntropy::new()))
}

fn trail() -> AuditLog {
    AuditLog::start(Nowhere, audit_log::Settings::default()).expect("threads can be started")
}

/// Takes every line and keeps none.
struct Nowhere;

impl AuditSink for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<Reopened> {
        Ok(Reopened::Same)
    }
}

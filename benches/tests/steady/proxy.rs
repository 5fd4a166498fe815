//! A proxy that is ready to serve: every password is checked by the (scripted) server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::audit::AuditProfile;
use gprxy_proto::auth::jwks::{KeySetLimits, KeySets};
use gprxy_proto::auth::roles::RoleMap;
use gprxy_proto::driver::audit_log::{self, AuditLog, AuditSink, Reopened};
use gprxy_proto::driver::entropy::SystemEntropy;
use gprxy_proto::driver::runtime::Runtime;
use gprxy_proto::driver::shared::{Parts, ServerTls, Shared};
use gprxy_proto::hub::Hub;
use gprxy_proto::policy::{
    AllowPlaintext, Database, Databases, Endpoint, Limits, SocketOptions, SslMode, StartupRules, Users,
};
use gprxy_proto::session::Profile;

/// In front of one server; with an audit trail, no statement runs without a place in it.
pub(crate) fn shared<R: Runtime>(server: Endpoint, audited: bool) -> Arc<Shared<R>> {
    let limits = Limits::default();
    let keys = KeySets::new(Vec::new(), KeySetLimits::default(), R::now()).expect("no issuer is no mistake here");
    let database = Database {
        dbname: None,
        endpoints: [server].into(),
        sslmode: SslMode::Disable,
        sslrootcert: None,
        connect_timeout: Duration::from_secs(30),
        pool: Arc::default(),
        session: Arc::default(),
    };
    let hub = Hub::new(keys, &limits, Box::new(SystemEntropy::new()));
    let profile = Profile {
        tls: false,
        allow_plaintext: AllowPlaintext::Loopback,
        gate: None,
        password_fallback: true,
        roles: RoleMap::default(),
        databases: Databases::new([(Databases::ANY.into(), database)]),
        limits,
        users: Users::default(),
        startup: StartupRules::default(),
        sockets: SocketOptions::default(),
        console: None,
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

//! What the proxy of a script is set up for.

use std::sync::Arc;
use std::time::Duration;

use crate::audit::AuditProfile;
use crate::auth::roles::{RoleEntry, RoleMap};
use crate::entropy::Entropy;
use crate::policy::{
    Account, AllowPlaintext, Database, Databases, Endpoint, HostOrder, Limits, LogTerms, SocketOptions, SslMode,
    StartupRules, Users,
};
use crate::pool::PoolSettings;
use crate::secret::Secret;
use crate::session::Profile;

/// What no client, log or audit line may ever show.
pub(super) const ACCOUNT_PASSWORD: &[u8] = b"svc-Passw0rd-of-the-account";

/// Places in the audit trail are given later than they are asked for.
pub(super) const LATE_PLACES: u8 = 64;

/// Bytes that are the same in every run.
pub(super) struct Counter(pub(super) u8);

impl Entropy for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(5).wrapping_add(1);
            *byte = self.0;
        }
    }
}

/// The proxy's policy: one bit of the settings for each choice.
pub(super) fn profile(setup: u8) -> Profile {
    let account = |name: &str| {
        let password = Some(Arc::new(Secret::new(ACCOUNT_PASSWORD.to_vec())));
        Arc::new(Account { name: name.into(), password })
    };
    let role = |role: &str, name| RoleEntry { role: role.into(), account: account(name), priority: None };
    let database = Database {
        account: None,
        auth_query: None,
        dbname: None,
        endpoints: Arc::new([Endpoint::Tcp { host: "db.corp.example".into(), port: 5432 }]),
        host_order: HostOrder::default(),
        sslmode: SslMode::Disable,
        sslrootcert: None,
        connect_timeout: Duration::from_secs(15),
        pool: Arc::new(PoolSettings::default()),
        session: Arc::default(),
    };
    let audit = AuditProfile { statement_bytes: 256, required: setup & 32 != 0 };
    Profile {
        tls_required: false,
        tls: setup & 1 != 0,
        allow_plaintext: if setup & 2 != 0 { AllowPlaintext::Never } else { AllowPlaintext::Loopback },
        gate: None,
        auth_query: None,
        password_fallback: setup & 4 == 0,
        roles: RoleMap::new([role("reader", "app_reader"), role("writer", "app_writer")], None)
            .expect("the mapping is good"),
        databases: Databases::new([("app".into(), database)]),
        pool: Arc::default(),
        limits: Limits { max_password_bytes: 2048, ..Limits::default() },
        users: Users::default(),
        startup: StartupRules::default(),
        sockets: SocketOptions::default(),
        console: None,
        peers: Arc::default(),
        log: LogTerms::default(),
        audit: (setup & 16 == 0).then_some(audit),
    }
}

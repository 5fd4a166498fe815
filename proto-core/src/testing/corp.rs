//! The company of all tests: one identity provider, two mapped roles, one database.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::audit::AuditProfile;
use crate::auth::jwks::{Fetched, KeySetLimits, KeySets};
use crate::auth::jwt::{IssuerSettings, KeySource};
use crate::auth::roles::{RoleEntry, RoleMap};
use crate::policy::{
    Account, AllowPlaintext, Database, Databases, Endpoint, HostOrder, Limits, LogTerms, SessionTerms, SocketOptions,
    SslMode, StartupRules, Users,
};
use crate::pool::PoolSettings;
use crate::secret::Secret;
use crate::session::Profile;
use crate::time::{Now, Tick, UnixMicros};

use super::tokens::{TestKey, claims, key_set};

/// The identity provider.
pub const ISSUER: &str = "https://idp.corp.example";
/// Where its keys are.
pub const KEYS_URL: &str = "https://idp.corp.example/keys";
/// What its tokens for gprxy say in `aud`.
pub const AUDIENCE: &str = "pg";
/// The database that clients name.
pub const DATABASE: &str = "app";
/// The account that role `reader` maps to.
pub const READER: &str = "app_reader";
/// The account that role `writer` maps to.
pub const WRITER: &str = "app_writer";
/// The password of both accounts.
pub const ACCOUNT_PASSWORD: &[u8] = b"correct horse battery staple";
/// Somebody with a password of their own in PostgreSQL.
pub const LOCAL_USER: &str = "bob_local";
/// That password.
pub const LOCAL_PASSWORD: &[u8] = b"hunter2 is not a password";

/// Made once: tests sign often.
static SIGNING_KEY: LazyLock<TestKey> = LazyLock::new(signing_key);

/// What [`key_document`] says.
static KEY_DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| key_set(&[&SIGNING_KEY]));

/// Wall-clock time when the monotonic clock shows zero.
const UNIX_AT_START: UnixMicros = UnixMicros::from_secs(1_800_000_000);

/// Both clocks of a test that has run for so long.
#[must_use]
pub fn at(tick: Tick) -> Now {
    let micros = i64::try_from(tick.as_nanos() / 1000).unwrap_or(i64::MAX);
    Now { tick, unix: UnixMicros(UNIX_AT_START.0.saturating_add(micros)) }
}

/// The server's address.
#[must_use]
pub fn endpoint() -> Endpoint {
    Endpoint::Tcp { host: "db.corp.example".into(), port: 5432 }
}

/// The provider's signing key.
#[must_use]
pub fn signing_key() -> TestKey {
    TestKey::ed25519("corp-1")
}

/// A good token for somebody, valid for five minutes.
#[must_use]
pub fn token(subject: &str, roles: &[&str], now: Now) -> Vec<u8> {
    let mut claims = claims(ISSUER, AUDIENCE, subject, now.unix.as_secs());
    claims["roles"] = roles.iter().copied().collect();
    SIGNING_KEY.token(&claims)
}

/// What the provider publishes.
#[must_use]
pub fn key_document() -> Vec<u8> {
    KEY_DOCUMENT.clone()
}

/// The provider as gprxy is told about it.
#[must_use]
pub fn issuer() -> IssuerSettings {
    IssuerSettings { source: KeySource::Url(KEYS_URL.into()), ..IssuerSettings::new(ISSUER, [AUDIENCE]) }
}

/// The provider's keys, not yet fetched.
///
/// # Panics
/// Never: the settings are good.
#[must_use]
pub fn unfetched_keys(now: Now) -> KeySets {
    KeySets::new(vec![issuer()], KeySetLimits::default(), now).expect("the settings are good")
}

/// The provider's keys, fetched.
#[must_use]
pub fn keys(now: Now) -> KeySets {
    let mut keys = unfetched_keys(now);
    while let Some(fetch) = keys.poll_output() {
        let max_age = Some(Duration::from_secs(24 * 3600));
        let answer = Fetched { status: 200, body: key_document(), etag: None, max_age };
        keys.handle_fetched(fetch.request, Ok(answer), now);
    }
    keys
}

fn account(name: &str) -> Arc<Account> {
    let password = Some(Arc::new(Secret::new(ACCOUNT_PASSWORD.to_vec())));
    Arc::new(Account { name: name.into(), password })
}

/// `reader` runs as [`READER`], `writer` as [`WRITER`].
///
/// # Panics
/// Never: the mapping is good.
#[must_use]
pub fn roles() -> RoleMap {
    let entry =
        |role: &str, name, priority| RoleEntry { role: role.into(), account: account(name), priority: Some(priority) };
    RoleMap::new([entry("reader", READER, 1), entry("writer", WRITER, 2)], None).expect("the mapping is good")
}

/// [`DATABASE`] at [`endpoint`], without TLS.
#[must_use]
pub fn databases(pool: PoolSettings) -> Databases {
    databases_at(&[endpoint()], SslMode::Disable, pool)
}

/// [`DATABASE`] at the first of these endpoints that answers.
#[must_use]
pub fn databases_at(endpoints: &[Endpoint], sslmode: SslMode, pool: PoolSettings) -> Databases {
    let database = Database {
        account: None,
        auth_query: None,
        dbname: None,
        endpoints: endpoints.into(),
        host_order: HostOrder::default(),
        sslmode,
        sslrootcert: None,
        connect_timeout: Duration::from_secs(15),
        pool: pool.into(),
        session: Arc::default(),
    };
    Databases::new([(DATABASE.into(), database)])
}

/// The same databases, whose sessions are held to these terms.
///
/// # Panics
/// When [`DATABASE`] is not among them.
#[must_use]
pub fn with_terms(databases: &Databases, terms: SessionTerms) -> Databases {
    let database = databases.find(DATABASE).expect("it is there");
    Databases::new([(DATABASE.into(), Database { session: terms.into(), ..(**database).clone() })])
}

/// Everything allowed, everything written down, nothing required.
#[must_use]
pub fn profile() -> Profile {
    Profile {
        tls_required: false,
        tls: false,
        allow_plaintext: AllowPlaintext::Always,
        gate: None,
        auth_query: None,
        password_fallback: true,
        roles: roles(),
        databases: databases(PoolSettings::default()),
        pool: Arc::default(),
        limits: Limits::default(),
        users: Users::default(),
        startup: StartupRules::default(),
        sockets: SocketOptions::default(),
        console: None,
        peers: Arc::default(),
        log: LogTerms::default(),
        audit: Some(AuditProfile { statement_bytes: 4096, required: false }),
    }
}

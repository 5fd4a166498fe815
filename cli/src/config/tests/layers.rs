//! Which source wins, and what each of gprxy's names does.

use std::time::Duration;

use gprxy_proto::policy::{AllowPlaintext, Limits, SslMode};
use gprxy_proto::pool::PoolSettings;

use super::Case;
use crate::config::{AuditFailure, AuditPath, LogFormat};

#[test]
fn defaults_are_those_that_the_machines_know() {
    let settings = Case::least_and("").settings();
    // An hour, because `*` is all that there is.
    let pool = PoolSettings { pool_idle_timeout: Some(Duration::from_secs(3600)), ..PoolSettings::default() };
    assert!(settings.databases.values().all(|database| *database.pool == pool));
    assert_eq!(settings.pool.pool_idle_timeout, None);
    assert_eq!(format!("{:?}", settings.limits), format!("{:?}", Limits::default()));
    assert_eq!(settings.access.allow_plaintext, AllowPlaintext::default());
    assert!(settings.access.password_fallback);
    assert_eq!((settings.listen.addresses.as_slice(), settings.listen.port), (&["0.0.0.0".to_owned()][..], 7777));
    assert!(settings.workers >= 1);
    let database = &settings.databases["*"];
    assert_eq!(database.endpoints[0].to_string(), "localhost:5432");
    assert_eq!((database.dbname.as_deref(), database.sslmode), (None, SslMode::default()));
    assert_eq!((database.connect_timeout, &*database.pool), (Duration::from_secs(5), &pool));
    assert_eq!(settings.audit.path, AuditPath::Stdout);
    assert_eq!((settings.audit.enabled, settings.audit.statement_bytes), (true, 8192));
    assert_eq!(settings.audit.on_failure, AuditFailure::Refuse);
    assert_eq!((settings.log.level, settings.log.format), (log::LevelFilter::Info, LogFormat::Text));
    let issuer = &settings.issuers[0];
    assert_eq!((issuer.leeway, issuer.jwks_url.as_deref()), (Duration::from_secs(60), None));
    assert_eq!(issuer.user_claims, ["email"]);
    assert_eq!(issuer.roles_claims, ["role", "roles"]);
}

#[test]
fn the_environment_of_the_first_gprxy_is_enough() {
    let case = Case::empty().env(&[
        ("AUTH0_TENANT", "corp.eu.auth0.com"),
        ("AUDIENCE", "https://db.corp.example"),
        ("AUTH0_NATIVE_CLIENT_ID", "native"),
        ("ROLE_MAPPING_admin", "app_admin:a:b=c"),
        ("ROLE_MAPPING_reader", "app_reader:"),
        ("DEFAULT_ROLE", "READER"),
        ("PROXY_HOST", "127.0.0.1"),
        ("PROXY_PORT", "6000"),
        ("DB_HOST", "db1, db2:6543"),
        ("GPRXY_USER", "pool"),
        ("GPRXY_PASS", "pool password"),
        ("LOG_LEVEL", "debug"),
    ]);
    let shown = case.effective();
    for line in [
        "auth0_tenant = \"corp.eu.auth0.com\"  # environment AUTH0_TENANT\n",
        "# jwks_url: not set, https://corp.eu.auth0.com/.well-known/jwks.json\n",
        "# GPRXY_USER = \"pool\" (environment GPRXY_USER): for `gprxy check`, nobody's queries run as it\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    let settings = case.settings();
    let issuer = &settings.issuers[0];
    assert_eq!(issuer.issuer, "https://corp.eu.auth0.com/");
    assert_eq!(issuer.jwks_url.as_deref(), Some("https://corp.eu.auth0.com/.well-known/jwks.json"));
    assert_eq!(issuer.audiences, ["https://db.corp.example"]);
    assert_eq!(issuer.client_id.as_deref(), Some("native"));
    let [admin, reader] = settings.roles.mappings.as_slice() else { panic!("two roles") };
    assert_eq!((&*admin.role, &*admin.account), ("admin", "app_admin"));
    assert_eq!(admin.password.as_ref().map(|p| p.expose().as_str()), Some("a:b=c"), "split at the first colon");
    assert!(reader.password.is_none());
    assert_eq!(settings.roles.default_role.as_deref(), Some("reader"));
    assert_eq!((settings.listen.addresses[0].as_str(), settings.listen.port), ("127.0.0.1", 6000));
    let shown: Vec<_> = settings.databases["*"].endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["db1:5432", "db2:6543"]);
    let account = settings.check_account.unwrap();
    assert_eq!(&*account.name, "pool");
    assert_eq!(settings.roles.mappings.len(), 2, "GPRXY_USER runs nobody's queries");
    assert_eq!(settings.log.level, log::LevelFilter::Debug);
}

#[test]
fn a_value_comes_from_the_strongest_source_that_has_one() {
    let port = |env: &str, file: &str, dotenv: &str| {
        let case = Case::least_and(file).dotenv(dotenv);
        let case = case.env(&[("READER_PASSWORD", "x"), ("PROXY_PORT", env)]);
        (case.settings().listen.port, case.effective())
    };
    let (file, dotenv) = ("[server]\nlisten_port = 2", "# names\nPROXY_PORT=3");
    let (found, shown) = port("1", file, dotenv);
    assert_eq!(found, 1);
    assert!(shown.contains("listen_port = 1  # environment PROXY_PORT\n"), "{shown}");
    let (found, shown) = port("", file, dotenv);
    assert_eq!(found, 2, "an empty variable is none");
    assert!(shown.contains("listen_port = 2  # gprxy.toml:12\n"), "{shown}");
    let (found, shown) = port("", "", dotenv);
    assert_eq!(found, 3);
    assert!(shown.contains("listen_port = 3  # .env:2 PROXY_PORT\n"), "{shown}");
    let (found, shown) = port("", "", "");
    assert_eq!(found, 7777);
    assert!(shown.contains("listen_port = 7777  # default\n"), "{shown}");
}

#[test]
fn the_file_may_be_named_by_the_environment_or_by_dotenv() {
    let case = Case::empty();
    let path = case.write("other.toml", super::LEAST).display().to_string();
    let case = case.env(&[("GPRXY_CONFIG", &path), ("READER_PASSWORD", "x")]);
    assert_eq!(case.settings().issuers.len(), 1);
    let case = case.env(&[("READER_PASSWORD", "x")]).dotenv(&format!("GPRXY_CONFIG={path}\n"));
    assert_eq!(case.settings().issuers.len(), 1);
}

#[test]
fn the_environment_adds_to_the_lists_of_the_file_and_replaces_the_same_entry() {
    let case = Case::least_and("[databases.app]\nhost = 'db1'").env(&[
        ("READER_PASSWORD", "x"),
        ("ROLE_MAPPING_Reader", "other:pw"),
        ("ROLE_MAPPING_writer", "app_writer:pw2"),
        ("AUTH0_TENANT", "corp.auth0.com"),
        ("AUDIENCE", "aud"),
        ("DB_HOST", "db2"),
    ]);
    let settings = case.settings();
    let accounts: Vec<_> = settings.roles.mappings.iter().map(|role| (&*role.role, &*role.account)).collect();
    assert_eq!(accounts, [("Reader", "other"), ("writer", "app_writer")]);
    let audiences: Vec<_> = settings.issuers.iter().map(|issuer| issuer.audiences.concat()).collect();
    assert_eq!(audiences, ["https://db.example", "aud"]);
    assert_eq!(settings.databases.len(), 2);
    assert_eq!(settings.databases["app"].dbname.as_deref(), Some("app"));
    assert_eq!(settings.databases["*"].endpoints[0].to_string(), "db2:5432");
}

#[test]
fn a_forgotten_dotenv_adds_nothing_to_the_lists_of_the_file() {
    let case = Case::least_and("[databases.app]\nhost = 'db1'").dotenv(
        "AUTH0_TENANT=evil.auth0.com\nAUDIENCE=x\nROLE_MAPPING_admin=postgres:pw\nDB_HOST=evil.example\nLOG_LEVEL=warn\n",
    );
    let loaded = case.load();
    let settings = loaded.settings.ok().unwrap();
    assert_eq!((settings.issuers.len(), settings.roles.mappings.len(), settings.databases.len()), (1, 1, 1));
    assert_eq!(settings.log.level, log::LevelFilter::Warn, "single settings are filled in");
    for name in ["AUTH0_TENANT", "AUDIENCE", "ROLE_MAPPING_admin", "DB_HOST"] {
        assert!(loaded.warnings.iter().any(|warning| warning.contains(&format!("{name} is not used"))), "{name}");
    }
}

#[test]
fn dotenv_fills_the_lists_when_the_file_has_none() {
    let case = Case::empty().dotenv("AUTH0_TENANT=corp.auth0.com\nAUDIENCE=aud\nROLE_MAPPING_r=a:pw\nDB_HOST=db\n");
    let case = case.env(&[("ROLE_MAPPING_R", "b:pw")]);
    let settings = case.settings();
    assert_eq!(settings.roles.mappings.len(), 1);
    assert_eq!(&*settings.roles.mappings[0].account, "b", "the environment replaces the same role of .env");
    assert_eq!(settings.databases["*"].endpoints[0].to_string(), "db:5432");
}

#[test]
fn audience_serves_the_issuers_that_state_none() {
    let file = super::LEAST.replace("audience = \"https://db.example\"\n", "");
    let case = Case::file(&file).env(&[("READER_PASSWORD", "x"), ("AUDIENCE", "a,b")]);
    assert_eq!(case.settings().issuers[0].audiences, ["a", "b"]);
}

#[test]
fn default_role_may_name_the_old_pool_account() {
    let env = [("READER_PASSWORD", "x"), ("GPRXY_USER", "pool"), ("GPRXY_PASS", "pw"), ("DEFAULT_ROLE", "Pool")];
    let settings = Case::least_and("").env(&env).settings();
    assert_eq!(settings.roles.default_role.as_deref(), Some("pool"));
    assert_eq!(&*settings.roles.mappings[1].account, "pool");
    let mapped = Case::least_and("[[role]]\nname='pool'\naccount='other'").env(&env).settings();
    assert_eq!(&*mapped.roles.mappings[1].account, "other", "a mapping of that name counts instead");
}

#[test]
fn databases_inherit_from_pool_what_they_do_not_state() {
    let settings = Case::least_and(
        "[pool]\ndefault_pool_size = 9\nserver_connect_timeout = '2s'\n\
         [databases.app]\nhost = ['a', '/run/pg']\nport = [1, 2]\npool_size = 3\nquery_wait_timeout = 0\n",
    )
    .settings();
    let app = &settings.databases["app"];
    assert_eq!(app.pool.default_pool_size, 3);
    assert_eq!(app.pool.query_wait_timeout, Duration::ZERO);
    assert_eq!(app.pool.server_lifetime, Duration::from_secs(3600));
    assert_eq!(app.connect_timeout, Duration::from_secs(2));
    let shown: Vec<_> = app.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["a:1", "/run/pg/.s.PGSQL.2"]);
    assert!(!settings.databases.contains_key("*"), "what is not named is not served");
}

#[test]
fn the_demo_may_trust_its_own_issuer_on_this_machine_only() {
    let file = |host: &str| {
        let text = super::LEAST.replace("https://idp.example/", &format!("{host}{}", crate::config::DEMO_ISSUER_PATH));
        Case::file(&text)
    };
    assert_eq!(file("http://127.0.0.1:9").with_demo_issuer().settings().issuers.len(), 1);
    assert!(file("http://127.0.0.1:9").problem().contains("development issuer"));
    assert!(file("https://idp.example").with_demo_issuer().problem().contains("development issuer"));
}

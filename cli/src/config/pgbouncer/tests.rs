//! PgBouncer's configurations as they are written, and what they come to.

use std::fmt::Write as _;
use std::time::Duration;

use gprxy_proto::policy::HostOrder;
use tempfile::TempDir;

use super::super::{Loaded, Overlay, Settable, Settings, Sources, load, settable};
use super::options::{Fate, OF_DATABASES, OF_PEERS, OF_USERS, OPTIONS};
use super::{convert, translate};
use crate::config::settings::Proof;

struct Case {
    dir: TempDir,
}

impl Case {
    /// `DIR` in the text is the directory of the file.
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let case = Self { dir };
        case.write("userlist.txt", "\"ann\" \"secret of ann\"\n\"bob\" \"md5d6a35858d61d85e4a82ab1fb044aba9d\"\n");
        case.write("pgbouncer.ini", text);
        case
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(name);
        std::fs::write(&path, text.replace("DIR", &self.dir.path().display().to_string())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn load(&self) -> Loaded {
        load(&Sources { ini: Some(self.dir.path().join("pgbouncer.ini")), ..Sources::default() })
    }

    #[track_caller]
    fn settings(&self) -> Settings {
        self.load().settings.unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    /// With this `SET` at the admin console.
    fn with_set(&self, name: &str, value: &str) -> Loaded {
        let mut sources = Sources { ini: Some(self.dir.path().join("pgbouncer.ini")), ..Sources::default() };
        let Ok(Settable::Option(name)) = settable(&sources, name) else { panic!("{name} is not settable") };
        sources.overlay = Overlay { options: [(name, value.to_owned())].into(), ..Overlay::default() };
        load(&sources)
    }

    fn problems(&self) -> Vec<String> {
        self.load().settings.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }
}

const TYPICAL: &str = "\
;; a typical file
[databases]
forcedb = host=127.0.0.1 port=300 user=ann password='it''s secret' client_encoding=UNICODE pool_size=7
bardb = host=localhost dbname=bazdb pool_mode=transaction auth_user=bob auth_query='select ''x'', $1' auth_dbname=nowhere
nondefaultdb = pool_size=50 reserve_pool=10
* = host=testserver,second port=5433
[users]
bob = pool_mode=transaction query_timeout=5 query_wait_timeout=2.5 reserve_pool_size=3
[pgbouncer]
logfile = DIR/pgbouncer.log
pidfile = DIR/pgbouncer.pid
listen_addr = 127.0.0.1
listen_port = 6432
unix_socket_dir = DIR
unix_socket_mode = 0700
auth_type = scram-sha-256
auth_file = DIR/userlist.txt
auth_user = ann
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename=$1
admin_users = ann
stats_users = bob
pool_mode = transaction
max_client_conn = 200
query_wait_timeout = 1.5
server_connect_timeout = 0
dns_max_ttl = 15
";

#[test]
fn a_typical_file_becomes_the_settings_that_it_means() {
    let case = Case::new(TYPICAL);
    let settings = case.settings();
    assert_eq!(settings.listen.addresses, ["127.0.0.1"]);
    assert_eq!((settings.listen.port, settings.listen.unix_socket_mode), (6432, 0o700));
    assert_eq!(settings.limits.max_client_conn, 200);
    assert!(matches!(settings.access.proof, Proof::Listed(..)));
    assert!(!settings.audit.enabled);
    let bob = &settings.roles.mappings[0];
    assert_eq!((bob.pool.query_wait_timeout, bob.pool.reserve_pool_size), (Some(Duration::from_millis(2500)), Some(3)));
    let [forced, bar, nondefault, any] =
        ["forcedb", "bardb", "nondefaultdb", "*"].map(|name| settings.databases[name].clone());
    let account = forced.account.unwrap();
    assert_eq!(&*account.name, "ann");
    assert_eq!(account.password.as_ref().unwrap().expose(), b"it's secret");
    assert_eq!((forced.pool.default_pool_size, bar.pool.default_pool_size), (7, 20), "PgBouncer's default");
    assert_eq!(bar.dbname.as_deref(), Some("bazdb"));
    let socket = format!("{}/.s.PGSQL.5432", case.dir.path().display());
    assert_eq!(nondefault.endpoints[0].to_string(), socket, "without a host: a socket in unix_socket_dir");
    let asked = |database: &gprxy_proto::policy::Database| {
        let terms = database.auth_query.clone().unwrap();
        (terms.user.to_string(), terms.query.to_string(), terms.database.as_deref().map(str::to_owned))
    };
    assert_eq!(asked(&bar), ("bob".into(), "select 'x', $1".into(), Some("nowhere".into())));
    assert_eq!(asked(&any), ("ann".into(), "SELECT usename, passwd FROM pg_shadow WHERE usename=$1".into(), None));
    assert_eq!(any.endpoints.len(), 2);
    assert_eq!(any.pool.query_wait_timeout, Duration::from_millis(1500));
    assert_eq!(any.pool.server_idle_timeout, Duration::from_secs(600));
    let told = case.load().warnings.join("\n");
    assert_eq!(any.host_order, HostOrder::RoundRobin);
    for name in ["client_encoding", "dns_max_ttl"] {
        assert!(told.contains(name) && told.contains("pgbouncer.ini:"), "{name} is not named in {told}");
    }
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn what_would_let_somebody_in_is_refused() {
    for (line, named) in [
        ("auth_type = hba", "auth_type"),
        ("auth_type = cert", "auth_type"),
        ("auth_type = pam", "auth_type"),
        ("auth_type = nonsense", "auth_type"),
        ("client_tls_sslmode = verify-full", "client_tls_sslmode"),
        ("client_tls_sslmode = require", "client_tls_cert_file"),
        ("auth_file = /nowhere/at/all", "auth_file"),
        ("user = somebody_else", "user"),
        ("disable_pqexec = 1", "disable_pqexec"),
        ("auth_dbname = pgbouncer", "cannot use the reserved \"pgbouncer\" database as an auth_dbname"),
        ("auth_user = ann\nauth_query =", "auth_query"),
        ("default_pool_sise = 1", "default_pool_size"),
        ("max_client_conn = many", "max_client_conn"),
        ("query_timeout = -3", "query_timeout"),
        ("[databases]\nx = hsot=a", "the nearest is host"),
        ("[databases]\npgbouncer = host=a", "admin console"),
        ("[nonsense]\nx = 1", "nonsense"),
    ] {
        let case = Case::new(&format!(
            "[databases]\na = host=b\n[pgbouncer]\nlisten_addr = 127.0.0.1\nunix_socket_dir =\nauth_file = DIR/userlist.txt\n{line}\n"
        ));
        let problems = case.problems();
        assert!(problems.iter().any(|problem| problem.contains(named)), "{line}: {problems:?}");
    }
}

#[test]
fn without_a_listen_addr_only_the_socket_is_listened_on() {
    let case = Case::new(
        "[databases]\n* =\n[pgbouncer]\nauth_type = trust\nauth_file = DIR/userlist.txt\nunix_socket_dir = DIR\n",
    );
    let settings = case.settings();
    assert!(settings.listen.addresses.is_empty());
    assert_eq!(settings.listen.unix_socket_dir.as_deref(), Some(case.dir.path()));
    // Everybody, whatever they are called: only where databases say whom they run as.
    let any = |database: &str| {
        Case::new(&format!("[databases]\n{database}\n[pgbouncer]\nauth_type = any\nunix_socket_dir = DIR\n")).problems()
    };
    assert_eq!(any("a = host=b user=ann password=x"), [""; 0]);
    assert!(any("a = host=b")[0].contains("databases.a.user"));
}

#[test]
fn who_looks_users_up_and_where_is_looked_at_before_the_start() {
    let load = |databases: &str, options: &str| {
        let case = Case::new(&format!("[databases]\n{databases}\n[pgbouncer]\nunix_socket_dir = DIR\n{options}\n"));
        let loaded = case.load();
        (loaded.settings.map_err(|problems| format!("{problems:?}")), loaded.warnings.join("\n"))
    };
    // With somebody who asks, a list need not be there.
    let (settings, _) = load("a = host=b", "auth_user = ann");
    let default = settings.unwrap().databases["a"].auth_query.clone().unwrap();
    assert!(default.query.contains("pg_catalog.pg_authid") && default.query.contains("$1"), "{}", default.query);
    assert!(load("a = host=b", "").0.is_err());
    let (settings, told) = load("a = host=b auth_dbname=c", "auth_user = ann");
    assert!(settings.is_ok() && told.contains("nobody can be looked up") && told.contains("\"c\""), "{told}");
    let (_, told) = load("a = host=b auth_dbname=c\n* = host=d", "auth_user = ann");
    assert!(!told.contains("nobody can be looked up"), "{told}");
    let (_, told) = load("a = host=b auth_dbname=a", "auth_file = DIR/userlist.txt");
    assert!(told.contains("no effect without auth_user"), "{told}");
    let (settings, told) = load("a = host=b user=ann auth_user=ann", "auth_type = any");
    assert!(settings.unwrap().databases["a"].auth_query.is_none() && told.contains("nobody is looked up"), "{told}");
}

#[test]
fn what_convert_prints_comes_to_the_same_settings() {
    let case = Case::new(TYPICAL);
    let converted = convert(&case.dir.path().join("pgbouncer.ini"));
    assert!(converted.problems.is_empty());
    assert!(!converted.text.contains("it's secret"), "{}", converted.text);
    assert_eq!(converted.secrets[0].0, "DB_FORCEDB_PASSWORD");
    assert!(converted.text.contains("# ") && converted.text.contains("dns_max_ttl"), "{}", converted.text);
    case.write("gprxy.toml", &converted.text);
    let environment = super::super::sources::Environment::from_pairs([("DB_FORCEDB_PASSWORD", "it's secret")]);
    let loaded = load(&Sources { environment, file: Some(case.dir.path().join("gprxy.toml")), ..Sources::default() });
    assert!(loaded.settings.is_ok(), "{:#?}", loaded.settings.err());
    let (toml, ini) = (loaded.effective, case.load().effective);
    let lines = |effective: &super::super::Effective| {
        let text = effective.to_string();
        // What differs is where a value came from.
        let bare: Vec<String> = text.lines().map(|line| line.split("  # ").next().unwrap_or(line).to_owned()).collect();
        bare.into_iter().filter(|line| !line.starts_with('#')).collect::<Vec<_>>()
    };
    assert_eq!(lines(&toml), lines(&ini));
}

#[test]
fn convert_says_what_may_travel_in_clear_unless_nothing_may() {
    for (options, tells) in [
        ("", true),
        ("client_tls_sslmode = prefer\nclient_tls_cert_file = /c\nclient_tls_key_file = /k", true),
        ("client_tls_sslmode = require\nclient_tls_cert_file = /c\nclient_tls_key_file = /k", false),
    ] {
        let text = format!("[databases]\na = host=b\n[pgbouncer]\nauth_type = plain\n{options}\n");
        let case = Case::new(&text);
        let converted = convert(&case.dir.path().join("pgbouncer.ini"));
        assert!(converted.text.contains("\nallow_plaintext = \"always\""), "{}", converted.text);
        let above = converted.text.split("\nallow_plaintext = ").next().unwrap().lines().last().unwrap();
        assert_eq!(above.starts_with("# allow_plaintext = \"always\", as with PgBouncer"), tells, "{options}: {above}");
        assert_eq!(converted.remarks.len(), usize::from(tells));
        assert!(converted.remarks.iter().all(|remark| remark.contains("unencrypted") && !remark.contains('\n')));
    }
}

/// Whatever is written, there is an answer; a broken file never becomes settings.
#[test]
fn hostile_files_are_no_panic() {
    let words = [
        "[databases]",
        "[users]",
        "[pgbouncer]",
        "[",
        "x",
        "=",
        "'",
        "\"",
        "host=",
        "a",
        " ",
        "\n",
        "auth_type",
        "%include ",
        "*",
        "-1",
        "99999999999999999999",
        "1e400",
        "NaN",
        "\u{0}",
        ";",
        "pool_size",
        "listen_port",
    ];
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..2000 {
        let mut text = String::new();
        for _ in 0..rng.usize(0..40) {
            let _ = write!(text, "{}", words[rng.usize(0..words.len())]);
        }
        let _ = Case::new(&text).load();
    }
}

/// Every option that has a setting here is carried over. Those that have none yet stand in this list, so that nobody
/// forgets one: what gets its setting leaves the list.
#[test]
fn what_is_carried_over_and_what_is_not() {
    let mut absent: Vec<String> = Vec::new();
    let carried = |fate: Fate| matches!(fate, Fate::Same | Fate::Woven);
    for known in OPTIONS.iter().filter(|known| known.fate == Fate::Same && translate::home(known.name).is_none()) {
        absent.push(known.name.to_owned());
    }
    let tables = [
        (OF_DATABASES, &super::super::schema::DATABASES),
        (OF_PEERS, &super::super::schema::PEERS),
        (OF_USERS, &super::super::schema::ROLE),
    ];
    for (table, section) in tables {
        let known = table.iter().filter(|known| carried(known.fate) && known.name != "reserve_pool");
        absent.extend(
            known
                .filter(|known| section.key(known.name).is_none())
                .map(|known| format!("{}.{}", section.name, known.name)),
        );
    }
    let expected = ["min_pool_size", "databases.min_pool_size"];
    let later: Vec<&String> = absent.iter().filter(|name| !expected.contains(&name.as_str())).collect();
    assert!(later.is_empty(), "no setting any more: {later:?}");
}

#[test]
fn peers_are_taken_with_their_numbers() {
    const PEERED: &str = "\
[databases]
app = host=127.0.0.1
[pgbouncer]
auth_type = trust
auth_file = DIR/userlist.txt
peer_id = 2
server_tls_sslmode = require
[peers]
1 = host=DIR/one
2 = host=10.0.0.2 port=6433 pool_size=-1
3 = host=10.0.0.3 pool_size=7
";
    let case = Case::new(PEERED);
    let settings = case.settings();
    assert_eq!(settings.peer_id.map(|id| id.number()), Some(2));
    let dir = case.dir.path().display().to_string();
    let shown: Vec<_> =
        settings.peers.iter().map(|(id, it)| format!("{id} {} {}", it.endpoint, it.pool_size)).collect();
    assert_eq!(
        shown,
        [format!("1 {dir}/one/.s.PGSQL.6432 100"), "2 10.0.0.2:6433 100".into(), "3 10.0.0.3:6432 7".into()]
    );
    use gprxy_proto::policy::SslMode;
    let modes: Vec<_> = settings.peers.values().map(|it| it.sslmode).collect();
    assert_eq!(modes, [SslMode::Disable, SslMode::Require, SslMode::Require]);
    let converted = convert(&case.dir.path().join("pgbouncer.ini"));
    for line in ["peer_id = 2 ", "[peers.1]", "[peers.3]", "pool_size = 7 ", "port = 6432 "] {
        assert!(converted.text.contains(line), "{line} is not in\n{}", converted.text);
    }
    assert_eq!(Case::new(TYPICAL).settings().peer_id, None);

    for (wrong, complaint) in [
        ("2 = host=a\n2 = host=b", "peers.2 (DIR/pgbouncer.ini:9): found a second peer of this number"),
        ("0 = host=a", "peers.0 (DIR/pgbouncer.ini:8): found \"0\"; expected the number of a peer from 1 to 16383"),
        ("16384 = host=a", "peers.16384 (DIR/pgbouncer.ini:8): found \"16384\""),
        ("two = host=a", "peers.two (DIR/pgbouncer.ini:8): found \"two\""),
        ("2 = port=1", "peers.2.host (DIR/pgbouncer.ini:8): found nothing; expected a host name"),
        ("2 = host=a,b", "peers.2.host (DIR/pgbouncer.ini:8): found \"a,b\""),
        ("2 = host=a port=0", "peers.2.port (DIR/pgbouncer.ini:8): found \"0\""),
        ("2 = host=a dbname=x", "[peers] 2 (DIR/pgbouncer.ini:8): found an unknown name"),
        ("2 = host=a pool_size=0", "peers.2.pool_size (DIR/pgbouncer.ini:8): found \"0\""),
    ] {
        let head = &PEERED[..PEERED.find("server_tls").unwrap()];
        let case = Case::new(&format!("{head}[peers]\n{wrong}\n"));
        let complaint = complaint.replace("DIR", &case.dir.path().display().to_string());
        assert!(case.problems().iter().any(|told| told.starts_with(&complaint)), "{wrong}: {:?}", case.problems());
    }
    let case = Case::new(&PEERED.replace("peer_id = 2", "peer_id = 0"));
    let told = case.load().warnings;
    assert!(told.iter().any(|line| line.starts_with("[peers] has no effect without peer_id")), "{told:?}");
    assert!(!Case::new(&PEERED.replace("peer_id = 2", "peer_id = 16384")).problems().is_empty());
}

#[test]
fn set_takes_every_option_as_the_file_does() {
    let case = Case::new(TYPICAL);
    let set = |name, value| {
        let Loaded { settings, effective, warnings } = case.with_set(name, value);
        let settings = settings.unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        (settings, effective, warnings)
    };
    let (settings, effective, _) = set("server_tls_sslmode", "require");
    assert_eq!(settings.databases["bardb"].sslmode, gprxy_proto::policy::SslMode::Require);
    assert!(effective.options.contains(&("server_tls_sslmode", "require".into())), "{:?}", effective.options);
    assert_eq!(set("verbose", "2").0.log.level, log::LevelFilter::Trace);
    assert_eq!(set("cancel_wait_timeout", "2.5").0.limits.cancel_wait_timeout, Duration::from_millis(2500));
    assert_eq!(set("default_pool_size", "7").0.databases["bardb"].pool.default_pool_size, 7);
    let problems = case.with_set("server_tls_sslmode", "always").settings.err().expect("no such mode");
    assert!(problems[0].to_string().contains("SET"), "{}", problems[0]);
}

#[test]
fn set_takes_nothing_that_would_have_no_effect() {
    let sources = Sources { ini: Some("pgbouncer.ini".into()), ..Sources::default() };
    for (name, why) in [
        ("pkt_buf", "has no effect"),
        ("syslog", "has no effect"),
        ("listen_port", "cannot be changed while"),
        ("peer_id", "cannot be changed while"),
        ("user", "cannot be changed while"),
        ("no_such_option", "there is no setting"),
    ] {
        let refused = settable(&sources, name).err().unwrap_or_else(|| panic!("{name} is taken"));
        assert!(refused.contains(why), "{refused}");
    }
    // What PgBouncer does not have is gprxy's own.
    assert!(matches!(settable(&sources, "isolation"), Ok(Settable::Setting("pool", "isolation"))));
    assert!(settable(&Sources::default(), "verbose").is_err(), "there is no file of PgBouncer's");
}

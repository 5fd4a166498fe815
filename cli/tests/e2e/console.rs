//! The admin console: who may use it, what it shows, what it does, and which drivers can talk to it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::drivers;
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::provider::Provider;
use crate::support::target::Target;
use crate::support::wire::{Wire, cancel, parse, query, sync};
use crate::support::{deps, eventually, psql};

fn config() -> Config {
    Config::new(Version::V15)
        .set("pool.pool_mode", "transaction")
        .set("admin.admin_roles", "dba")
        .set("admin.stats_roles", "monitoring")
}

/// Somebody with this role at the console, or elsewhere.
fn person(gprxy: &Gprxy, name: &str, role: &str, database: &str) -> Target {
    let email = format!("{name}@corp.example");
    let claims = json!({ "sub": name, "preferred_username": name, "email": email, "roles": [role] });
    let token = Provider::shared().mint(claims);
    gprxy.target("bob").with_user(&email).with_password(&token).with_database(database)
}

fn admin(gprxy: &Gprxy) -> Wire {
    log_in(&person(gprxy, "ann", "dba", "pgbouncer").in_plaintext())
}

fn log_in(target: &Target) -> Wire {
    Wire::login(target).unwrap_or_else(|error| panic!("{error:?}"))
}

/// The rows of a table by the names of their columns.
pub(crate) fn table(wire: &mut Wire, show: &str) -> Vec<BTreeMap<String, String>> {
    wire.send(&query(show));
    let messages = wire.read_until_ready();
    let Some(description) = messages.iter().find(|message| message.tag == 'T') else { panic!("{show}: {messages:?}") };
    let names = names(&description.body);
    let rows = messages
        .iter()
        .filter(|message| message.tag == 'D')
        .map(|row| names.iter().cloned().zip(row.columns().into_iter().map(Option::unwrap_or_default)).collect());
    rows.collect()
}

/// The names in a RowDescription.
fn names(mut body: &[u8]) -> Vec<String> {
    body = &body[2..];
    let mut names = Vec::new();
    while let Some(end) = body.iter().position(|&byte| byte == 0) {
        names.push(String::from_utf8_lossy(&body[..end]).into_owned());
        body = &body[end + 19..];
    }
    names
}

fn code(wire: &mut Wire, text: &str) -> String {
    wire.rows(text).expect_err(text).code
}

#[test]
fn tokens_decide_who_may_look_and_who_may_do() {
    let gprxy = config().start();
    let mut ann = admin(&gprxy);
    let mut mona = log_in(&person(&gprxy, "mona", "monitoring", "gprxy"));
    let refused = Wire::login(&person(&gprxy, "bob", "writer", "pgbouncer")).err().expect("no role for it");
    assert_eq!(refused.code, "42501");
    assert!(table(&mut mona, "SHOW CLIENTS").iter().any(|row| row["identity"] == "mona@corp.example"));
    assert_eq!(code(&mut mona, "RELOAD"), "42501");
    assert_eq!(code(&mut mona, "PAUSE"), "42501");
    ann.rows("RELOAD").unwrap();
    assert_eq!(code(&mut ann, "SELECT * FROM pg_class"), "0A000");
    assert_eq!(code(&mut ann, "NONSENSE"), "42601");
    // A person's password is PostgreSQL's to check, and no server is asked here.
    let password = gprxy.target("bob").with_user("ann").with_password("secret").with_database("pgbouncer");
    assert_eq!(Wire::login(&password).err().expect("no proof").code, "28P01");
    for (text, sqlstate) in [("PAUSE", "42501"), ("NONSENSE", "42601")] {
        assert_eq!(gprxy.await_audited(text).sqlstate(), Some(sqlstate));
    }
    let reloads: Vec<_> = gprxy.audit().into_iter().filter(|line| line.statement() == Some("RELOAD")).collect();
    let said: Vec<_> = reloads.iter().map(|line| (line.subject(), line.sqlstate())).collect();
    assert_eq!(said, [(Some("mona"), Some("42501")), (Some("ann"), Some("00000"))]);
}

#[test]
fn clients_and_servers_are_shown_with_who_they_are() {
    let gprxy = config().start();
    let mut ann = admin(&gprxy);
    let mut bob = log_in(&gprxy.target("bob"));
    let pid = bob.value("select pg_backend_pid()");
    bob.rows("begin").unwrap();
    let clients = table(&mut ann, "SHOW CLIENTS");
    let found = clients.iter().find(|row| row["identity"] == "bob@corp.example").expect("bob is there");
    assert_eq!((found["state"].as_str(), found["roles"].as_str()), ("active", "writer"));
    assert_eq!(found["issuer"], Provider::shared().issuer);
    assert!(!found["token_expires"].is_empty() && !found["tls"].is_empty());
    let servers = table(&mut ann, "SHOW SERVERS");
    let server = servers.iter().find(|row| row["remote_pid"] == pid).expect("bob's server connection");
    assert_eq!((server["state"].as_str(), &server["link"]), ("active", &found["ptr"]));
    assert_eq!((&found["link"], server["session_id"].as_str()), (&server["ptr"], found["session_id"].as_str()));
    bob.rows("commit").unwrap();
    bob.rows("listen news").unwrap();
    let clients = table(&mut ann, "SHOW CLIENTS");
    let found = clients.iter().find(|row| row["identity"] == "bob@corp.example").expect("bob is there");
    assert_eq!(found["pinned"], "LISTEN");
    let pins = |ann: &mut Wire| {
        let stats = table(ann, "SHOW STATS");
        stats
            .iter()
            .find(|row| row["database"] == gprxy.target("bob").database)
            .map(|row| row["total_pin_count"].clone())
    };
    eventually("the first pin to be counted", || (pins(&mut ann)? == "1").then_some(()));
    bob.rows("unlisten *").unwrap();
    bob.rows("create temp table kept as select 1").unwrap();
    bob.quit();
    eventually("bob to be gone", || {
        let mut clients = table(&mut ann, "SHOW CLIENTS").into_iter();
        (!clients.any(|row| row["identity"] == "bob@corp.example")).then_some(())
    });
    assert_eq!(pins(&mut ann).as_deref(), Some("2"), "a count outlives its session");
    let totals = table(&mut ann, "SHOW TOTALS");
    assert!(totals.iter().any(|row| row["name"] == "total_pin_count" && row["value"] == "2"), "{totals:?}");
}

/// pgcli decides by the SQLSTATE of `SELECT 1` whether it is at a pooler's console, where it asks no catalog.
#[test]
fn pgcli_is_told_in_its_own_way_that_this_is_no_database() {
    let gprxy = config().start();
    let target = person(&gprxy, "ann", "dba", "pgbouncer");
    let mut pgcli = Wire::login_with(&target, &[("application_name", "pgcli")]).unwrap();
    for sql in ["SELECT 1", "select 1; show version", "SELECT * FROM pg_class", "select current_schemas(true)"] {
        assert_eq!(code(&mut pgcli, sql), "08P01", "{sql}");
    }
    pgcli.send(&[parse("", "SELECT 1"), sync()].concat());
    let messages = pgcli.read_until_ready();
    assert!(messages.iter().any(|message| message.tag == 'E' && message.complaint().code == "08P01"), "{messages:?}");
    assert_eq!(table(&mut pgcli, "SHOW STATE")[0].len(), 2);
    assert_eq!(code(&mut pgcli, "NONSENSE"), "42601");
    assert_eq!(admin(&gprxy).value("SELECT 1"), "1", "to others it is a courtesy");
}

#[test]
fn a_pause_waits_for_transactions_and_can_be_cancelled() {
    let gprxy = config().start();
    let mut ann = admin(&gprxy);
    let mut bob = log_in(&gprxy.target("bob"));
    bob.rows("begin").unwrap();
    ann.send(&query("PAUSE"));
    assert!(!ann.has_something(), "a transaction is open");
    cancel(&person(&gprxy, "ann", "dba", "pgbouncer").in_plaintext(), ann.key.0, &ann.key.1);
    assert!(ann.read_until_ready().iter().any(|message| message.tag == 'E' && message.complaint().code == "57014"));
    assert_eq!(code(&mut ann, "PAUSE"), "08P01", "it is paused");
    bob.rows("commit").unwrap();
    bob.send(&query("select 1"));
    eventually("bob waits", || {
        let clients = table(&mut ann, "SHOW CLIENTS");
        clients.iter().any(|row| row["identity"] == "bob@corp.example" && row["state"] == "waiting").then_some(())
    });
    ann.rows("RESUME").unwrap();
    assert!(bob.read_until_ready().iter().any(|message| message.tag == 'D'));
    // Nobody is in a transaction: done at once.
    ann.rows("PAUSE; RESUME; RECONNECT; WAIT_CLOSE").unwrap();
    assert_eq!(bob.value("select 1"), "1");
}

#[test]
fn sessions_are_killed_with_their_code() {
    let gprxy = config().start();
    let mut ann = admin(&gprxy);
    let mut bob = log_in(&gprxy.target("bob"));
    bob.rows("begin").unwrap();
    let id = |ann: &mut Wire| {
        let clients = table(ann, "SHOW CLIENTS");
        clients.into_iter().find(|row| row["identity"] == "bob@corp.example").map(|row| row["id"].clone())
    };
    let victim = id(&mut ann).expect("bob is there");
    ann.rows(&format!("KILL_CLIENT {victim}")).unwrap();
    assert_eq!(id(&mut ann), None, "it is gone when the answer comes");
    assert_eq!(bob.expect_fatal().code, "57P01");
    assert_eq!(code(&mut ann, &format!("KILL_CLIENT {victim}")), "08P01");
    let database = gprxy.target("bob").database;
    let (mut one, mut two) = (log_in(&gprxy.target("bob")), log_in(&gprxy.target("alice")));
    one.rows("begin").unwrap();
    ann.rows(&format!("KILL \"{database}\"")).unwrap();
    assert_eq!((one.expect_fatal().code, two.expect_fatal().code), ("57P01".into(), "57P01".into()));
    ann.rows(&format!("RESUME \"{database}\"")).unwrap();
    assert_eq!(log_in(&gprxy.target("bob")).value("select 1"), "1");
    ann.rows(&format!("DISABLE \"{database}\"")).unwrap();
    assert_eq!(Wire::login(&gprxy.target("bob")).err().expect("disabled").code, "55000");
    ann.rows(&format!("ENABLE \"{database}\"")).unwrap();
    assert_eq!(log_in(&gprxy.target("bob")).value("select 1"), "1");
}

#[test]
fn nothing_is_read_while_suspended() {
    let gprxy = config().start();
    let mut ann = admin(&gprxy);
    let mut bob = log_in(&gprxy.target("bob").in_plaintext());
    bob.rows("select 1").unwrap();
    ann.rows("SUSPEND").unwrap();
    bob.send(&query("select 2"));
    assert!(table(&mut ann, "SHOW STATE").iter().any(|row| row["key"] == "suspended" && row["value"] == "yes"));
    assert!(!bob.has_something());
    ann.rows("RESUME").unwrap();
    assert!(bob.read_until_ready().iter().any(|message| message.tag == 'D'));
}

#[test]
fn it_works_with_full_pools_and_too_many_clients() {
    let gprxy = config().pool_of(1).set("limits.max_client_conn", 2).start();
    let mut bob = log_in(&gprxy.target("bob"));
    bob.rows("begin").unwrap();
    let _second = log_in(&gprxy.target("alice"));
    assert_eq!(Wire::login(&gprxy.target("bob")).err().expect("there are too many").code, "53300");
    let mut ann = admin(&gprxy);
    assert_eq!(table(&mut ann, "SHOW CLIENTS").len(), 3);
    let refused = Wire::login(&person(&gprxy, "eve", "writer", "pgbouncer")).err().expect("no role");
    assert_eq!(refused.code, "53300", "only who may use it gets the room that is left");
}

#[test]
fn it_sees_the_process_to_its_end() {
    let mut gprxy = config().start();
    let (mut ann, mut bob) = (admin(&gprxy), log_in(&gprxy.target("bob")));
    bob.rows("begin").unwrap();
    gprxy.child.signal("TERM");
    eventually("the drain has begun", || {
        let state = table(&mut ann, "SHOW STATE");
        state.iter().any(|row| row["key"] == "draining" && row["value"] == "yes").then_some(())
    });
    assert_eq!(bob.value("select 'still here'"), "still here");
    bob.rows("commit").unwrap();
    assert_eq!(ann.expect_fatal().code, "57P01");
    eventually("it has ended", || gprxy.child.has_ended().then_some(()));
}

/// The statistics of a database, once only the admin is left.
fn figures(ann: &mut Wire, database: &str) -> impl Fn(&str) -> u64 + use<> {
    let row = eventually("all others have gone", || {
        let busy = table(ann, "SHOW CLIENTS").len() > 1;
        table(ann, "SHOW STATS").into_iter().find(|row| !busy && row["database"] == database)
    });
    move |name| row[name].parse().unwrap_or_else(|_| panic!("{name} of {row:?}"))
}

#[test]
fn figures_add_up() {
    let gprxy = config().start();
    let mut ann = admin(&gprxy);
    let target = gprxy.target("bob");
    let mut bob = log_in(&target);
    for text in ["select 1", "select 2", "begin", "select 3", "commit", "select 1/0"] {
        let _ = bob.rows(text);
    }
    bob.quit();
    let before = figures(&mut ann, &target.database);
    assert_eq!((before("total_query_count"), before("total_xact_count")), (6, 4));
    // The first client of a pool takes a connection to be greeted.
    assert_eq!((before("total_client_login_count"), before("total_server_assignment_count")), (1, 1 + 4));
    let mut bench = psql::tool(&target, "pgbench");
    bench.args(["-n", "-c", "2", "-t", "50", "-M", "prepared", "-f"]).arg(script("begin;\nselect 1;\ncommit;\n"));
    let out = bench.output().expect("pgbench starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let after = figures(&mut ann, &target.database);
    // It connects once more, to look around with a few queries.
    assert_eq!(after("total_client_login_count") - before("total_client_login_count"), 3);
    let looked = after("total_xact_count") - before("total_xact_count") - 100;
    assert!(looked < 5, "{looked}");
    assert_eq!(
        after("total_query_count") - before("total_query_count"),
        300 + 4 + looked,
        "each prepares begin and select"
    );
    assert_eq!(after("total_bind_count"), 300);
    for name in ["total_received", "total_sent", "total_xact_time", "total_query_time"] {
        assert!(after(name) > before(name), "{name}");
    }
    assert!(after("total_xact_time") >= after("total_query_time"));
}

fn script(text: &str) -> std::path::PathBuf {
    let path = crate::support::reaper::fresh_path("script").with_extension("sql");
    std::fs::write(&path, text).expect("a file of its own");
    path
}

#[test]
fn psycopg_and_asyncpg_are_at_home() {
    let gprxy = config().start();
    let ann = person(&gprxy, "ann", "dba", "pgbouncer");
    let lines = drivers::lines(deps::python("console_client.py"), &ann);
    assert_eq!(
        lines,
        [
            "simple: ['active']",
            "several: SHOW",
            "notice: SHOW",
            "extended: ('C', 'ann@corp.example', 'pgbouncer', 'int')",
            "numeric: True",
            "no SQL: 0A000",
            "afterwards: {'one': 1}",
            "asyncpg: (True, 'int')",
            "in a transaction: 1",
            "by cursor: 4",
            "status: SET",
            "refused: ('08P01', 'cannot pause admin db: gprxy')",
        ]
    );
}

#[test]
fn psql_shows_its_tables() {
    let gprxy = config().start();
    let ann = person(&gprxy, "ann", "dba", "pgbouncer");
    assert_eq!(psql::run(&ann, &["SHOW VERSION;"]).ok(), concat!("gprxy ", env!("CARGO_PKG_VERSION")));
    let help = psql::run(&ann, &["SHOW HELP"]);
    assert!(help.err.contains("KILL_CLIENT") && help.code == 0, "{help:?}");
    assert!(psql::script(&ann, "\\conninfo\nSHOW CONFIG;\n").ok().contains("default_pool_size"));
    assert!(psql::run(&ann, &["\\l"]).failed().contains("0A000"));
}

#[test]
fn pgjdbc_is_at_home() {
    let gprxy = config().start();
    let ann = person(&gprxy, "ann", "dba", "pgbouncer");
    let lines = drivers::lines(deps::java_source("ConsoleJdbc.java"), &ann);
    let expected = |mode: &str| {
        let clients = std::iter::repeat_n(format!("{mode}: pgbouncer true 0"), 4);
        let rest = ["by portions: 4", "isolation: 2", "no SQL: 0A000", "still valid: true"].map(str::to_owned);
        clients.chain(rest).collect::<Vec<_>>()
    };
    assert_eq!(lines, [expected("simple"), expected("extended")].concat());
}

#[test]
fn node_postgres_is_at_home() {
    let gprxy = config().start();
    let ann = person(&gprxy, "ann", "dba", "gprxy");
    let lines = drivers::lines(deps::node("clients/console.mjs"), &ann);
    assert_eq!(lines, [r#"simple: [["C","gprxy"]]"#, "extended: true", r#"error: "0A000""#]);
}

#[test]
fn its_own_user_needs_no_password_at_the_unix_socket() {
    let dir = crate::support::reaper::fresh_path("socket");
    std::fs::create_dir(&dir).expect("a folder of its own");
    // Nobody is named in [admin].
    let gprxy = Config::new(Version::V15).set("server.unix_socket_dir", dir.to_str().unwrap()).start();
    let mut own =
        gprxy.target("bob").with_user("pgbouncer").with_password("").with_database("pgbouncer").in_plaintext();
    own.host = dir.to_str().unwrap().into();
    let clients = psql::run(&own, &["SHOW CLIENTS"]).ok();
    assert!(clients.contains("|unix|") && clients.contains("|pgbouncer|"), "{clients}");
    psql::run(&own, &["RELOAD"]).ok();
    // Under another name, and by another way, it is asked like everybody else.
    let refused = psql::run(&own.clone().with_user("bob"), &["SHOW VERSION"]).failed();
    assert!(refused.contains("password"), "{refused}");
    let over_tcp = gprxy.target("bob").with_user("pgbouncer").with_password("").with_database("pgbouncer");
    assert!(psql::run(&over_tcp, &["SHOW VERSION"]).failed().contains("password"));
    assert!(gprxy.audit_text().contains(r#""auth":"peer""#));
}

/// A real PgBouncer, of whichever version this machine has.
struct Bouncer {
    child: crate::support::reaper::Leashed,
    target: Target,
}

impl Bouncer {
    fn start(gprxy: &Gprxy) -> Self {
        let port = crate::support::reaper::free_port();
        let path = crate::support::reaper::fresh_path("pgbouncer").with_extension("ini");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\nadmin_users = boss\n"
        );
        // It gives up root before it reads its settings.
        let shared = std::env::temp_dir().join(path.file_name().expect("a name"));
        std::fs::write(&shared, settings).expect("its settings");
        let mut command = std::process::Command::new("/usr/sbin/pgbouncer");
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let child = crate::support::reaper::Leashed::spawn(command.arg(&shared));
        let mut target = gprxy.target("bob").with_user("boss").with_database("pgbouncer").in_plaintext();
        (target.host, target.port) = ("127.0.0.1".into(), port);
        eventually("PgBouncer listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        let _ = std::fs::remove_file(shared);
        Self { child, target }
    }
}

#[test]
fn every_column_of_a_real_pgbouncer_is_there_in_its_order() {
    let gprxy = config().start();
    let mut bouncer = Bouncer::start(&gprxy);
    let (mut theirs, mut ours) = (log_in(&bouncer.target), admin(&gprxy));
    let columns = |wire: &mut Wire, show: &str| {
        wire.send(&query(&format!("SHOW {show}")));
        let messages = wire.read_until_ready();
        messages.iter().find(|message| message.tag == 'T').map(|message| names(&message.body)).unwrap_or_default()
    };
    for show in [
        "CLIENTS",
        "SERVERS",
        "SOCKETS",
        "POOLS",
        "DATABASES",
        "USERS",
        "LISTS",
        "STATS",
        "STATS_TOTALS",
        "STATS_AVERAGES",
        "TOTALS",
        "CONFIG",
        "STATE",
        "MEM",
        "DNS_HOSTS",
        "DNS_ZONES",
        "VERSION",
        "ACTIVE_SOCKETS",
    ] {
        let (expected, found) = (columns(&mut theirs, show), columns(&mut ours, show));
        assert!(!found.is_empty());
        let mut rest = found.iter();
        for column in &expected {
            // PgBouncer itself calls it so since 1.24.
            let column = if column == "reserve_pool" { "reserve_pool_size" } else { column };
            assert!(rest.any(|name| name == column), "SHOW {show}: {column} in {found:?}, as in {expected:?}");
        }
    }
    assert!(!bouncer.child.has_ended());
}

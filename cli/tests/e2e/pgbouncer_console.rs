//! The admin console of a gprxy in PgBouncer's place: what its users look for there.

use std::fs;

use crate::console::table;
use crate::support::bouncer::{Bouncer, Ini, Kind};
use crate::support::eventually;
use crate::support::fixtures::{DATABASE, MD5, READER, SCRAM};
use crate::support::postgres::{Cluster, Version};
use crate::support::wire::{Wire, parse, query, sync};

fn trusting(server: &'static Cluster) -> Ini {
    Ini::new(server)
        .database(&format!("{DATABASE} = SERVER"))
        .database(&format!("shared = SERVER dbname={DATABASE} user={} pool_size=3", SCRAM.0))
        .user(SCRAM)
        .user(MD5)
        .user(READER)
        .user(("root", "x"))
        .user(("mona", "x"))
        .set("auth_type", "trust")
        .set("admin_users", "root")
        .set("stats_users", "mona")
        .set("pool_mode", "transaction")
}

fn log_in(bouncer: &Bouncer, database: &str, user: &str) -> Wire {
    Wire::login(&bouncer.target(database, (user, "x"))).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Some columns of the row with this name.
fn row(wire: &mut Wire, show: &str, name: &str, columns: &[&str]) -> Vec<String> {
    let rows = table(wire, show);
    let named = |row: &&std::collections::BTreeMap<String, String>| {
        row.get("name").or_else(|| row.get("key")).is_some_and(|it| it == name)
    };
    let found = rows.iter().find(named).unwrap_or_else(|| panic!("no {name} in {show}: {rows:?}"));
    columns.iter().map(|column| found[*column].clone()).collect()
}

/// Whoever is editing its files in this moment, `SET` changes what it names; what the files say comes with `RELOAD`.
#[test]
fn a_set_changes_nothing_else() {
    let mut bouncer = trusting(Cluster::shared(Version::V15)).set("query_timeout", "100").start(Kind::Gprxy);
    let config = |wire: &mut Wire, key: &str| row(wire, "SHOW CONFIG", key, &["value"]).remove(0);
    let mut root = log_in(&bouncer, "pgbouncer", "root");
    let others = Ini::new(bouncer.ini.server).user(("root", "x")).user(("newcomer", "x"));
    let edited = bouncer.ini.clone().set("query_timeout", "200").without_database("shared").user(("newcomer", "x"));
    edited.write();
    root.rows("set query_wait_timeout = 77").unwrap();
    assert_eq!(["query_wait_timeout", "query_timeout"].map(|key| config(&mut root, key)), ["77", "100"]);
    assert_eq!(log_in(&bouncer, "shared", READER.0).value("select session_user"), SCRAM.0);
    // Whom the list has is refused by the server, which has no such role.
    let refused = |user: &str| Wire::login(&bouncer.target(DATABASE, (user, "x"))).err().map(|error| error.code);
    assert_eq!(refused("newcomer").unwrap(), "28000");

    // In the middle of an edit, which a RELOAD would not take.
    fs::write(bouncer.ini.file(), "[databases").unwrap();
    root.rows("set query_wait_timeout = 78").unwrap();
    assert_eq!(root.rows("reload").unwrap_err().code, "F0000");
    root.rows("set query_timeout = 101").unwrap();
    assert_eq!(["query_wait_timeout", "query_timeout"].map(|key| config(&mut root, key)), ["78", "101"]);

    // But for the file that is named.
    others.write();
    let list = others.dir.join("userlist.txt");
    let set_list = format!("set auth_file = '{}'", list.display());
    root.rows(&set_list).unwrap();
    assert_eq!([refused("newcomer"), refused(READER.0)].map(|code| code.unwrap()), ["28P01", "28000"]);
    fs::write(&list, format!("\"root\" \"x\"\n\"{}\" \"{}\"\n", READER.0, READER.1)).unwrap();
    assert!(refused(READER.0).is_some(), "not yet");
    root.rows(&set_list).unwrap();
    assert!(refused(READER.0).is_none());

    bouncer.reload(|_| edited);
    let told = ["query_wait_timeout", "query_timeout"].map(|key| config(&mut root, key));
    assert_eq!(told, ["120", "200"], "the files decide");
    assert!(Wire::login(&bouncer.target("shared", (READER.0, "x"))).is_err());
}

#[test]
fn users_are_those_who_may_log_in_with_their_own_limits_and_counts() {
    let ini = trusting(Cluster::shared(Version::V15))
        .of_user(&format!("{} = pool_size=2 max_user_client_connections=2", READER.0))
        .set("max_user_client_connections", "4");
    let bouncer = ini.start(Kind::Gprxy);
    let mut root = log_in(&bouncer, "pgbouncer", "root");
    let columns = ["pool_size", "max_user_client_connections", "current_client_connections"];
    assert_eq!(row(&mut root, "SHOW USERS", READER.0, &columns), ["2", "2", "0"]);
    assert_eq!(row(&mut root, "SHOW USERS", MD5.0, &columns), ["", "4", "0"]);
    assert_eq!(row(&mut root, "SHOW USERS", "root", &columns), ["", "4", "1"]);
    let mut first = log_in(&bouncer, "shared", READER.0);
    assert_eq!(first.value("select session_user"), SCRAM.0);
    let second = log_in(&bouncer, "shared", READER.0);
    let both = ["current_connections", "current_client_connections"];
    // Clients are counted under the name that they log in as, server connections under the one that they run as.
    assert_eq!(row(&mut root, "SHOW USERS", READER.0, &both), ["0", "2"]);
    assert_eq!(row(&mut root, "SHOW USERS", SCRAM.0, &both), ["1", "0"]);
    let refused = Wire::login(&bouncer.target("shared", (READER.0, "x"))).err().expect("the third");
    assert!(refused.message.contains("max_user_client_connections"), "{}", refused.message);
    drop((first, second));
}

#[test]
fn the_console_is_a_database_whose_sessions_count() {
    let bouncer = trusting(Cluster::shared(Version::V15)).set("max_db_client_connections", "2").start(Kind::Gprxy);
    let mut root = log_in(&bouncer, "pgbouncer", "root");
    let columns = ["force_user", "max_client_connections", "current_client_connections"];
    assert_eq!(row(&mut root, "SHOW DATABASES", "pgbouncer", &columns), ["pgbouncer", "2", "1"]);
    assert_eq!(row(&mut root, "SHOW DATABASES", "shared", &columns), [SCRAM.0, "2", "0"]);
    let _mona = log_in(&bouncer, "pgbouncer", "mona");
    let refused = Wire::login(&bouncer.target("pgbouncer", ("mona", "x"))).err().expect("the third");
    assert!(refused.message.contains("max_db_client_connections"), "{}", refused.message);
    let _second = log_in(&bouncer, "pgbouncer", "root");
    assert_eq!(
        row(&mut root, "SHOW DATABASES", "pgbouncer", &["current_client_connections"]),
        ["3"],
        "an administrator gets in"
    );
}

#[test]
fn set_changes_options_that_are_several_settings() {
    let bouncer = trusting(Cluster::shared(Version::V15)).start(Kind::Gprxy);
    let mut root = log_in(&bouncer, "pgbouncer", "root");
    let mut reader = log_in(&bouncer, "shared", READER.0);
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(reader.value(encrypted), "t");
    root.rows("SET server_tls_sslmode = 'disable'").unwrap();
    assert_eq!(
        row(&mut root, "SHOW CONFIG", "server_tls_sslmode", &["value", "default", "changeable"]),
        ["disable", "prefer", "yes"]
    );
    assert_eq!(reader.value(encrypted), "f", "the next connection");
    root.rows("SET verbose = 1").unwrap();
    assert_eq!(row(&mut root, "SHOW CONFIG", "verbose", &["value"]), ["1"]);
    for (set, why) in [
        ("SET pkt_buf = 4096", "has no effect"),
        ("SET listen_port = 1", "cannot be changed"),
        ("SET server_tls_sslmode = 'sometimes'", "sometimes"),
    ] {
        let refused = root.rows(set).expect_err(set);
        assert!(refused.message.contains(why), "{set}: {}", refused.message);
    }
    root.rows("RELOAD").unwrap();
    assert_eq!(row(&mut root, "SHOW CONFIG", "server_tls_sslmode", &["value"]), ["prefer"], "the file decides");
}

#[test]
fn statistics_count_the_command_that_shows_them() {
    let bouncer = trusting(Cluster::shared(Version::V15)).start(Kind::Gprxy);
    let mut root = log_in(&bouncer, "pgbouncer", "root");
    let counts = ["query_count", "xact_count"];
    for nth in ["1", "2"] {
        let totals = table(&mut root, "SHOW STATS_TOTALS");
        let own = totals.iter().find(|row| row["database"] == "pgbouncer").expect("the console's");
        assert_eq!(counts.map(|column| own[column].as_str()), [nth, nth]);
    }
}

#[test]
fn hosts_of_a_list_have_their_turns() {
    let server = Cluster::shared(Version::V15);
    let hosts = |order: &str| format!("host=127.0.0.1,127.0.0.2 port={} dbname={DATABASE} {order}", server.port);
    let bouncer = Ini::new(server)
        .database(&format!("turns = {}", hosts("")))
        .database(&format!("steady = {}", hosts("load_balance_hosts=disable")))
        .database(&format!(
            "broken = host=127.0.0.3,127.0.0.1 port={} dbname={DATABASE} load_balance_hosts=disable",
            server.port
        ))
        .user(SCRAM)
        .set("auth_type", "trust")
        .set("admin_users", SCRAM.0)
        .start(Kind::Gprxy);
    let address = "select host(inet_server_addr())";
    let all = |database: &str| {
        let mut wires: Vec<_> = (0..4).map(|_| log_in(&bouncer, database, SCRAM.0)).collect();
        wires.iter_mut().map(|wire| wire.value(address)).collect::<Vec<_>>()
    };
    assert_eq!(all("turns"), ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2"]);
    assert_eq!(all("steady"), ["127.0.0.1"; 4]);
    assert_eq!(all("broken"), ["127.0.0.1"; 4]);
    let failures = bouncer.log().matches("closing because: connect failed").count();
    assert_eq!(failures, 1, "the one that worked is tried first from then on");
    let mut root = log_in(&bouncer, "pgbouncer", SCRAM.0);
    let order = ["load_balance_hosts"];
    assert_eq!(row(&mut root, "SHOW DATABASES", "turns", &order), ["round-robin"]);
    assert_eq!(row(&mut root, "SHOW DATABASES", "steady", &order), ["disable"]);
}

#[test]
fn server_fast_close_ends_sessions_between_their_transactions() {
    let bouncer = trusting(Cluster::shared(Version::V15)).set("pool_mode", "session").start(Kind::Gprxy);
    let mut root = log_in(&bouncer, "pgbouncer", "root");
    let (mut busy, mut idle) = (log_in(&bouncer, DATABASE, SCRAM.0), log_in(&bouncer, DATABASE, SCRAM.0));
    busy.rows("begin").unwrap();
    idle.rows("select 1").unwrap();
    root.rows("RECONNECT").unwrap();
    assert_eq!(idle.value("select 'without it they stay'"), "without it they stay");
    root.rows("SET server_fast_close = 1").unwrap();
    root.rows("RECONNECT").unwrap();
    assert_eq!(idle.expect_fatal().message, "database configuration changed");
    assert_eq!(busy.value("select 'to its end'"), "to its end");
    busy.rows("commit").unwrap();
    assert_eq!(busy.expect_fatal().message, "database configuration changed");
}

#[test]
fn clients_are_greeted_by_a_notice() {
    let ini = trusting(Cluster::shared(Version::V15)).set("login_notify_message", "Be kind to production");
    let bouncer = ini.start(Kind::Gprxy);
    let wire = log_in(&bouncer, DATABASE, SCRAM.0);
    let notices: Vec<_> = wire.notices.iter().map(|notice| notice.message.as_str()).collect();
    assert_eq!(notices, ["Be kind to production"]);
}

#[test]
fn a_larger_pool_serves_those_who_wait_already() {
    let bouncer = trusting(Cluster::shared(Version::V15)).set("default_pool_size", "1").start(Kind::Gprxy);
    let mut root = log_in(&bouncer, "pgbouncer", "root");
    let (mut busy, mut waiting) = (log_in(&bouncer, DATABASE, SCRAM.0), log_in(&bouncer, DATABASE, SCRAM.0));
    busy.rows("begin").unwrap();
    waiting.send(&query("select 'served'"));
    eventually("somebody to wait", || {
        table(&mut root, "SHOW POOLS").iter().any(|row| row["cl_waiting"] == "1").then_some(())
    });
    root.rows("SET default_pool_size = 2").unwrap();
    let answer = waiting.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == 'D'), "{answer:?}");
    busy.rows("commit").unwrap();
}

#[test]
fn another_max_prepared_statements_counts_for_connections_that_are_open() {
    let bouncer = trusting(Cluster::shared(Version::V15)).set("max_prepared_statements", "1").start(Kind::Gprxy);
    let mut root = log_in(&bouncer, "pgbouncer", "root");
    let mut wire = log_in(&bouncer, "shared", SCRAM.0);
    let prepared = |wire: &mut Wire, most: &str, root: &mut Wire, from: u32| {
        root.rows(&format!("SET max_prepared_statements = {most}")).unwrap();
        for number in from..from + 5 {
            wire.send(&[parse(&format!("s{number}"), &format!("select {number}")), sync()].concat());
            let answer = wire.read_until_ready();
            assert!(answer.iter().all(|message| message.tag != 'E'), "{answer:?}");
        }
        wire.value("select count(*) from pg_prepared_statements")
    };
    assert_eq!(prepared(&mut wire, "1", &mut root, 0), "1");
    assert_eq!(prepared(&mut wire, "5", &mut root, 10), "5");
    assert_eq!(prepared(&mut wire, "2", &mut root, 20), "2");
}

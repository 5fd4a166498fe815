//! `gprxy start --pgbouncer-ini`: the file that PgBouncer runs with, and the same for its users.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::console::table;
use crate::drivers;
use crate::support::bouncer::{Bouncer, Ini, Kind};
use crate::support::fixtures::{CLEARTEXT, DATABASE, MD5, READER, SCRAM, TRUST};
use crate::support::postgres::{Cluster, Version};
use crate::support::target::Target;
use crate::support::wire::{Wire, query};
use crate::support::{deps, eventually, psql};

/// Four ways to the same database.
fn typical(server: &'static Cluster) -> Ini {
    Ini::new(server)
        .database(&format!("{DATABASE} = SERVER"))
        .database(&format!(
            "shared = SERVER dbname={DATABASE} user={} password='{}' pool_mode=transaction",
            SCRAM.0, SCRAM.1
        ))
        .database(&format!("listed = SERVER dbname={DATABASE} user={} pool_size=2", READER.0))
        .database("nowhere-at-all = SERVER dbname=not_there")
        .user(CLEARTEXT)
        .user(SCRAM)
        .user(MD5)
        .user(READER)
        .set("auth_type", "md5")
        .set("default_pool_size", "3")
}

fn trusting(server: &'static Cluster) -> Ini {
    typical(server).set("auth_type", "trust").set("pool_mode", "transaction")
}

/// What a client sees, without what may differ: addresses and process numbers.
fn seen(target: &Target, statements: &[&str]) -> (String, String, i32) {
    let ran = psql::run(target, statements);
    let sqlstate = ran.err.split("ERROR:").nth(1).map(|error| error.trim().chars().take(5).collect::<String>());
    (ran.out, sqlstate.unwrap_or_default(), ran.code)
}

#[test]
fn the_same_file_gives_the_same_answers() {
    for version in [Version::V15, Version::V18] {
        let server = Cluster::shared(version);
        let both = [Kind::PgBouncer, Kind::Gprxy].map(|kind| typical(server).start(kind));
        for (database, user) in
            [(DATABASE, SCRAM), (DATABASE, CLEARTEXT), ("shared", READER), ("shared", MD5), ("listed", SCRAM)]
        {
            for statements in [
                &["select session_user, current_database()"][..],
                &["select count(*) from notes", "select 1/0", "select 'not reached'"],
                &["begin", "create temp table t on commit drop as select 1", "select count(*) from t", "commit"],
                &["copy (select id from notes where id < 5 order by id) to stdout"],
                &["show server_encoding", "set timezone = 'Asia/Tokyo'", "show timezone"],
                &["prepare p as select $1::int + 1", "execute p(41)", "deallocate p"],
            ] {
                let [theirs, ours] = both.each_ref().map(|it| seen(&it.target(database, user), statements));
                assert_eq!(ours, theirs, "{database} {user:?} {statements:?} on {version:?}");
                let [theirs, ours] = both.each_ref().map(|it| seen(&it.at_socket(database, user), statements));
                assert_eq!(ours, theirs, "at the socket: {database} {user:?} {statements:?}");
            }
        }
        for (database, user) in [
            (DATABASE, (SCRAM.0, "wrong")),
            (DATABASE, ("nobody_at_all", "x")),
            ("unknown_database", SCRAM),
            ("nowhere-at-all", SCRAM),
        ] {
            let codes = both.each_ref().map(|it| psql::run(&it.target(database, user), &["select 1"]).code);
            assert_eq!(codes, [2, 2], "{database} {user:?}");
        }
        drop(both);
    }
}

#[test]
fn pgbench_runs_through_both() {
    let server = Cluster::shared(Version::V15);
    let script = crate::support::reaper::fresh_path("bench.sql");
    std::fs::write(&script, "select count(*) from notes;\nselect session_user;\n").unwrap();
    for kind in [Kind::PgBouncer, Kind::Gprxy] {
        let bouncer = typical(server).start(kind);
        for (database, protocols) in
            [("shared", &["simple", "extended"][..]), ("listed", &["simple", "extended", "prepared"])]
        {
            for protocol in protocols {
                let mut bench = psql::tool(&bouncer.target(database, SCRAM), "pgbench");
                bench.args(["-n", "-c", "2", "-t", "50", "-M", protocol, "-f"]).arg(&script);
                let ran = psql::finish(bench);
                assert!(ran.out.contains("processed: 100/100"), "{kind:?} {protocol}: {}{}", ran.out, ran.err);
            }
        }
    }
}

#[test]
fn every_auth_type_lets_in_psql_and_drivers_and_nobody_else() {
    let server = Cluster::shared(Version::V15);
    let python = || deps::python("psycopg_client.py");
    let asyncpg = || deps::python("asyncpg_client.py");
    for auth_type in ["trust", "plain", "md5", "scram-sha-256"] {
        let bouncer = typical(server).user((TRUST.0, "x")).set("auth_type", auth_type).start(Kind::Gprxy);
        for user in [SCRAM, CLEARTEXT, MD5] {
            let target = bouncer.target(DATABASE, user);
            assert_eq!(psql::run(&target, &["select session_user"]).ok(), user.0, "{auth_type}");
            let wrong = psql::run(&target.with_password("wrong"), &["select 1"]);
            assert_eq!(wrong.code == 0, auth_type == "trust", "{auth_type}: {}", wrong.err);
        }
        assert_ne!(psql::run(&bouncer.target(DATABASE, ("nobody_at_all", "x")), &["select 1"]).code, 0);
        let target = bouncer.target(DATABASE, CLEARTEXT);
        let plain = |client, steps| drivers::plain(&drivers::direct(Version::V15, client, steps));
        assert_eq!(drivers::lines(python(), &target), plain(python, 20), "{auth_type}");
        assert_eq!(drivers::lines(asyncpg(), &target), plain(asyncpg, 16), "{auth_type}");
    }
}

#[test]
fn what_is_not_supported_is_named_and_what_would_be_weaker_is_refused() {
    let server = Cluster::shared(Version::V15);
    let bouncer = typical(server).set("pkt_buf", "1").set("dns_max_ttl", "30").start(Kind::Gprxy);
    let log = bouncer.log();
    for name in ["pkt_buf", "dns_max_ttl"] {
        let line = log.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} in {log}"));
        assert!(line.contains("pgbouncer.ini:") && line.contains("has no effect"), "{line}");
    }
    for (option, value) in [("auth_type", "hba"), ("client_tls_sslmode", "verify-full"), ("default_pool_sise", "1")] {
        let (status, told) = typical(server).set(option, value).refused(&[]);
        assert_eq!(status.code(), Some(78), "{told}");
        assert!(told.contains(option) && told.contains("pgbouncer.ini:"), "{told}");
    }
    for (argument, hint) in [("-d", "systemd"), ("-R", "so_reuseport"), ("-unobody", "User=")] {
        let (status, told) = typical(server).refused(&[argument]);
        assert_eq!(status.code(), Some(2), "{told}");
        assert!(told.contains(hint), "{told}");
    }
}

#[test]
fn the_process_is_as_quiet_and_as_open_as_it_is_told() {
    let server = Cluster::shared(Version::V15);
    let mut bouncer =
        typical(server).set("unix_socket_mode", "0700").set("listen_addr", "").start_with(Kind::Gprxy, &["-q", "-v"]);
    assert_eq!(bouncer.output(), "", "nothing on standard error");
    assert!(bouncer.log().contains("listening on"));
    let mode = bouncer.socket().metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    assert_eq!(psql::run(&bouncer.at_socket(DATABASE, SCRAM), &["select session_user"]).ok(), SCRAM.0);
    psql::run(&bouncer.target(DATABASE, SCRAM), &["select 1"]).failed();
    assert!(bouncer.log().contains("debug"), "-v");
    bouncer.child.signal("QUIT");
    bouncer.await_end();
    assert!(!bouncer.socket().exists() && !bouncer.ini.dir.join("bouncer.pid").exists(), "it tidies up");
}

fn log_in(bouncer: &Bouncer, database: &str) -> Wire {
    Wire::login(&bouncer.target(database, SCRAM)).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Nobody new gets in.
fn await_closed(bouncer: &Bouncer) {
    let address = ("127.0.0.1", bouncer.ini.port);
    eventually("the port to be closed", || std::net::TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn sigterm_waits_for_clients_and_a_second_one_does_not() {
    let mut bouncer = trusting(Cluster::shared(Version::V15)).start(Kind::Gprxy);
    let (mut first, second) = (log_in(&bouncer, DATABASE), log_in(&bouncer, DATABASE));
    bouncer.child.signal("TERM");
    await_closed(&bouncer);
    assert_eq!(first.value("select 'still served'"), "still served");
    second.quit();
    assert_eq!(first.value("select 'still served'"), "still served");
    assert!(!bouncer.child.has_ended());
    first.quit();
    bouncer.await_end();

    let mut bouncer = trusting(Cluster::shared(Version::V15)).start(Kind::Gprxy);
    let mut wire = log_in(&bouncer, DATABASE);
    bouncer.child.signal("TERM");
    await_closed(&bouncer);
    bouncer.child.signal("TERM");
    assert_eq!(wire.expect_fatal().code, "57P01");
    bouncer.await_end();
}

#[test]
fn sigint_waits_for_server_connections() {
    let mut bouncer = trusting(Cluster::shared(Version::V15)).start(Kind::Gprxy);
    let (mut busy, mut idle) = (log_in(&bouncer, DATABASE), log_in(&bouncer, DATABASE));
    busy.rows("begin").unwrap();
    bouncer.child.signal("INT");
    await_closed(&bouncer);
    idle.send(&query("select 'later'"));
    let refused = idle.expect_fatal();
    assert_eq!((refused.code.as_str(), refused.message.as_str()), ("57P01", "server shutting down"));
    assert_eq!(busy.value("select 'goes on'"), "goes on");
    busy.rows("commit").unwrap();
    assert_eq!(busy.expect_fatal().code, "57P01");
    bouncer.await_end();
}

#[test]
fn who_waits_for_a_server_connection_is_told_of_the_shutdown() {
    let mut bouncer = trusting(Cluster::shared(Version::V15)).set("default_pool_size", "1").start(Kind::Gprxy);
    let (mut busy, mut waiting) = (log_in(&bouncer, DATABASE), log_in(&bouncer, DATABASE));
    busy.rows("begin").unwrap();
    waiting.send(&query("select 'later'"));
    bouncer.child.signal("INT");
    assert_eq!(waiting.expect_fatal().message, "server shutting down");
    busy.rows("commit").unwrap();
    bouncer.await_end();
}

#[test]
fn while_clients_are_waited_for_the_socket_leads_to_the_console_alone() {
    let mut bouncer = trusting(Cluster::shared(Version::V15)).set("admin_users", SCRAM.0).start(Kind::Gprxy);
    let mut client = log_in(&bouncer, DATABASE);
    bouncer.child.signal("TERM");
    await_closed(&bouncer);
    let console = |command: &str| psql::run(&bouncer.at_socket("pgbouncer", (SCRAM.0, "x")), &[command]);
    assert_eq!(console("SHOW CLIENTS").code, 0);
    assert!(console("RESUME").err.contains("pooler is shutting down"));
    eventually("others to be refused", || {
        let ran = psql::run(&bouncer.at_socket(DATABASE, (SCRAM.0, "x")), &["select 1"]);
        ran.err.contains("shutting down").then_some(())
    });
    bouncer.child.signal("USR2");
    eventually("the signal to be ignored", || bouncer.log().contains("got SIGUSR2 while shutting down").then_some(()));
    assert_eq!(client.value("select 'still here'"), "still here");
    drop(client);
    bouncer.await_end();
    assert!(!bouncer.socket().exists());
}

#[test]
fn the_log_tells_of_clients_and_servers_in_pgbouncers_words() {
    let bouncer = trusting(Cluster::shared(Version::V15)).start(Kind::Gprxy);
    let mut wire = log_in(&bouncer, DATABASE);
    wire.rows("select 1").unwrap();
    drop(wire);
    assert!(Wire::login(&bouncer.target("nosuchdb", (SCRAM.0, "x"))).is_err());
    assert!(Wire::login(&bouncer.target("nowhere-at-all", (SCRAM.0, "x"))).is_err());
    let user = SCRAM.0;
    for told in [
        format!("login attempt: db={DATABASE} user={user} tls=no"),
        "new connection to server (from 127.0.0.1:".to_owned(),
        "closing because: client unexpected eof (age=".to_owned(),
        "closing because: no such database: nosuchdb (age=".to_owned(),
        "server login failed: FATAL database \"not_there\" does not exist".to_owned(),
        "closing because: database \"not_there\" does not exist".to_owned(),
    ] {
        eventually(&told, || bouncer.log().contains(&told).then_some(()));
    }
    let quiet = trusting(Cluster::shared(Version::V15))
        .set("log_connections", "0")
        .set("log_disconnections", "0")
        .set("log_pooler_errors", "0")
        .start(Kind::Gprxy);
    assert!(Wire::login(&quiet.target("nosuchdb", (SCRAM.0, "x"))).is_err());
    log_in(&quiet, DATABASE).rows("select 1").unwrap();
    for told in ["login attempt", "new connection", "closing because", "pooler error"] {
        assert!(!quiet.log().contains(told), "{told}: {}", quiet.log());
    }
}

#[test]
fn sigusr1_pauses_sigusr2_resumes_and_sigquit_ends() {
    let mut bouncer = trusting(Cluster::shared(Version::V15)).set("admin_users", SCRAM.0).start(Kind::Gprxy);
    let mut desk = log_in(&bouncer, "pgbouncer");
    let mut wire = log_in(&bouncer, DATABASE);
    assert_eq!(wire.value("select 1"), "1");
    bouncer.child.signal("USR1");
    eventually("the pause", || bouncer.log().contains("SIGUSR1").then_some(()));
    wire.send(&query("select 'after the pause'"));
    eventually("the client waits", || {
        let pools = table(&mut desk, "SHOW POOLS");
        pools.iter().any(|pool| pool["database"] == DATABASE && pool["cl_waiting"] == "1").then_some(())
    });
    assert!(!wire.has_something(), "nothing is answered while paused");
    bouncer.child.signal("USR2");
    let answer = wire.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == 'D'), "{answer:?}");
    bouncer.child.signal("QUIT");
    assert_eq!(wire.expect_fatal().code, "57P01");
    bouncer.await_end();
}

#[test]
fn sighup_reads_file_and_users_again() {
    let server = Cluster::shared(Version::V15);
    let mut bouncer = trusting(server).start(Kind::Gprxy);
    let mut wire = log_in(&bouncer, DATABASE);
    let newcomer = bouncer.target(DATABASE, TRUST);
    psql::run(&newcomer, &["select 1"]).failed();
    let told = bouncer.reload(|ini| ini.user(TRUST).set("default_pool_size", "1").set("listen_backlog", "7"));
    assert!(told.contains("listen_backlog is \"7\""), "{told}");
    assert_eq!(psql::run(&newcomer, &["select session_user"]).ok(), TRUST.0);
    assert_eq!(wire.value("select 'stays'"), "stays");
    let told = bouncer.reload(|ini| ini.set("pool_mode", "nonsense"));
    assert!(told.contains("pool.pool_mode") && told.contains("stay in force"), "{told}");
    assert_eq!(wire.value("select 'stays'"), "stays");
    bouncer.reload(|ini| ini.set("pool_mode", "transaction").without_database(DATABASE));
    wire.send(&query("select 1"));
    assert_eq!(wire.expect_fatal().code, "3D000");
}

/// The next process listens beside the first, which then ends: nobody is refused, and no query is lost.
#[test]
fn a_rolling_restart_loses_nothing() {
    let server = Cluster::shared(Version::V15);
    let ini = trusting(server).set("so_reuseport", "1").set("max_client_conn", "500");
    let mut running = ini.clone().start(Kind::Gprxy);
    let (tcp, unix) = (running.target(DATABASE, SCRAM), running.at_socket(DATABASE, SCRAM));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    // Everyone is served behind the last restart as well.
                    let mut is_last = false;
                    while !is_last {
                        is_last = over.load(Ordering::Relaxed);
                        let mut wire = Wire::login(&tcp).unwrap_or_else(|error| panic!("refused: {error:?}"));
                        assert_eq!(wire.value("select 1"), "1");
                        wire.quit();
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            let next = ini.clone().start(Kind::Gprxy);
            running.child.signal("TERM");
            running.await_end();
            running = next;
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().expect("every client is served"));
    });
    assert_eq!(psql::run(&unix, &["select 1"]).ok(), "1", "the socket is the last one's");
}

#[test]
fn what_convert_prints_runs_as_well() {
    let ini = typical(Cluster::shared(Version::V15));
    ini.write();
    let gprxy = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gprxy"));
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(crate::support::reaper::run_dir());
        command
    };
    let output = gprxy().arg("convert").arg(ini.file()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let (toml, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(told.contains("gprxy: allow_plaintext = \"always\"") && told.contains("unencrypted"), "{told}");
    assert!(told.contains("DB_SHARED_PASSWORD") && !toml.contains(SCRAM.1), "{toml}\n{told}");
    let file = ini.dir.join("gprxy.toml");
    crate::support::reaper::write_private(&file, &toml);
    let check = gprxy().arg("check").arg("--config").arg(&file).env("DB_SHARED_PASSWORD", SCRAM.1).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(said.contains(&format!("ok     database shared as {}", SCRAM.0)), "{said}");
}

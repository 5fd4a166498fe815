//! SIGHUP: other settings come into force while clients stay connected, or they do not and it is said why.

use std::fs;

use crate::support::fixtures::{CLEARTEXT, DATABASE, READER, SCRAM, WRITER};
use crate::support::gprxy::Config;
use crate::support::postgres::{Cluster, Version};
use crate::support::tls::pki;
use crate::support::wire::{Wire, query};
use crate::support::{eventually, psql};

/// The SQLSTATE that a session ends with when it asks for something.
#[track_caller]
fn last_words(wire: &mut Wire) -> String {
    wire.send(&query("select 1"));
    wire.expect_fatal().code
}

const BOTH: [Version; 2] = [Version::V15, Version::V18];

#[test]
fn settings_that_are_wrong_change_nothing_and_every_mistake_is_told() {
    let mut gprxy = Config::new(Version::V15).start();
    let mut wire = Wire::login(&gprxy.target("alice")).unwrap();
    let told = gprxy.reload(|config| {
        config
            .set("pool.default_pool_size", "many")
            .set("server.listen_prot", 1)
            .set("tls.key", "/nowhere/key.pem")
            .role("reader", ("somebody_else", ""), 1)
    });
    for mistake in ["pool.default_pool_size", "server.listen_prot", "tls.key", "of before stay in force"] {
        assert!(told.contains(mistake), "{mistake} is not named in\n{told}");
    }
    assert_eq!(wire.value("select 'goes on'"), "goes on");
    assert_eq!(psql::run(&gprxy.target("alice"), &["select session_user"]).ok(), READER.0, "the old mapping");
    // No TOML at all.
    fs::write(gprxy.file(), "[[[").unwrap();
    assert!(gprxy.hang_up().contains("of before stay in force"));
    assert_eq!(psql::run(&gprxy.target("alice"), &["select session_user"]).ok(), READER.0);
}

#[test]
fn another_mapping_holds_for_those_who_come_and_for_the_next_transaction() {
    for version in BOTH {
        let mut gprxy = Config::new(version).set("pool.pool_mode", "transaction").start();
        let (mut pooled, mut kept) =
            (Wire::login(&gprxy.target("alice")).unwrap(), Wire::login(&gprxy.target("bob")).unwrap());
        assert_eq!(pooled.value("select session_user"), READER.0);
        // Bob is in the middle of a transaction.
        kept.rows("begin").unwrap();
        assert_eq!(kept.value("select session_user"), WRITER.0);
        gprxy.reload(|config| config.role("reader", SCRAM, 2).role("writer", CLEARTEXT, 1));
        assert_eq!(psql::run(&gprxy.target("alice"), &["select session_user"]).ok(), SCRAM.0);
        assert_eq!(last_words(&mut pooled), "28000");
        assert_eq!(kept.value("select session_user"), WRITER.0, "what runs may end");
        kept.rows("commit").unwrap();
        assert_eq!(last_words(&mut kept), "28000");
    }
}

#[test]
fn a_password_that_changed_on_the_server_and_in_the_settings_disconnects_nobody() {
    let server: &'static Cluster = Box::leak(Box::new(Cluster::start(Version::V15)));
    let provider = crate::support::provider::Provider::shared();
    let mut gprxy = Config::with(server, provider).set("pool.pool_mode", "transaction").pool_of(1).start();
    let mut wire = Wire::login(&gprxy.target("alice")).unwrap();
    let pid = wire.value("select pg_backend_pid()");
    server.sql(&format!("alter role {} password 'rotated'", READER.0));
    let refused = gprxy.reload(|config| config.role("reader", (READER.0, "rotated"), 2));
    assert!(!refused.contains("stay in force"), "{refused}");
    // The old connection is closed, and the next transaction's one was opened with the new password.
    assert_ne!(wire.value("select pg_backend_pid()"), pid);
    assert_eq!(psql::run(&gprxy.target("alice"), &["select session_user"]).ok(), READER.0);
}

#[test]
fn a_new_certificate_is_shown_to_new_clients_and_old_ones_stay() {
    let dir = crate::support::reaper::fresh_path("rotating");
    fs::create_dir(&dir).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let lay = |(from_cert, from_key): (&std::path::Path, &std::path::Path)| {
        fs::copy(from_cert, &cert).unwrap();
        fs::copy(from_key, &key).unwrap();
    };
    lay((&pki().cert, &pki().key));
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let gprxy = Config::new(Version::V18).set("tls.cert", text(&cert)).set("tls.key", text(&key)).start();
    let mut wire = Wire::login(&gprxy.target("alice")).unwrap();
    assert_eq!(wire.value("select 1"), "1");
    // A certificate of nobody's: libpq refuses it, so it is the new one that new clients see.
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&cert, stranger.cert.pem()).unwrap();
    // The pair does not fit: nothing changes.
    assert!(gprxy.hang_up().contains("tls.key"));
    psql::run(&gprxy.target("alice"), &["select 1"]).ok();
    fs::write(&key, stranger.signing_key.serialize_pem()).unwrap();
    assert!(gprxy.hang_up().contains("are in force"));
    let refused = psql::run(&gprxy.target("alice"), &["select 1"]).failed();
    assert!(refused.contains("certificate"), "{refused}");
    assert_eq!(wire.value("select 2"), "2", "who is connected stays");
    lay((&pki().cert, &pki().key));
    gprxy.hang_up();
    assert_eq!(psql::run(&gprxy.target("alice"), &["select 3"]).ok(), "3");
}

#[test]
fn pool_sizes_change_under_running_sessions() {
    let mut gprxy = Config::new(Version::V15).set("pool.pool_mode", "transaction").pool_of(1).start();
    let target = gprxy.target("alice").in_plaintext();
    let (mut first, mut second) = (Wire::login(&target).unwrap(), Wire::login(&target).unwrap());
    first.rows("begin").unwrap();
    second.send(&query("select 'second'"));
    assert!(!second.has_something(), "one connection, and it is taken");
    gprxy.reload(|config| config.pool_of(2));
    // Somebody's next lease tells the pool.
    let mut third = Wire::login(&gprxy.target("alice")).unwrap();
    assert_eq!(second.read_until_ready().iter().filter(|message| message.tag == 'D').count(), 1);
    assert_eq!(third.value("select 'third'"), "third");
    first.rows("commit").unwrap();
}

#[test]
fn a_database_that_is_gone_or_elsewhere() {
    let [old, new] = [Cluster::shared(Version::V15), Cluster::shared(Version::V18)];
    let mut gprxy = Config::new(Version::V15)
        .set("pool.pool_mode", "transaction")
        .set("databases.moves.host", "127.0.0.1")
        .set("databases.moves.port", i64::from(old.port))
        .set("databases.moves.dbname", DATABASE)
        .set("databases.goes.host", "127.0.0.1")
        .set("databases.goes.port", i64::from(old.port))
        .set("databases.goes.dbname", DATABASE)
        .unset("databases", "*")
        .start();
    let target = |database: &str| gprxy.target("alice").with_database(database);
    let (moves, goes) = (target("moves"), target("goes"));
    let (mut moving, mut going) = (Wire::login(&moves).unwrap(), Wire::login(&goes).unwrap());
    let version = "select current_setting('server_version_num')::int / 10000";
    assert_eq!((moving.value(version), going.value(version)), ("15".to_owned(), "15".to_owned()));
    let pids = format!("{}, {}", moving.value("select pg_backend_pid()"), going.value("select pg_backend_pid()"));
    going.rows("begin").unwrap();
    gprxy.reload(|config| config.set("databases.moves.port", i64::from(new.port)).unset("databases", "goes"));
    assert_eq!(moving.value(version), "18", "the next transaction runs there");
    assert_eq!(going.value(version), "15", "what runs may end");
    going.rows("rollback").unwrap();
    assert_eq!(last_words(&mut going), "3D000");
    assert!(psql::run(&goes, &["select 1"]).failed().contains("no such database"));
    // Nothing of either is left on the old server.
    eventually("the connections to the old server to be closed", || {
        (old.sql(&format!("select count(*) from pg_stat_activity where pid in ({pids})")) == "0").then_some(())
    });
}

#[test]
fn what_cannot_change_is_named() {
    let mut gprxy = Config::new(Version::V15).start();
    let told = gprxy.reload(|config| config.set("server.workers", 7).set("audit.queue", 7000));
    for name in ["workers", "audit_queue"] {
        assert!(told.contains(&format!("{name} is \"7")) && told.contains("started again"), "{name}: {told}");
    }
    psql::run(&gprxy.target("alice"), &["select 1"]).ok();
}

#[test]
fn an_issuer_comes_and_goes_and_the_keys_of_the_others_stay() {
    let other = crate::support::provider::Provider::start();
    let mut gprxy = Config::new(Version::V15).start();
    let stranger = gprxy.target("alice").with_password(&other.token("alice"));
    psql::run(&stranger, &["select 1"]).failed();
    gprxy.reload(|config| config.and_issuer(&other));
    assert_eq!(psql::run(&stranger, &["select session_user"]).ok(), READER.0);
    assert_eq!(psql::run(&gprxy.target("alice"), &["select session_user"]).ok(), READER.0);
    let mut gone = Wire::login(&stranger).unwrap();
    gprxy.reload(Config::without_last_issuer);
    psql::run(&stranger, &["select 1"]).failed();
    assert_eq!(gone.value("select 'a session that was let in goes on'"), "a session that was let in goes on");
}

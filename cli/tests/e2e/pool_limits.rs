//! Limits over pools, people and databases, under the names that PgBouncer gives them.

use serde_json::json;

use crate::console::table;
use crate::support::fixtures::{READER, WRITER};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::Provider;
use crate::support::target::Target;
use crate::support::wire::Wire;
use crate::support::{eventually, psql};

/// Another person with the writer's role, and so with the writer's pool.
fn eve(gprxy: &Gprxy) -> Target {
    let mut target = person(gprxy, "eve", &["writer"]);
    target.account = WRITER.0;
    target
}

/// Somebody with these roles.
fn person(gprxy: &Gprxy, name: &str, roles: &[&str]) -> Target {
    let email = format!("{name}@corp.example");
    let claims = json!({ "sub": name, "preferred_username": name, "email": email, "roles": roles });
    gprxy.target("bob").with_user(&email).with_password(&Provider::shared().mint(claims))
}

fn transaction(size: i64) -> Config {
    Config::new(Version::V15).pool_of(size).set("pool.pool_mode", "transaction").set("pool.query_wait_notify", 0)
}

#[test]
fn a_person_has_so_many_sessions_and_gets_the_place_back_of_one_that_ends() {
    let gprxy = Config::new(Version::V15).pool_of(5).set("limits.max_client_conn_per_identity", 2).start();
    let (first, mut second) = (Wire::login(&gprxy.target("bob")).unwrap(), Wire::login(&gprxy.target("bob")).unwrap());
    let error = Wire::login(&gprxy.target("bob")).err().expect("the third is refused");
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "53300"), "{error:?}");
    assert!(error.message.contains("max_client_conn_per_identity"), "{error:?}");
    assert_eq!(Wire::login(&eve(&gprxy)).unwrap().value("select 1"), "1", "somebody else has places of her own");
    first.quit();
    eventually("the place is free again", || Wire::login(&gprxy.target("bob")).ok());
    assert_eq!(second.value("select 1"), "1");
}

/// Who is refused, and why.
fn refused(target: &Target) -> (String, String, String) {
    let error = Wire::login(target).err().expect("there is no room");
    (error.severity, error.code, error.message)
}

/// The people behind the sessions that the console shows.
fn present(console: &mut Wire) -> Vec<String> {
    let mut people: Vec<_> = table(console, "SHOW CLIENTS").into_iter().map(|row| row["identity"].clone()).collect();
    people.sort();
    people
}

/// Whose password PostgreSQL has checked is the PostgreSQL user of that name, and counts from then on.
#[test]
fn a_user_of_postgresql_has_so_many_sessions_as_a_person_has() {
    let limits = |config: Config, name: &str| config.password_fallback(true).pool_of(9).set(name, 2);
    for limit in
        ["limits.max_client_conn_per_identity", "pool.max_user_client_connections", "pool.max_db_client_connections"]
    {
        let gprxy = limits(Config::new(Version::V15), limit).start();
        let own = gprxy.target("bob").with_user(READER.0).with_password(READER.1);
        let wrong = || Wire::login(&own.clone().with_password("wrong")).err().expect("it is wrong").code;
        let (first, mut second) = (Wire::login(&own).unwrap(), Wire::login(&own).unwrap());
        let error = Wire::login(&own).err().expect("the third is refused");
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "53300"), "{error:?}");
        assert!(error.message.contains(limit.split_once('.').unwrap().1), "{error:?}");
        if limit.ends_with("identity") {
            assert_eq!(wrong(), "28P01", "who is not proven is not told how many there are");
            let other = own.clone().with_user(WRITER.0).with_password(WRITER.1);
            assert_eq!(Wire::login(&other).unwrap().value("select 1"), "1", "somebody else has places");
        }
        first.quit();
        eventually("the place is free again", || Wire::login(&own).ok());
        assert_eq!(second.value("select 1"), "1");
    }
}

#[test]
fn clients_that_fill_the_proxy_leave_the_last_places_to_those_who_administer() {
    for version in [Version::V15, Version::V18] {
        let config = Config::new(version).pool_of(1).set("pool.pool_mode", "transaction");
        let config = config.set("limits.max_client_conn", 5).set("limits.reserved_for_admins", 2);
        let gprxy = config.set("admin.admin_roles", "dba").start();
        let ordinary = |name: &str| person(&gprxy, name, &["reader"]);
        let admin = |name: &str| person(&gprxy, name, &["writer", "dba"]);
        let at_console = |target: Target| target.with_database("pgbouncer");
        let enter = |target: &Target| eventually("those who were refused have gone", || Wire::login(target).ok());

        let mut inside: Vec<Wire> = ["u0", "u1", "u2"].iter().map(|name| enter(&ordinary(name))).collect();
        for wire in &mut inside {
            assert_eq!(wire.value("select 'served'"), "served");
        }
        // Everybody else is told so, those who are in already not less than others.
        for name in ["u0", "u3"] {
            let (severity, code, message) = refused(&ordinary(name));
            assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "53300"), "{message}");
            assert!(message.contains("administrators"), "{message}");
            let shown = psql::run(&ordinary(name), &["select 1"]).failed();
            assert!(shown.contains("administrators"), "{shown}");
        }
        // The two places that are left: in a database, and at the console.
        let mut ann = enter(&admin("ann"));
        assert_eq!(ann.value("select 'let in'"), "let in");
        let mut desk = enter(&at_console(admin("ben")));
        assert_eq!(refused(&admin("cas")).1, "53300", "those are taken, too");
        assert_eq!(refused(&at_console(ordinary("u3"))).1, "53300", "the console is not for everybody");
        let mut second = enter(&at_console(admin("cas")));
        let names = ["ann", "ben", "cas", "u0", "u1", "u2"].map(|name| format!("{name}@corp.example"));
        assert_eq!(eventually("the refused have gone", || Some(present(&mut desk)).filter(|it| it.len() == 6)), names);
        assert_eq!(present(&mut second), names);
        for wire in &mut inside {
            assert_eq!(wire.value("select 'unharmed'"), "unharmed");
        }

        inside.into_iter().chain([ann, second]).for_each(Wire::quit);
        eventually("only the one at the console is left", || (present(&mut desk).len() == 1).then_some(()));
        for pool in table(&mut desk, "SHOW POOLS") {
            let counts = ["cl_active", "cl_waiting", "sv_active", "sv_login"].map(|name| pool[name].as_str());
            assert!(counts == ["0"; 4] || pool["database"] == "pgbouncer", "{pool:?}");
        }
        let database =
            table(&mut desk, "SHOW DATABASES").into_iter().find(|row| row["name"] == gprxy.target("bob").database);
        assert!(database.is_none_or(|row| row["current_client_connections"] == "0"));
        // And as many get in as before: two beside the one at the console.
        let again: Vec<Wire> = ["u3", "u4"].iter().map(|name| enter(&ordinary(name))).collect();
        assert_eq!(refused(&ordinary("u5")).1, "53300");
        drop(again);
    }
}

#[test]
fn a_database_has_so_many_connections_and_the_idle_one_of_another_account_makes_room() {
    let server = Cluster::shared(Version::V15);
    server.create_database("shared_places");
    let gprxy = transaction(5).set("pool.max_db_connections", 1).start();
    let mut bob = Wire::login(&gprxy.target("bob").with_database("shared_places")).unwrap();
    let mut alice = Wire::login(&gprxy.target("alice").with_database("shared_places")).unwrap();
    let count =
        "select count(*) from pg_stat_activity where datname = 'shared_places' and backend_type = 'client backend'";
    for _ in 0..3 {
        assert_eq!(bob.value(count), "1");
        assert_eq!(alice.value(count), "1");
    }
}

#[test]
fn a_pool_in_use_is_kept_at_its_least_size() {
    let server = Cluster::shared(Version::V15);
    server.create_database("kept_ready");
    let gprxy = transaction(5).set("pool.min_pool_size", 3).start();
    let mut bob = Wire::login(&gprxy.target("bob").with_database("kept_ready")).unwrap();
    let count =
        "select count(*) from pg_stat_activity where datname = 'kept_ready' and backend_type = 'client backend'";
    eventually("three connections", || (bob.value(count) == "3").then_some(()));
}

#[test]
fn who_has_waited_for_long_gets_a_connection_of_the_reserve() {
    let gprxy = transaction(1).set("pool.reserve_pool_size", 1).set("pool.reserve_pool_timeout", "200ms").start();
    let (mut bob, mut other) = (Wire::login(&gprxy.target("bob")).unwrap(), Wire::login(&gprxy.target("bob")).unwrap());
    bob.rows("begin").unwrap();
    assert_eq!(other.value("select 'served'"), "served");
    bob.rows("commit").unwrap();
}

#[test]
fn an_idle_connection_that_the_server_has_ended_is_replaced_unnoticed() {
    let server = Cluster::shared(Version::V15);
    server.create_database("ended_idle");
    let gprxy = transaction(1).start();
    let mut bob = Wire::login(&gprxy.target("bob").with_database("ended_idle")).unwrap();
    for _ in 0..3 {
        let pid = bob.value("select pg_backend_pid()");
        server.sql(&format!("select pg_terminate_backend({pid}, 5000)"));
        assert_ne!(bob.value("select pg_backend_pid()"), pid);
    }
}

#[test]
fn an_idle_connection_that_fails_its_check_is_replaced_unnoticed() {
    let cases = [
        ("", true),
        ("<empty>", true),
        ("select 1; select 2", true),
        ("select 1 / 0", false),
        ("begin", false),
        ("select pg_terminate_backend(pg_backend_pid())", false),
    ];
    for (query, stays) in cases {
        let gprxy = transaction(1).set("pool.server_check_delay", 0).set("pool.server_check_query", query).start();
        let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
        let pid = bob.value("select pg_backend_pid()");
        for _ in 0..3 {
            assert_eq!(bob.value("select pg_backend_pid()") == pid, stays, "{query:?}");
        }
    }
}

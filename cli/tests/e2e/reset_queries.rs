//! What runs on a server connection between those who use it: `server_reset_query`, `connect_query`, and what stays.

use serde_json::json;

use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::provider::Provider;
use crate::support::wire::Wire;
use crate::support::{eventually, target::Target};

const BOTH: [Version; 2] = [Version::V15, Version::V18];

/// Who runs as the same account as bob.
fn eve(gprxy: &Gprxy) -> Target {
    let claims = json!({ "sub": "eve", "preferred_username": "eve", "email": "eve@corp.example", "roles": ["writer"] });
    gprxy.target("bob").with_user("eve@corp.example").with_password(&Provider::shared().mint(claims))
}

fn pid(wire: &mut Wire) -> String {
    wire.value("select pg_backend_pid()")
}

#[test]
fn clients_that_trust_each_other_reset_as_their_operator_says() {
    let cases = [
        ("DISCARD ALL", "pgbouncer", "4MB"),
        ("", "pgbouncer", "7MB"),
        ("reset statement_timeout; reset work_mem", "pgbouncer", "4MB"),
        ("reset statement_timeout", "pgbouncer", "7MB"),
        // Between people it is not a matter of taste.
        ("", "identity", "4MB"),
        ("reset statement_timeout", "identity", "4MB"),
    ];
    for (query, isolation, left) in cases {
        let config = Config::new(Version::V18).pool_of(1).set("pool.server_reset_query", query);
        let gprxy = config.set("pool.isolation", isolation).start();
        let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
        bob.rows("set work_mem = '7MB'").unwrap();
        let before = pid(&mut bob);
        bob.quit();
        let mut next = Wire::login(&gprxy.target("bob")).unwrap();
        assert_eq!((pid(&mut next), next.value("show work_mem")), (before, left.to_owned()), "{query:?}, {isolation}");
    }
}

#[test]
fn it_runs_behind_every_transaction_where_it_always_does() {
    for version in BOTH {
        for (query, always, left) in
            [("reset work_mem", true, "4MB"), ("DISCARD ALL", true, "4MB"), ("reset work_mem", false, "7MB")]
        {
            let config = Config::new(version).pool_of(1).set("pool.pool_mode", "transaction");
            let config = config.set("pool.server_reset_query", query).set("pool.server_reset_query_always", always);
            let gprxy = config.start();
            let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
            // What the text does not show ties nobody to the connection.
            let hidden = "do $$ begin perform set_config('work_mem', '7MB', false); end $$";
            bob.rows(hidden).unwrap();
            let before = pid(&mut bob);
            assert_eq!(
                (bob.value("show work_mem"), pid(&mut bob)),
                (left.to_owned(), before),
                "{query} on {version:?}"
            );
        }
    }
}

#[test]
fn a_reset_query_that_fails_costs_the_connection_and_is_told() {
    let config = Config::new(Version::V15).pool_of(1).set("pool.isolation", "pgbouncer");
    let gprxy = config.set("pool.server_reset_query", "select no_such_thing()").start();
    let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
    let before = pid(&mut bob);
    bob.quit();
    let mut next = Wire::login(&gprxy.target("bob")).unwrap();
    assert_ne!(pid(&mut next), before);
    eventually("the log tells", || gprxy.log().contains("no_such_thing").then_some(()));
}

#[test]
fn every_connection_begins_with_the_operators_query_and_so_it_does_behind_a_reset() {
    for version in BOTH {
        let config = Config::new(version).pool_of(1).set("pool.pool_mode", "transaction");
        let query = "set work_mem = '9MB'; set timezone = 'Asia/Tokyo'";
        let gprxy = config.set("databases.*.connect_query", query).start();
        let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
        let mut eve = Wire::login(&eve(&gprxy)).unwrap();
        let first = pid(&mut bob);
        for wire in [&mut bob, &mut eve] {
            assert_eq!(wire.value("show work_mem"), "9MB");
            assert_eq!(wire.value("show timezone"), "Asia/Tokyo");
            assert_eq!(pid(wire), first, "the same connection, with a reset in between");
        }
        assert_eq!(eve.parameters["TimeZone"], "Asia/Tokyo", "and the client is told so");
    }
}

#[test]
fn a_connect_query_that_fails_lets_nobody_in() {
    let gprxy = Config::new(Version::V15).set("databases.*.connect_query", "select 1/0").start();
    let error = Wire::login(&gprxy.target("bob")).err().expect("a login that must fail");
    assert!(error.message.contains("connect_query") && error.message.contains("division by zero"), "{error:?}");
}

#[test]
fn where_several_people_come_an_idle_connection_is_reset_ahead_of_the_next_one() {
    for version in BOTH {
        let gprxy = Config::new(version).pool_of(1).set("pool.pool_mode", "transaction").start();
        let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
        let mut eve = Wire::login(&eve(&gprxy)).unwrap();
        let first = pid(&mut bob);
        eve.rows("do $$ begin perform pg_advisory_lock(77); end $$").unwrap();
        // Nobody asks for anything; the server sees her lock go all the same.
        let held = format!("select count(*) from pg_locks where locktype = 'advisory' and pid = {first}");
        let server = gprxy.server();
        eventually("the connection is clean", || (server.sql(&held).trim() == "0").then_some(()));
        assert_eq!(pid(&mut bob), first);
    }
}

//! Every limit in time of a session, with its SQLSTATE: client and server connection go, everybody else goes on.

use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::wire::{Complaint, Wire, query};

const MODES: [(&str, Version); 2] = [("session", Version::V15), ("transaction", Version::V18)];

fn start(mode: &str, version: Version, setting: &str) -> Gprxy {
    Config::new(version).set("pool.pool_mode", mode).set(&format!("pool.{setting}"), "300ms").pool_of(1).start()
}

fn log_in(gprxy: &Gprxy) -> Wire {
    Wire::login(&gprxy.target("bob")).unwrap()
}

/// The last word of a session, and that the only connection of the pool serves again.
fn last_word(gprxy: &Gprxy, mut wire: Wire) -> Complaint {
    let complaint = wire.expect_fatal();
    assert!(wire.read().is_none(), "closed behind it");
    assert_eq!(log_in(gprxy).value("select 'next'"), "next");
    complaint
}

#[test]
fn query_timeout_cancels_the_statement_and_ends_the_session() {
    for (mode, version) in MODES {
        let gprxy = start(mode, version, "query_timeout");
        let mut bob = log_in(&gprxy);
        assert_eq!(bob.value("select pg_sleep(0.01), 'quick enough'"), "");
        let marker = format!("takes-too-long-{mode}");
        bob.send(&query(&format!("select pg_sleep(3600) /* {marker} */")));
        let complaint = last_word(&gprxy, bob);
        assert_eq!(complaint.code, "57014", "{complaint:?}");
        assert!(complaint.message.contains("query timeout"), "{complaint:?}");
        gprxy.server().await_gone(&marker);
    }
}

#[test]
fn idle_transaction_timeout_rolls_the_transaction_back() {
    for (mode, version) in MODES {
        let gprxy = start(mode, version, "idle_transaction_timeout");
        let mut bob = log_in(&gprxy);
        // Longer than the limit, and not idle.
        bob.rows("begin; select pg_advisory_xact_lock(25003); select pg_sleep(0.5)").unwrap();
        let complaint = last_word(&gprxy, bob);
        assert_eq!(complaint.code, "25P03", "{complaint:?}");
        assert_eq!(log_in(&gprxy).value("select pg_try_advisory_xact_lock(25003)"), "t", "what it held is free");
    }
}

#[test]
fn transaction_timeout_ends_a_busy_transaction() {
    for (mode, version) in MODES {
        let gprxy = start(mode, version, "transaction_timeout");
        let mut bob = log_in(&gprxy);
        bob.rows("begin").unwrap();
        bob.send(&query("select 1").repeat(10));
        bob.send(&query("select pg_sleep(3600) /* in a long transaction */"));
        for _ in 0..10 {
            bob.read_until_ready();
        }
        let complaint = last_word(&gprxy, bob);
        assert_eq!(complaint.code, "25P04", "{complaint:?}");
        gprxy.server().await_gone("in a long transaction");
    }
}

#[test]
fn client_idle_timeout_ends_a_session_that_says_nothing() {
    for (mode, version) in MODES {
        let gprxy = start(mode, version, "client_idle_timeout");
        let mut bob = log_in(&gprxy);
        bob.rows("begin; select pg_sleep(0.5)").unwrap();
        bob.rows("commit").unwrap();
        let complaint = last_word(&gprxy, bob);
        assert_eq!(complaint.code, "57P05", "{complaint:?}");
    }
}

#[test]
fn a_role_has_limits_of_its_own() {
    let gprxy = Config::new(Version::V15)
        .set("pool.query_timeout", "1h")
        .role_setting("reader", "query_timeout", "300ms")
        .role_setting("writer", "query_timeout", 0)
        .start();
    let (mut alice, mut bob) = (Wire::login(&gprxy.target("alice")).unwrap(), log_in(&gprxy));
    bob.send(&query("select pg_sleep(1), 'bob'"));
    alice.send(&query("select pg_sleep(3600) /* alice */"));
    assert_eq!(alice.expect_fatal().code, "57014");
    assert!(bob.read_until_ready().iter().any(|message| message.tag == 'D'));
}

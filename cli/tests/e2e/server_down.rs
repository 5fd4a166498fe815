//! Servers that are not there: who waits for them, and who is told at once. `pool.rs` and `faults_server.rs` have what holds
//! without `wait_for_server`.

use std::thread;

use crate::console::table;
use crate::support::bouncer::{Bouncer, Ini, Kind};
use crate::support::eventually;
use crate::support::fixtures::{DATABASE, SCRAM};
use crate::support::postgres::{Cluster, Version};
use crate::support::psql;
use crate::support::wire::{Wire, query};

const ADMIN: (&str, &str) = ("root", "x");

fn ini(server: &'static Cluster) -> Ini {
    Ini::new(server)
        .database(&format!("{DATABASE} = SERVER pool_size=2"))
        .user(SCRAM)
        .user(ADMIN)
        .set("auth_type", "plain")
        .set("admin_users", ADMIN.0)
        .set("server_login_retry", "1")
        .set("query_wait_notify", "1")
}

fn log_in(bouncer: &Bouncer) -> Wire {
    Wire::login(&bouncer.target(DATABASE, SCRAM)).unwrap_or_else(|error| panic!("{error:?}"))
}

fn await_waiting(bouncer: &Bouncer, clients: &str) {
    let mut root = Wire::login(&bouncer.target("pgbouncer", ADMIN)).unwrap_or_else(|error| panic!("{error:?}"));
    eventually("clients that wait", || {
        let pools = table(&mut root, "SHOW POOLS");
        pools.iter().any(|pool| pool["database"] == DATABASE && pool["cl_waiting"] == clients).then_some(())
    });
    root.quit();
}

fn await_tries(bouncer: &Bouncer, tries: usize) {
    eventually("tries", || (bouncer.log().matches("server login failed").count() >= tries).then_some(()));
}

#[test]
fn clients_wait_at_their_login_for_a_server_that_has_not_been_there_yet() {
    for (version, pool_mode) in [(Version::V15, "session"), (Version::V18, "transaction")] {
        let server = Cluster::leaked(version);
        server.stop();
        let bouncer = ini(server).set("pool_mode", pool_mode).start(Kind::Gprxy);
        let target = bouncer.target(DATABASE, SCRAM);
        let first = psql::background(&target, "select 'first'");
        await_tries(&bouncer, 1);
        let others: Vec<_> = (0..5).map(|_| psql::background(&target, "select 'another'")).collect();
        await_waiting(&bouncer, "6");
        // One try each second, whoever waits.
        await_tries(&bouncer, 4);
        server.resume();
        let first = psql::join(first);
        assert_eq!((first.out.trim_end(), first.code), ("first", 0), "{}", first.err);
        assert!(first.err.contains("the last login failed"), "{}", first.err);
        for other in others {
            let other = psql::join(other);
            assert_eq!((other.out.trim_end(), other.code), ("another", 0), "{}", other.err);
        }
    }
}

#[test]
fn who_waits_when_a_server_goes_away_goes_on_and_who_comes_then_is_told() {
    for version in [Version::V15, Version::V18] {
        let server = Cluster::leaked(version);
        let bouncer = ini(server).set("pool_mode", "transaction").start(Kind::Gprxy);
        let (mut early, mut late) = (log_in(&bouncer), log_in(&bouncer));
        assert_eq!(early.value("select 1"), "1");
        server.stop();
        let waiting = thread::spawn(move || (early.value("select 'served'"), early));
        await_waiting(&bouncer, "1");
        await_tries(&bouncer, 1);
        late.send(&query("select 'late'"));
        let told = late.drain().expect("a reason");
        assert!(["08001", "57P03"].contains(&told.code.as_str()), "{told:?}");
        server.resume();
        assert_eq!(waiting.join().unwrap().0, "served");
    }
}

#[test]
fn the_wait_at_a_login_ends_with_query_timeout() {
    let server = Cluster::leaked(Version::V15);
    server.stop();
    let bouncer = ini(server).set("query_timeout", "1").start(Kind::Gprxy);
    let told = Wire::login(&bouncer.target(DATABASE, SCRAM)).err().expect("there is no server");
    assert_eq!((told.severity.as_str(), told.code.as_str()), ("FATAL", "57014"), "{told:?}");
    assert!(told.message.contains("query timeout"), "{told:?}");
}

#[test]
fn the_servers_refusal_is_for_all_who_wait_even_beside_a_connection_that_is_to_be_replaced() {
    for version in [Version::V15, Version::V18] {
        let server = Cluster::leaked(version);
        let bouncer = ini(server).set("pool_mode", "transaction").start(Kind::Gprxy);
        let mut holder = log_in(&bouncer);
        let mut others: Vec<Wire> = (0..3).map(|_| log_in(&bouncer)).collect();
        holder.rows("begin").unwrap();
        holder.value("select 1");
        server.sql(&format!("alter role {} password 'another'", SCRAM.0));
        let mut root = Wire::login(&bouncer.target("pgbouncer", ADMIN)).unwrap_or_else(|error| panic!("{error:?}"));
        root.rows("RECONNECT").unwrap();
        for other in &mut others {
            other.send(&query("select 1"));
        }
        for mut other in others {
            let told = other.drain().expect("a reason");
            assert_eq!(told.code, "28P01", "{told:?}");
            assert!(told.message.contains("password authentication failed"), "{told:?}");
        }
        assert_eq!(holder.value("select 'still there'"), "still there");
    }
}

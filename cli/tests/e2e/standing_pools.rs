//! Pools of a `pgbouncer.ini` that are there without clients.

use crate::console::table;
use crate::support::bouncer::{Bouncer, Ini, Kind};
use crate::support::fixtures::{DATABASE, READER, SCRAM};
use crate::support::postgres::{Cluster, Version};
use crate::support::wire::Wire;
use crate::support::{eventually, psql};

const ADMIN: (&str, &str) = ("root", "x");

fn ini(server: &'static Cluster) -> Ini {
    Ini::new(server)
        .database(&format!("{DATABASE} = SERVER"))
        .user(READER)
        .user(ADMIN)
        .set("auth_type", "plain")
        .set("admin_users", ADMIN.0)
        .set("server_login_retry", "1")
}

fn root(bouncer: &Bouncer) -> Wire {
    Wire::login(&bouncer.target("pgbouncer", ADMIN)).unwrap_or_else(|error| panic!("{error:?}"))
}

fn await_connections(server: &Cluster, name: &str, number: &str) {
    let sql = format!("select count(*) from pg_stat_activity where usename = '{name}'");
    eventually(&format!("{number} connections of {name}"), || (server.sql(&sql) == number).then_some(()));
}

#[test]
fn min_pool_size_of_a_database_with_a_user_is_there_before_any_client_and_comes_back() {
    for version in [Version::V15, Version::V18] {
        let server = Cluster::leaked(version);
        let forced = format!("kept = SERVER dbname={DATABASE} user={} password='{}' min_pool_size=3", SCRAM.0, SCRAM.1);
        let mut bouncer =
            ini(server).database(&forced).set("pool_mode", "transaction").set("min_pool_size", "2").start(Kind::Gprxy);
        await_connections(server, SCRAM.0, "3");
        // Clients of all kinds use what is there.
        let mut wire = Wire::login_with(&bouncer.target("kept", READER), &[("TimeZone", "Asia/Tokyo")]).unwrap();
        assert_eq!(wire.value("select session_user || current_setting('TimeZone')"), format!("{}Asia/Tokyo", SCRAM.0));
        assert_eq!(psql::run(&bouncer.target("kept", READER), &["select session_user"]).ok(), SCRAM.0);
        let opened = bouncer.log().matches("new connection to server").count();
        assert_eq!(opened, 3, "{}", bouncer.log());
        root(&bouncer).rows("RECONNECT").unwrap();
        await_connections(server, SCRAM.0, "3");
        // Without a user it is not known whose pool that would be.
        await_connections(server, READER.0, "0");
        bouncer.reload(|ini| ini.without_database("kept"));
        await_connections(server, SCRAM.0, "0");
        server.stop();
        bouncer.reload(|ini| ini.database(&forced));
        eventually("a try", || bouncer.log().contains("server login failed").then_some(()));
        server.resume();
        await_connections(server, SCRAM.0, "3");
    }
}

#[test]
fn an_empty_pool_is_shown_until_pool_idle_timeout() {
    let server = Cluster::shared(Version::V18);
    let bouncer = ini(server).set("server_idle_timeout", "1").start(Kind::Gprxy);
    assert_eq!(psql::run(&bouncer.target(DATABASE, READER), &["select 1"]).ok(), "1");
    let mut root = root(&bouncer);
    let shown = |root: &mut Wire| table(root, "SHOW POOLS").into_iter().find(|pool| pool["database"] == DATABASE);
    eventually("its connection to be closed", || {
        let pool = shown(&mut root).expect("as with PgBouncer, it stays");
        (pool["sv_idle"] == "0").then_some(())
    });
    assert!(shown(&mut root).is_some());
    root.rows("SET pool_idle_timeout = 1").unwrap();
    eventually("the pool to be forgotten", || shown(&mut root).is_none().then_some(()));
    assert!(bouncer.log().contains(&format!("cleaning up idle pool for user {} on db {DATABASE} because", READER.0)));
    assert_eq!(psql::run(&bouncer.target(DATABASE, READER), &["select 2"]).ok(), "2");
}

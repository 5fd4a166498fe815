//! `auth_user`, `auth_query`, `auth_dbname`: users whom `auth_file` does not have, looked up in PostgreSQL.

use crate::support::bouncer::{Bouncer, Ini, Kind};
use crate::support::fixtures::{DATABASE, MD5, READER, SCRAM};
use crate::support::postgres::{Cluster, Version};
use crate::support::psql;
use crate::support::wire::Wire;

/// The role that asks, and its password. It may do nothing but that.
const ASKER: (&str, &str) = ("acct_asker", "asker-secret-0d1c");

/// A database with a function that tells what the server keeps of a password, and gprxy that asks there.
fn home(server: &'static Cluster, name: &str) -> Ini {
    server.create_database(name);
    server.sql(&format!(
        "do $$ begin create role {} login password '{}'; exception when duplicate_object or unique_violation then null; end $$",
        ASKER.0, ASKER.1
    ));
    let function = "create function lookup(wanted name, out name name, out password text) language sql security definer
         set search_path = pg_catalog as $$
           select rolname, case when rolvaliduntil < now() then null else rolpassword end
           from pg_authid where rolname = wanted and rolcanlogin
         $$;
         create schema evil;
         grant usage, create on schema evil to public;
         create function evil.lookup(wanted name, out name name, out password text) language sql as
           $$ select wanted, 'password of everybody'::text $$;";
    server.sql_in(name, function);
    Ini::new(server)
        .database(&format!("{DATABASE} = SERVER"))
        .database(&format!("{name} = SERVER"))
        .user(ASKER)
        .set("auth_type", "md5")
        .set("auth_user", ASKER.0)
        .set("auth_query", "select name, password from public.lookup($1)")
        .set("auth_dbname", name)
        .set("pool_mode", "transaction")
        .set("default_pool_size", "1")
}

/// What psql says of a login that fails, without what names the user.
fn complaint(bouncer: &Bouncer, user: (&str, &str)) -> String {
    let failed = psql::run(&bouncer.target(DATABASE, user), &["select 1"]).failed();
    failed.replace(user.0, "USER")
}

#[test]
fn users_of_the_server_log_in_with_what_it_keeps_of_them() {
    for version in [Version::V15, Version::V18] {
        let server = Cluster::shared(version);
        let ini = home(server, "auth_kept");
        for (auth_type, users) in
            [("md5", &[SCRAM, MD5, READER][..]), ("plain", &[SCRAM, MD5]), ("scram-sha-256", &[SCRAM])]
        {
            let bouncer = ini.clone().set("auth_type", auth_type).start(Kind::Gprxy);
            for user in users {
                let target = bouncer.target(DATABASE, *user);
                for _ in 0..2 {
                    let ran = psql::run(&target, &["select session_user", "begin", "select 1", "commit"]);
                    assert_eq!(ran.ok(), format!("{}\n1", user.0), "{auth_type} on {version:?}");
                }
            }
            let [wrong, unknown] = [(SCRAM.0, "wrong"), ("nobody_at_all", "x")].map(|user| complaint(&bouncer, user));
            assert_eq!(wrong, unknown, "{auth_type}: nobody learns who exists");
            assert!(wrong.contains("password authentication failed"), "{wrong}");
            // All of them were asked for over the same connection.
            assert_eq!(server.connections_to("auth_kept"), (1, 0), "{auth_type}");
            drop(bouncer);
            server.await_idle("auth_kept", 0);
        }
    }
}

#[test]
fn a_password_that_has_expired_is_none() {
    let server = Cluster::shared(Version::V18);
    let bouncer = home(server, "auth_expired").start(Kind::Gprxy);
    server.sql("create role acct_late login password 'late' valid until '1999-01-01'; create role acct_bare login");
    for user in [("acct_late", "late"), ("acct_bare", ""), ("acct_bare", "x"), ("x' or 'a'='a", "x")] {
        let target = bouncer.target(DATABASE, user);
        let failed = psql::run(&target, &["select 1"]).failed();
        assert!(failed.contains("password"), "{user:?}: {failed}");
    }
    server.sql("alter role acct_late valid until 'infinity'");
    assert_eq!(psql::run(&bouncer.target(DATABASE, ("acct_late", "late")), &["select session_user"]).ok(), "acct_late");
    let trusting = home(server, "auth_trusted").set("auth_type", "trust").user(MD5).start(Kind::Gprxy);
    assert!(complaint(&trusting, ("nobody_at_all", "")).contains("no such user"));
    server.sql("drop role acct_late, acct_bare");
}

#[test]
fn a_query_that_does_not_tell_is_told_in_the_log_and_nothing_of_it_to_the_client() {
    let server = Cluster::shared(Version::V15);
    let ini = home(server, "auth_broken");
    for (query, logged) in [
        ("select name, password from no_such_lookup($1)", "42883 function no_such_lookup(unknown) does not exist"),
        ("select $1::name, 'x' from generate_series(1, 2)", "more than one row"),
        ("select $1::name", "expected 2 columns"),
        ("select $1::name, repeat('x', 100000)", "broke the protocol"),
        ("select $1::name, 1 / 0", "22012 division by zero"),
        ("select", "bind message supplies 1 parameters"),
        ("copy (select 1) to stdout", "bind message supplies 1 parameters"),
    ] {
        let bouncer = ini.clone().set("auth_query", query).start(Kind::Gprxy);
        let told = psql::run(&bouncer.target(DATABASE, SCRAM), &["select 1"]).failed();
        assert!(told.contains("login failed") && told.contains("bouncer config error"), "{query}: {told}");
        assert!(!told.contains("lookup"), "{told}");
        let log = bouncer.log();
        let line = log.lines().rev().find(|line| line.contains("cannot be looked up in database \"auth_broken\""));
        let line = line.unwrap_or_else(|| panic!("{query}: {log}"));
        assert!(line.contains(logged), "{query}: {line}");
        drop(bouncer);
        // It is not kept.
        server.await_idle("auth_broken", 0);
    }
    // Somebody else's row lets nobody in, neither as the one nor as the other.
    let bouncer = ini.set("auth_query", &format!("select '{}'::name, $1::text", SCRAM.0)).start(Kind::Gprxy);
    assert!(complaint(&bouncer, ("nobody_at_all", "nobody_at_all")).contains("password authentication failed"));
    assert!(bouncer.log().contains("gave a row for another user"));
}

#[test]
fn a_lookup_has_an_end() {
    let server = Cluster::shared(Version::V15);
    let slow = "select name, password from public.lookup($1) where pg_sleep(600) is not null /* slow-lookup */";
    let ini = home(server, "auth_slow").set("auth_query", slow).set("auth_type", "plain");
    let bouncer = ini.clone().set("query_timeout", "1").start(Kind::Gprxy);
    let told = psql::run(&bouncer.target(DATABASE, SCRAM), &["select 1"]).failed();
    assert!(told.contains("57P03") || told.contains("at the moment"), "{told}");
    server.await_gone("slow-lookup");
    drop(bouncer);

    // A client that leaves takes its question with it, and the place in the pool is free.
    let mut bouncer = ini.start(Kind::Gprxy);
    for _ in 0..3 {
        let target = bouncer.target(DATABASE, SCRAM);
        let mut wire = Wire::open(&target);
        wire.send(&crate::support::wire::startup(196_608, &[("user", SCRAM.0), ("database", DATABASE)]));
        server.await_running("slow-lookup");
        wire.vanish();
        server.await_gone("slow-lookup");
    }
    bouncer.reload(|ini| ini.set("auth_query", "select name, password from public.lookup($1)"));
    assert_eq!(psql::run(&bouncer.target(DATABASE, SCRAM), &["select session_user"]).ok(), SCRAM.0);
}

#[test]
fn no_client_changes_what_the_query_means() {
    let server = Cluster::shared(Version::V18);
    let bouncer = home(server, "auth_path")
        .set("auth_query", "select name, password from lookup($1)")
        .set("track_extra_parameters", "search_path")
        .start(Kind::Gprxy);
    // The role that asks is a user like others, and shares its connections with its own lookups.
    let asker = bouncer.target("auth_path", ASKER);
    let everybody = (SCRAM.0, "password of everybody");
    for statements in [
        &["set search_path = evil, public"][..],
        &["select set_config('search_path', 'evil', false)"],
        &["begin", "set search_path = evil", "create temp table pg_authid (rolname name, rolpassword text)", "commit"],
    ] {
        psql::run(&asker, statements).ok();
        let mut command = psql::command(&bouncer.target(DATABASE, everybody));
        command.env("PGOPTIONS", "-c search_path=evil").args(["-c", "select 1"]);
        assert!(psql::finish(command).failed().contains("password authentication failed"), "{statements:?}");
        assert_eq!(psql::run(&bouncer.target(DATABASE, SCRAM), &["select session_user"]).ok(), SCRAM.0);
    }
}

/// Scenario 14: neither as a startup parameter, nor as an option of it.
#[test]
fn a_search_path_of_a_startup_packet_reaches_no_lookup() {
    let server = Cluster::shared(Version::V18);
    for pool_mode in ["session", "transaction"] {
        let bouncer = home(server, &format!("auth_startup_{pool_mode}"))
            .set("auth_query", "select name, password from lookup($1)")
            .set("auth_type", "plain")
            .set("pool_mode", pool_mode)
            .set("track_extra_parameters", "search_path")
            .set("ignore_startup_parameters", "")
            .start(Kind::Gprxy);
        let target = bouncer.target(DATABASE, SCRAM);
        for (name, value) in [("search_path", "evil"), ("options", "-c search_path=evil"), ("SEARCH_PATH", "evil")] {
            let parameters = [("user", SCRAM.0), ("database", DATABASE), (name, value)];
            let everybody = target.clone().with_password("password of everybody");
            assert_eq!(Wire::login_with(&everybody, &parameters).err().unwrap().code, "28P01", "{name} {pool_mode}");
            let mut wire = Wire::login_with(&target, &parameters).unwrap_or_else(|told| panic!("{name}: {told:?}"));
            assert_eq!(wire.value("show search_path"), "evil", "it is the client's own: {name} {pool_mode}");
        }
    }
}

/// Where the path of a database or of `auth_user` puts a schema in front that others may write to.
#[test]
fn operators_of_others_have_no_part_in_the_default_query() {
    for version in [Version::V15, Version::V18] {
        let server = Cluster::shared(version);
        let ini = home(server, "auth_trap");
        server.sql_in(
            "auth_trap",
            "create table public.trap (what text);
             create function public.note(name, name) returns bool language plpgsql security definer as
               $$ begin insert into public.trap values ('='); return $1 operator(pg_catalog.=) $2; end $$;
             create operator public.= (leftarg = name, rightarg = name, function = public.note);
             create function public.note(timestamptz, timestamptz) returns bool language plpgsql security definer as
               $$ begin insert into public.trap values ('<'); return false; end $$;
             create operator public.< (leftarg = timestamptz, rightarg = timestamptz, function = public.note);
             create function public.now() returns timestamptz language plpgsql security definer as
               $$ begin insert into public.trap values ('now'); return '-infinity'; end $$;
             create table public.pg_authid as
               select rolname, 'password of everybody'::text as rolpassword, rolvaliduntil, rolcanlogin
               from pg_catalog.pg_authid;
             grant select on pg_catalog.pg_authid, public.pg_authid to public;
             alter database auth_trap set search_path = public, pg_catalog",
        );
        let caught = || server.sql_in("auth_trap", "select count(*) operator(pg_catalog.>) 0 from public.trap");
        let ini = ini.without("auth_query");
        let bouncer = ini.clone().start(Kind::Gprxy);
        assert_eq!(psql::run(&bouncer.target(DATABASE, SCRAM), &["select session_user"]).ok(), SCRAM.0);
        assert!(complaint(&bouncer, (SCRAM.0, "password of everybody")).contains("password authentication failed"));
        assert_eq!(caught(), "f", "on {version:?}");
        drop(bouncer);
        // They would have: this is what the default query was like once.
        let careless = "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END \
                        FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin";
        let bouncer = ini.set("auth_query", careless).start(Kind::Gprxy);
        assert_eq!(psql::run(&bouncer.target(DATABASE, SCRAM), &["select session_user"]).ok(), SCRAM.0);
        assert_eq!(caught(), "t", "on {version:?}");
    }
}

#[test]
fn settings_of_a_database_go_before_and_change_while_it_runs() {
    let server = Cluster::shared(Version::V15);
    let ini = home(server, "auth_own").set("auth_query", "select").set("admin_users", ASKER.0);
    let own = format!(
        "own = SERVER dbname={DATABASE} auth_query='select name, password from public.lookup($1)' auth_dbname=auth_own"
    );
    let mut bouncer = ini.database(&own).start(Kind::Gprxy);
    assert_eq!(psql::run(&bouncer.target("own", SCRAM), &["select session_user"]).ok(), SCRAM.0);
    assert!(complaint(&bouncer, SCRAM).contains("bouncer config error"));
    let console = bouncer.target("pgbouncer", ASKER);
    let query = "select name, password from public.lookup($1)";
    psql::run(&console, &[&format!("set auth_query = '{query}'")]).ok();
    assert_eq!(psql::run(&bouncer.target(DATABASE, SCRAM), &["select session_user"]).ok(), SCRAM.0);
    psql::run(&console, &["set auth_dbname = 'nowhere'"]).ok();
    assert!(complaint(&bouncer, SCRAM).contains("bouncer config error"));
    assert!(bouncer.log().contains("authentication database \"nowhere\" is not configured"));
    psql::run(&console, &["set auth_dbname = 'auth_own'", "disable auth_own"]).ok();
    assert!(complaint(&bouncer, SCRAM).contains("authentication database \"auth_own\" is disabled"));
    psql::run(&console, &["enable auth_own"]).ok();
    let refused = psql::run(&console, &["set auth_dbname = 'pgbouncer'"]).failed();
    assert!(refused.contains("reserved \"pgbouncer\" database"), "{refused}");

    // Who was let in stays while users are looked up, and asks in vain when they are not any more.
    let plain = |ini: Ini| ini.set("auth_type", "plain").set("auth_query", query);
    bouncer.reload(plain);
    let mut wire = Wire::login(&bouncer.target(DATABASE, SCRAM)).unwrap();
    assert_eq!(wire.value("select session_user"), SCRAM.0);
    bouncer.reload(|ini| ini.set("query_wait_timeout", "100"));
    assert_eq!(wire.value("select session_user"), SCRAM.0);
    bouncer.reload(|ini| ini.set("auth_user", "").without_database("own"));
    wire.send(&crate::support::wire::query("select session_user"));
    assert_eq!(wire.expect_fatal().code, "28000");
}

#[test]
fn users_of_the_console_are_looked_up_in_auth_dbname() {
    let server = Cluster::shared(Version::V15);
    let ini = home(server, "auth_console").set("stats_users", SCRAM.0);
    let bouncer = ini.start(Kind::Gprxy);
    let console = bouncer.target("pgbouncer", SCRAM);
    assert!(psql::run(&console, &["show version"]).ok().contains("gprxy"));
    assert!(
        psql::run(&console.clone().with_password("wrong"), &["show version"])
            .failed()
            .contains("password authentication")
    );
    assert!(psql::run(&console, &["pause"]).failed().contains("42501"));
}

/// Whoever is let in runs as `user` of the database; the list has no password of that, but a hash or a verifier.
#[test]
fn a_hash_logs_in_as_the_account_of_a_database_and_a_verifier_says_what_it_lacks() {
    for version in [Version::V15, Version::V18] {
        let server = Cluster::shared(version);
        let kept = |role: &str| server.sql(&format!("select rolpassword from pg_authid where rolname = '{role}'"));
        let bouncer = Ini::new(server)
            .database(&format!("hash = SERVER dbname={DATABASE} user={}", MD5.0))
            .database(&format!("verifier = SERVER dbname={DATABASE} user={}", SCRAM.0))
            .database(&format!("own = SERVER dbname={DATABASE}"))
            .user((MD5.0, &kept(MD5.0)))
            .user((SCRAM.0, &kept(SCRAM.0)))
            .user(READER)
            .set("auth_type", "md5")
            .start(Kind::Gprxy);
        assert_eq!(psql::run(&bouncer.target("hash", READER), &["select session_user"]).ok(), MD5.0);
        assert_eq!(psql::run(&bouncer.target("own", MD5), &["select session_user"]).ok(), MD5.0);
        assert_eq!(psql::run(&bouncer.target("own", SCRAM), &["select session_user"]).ok(), SCRAM.0);
        let told = psql::run(&bouncer.target("verifier", READER), &["select 1"]).failed();
        assert!(told.contains("wrong password type"), "{told}");
    }
}

//! Session pooling: the queue, what a session leaves behind, and servers that go away.

use std::sync::mpsc;
use std::thread;

use serde_json::json;

use crate::support::fixtures::WRITER;
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::Provider;
use crate::support::target::Target;
use crate::support::wire::{V3_0, Wire, bind, describe_and_execute, frame, parse, query, startup, sync};
use crate::support::{eventually, psql};

/// Another person with the writer's role, and so with the writer's pool.
fn eve(gprxy: &Gprxy) -> Target {
    let claims = json!({ "sub": "eve", "preferred_username": "eve", "email": "eve@corp.example", "roles": ["writer"] });
    let mut target = gprxy.target("bob").with_user("eve@corp.example").with_password(&Provider::shared().mint(claims));
    target.account = WRITER.0;
    target
}

/// Logs in as far as the queue: returns when a notice says that there is a wait.
fn login_until_queued(target: &Target) -> Wire {
    let mut wire = Wire::open_tls(target);
    wire.send(&startup(V3_0, &[("user", &target.user), ("database", &target.database)]));
    loop {
        let message = wire.read().expect("a notice about the wait");
        match message.tag {
            'R' if message.body == [0, 0, 0, 3] => wire.send(&frame('p', format!("{}\0", target.password).as_bytes())),
            'N' => return wire,
            'E' => panic!("{:?}", message.complaint()),
            _ => {}
        }
    }
}

#[test]
fn clients_of_a_full_pool_wait_are_told_and_are_served_first_come_first_served() {
    let gprxy = Config::new(Version::V15).pool_of(1).queue_wait("60s").start();
    let first = Wire::login(&gprxy.target("bob")).unwrap();

    let mut second = login_until_queued(&eve(&gprxy));
    let notice = &second.notices[0];
    assert!(notice.message.contains("wait"), "{notice:?}");
    let mut third = login_until_queued(&gprxy.target("bob"));

    let (served, order) = mpsc::channel();
    let tell = served.clone();
    let third = thread::spawn(move || {
        third.finish_login("").unwrap();
        tell.send("third").unwrap();
        third.quit();
    });
    first.quit();
    second.finish_login("").unwrap();
    served.send("second").unwrap();
    assert_eq!(second.value("select session_user"), WRITER.0);
    second.quit();
    third.join().unwrap();
    assert_eq!(order.iter().take(2).collect::<Vec<_>>(), ["second", "third"]);
}

#[test]
fn never_again_15_a_client_that_waits_too_long_gets_53300_instead_of_hanging() {
    let gprxy = Config::new(Version::V15).pool_of(5).queue_wait("1s").start();
    let mut five: Vec<Wire> = (0..5).map(|_| Wire::login(&gprxy.target("bob")).unwrap()).collect();
    let error = Wire::login(&gprxy.target("bob")).err().expect("the sixth is refused");
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "53300"), "{error:?}");
    assert_eq!(
        Wire::login(&gprxy.target("alice")).unwrap().value("select 1"),
        "1",
        "other accounts have their own pool"
    );
    assert_eq!(five[0].value("select 1"), "1");
    five.pop().unwrap().quit();
    assert_eq!(Wire::login(&gprxy.target("bob")).unwrap().value("select 1"), "1");
}

#[test]
fn a_clean_session_hands_its_server_connection_on() {
    let gprxy = Config::new(Version::V15).pool_of(1).start();
    let backend = |target: &Target| {
        let mut wire = Wire::login(target).unwrap();
        let pid = wire.value("select pg_backend_pid()");
        wire.quit();
        pid
    };
    let first = backend(&gprxy.target("bob"));
    assert_eq!(backend(&gprxy.target("bob")), first);
    assert_eq!(backend(&eve(&gprxy)), first, "the pool is the account's, whoever the person is");
}

#[test]
fn nothing_of_a_session_is_visible_to_the_next_person() {
    for version in [Version::V15, Version::V18] {
        let gprxy = Config::new(version).pool_of(1).start();
        let mut bob =
            Wire::login_with(&gprxy.target("bob"), &[("application_name", "bobs"), ("work_mem", "7MB")]).unwrap();
        for statement in [
            "set search_path = pg_catalog",
            "set statement_timeout = '1h'",
            "set my.secret = 'bob was here'",
            "create temp table scratch as select 'private' as t",
            "select pg_advisory_lock(4711)",
            "prepare p as select 1",
            "declare c cursor with hold for select 1",
            "listen bobs_news",
            "select set_config('my.other', 'x', false)",
            "create temp sequence s",
            "select nextval('s')",
        ] {
            bob.rows(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
        bob.send(&[parse("named", "select 1"), sync()].concat());
        bob.read_until_ready();
        bob.quit();

        let mut eve = Wire::login(&eve(&gprxy)).unwrap();
        assert_eq!(eve.value("show search_path"), r#""$user", public"#);
        assert_eq!(eve.value("show statement_timeout"), "0");
        assert_eq!(eve.value("show work_mem"), "4MB");
        assert_ne!(eve.value("show application_name"), "bobs");
        assert_eq!(eve.value("select coalesce(current_setting('my.secret', true), '')"), "");
        assert_eq!(eve.value("select to_regclass('pg_temp.scratch') is null"), "t");
        assert_eq!(
            eve.value("select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"),
            "0"
        );
        assert_eq!(eve.value("select pg_try_advisory_lock(4711)"), "t");
        assert_eq!(eve.value("select count(*) from pg_prepared_statements"), "0");
        assert_eq!(eve.value("select count(*) from pg_cursors"), "0");
        assert_eq!(eve.value("select count(*) from pg_listening_channels()"), "0");
        assert_eq!(eve.rows("select lastval()").unwrap_err().code, "55000");
        eve.send(&[bind("named", &[]), describe_and_execute(), sync()].concat());
        let answer = eve.read_until_ready();
        assert_eq!(answer[0].complaint().code, "26000", "{answer:?}");
        eve.quit();
    }
}

#[test]
fn an_open_or_failed_transaction_is_rolled_back_for_the_next_person() {
    let gprxy = Config::new(Version::V15).pool_of(1).start();
    for last in ["insert into notes values (-7, 'uncommitted')", "select 1 / 0"] {
        let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
        bob.rows("begin").unwrap();
        let _ = bob.rows(last);
        bob.quit();
        let mut eve = Wire::login(&eve(&gprxy)).unwrap();
        assert_eq!(eve.value("select count(*) from notes where id < 0"), "0");
        eve.quit();
    }
}

#[test]
fn never_again_07_a_client_that_vanished_leaves_no_answer_for_the_next() {
    let gprxy = Config::new(Version::V15).pool_of(1).queue_wait("30s").start();
    type Leave = fn(&mut Wire);
    let ways: [(&str, Leave); 5] = [
        ("in the middle of a result", |wire| {
            wire.send(&query("select 'bobs row' from generate_series(1, 200000)"));
            assert_eq!(wire.read().map(|message| message.tag), Some('T'));
        }),
        ("between Parse and Sync", |wire| wire.send(&parse("left", "select 'bobs'"))),
        ("after Flush", |wire| wire.send(&[parse("left", "select 'bobs'"), frame('H', b"")].concat())),
        ("in the middle of COPY IN", |wire| {
            wire.rows("create temp table c (n int)").unwrap();
            wire.send(&[query("copy c from stdin"), frame('d', b"1\n")].concat());
        }),
        ("in the middle of a message", |wire| wire.send(b"Q\0\0\x01\0select 'half")),
    ];
    for (way, leave) in ways {
        let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
        leave(&mut bob);
        bob.vanish();
        let mut eve = Wire::login(&eve(&gprxy)).unwrap_or_else(|error| panic!("after one who left {way}: {error:?}"));
        for number in 0..3 {
            assert_eq!(eve.value(&format!("select {number}")), number.to_string(), "after one who left {way}");
        }
        eve.quit();
    }
}

#[test]
fn never_again_15_the_query_of_a_vanished_client_is_cancelled() {
    let gprxy = Config::new(Version::V15).start();
    let marker = "vanished-mid-query";
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    wire.send(&query(&format!("select pg_sleep(3600) /* {marker} */")));
    gprxy.server().await_running(marker);
    wire.vanish();
    gprxy.server().await_gone(marker);
}

#[test]
fn never_again_14_waiting_clients_hold_no_server_connection() {
    let gprxy = Config::new(Version::V15).pool_of(1).queue_wait("60s").start();
    let server = gprxy.server();
    server.sql("create database waiting_room template template0");
    let target = gprxy.target("bob").with_database("waiting_room");
    let first = Wire::login(&target).unwrap();
    let waiting: Vec<Wire> = (0..20).map(|_| login_until_queued(&target)).collect();
    assert_eq!(server.sql("select count(*) from pg_stat_activity where datname = 'waiting_room'"), "1");
    first.quit();
    waiting.into_iter().for_each(Wire::vanish);
    let mut last = Wire::login(&target).expect("the queue forgets those who left");
    assert_eq!(last.value("select 1"), "1");
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let server = Cluster::leaked(Version::V15);
    let mut gprxy = Config::with(server, Provider::shared()).start();
    let target = gprxy.target("bob");
    let mut idle = Wire::login(&target).unwrap();
    Wire::login(&target).unwrap().quit();
    server.stop();
    // Told why, when PostgreSQL said so, and in any case closed.
    let last = idle.drain();
    assert!(last.is_none_or(|complaint| complaint.code.starts_with("57") || complaint.code.starts_with("08")));

    let error = Wire::login(&target).err().expect("refused while the server is down");
    assert!(["08001", "57P03"].contains(&error.code.as_str()), "{error:?}");

    server.resume();
    let users = eventually("a login after the restart", || {
        let ran = psql::run(&target, &["select session_user"]);
        (ran.code == 0).then(|| ran.ok())
    });
    assert_eq!(users, WRITER.0);
    gprxy.assert_alive();
}

#[test]
fn what_one_client_asks_for_at_its_login_does_not_hold_up_the_others() {
    let gprxy = Config::new(Version::V15).set("pool.server_login_retry", "1h").start();
    for (name, value, code) in [("local_preload_libraries", "nope", "58P01"), ("role", "nobody_like_this", "22023")] {
        let error = Wire::login_with(&gprxy.target("bob"), &[(name, value)]).err().expect("refused");
        assert_eq!(error.code, code, "{error:?}");
        let mut eve = Wire::login(&eve(&gprxy)).expect("nobody else has asked for it");
        assert_eq!(eve.value("select 1"), "1");
        eve.vanish();
    }
}

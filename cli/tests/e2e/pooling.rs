//! `pool_mode = "transaction"` and `"statement"`: many clients on few server connections, and nothing of one in front of
//! another.

use serde_json::json;

use crate::support::eventually;
use crate::support::fixtures::WRITER;
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::provider::Provider;
use crate::support::psql;
use crate::support::target::Target;
use crate::support::wire::{Message, Wire, bind, cancel, describe_and_execute, frame, parse, query, sync};

const BOTH: [Version; 2] = [Version::V15, Version::V18];

fn transaction(version: Version) -> Config {
    Config::new(version).set("pool.pool_mode", "transaction").set("pool.query_wait_notify", 0)
}

/// Somebody else with the account of `bob`.
fn eve(gprxy: &Gprxy) -> Target {
    let claims = json!({ "sub": "eve", "preferred_username": "eve", "email": "eve@corp.example", "roles": ["writer"] });
    let mut target = gprxy.target("bob").with_user("eve@corp.example").with_password(&Provider::shared().mint(claims));
    target.account = WRITER.0;
    target
}

fn log_in(target: &Target) -> Wire {
    Wire::login(target).unwrap_or_else(|error| panic!("{error:?}"))
}

fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| message.tag).collect()
}

fn ask(wire: &mut Wire, bytes: &[Vec<u8>]) -> Vec<Message> {
    wire.send(&bytes.concat());
    wire.read_until_ready()
}

fn first_value(messages: &[Message]) -> String {
    let row = messages.iter().find(|message| message.tag == 'D').unwrap_or_else(|| panic!("no row: {messages:?}"));
    row.columns().swap_remove(0).expect("a value")
}

fn code(messages: &[Message]) -> String {
    let error = messages.iter().find(|message| message.tag == 'E').unwrap_or_else(|| panic!("no error: {messages:?}"));
    error.complaint().code
}

fn close(name: &str) -> Vec<u8> {
    frame('C', format!("S{name}\0").as_bytes())
}

fn describe(name: &str) -> Vec<u8> {
    frame('D', format!("S{name}\0").as_bytes())
}

#[test]
fn clients_share_a_connection_and_keep_their_transactions() {
    for version in BOTH {
        let gprxy = transaction(version).pool_of(1).start();
        let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy).in_plaintext()));
        let pid = bob.value("select pg_backend_pid()");
        assert_eq!(eve.value("select pg_backend_pid()"), pid, "one connection for both");
        bob.rows("begin").unwrap();
        eve.send(&query("select 'eve'"));
        assert_eq!(bob.value("select pg_backend_pid()"), pid);
        assert!(!eve.has_something(), "the transaction has the only connection");
        bob.rows("commit").unwrap();
        assert_eq!(first_value(&eve.read_until_ready()), "eve");
        // A failed transaction is one, too, until it is over.
        bob.rows("begin").unwrap();
        assert_eq!(bob.rows("select 1/0").unwrap_err().code, "22012");
        assert_eq!(bob.rows("select 1").unwrap_err().code, "25P02");
        bob.rows("rollback").unwrap();
        assert_eq!(eve.value("select 'still here'"), "still here");
    }
}

#[test]
fn state_that_no_statement_shows_never_reaches_another_person() {
    for version in BOTH {
        let gprxy = transaction(version).pool_of(1).start();
        gprxy.server().sql(
            "create or replace function hide() returns void language plpgsql as $$ begin \
             perform pg_advisory_lock(77); perform set_config('my.secret', 'of bob', false); \
             perform set_config('work_mem', '7MB', false); \
             execute 'create temp table if not exists hidden as select 42 as n'; \
             execute 'listen hidden_news'; execute 'prepare hidden as select 1'; \
             execute 'create temp sequence if not exists hidden_s'; perform nextval('hidden_s'); end $$",
        );
        let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy)));
        let pid = bob.value("select pg_backend_pid()");
        bob.rows("select hide()").unwrap();
        assert_eq!(bob.value("select current_setting('my.secret')"), "of bob", "one's own is still there");
        assert_eq!(eve.value("select pg_backend_pid()"), pid);
        for (question, answer) in [
            ("select coalesce(current_setting('my.secret', true), '')", ""),
            ("select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()", "0"),
            ("select count(*) from pg_class where relname like 'hidden%'", "0"),
            ("select count(*) from pg_listening_channels()", "0"),
            ("select count(*) from pg_prepared_statements where from_sql", "0"),
            ("select current_setting('work_mem') <> '7MB'", "t"),
        ] {
            assert_eq!(eve.value(question), answer, "{question} on {version:?}");
        }
        assert_eq!(eve.rows("select lastval()").unwrap_err().code, "55000");
    }
}

#[test]
fn with_pgbouncers_isolation_nothing_is_reset() {
    let gprxy = transaction(Version::V15).pool_of(1).set("pool.isolation", "pgbouncer").start();
    let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy)));
    bob.rows("do $$ begin perform set_config('my.secret', 'of bob', false); end $$").unwrap();
    assert_eq!(eve.value("select current_setting('my.secret', true)"), "of bob");
}

#[test]
fn reported_settings_follow_their_session() {
    for version in BOTH {
        let gprxy = transaction(version).pool_of(1).start();
        let mut tokyo = Wire::login_with(&gprxy.target("bob"), &[("application_name", "tokyo's")]).unwrap();
        let mut other = Wire::login_with(&gprxy.target("bob"), &[("application_name", "other")]).unwrap();
        tokyo.rows("set timezone = 'Asia/Tokyo'; set datestyle = 'German, DMY'").unwrap();
        for _ in 0..2 {
            assert_ne!(other.value("show timezone"), "Asia/Tokyo");
            assert_eq!(other.value("show application_name"), "other");
            assert_eq!(tokyo.value("show timezone"), "Asia/Tokyo");
            assert_eq!(tokyo.value("show datestyle"), "German, DMY");
            assert_eq!(tokyo.value("show application_name"), "tokyo's");
        }
        // What a transaction takes back, and what ends with it.
        for statement in ["begin", "set timezone = 'Europe/Rome'", "rollback"] {
            tokyo.rows(statement).unwrap();
        }
        other.value("select 1");
        assert_eq!(tokyo.value("show timezone"), "Asia/Tokyo");
        tokyo.rows("begin; set local timezone = 'Europe/Rome'; commit").unwrap();
        other.value("select 1");
        assert_eq!(tokyo.value("show timezone"), "Asia/Tokyo");
        let default = other.value("show timezone");
        tokyo.rows("reset timezone").unwrap();
        other.value("select 1");
        assert_eq!(tokyo.value("show timezone"), default);
    }
}

#[test]
fn startup_settings_hold_on_whatever_connection() {
    let gprxy = transaction(Version::V15).pool_of(2).start();
    let with = |options| Wire::login_with(&gprxy.target("bob"), &[("options", options)]).unwrap();
    let (mut small, mut large) = (with("-c work_mem=1MB"), with("-c work_mem=9MB"));
    for _ in 0..3 {
        assert_eq!(small.value("show work_mem"), "1MB");
        assert_eq!(large.value("show work_mem"), "9MB");
    }
    small.rows("discard all").unwrap();
    assert_eq!(small.value("show work_mem"), "1MB", "DISCARD ALL returns to what the client asked for");
}

#[test]
fn prepared_statements_follow_their_session() {
    for (version, mode) in BOTH.into_iter().flat_map(|version| ["transaction", "statement"].map(|mode| (version, mode)))
    {
        let gprxy = transaction(version).set("pool.pool_mode", mode).pool_of(1).start();
        let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy)));
        // The same name for two texts, the same text under two names.
        assert_eq!(tags(&ask(&mut bob, &[parse("s", "select 'bob ' || $1"), sync()])), "1Z");
        assert_eq!(tags(&ask(&mut eve, &[parse("s", "select 'eve ' || $1"), sync()])), "1Z");
        assert_eq!(tags(&ask(&mut eve, &[parse("t", "select 'bob ' || $1"), describe("t"), sync()])), "1tTZ");
        for _ in 0..2 {
            let run = |name, value| [bind(name, &[value]), describe_and_execute(), sync()];
            assert_eq!(first_value(&ask(&mut bob, &run("s", "1"))), "bob 1");
            assert_eq!(first_value(&ask(&mut eve, &run("s", "2"))), "eve 2");
            assert_eq!(first_value(&ask(&mut eve, &run("t", "3"))), "bob 3");
        }
        // Names that are taken and names that are not there, as with PostgreSQL.
        assert_eq!(code(&ask(&mut bob, &[parse("s", "select 1"), sync()])), "42P05");
        assert_eq!(code(&ask(&mut bob, &[bind("t", &["1"]), sync()])), "26000", "eve's name is not bob's");
        assert_eq!(code(&ask(&mut bob, &[describe("nothing"), sync()])), "26000");
        assert_eq!(tags(&ask(&mut bob, &[close("s"), close("nothing"), sync()])), "33Z");
        assert_eq!(code(&ask(&mut bob, &[bind("s", &["1"]), sync()])), "26000");
        assert_eq!(tags(&ask(&mut bob, &[parse("s", "select 5"), sync()])), "1Z");
        assert_eq!(first_value(&ask(&mut bob, &[bind("s", &[]), describe_and_execute(), sync()])), "5");
        // By SQL.
        eve.rows("deallocate s").unwrap();
        assert_eq!(code(&ask(&mut eve, &[bind("s", &["1"]), sync()])), "26000");
        assert_eq!(eve.rows("deallocate s").unwrap_err().code, "26000");
        eve.rows("deallocate all").unwrap();
        assert_eq!(code(&ask(&mut eve, &[bind("t", &["1"]), sync()])), "26000");
        assert_eq!(
            first_value(&ask(&mut bob, &[bind("s", &[]), describe_and_execute(), sync()])),
            "5",
            "bob's is there"
        );
    }
}

#[test]
fn a_pipeline_with_an_error_in_it_leaves_the_right_statements_behind() {
    let gprxy = transaction(Version::V15).pool_of(1).start();
    let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy)));
    ask(&mut eve, &[parse("a", "select 'eve'"), parse("b", "select 'eve'"), sync()]);
    let answers = ask(
        &mut bob,
        &[
            parse("a", "select 'bob a'"),
            parse("bad", "selec"),
            parse("b", "select 'bob b'"),
            close("a"),
            bind("b", &[]),
            describe_and_execute(),
            sync(),
        ],
    );
    assert_eq!(tags(&answers), "1EZ");
    eve.value("select 1");
    assert_eq!(first_value(&ask(&mut bob, &[bind("a", &[]), describe_and_execute(), sync()])), "bob a", "not closed");
    assert_eq!(code(&ask(&mut bob, &[bind("b", &[]), sync()])), "26000", "never parsed");
    assert_eq!(code(&ask(&mut bob, &[bind("bad", &[]), sync()])), "26000");
    assert_eq!(tags(&ask(&mut bob, &[parse("bad", "select 1"), sync()])), "1Z", "the name is free");
}

#[test]
fn the_unnamed_statement_is_ones_own_across_transactions() {
    let gprxy = transaction(Version::V15).pool_of(1).start();
    let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy)));
    ask(&mut bob, &[parse("", "select 'bob'"), sync()]);
    assert_eq!(code(&ask(&mut eve, &[bind("", &[]), sync()])), "26000", "bob's is not eve's");
    ask(&mut eve, &[parse("", "select 'eve'"), sync()]);
    assert_eq!(first_value(&ask(&mut bob, &[bind("", &[]), describe_and_execute(), sync()])), "bob");
    assert_eq!(first_value(&ask(&mut eve, &[bind("", &[]), describe_and_execute(), sync()])), "eve");
    bob.value("select 1");
    assert_eq!(code(&ask(&mut bob, &[bind("", &[]), sync()])), "26000", "a simple query takes its place");
    // One that is too long to be kept keeps its connection until it is used.
    let long = format!("select length('{}')::text", "x".repeat(50_000));
    ask(&mut bob, &[parse("", &long), sync()]);
    eve.send(&query("select 'waits'"));
    assert_eq!(first_value(&ask(&mut bob, &[bind("", &[]), describe_and_execute(), sync()])), "50000");
    assert_eq!(first_value(&eve.read_until_ready()), "waits");
}

#[test]
fn no_more_statements_than_allowed_stay_on_a_connection() {
    let gprxy = transaction(Version::V15).pool_of(1).set("pool.max_prepared_statements", 3).start();
    let mut bob = log_in(&gprxy.target("bob"));
    for n in 0..10 {
        ask(&mut bob, &[parse(&format!("s{n}"), &format!("select {n}")), sync()]);
    }
    for n in [0, 9, 5, 0, 1] {
        let answer = ask(&mut bob, &[bind(&format!("s{n}"), &[]), describe_and_execute(), sync()]);
        assert_eq!((tags(&answer).as_str(), first_value(&answer)), ("2TDCZ", n.to_string()));
    }
    let kept = bob.value("select count(*) from pg_prepared_statements where name <> ''");
    assert_eq!(kept, "3");
}

#[test]
fn what_cannot_follow_keeps_its_connection_and_is_told_once() {
    for version in BOTH {
        let gprxy = transaction(version).pool_of(2).start();
        let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy)));
        bob.rows("listen news").unwrap();
        bob.rows("create temp table mine as select 1 as n").unwrap();
        assert_eq!(bob.value("select n from mine"), "1");
        assert_eq!(bob.notices.len(), 1, "{:?}", bob.notices);
        assert!(bob.notices[0].message.contains("LISTEN"), "{:?}", bob.notices);
        for _ in 0..3 {
            assert_ne!(eve.value("select pg_backend_pid()"), bob.value("select pg_backend_pid()"));
        }
        eve.rows("notify news, 'of eve'").unwrap();
        let heard = bob.read().expect("a notification reaches an idle client");
        assert_eq!(heard.tag, 'A');
        bob.rows("discard all").unwrap();
        let (mut one, mut two) = (log_in(&gprxy.target("bob")), log_in(&gprxy.target("bob")));
        one.rows("begin").unwrap();
        two.rows("begin").unwrap();
        bob.send(&query("select 'let go'"));
        one.rows("commit").unwrap();
        assert_eq!(first_value(&bob.read_until_ready()), "let go", "it waits like the others");
    }
}

#[test]
fn statement_mode_refuses_transaction_blocks() {
    for version in BOTH {
        let gprxy = Config::new(version).set("pool.pool_mode", "statement").pool_of(1).start();
        let extended = [parse("", "begin"), bind("", &[]), describe_and_execute(), sync()].concat();
        for begin in [query("begin"), extended] {
            let mut bob = log_in(&gprxy.target("bob"));
            assert_eq!(bob.value("select 1"), "1");
            bob.send(&begin);
            let complaint = bob.expect_fatal();
            assert_eq!(complaint.code, "08P01", "{complaint:?}");
            assert!(complaint.message.contains("transaction blocks not allowed"), "{complaint:?}");
            assert_eq!(log_in(&gprxy.target("bob")).value("select 'goes on'"), "goes on");
        }
    }
}

#[test]
fn a_client_that_waits_for_its_turn_can_be_cancelled_and_others_are_not_hit() {
    let gprxy = transaction(Version::V15).pool_of(1).start();
    let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy).in_plaintext()));
    let (pid, key) = eve.key.clone();
    bob.rows("begin").unwrap();
    eve.send(&query("select 'never'"));
    eventually("eve waits", || {
        cancel(&gprxy.target("bob"), pid, &key);
        eve.has_something().then_some(())
    });
    assert_eq!(code(&eve.read_until_ready()), "57014");
    assert_eq!(bob.value("select 'undisturbed'"), "undisturbed");
    bob.rows("commit").unwrap();
    assert_eq!(eve.value("select 'goes on'"), "goes on");
    // The same for a pipeline of the extended protocol, up to its Sync.
    bob.rows("begin").unwrap();
    eve.send(&[parse("", "select 'never'"), bind("", &[]), describe_and_execute()].concat());
    eventually("eve waits again", || {
        cancel(&gprxy.target("bob"), pid, &key);
        eve.has_something().then_some(())
    });
    eve.send(&sync());
    assert_eq!(code(&eve.read_until_ready()), "57014");
    bob.rows("commit").unwrap();
    assert_eq!(eve.value("select 'goes on'"), "goes on");
}

#[test]
fn a_client_that_waits_too_long_is_refused() {
    let gprxy = transaction(Version::V15).pool_of(1).queue_wait("300ms").start();
    let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy)));
    bob.rows("begin").unwrap();
    eve.send(&query("select 1"));
    assert_eq!(eve.expect_fatal().code, "53300");
    bob.rows("commit").unwrap();
}

#[test]
fn everybody_s_statements_are_recorded_with_the_right_name() {
    let gprxy = transaction(Version::V15).pool_of(1).start();
    let (mut bob, mut eve) = (log_in(&gprxy.target("bob")), log_in(&eve(&gprxy)));
    for n in 0..5 {
        bob.value(&format!("select 'of bob {n}'"));
        ask(&mut eve, &[parse(&format!("s{n}"), &format!("select 'of eve {n}'")), sync()]);
        ask(&mut eve, &[bind(&format!("s{n}"), &[]), describe_and_execute(), sync()]);
        eve.rows(&format!("deallocate s{n}")).unwrap();
    }
    bob.quit();
    eve.quit();
    gprxy.await_audited("deallocate s4");
    let lines = gprxy.audit();
    let of = |marker: &str, subject: &str| {
        let all: Vec<_> =
            lines.iter().filter(|line| line.statement().is_some_and(|text| text.contains(marker))).collect();
        assert!(all.iter().all(|line| line.subject() == Some(subject) && line.sqlstate() == Some("00000")), "{marker}");
        all.len()
    };
    let bob =
        lines.iter().find(|line| line.user() == Some("bob@corp.example")).and_then(|line| line.subject()).unwrap();
    assert_eq!(of("of bob", bob), 5);
    assert_eq!(of("of eve", "eve"), 5);
    assert_eq!(of("deallocate", "eve"), 5);
    assert!(!lines.iter().any(|line| line.statement().is_some_and(|text| text.contains("SET application_name"))));
}

#[test]
fn pgbench_runs_in_every_mode_on_few_connections() {
    let gprxy = transaction(Version::V15).pool_of(2).start();
    let server = gprxy.server();
    server.create_database("bench_few");
    let target = gprxy.target("bob").with_database("bench_few");
    for mode in ["simple", "extended", "prepared"] {
        let mut command = psql::tool(&target, "pgbench");
        let script = std::env::temp_dir().join(format!("gprxy-bench-{}-{mode}.sql", std::process::id()));
        // While pgbench prepares a client's statements it serves no other one, and so ends nobody's transaction.
        let lines = if mode == "prepared" { "" } else { "begin;\nselect 2;\nend;\n" };
        std::fs::write(&script, format!("{lines}select :client_id;\n")).unwrap();
        command.args(["-n", "-c", "16", "-j", "2", "-t", "50", "-M", mode, "-f"]).arg(&script);
        let ran = psql::finish(command);
        let _ = std::fs::remove_file(&script);
        let out = ran.ok();
        assert!(out.contains("processed: 800/800"), "{mode}: {out}");
    }
    server.await_idle("bench_few", 2);
}

/// Of 15 only: pg_dump refuses servers that are newer than itself, and the one at hand is 15's.
#[test]
fn pg_dump_runs_twice_over_a_pool_of_one() {
    let gprxy = transaction(Version::V15).pool_of(1).start();
    // A database of its own: others make things in the shared one meanwhile.
    gprxy.server().create_database("dumped_twice");
    gprxy.server().sql_in(
        "dumped_twice",
        "create table kept (id int primary key, body text); insert into kept values (1, 'a row'), (2, null); \
         create sequence numbers; create view texts as select body from kept; \
         create function twice(n int) returns int language sql as 'select 2 * n'; \
         grant select on all tables in schema public to app_writer; \
         grant select on all sequences in schema public to app_writer",
    );
    let target = gprxy.target("bob").with_database("dumped_twice");
    let dump = || psql::finish(psql::tool(&target, "pg_dump")).ok();
    // Since 15.14 it brackets itself with a random key.
    let body =
        |dump: String| dump.lines().filter(|line| !line.contains("restrict")).map(str::to_owned).collect::<Vec<_>>();
    let first = body(dump());
    for what in ["CREATE TABLE", "CREATE SEQUENCE", "CREATE VIEW", "CREATE FUNCTION", "1\ta row"] {
        assert!(first.iter().any(|line| line.starts_with(what)), "{what} in {first:?}");
    }
    assert_eq!(body(dump()), first);
}

#[test]
fn a_parameter_that_cannot_follow_is_named_in_the_log() {
    let config = Config::new(Version::V15).set("pool.pool_mode", "transaction");
    let gprxy = config.set("pool.track_extra_parameters", "IntervalStyle, search_path").start();
    let mut bob = Wire::login(&gprxy.target("bob")).unwrap();
    assert_eq!(bob.value("select 1"), "1");
    let log = gprxy.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("track_extra_parameters")).collect();
    assert!(told.len() == 1 && told[0].contains("search_path"), "{log}");
}

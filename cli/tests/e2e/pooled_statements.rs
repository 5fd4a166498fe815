//! What becomes of statements in transaction mode: refused where they would tie the session, kept where they come again.

use serde_json::json;

use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::provider::Provider;
use crate::support::wire::{Message, Wire, bind, describe_and_execute, frame, parse, query, sync};

const BOTH: [Version; 2] = [Version::V15, Version::V18];

fn start(version: Version, name: &str, value: impl Into<toml::Value>) -> Gprxy {
    Config::new(version).set("pool.pool_mode", "transaction").set(name, value).pool_of(1).start()
}

fn bob(gprxy: &Gprxy) -> Wire {
    Wire::login(&gprxy.target("bob")).unwrap()
}

fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| message.tag).collect()
}

fn ask(wire: &mut Wire, bytes: &[Vec<u8>]) -> Vec<Message> {
    wire.send(&bytes.concat());
    wire.read_until_ready()
}

fn code(messages: &[Message]) -> String {
    let error = messages.iter().find(|message| message.tag == 'E').unwrap_or_else(|| panic!("no error: {messages:?}"));
    error.complaint().code
}

#[test]
fn what_would_tie_a_session_is_refused_where_it_is_not_allowed() {
    for version in BOTH {
        let gprxy = start(version, "pool.session_state", "refuse");
        let mut bob = bob(&gprxy);
        for text in
            ["listen refused_news", "set work_mem = '64MB'", "prepare q as select 1", "select pg_advisory_lock(5)"]
        {
            let complaint = bob.rows(text).unwrap_err();
            assert_eq!(complaint.code, "0A000", "{text}: {complaint:?}");
            assert!(complaint.message.contains("not allowed here"), "{complaint:?}");
        }
        assert!(bob.notices.is_empty(), "{:?}", bob.notices);
        assert_eq!(bob.rows("select 1 from pg_listening_channels()").unwrap(), [""; 0]);
        assert_eq!(
            bob.value("select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"),
            "0"
        );
        // In a pipeline, in its turn, and in a transaction, which fails with it.
        let run = |text: &str| [parse("", text), bind("", &[]), describe_and_execute()].concat();
        let answer = ask(&mut bob, &[run("select 'one'"), run("listen refused_news"), run("select 'two'"), sync()]);
        assert_eq!(tags(&answer), "12TDCEZ");
        assert_eq!(code(&answer), "0A000");
        bob.rows("begin").unwrap();
        assert_eq!(bob.rows("create temp table t (a int)").unwrap_err().code, "0A000");
        assert_eq!(bob.rows("select 1").unwrap_err().code, "25P02");
        bob.rows("rollback").unwrap();
        // What ends with its transaction, and what follows the session, is as good as ever.
        bob.rows("begin; set local work_mem = '64MB'; select pg_advisory_xact_lock(5); commit").unwrap();
        bob.rows("set timezone = 'Asia/Tokyo'").unwrap();
        assert_eq!(bob.value("show timezone"), "Asia/Tokyo");
        bob.value("select 'the last one'");
        bob.quit();
        gprxy.await_audited("the last one");
        let lines = gprxy.audit();
        let refused: Vec<_> = lines.iter().filter(|line| line.sqlstate() == Some("0A000")).collect();
        assert_eq!(refused.len(), 6, "{refused:?}");
        assert!(refused.iter().all(|line| line.statement().is_some_and(|text| !text.contains("gprxy"))), "{refused:?}");
    }
}

/// What the server connection keeps of a text: how often it was run since it was parsed.
fn runs(wire: &mut Wire, text: &str) -> Vec<String> {
    let quoted = text.replace('\'', "''");
    wire.rows(&format!("select generic_plans + custom_plans from pg_prepared_statements where statement = '{quoted}'"))
        .unwrap()
}

#[test]
fn a_query_that_is_prepared_again_and_again_is_parsed_once() {
    for version in BOTH {
        let gprxy = start(version, "databases.*.cache_unnamed_statements", true);
        let mut bob = bob(&gprxy);
        let text = "select $1::int + 1 -- again";
        let once = [parse("", text), bind("", &["1"]), describe_and_execute(), sync()];
        for _ in 0..7 {
            assert_eq!(tags(&ask(&mut bob, &once)), "12TDCZ");
        }
        assert_eq!(runs(&mut bob, text), ["6"], "all but the first one, which might not have come again");
        // Everybody shares it.
        let claims =
            json!({ "sub": "eve", "preferred_username": "eve", "email": "eve@corp.example", "roles": ["writer"] });
        let token = Provider::shared().mint(claims);
        let mut eve = Wire::login(&gprxy.target("bob").with_user("eve@corp.example").with_password(&token)).unwrap();
        ask(&mut eve, &once);
        // The one that is bound later is the same, and gone behind a simple query or a Close, as ever.
        ask(&mut bob, &[parse("", text), sync()]);
        assert_eq!(tags(&ask(&mut bob, &[bind("", &["2"]), describe_and_execute(), sync()])), "2TDCZ");
        bob.value("select 1");
        assert_eq!(code(&ask(&mut bob, &[bind("", &["2"]), sync()])), "26000");
        ask(&mut bob, &[parse("", text), frame('C', b"S\0"), sync()]);
        assert_eq!(code(&ask(&mut bob, &[bind("", &["2"]), sync()])), "26000");
        // A Parse that fails leaves none, and a failed transaction prepares nothing.
        assert_eq!(code(&ask(&mut bob, &[parse("", text), parse("", "select syntax error here"), sync()])), "42601");
        assert_eq!(code(&ask(&mut bob, &[bind("", &["2"]), sync()])), "26000");
        bob.rows("begin").unwrap();
        let _ = bob.rows("select 1/0");
        assert_eq!(tags(&ask(&mut bob, &once)), "EZ");
        bob.rows("rollback").unwrap();
        // What is no query is not kept, however often it comes.
        for _ in 0..3 {
            ask(&mut bob, &[parse("", "reset statement_timeout"), bind("", &[]), describe_and_execute(), sync()]);
        }
        assert!(runs(&mut bob, "reset statement_timeout").is_empty());
    }
}

#[test]
fn a_table_that_changes_under_a_kept_query_is_told_once() {
    let gprxy = start(Version::V18, "pool.cache_unnamed_statements", true);
    let server = gprxy.server();
    server.sql(
        "create table kept_query (a int); grant select on kept_query to public; insert into kept_query values (1)",
    );
    let mut bob = bob(&gprxy);
    let once = [parse("", "select * from kept_query"), bind("", &[]), describe_and_execute(), sync()];
    for _ in 0..3 {
        assert_eq!(tags(&ask(&mut bob, &once)), "12TDCZ");
    }
    server.sql("alter table kept_query add b text default 'new'");
    assert_eq!(code(&ask(&mut bob, &once)), "0A000", "cached plan must not change result type");
    let answer = ask(&mut bob, &once);
    let row = answer.iter().find(|message| message.tag == 'D').expect("parsed anew");
    assert_eq!(row.columns(), [Some("1".to_owned()), Some("new".to_owned())]);
    server.sql("drop table kept_query");
    bob.send(&query("select 'goes on'"));
    assert_eq!(tags(&bob.read_until_ready()), "TDCZ");
}

/// Days from the first of January 2020: 1 where the month comes first, 31 where the day does.
const DAY: &str = "select '01/02/2020'::date - date '2020-01-01' -- kept by its settings";

/// The value that a statement of this name gives, of the connection as it is.
fn run(wire: &mut Wire, prepared: &[Vec<u8>], name: &str) -> String {
    let answer = ask(wire, &[prepared.concat(), bind(name, &[]), describe_and_execute(), sync()]);
    let row = answer.iter().find(|message| message.tag == 'D').unwrap_or_else(|| panic!("no row: {answer:?}"));
    row.columns()[0].clone().expect("a number")
}

#[test]
fn a_text_means_what_it_means_by_the_settings_of_its_session() {
    for version in BOTH {
        for isolation in ["identity", "pgbouncer"] {
            let gprxy = Config::new(version)
                .set("pool.pool_mode", "transaction")
                .set("pool.isolation", isolation)
                .set("pool.cache_unnamed_statements", true)
                .pool_of(1)
                .start();
            let (mut dmy, mut mdy) = (bob(&gprxy), bob(&gprxy));
            dmy.rows("set datestyle = 'ISO, DMY'").unwrap();
            mdy.rows("set datestyle = 'ISO, MDY'").unwrap();
            for (wire, days) in [(&mut dmy, "31"), (&mut mdy, "1")] {
                assert_eq!(run(wire, &[parse("day", DAY)], "day"), days, "{version:?} {isolation}");
            }
            for (wire, days) in [(&mut dmy, "31"), (&mut mdy, "1")] {
                assert_eq!(run(wire, &[], "day"), days, "{version:?} {isolation}: later");
            }
            // The unnamed one, which stays on the connection when it comes again.
            for _ in 0..3 {
                for (wire, days) in [(&mut dmy, "31"), (&mut mdy, "1")] {
                    assert_eq!(run(wire, &[parse("", DAY)], ""), days, "{version:?} {isolation}: unnamed");
                }
            }
            assert_eq!(runs(&mut dmy, DAY).len(), 2, "one for each meaning");
            // A SET in the same pipeline, which nobody hears of before the end.
            let set = [parse("", "set datestyle = 'ISO, DMY'"), bind("", &[]), describe_and_execute()].concat();
            let answer = ask(&mut mdy, &[set, parse("late", DAY), sync()]);
            assert_eq!(tags(&answer), "12nC1SZ", "{answer:?}");
            assert_eq!(run(&mut mdy, &[], "late"), "31");
            assert_eq!(run(&mut mdy, &[], "day"), "1", "it was prepared before");
        }
    }
}

#[test]
fn startup_parameters_can_be_ignored_and_the_name_carries_the_address() {
    for mode in ["session", "transaction"] {
        let gprxy = Config::new(Version::V15)
            .set("pool.pool_mode", mode)
            .set("server.ignore_startup_parameters", "extra_float_digits, work_mem")
            .set("server.application_name_add_host", true)
            .set("server.tcp_keepcnt", 4)
            .set("server.tcp_user_timeout", "30s")
            .start();
        let parameters = [
            ("application_name", "e2e"),
            ("extra_float_digits", "no number, and nobody minds"),
            ("options", "-c work_mem=1GB -c geqo=off"),
        ];
        let mut bob = Wire::login_with(&gprxy.target("bob"), &parameters).unwrap();
        let name = bob.value("select application_name from pg_stat_activity where pid = pg_backend_pid()");
        assert!(name.starts_with("e2e - 127.0.0.1:"), "{mode}: {name}");
        assert_eq!((bob.value("show work_mem").as_str(), bob.value("show geqo").as_str()), ("4MB", "off"));
    }
}

#[test]
fn sql_frees_the_names_of_the_protocol_wherever_it_stands() {
    for version in BOTH {
        let gprxy = start(version, "pool.max_prepared_statements", 10);
        let mut bob = bob(&gprxy);
        let one = |text: &str| [parse("s1", text), bind("s1", &[]), describe_and_execute(), sync()];
        let value = |answer: &[Message]| answer.iter().find(|it| it.tag == 'D').map(|row| row.columns().swap_remove(0));
        for (n, free) in [
            "begin; deallocate s1; select 1; commit",
            "/* no more of it */ deallocate s1",
            "deallocate prepare \"s1\"; deallocate all",
            "do $$ begin execute 'deallocate s1'; end $$",
        ]
        .iter()
        .enumerate()
        {
            let answer = ask(&mut bob, &one(&format!("select 'round {n}'")));
            assert_eq!(value(&answer), Some(Some(format!("round {n}"))), "{answer:?}");
            bob.rows(free).unwrap();
            // In one pipeline, behind the answer or before it.
            let again = [query("deallocate all"), one("select 'again'").concat()];
            bob.send(&again.concat());
            bob.read_until_ready();
            assert_eq!(value(&bob.read_until_ready()), Some(Some("again".to_owned())), "{free}");
            bob.rows("deallocate s1").unwrap();
            assert_eq!(code(&ask(&mut bob, &[bind("s1", &[]), sync()])), "26000", "{free}");
        }
        // Freed by the extended protocol, and used again in the same pipeline.
        ask(&mut bob, &one("select 'first'"));
        let free = [parse("", "deallocate s1"), bind("", &[]), describe_and_execute()];
        let answer = ask(&mut bob, &[free.concat(), one("select 'second'").concat()]);
        assert_eq!(tags(&answer), "12nC12TDCZ");
    }
}

#[test]
fn a_statement_whose_answer_has_changed_is_prepared_anew_for_whoever_parses_it() {
    for version in BOTH {
        let gprxy = start(version, "pool.max_prepared_statements", 100);
        let server = gprxy.server();
        server.sql("drop table if exists widening; create table widening (a int); grant select on widening to public");
        let (mut one, mut other) = (bob(&gprxy), bob(&gprxy));
        let once = |name: &str| [parse(name, "select * from widening"), sync()].concat();
        let run = |name: &str| [bind(name, &[]), describe_and_execute(), sync()].concat();
        for wire in [&mut one, &mut other] {
            assert_eq!(tags(&ask(wire, &[once("w")])), "1Z");
            assert_eq!(tags(&ask(wire, &[run("w")])), "2TCZ");
        }
        server.sql("alter table widening add column b int");
        // As with PostgreSQL: it fails until it is prepared anew.
        assert_eq!(code(&ask(&mut one, &[run("w")])), "0A000");
        assert_eq!(tags(&ask(&mut other, &[once("again"), run("again")])), "1Z");
        assert_eq!(tags(&other.read_until_ready()), "2TCZ", "on {version:?}");
        assert_eq!(tags(&ask(&mut one, &[frame('C', b"Sw\0"), once("w")])), "31Z");
        assert_eq!(tags(&ask(&mut one, &[run("w")])), "2TCZ", "on {version:?}");
    }
}

#[test]
fn half_a_message_holds_no_server_connection() {
    for version in BOTH {
        let gprxy = Config::new(version).set("pool.pool_mode", "transaction").pool_of(1).queue_wait("10s").start();
        let (mut half, mut other) = (bob(&gprxy), bob(&gprxy));
        for message in [parse("s1", "select 'whole'"), query("select 'whole'"), bind("", &[])] {
            let (first, rest) = message.split_at(6);
            ask(&mut half, &[query("select 'in front of it'"), first.to_vec()]);
            assert_eq!(other.value("select 'goes on'"), "goes on");
            half.send(&[rest, &sync()].concat());
            half.read_until_ready();
            if message[0] == b'Q' {
                half.read_until_ready();
            }
        }
    }
}

#[test]
fn names_of_the_protocol_are_taken_and_freed_on_any_connection() {
    for version in BOTH {
        let gprxy = Config::new(version).set("pool.pool_mode", "transaction").pool_of(2).start();
        let server = gprxy.server();
        let table = format!("taken_name_{version:?}").to_lowercase();
        server.sql(&format!("create table {table} (a int); grant select on {table} to public"));
        let (mut bob, mut other) = (bob(&gprxy), bob(&gprxy));
        ask(&mut bob, &[parse("s1", &format!("select * from {table}")), parse("s2", "select 'two'"), sync()]);
        // Its connection is somebody else's for now: it gets one that has none of them.
        other.rows("begin").unwrap();
        assert_eq!(bob.rows("prepare s2 as select 'mine'").unwrap_err().code, "42P05", "the session has it");
        let answer = tags(&ask(&mut bob, &[bind("s2", &[]), describe_and_execute(), sync()]));
        assert_eq!(answer.trim_start_matches('N'), "2TDCZ", "a PREPARE ties the session");
        // Its text would be refused by now.
        server.sql(&format!("drop table {table}"));
        let frees = [parse("", "deallocate s1"), bind("", &[]), describe_and_execute(), sync()];
        assert_eq!(tags(&ask(&mut bob, &frees)), "12nCZ", "{version:?}");
        assert_eq!(code(&ask(&mut bob, &[bind("s1", &[]), sync()])), "26000");
        other.rows("commit").unwrap();
    }
}

#[test]
fn a_query_that_falls_with_what_went_before_it_is_answered() {
    for version in BOTH {
        let gprxy = Config::new(version).set("pool.pool_mode", "transaction").pool_of(1).start();
        let (mut bob, mut other) = (bob(&gprxy), bob(&gprxy));
        ask(&mut bob, &[parse("s1", "select 'one'"), sync()]);
        // Unseen: the name is free as far as the server is concerned, taken again, and not known to be.
        other.rows("deallocate all").unwrap();
        other.rows("do $$ begin execute 'prepare s1 as select 2'; end $$").unwrap();
        let complaint = bob.rows("deallocate s1; select 1").unwrap_err();
        assert_eq!(complaint.code, "42P05", "{complaint:?}");
        assert_eq!(bob.value("select 'goes on'"), "goes on");
    }
}

//! State that a function leaves behind under a harmless name: nobody else finds it with `isolation = "identity"`, everybody
//! in the pool does with `isolation = "pgbouncer"`.

use serde_json::json;

use crate::support::fixtures::CLEARTEXT;
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::Provider;
use crate::support::target::Target;
use crate::support::wire::{Wire, bind, describe_and_execute, parse, sync};

const BOTH: [Version; 2] = [Version::V15, Version::V18];

/// Calls, and a question that tells whether it left anything: what it says then, and what it says on a clean connection.
const HIDDEN: [(&str, &str, &str, &str); 9] = [
    (
        "perform pg_advisory_lock(91)",
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
        "1",
        "0",
    ),
    (
        "perform set_config('my.secret', 'of bob', false)",
        "select coalesce(current_setting('my.secret', true), '')",
        "of bob",
        "",
    ),
    ("perform set_config('work_mem', '7MB', false)", "show work_mem", "7MB", "4MB"),
    ("perform set_config('TimeZone', 'Asia/Tokyo', false)", "show timezone", "Asia/Tokyo", "UTC"),
    (
        "create temp table left_behind as select 1 as n",
        "select count(*) from pg_class where relname = 'left_behind'",
        "1",
        "0",
    ),
    ("execute 'listen bobs_news'", "select count(*) from pg_listening_channels()", "1", "0"),
    ("execute 'prepare kept as select 1'", "select count(*) from pg_prepared_statements where from_sql", "1", "0"),
    (
        "execute 'declare held cursor with hold for select 1'",
        "select count(*) from pg_cursors where is_holdable",
        "1",
        "0",
    ),
    ("execute 'set role app_writer'", "select current_user <> session_user", "t", "f"),
];

fn start(version: Version, isolation: &str, database: &str) -> (Target, Target, Gprxy) {
    Cluster::shared(version).sql(&format!("create database {database} template template0 owner {}", CLEARTEXT.0));
    let config = Config::new(version).role("writer", CLEARTEXT, 1).set("pool.pool_mode", "transaction").pool_of(1);
    let gprxy = config.set("pool.isolation", isolation).start();
    let bob = gprxy.target("bob").with_database(database);
    let claims = json!({ "sub": "eve", "email": "eve@corp.example", "roles": ["writer"] });
    let eve = bob.clone().with_user("eve@corp.example").with_password(&Provider::shared().mint(claims));
    (bob, eve, gprxy)
}

/// Each kind of state by a function `harmless`, and then what bob and eve are told.
fn leave_and_look(version: Version, isolation: &str, database: &str, look: impl Fn(&str, &str, &str, &str, &str)) {
    let (bob, eve, mut gprxy) = start(version, isolation, database);
    let (mut bob, mut eve) = (Wire::login(&bob).unwrap(), Wire::login(&eve).unwrap());
    for (body, question, left, clean) in HIDDEN {
        bob.rows(&format!(
            "create or replace function harmless() returns void language plpgsql as $$ begin {body}; end $$"
        ))
        .unwrap_or_else(|error| panic!("{body}: {error:?}"));
        assert_eq!(eve.value(question), clean, "before {body} on {version:?}");
        bob.rows("select harmless()").unwrap_or_else(|error| panic!("{body}: {error:?}"));
        let (bobs, eves) = (bob.value(question), eve.value(question));
        look(body, &bobs, &eves, left, clean);
        // The next kind begins with a clean connection.
        bob.rows("discard all").unwrap();
    }
    gprxy.assert_alive();
}

#[test]
fn what_a_function_leaves_behind_is_its_person_s_own() {
    for version in BOTH {
        leave_and_look(version, "identity", "hidden_from", |body, bobs, eves, left, clean| {
            assert_eq!(bobs, left, "{body} on {version:?}: the connection is still bob's");
            assert_eq!(eves, clean, "{body} on {version:?}: eve finds nothing");
        });
    }
}

#[test]
fn with_pgbouncers_isolation_it_is_everybody_s() {
    for version in BOTH {
        leave_and_look(version, "pgbouncer", "seen_by", |body, bobs, eves, left, clean| {
            assert_eq!(bobs, left, "{body} on {version:?}");
            // What the server reports is brought to what each session has been told.
            let expected = if body.contains("TimeZone") { clean } else { left };
            assert_eq!(eves, expected, "{body} on {version:?}");
        });
    }
}

#[test]
fn the_last_value_of_a_sequence_is_nobody_else_s() {
    for version in BOTH {
        let (bob, eve, _gprxy) = start(version, "identity", "counted");
        let (mut bob, mut eve) = (Wire::login(&bob).unwrap(), Wire::login(&eve).unwrap());
        bob.rows("create sequence numbers").unwrap();
        assert_eq!(bob.value("select setval('numbers', 41)"), "41");
        assert_eq!(bob.value("select currval('numbers')"), "41");
        for question in ["select currval('numbers')", "select lastval()"] {
            assert_eq!(eve.rows(question).unwrap_err().code, "55000", "{question} on {version:?}");
        }
        assert_eq!(eve.value("select nextval('numbers')"), "42");
        assert_eq!(bob.rows("select lastval()").unwrap_err().code, "55000", "nor does bob find eve's");
    }
}

/// What PostgreSQL works out while it prepares a statement may be of whoever had it prepared.
#[test]
fn a_plan_that_holds_one_person_s_setting_answers_nobody_else() {
    for version in BOTH {
        let (bob, eve, _gprxy) = start(version, "identity", "planned");
        let (mut bob, mut eve) = (Wire::login(&bob).unwrap(), Wire::login(&eve).unwrap());
        bob.rows("create table belongings (owner text)").unwrap();
        bob.rows("insert into belongings values ('bob'), ('eve')").unwrap();
        // Declared wrongly, as such functions often are.
        bob.rows("create function me() returns text immutable language sql as $$ select current_setting('my.name') $$")
            .unwrap();
        let ask = |wire: &mut Wire, name: &str| {
            wire.rows(&format!("do $$ begin perform set_config('my.name', '{name}', false); end $$")).unwrap();
            let text = "select owner from belongings where owner = me()";
            wire.send(&[parse("mine", text), sync()].concat());
            wire.read_until_ready();
            wire.send(&[bind("mine", &[]), describe_and_execute(), sync()].concat());
            let answer = wire.read_until_ready();
            let rows: Vec<_> = answer.iter().filter(|message| message.tag == 'D').map(|row| row.columns()).collect();
            assert_eq!(rows, [[Some(name.to_owned())]], "{name} on {version:?}: {answer:?}");
        };
        ask(&mut bob, "bob");
        ask(&mut eve, "eve");
    }
}

use super::*;
use crate::codec::backend::TransactionStatus;
use TransactionStatus::{Idle, InTransaction};

fn book() -> Statements {
    Statements::new(Limits::default())
}

fn parse(book: &mut Statements, name: &str, text: &str) {
    book.parse(name.as_bytes(), text.as_bytes(), text.len() as u64);
}

/// Text and statement name of what has been executed.
fn seen(execution: Option<Execution>) -> (Option<u64>, String, Option<String>) {
    let execution = execution.expect("an execution");
    let text = execution.text.map_or("?".into(), |text| String::from_utf8_lossy(text.bytes()).into_owned());
    (execution.id, text, execution.prepared.map(|name| String::from_utf8_lossy(&name).into_owned()))
}

fn ran(id: u64, text: &str, prepared: &str) -> (Option<u64>, String, Option<String>) {
    (Some(id), text.into(), Some(prepared.into()))
}

/// Defines a statement, with its Sync and all answers.
fn define(book: &mut Statements, name: &str, text: &str) {
    parse(book, name, text);
    book.sync();
    assert_eq!(book.handle_parse_complete(), None);
    assert_eq!(book.handle_ready(Idle), None);
}

/// Binds and executes a statement, with all answers, and returns what ran.
fn run(book: &mut Statements, statement: &str) -> (Option<u64>, String, Option<String>) {
    book.bind(b"", statement.as_bytes());
    book.execute(b"");
    book.sync();
    assert_eq!(book.handle_bind_complete(), None);
    let ran = seen(book.handle_command_complete(b"SELECT 1"));
    assert_eq!(book.handle_ready(Idle), None);
    ran
}

fn nothing_is_kept(book: &Statements) {
    assert_eq!((book.counted, book.passing, book.outstanding.len()), (0, 0, 0));
}

#[test]
fn a_pipeline_is_joined() {
    let mut book = book();
    parse(&mut book, "", "select $1");
    book.describe();
    for _ in 0..3 {
        book.bind(b"", b"");
        book.describe();
        book.execute(b"");
    }
    parse(&mut book, "s", "select 2");
    book.bind(b"p", b"s");
    assert_eq!(book.execute(b"p"), 4);
    book.sync();
    assert_eq!(book.handle_parse_complete(), None);
    book.handle_describe_complete();
    for id in 1..=3 {
        assert_eq!(book.handle_bind_complete(), None);
        book.handle_describe_complete();
        assert_eq!(seen(book.handle_command_complete(b"SELECT 1")), ran(id, "select $1", ""));
    }
    assert_eq!(book.handle_parse_complete(), None);
    assert_eq!(book.handle_bind_complete(), None);
    assert_eq!(seen(book.handle_command_complete(b"SELECT 1")), ran(4, "select 2", "s"));
    assert_eq!(book.handle_ready(Idle), None);
    assert_eq!(run(&mut book, "s"), ran(5, "select 2", "s"));
}

#[test]
fn a_failed_parse_replaces_nothing() {
    let mut book = book();
    define(&mut book, "s", "drop table users");
    // All of this is sent before the first answer: the second segment runs what the first one could not replace.
    parse(&mut book, "s", "select 1");
    book.sync();
    book.bind(b"", b"s");
    book.execute(b"");
    book.sync();
    assert_eq!(seen(book.handle_error()), (None, "select 1".into(), Some("s".into())));
    assert_eq!(book.handle_ready(Idle), None);
    assert_eq!(book.handle_bind_complete(), None);
    assert_eq!(seen(book.handle_command_complete(b"DROP TABLE")), ran(1, "drop table users", "s"));
}

#[test]
fn what_stands_between_an_error_and_its_sync_never_happened() {
    let mut book = book();
    define(&mut book, "s", "select 1");
    book.bind(b"", b"s");
    book.execute(b"");
    parse(&mut book, "t", "select 2");
    book.close(Target::Statement, b"s");
    book.query(b"select 3", 8);
    book.sync();
    assert_eq!(book.handle_bind_complete(), None);
    assert_eq!(seen(book.handle_error()), ran(1, "select 1", "s"));
    assert_eq!(book.handle_ready(Idle), None);
    assert_eq!(run(&mut book, "s"), ran(3, "select 1", "s"));
    assert_eq!(run(&mut book, "t"), (Some(4), "?".into(), Some("t".into())));
}

#[test]
fn an_error_ahead_of_its_sync_skips_what_is_still_sent() {
    let mut book = book();
    parse(&mut book, "", "selec");
    assert_eq!(seen(book.handle_error()).1, "selec");
    parse(&mut book, "s", "select 1");
    assert_eq!(book.query(b"select 2", 8), 1);
    book.bind(b"", b"s");
    assert_eq!(book.execute(b""), 2);
    nothing_is_kept(&book);
    book.sync();
    assert_eq!(book.handle_ready(Idle), None);
    assert_eq!(run(&mut book, "s").1, "?");
    define(&mut book, "s", "select 1");
    assert_eq!(run(&mut book, "s"), ran(4, "select 1", "s"));
}

#[test]
fn an_error_of_a_simple_query_skips_nothing() {
    let mut book = book();
    book.query(b"selec", 5);
    book.query(b"select 1", 8);
    assert_eq!(book.handle_error(), None);
    assert_eq!(seen(book.handle_ready(Idle)), (Some(1), "selec".into(), None));
    book.handle_describe_complete();
    assert_eq!(book.handle_command_complete(b"SELECT 1"), None);
    assert_eq!(seen(book.handle_ready(Idle)), (Some(2), "select 1".into(), None));
    nothing_is_kept(&book);
}

#[test]
fn errors_without_a_message_to_blame_change_nothing() {
    let mut book = book();
    // A server's goodbye to an idle client.
    assert_eq!(book.handle_error(), None);
    // A deferred constraint fails when the Sync commits.
    book.sync();
    parse(&mut book, "s", "select 1");
    assert_eq!(book.handle_error(), None);
    assert_eq!(book.handle_ready(Idle), None);
    assert_eq!(book.handle_parse_complete(), None);
    assert_eq!(run(&mut book, "s").1, "select 1");
    // What failed here is no execution.
    book.describe();
    book.sync();
    assert_eq!(book.handle_error(), None);
    assert_eq!(book.handle_ready(Idle), None);
}

#[test]
fn a_simple_query_destroys_what_is_unnamed() {
    let mut book = book();
    parse(&mut book, "", "select 1");
    parse(&mut book, "s", "select 2");
    book.sync();
    assert_eq!(book.handle_parse_complete(), None);
    assert_eq!(book.handle_parse_complete(), None);
    let _ = book.handle_ready(Idle);
    book.query(b"select 3", 8);
    assert_eq!(seen(book.handle_ready(Idle)).1, "select 3");
    assert_eq!(run(&mut book, "").1, "?");
    assert_eq!(run(&mut book, "s").1, "select 2");
}

#[test]
fn portals_live_until_their_transaction_ends() {
    let mut book = book();
    define(&mut book, "s", "select 1");
    for (status, text) in [(InTransaction, "select 1"), (Idle, "?")] {
        book.bind(b"p", b"s");
        book.sync();
        assert_eq!(book.handle_bind_complete(), None);
        assert_eq!(book.handle_ready(status), None);
        book.execute(b"p");
        // Its statement may be gone meanwhile, and more rows are to come.
        book.close(Target::Statement, b"s");
        book.execute(b"p");
        book.sync();
        assert_eq!(seen(book.handle_command_complete(b"")).1, text);
        book.handle_close_complete();
        assert_eq!(seen(book.handle_command_complete(b"SELECT 7")).1, text);
        assert_eq!(book.handle_ready(Idle), None);
        define(&mut book, "s", "select 1");
    }
    book.close(Target::Statement, b"s");
    book.handle_close_complete();
    nothing_is_kept(&book);
}

#[test]
fn closing_a_portal_forgets_it() {
    let mut book = book();
    define(&mut book, "s", "select 1");
    book.bind(b"p", b"s");
    book.close(Target::Portal, b"p");
    book.execute(b"p");
    assert_eq!(book.handle_bind_complete(), None);
    book.handle_close_complete();
    let failed = book.handle_error();
    assert_eq!(failed.map(|e| (e.text, e.prepared)), Some((None, None)));
}

#[test]
fn a_sync_during_copy_in_does_not_count() {
    // Sent in one go, as libpq does: before the server's answer it is not known that this is a COPY.
    for pipelined in [false, true] {
        let mut book = book();
        parse(&mut book, "", "copy t from stdin");
        book.bind(b"", b"");
        book.execute(b"");
        book.sync();
        if pipelined {
            book.copy_end();
            book.sync();
        }
        assert_eq!(book.handle_parse_complete(), None);
        assert_eq!(book.handle_bind_complete(), None);
        book.handle_copy_in();
        if !pipelined {
            book.sync();
            book.copy_end();
            book.sync();
        }
        parse(&mut book, "s", "select 1");
        book.sync();
        assert_eq!(seen(book.handle_command_complete(b"COPY 5")), ran(1, "copy t from stdin", ""));
        assert_eq!(book.handle_ready(Idle), None);
        // Were one Sync too many in the book, this error would not reach the Parse.
        assert_eq!(seen(book.handle_error()).1, "select 1", "pipelined: {pipelined}");
        assert_eq!(book.handle_ready(Idle), None);
        assert_eq!(book.outstanding.len(), 0);
    }
}

#[test]
fn a_copy_end_nobody_asked_for_is_ignored() {
    let mut book = book();
    book.copy_end();
    parse(&mut book, "s", "select 1");
    book.copy_end();
    book.sync();
    assert_eq!(book.handle_parse_complete(), None);
    assert_eq!(book.handle_ready(Idle), None);
    assert_eq!(run(&mut book, "s").1, "select 1");
}

#[test]
fn function_calls_have_no_text() {
    let mut book = book();
    assert_eq!(book.function_call(), 1);
    let call = book.handle_ready(Idle).expect("the call");
    assert_eq!((call.id, call.protocol, call.text), (Some(1), Protocol::FunctionCall, None));
}

#[test]
fn sql_that_drops_names_is_followed() {
    let query = |book: &mut Statements, text: &str, tag: &[u8]| {
        book.query(text.as_bytes(), text.len() as u64);
        assert_eq!(book.handle_command_complete(tag), None);
        let _ = book.handle_ready(Idle);
    };
    let mut book = book();
    for name in ["a", "b", "c"] {
        define(&mut book, name, "select 1");
    }
    query(&mut book, "DEALLOCATE A", b"DEALLOCATE");
    query(&mut book, "PREPARE a AS delete from t", b"PREPARE");
    assert_eq!(run(&mut book, "a"), (Some(3), "?".into(), Some("a".into())));
    assert_eq!(run(&mut book, "b").1, "select 1");
    // What this drops is not looked for, so whatever is prepared next may be any of them.
    query(&mut book, "/* x */ DEALLOCATE b; PREPARE b AS delete from t", b"DEALLOCATE");
    query(&mut book, "PREPARE b AS delete from t", b"PREPARE");
    assert_eq!(run(&mut book, "b").1, "?");
    define(&mut book, "d", "select 1");
    query(&mut book, "discard all", b"DISCARD ALL");
    assert_eq!(run(&mut book, "d").1, "?");
    nothing_is_kept(&book);
}

#[test]
fn texts_and_names_are_bounded() {
    let limits = Limits { text: 1_000, all_texts: 10_000, names: 50, outstanding: 64 };
    let mut book = Statements::new(limits);
    let text = "x".repeat(5_000);
    for n in 0..200 {
        parse(&mut book, &format!("s{n}"), &text);
        book.bind(format!("p{n}").as_bytes(), format!("s{n}").as_bytes());
        parse(&mut book, "", &text);
        book.bind(format!("q{n}").as_bytes(), b"");
        book.sync();
        // What there is no room for is handed out, so that it can be written down under its name.
        let forgotten = |n: bool, name: &str| n.then(|| name.as_bytes().into());
        let name = |execution: Option<Execution>| execution.map(|execution| execution.prepared.expect("its name"));
        assert_eq!(name(book.handle_parse_complete()), forgotten(n >= 49, &format!("s{n}")));
        let _ = book.handle_bind_complete();
        assert_eq!(book.handle_parse_complete(), None, "there is always room for the unnamed one");
        let bound = book.handle_bind_complete();
        assert_eq!(bound.is_some(), n >= 25, "{n}");
        let _ = book.handle_ready(InTransaction);
    }
    assert_eq!((book.statements.len(), book.portals.len()), (50, 50));
    assert!(book.counted <= limits.all_texts + 2 * limits.names * SHORT_TEXT, "{}", book.counted);
    let short = book.statements.get(&Name::new(b"s48")).expect("the last one that fits");
    assert_eq!((short.text.bytes().len(), short.text.length(), short.text.truncated()), (SHORT_TEXT, 5_000, true));
    // The unnamed statement and simple queries are not starved by the named ones.
    book.query(text.as_bytes(), 5_000);
    assert_eq!(book.handle_ready(InTransaction).and_then(|e| e.text).map(|text| text.bytes().len()), Some(1_000));
    // Nor do many of them on their way take more than their share.
    let mut sent = 0;
    while !book.is_full() {
        book.query(text.as_bytes(), 5_000);
        sent += 1;
    }
    assert_eq!(sent, limits.outstanding);
    assert!(book.passing <= limits.all_texts + limits.outstanding * SHORT_TEXT, "{}", book.passing);
    for _ in 0..sent {
        assert!(book.handle_ready(Idle).is_some());
    }
    book.query(b"deallocate all", 14);
    let _ = book.handle_command_complete(b"DEALLOCATE ALL");
    let _ = book.handle_ready(Idle);
    nothing_is_kept(&book);
}

#[test]
fn the_end_of_a_session_yields_what_has_no_outcome() {
    let mut book = book();
    define(&mut book, "s", "select 1");
    book.query(b"select 0", 8);
    book.bind(b"", b"s");
    book.describe();
    book.execute(b"");
    book.sync();
    parse(&mut book, "", "select 2");
    book.bind(b"", b"");
    book.execute(b"");
    assert_eq!(seen(book.poll_unfinished()), (Some(1), "select 0".into(), None));
    assert_eq!(seen(book.poll_unfinished()), ran(2, "select 1", "s"));
    assert_eq!(seen(book.poll_unfinished()), ran(3, "select 2", ""));
    assert_eq!(book.poll_unfinished(), None);
}

/// Whatever both sides send, in any order: the book survives, and its counts come down to zero.
#[test]
fn any_order_of_messages_is_survived() {
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..300 {
        let limits = Limits { text: 40, all_texts: 300, names: 3, outstanding: 32 };
        let mut book = Statements::new(limits);
        for _ in 0..400 {
            let name = *rng.choice(["", "a", "b", "c", "d"].iter()).expect("one of them");
            let text = "select some columns from somewhere where it is"[..rng.usize(..46)].to_owned();
            match rng.u8(..18) {
                0 => parse(&mut book, name, &text),
                1 => book.bind(name.as_bytes(), b"a"),
                2 => book.bind(b"", name.as_bytes()),
                3 => drop(book.execute(name.as_bytes())),
                4 => book.close(Target::Statement, name.as_bytes()),
                5 => book.close(Target::Portal, name.as_bytes()),
                6 => drop(book.query(text.as_bytes(), text.len() as u64)),
                7 => book.sync(),
                8 => book.copy_end(),
                9 => book.describe(),
                10 => drop(book.handle_parse_complete()),
                11 => drop(book.handle_bind_complete()),
                12 => book.handle_describe_complete(),
                13 => book.handle_close_complete(),
                14 => drop(book.handle_command_complete(b"DEALLOCATE")),
                15 => drop(book.handle_error()),
                16 => book.handle_copy_in(),
                _ => drop(book.handle_ready(if rng.bool() { Idle } else { InTransaction })),
            }
        }
        while book.poll_unfinished().is_some() {}
        book.forget_portals();
        book.forget_named();
        nothing_is_kept(&book);
    }
}

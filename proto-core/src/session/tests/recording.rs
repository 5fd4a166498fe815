//! The audit trail: one record for every executed statement; in refuse mode nothing runs before its record has a place.

use super::seen;
use crate::audit::AuditProfile;
use crate::codec::backend::TransactionStatus;
use crate::fault::{Lost, SqlState};
use crate::session::{Finish, ReturnState, Side};
use crate::testing::duel::{Duel, Permits, Terms};
use crate::testing::wire::{back, front};

fn answering() -> Duel {
    Duel::logged_in(Terms::default())
}

fn refusing(permits: Permits) -> Duel {
    let mut terms = Terms { permits, ..Terms::default() };
    terms.profile.audit = Some(AuditProfile { statement_bytes: 100, required: true });
    Duel::logged_in(terms)
}

/// The records of statements, without start and end.
fn statements(duel: &Duel) -> Vec<String> {
    duel.trail().into_iter().filter(|line| line.starts_with("statement")).collect()
}

fn cycle(text: &str) -> Vec<u8> {
    [front::parse("", text), front::bind("", ""), front::execute("", 0)].concat()
}

#[test]
fn a_session_has_a_start_and_an_end() {
    let mut duel = answering();
    assert_eq!(duel.trail(), ["start"]);
    duel.client(&front::terminate());
    assert_eq!(duel.trail(), ["start", "end(0)"]);
}

#[test]
fn without_an_audit_profile_nothing_is_written() {
    let mut terms = Terms::default();
    terms.profile.audit = None;
    let mut duel = Duel::logged_in(terms);
    duel.client(&[front::query("rows 1 x"), front::terminate()].concat());
    assert!(duel.trail().is_empty());
}

#[test]
fn simple_queries_are_one_record_each() {
    let mut duel = answering();
    for text in ["rows 1 a", "rows 1 a; rows 2 b", "nonsense", "rows 1 a; fail 23505", ""] {
        duel.client(&front::query(text));
    }
    assert_eq!(
        statements(&duel),
        [
            "statement(rows 1 a)=00000",
            "statement(rows 1 a; rows 2 b)=00000",
            "statement(nonsense)=42601",
            "statement(rows 1 a; fail 23505)=23505",
            "statement()=00000",
        ]
    );
}

#[test]
fn extended_queries_are_one_record_for_each_execution() {
    let mut duel = answering();
    duel.client(&[front::parse("s", "rows 1 a"), front::sync()].concat());
    assert!(statements(&duel).is_empty(), "nothing has run");
    for _ in 0..2 {
        duel.client(&[front::bind("", "s"), front::execute("", 0), front::sync()].concat());
    }
    assert_eq!(statements(&duel), ["statement(rows 1 a)=00000"; 2]);
}

#[test]
fn a_pipeline_records_what_ran_and_not_what_was_skipped() {
    let mut duel = answering();
    let bytes = [
        cycle("rows 1 a"),
        cycle("fail 22012"),
        cycle("rows 1 skipped"),
        front::sync(),
        cycle("rows 1 c"),
        front::sync(),
    ];
    duel.client(&bytes.concat());
    assert_eq!(
        statements(&duel),
        ["statement(rows 1 a)=00000", "statement(fail 22012)=22012", "statement(rows 1 c)=00000"]
    );
}

#[test]
fn a_parse_or_bind_that_fails_is_recorded_as_what_did_not_run() {
    let mut duel = answering();
    duel.client(&[cycle("bad syntax"), front::sync()].concat());
    duel.client(&[front::bind("", "unknown"), front::execute("", 0), front::sync()].concat());
    assert_eq!(statements(&duel), ["statement(bad syntax)=42601", "statement(?)=26000"]);
}

#[test]
fn copies_are_recorded_with_their_end() {
    let mut duel = answering();
    duel.client(&[front::query("copy in"), front::copy_data(b"x\n"), front::copy_done()].concat());
    duel.client(&[front::query("copy in"), front::copy_fail("no")].concat());
    duel.client(&front::query("copy out 3 x"));
    duel.client(
        &[cycle("copy in"), front::sync(), front::copy_data(b"x\n"), front::copy_done(), front::sync()].concat(),
    );
    assert_eq!(
        statements(&duel),
        [
            "statement(copy in)=00000",
            "statement(copy in)=57014",
            "statement(copy out 3 x)=00000",
            "statement(copy in)=00000",
        ]
    );
}

#[test]
fn what_has_no_outcome_at_the_end_is_recorded_without_one() {
    for close in [Side::Client, Side::Server] {
        let mut duel = Duel::logged_in(Terms { server_answers: false, ..Terms::default() });
        duel.client(&front::query("sleep 1000"));
        duel.client(&[cycle("rows 1 pipelined"), front::sync()].concat());
        duel.close(close, Lost::Broken);
        assert_eq!(statements(&duel), ["statement(sleep 1000)=none", "statement(rows 1 pipelined)=none"]);
        assert_eq!(duel.trail().last().map(String::as_str), Some("end(2)"));
    }
}

#[test]
fn half_a_statement_is_none() {
    let mut duel = Duel::logged_in(Terms { server_answers: false, ..Terms::default() });
    let query = front::query("drop everything");
    duel.client(&query[..query.len() - 1]);
    duel.close(Side::Client, Lost::Broken);
    assert!(statements(&duel).is_empty(), "the server cannot run it");
    assert_eq!(duel.returned, [ReturnState::Busy]);
}

#[test]
fn nothing_of_a_statement_passes_before_its_permit() {
    for bytes in [front::query("rows 1 a"), [cycle("rows 1 b"), front::sync()].concat(), front::function_call(1)] {
        let mut duel = refusing(Permits::Hold);
        duel.client(&bytes);
        assert!(duel.wants_permit && duel.sent().is_empty());
        while duel.wants_permit {
            duel.permit(true);
        }
        assert_eq!(duel.sent(), bytes);
    }
}

#[test]
fn bytes_that_are_not_a_statement_need_no_permit() {
    let mut duel = refusing(Permits::Refuse);
    duel.client(&front::sync());
    assert_eq!(seen(&mut duel), "Z(I)");
    duel.client(&[front::close(b'S', "s"), front::sync()].concat());
    assert_eq!(seen(&mut duel), "3 Z(I)");
}

#[test]
fn a_refused_simple_query_is_answered_in_the_servers_place() {
    let mut duel = refusing(Permits::Refuse);
    for text in ["rows 1 a".to_owned(), "x".repeat(50_000), String::new()] {
        duel.client(&front::query(&text));
        assert_eq!(seen(&mut duel), "E(ERROR 58030) Z(I)");
    }
    // Several at once.
    duel.client(&front::query("rows 1 a").repeat(3));
    assert_eq!(seen(&mut duel), ["E(ERROR 58030) Z(I)"; 3].join(" "));
    assert!(duel.sent().is_empty() && duel.postgres.journal().is_empty());
    assert_eq!(duel.finish, None, "the session goes on");
    duel.client(&front::terminate());
    assert!(matches!(duel.returned[..], [ReturnState::Quiet { touched: false, .. }]));
}

#[test]
fn a_query_that_is_refused_inside_a_transaction_ends_the_session() {
    // PostgreSQL would have failed the transaction; an own ERROR could not, and a COMMIT behind it would commit half.
    let mut duel = refusing(Permits::Hold);
    duel.client(&front::query("begin"));
    duel.permit(true);
    assert_eq!(seen(&mut duel), "C(BEGIN) Z(T)");
    duel.client(&front::query("rows 1 a"));
    duel.permit(false);
    assert_eq!(seen(&mut duel), "E(FATAL 58030)");
    assert_eq!(statements(&duel), ["statement(begin)=00000"]);
    assert!(matches!(duel.returned[..], [ReturnState::Quiet { status: TransactionStatus::InTransaction, .. }]));
}

#[test]
fn a_refusal_in_a_pipeline_ends_the_session() {
    // Parse and Bind run nothing and need no place.
    let pipeline = [cycle("rows 1 a"), front::sync()].concat();
    for (bytes, expected) in [(pipeline, "1 2 E(FATAL 58030)"), (front::function_call(7), "E(FATAL 58030)")] {
        let mut duel = refusing(Permits::Refuse);
        duel.client(&bytes);
        assert_eq!(seen(&mut duel), expected);
        assert!(matches!(&duel.finish, Some(Finish::Refused(refusal)) if refusal.code == SqlState::IO_ERROR));
        assert!(duel.postgres.journal().is_empty());
    }
    // A query behind another one whose answer has not come: an own answer would overtake it.
    let mut terms = Terms { permits: Permits::Hold, server_answers: false, ..Terms::default() };
    terms.profile.audit = Some(AuditProfile { statement_bytes: 100, required: true });
    let mut duel = Duel::logged_in(terms);
    duel.client(&front::query("first"));
    duel.permit(true);
    duel.client(&front::query("second"));
    duel.permit(false);
    assert_eq!(seen(&mut duel), "E(FATAL 58030)");
    assert_eq!(duel.sent(), front::query("first"));
    assert_eq!(duel.returned, [ReturnState::Busy]);
}

#[test]
fn a_client_that_leaves_while_its_permit_is_awaited_leaves_nothing_running() {
    let mut duel = refusing(Permits::Hold);
    duel.client(&front::query("rows 1 a"));
    duel.close(Side::Client, Lost::Broken);
    duel.wants_permit = false;
    assert!(duel.sent().is_empty());
    assert!(matches!(duel.returned[..], [ReturnState::Quiet { touched: false, .. }]));
    assert!(statements(&duel).is_empty());
}

#[test]
fn an_error_without_a_code_is_written_down_as_an_internal_one() {
    let mut duel = Duel::logged_in(Terms { server_answers: false, ..Terms::default() });
    duel.client(&front::query("rows 1 a"));
    duel.server(&[crate::testing::wire::message(b'E', b"SERROR\0Mno code\0\0"), back::ready(b'I')].concat());
    assert_eq!(statements(&duel), ["statement(rows 1 a)=XX000"]);
    assert_eq!(duel.finish, None, "the client gets it as it came");
}

/// A client that sends what has no place in a COPY must not shift the outcomes of what follows.
#[test]
fn a_copy_that_is_disturbed_keeps_its_records_in_step() {
    let copy = |between: Vec<u8>| [front::query("copy in"), between].concat();
    let data = [front::copy_data(b"x\n"), front::copy_done()].concat();
    for at_once in [true, false] {
        for between in [front::sync(), front::flush(), front::sync().repeat(3)] {
            let mut duel = Duel::logged_in(Terms { server_answers: false, ..Terms::default() });
            let mut server = crate::testing::postgres::Backend::new(&duel.postgres);
            duel.postgres.set_auth(crate::testing::postgres::Auth::Trust);
            let startup = front::startup(crate::codec::startup::PROTOCOL_3_0, &[("user", "app_reader")]);
            server.handle_input(&startup, duel.now);
            let _ = server.poll_output();
            // All of it is on its way before the server says a word; or each message is answered first.
            let mut bytes = vec![copy(between.clone()), data.clone(), front::query("rows 1 next")];
            if at_once {
                bytes = vec![bytes.concat()];
            }
            for bytes in bytes {
                duel.client(&bytes);
                server.handle_input(&duel.sent(), duel.now);
                let answer = server.poll_output().unwrap_or_default();
                duel.server(&answer);
            }
            let expected = ["statement(copy in)=00000", "statement(rows 1 next)=00000"];
            assert_eq!(statements(&duel), expected, "{}", between.escape_ascii());
            duel.client(&front::terminate());
            assert!(matches!(duel.returned[..], [ReturnState::Quiet { .. }]), "{}", between.escape_ascii());
        }
    }
}

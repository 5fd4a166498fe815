//! Sessions that have a server connection for a transaction.

use std::time::Duration;

use super::seen;
use crate::audit::AuditProfile;
use crate::fault::SqlState;
use crate::policy::{SessionState, SessionTerms, Timeouts};
use crate::pool::{PoolMode, PoolSettings};
use crate::session::{Finish, ReturnState, Side};
use crate::testing::corp;
use crate::testing::duel::{Duel, Permits, Terms};
use crate::testing::wire::{Message, back, front, messages};

pub(super) fn terms(session: SessionTerms) -> Terms {
    let mut terms = Terms::default();
    let pool = PoolSettings { pool_mode: PoolMode::Transaction, ..PoolSettings::default() };
    terms.profile.databases = corp::with_terms(&corp::databases(pool), session);
    terms
}

fn logged_in(session: SessionTerms) -> Duel {
    Duel::logged_in(terms(session))
}

/// The server says nothing by itself.
fn silent() -> Duel {
    let mut duel = Duel::logged_in(Terms { server_answers: false, ..terms(SessionTerms::default()) });
    duel.returned.clear();
    duel
}

fn pid(duel: &mut Duel) -> Vec<u8> {
    duel.client(&front::query("whoami"));
    duel.seen()
}

#[test]
fn a_connection_comes_for_a_transaction_and_goes_with_it() {
    let mut duel = logged_in(SessionTerms::default());
    duel.returned.clear();
    let first = pid(&mut duel);
    assert_ne!(first, pid(&mut duel), "a duel opens one for each");
    assert_eq!(duel.returned, [ReturnState::Between, ReturnState::Between]);
    duel.client(&[front::query("begin"), front::query("rows 0")].concat());
    assert_eq!(duel.returned.len(), 2);
    duel.client(&front::query("commit"));
    assert_eq!(duel.returned.len(), 3);
}

#[test]
fn what_ties_a_session_is_told_and_counted() {
    let mut duel = logged_in(SessionTerms::default());
    assert_eq!((duel.session.pinned(), duel.session.times_pinned()), (None, 0));
    duel.client(&front::query("listen news"));
    assert_eq!(seen(&mut duel), "C(LISTEN) Z(I) N(NOTICE 00000)");
    assert_eq!((duel.session.pinned(), duel.session.times_pinned()), (Some("LISTEN"), 1));
    duel.client(&front::query("rows 0"));
    assert_eq!((duel.session.pinned(), duel.session.times_pinned()), (Some("LISTEN"), 1));
    duel.client(&front::query("unlisten *"));
    assert_eq!((duel.session.pinned(), duel.session.times_pinned()), (None, 1));
    duel.client(&front::query("create temp table t"));
    assert_eq!((duel.session.pinned(), duel.session.times_pinned()), (Some("temporary object"), 2));
}

#[test]
fn a_copy_that_fails_in_the_middle_of_its_data_lets_go_with_the_last_byte() {
    let mut duel = silent();
    duel.client(&front::query("copy in"));
    duel.server(&back::copy_response(b'G'));
    let data = front::copy_data(b"a line that comes in two pieces\n");
    let (first, rest) = data.split_at(12);
    duel.client(first);
    duel.server(&[back::error("ERROR", "57014", "cancelled"), back::ready(b'I')].concat());
    assert_eq!(duel.returned, [], "half a message is on its way");
    duel.client(rest);
    assert_eq!(duel.returned, [ReturnState::Between]);
    // What else belongs to it goes nowhere.
    duel.sent();
    duel.client(&[front::copy_data(b"more\n"), front::copy_done()].concat());
    assert!(duel.sent().is_empty() && duel.finish.is_none());
}

#[test]
fn a_server_that_takes_its_leave_behind_its_answer_takes_the_session_along() {
    let mut duel = silent();
    duel.client(&front::query("rows 0"));
    let answer = [back::complete("SELECT 0"), back::ready(b'I'), back::error("FATAL", "57P01", "bye")].concat();
    duel.server(&answer);
    assert_eq!(seen(&mut duel), "C(SELECT 0) Z(I) E(FATAL 57P01)");
    assert_eq!(duel.returned, [], "nobody else gets this connection");
    duel.close(Side::Server, crate::fault::Lost::Closed);
    assert_eq!((seen(&mut duel).as_str(), &duel.returned[..]), ("", &[ReturnState::Broken][..]));
    assert!(matches!(duel.finish, Some(Finish::Lost(Side::Server, _))));
}

#[test]
fn a_server_that_takes_its_leave_during_the_preparations_says_why() {
    let mut duel = silent();
    duel.client(&front::query("set TimeZone Asia/Tokyo"));
    duel.server(&[back::parameter("TimeZone", "Asia/Tokyo"), back::complete("SET"), back::ready(b'I')].concat());
    duel.seen();
    duel.client(&front::query("rows 0"));
    assert!(duel.session.is_preparing());
    duel.server(&back::error("FATAL", "57P01", "terminating connection due to administrator command"));
    assert_eq!(seen(&mut duel), "E(FATAL 57P01)");
    duel.close(Side::Server, crate::fault::Lost::Closed);
    assert_eq!(seen(&mut duel), "");
}

#[test]
fn half_a_message_holds_no_connection() {
    let long = "x".repeat(20_000);
    let short = [front::bind("", "s"), front::execute("", 0), front::function_call(1), front::close(b'S', "s")];
    let all = [front::parse("s1", "rows 0"), front::parse("s1", &long), front::query("rows 0"), front::query(&long)];
    for message in all.into_iter().chain(short) {
        let mut duel = Duel::logged_in(Terms { lease_at_once: false, ..terms(SessionTerms::default()) });
        duel.lease();
        let enough = message.len().min(5 + 12 * 1024);
        for piece in message[..enough - 1].chunks(1000) {
            duel.client(piece);
            assert!(!duel.is_waiting(), "{}: it would hold what others wait for", char::from(message[0]));
        }
        duel.client(&message[enough - 1..enough]);
        assert!(duel.is_waiting(), "{}: no more is looked at", char::from(message[0]));
    }
}

#[test]
fn a_message_that_has_gone_in_part_takes_its_time_as_any_other() {
    let timeouts = Timeouts { query: Duration::from_secs(10), ..Timeouts::default() };
    let long = "x".repeat(20_000);
    for message in [front::query(&long), front::parse("", &long), front::parse("s1", &long)] {
        let session = SessionTerms { timeouts, ..SessionTerms::default() };
        let mut duel = Duel::logged_in(Terms { server_answers: false, ..terms(session) });
        duel.client(&message[..13_000]);
        for byte in message[13_000..].iter().take(9) {
            duel.advance(Duration::from_secs(1));
            duel.client(&[*byte]);
        }
        assert!(duel.finish.is_none());
        duel.advance(Duration::from_secs(1));
        assert!(matches!(&duel.finish, Some(Finish::Refused(refusal)) if refusal.code == SqlState::QUERY_CANCELED));
        assert_eq!(duel.returned.last(), Some(&ReturnState::Busy));
    }
}

#[test]
fn a_connection_that_was_prepared_for_a_message_stays_until_the_message_has_gone() {
    let mut terms = Terms { server_answers: false, permits: Permits::Hold, ..terms(SessionTerms::default()) };
    terms.profile.audit = Some(AuditProfile { statement_bytes: 100, required: true });
    let mut duel = Duel::logged_in(terms);
    duel.client(&front::query("set TimeZone Asia/Tokyo"));
    duel.permit(true);
    let tokyo = [back::parameter("TimeZone", "Asia/Tokyo"), back::complete("SET"), back::ready(b'I')].concat();
    duel.server(&tokyo);
    duel.returned.clear();
    let query = front::query("rows 0");
    duel.client(&query);
    duel.sent();
    assert!(duel.session.is_preparing());
    duel.server(&tokyo);
    assert!(!duel.session.is_preparing());
    assert_eq!(duel.returned, [], "somebody else would change it before it is used");
    duel.permit(true);
    assert_eq!(duel.sent(), query);
    duel.server(&[back::complete("SELECT 0"), back::ready(b'I')].concat());
    assert_eq!(duel.returned, [ReturnState::Between]);
}

#[test]
fn a_statement_without_a_place_in_the_trail_is_refused_behind_the_preparations() {
    let mut terms = Terms { server_answers: false, permits: Permits::Hold, ..terms(SessionTerms::default()) };
    terms.profile.audit = Some(AuditProfile { statement_bytes: 100, required: true });
    let mut duel = Duel::logged_in(terms);
    let tokyo = [back::parameter("TimeZone", "Asia/Tokyo"), back::complete("SET"), back::ready(b'I')].concat();
    duel.client(&front::query("set TimeZone Asia/Tokyo"));
    duel.permit(true);
    duel.server(&tokyo);
    duel.seen();
    duel.returned.clear();
    duel.client(&front::query("rows 0"));
    assert!(duel.session.is_preparing());
    duel.permit(false);
    assert_eq!((seen(&mut duel).as_str(), duel.finish.is_none()), ("", true), "not before the server's answer is read");
    duel.server(&tokyo);
    assert!(seen(&mut duel).starts_with("E(ERROR "), "and the session goes on");
    assert_eq!((&duel.returned[..], duel.finish.is_none()), (&[ReturnState::Between][..], true));
}

fn refusing() -> Duel {
    let mut duel = logged_in(SessionTerms { state: SessionState::Refuse, ..SessionTerms::default() });
    duel.sent();
    duel
}

/// Nothing of these statements has gone to the server, and nothing ties the session.
fn assert_refused(duel: &mut Duel) {
    let sent = duel.sent().to_ascii_lowercase();
    for word in [&b"news"[..], b"table t"] {
        assert!(memchr::memmem::find(&sent, word).is_none(), "{}", sent.escape_ascii());
    }
    assert_eq!((duel.session.pinned(), duel.session.times_pinned(), duel.finish.clone()), (None, 0, None));
}

#[test]
fn what_would_tie_a_session_can_be_refused_instead() {
    let mut duel = refusing();
    duel.client(&[front::query("LISTEN news"), front::query("rows 1 x")].concat());
    let answer = messages(&duel.seen());
    assert_eq!(answer.iter().map(Message::brief).collect::<Vec<_>>().join(" "), {
        "E(ERROR 0A000) Z(I) T D(x/0) C(SELECT 1) Z(I)"
    });
    assert!(memchr::memmem::find(&answer[0].body, b"not allowed here: LISTEN").is_some());
    assert_refused(&mut duel);
    duel.client(&front::terminate());
    assert_eq!(duel.trail()[1..], ["statement(LISTEN news)=0A000", "statement(rows 1 x)=00000", "end(2)"]);
}

#[test]
fn a_refused_statement_fails_its_transaction() {
    let mut duel = refusing();
    duel.client(&front::query("begin"));
    duel.client(&front::query("create temp table t"));
    duel.client(&front::query("rows 1 x"));
    assert_eq!(seen(&mut duel), "C(BEGIN) Z(T) E(ERROR 0A000) Z(E) E(ERROR 25P02) Z(E)");
    duel.client(&front::query("create temp table t"));
    assert_eq!(seen(&mut duel), "E(ERROR 25P02) Z(E)", "as every statement there");
    duel.client(&front::query("rollback"));
    assert_eq!(seen(&mut duel), "C(ROLLBACK) Z(I)");
    assert_refused(&mut duel);
}

#[test]
fn a_refused_statement_in_a_pipeline_is_answered_in_its_turn() {
    let run =
        |name: &str, text: &str| [front::parse(name, text), front::bind("", name), front::execute("", 0)].concat();
    for name in ["", "s"] {
        let mut duel = refusing();
        let bytes = [run("", "rows 1 x"), run(name, "listen news"), run("", "rows 1 y"), front::sync()].concat();
        duel.client(&bytes);
        assert_eq!(seen(&mut duel), "1 2 D(x/0) C(SELECT 1) E(ERROR 0A000) Z(I)");
        assert_refused(&mut duel);
        // The name is as free as before.
        duel.client(&[run(name, "rows 1 z"), front::sync()].concat());
        assert_eq!(seen(&mut duel), "1 2 D(z/0) C(SELECT 1) Z(I)");
    }
}

#[test]
fn a_long_statement_is_refused_by_its_beginning() {
    let mut duel = refusing();
    let text = format!("listen news -- {}", "x".repeat(100_000));
    let bytes = front::query(&text);
    for piece in bytes.chunks(500) {
        duel.client(piece);
    }
    assert_eq!(seen(&mut duel), "E(ERROR 0A000) Z(I)");
    assert_refused(&mut duel);
    duel.client(&front::query("rows 1 x"));
    assert_eq!(seen(&mut duel), "T D(x/0) C(SELECT 1) Z(I)");
}

#[test]
fn what_ends_with_its_transaction_is_allowed() {
    let mut duel = refusing();
    for text in ["set local work_mem 1", "rows 1 x", "set TimeZone Asia/Tokyo"] {
        duel.client(&front::query(text));
        let seen = seen(&mut duel);
        assert!(!seen.contains("0A000") && seen.ends_with("Z(I)"), "{text}: {seen}");
    }
}

#[test]
fn a_query_that_is_skipped_for_what_went_before_it_is_answered_without_another_word() {
    let mut duel = silent();
    duel.client(&[front::parse("s1", "rows 0"), front::sync()].concat());
    duel.server(&[back::bare(b'1'), back::ready(b'I')].concat());
    duel.client(&front::query("deallocate s1; rows 0"));
    duel.sent();
    duel.seen();
    duel.server(&back::error("ERROR", "57014", "cancelled"));
    assert_eq!(duel.sent(), front::sync());
    duel.server(&back::ready(b'I'));
    assert_eq!(seen(&mut duel), "E(ERROR 57014) Z(I)");
    assert_eq!(duel.returned.last(), Some(&ReturnState::Between));
}

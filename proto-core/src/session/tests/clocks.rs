//! Limits in time: for a query, for a transaction, for saying nothing.

use std::time::Duration;

use super::seen;
use crate::fault::SqlState;
use crate::policy::{OwnTimeouts, SessionTerms, Timeouts, Users};
use crate::session::{Finish, ReturnState, Side};
use crate::testing::corp;
use crate::testing::duel::{Duel, Terms};
use crate::testing::wire::{back, front};
use crate::time::Timer;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn terms(timeouts: Timeouts) -> Terms {
    let mut terms = Terms::default();
    let session = SessionTerms { timeouts, ..SessionTerms::default() };
    terms.profile.databases = corp::with_terms(&terms.profile.databases, session);
    terms
}

fn logged_in(timeouts: Timeouts) -> Duel {
    Duel::logged_in(terms(timeouts))
}

/// The server says nothing by itself.
fn silent(timeouts: Timeouts) -> Duel {
    Duel::logged_in(Terms { server_answers: false, ..terms(timeouts) })
}

fn ended_with(duel: &Duel) -> Option<SqlState> {
    match &duel.finish {
        Some(Finish::Refused(refusal)) => Some(refusal.code),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

#[test]
fn nothing_is_waited_for_where_nothing_has_a_limit() {
    let mut duel = logged_in(Timeouts::default());
    assert_eq!(duel.deadline(), None);
    duel.client(&front::query("begin"));
    assert_eq!(duel.deadline(), None);
    duel.advance(secs(1_000_000));
    assert_eq!(ended_with(&duel), None);
}

#[test]
fn a_query_that_takes_too_long_is_cancelled_and_its_session_ends() {
    let mut duel = silent(Timeouts { query: secs(10), ..Timeouts::default() });
    duel.advance(secs(100));
    duel.client(&front::query("rows 1 x"));
    duel.server(&back::row_description());
    duel.advance(Duration::from_millis(9_999));
    assert_eq!(ended_with(&duel), None);
    duel.advance(Duration::from_millis(1));
    assert_eq!(seen(&mut duel), "T E(FATAL 57014)");
    assert_eq!(ended_with(&duel), Some(SqlState::QUERY_CANCELED));
    assert_eq!(duel.returned, [ReturnState::Busy], "what runs is cancelled");
    assert_eq!(duel.trail().last().unwrap(), "end(1)");
}

#[test]
fn each_query_of_a_pipeline_has_its_own_time() {
    let mut duel = silent(Timeouts { query: secs(10), ..Timeouts::default() });
    let one = [front::parse("", "rows 0"), front::bind("", ""), front::execute("", 0), front::sync()].concat();
    duel.client(&one.repeat(4));
    let answer = [back::bare(b'1'), back::bare(b'2'), back::complete("SELECT 0"), back::ready(b'I')].concat();
    for _ in 0..3 {
        duel.advance(secs(9));
        duel.server(&answer);
    }
    duel.advance(secs(9));
    assert_eq!(ended_with(&duel), None);
    duel.advance(secs(1));
    assert_eq!(ended_with(&duel), Some(SqlState::QUERY_CANCELED));
}

#[test]
fn a_half_sent_message_takes_its_time_too() {
    let mut duel = silent(Timeouts { query: secs(10), ..Timeouts::default() });
    duel.client(&front::query("rows 1 x")[..8]);
    duel.advance(secs(10));
    assert_eq!(ended_with(&duel), Some(SqlState::QUERY_CANCELED));
    assert_eq!(duel.returned, [ReturnState::Busy]);
}

#[test]
fn an_open_transaction_whose_client_says_nothing_is_rolled_back() {
    let mut duel = logged_in(Timeouts { idle_transaction: secs(10), ..Timeouts::default() });
    duel.advance(secs(100));
    duel.client(&front::query("begin"));
    for _ in 0..5 {
        duel.advance(secs(9));
        duel.client(&front::query("rows 0 x"));
    }
    duel.client(&front::query("nonsense"));
    duel.seen();
    duel.advance(secs(10));
    assert_eq!(seen(&mut duel), "E(FATAL 25P03)", "also when it has failed");
    assert_eq!(ended_with(&duel), Some(SqlState::IDLE_IN_TRANSACTION_TIMEOUT));
    assert!(matches!(duel.returned[..], [ReturnState::Quiet { touched: true, .. }]), "{:?}", duel.returned);
}

#[test]
fn a_running_query_is_no_idle_transaction() {
    let mut duel = silent(Timeouts { idle_transaction: secs(10), client_idle: secs(10), ..Timeouts::default() });
    duel.client(&front::query("begin"));
    duel.server(&[back::complete("BEGIN"), back::ready(b'T')].concat());
    duel.client(&front::query("sleep 1000000"));
    duel.advance(secs(100));
    duel.server(&[back::complete("SELECT 1"), back::ready(b'T')].concat());
    duel.advance(secs(9));
    assert_eq!(ended_with(&duel), None, "the time begins with the answer");
    duel.advance(secs(1));
    assert_eq!(ended_with(&duel), Some(SqlState::IDLE_IN_TRANSACTION_TIMEOUT));
}

#[test]
fn a_transaction_that_takes_too_long_ends_whatever_it_does() {
    let mut duel = logged_in(Timeouts { transaction: secs(10), ..Timeouts::default() });
    for _ in 0..4 {
        duel.advance(secs(9));
        duel.client(&[front::query("begin"), front::query("rows 0"), front::query("commit")].concat());
    }
    duel.client(&front::query("begin"));
    for _ in 0..9 {
        duel.advance(secs(1));
        duel.client(&front::query("rows 0"));
    }
    duel.seen();
    duel.advance(secs(1));
    assert_eq!(seen(&mut duel), "E(FATAL 25P04)");
    assert_eq!(ended_with(&duel), Some(SqlState::TRANSACTION_TIMEOUT));
    // A statement by itself is a transaction, too.
    let mut duel = silent(Timeouts { transaction: secs(10), ..Timeouts::default() });
    duel.client(&front::query("sleep 1000000"));
    duel.advance(secs(10));
    assert_eq!(ended_with(&duel), Some(SqlState::TRANSACTION_TIMEOUT));
    assert_eq!(duel.returned, [ReturnState::Busy]);
}

#[test]
fn a_client_that_says_nothing_is_sent_away() {
    let mut duel = logged_in(Timeouts { client_idle: secs(10), ..Timeouts::default() });
    for _ in 0..5 {
        duel.advance(secs(9));
        duel.client(&front::query("rows 0"));
    }
    duel.client(&front::query("begin"));
    duel.advance(secs(100));
    assert_eq!(ended_with(&duel), None, "an open transaction has a limit of its own");
    duel.client(&front::query("commit"));
    duel.seen();
    duel.advance(secs(9));
    // What the server has to say is no sign of life of the client.
    duel.server(&back::notice("hear"));
    duel.advance(secs(1));
    assert_eq!(seen(&mut duel), "N(NOTICE 00000) E(FATAL 57P05)");
    assert_eq!(ended_with(&duel), Some(SqlState::IDLE_SESSION_TIMEOUT));
    let mut duel = logged_in(Timeouts { client_idle: secs(10), ..Timeouts::default() });
    duel.advance(secs(10));
    assert_eq!(ended_with(&duel), Some(SqlState::IDLE_SESSION_TIMEOUT), "who never says anything, too");
}

#[test]
fn the_words_stay_out_of_half_a_message() {
    let mut duel = silent(Timeouts { query: secs(10), ..Timeouts::default() });
    duel.client(&front::query("big 100"));
    duel.server(&back::row(&[b'x'; 100])[..50]);
    duel.advance(secs(10));
    assert_eq!(ended_with(&duel), Some(SqlState::QUERY_CANCELED));
    assert_eq!(duel.seen().len(), 50);
}

#[test]
fn the_timer_is_set_seldom() {
    let mut duel = logged_in(Timeouts { query: secs(10), client_idle: secs(100), ..Timeouts::default() });
    let mut settings = 0;
    let mut last = duel.deadline();
    for _ in 0..1000 {
        duel.client(&front::query("rows 0"));
        duel.advance(Duration::from_millis(100));
        settings += usize::from(duel.deadline() != last);
        last = duel.deadline();
    }
    // One hundred seconds of queries.
    assert!(settings <= 20, "{settings} times");
    assert_eq!(ended_with(&duel), None);
}

#[test]
fn a_role_may_have_limits_of_its_own() {
    let own = OwnTimeouts { query: Some(secs(100)), client_idle: Some(secs(5)), ..OwnTimeouts::default() };
    let mut terms = terms(Timeouts { query: secs(10), client_idle: secs(10), ..Timeouts::default() });
    terms.server_answers = false;
    terms.profile.users = Users::new([("reader".into(), own), ("nobody".into(), OwnTimeouts::default())]);
    let mut duel = Duel::logged_in(terms);
    assert_eq!(duel.deadline().map(|due| due.why), Some(Timer::ClientIdle));
    duel.client(&front::query("sleep 1000000"));
    duel.advance(secs(99));
    assert_eq!(ended_with(&duel), None);
    duel.advance(secs(1));
    assert_eq!(ended_with(&duel), Some(SqlState::QUERY_CANCELED));
    duel.close(Side::Client, crate::fault::Lost::Closed);
}

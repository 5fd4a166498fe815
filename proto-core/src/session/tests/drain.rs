//! The process is being stopped.

use super::{assert_refused, seen};
use crate::codec::startup::PROTOCOL_3_0;
use crate::fault::SqlState;
use crate::session::{Finish, ReturnState};
use crate::testing::corp;
use crate::testing::duel::{Duel, Terms};
use crate::testing::wire::{back, front};

fn startup() -> Vec<u8> {
    front::startup(PROTOCOL_3_0, &[("user", "alice@corp.example"), ("database", corp::DATABASE)])
}

#[test]
fn who_is_not_let_in_yet_is_sent_away() {
    let mut duel = Duel::new(Terms::default());
    duel.drain();
    assert_eq!((duel.finish.clone(), duel.seen()), (Some(Finish::Drained), vec![]), "there is nobody to tell");
    let mut duel = Duel::new(Terms::default());
    duel.client(&startup()[..3]);
    duel.drain();
    assert_refused(&mut duel, SqlState::CANNOT_CONNECT_NOW);
    let mut duel = Duel::new(Terms::default());
    duel.client(&startup());
    duel.seen();
    duel.drain();
    assert_refused(&mut duel, SqlState::CANNOT_CONNECT_NOW);
    let mut duel = Duel::new(Terms { lease_at_once: false, ..Terms::default() });
    duel.log_in("alice", &["reader"]);
    duel.seen();
    duel.drain();
    assert_refused(&mut duel, SqlState::CANNOT_CONNECT_NOW);
    assert!(!duel.is_waiting(), "the wish is withdrawn");
}

#[test]
fn an_idle_session_ends_at_once() {
    let mut duel = Duel::logged_in(Terms::default());
    duel.drain();
    assert_eq!(seen(&mut duel), "E(FATAL 57P01)");
    assert_eq!(duel.finish, Some(Finish::Drained));
    assert!(matches!(duel.returned[..], [ReturnState::Quiet { touched: false, .. }]));
    duel.drain();
    assert!(duel.seen().is_empty());
}

#[test]
fn a_running_statement_comes_to_its_end_first() {
    let mut duel = Duel::logged_in(Terms { server_answers: false, ..Terms::default() });
    duel.client(&front::query("rows 1 x"));
    duel.drain();
    assert_eq!((duel.finish.clone(), duel.seen()), (None, vec![]));
    duel.server(&[back::row_description(), back::row(b"x")].concat());
    assert_eq!(duel.finish, None);
    duel.server(&[back::complete("SELECT 1"), back::ready(b'I')].concat());
    assert_eq!(seen(&mut duel), "T D(x) C(SELECT 1) Z(I) E(FATAL 57P01)", "the farewell stands behind the answer");
    assert_eq!(duel.finish, Some(Finish::Drained));
}

#[test]
fn a_transaction_comes_to_its_end_first() {
    let mut duel = Duel::logged_in(Terms::default());
    duel.client(&front::query("begin"));
    duel.drain();
    duel.client(&front::query("rows 1 x"));
    assert_eq!(seen(&mut duel), "C(BEGIN) Z(T) T D(x/0) C(SELECT 1) Z(T)");
    duel.client(&front::query("nonsense"));
    assert_eq!(seen(&mut duel), "E(ERROR 42601) Z(E)");
    duel.client(&front::query("rollback"));
    assert_eq!(seen(&mut duel), "C(ROLLBACK) Z(I) E(FATAL 57P01)");
    assert_eq!(duel.finish, Some(Finish::Drained));
}

#[test]
fn a_pipeline_without_its_sync_is_not_cut() {
    let mut duel = Duel::logged_in(Terms::default());
    duel.client(&[front::parse("", "rows 1 x"), front::bind("", ""), front::execute("", 0), front::flush()].concat());
    duel.drain();
    assert_eq!((duel.finish.clone(), seen(&mut duel)), (None, "1 2 D(x/0) C(SELECT 1)".into()));
    duel.client(&front::sync());
    assert_eq!(seen(&mut duel), "Z(I) E(FATAL 57P01)");
}

#[test]
fn a_copy_comes_to_its_end_first() {
    let mut duel = Duel::logged_in(Terms::default());
    duel.client(&[front::query("copy in"), front::copy_data(b"x\n")].concat());
    duel.drain();
    duel.client(&[front::copy_data(b"y\n"), front::copy_done()].concat());
    assert_eq!(seen(&mut duel), "G C(COPY 2) Z(I) E(FATAL 57P01)");
}

#[test]
fn who_leaves_by_themselves_is_not_thrown_out_as_well() {
    let mut duel = Duel::logged_in(Terms::default());
    duel.client(&front::query("begin"));
    duel.drain();
    duel.seen();
    duel.client(&front::terminate());
    assert_eq!((duel.finish.clone(), duel.seen()), (Some(Finish::Terminated), vec![]));
}

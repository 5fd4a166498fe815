//! Cleaning a server connection whose server sends anything: only the exact replies make it clean.

use std::time::Duration;

use super::cuts::{Cut, Script};
use crate::codec::backend::{TransactionStatus, split};
use crate::fault::Lost;
use crate::time::{Now, Tick};
use crate::upstream::{Discard, Reset, ResetFault, ResetOutcome, ResetOutput, ResetPlan};

/// What the server is asked to repeat, in hexadecimal digits.
pub const PROOF: [u8; 16] = [7; 16];

/// Two bytes of settings, then what the server sends.
pub fn reset(data: &[u8]) {
    let mut script = Script::new(data);
    let (setup, cut) = (script.byte(), Cut::seeded(script.byte()));
    let bytes = script.rest();
    let (whole, taken) = play(setup, bytes, Cut::Whole);
    for cut in [Cut::Single, cut] {
        let (pieces, taken) = play(setup, bytes, cut);
        if whole == ResetOutcome::Broken(ResetFault::BytesBehind) {
            // Who reads them later leaves them where they are.
            assert!(matches!(pieces, ResetOutcome::Clean(_)) && taken < bytes.len() || pieces == whole);
        } else {
            assert_eq!(pieces, whole);
        }
    }
    if let ResetOutcome::Clean(_) = whole {
        replies_are_exact(setup, &bytes[..taken]);
    }
}

fn at(secs: u64) -> Now {
    Now { tick: Tick::from_nanos(secs * 1_000_000_000), ..Now::default() }
}

const fn status(setup: u8) -> TransactionStatus {
    match setup & 3 {
        0 => TransactionStatus::InTransaction,
        1 => TransactionStatus::Failed,
        _ => TransactionStatus::Idle,
    }
}

fn plan(setup: u8) -> ResetPlan {
    let discard = if setup & 8 == 0 { Discard::All } else { Discard::Nothing };
    ResetPlan { rollback: setup & 4 == 0, discard, proof: PROOF, ..ResetPlan::default() }
}

fn play(setup: u8, bytes: &[u8], cut: Cut) -> (ResetOutcome, usize) {
    let mut machine = Reset::new(status(setup), plan(setup), Duration::from_secs(5), at(0));
    let (mut outcome, mut taken) = (None, 0);
    for piece in cut.pieces(bytes) {
        outcome = finished(&mut machine, outcome);
        let used = machine.handle_input(piece, at(1));
        assert!(used <= piece.len() && (used == 0 || outcome.is_none()));
        taken += used;
        outcome = finished(&mut machine, outcome);
        if outcome.is_some() {
            break;
        }
        assert_eq!(used, piece.len(), "everything is taken up to the end");
        machine.handle_timeout(at(2));
    }
    outcome = finished(&mut machine, outcome);
    assert_eq!(machine.poll_timeout().is_none(), outcome.is_some());
    if setup & 16 == 0 {
        machine.handle_close(Lost::Closed, at(3));
    }
    machine.handle_timeout(at(9));
    let outcome = finished(&mut machine, outcome).expect("it ends by its deadline");
    machine.handle_timeout(at(10));
    machine.handle_close(Lost::Broken, at(10));
    assert_eq!(machine.handle_input(b"Z\0\0\0\x05I", at(10)), 0);
    assert!(machine.poll_output().is_none() && machine.poll_timeout().is_none());
    (outcome, taken)
}

fn finished(machine: &mut Reset, mut outcome: Option<ResetOutcome>) -> Option<ResetOutcome> {
    while let Some(output) = machine.poll_output() {
        assert!(outcome.is_none(), "something comes after the end");
        if let ResetOutput::Finished(how) = output {
            outcome = Some(how);
        }
    }
    outcome
}

/// The answers to each statement that was sent and to the proof behind them, and nothing behind that.
fn replies_are_exact(setup: u8, taken: &[u8]) {
    let rollback = status(setup) != TransactionStatus::Idle;
    assert!(!rollback || plan(setup).rollback, "a transaction was left open");
    let tags: Vec<u8> = split(taken).expect("it was accepted").into_iter().map(|(tag, _)| tag).collect();
    let answers: Vec<u8> = tags.iter().copied().filter(|tag| !b"NAS".contains(tag)).collect();
    let rollback: &[u8] = if rollback { b"CZ" } else { b"" };
    let rest: &[u8] = match plan(setup).discard {
        Discard::Nothing if rollback.is_empty() => b"",
        Discard::Nothing => b"TDCZ",
        Discard::All => b"CZTDCZ",
    };
    assert_eq!(answers, [rollback, rest].concat());
    assert!(answers.is_empty() || tags.last() == Some(&b'Z'));
    assert!(answers.is_empty() || memchr::memmem::find(taken, &b"07".repeat(16)).is_some(), "without the proof");
}

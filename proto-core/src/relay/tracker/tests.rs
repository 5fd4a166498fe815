//! Questions and answers as letters, one book for each script.

use super::*;

/// Upper case: client; after a slash: server. `Z` alone answers with status idle.
fn run(script: &str) -> Tracker {
    let mut tracker = Tracker::default();
    let mut from_server = false;
    for c in script.chars() {
        match c {
            ' ' => from_server = false,
            '/' => from_server = true,
            c if from_server => {
                tracker.handle_backend(c as u8, b"I", |_| {});
            }
            c => {
                tracker.handle_frontend(c as u8);
            }
        }
    }
    tracker
}

#[test]
fn answers_in_order_leave_nothing_owed() {
    for script in [
        "Q/TDDCZ",
        "QQ/CZTDCZ",
        "Q/IZ",
        "PBDES/12TDDCZ",
        "PDS/1tTZ BES/2CZ",
        "PBDESPBDES/12nCZ12nCZ",
        "PH/1 S/Z",
        "PBES/12sZ",
        "CS/3Z",
        "F/VZ",
        "PF/1VZ",
        "Q/ECZ", // a late notice-like tag does not matter: ReadyForQuery ends a simple query
        "Q/HddcCZ",
        "Q/G ddc/CZ",
        "Qddc/GCZ",
    ] {
        let tracker = run(script);
        assert!(tracker.is_quiet(), "{script}: {tracker:?}");
    }
}

#[test]
fn an_error_skips_to_the_next_sync() {
    assert!(run("PBDES/EZ").is_quiet());
    assert!(run("PBES/1EZ").is_quiet());
    assert!(run("PBESPBES/EZ12CZ").is_quiet());
    // Without a Sync everything is ignored, even a simple query, until one comes.
    let mut tracker = run("P/E BQE");
    assert!(!tracker.is_quiet() && tracker.ops.is_empty());
    tracker.handle_frontend(b'S');
    tracker.handle_backend(b'Z', b"I", |_| {});
    assert!(tracker.is_quiet());
    // A deferred constraint fails in Sync itself.
    assert!(run("PBES/12CEZ").is_quiet());
}

#[test]
fn a_sync_that_copy_data_swallows_for_certain_is_not_waited_for() {
    // The first Sync is swallowed by the COPY, the one behind CopyDone is answered.
    assert!(run("PBES/12G ddcS/CZ").is_quiet());
    // Nothing is over before that one.
    assert!(!run("PBES/12G ddc/C").is_quiet());
    // All of it pipelined.
    assert!(run("PBESddcS/12GCZ").is_quiet());
    assert!(run("PBEddcS/12GCZ").is_quiet());
    // An error in the middle: the client's CopyDone is ignored.
    assert!(run("PBES/12G ddd/E cS/Z").is_quiet());
    assert!(run("Q/G dd/EZ ddc").is_quiet());
}

#[test]
fn a_sync_that_copy_data_may_have_swallowed_ends_the_session() {
    // PostgreSQL answers it if the data before it was bad, and ignores it if it was good.
    for script in ["Q/G dS", "Q/G S", "QdS/G", "PBE/12G dS", "PBEdSc/12G", "QdSSSQ/G"] {
        let tracker = run(script);
        assert!(tracker.is_confused() && !tracker.is_quiet(), "{script}: {tracker:?}");
    }
}

#[test]
fn a_copy_ends_where_something_else_begins() {
    // The first COPY fails over its data; the CopyDone, and the Sync behind it, are the second one's.
    assert!(run("QdQdc/GEZGCZ").is_quiet());
    assert!(run("QdQcS/GEZGCZZ").is_quiet());
    // Here it does, too, and what was pipelined behind it is answered.
    assert!(run("QdPBEdcS/GEZ12CZ").is_quiet());
    assert!(run("QdQ/G S/EZCZZ").is_quiet());
}

#[test]
fn strays_of_a_copy_that_never_was_pile_up_nowhere() {
    let mut tracker = run("Q");
    for c in b"dc".repeat(MAX_UNANSWERED) {
        tracker.handle_frontend(c);
    }
    assert!(!tracker.is_full());
    tracker.handle_backend(b'C', b"", |_| {});
    tracker.handle_backend(b'Z', b"I", |_| {});
    assert!(tracker.is_quiet());
}

#[test]
fn what_is_half_done_is_not_quiet() {
    for script in ["Q", "Q/TD", "P", "PH/1", "PBE/12C", "S", "Q/G dd", "Q/Hd", "PBES/E"] {
        assert!(!run(script).is_quiet(), "{script}");
    }
}

#[test]
fn answers_without_a_question_confuse_for_good() {
    for script in ["/Z", "/1", "Q/1CZ", "PS/2Z", "Q/CZZ", "/C"] {
        let tracker = run(script);
        assert!(tracker.is_confused() && !tracker.is_quiet(), "{script}");
    }
}

#[test]
fn dropped_operations_are_reported_in_order() {
    let mut tracker = Tracker::default();
    for c in "PBES".bytes() {
        tracker.handle_frontend(c);
    }
    let mut dropped = Vec::new();
    assert_eq!(tracker.handle_backend(b'E', b"", |op| dropped.push(op)), Settled::Failed(Op::Parse));
    assert_eq!(dropped, [Op::Bind, Op::Execute]);
    assert_eq!(tracker.handle_backend(b'Z', b"T", |_| {}), Settled::Ready(Op::Sync));
    assert_eq!(tracker.status(), TransactionStatus::InTransaction);
}

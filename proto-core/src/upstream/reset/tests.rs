use super::*;
use crate::fault::SqlState;
use crate::time::Tick;

const BOTH: ResetPlan = ResetPlan {
    rollback: true,
    query: None,
    discard: Discard::All,
    connect_query: None,
    restores: true,
    startup_query: None,
    prove: false,
    proof: [0xab; 16],
};
const SELECT: &[u8] = b"Q\0\0\0\x2eSELECT 'abababababababababababababababab'\0";
const TIMEOUT: Duration = Duration::from_secs(5);

fn at(seconds: u64) -> Now {
    Now { tick: Tick::from_nanos(seconds * 1_000_000_000), ..Now::default() }
}

fn msg(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn done(command: &str, status: u8) -> Vec<u8> {
    [msg(b'C', format!("{command}\0").as_bytes()), msg(b'Z', &[status])].concat()
}

/// The replies to the last statement.
fn proof(text: &[u8]) -> Vec<u8> {
    let row = [&[0, 1, 0, 0, 0, text.len() as u8][..], text].concat();
    [msg(b'T', b"\0\0"), msg(b'D', &row), done("SELECT 1", b'I')].concat()
}

fn proven() -> Vec<u8> {
    proof(&b"ab".repeat(16))
}

fn begin(status: TransactionStatus, plan: ResetPlan) -> Reset {
    Reset::new(status, plan, TIMEOUT, at(0))
}

fn outcome(reset: &mut Reset) -> Option<ResetOutcome> {
    let mut outcomes = std::iter::from_fn(|| reset.poll_output()).filter_map(|output| match output {
        ResetOutput::Finished(outcome) => Some(outcome),
        ResetOutput::Send(_) => None,
    });
    let first = outcomes.next();
    assert_eq!(outcomes.next(), None, "finished more than once");
    first
}

fn after(status: TransactionStatus, bytes: &[u8]) -> Option<ResetOutcome> {
    let mut reset = begin(status, BOTH);
    reset.handle_input(bytes, at(0));
    outcome(&mut reset)
}

fn fault(bytes: &[u8]) -> ResetFault {
    match after(TransactionStatus::Idle, bytes) {
        Some(ResetOutcome::Broken(fault)) => fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

#[test]
fn sends_only_what_the_status_and_the_plan_call_for() {
    use TransactionStatus::{Failed, Idle, InTransaction};
    let sent = |status, rollback, all: bool| {
        let discard = if all { Discard::All } else { Discard::Nothing };
        begin(status, ResetPlan { rollback, discard, ..BOTH }).poll_output().unwrap()
    };
    let discard = b"Q\0\0\0\x10DISCARD ALL\0";
    let rollback = b"Q\0\0\0\x0dROLLBACK\0";
    assert_eq!(sent(Idle, true, true), ResetOutput::Send([&discard[..], SELECT].concat()));
    assert_eq!(sent(Failed, true, true), ResetOutput::Send([&rollback[..], discard, SELECT].concat()));
    assert_eq!(sent(InTransaction, true, false), ResetOutput::Send([&rollback[..], SELECT].concat()));
    assert_eq!(sent(Idle, true, false), ResetOutput::Finished(ResetOutcome::Clean(vec![])));
    let refused = ResetOutput::Finished(ResetOutcome::Broken(ResetFault::NotIdle(InTransaction)));
    assert_eq!(sent(InTransaction, false, true), refused);
}

#[test]
fn exact_replies_make_a_clean_connection_however_they_are_chopped() {
    let replies = [
        msg(b'N', b"SWARNING\0C25P01\0Mx\0\0"),
        done("ROLLBACK", b'I'),
        msg(b'S', b"TimeZone\0UTC\0"),
        msg(b'A', b"\0\0\0\x01chan\0payload\0"),
        msg(b'C', b"DISCARD ALL\0"),
        msg(b'S', b"search_path\0public\0"),
        msg(b'S', b"TimeZone\0GMT\0"),
        msg(b'Z', b"I"),
        proven(),
    ]
    .concat();
    let parameters = vec![((*b"TimeZone").into(), (*b"GMT").into()), ((*b"search_path").into(), (*b"public").into())];
    let clean = ResetOutcome::Clean(parameters);
    for step in 1..=replies.len() {
        let mut reset = begin(TransactionStatus::InTransaction, BOTH);
        for chunk in replies.chunks(step) {
            assert_eq!(reset.handle_input(chunk, at(0)), chunk.len());
        }
        assert_eq!(outcome(&mut reset), Some(clean.clone()), "reads of {step}");
        assert_eq!(reset.poll_timeout(), None);
    }
    for end in 0..replies.len() {
        assert_eq!(after(TransactionStatus::InTransaction, &replies[..end]), None, "cut at {end}");
    }
}

#[test]
fn anything_else_breaks_it() {
    let unexpected = |tag| ResetFault::Protocol(Violation::UnexpectedMessage(tag));
    assert_eq!(fault(&done("SELECT 1", b'I')), unexpected(b'C'), "somebody else's reply");
    assert_eq!(fault(&done("DISCARDED", b'I')), unexpected(b'C'));
    assert_eq!(fault(&msg(b'Z', b"I")), unexpected(b'Z'));
    assert_eq!(fault(&msg(b'D', b"\0\0")), unexpected(b'D'));
    assert_eq!(fault(&msg(b'C', b"DISCARD ALL\0").repeat(2)), unexpected(b'C'));
    assert_eq!(fault(&done("DISCARD ALL", b'T')), ResetFault::NotIdle(TransactionStatus::InTransaction));
    assert_eq!(fault(&done("DISCARD ALL", b'?')), ResetFault::Protocol(Violation::Malformed));
    assert_eq!(fault(&msg(b'C', b"DISCARD ALL")), ResetFault::Protocol(Violation::Malformed));
    assert_eq!(fault(&msg(b'C', b"DISCARD ALL\0x")), ResetFault::Protocol(Violation::Malformed));
    assert_eq!(fault(b"C\0\0\0\x03"), ResetFault::Protocol(Violation::BadLength));
    assert_eq!(fault(b"C\x7f\0\0\0"), ResetFault::Protocol(Violation::BadLength));
    assert_eq!(fault(&msg(b'S', b"x")), ResetFault::Protocol(Violation::Malformed));
    let error = msg(b'E', b"SERROR\0VERROR\0C25001\0MDISCARD ALL cannot run inside a transaction block\0\0");
    assert!(matches!(fault(&error), ResetFault::Server(error) if error.code() == Some(SqlState(*b"25001"))));
}

#[test]
fn a_reply_too_many_breaks_it() {
    let two = [done("DISCARD ALL", b'I'), proven(), msg(b'Z', b"I")].concat();
    assert_eq!(fault(&two), ResetFault::BytesBehind);
    let half = [done("DISCARD ALL", b'I'), proven(), b"N".to_vec()].concat();
    assert_eq!(fault(&half), ResetFault::BytesBehind);
    // The rollback's replies are not the discard's.
    assert_eq!(fault(&done("ROLLBACK", b'I')), ResetFault::Protocol(Violation::UnexpectedMessage(b'C')));
}

#[test]
fn replies_that_a_former_client_left_behind_prove_nothing() {
    let unexpected = |tag| ResetFault::Protocol(Violation::UnexpectedMessage(tag));
    // It had a DISCARD ALL of its own under way: everything is one reply late.
    let late = [done("DISCARD ALL", b'I'), done("DISCARD ALL", b'I')].concat();
    assert_eq!(fault(&late), unexpected(b'C'));
    // And a SELECT of what it thought would do.
    let forged = [done("DISCARD ALL", b'I'), proof(&b"cd".repeat(16)), done("DISCARD ALL", b'I')].concat();
    assert_eq!(fault(&forged), unexpected(b'D'));
    let shorter = [done("DISCARD ALL", b'I'), proof(&b"ab".repeat(15))].concat();
    assert_eq!(fault(&shorter), unexpected(b'D'));
    assert_eq!(after(TransactionStatus::Idle, &done("DISCARD ALL", b'I')), None, "the proof is still to come");
}

#[test]
fn parameters_are_bounded() {
    let many: Vec<u8> = (0..300).flat_map(|i| msg(b'S', format!("p{i}\0v\0").as_bytes())).collect();
    assert_eq!(fault(&many), ResetFault::TooManyParameters);
}

#[test]
fn losses_and_timeouts_end_it_once() {
    let mut reset = begin(TransactionStatus::Idle, BOTH);
    assert_eq!(reset.poll_timeout(), Some(Deadline { at: at(5).tick, why: Timer::ServerReset }));
    reset.handle_timeout(at(4));
    assert_eq!(outcome(&mut reset), None, "early");
    reset.handle_timeout(at(9));
    reset.handle_timeout(at(9));
    reset.handle_close(Lost::Closed, at(9));
    assert_eq!(reset.handle_input(&done("DISCARD ALL", b'I'), at(9)), 0);
    assert_eq!(outcome(&mut reset), Some(ResetOutcome::Broken(ResetFault::TimedOut)));

    let mut reset = begin(TransactionStatus::Idle, BOTH);
    reset.handle_input(b"C\0\0", at(0));
    reset.handle_close(Lost::Broken, at(0));
    reset.handle_close(Lost::Closed, at(0));
    assert_eq!(outcome(&mut reset), Some(ResetOutcome::Broken(ResetFault::Lost(Lost::Broken))));

    let mut reset = begin(TransactionStatus::Idle, BOTH);
    reset.handle_input(&[done("DISCARD ALL", b'I'), proven()].concat(), at(99));
    reset.handle_timeout(at(100));
    reset.handle_close(Lost::Closed, at(100));
    assert_eq!(outcome(&mut reset), Some(ResetOutcome::Clean(vec![])));
}

fn check(query: Option<&str>) -> Reset {
    let query = query.map(Arc::from);
    let plan = ResetPlan { rollback: false, query, discard: Discard::Nothing, prove: true, ..BOTH };
    begin(TransactionStatus::Idle, plan)
}

#[test]
fn a_check_asks_for_the_proof_behind_its_query_and_leaves_what_is_prepared() {
    let mut plain = check(None);
    assert_eq!(plain.poll_output(), Some(ResetOutput::Send(SELECT.into())));
    plain.handle_input(&proven(), at(0));
    assert_eq!(outcome(&mut plain), Some(ResetOutcome::Clean(vec![])));
    assert!(!plain.has_deallocated());

    let mut with_query = check(Some("select 1; "));
    let query = msg(b'Q', b"select 1; \0");
    assert_eq!(with_query.poll_output(), Some(ResetOutput::Send([&query, SELECT].concat())));
    let rows = [msg(b'T', b"\0\0"), msg(b'D', b"\0\0"), done("SELECT 1", b'I'), proven()].concat();
    with_query.handle_input(&rows, at(0));
    assert_eq!(outcome(&mut with_query), Some(ResetOutcome::Clean(vec![])));
    assert!(!with_query.has_deallocated());
}

#[test]
fn a_query_that_deallocates_is_noticed() {
    for (command, all) in [("DISCARD ALL", true), ("DEALLOCATE ALL", true), ("DEALLOCATE", false), ("RESET", false)] {
        let mut reset = check(Some("..."));
        reset.handle_input(&[done(command, b'I'), proven()].concat(), at(0));
        assert!(matches!(outcome(&mut reset), Some(ResetOutcome::Clean(_)) | None));
        assert_eq!(reset.has_deallocated(), all, "{command}");
    }
}

#[test]
fn a_check_fails_by_an_error_a_transaction_or_the_answers_to_something_else() {
    let fault = |bytes: &[u8]| {
        let mut check = check(Some("begin"));
        check.handle_input(bytes, at(0));
        match outcome(&mut check) {
            Some(ResetOutcome::Broken(fault)) => fault,
            other => panic!("expected a fault, got {other:?}"),
        }
    };
    let error = msg(b'E', b"SERROR\0C22012\0Mno\0\0");
    assert!(matches!(fault(&error), ResetFault::Query(_)));
    assert_eq!(fault(&done("BEGIN", b'T')), ResetFault::NotIdle(TransactionStatus::InTransaction));
    let stranger = [done("BEGIN", b'I'), proof(&b"cd".repeat(16))].concat();
    assert!(matches!(fault(&stranger), ResetFault::Protocol(_)));
    assert!(matches!(fault(&msg(b'G', b"\0\0\0")), ResetFault::Protocol(_)), "a COPY that waits for data");
}

fn sent(reset: &mut Reset) -> String {
    match reset.poll_output() {
        Some(ResetOutput::Send(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        other => panic!("expected something to send, got {other:?}"),
    }
}

#[test]
fn a_connection_begins_anew_with_the_operators_query_behind_what_is_discarded() {
    let connect_query = Some("set role app".into());
    let mut reset = begin(TransactionStatus::Idle, ResetPlan { connect_query: connect_query.clone(), ..BOTH });
    let text = sent(&mut reset);
    let places = ["DISCARD ALL", "set role app", "SELECT"].map(|part| text.find(part));
    assert!(places.is_sorted() && places[0].is_some(), "{text}");
    reset.handle_input(&[done("DISCARD ALL", b'I'), done("SET", b'I'), proven()].concat(), at(0));
    assert_eq!(outcome(&mut reset), Some(ResetOutcome::Clean(vec![])));
    let nothing = ResetPlan { connect_query, discard: Discard::Nothing, prove: true, ..BOTH };
    assert!(!sent(&mut begin(TransactionStatus::Idle, nothing)).contains("role"), "nothing was discarded");
}

#[test]
fn a_bare_connection_gets_its_startup_parameters_again() {
    let query: Arc<str> = "SELECT pg_catalog.set_config(E'TimeZone', E'Asia/Tokyo', false)".into();
    let plan = |restores| ResetPlan { restores, startup_query: Some(query.clone()), ..BOTH };
    let sent = |plan| match begin(TransactionStatus::Idle, plan).poll_output() {
        Some(ResetOutput::Send(bytes)) => bytes,
        other => panic!("nothing is sent: {other:?}"),
    };
    assert_eq!(sent(plan(false)), sent(BOTH), "where nothing was taken back");
    let mut expected = Vec::new();
    frontend::emit_query(&mut expected, b"DISCARD ALL");
    frontend::emit_query(&mut expected, query.as_bytes());
    expected.extend_from_slice(SELECT);
    assert_eq!(sent(plan(true)), expected);
    let empty = ResetPlan { startup_query: Some("".into()), ..BOTH };
    assert_eq!(sent(empty), sent(BOTH), "nothing was asked for");

    let mut reset = begin(TransactionStatus::Idle, plan(true));
    let row = [msg(b'T', b"\0\0"), msg(b'D', b"\0\0"), msg(b'S', b"TimeZone\0Asia/Tokyo\0")].concat();
    let answers = [done("DISCARD ALL", b'I'), row, done("SELECT 1", b'I'), proven()].concat();
    reset.handle_input(&answers, at(0));
    let zone = (b"TimeZone"[..].into(), b"Asia/Tokyo"[..].into());
    assert_eq!(outcome(&mut reset), Some(ResetOutcome::Clean(vec![zone])));

    let mut reset = begin(TransactionStatus::Idle, plan(true));
    let error = msg(b'E', b"SERROR\0C22023\0Minvalid value for parameter\0\0");
    reset.handle_input(&[done("DISCARD ALL", b'I'), error].concat(), at(0));
    assert!(matches!(outcome(&mut reset), Some(ResetOutcome::Broken(ResetFault::Startup(_)))), "a login will tell");
}

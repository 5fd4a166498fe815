//! An established session: what passes, what ends it, and in which state its server connection goes back.

use super::seen;
use crate::codec::backend::TransactionStatus;
use crate::fault::{Lost, Refusal, SqlState, Violation};
use crate::session::{Finish, ReturnState, Side};
use crate::testing::duel::{Duel, Terms};
use crate::testing::wire::{back, front, message, messages};

/// Logged in, with a server that answers.
fn answering() -> Duel {
    Duel::logged_in(Terms::default())
}

/// Logged in; the test is the server.
fn silent() -> Duel {
    Duel::logged_in(Terms { server_answers: false, ..Terms::default() })
}

fn quiet(status: TransactionStatus, touched: bool) -> ReturnState {
    ReturnState::Quiet { status, touched }
}

#[test]
fn simple_queries_pass_in_both_directions() {
    let mut duel = answering();
    for (text, answer) in [
        ("rows 2 a", "T D(a/0) D(a/1) C(SELECT 2) Z(I)"),
        ("rows 1 a; rows 1 b", "T D(a/0) C(SELECT 1) T D(b/0) C(SELECT 1) Z(I)"),
        ("rows 1 a; fail 23505; rows 1 b", "T D(a/0) C(SELECT 1) E(ERROR 23505) Z(I)"),
        ("", "I Z(I)"),
        ("begin", "C(BEGIN) Z(T)"),
        ("nonsense", "E(ERROR 42601) Z(E)"),
        ("rows 1 a", "E(ERROR 25P02) Z(E)"),
        ("rollback", "C(ROLLBACK) Z(I)"),
        ("notice hello", "N(NOTICE 00000) C(DO) Z(I)"),
    ] {
        duel.client(&front::query(text));
        assert_eq!(seen(&mut duel), answer, "{text}");
    }
}

#[test]
fn a_pipeline_keeps_its_order_and_an_error_skips_to_the_sync() {
    let cycle = |text: &str| [front::parse("", text), front::bind("", ""), front::execute("", 0)].concat();
    let mut duel = answering();
    let pipeline =
        [cycle("rows 1 a"), front::sync(), cycle("fail 23505"), cycle("rows 1 b"), front::sync(), cycle("rows 1 c")];
    duel.client(&[&pipeline.concat()[..], &front::sync()].concat());
    assert_eq!(seen(&mut duel), "1 2 D(a/0) C(SELECT 1) Z(I) 1 2 E(ERROR 23505) Z(I) 1 2 D(c/0) C(SELECT 1) Z(I)");
    assert_eq!(duel.finish, None);
}

#[test]
fn five_hundred_queries_without_a_sync_pass() {
    let mut duel = answering();
    let one = [front::parse("", "rows 1 x"), front::bind("", ""), front::execute("", 0)].concat();
    duel.client(&one.repeat(500));
    duel.client(&front::sync());
    let tags: Vec<u8> = messages(&duel.seen()).iter().map(|message| message.tag).collect();
    assert_eq!(tags.len(), 500 * 4 + 1);
    duel.client(&front::terminate());
    assert_eq!(duel.returned, [quiet(TransactionStatus::Idle, true)]);
}

#[test]
fn flush_brings_answers_without_ready_for_query() {
    let mut duel = answering();
    duel.client(&[front::parse("s", "rows 1 a"), front::describe(b'S', "s"), front::flush()].concat());
    assert_eq!(seen(&mut duel), "1 t T");
    duel.client(&[front::bind("", "s"), front::execute("", 0), front::sync()].concat());
    assert_eq!(seen(&mut duel), "2 D(a/0) C(SELECT 1) Z(I)");
}

#[test]
fn a_portal_is_suspended_and_resumed() {
    let mut duel = answering();
    duel.client(&[front::parse("", "rows 3 a"), front::bind("p", ""), front::execute("p", 2), front::flush()].concat());
    assert_eq!(seen(&mut duel), "1 2 D(a/0) D(a/1) s");
    duel.client(&[front::execute("p", 2), front::close(b'P', "p"), front::sync()].concat());
    assert_eq!(seen(&mut duel), "D(a/2) C(SELECT 3) 3 Z(I)");
}

#[test]
fn copy_passes_in_both_directions() {
    let mut duel = answering();
    duel.client(&front::query("copy out 2 x"));
    assert_eq!(seen(&mut duel), "H d(x/0) d(x/1) c C(COPY 2) Z(I)");
    duel.client(&front::query("copy in"));
    assert_eq!(seen(&mut duel), "G");
    duel.client(&[front::copy_data(b"one\n"), front::copy_data(b"two\n"), front::copy_done()].concat());
    assert_eq!(seen(&mut duel), "C(COPY 2) Z(I)");
    duel.client(&[front::query("copy in"), front::copy_data(b"one\n"), front::copy_fail("changed my mind")].concat());
    assert_eq!(seen(&mut duel), "G E(ERROR 57014) Z(I)");
    // What still comes of a COPY that has failed is ignored.
    duel.client(&[front::copy_data(b"late"), front::copy_done(), front::query("rows 0 x")].concat());
    assert_eq!(seen(&mut duel), "T C(SELECT 0) Z(I)");
    duel.client(&front::terminate());
    assert_eq!(duel.returned, [quiet(TransactionStatus::Idle, true)]);
}

#[test]
fn copy_in_the_extended_protocol_swallows_its_syncs() {
    let mut duel = answering();
    let open = [front::parse("", "copy in"), front::bind("", ""), front::execute("", 0), front::sync()].concat();
    duel.client(&open);
    assert_eq!(seen(&mut duel), "1 2 G");
    duel.client(&[front::copy_data(b"x\n"), front::flush(), front::copy_done(), front::sync()].concat());
    assert_eq!(seen(&mut duel), "C(COPY 1) Z(I)");
    duel.client(&[open, front::copy_data(b"x\n"), front::copy_done(), front::sync()].concat());
    assert_eq!(seen(&mut duel), "1 2 G C(COPY 1) Z(I)");
    duel.client(&front::terminate());
    assert_eq!(duel.returned, [quiet(TransactionStatus::Idle, true)]);
}

#[test]
fn messages_without_a_question_reach_an_idle_client() {
    let mut duel = silent();
    let news = [
        back::notice("careful"),
        back::notification(7, "channel", "payload"),
        back::parameter("TimeZone", "Europe/Berlin"),
    ]
    .concat();
    duel.server(&news);
    assert_eq!(duel.seen(), news);
    duel.client(&front::terminate());
    assert!(matches!(duel.returned[..], [ReturnState::Quiet { .. }]));
}

#[test]
fn a_server_that_dies_is_reported_once() {
    for how in [Lost::Closed, Lost::Broken] {
        for during in ["", "rows 1 x"] {
            let mut duel = silent();
            if !during.is_empty() {
                duel.client(&front::query(during));
            }
            duel.close(Side::Server, how);
            assert_eq!(seen(&mut duel), "E(FATAL 57P01)");
            assert_eq!(duel.finish, Some(Finish::Lost(Side::Server, how)));
            assert_eq!(duel.returned, [ReturnState::Broken]);
            // Again, or the other side as well: nothing more.
            duel.close(Side::Server, how);
            duel.close(Side::Client, how);
            assert_eq!((duel.seen(), duel.returned.len()), (vec![], 1));
        }
    }
}

#[test]
fn a_server_that_dies_inside_a_message_adds_nothing_to_it() {
    for cut in 1..back::row(b"abcdef").len() {
        let mut duel = silent();
        duel.client(&front::query("rows 1 x"));
        duel.server(&[&back::row_description()[..], &back::row(b"abcdef")[..cut]].concat());
        duel.close(Side::Server, Lost::Closed);
        let bytes = duel.seen();
        // A header that is not whole has not been forwarded: then there is room for an own message.
        if cut < 5 {
            assert!(crate::testing::wire::brief(&bytes).ends_with("E(FATAL 57P01)"), "cut at {cut}");
        } else {
            assert_eq!(bytes.len(), back::row_description().len() + cut, "cut at {cut}");
        }
        assert_eq!(duel.returned, [ReturnState::Broken]);
    }
}

#[test]
fn the_servers_own_farewell_is_enough() {
    let mut duel = silent();
    let farewell = back::error("FATAL", "57P01", "terminating connection due to administrator command");
    duel.server(&farewell);
    duel.close(Side::Server, Lost::Closed);
    assert_eq!(duel.seen(), farewell);
    assert_eq!(duel.returned, [ReturnState::Broken]);
    // Also when the client leaves before the server has closed.
    let mut duel = silent();
    duel.server(&farewell);
    duel.client(&front::terminate());
    assert_eq!(duel.returned, [ReturnState::Broken], "it is about to end");
}

#[test]
fn messages_that_a_server_does_not_send_end_the_session() {
    for (bytes, violation) in [
        (message(b'z', b""), Violation::UnexpectedMessage(b'z')),
        (message(0, b""), Violation::UnexpectedMessage(0)),
        (back::authentication(0, b""), Violation::UnexpectedMessage(b'R')),
        (back::key_data(1, &[0; 4]), Violation::UnexpectedMessage(b'K')),
        (message(b'W', &[0; 3]), Violation::UnexpectedMessage(b'W')),
        (vec![b'D', 0xff, 0xff, 0xff, 0xff], Violation::BadLength),
        (vec![b'D', 0, 0, 0, 3], Violation::BadLength),
        (vec![b'D', 0x40, 0, 0, 0], Violation::BadLength),
    ] {
        let mut duel = silent();
        duel.client(&front::query("rows 1 x"));
        duel.server(&[&back::row_description()[..], &bytes].concat());
        assert_eq!(seen(&mut duel), "T E(FATAL 08P01)", "what came before it passes");
        assert_eq!(duel.finish, Some(Finish::Broken(Side::Server, violation)));
        assert_eq!(duel.returned, [ReturnState::Broken]);
    }
}

#[test]
fn messages_that_a_client_may_not_send_end_the_session() {
    for (bytes, violation) in [
        (message(b'R', b""), Violation::UnexpectedMessage(b'R')),
        (front::password(b"again"), Violation::UnexpectedMessage(b'p')),
        (message(0xff, b""), Violation::UnexpectedMessage(0xff)),
        (vec![b'Q', 0xff, 0xff, 0xff, 0xff], Violation::BadLength),
        (vec![b'Q', 0, 0, 0, 0], Violation::BadLength),
        (vec![b'd', 0x40, 0, 0, 0], Violation::BadLength),
    ] {
        let mut duel = silent();
        duel.client(&bytes);
        assert_eq!(seen(&mut duel), "E(FATAL 08P01)");
        assert_eq!(duel.finish, Some(Finish::Broken(Side::Client, violation)));
        assert_eq!(duel.returned, [quiet(TransactionStatus::Idle, false)], "the server has seen nothing of it");
        assert!(duel.sent().is_empty());
        // In the middle of a statement: the server goes on with what it has.
        let mut duel = silent();
        duel.client(&[front::query("sleep 10"), bytes].concat());
        assert_eq!(duel.sent(), front::query("sleep 10"));
        assert_eq!(duel.returned, [ReturnState::Busy]);
    }
}

#[test]
fn a_clean_end_gives_the_connection_back_in_its_state() {
    use TransactionStatus::{Failed, Idle, InTransaction};
    for (texts, state) in [
        (&[][..], quiet(Idle, false)),
        (&["rows 1 x"], quiet(Idle, true)),
        (&["begin"], quiet(InTransaction, true)),
        (&["begin", "nonsense"], quiet(Failed, true)),
        (&["begin", "nonsense", "rollback"], quiet(Idle, true)),
    ] {
        for leaves in [true, false] {
            let mut duel = answering();
            for text in texts {
                duel.client(&front::query(text));
            }
            if leaves {
                duel.client(&front::terminate());
            } else {
                duel.close(Side::Client, Lost::Broken);
            }
            assert_eq!(duel.returned, [state], "{texts:?}");
        }
    }
}

#[test]
fn what_is_not_over_is_busy() {
    let cycle = [front::parse("", "rows 9 x"), front::bind("", ""), front::execute("", 2)].concat();
    let row = back::row(b"x");
    let half_row = [back::row_description(), row[..row.len() / 2].to_vec()].concat();
    for (what, client, server) in [
        ("a query without an answer", front::query("x"), vec![]),
        ("a query with half an answer", front::query("x"), back::row_description()),
        ("half a row", front::query("x"), half_row),
        ("half a message of the client", front::query("some text")[..9].to_vec(), vec![]),
        ("a Parse without a Sync", front::parse("", "x"), back::bare(b'1')),
        (
            "Flush instead of Sync",
            [cycle, front::flush()].concat(),
            [back::bare(b'1'), back::bare(b'2'), back::bare(b's')].concat(),
        ),
        ("COPY IN", front::query("copy in"), back::copy_response(b'G')),
        ("COPY OUT", front::query("copy out"), back::copy_response(b'H')),
        ("skipping to a Sync", front::parse("", "bad"), back::error("ERROR", "42601", "no")),
        (
            "two queries, one answer",
            front::query("x").repeat(2),
            [back::complete("SELECT 0"), back::ready(b'I')].concat(),
        ),
        ("a Sync without an answer", front::sync(), vec![]),
    ] {
        let mut duel = silent();
        duel.client(&client);
        duel.server(&server);
        duel.close(Side::Client, Lost::Broken);
        assert_eq!(duel.returned, [ReturnState::Busy], "{what}");
    }
}

#[test]
fn answers_that_nobody_asked_for_break_the_connection() {
    for (what, bytes) in [
        ("ReadyForQuery", back::ready(b'I')),
        ("CommandComplete", back::complete("SELECT 1")),
        ("ParseComplete", back::bare(b'1')),
    ] {
        let mut duel = silent();
        duel.server(&bytes);
        duel.client(&front::terminate());
        assert_eq!(duel.returned, [ReturnState::Broken], "{what}");
    }
    let mut duel = silent();
    duel.client(&front::query("x"));
    duel.server(&[back::complete("SELECT 1"), message(b'Z', b"?")].concat());
    duel.client(&front::terminate());
    assert_eq!(duel.returned, [ReturnState::Broken], "a transaction status that does not exist");
}

#[test]
fn a_session_that_is_ended_from_outside_says_why() {
    let mut duel = silent();
    duel.client(&front::query("sleep 1000"));
    duel.kill(Refusal::new(SqlState::ADMIN_SHUTDOWN, "because"));
    assert_eq!(seen(&mut duel), "E(FATAL 57P01)");
    assert_eq!(duel.returned, [ReturnState::Busy]);
    // Inside of a row there is no place for a reason.
    let mut duel = silent();
    duel.client(&front::query("x"));
    duel.server(&back::row(b"0123456789")[..9]);
    duel.kill(Refusal::new(SqlState::ADMIN_SHUTDOWN, "because"));
    assert_eq!(duel.seen(), back::row(b"0123456789")[..9]);
    assert_eq!(duel.returned, [ReturnState::Busy]);
}

#[test]
fn parameters_that_changed_go_back_with_the_connection() {
    let mut duel = answering();
    duel.client(&front::query("set TimeZone Asia/Tokyo"));
    assert_eq!(seen(&mut duel), "S(TimeZone) C(SET) Z(I)");
    duel.client(&front::terminate());
    assert_eq!(duel.returned, [quiet(TransactionStatus::Idle, true)]);
}

#[test]
fn a_flood_of_unanswered_operations_waits_and_loses_nothing() {
    let mut terms = Terms { server_answers: false, ..Terms::default() };
    terms.profile.audit = None;
    let mut duel = Duel::logged_in(terms);
    let syncs = front::sync().repeat(20_000);
    duel.client(&syncs);
    let first = duel.sent().len();
    assert_eq!(first, crate::relay::tracker::MAX_UNANSWERED * front::sync().len());
    duel.server(&back::ready(b'I').repeat(20_000 - crate::relay::tracker::MAX_UNANSWERED));
    assert_eq!(first + duel.sent().len(), syncs.len());
}

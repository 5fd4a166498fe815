//! Sessions that share a server connection one after the other: what one of them does to its prepared statements must not
//! change what another one runs.

use super::*;
use crate::policy::SessionTerms;
use crate::relay::{OnServer, Pooled};
use crate::upstream::Reported;

/// A client that has been told these values.
pub(super) fn pooled_with(told: Reported, cache_unnamed_statements: bool) -> Relay {
    let terms = SessionTerms { cache_unnamed_statements, ..SessionTerms::default() };
    Relay::new(None, Some(Box::new(Pooled::new(told, &terms))))
}

fn pooled(audit: bool) -> Relay {
    let profile = AuditProfile { statement_bytes: 4096, required: false };
    let ledger = audit.then(|| Box::new(Ledger::new(profile)));
    Relay::new(ledger, Some(Box::new(Pooled::new(Reported::default(), &SessionTerms::default()))))
}

/// A session on a connection with these statements.
pub(super) fn on(audit: bool, statements: Option<Box<OnServer>>) -> Relay {
    let mut relay = pooled(audit);
    let statements = statements.unwrap_or_else(|| Box::new(OnServer::new(200)));
    let _ = relay.handle_connection(&Reported::default(), None, Some(statements));
    relay
}

/// Shows bytes until the relay wants no more. What goes to the server, and what is said to the client.
pub(super) fn client(relay: &mut Relay, mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    loop {
        match relay.handle_client(bytes, now()) {
            Step::Forward(n) => {
                to_server.extend_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
            }
            Step::Discard(n) => bytes = &bytes[n..],
            Step::SayServer(own) => to_server.extend(own),
            Step::SayClient(own) => to_client.extend(own),
            _ => return (to_server, to_client),
        }
    }
}

/// Whether the relay goes on behind these bytes of the server.
pub(super) fn server(relay: &mut Relay, mut bytes: &[u8]) -> bool {
    loop {
        match relay.handle_server(bytes, now()) {
            Step::Forward(n) | Step::Discard(n) => bytes = &bytes[n..],
            Step::SayClient(_) => {}
            last => return !matches!(last, Step::Broken(_)),
        }
    }
}

pub(super) fn tags(bytes: &[u8]) -> String {
    crate::testing::wire::messages(bytes).iter().map(|message| char::from(message.tag)).collect()
}

/// A connection on which somebody has prepared `s1`.
pub(super) fn with_s1(audit: bool) -> Option<Box<OnServer>> {
    let mut somebody = on(audit, None);
    client(&mut somebody, &[front::parse("s1", "good"), front::sync()].concat());
    server(&mut somebody, &[back::bare(b'1'), back::ready(b'I')].concat());
    somebody.take_statements()
}

#[test]
fn a_name_that_was_freed_unseen_cannot_get_another_text() {
    for audit in [false, true] {
        for (text, tag) in [
            ("DISCARD ALL", "DISCARD ALL"),
            ("DEALLOCATE s1; select 1", "DEALLOCATE"),
            ("/* hidden */ deallocate s1", "DEALLOCATE"),
            ("do $$begin execute 'deallocate all'; end$$", "DO"),
        ] {
            let mut relay = on(audit, None);
            client(&mut relay, &[front::parse("s1", "good"), front::sync()].concat());
            server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat());
            client(&mut relay, &front::query(text));
            server(&mut relay, &[back::complete(tag), back::ready(b'I')].concat());
            client(&mut relay, &[front::parse("s1", "evil"), front::sync()].concat());
            let goes_on = server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat());
            let ended = !goes_on || relay.fault().is_some();
            if ended || relay.is_in_doubt() {
                continue;
            }
            let mut next = on(audit, relay.take_statements());
            let bytes = [front::parse("x", "good"), front::bind("", "x"), front::sync()].concat();
            let (sent, _) = client(&mut next, &bytes);
            assert!(memchr::memmem::find(&sent, b"s1").is_none(), "{text}: {}", sent.escape_ascii());
        }
    }
}

#[test]
fn a_name_that_is_taken_is_refused_also_where_the_connection_knows_it_by_another_one() {
    let mut relay = on(true, with_s1(true));
    client(&mut relay, &[front::parse("s1", "mine"), front::sync()].concat());
    server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat());
    // Somebody's `s1` goes, and `gprxy_1` stays.
    client(&mut relay, &front::query("EXECUTE s1"));
    server(&mut relay, &[back::bare(b'3'), back::error("ERROR", "26000", "no"), back::ready(b'I')].concat());
    let (sent, _) = client(&mut relay, &[front::parse("s1", "other"), front::sync()].concat());
    assert_eq!(tags(&sent), "PPS", "something is there first: {}", sent.escape_ascii());
    assert!(memchr::memmem::find(&sent, b"s1\0\0").is_some() && memchr::memmem::find(&sent, b"mine").is_none());
}

#[test]
fn a_parse_that_an_error_overtakes_has_not_happened() {
    let mut relay = on(true, with_s1(true));
    client(&mut relay, &[front::parse("p", "bad"), front::flush()].concat());
    let parse = front::parse("s1", "other");
    let Step::SayServer(_) = relay.handle_client(&parse, now()) else { panic!("it is renamed") };
    server(&mut relay, &back::error("ERROR", "42601", "no"));
    client(&mut relay, &[parse, front::sync()].concat());
    server(&mut relay, &back::ready(b'I'));
    assert!(relay.is_between_transactions());
    let mut next = on(true, relay.take_statements());
    let bytes = [front::parse("x", "other"), front::bind("", "x"), front::sync()].concat();
    assert_eq!(tags(&client(&mut next, &bytes).0), "PBS", "it is not thought to be there");
}

#[test]
fn a_parse_that_an_error_overtakes_is_undone_before_the_close_in_front_of_it() {
    let mut relay = on(true, with_s1(true));
    client(&mut relay, &[front::parse("s1", "mine"), front::sync()].concat());
    server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat());
    client(&mut relay, &[front::parse("p", "bad"), front::close(b'S', "s1"), front::flush()].concat());
    let parse = front::parse("s1", "other");
    let Step::SayServer(_) = relay.handle_client(&parse, now()) else { panic!("it is renamed") };
    server(&mut relay, &back::error("ERROR", "42601", "no"));
    client(&mut relay, &[parse, front::sync()].concat());
    server(&mut relay, &back::ready(b'I'));
    let (sent, _) = client(&mut relay, &[front::bind("", "s1"), front::sync()].concat());
    assert_eq!(tags(&sent), "BS");
    assert!(
        memchr::memmem::find(&sent, b"gprxy_1\0").is_some(),
        "the session has what it had: {}",
        sent.escape_ascii()
    );
}

#[test]
fn the_answer_to_what_goes_no_further_comes_in_its_turn() {
    let mut relay = on(true, with_s1(true));
    let bytes = [front::describe(b'S', "nothing"), front::sync(), front::parse("t", "good"), front::sync()].concat();
    let (sent, said) = client(&mut relay, &bytes);
    assert_eq!((tags(&sent).as_str(), said.len()), ("DSS", 0), "not before those in front of it");
    let (mut forwarded, mut rest) =
        (Vec::new(), [back::error("ERROR", "26000", "no"), back::ready(b'I'), back::ready(b'I')].concat());
    loop {
        match relay.handle_server(&rest, now()) {
            Step::Forward(n) => forwarded.extend(rest.drain(..n)),
            Step::SayClient(own) => forwarded.extend(own),
            _ => break,
        }
    }
    assert_eq!(tags(&forwarded), "EZ1Z");
    assert!(relay.is_between_transactions());
}

#[test]
fn a_pipeline_of_what_gprxy_answers_itself_comes_to_its_end_without_a_flush() {
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("s1", "good"), front::sync()].concat());
    server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat());
    // The server keeps the answer to the Bind, and all others stand behind it.
    let close = front::close(b'S', "unknown");
    let flood = [front::bind("", "s1"), close.repeat(crate::relay::tracker::MAX_UNANSWERED + 10)].concat();
    let mut left = &flood[..];
    let mut sent = Vec::new();
    loop {
        match relay.handle_client(left, now()) {
            Step::Forward(n) => {
                sent.extend_from_slice(&left[..n]);
                left = &left[n..];
            }
            Step::Discard(n) => left = &left[n..],
            Step::SayServer(own) => sent.extend(own),
            last => {
                assert_eq!(last, Step::Wait);
                break;
            }
        }
    }
    assert_eq!(tags(&sent), "BH", "the server is asked once");
    assert!(!left.is_empty());
    assert_eq!(relay.handle_client(left, now()), Step::Wait, "and not again");
    server(&mut relay, &back::bare(b'2'));
    let (_, answers) = client(&mut relay, left);
    assert_eq!(answers.len(), 5 * (crate::relay::tracker::MAX_UNANSWERED + 10));
    client(&mut relay, &front::sync());
    assert!(server(&mut relay, &back::ready(b'I')));
    assert!(relay.is_quiet());
}

#[test]
fn a_statement_too_long_to_be_kept_takes_the_name_that_somebody_else_has_left_there() {
    let long = format!("select '{}'", "x".repeat(13_000));
    let mut relay = on(false, with_s1(false));
    let (to_server, _) = client(&mut relay, &[front::parse("s1", &long), front::sync()].concat());
    assert_eq!(tags(&to_server), "CPS");
    assert!(server(&mut relay, &[back::bare(b'3'), back::bare(b'1'), back::ready(b'I')].concat()));
    assert!(!relay.pins().is_empty());
}

#[test]
fn a_name_that_the_session_has_is_refused_for_a_long_statement_too() {
    let long = format!("select '{}'", "x".repeat(13_000));
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("s1", "good"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    drop(relay.take_statements());
    let _ = relay.handle_connection(&Reported::default(), None, Some(Box::new(OnServer::new(200))));
    let (to_server, _) = client(&mut relay, &[front::parse("s1", &long), front::sync()].concat());
    assert_eq!(tags(&to_server), "PPS", "it is brought there to be in the way");
    assert!(server(
        &mut relay,
        &[back::bare(b'1'), back::error("ERROR", "42P05", "taken"), back::ready(b'I')].concat()
    ));
    assert!(relay.pins().is_empty());
}

#[test]
fn in_a_failed_transaction_a_statement_that_is_there_already_is_refused_all_the_same() {
    let mut relay = on(false, with_s1(false));
    client(&mut relay, &front::query("begin; select 1/0"));
    assert!(server(&mut relay, &[back::error("ERROR", "22012", "no"), back::ready(b'E')].concat()));
    let (to_server, to_client) = client(&mut relay, &[front::parse("mine", "good"), front::sync()].concat());
    assert_eq!((tags(&to_server).as_str(), to_client.as_slice()), ("PS", &b""[..]));
    assert!(server(&mut relay, &[back::error("ERROR", "25P02", "aborted"), back::ready(b'E')].concat()));
}

#[test]
fn the_unnamed_statement_survives_a_close_that_was_skipped() {
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("", "good"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    client(&mut relay, &[front::bind("", "nobody"), front::close(b'S', ""), front::sync()].concat());
    assert!(server(&mut relay, &[back::error("ERROR", "26000", "none"), back::ready(b'I')].concat()));
    drop(relay.take_statements());
    let _ = relay.handle_connection(&Reported::default(), None, Some(Box::new(OnServer::new(200))));
    let (to_server, _) = client(&mut relay, &[front::bind("", ""), front::sync()].concat());
    assert_eq!(tags(&to_server), "PBS", "it is brought to the next connection");
}

#[test]
fn an_error_before_an_earlier_sync_says_nothing_of_what_is_closed_behind_it() {
    let mut relay = on(false, None);
    let fails = [front::bind("", "nobody"), front::sync()].concat();
    let skips = [front::parse("", "good"), front::bind("", "nobody"), front::close(b'S', ""), front::sync()].concat();
    client(&mut relay, &[fails, skips].concat());
    let failed = || [back::error("ERROR", "26000", "none"), back::ready(b'I')].concat();
    assert!(server(&mut relay, &[failed(), back::bare(b'1'), failed()].concat()));
    let (to_server, _) = client(&mut relay, &[front::describe(b'S', ""), front::sync()].concat());
    assert_eq!(tags(&to_server), "DS", "the statement is there: its Close was skipped");
}

#[test]
fn what_a_failed_transaction_frees_behind_its_end_is_there_for_it() {
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("s1", "good"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    drop(relay.take_statements());
    let _ = relay.handle_connection(&Reported::default(), None, Some(Box::new(OnServer::new(200))));
    client(&mut relay, &front::query("begin; select 1/0"));
    assert!(server(&mut relay, &[back::error("ERROR", "22012", "no"), back::ready(b'E')].concat()));
    let (sent, _) = client(&mut relay, &front::query("rollback; deallocate s1"));
    assert_eq!(tags(&sent), "PQ");
    let done = [back::complete("ROLLBACK"), back::complete("DEALLOCATE"), back::ready(b'I')].concat();
    assert!(server(&mut relay, &[back::bare(b'1'), done].concat()));
    assert!(relay.is_quiet() && !relay.is_in_doubt());
}

#[test]
fn the_name_of_a_statement_too_long_to_be_kept_is_taken() {
    let long = format!("select '{}'", "x".repeat(13_000));
    let mut relay = on(false, with_s1(false));
    client(&mut relay, &[front::parse("mine", &long), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    let (to_server, to_client) = client(&mut relay, &[front::parse("mine", "good"), front::sync()].concat());
    assert_eq!((tags(&to_server).as_str(), to_client.as_slice()), ("PS", &b""[..]), "the server refuses it");
}

#[test]
fn a_skipped_parse_of_the_unnamed_statement_leaves_the_one_before() {
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("", "first"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    client(&mut relay, &[front::bind("", "nobody"), front::parse("", "second"), front::sync()].concat());
    assert!(server(&mut relay, &[back::error("ERROR", "26000", "none"), back::ready(b'I')].concat()));
    drop(relay.take_statements());
    let _ = relay.handle_connection(&Reported::default(), None, Some(Box::new(OnServer::new(200))));
    let (to_server, _) = client(&mut relay, &[front::bind("", ""), front::sync()].concat());
    assert_eq!(tags(&to_server), "PBS");
    assert!(to_server.windows(5).any(|part| part == b"first"), "{to_server:?}");
}

#[test]
fn a_parse_of_the_unnamed_statement_that_fails_leaves_none() {
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("", "first"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    client(&mut relay, &[front::parse("", "selec"), front::sync()].concat());
    assert!(server(&mut relay, &[back::error("ERROR", "42601", "no"), back::ready(b'I')].concat()));
    drop(relay.take_statements());
    let _ = relay.handle_connection(&Reported::default(), None, Some(Box::new(OnServer::new(200))));
    let (to_server, _) = client(&mut relay, &[front::bind("", ""), front::sync()].concat());
    assert!(!to_server.windows(5).any(|part| part == b"first"), "PostgreSQL has dropped it");
}

#[test]
fn a_server_that_goes_while_it_takes_over_the_settings_says_so_itself() {
    let mut relay = pooled(false);
    let mut told = Reported::default();
    assert!(told.set(b"TimeZone", b"Asia/Tokyo"));
    relay.pooled = Some(Box::new(Pooled::new(told, &SessionTerms::default())));
    let mut other = Reported::default();
    assert!(other.set(b"TimeZone", b"UTC"));
    assert!(!relay.handle_connection(&other, None, Some(Box::new(OnServer::new(200)))).set.is_empty());
    let last = back::error("FATAL", "57P01", "terminating connection due to administrator command");
    assert_eq!(relay.handle_server(&last, now()), Step::Forward(last.len()));
    assert!(relay.server_is_leaving());
    let refused = back::error("ERROR", "22023", "no such zone");
    let mut relay = on(false, None);
    relay.tracker.handle_own(super::tracker::Op::Own);
    assert!(!server(&mut relay, &refused), "an error of another kind is for nobody");
}

/// A session that has `s1` and `s2`, on a connection that has `s1`, and somebody else's `s2`.
pub(super) fn with_two() -> Relay {
    let mut relay = on(true, None);
    client(&mut relay, &[front::parse("s1", "mine"), front::parse("s2", "mine too"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::bare(b'1'), back::ready(b'I')].concat()));
    drop(relay.take_statements());
    let mut somebody = on(true, None);
    client(&mut somebody, &[front::parse("s1", "mine"), front::parse("s2", "theirs"), front::sync()].concat());
    assert!(server(&mut somebody, &[back::bare(b'1'), back::bare(b'1'), back::ready(b'I')].concat()));
    let _ = relay.handle_connection(&Reported::default(), None, somebody.take_statements());
    relay
}

/// The session of [`with_two`] on a connection that has neither.
pub(super) fn with_none_here() -> Relay {
    let mut relay = with_two();
    drop(relay.take_statements());
    let _ = relay.handle_connection(&Reported::default(), None, Some(Box::new(OnServer::new(200))));
    relay
}

#[test]
fn what_the_extended_protocol_frees_is_there_for_it_and_cannot_fail() {
    let mut relay = with_none_here();
    let frees = [front::parse("", "deallocate s1"), front::bind("", ""), front::execute("", 0), front::sync()].concat();
    let (sent, _) = client(&mut relay, &frees);
    assert_eq!(tags(&sent), "PPBES");
    assert!(memchr::memmem::find(&sent, b"mine").is_none(), "its table may be gone: {}", sent.escape_ascii());
    let done = [back::bare(b'2'), back::complete("DEALLOCATE"), back::ready(b'I')].concat();
    assert!(server(&mut relay, &[back::bare(b'1'), back::bare(b'1'), done].concat()));
    assert_eq!(tags(&client(&mut relay, &[front::bind("", "s1"), front::sync()].concat()).0), "BS", "it is gone");
    // What runs by its name is what the session has by it.
    let mut relay = with_none_here();
    let (sent, _) = client(&mut relay, &front::parse("", "execute s1"));
    assert!(memchr::memmem::find(&sent, b"mine").is_some(), "{}", sent.escape_ascii());
}

#[test]
fn what_a_named_statement_frees_is_not_taken_for_what_the_unnamed_one_has_freed() {
    let mut relay = with_two();
    let run = |name: &str| [front::bind("", name), front::execute("", 0), front::sync()].concat();
    let done = || [back::bare(b'2'), back::complete("DEALLOCATE"), back::ready(b'I')].concat();
    client(&mut relay, &[front::parse("", "deallocate s1"), run("")].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), done()].concat()));
    client(&mut relay, &[front::parse("s1", "new"), front::parse("d", "deallocate s2"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::bare(b'1'), back::ready(b'I')].concat()));
    client(&mut relay, &run("d"));
    assert!(server(&mut relay, &done()));
    assert!(relay.is_in_doubt() && relay.fault().is_none());
    drop(relay.take_statements());
    let _ = relay.handle_connection(&Reported::default(), None, Some(Box::new(OnServer::new(200))));
    assert_eq!(tags(&client(&mut relay, &run("s1")).0), "PBES", "the session has it");
}

#[test]
fn a_name_that_the_extended_protocol_frees_is_free_in_the_same_pipeline() {
    for text in ["deallocate s1", "deallocate all"] {
        let mut relay = with_two();
        let frees = [front::parse("", text), front::bind("", ""), front::execute("", 0)].concat();
        let behind = [front::parse("s1", "new"), front::bind("", "s1"), front::execute("", 0), front::sync()].concat();
        let (sent, _) = client(&mut relay, &[frees, behind.clone()].concat());
        assert_eq!(tags(&sent), "PBEH", "{text}");
        let done = back::complete(&text.to_ascii_uppercase().replace(" S1", ""));
        assert!(server(&mut relay, &[back::bare(b'1'), back::bare(b'2'), done].concat()));
        assert_eq!(tags(&client(&mut relay, &behind).0), "PBES", "{text}");
        let answer = [back::bare(b'1'), back::bare(b'2'), back::complete("SELECT 1"), back::ready(b'I')].concat();
        assert!(server(&mut relay, &answer), "{text}");
        assert!(relay.fault().is_none() && relay.is_quiet(), "{text}");
    }
}

#[test]
fn a_name_that_was_freed_unseen_does_not_end_the_session() {
    let mut relay = with_two();
    client(&mut relay, &front::query("do $$begin execute 'deallocate s1'; end$$"));
    assert!(server(&mut relay, &[back::complete("DO"), back::ready(b'I')].concat()));
    let pipeline = [front::parse("s1", "new"), front::bind("", "s1"), front::close(b'S', "s1"), front::sync()].concat();
    assert_eq!(tags(&client(&mut relay, &pipeline).0), "PBS");
    assert!(server(&mut relay, &back::bare(b'1')), "which had to be refused, as far as was known");
    // Behind an error the Close has not happened, and the session has what the server has.
    assert!(server(&mut relay, &[back::error("ERROR", "22012", "no"), back::ready(b'I')].concat()));
    assert!(relay.fault().is_none() && relay.is_in_doubt());
    assert_eq!(tags(&client(&mut relay, &[front::bind("", "s1"), front::sync()].concat()).0), "BS");
}

#[test]
fn the_unnamed_statement_is_gone_behind_a_query_whatever_failed_before_it() {
    let mut relay = on(true, None);
    let failing = [front::parse("", "good"), front::bind("", ""), front::close(b'S', ""), front::sync()].concat();
    client(&mut relay, &[failing, front::query("select 1")].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::error("ERROR", "34000", "no"), back::ready(b'I')].concat()));
    assert!(server(&mut relay, &[back::complete("SELECT 1"), back::ready(b'I')].concat()));
    let (sent, _) = client(&mut relay, &[front::bind("", ""), front::sync()].concat());
    assert!(memchr::memmem::find(&sent, b"good").is_none(), "{}", sent.escape_ascii());
}

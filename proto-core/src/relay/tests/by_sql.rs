//! DEALLOCATE and PREPARE as texts, on a connection that sessions share.

use super::pooled::{client, on, server, tags, with_none_here, with_s1, with_two};
use super::*;
use crate::upstream::Reported;

#[test]
fn a_foreign_name_in_sql_goes_with_the_query_and_is_skipped_with_it() {
    // Inside of a transaction nothing of gprxy's own ends anything.
    let mut relay = on(true, with_s1(true));
    client(&mut relay, &front::query("BEGIN"));
    server(&mut relay, &[back::complete("BEGIN"), back::ready(b'T')].concat());
    let (sent, _) = client(&mut relay, &front::query("PREPARE s1 AS select 1"));
    assert_eq!(tags(&sent), "CQ");
    let answer = [back::bare(b'3'), back::complete("PREPARE"), back::ready(b'T')].concat();
    assert!(server(&mut relay, &answer));
    assert!(relay.fault().is_none() && relay.is_quiet());

    // Behind an error the server skips both, and the somebody's statement does not run.
    let mut relay = on(true, with_s1(true));
    let (sent, _) = client(&mut relay, &[front::parse("p", "syntax error"), front::query("EXECUTE s1")].concat());
    assert_eq!(tags(&sent), "PCQ");
    server(&mut relay, &back::error("ERROR", "42601", "no"));
    client(&mut relay, &front::sync());
    server(&mut relay, &back::ready(b'I'));
    assert!(relay.fault().is_none() && relay.is_quiet());
    let statements = relay.take_statements().unwrap();
    assert_eq!(statements.len(), 1, "s1 is still there, and nothing else");
}

#[test]
fn what_is_prepared_behind_a_deallocate_all_is_known() {
    let mut relay = on(true, None);
    client(&mut relay, &[front::query("DEALLOCATE ALL"), front::parse("s1", "evil"), front::sync()].concat());
    server(&mut relay, &[back::complete("DEALLOCATE ALL"), back::ready(b'I')].concat());
    client(&mut relay, &[front::parse("s1", "evil"), front::sync()].concat());
    server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat());
    let mut next = on(true, relay.take_statements());
    let (sent, _) = client(&mut next, &[front::bind("", "s1"), front::sync()].concat());
    assert_eq!(tags(&sent), "CBS", "somebody else's is closed first");
}

#[test]
fn a_deallocate_goes_behind_the_settings_that_the_connection_takes_over() {
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("s1", "good"), front::sync()].concat());
    let tokyo = back::parameter("TimeZone", "Asia/Tokyo");
    assert!(server(&mut relay, &[tokyo.clone(), back::bare(b'1'), back::ready(b'I')].concat()));
    drop(relay.take_statements());
    let mut other = Reported::default();
    assert!(other.set(b"TimeZone", b"UTC"));
    let differences = relay.handle_connection(&other, None, Some(Box::new(OnServer::new(200))));
    assert!(!differences.set.is_empty());
    let (sent, said) = client(&mut relay, &front::query("deallocate s1"));
    assert_eq!((tags(&sent).as_str(), said.len()), ("PQ", 0), "behind the settings, on the server");
    let taken = [back::complete("SET"), tokyo, back::ready(b'I')].concat();
    let done = [back::bare(b'1'), back::complete("DEALLOCATE"), back::ready(b'I')].concat();
    assert!(server(&mut relay, &[taken, done].concat()));
    assert!(relay.is_quiet() && !relay.is_in_doubt());
    assert_eq!(tags(&client(&mut relay, &[front::parse("s1", "new"), front::sync()].concat()).0), "PS", "it is free");
}

#[test]
fn a_deallocate_that_comes_in_pieces_is_looked_at_whole() {
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("s1", "good"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    let deallocate = front::query("deallocate s1");
    assert_eq!(client(&mut relay, &deallocate[..10]), (Vec::new(), Vec::new()));
    let (to_server, to_client) = client(&mut relay, &deallocate);
    assert_eq!((to_server.as_slice(), tags(&to_client).as_str()), (&b""[..], "CZ"), "the statement may serve others");
}

#[test]
fn a_name_is_free_again_behind_a_deallocate_all_in_the_same_pipeline() {
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("s1", "good"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    let parse = [front::parse("s1", "new"), front::sync()].concat();
    let (sent, _) = client(&mut relay, &[front::query("deallocate all"), parse.clone()].concat());
    assert_eq!(tags(&sent), "Q", "it waits for the name to be free");
    assert!(server(&mut relay, &[back::complete("DEALLOCATE ALL"), back::ready(b'I')].concat()));
    assert_eq!(tags(&client(&mut relay, &parse).0), "PS");
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    assert_eq!(tags(&client(&mut relay, &[front::bind("", "s1"), front::sync()].concat()).0), "BS");
}

#[test]
fn deallocate_among_other_statements_frees_the_sessions_own() {
    let mut relay = with_two();
    let query = front::query("begin; deallocate s1; deallocate s2; deallocate nobody; select 1");
    let (sent, _) = client(&mut relay, &query);
    assert_eq!(tags(&sent), "Q", "somebody else's is as good to be freed");
    // What comes behind waits for what is freed.
    let parse = [front::parse("s1", "new"), front::sync()].concat();
    assert_eq!(client(&mut relay, &parse).0, b"");
    let done = || back::complete("DEALLOCATE");
    assert!(server(&mut relay, &[back::complete("BEGIN"), done(), done()].concat()));
    assert!(server(&mut relay, &[back::error("ERROR", "26000", "nobody"), back::ready(b'E')].concat()));
    assert!(!relay.is_in_doubt());
    client(&mut relay, &front::query("rollback"));
    assert!(server(&mut relay, &[back::complete("ROLLBACK"), back::ready(b'I')].concat()));
    assert_eq!(tags(&client(&mut relay, &parse).0), "PS", "the name is free");
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    let (sent, _) = client(&mut relay, &[front::bind("", "s2"), front::sync()].concat());
    assert_eq!(tags(&sent), "BS", "and nobody has this one any more");
}

#[test]
fn what_deallocate_frees_is_there_for_it_and_cannot_fail() {
    let mut relay = with_none_here();
    let (sent, _) = client(&mut relay, &front::query("deallocate s1; select 1/0; deallocate s2"));
    assert_eq!(tags(&sent), "PPQ");
    assert!(memchr::memmem::find(&sent, b"mine").is_none(), "texts may fail by now: {}", sent.escape_ascii());
    let parsed = [back::bare(b'1'), back::bare(b'1'), back::complete("DEALLOCATE")].concat();
    assert!(server(&mut relay, &parsed));
    assert!(server(&mut relay, &[back::error("ERROR", "22012", "no"), back::ready(b'I')].concat()));
    // The second one has not happened: the session has it, and not by what stood there for it.
    let (sent, _) = client(&mut relay, &[front::bind("", "s1"), front::bind("", "s2"), front::sync()].concat());
    assert_eq!(tags(&sent), "BPBS", "{}", sent.escape_ascii());
    assert!(!relay.is_in_doubt());
}

#[test]
fn a_deallocate_that_gprxy_answers_is_a_query_as_any_other() {
    let mut relay = with_two();
    client(&mut relay, &[front::parse("", "unnamed"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    let (queries, transactions) = relay.completed();
    let (sent, said) = client(&mut relay, &front::query("deallocate s1"));
    assert_eq!((sent.as_slice(), tags(&said).as_str()), (&b""[..], "CZ"));
    assert_eq!(relay.completed(), (queries + 1, transactions + 1));
    assert_eq!(tags(&client(&mut relay, &[front::bind("", ""), front::sync()].concat()).0), "CBS", "it is gone");
}

#[test]
fn a_name_that_sql_wants_to_make_is_taken() {
    for extended in [false, true] {
        let mut relay = with_none_here();
        let text = "prepare s1 as select 1";
        let message = if extended { [front::parse("", text), front::sync()].concat() } else { front::query(text) };
        let (sent, _) = client(&mut relay, &message);
        assert_eq!(tags(&sent), if extended { "PPS" } else { "PQ" }, "by something, whatever it is");
        assert!(memchr::memmem::find(&sent, b"mine").is_none());
        let answer = if extended { back::bare(b'1') } else { back::error("ERROR", "42P05", "taken") };
        assert!(server(&mut relay, &[back::bare(b'1'), answer, back::ready(b'I')].concat()));
        let (sent, _) = client(&mut relay, &[front::bind("", "s1"), front::sync()].concat());
        assert!(memchr::memmem::find(&sent, b"mine").is_some(), "not what is in the way: {}", sent.escape_ascii());
    }
}

#[test]
fn a_deallocate_in_a_pipeline_is_sent_when_what_precedes_it_is_answered() {
    let mut relay = with_two();
    let pipeline = [front::bind("", "s1"), front::execute("", 0), front::query("deallocate s1; select 1")].concat();
    let (sent, _) = client(&mut relay, &pipeline);
    assert_eq!(tags(&sent), "BEH", "the server is asked for what it keeps");
    let query = &pipeline[pipeline.len() - front::query("deallocate s1; select 1").len()..];
    assert!(server(&mut relay, &[back::bare(b'2'), back::complete("SELECT 1")].concat()));
    assert_eq!(tags(&client(&mut relay, query).0), "Q");
    assert!(server(
        &mut relay,
        &[back::complete("DEALLOCATE"), back::complete("SELECT 1"), back::ready(b'I')].concat()
    ));
    assert!(!relay.is_in_doubt() && relay.is_quiet());
    assert_eq!(tags(&client(&mut relay, &[front::parse("s1", "new"), front::sync()].concat()).0), "PS");
}

#[test]
fn a_deallocate_behind_a_stray_end_of_copy_data_goes() {
    let mut relay = with_two();
    let stray = [front::bind("", "s1"), front::execute("", 0), front::copy_done(), front::flush()].concat();
    let query = front::query("deallocate s1; select 1");
    let (sent, _) = client(&mut relay, &[stray, query.clone()].concat());
    assert_eq!(tags(&sent), "BEcHH", "as far as is known something is to come");
    assert!(server(&mut relay, &[back::bare(b'2'), back::complete("SELECT 1")].concat()));
    assert_eq!(tags(&client(&mut relay, &query).0), "Q", "nothing else is");
    let done = [back::complete("DEALLOCATE"), back::complete("SELECT 1"), back::ready(b'I')].concat();
    assert!(server(&mut relay, &done) && relay.is_quiet());
}

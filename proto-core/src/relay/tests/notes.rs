//! Notes of how to undo what is not answered: how much they keep, and that each message has its own.

use super::pooled::{client, on, server, tags};
use super::*;

const PARSES: usize = 1000;

/// Shows these to a session that has `s1`, behind something that is not answered; what has gone to the server.
fn unanswered(messages: &[Vec<u8>]) -> (Relay, Vec<u8>) {
    let mut relay = on(false, None);
    client(&mut relay, &[front::parse("s1", "good"), front::sync()].concat());
    assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
    client(&mut relay, &[front::bind("", "s1"), front::execute("", 0)].concat());
    let (sent, said) = client(&mut relay, &messages.concat());
    assert!(said.is_empty());
    (relay, sent)
}

#[test]
fn who_leaves_answers_unread_has_few_texts_kept() {
    let text = |n: usize| format!("{n} {}", "x".repeat(12_000));
    let taken: Vec<_> = (0..PARSES).map(|n| front::parse("s1", &text(n))).collect();
    let (mut relay, sent) = unanswered(&taken);
    assert!((1_000_000..1_200_000).contains(&sent.len()), "{} bytes", sent.len());
    assert!(tags(&sent).ends_with("PH"), "the server is asked for what it keeps");
    // The first of them fails, and the others with it: there is room again.
    let answers = [back::bare(b'2'), back::complete("SELECT 1"), back::error("ERROR", "42P05", "taken")].concat();
    assert!(server(&mut relay, &answers));
    assert_eq!(client(&mut relay, &taken[100..].concat()).0.len(), taken[100..].concat().len());
    client(&mut relay, &front::sync());
    assert!(server(&mut relay, &back::ready(b'I')));
    assert!(relay.is_quiet() && relay.fault().is_none());
    assert_eq!(tags(&client(&mut relay, &[front::bind("", "s1"), front::sync()].concat()).0), "BS");
}

#[test]
fn texts_of_statements_that_are_closed_again_count_as_well() {
    let text = |n: usize| format!("{n} {}", "x".repeat(12_000));
    let pairs: Vec<_> = (0..PARSES).map(|n| [front::parse("t", &text(n)), front::close(b'S', "t")].concat()).collect();
    let (mut relay, sent) = unanswered(&pairs);
    assert!(sent.len() < 1_200_000, "{} bytes", sent.len());
    let parses = tags(&sent).matches('P').count();
    let answers = [back::bare(b'2'), back::complete("SELECT 1"), back::bare(b'1').repeat(parses)].concat();
    assert!(server(&mut relay, &answers));
    assert!(tags(&client(&mut relay, &pairs[parses..].concat()).0).contains('P'), "there is room again");
}

#[test]
fn a_parse_without_a_name_has_its_own_note() {
    let mut relay = on(false, None);
    let malformed = [crate::testing::wire::message(b'P', b"no end"), front::sync()].concat();
    let (sent, _) = client(&mut relay, &[malformed, front::parse("s2", "good"), front::sync()].concat());
    assert_eq!(tags(&sent), "PSPS");
    let failed = [back::error("ERROR", "08P01", "invalid message format"), back::ready(b'I')].concat();
    assert!(server(&mut relay, &[failed, back::bare(b'1'), back::ready(b'I')].concat()));
    assert!(relay.fault().is_none() && relay.is_between_transactions());
    assert_eq!(tags(&client(&mut relay, &[front::bind("", "s2"), front::sync()].concat()).0), "BS");
}

#[test]
fn a_long_statement_by_a_name_that_was_freed_unseen_stays_where_it_is() {
    let long = format!("select '{}'", "x".repeat(13_000));
    for pieces in [13_050, 12_500] {
        let mut relay = on(false, None);
        client(&mut relay, &[front::parse("s1", "good"), front::sync()].concat());
        assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
        client(&mut relay, &front::query("do $$begin execute 'deallocate s1'; end$$"));
        assert!(server(&mut relay, &[back::complete("DO"), back::ready(b'I')].concat()));
        let parse = [front::parse("s1", &long), front::sync()].concat();
        let (first, rest) = parse.split_at(pieces.min(parse.len()));
        client(&mut relay, first);
        client(&mut relay, rest);
        assert!(relay.pins().is_empty(), "it had to be refused, as far as was known");
        assert!(server(&mut relay, &[back::bare(b'1'), back::ready(b'I')].concat()));
        assert!(!relay.pins().is_empty() && relay.is_in_doubt(), "no other connection can have it");
        let (sent, _) = client(&mut relay, &[front::bind("", "s1"), front::close(b'S', "s1"), front::sync()].concat());
        assert_eq!(tags(&sent), "BCS", "as it is, and gone with its Close");
    }
}

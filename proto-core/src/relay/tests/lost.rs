//! Queries that are skipped because of something of gprxy's own in front of them.

use super::pooled::{client, server, tags, with_none_here};
use super::*;

const TEXT: &str = "deallocate s1; deallocate s2; select 1";

fn taken() -> Vec<u8> {
    back::error("ERROR", "42P05", "taken")
}

/// The outcomes so far.
fn outcomes(relay: &mut Relay) -> Vec<Outcome> {
    std::iter::from_fn(|| relay.ledger_mut().unwrap().poll_outcome()).collect()
}

/// The session goes on: it runs this, and has its statements.
fn assert_goes_on(relay: &mut Relay) {
    assert!(relay.is_quiet() && relay.fault().is_none() && !relay.is_in_doubt());
    assert_eq!(tags(&client(relay, &front::query("select 2")).0), "Q");
    assert!(server(relay, &[back::complete("SELECT 1"), back::ready(b'I')].concat()));
    assert_eq!(outcomes(relay).len(), 1);
    assert_eq!(tags(&client(relay, &[front::bind("", "s2"), front::sync()].concat()).0), "PBS");
}

#[test]
fn a_query_that_falls_with_what_went_for_it_is_answered() {
    for (answered, failed) in [(0, 2), (1, 1)] {
        let mut relay = with_none_here();
        outcomes(&mut relay);
        let (sent, _) = client(&mut relay, &[front::query(TEXT), front::query("select 2")].concat());
        assert_eq!(tags(&sent), "PPQ", "nothing goes behind it that would be lost, too");
        assert!(server(&mut relay, &[back::bare(b'1').repeat(answered), taken()].concat()), "{failed} fail");
        assert!(!relay.is_quiet());
        assert_eq!(tags(&client(&mut relay, b"").0), "S", "the client would wait for ever");
        assert!(server(&mut relay, &back::ready(b'I')));
        let outcomes = outcomes(&mut relay);
        assert_eq!(outcomes.len(), 1);
        assert!(outcomes[0].ran(), "it has its place in the trail");
        assert_goes_on(&mut relay);
    }
}

#[test]
fn a_query_that_is_half_sent_when_it_falls_is_answered_behind_its_end() {
    let query = front::query(&format!("{TEXT} -- {}", "x".repeat(20_000)));
    let (first, rest) = query.split_at(13_000);
    let mut relay = with_none_here();
    outcomes(&mut relay);
    let (sent, _) = client(&mut relay, first);
    assert!(sent.starts_with(b"P") && sent.ends_with(b"xxx"));
    assert!(server(&mut relay, &taken()));
    assert_eq!(client(&mut relay, b"").0, b"", "not into the message");
    assert_eq!(client(&mut relay, rest).0, [rest, &front::sync()].concat());
    assert!(server(&mut relay, &back::ready(b'I')));
    assert_eq!(outcomes(&mut relay).len(), 1);
    assert_goes_on(&mut relay);
}

#[test]
fn what_ends_with_a_sync_of_the_clients_gets_no_other() {
    for behind in [front::bind("", "s1"), [front::bind("", "s1"), front::query("select 2")].concat()] {
        let mut relay = with_none_here();
        let (sent, _) = client(&mut relay, &behind);
        assert!(tags(&sent).starts_with("PB"));
        assert!(server(&mut relay, &taken()));
        assert_eq!(client(&mut relay, b"").0, b"");
        // One that an error has overtaken is no other case.
        let mut relay = with_none_here();
        assert!(matches!(relay.handle_client(&behind, now()), Step::SayServer(_)));
        assert!(server(&mut relay, &taken()));
        assert!(!tags(&client(&mut relay, &behind).0).contains('S'));
        assert_eq!(tags(&client(&mut relay, &front::sync()).0), "S");
        assert!(server(&mut relay, &back::ready(b'I')));
        assert!(relay.is_quiet() && relay.fault().is_none());
    }
}

//! The relay's steps, one by one. Whole conversations are in [`crate::session`]'s tests.

mod by_sql;
mod long_names;
mod lost;
mod notes;
mod pooled;
mod settings;

use super::*;
use crate::audit::AuditProfile;
use crate::testing::corp;
use crate::testing::dice::Dice;
use crate::testing::law::check;
use crate::testing::wire::{back, front, message};
use crate::time::Tick;

fn now() -> Now {
    corp::at(Tick::default())
}

fn plain() -> Relay {
    Relay::new(None, None)
}

fn audited(required: bool) -> Relay {
    Relay::new(Some(Box::new(Ledger::new(AuditProfile { statement_bytes: 32, required }))), None)
}

#[test]
fn whole_messages_are_forwarded_at_once() {
    let mut relay = plain();
    let bytes = [front::query("select 1"), front::sync(), front::flush()].concat();
    assert_eq!(relay.handle_client(&bytes, now()), Step::Forward(bytes.len()));
    assert_eq!(relay.handle_client(b"", now()), Step::Wait);
    let answer = [back::complete("SELECT 1"), back::ready(b'I'), back::ready(b'I')].concat();
    assert_eq!(relay.handle_server(&answer, now()), Step::Forward(answer.len()));
    assert!(relay.is_quiet());
}

#[test]
fn a_header_that_is_not_whole_waits_and_a_body_does_not() {
    let mut relay = plain();
    let query = front::query("select 1");
    for n in 1..5 {
        assert_eq!(relay.handle_client(&query[..n], now()), Step::Wait, "{n} bytes");
        assert!(!relay.is_touched());
    }
    assert_eq!(relay.handle_client(&query[..6], now()), Step::Forward(6));
    assert!(relay.is_touched() && !relay.is_quiet());
    assert_eq!(relay.handle_client(&query[6..], now()), Step::Forward(query.len() - 6));
    // Two messages, the second one's header cut.
    let sync = front::sync();
    assert_eq!(relay.handle_client(&[&sync[..], &sync[..3]].concat(), now()), Step::Forward(sync.len()));
}

#[test]
fn a_huge_message_is_never_collected() {
    let mut relay = audited(false);
    let header = [&b"d"[..], &0x3fff_fffeu32.to_be_bytes()].concat();
    assert_eq!(relay.handle_client(&header, now()), Step::Forward(5));
    let piece = vec![0; 64 * 1024];
    for _ in 0..100 {
        assert_eq!(relay.handle_client(&piece, now()), Step::Forward(piece.len()));
    }
    // The largest statement, too: its text is kept up to its limit only.
    let mut relay = audited(false);
    let header = [&b"Q"[..], &0x3fff_fffeu32.to_be_bytes()].concat();
    assert_eq!(relay.handle_client(&header, now()), Step::Forward(5));
    assert_eq!(relay.handle_client(&piece, now()), Step::Forward(piece.len()));
}

#[test]
fn what_stands_before_a_fault_goes_first() {
    let mut relay = plain();
    let query = front::query("x");
    let bytes = [query.clone(), vec![b'!', 0, 0, 0, 4]].concat();
    assert_eq!(relay.handle_client(&bytes, now()), Step::Forward(query.len()));
    assert_eq!(relay.handle_client(&bytes[query.len()..], now()), Step::Broken(Violation::UnexpectedMessage(b'!')));
    let mut relay = plain();
    let bytes = [query.clone(), front::terminate()].concat();
    assert_eq!(relay.handle_client(&bytes, now()), Step::Forward(query.len()));
    assert_eq!(relay.handle_client(&bytes[query.len()..], now()), Step::Terminate);
}

#[test]
fn lengths_outside_the_protocol_break_it() {
    for length in [0u32, 3, 0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        for tag in [b'Q', b'd', b'X'] {
            let bytes = [&[tag][..], &length.to_be_bytes()].concat();
            assert_eq!(plain().handle_client(&bytes, now()), Step::Broken(Violation::BadLength), "{tag} {length:#x}");
            let bytes = [&b"D"[..], &length.to_be_bytes()].concat();
            assert_eq!(plain().handle_server(&bytes, now()), Step::Broken(Violation::BadLength), "{length:#x}");
        }
    }
}

#[test]
fn every_message_type_passes_in_its_own_direction_only() {
    let client = b"QPBEDCSHFdcf";
    let server = b"DdTCZ12n3tsIGHcEVNAS";
    for tag in 0..=u8::MAX {
        let bytes = message(tag, &[0; 8]);
        let from_client = plain().handle_client(&bytes, now());
        match tag {
            b'X' => assert_eq!(from_client, Step::Terminate),
            tag if client.contains(&tag) => assert_eq!(from_client, Step::Forward(bytes.len()), "{tag}"),
            tag => assert_eq!(from_client, Step::Broken(Violation::UnexpectedMessage(tag))),
        }
        let from_server = plain().handle_server(&bytes, now());
        if server.contains(&tag) {
            assert_eq!(from_server, Step::Forward(bytes.len()), "{tag}");
        } else {
            assert_eq!(from_server, Step::Broken(Violation::UnexpectedMessage(tag)));
        }
    }
}

#[test]
fn permits_for_all_statements_in_sight_come_before_any_byte_goes() {
    let mut relay = audited(true);
    let bytes = [front::sync(), front::query("a"), front::query("b")].concat();
    for _ in 0..2 {
        assert_eq!(relay.handle_client(&bytes, now()), Step::NeedPermit);
        relay.ledger_mut().unwrap().handle_permit();
    }
    assert_eq!(relay.handle_client(&bytes, now()), Step::Forward(bytes.len()));
    assert_eq!(relay.handle_client(&front::query("c"), now()), Step::NeedPermit);
}

#[test]
fn where_a_permit_is_refused_what_needs_none_goes_first() {
    let mut relay = audited(true);
    let bytes = [front::sync(), front::query("a")].concat();
    let sync = front::sync().len();
    assert_eq!(relay.handle_client(&bytes, now()), Step::NeedPermit);
    // Shown again without one: there is none.
    assert_eq!(relay.handle_client(&bytes, now()), Step::Forward(sync));
    for _ in 0..3 {
        assert_eq!(relay.handle_client(&bytes[sync..], now()), Step::NeedPermit, "the statement itself never passes");
    }
}

#[test]
fn the_permit_of_what_was_skipped_serves_the_next() {
    let mut relay = audited(true);
    let cycle = [front::parse("", "x"), front::bind("", ""), front::execute("", 0), front::sync()].concat();
    relay.ledger_mut().unwrap().handle_permit();
    assert_eq!(relay.handle_client(&cycle, now()), Step::Forward(cycle.len()));
    let answer = [back::error("ERROR", "42601", "no"), back::ready(b'I')].concat();
    assert_eq!(relay.handle_server(&answer, now()), Step::Forward(answer.len()));
    // The Execute did not come to use its permit, and the Parse needed none.
    let query = front::query("x");
    assert_eq!(relay.handle_client(&query, now()), Step::Forward(query.len()));
    assert_eq!(relay.handle_client(&query, now()), Step::NeedPermit);
}

#[test]
fn a_refused_query_is_dropped_whole_however_it_comes() {
    let query = front::query(&"x".repeat(1000));
    for first in [5, 6, 500, query.len()] {
        let mut relay = audited(true);
        assert_eq!(relay.handle_client(&query[..first], now()), Step::NeedPermit);
        assert!(relay.handle_refused(&query[..first]));
        assert_eq!(relay.handle_client(&query[..first], now()), Step::Discard(first));
        if first < query.len() {
            assert_eq!(relay.handle_client(b"", now()), Step::Wait);
            let rest = [&query[first..], &front::sync()].concat();
            assert_eq!(relay.handle_client(&rest, now()), Step::Discard(query.len() - first));
        }
        let sync = front::sync();
        assert_eq!(relay.handle_client(&sync, now()), Step::Forward(sync.len()));
    }
}

#[test]
fn only_a_query_on_a_quiet_connection_can_be_refused() {
    assert!(!audited(true).handle_refused(&front::parse("", "x")));
    assert!(!audited(true).handle_refused(&front::function_call(1)));
    let mut relay = audited(true);
    relay.ledger_mut().unwrap().handle_permit();
    assert_eq!(relay.handle_client(&front::query("a"), now()), Step::Forward(front::query("a").len()));
    assert!(!relay.handle_refused(&front::query("b")), "its answer would overtake that of the first");
}

#[test]
fn a_fatal_error_announces_the_end_even_when_it_is_long() {
    let mut relay = plain();
    let error = back::error("FATAL", "57P01", &"x".repeat(100_000));
    for piece in error.chunks(1000) {
        assert_eq!(relay.handle_server(piece, now()), Step::Forward(piece.len()));
    }
    assert!(relay.server_is_leaving());
    let mut relay = plain();
    let error = back::error("ERROR", "42601", "FATAL is only a word here");
    assert_eq!(relay.handle_server(&error, now()), Step::Forward(error.len()));
    assert!(!relay.server_is_leaving());
}

#[test]
fn changed_parameters_are_kept_in_order_and_handed_out_once() {
    let mut relay = plain();
    let bytes =
        [back::parameter("TimeZone", "UTC"), back::parameter("TimeZone", "CET"), message(b'S', b"torn")].concat();
    for piece in bytes.chunks(3) {
        let _ = relay.handle_server(piece, now());
    }
    // Pieces of less than a header wait: show them again as a socket would.
    let mut relay = plain();
    assert_eq!(relay.handle_server(&bytes, now()), Step::Forward(bytes.len()));
    let changed = relay.take_changed();
    assert_eq!(changed.len(), 1, "the last value counts");
    assert_eq!(&*changed[0].1, b"CET");
    assert!(relay.take_changed().is_empty());
}

/// The scanner against a parser that sees whole messages.
#[test]
fn law_frames_are_cut_where_a_whole_parser_cuts_them() {
    check("law_frames", 3000, |seed| {
        let mut dice = Dice::new(seed);
        let stream: Vec<u8> = (0..dice.length(12))
            .flat_map(|_| {
                let body: Vec<u8> = (0..dice.below(40)).map(|_| dice.below(256) as u8).collect();
                // No copy and no names here: those are stopped for what they mean, not for where they are cut.
                message(*dice.pick(b"QSHFd"), &body)
            })
            .collect();
        let mut relay = audited(false);
        let (mut at, mut shown) = (0, 0);
        while at < stream.len() {
            shown = stream.len().min(shown.max(at) + dice.length(20));
            match relay.handle_client(&stream[at..shown], now()) {
                Step::Forward(n) => {
                    assert!(n > 0 && n <= shown - at);
                    at += n;
                }
                Step::Wait => assert!(shown - at < HEADER_LEN, "it waits for more than a header at {at}"),
                other => panic!("{other:?} at {at}"),
            }
            let boundary = crate::codec::backend::split(&stream[..at]).unwrap().last().map_or(0, |(_, body)| body.end);
            assert_eq!(!relay.from_client.is_inside(), boundary == at, "at {at}");
        }
    });
}

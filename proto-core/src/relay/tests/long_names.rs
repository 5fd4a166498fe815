//! Names that do not fit into any buffer. PostgreSQL looks at the first 63 bytes of a name.

use super::pooled::{server, tags};
use super::*;
use crate::policy::SessionTerms;
use crate::relay::{OnServer, Pooled};
use crate::upstream::Reported;

fn relay(ledger: bool, statements: OnServer) -> Relay {
    let profile = AuditProfile { statement_bytes: 4096, required: false };
    let ledger = ledger.then(|| Box::new(Ledger::new(profile)));
    let mut relay = Relay::new(ledger, Some(Box::new(Pooled::new(Reported::default(), &SessionTerms::default()))));
    let _ = relay.handle_connection(&Reported::default(), None, Some(Box::new(statements)));
    relay
}

/// Shows the bytes through a window as small as the driver's: what goes to the server, and whether it went on.
fn through(relay: &mut Relay, mut bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let (mut out, mut window) = (Vec::new(), piece);
    while !bytes.is_empty() {
        window = window.min(bytes.len());
        match relay.handle_client(&bytes[..window], now()) {
            Step::Forward(n) => {
                out.extend_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
                window = piece;
            }
            Step::Discard(n) => {
                bytes = &bytes[n..];
                window = piece;
            }
            Step::SayServer(own) => out.extend(own),
            Step::SayClient(_) => {}
            Step::Wait if window < bytes.len() && window < 16 * 1024 => window += piece,
            _ => return (out, false),
        }
    }
    (out, true)
}

fn body(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = body(parts);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), &body].concat()
}

/// Parse, Describe, Bind and Execute, Close of a statement of that name, each with its Sync.
fn life(name: &[u8]) -> Vec<u8> {
    [
        message(b'P', &[name, b"\0select 1\0\0\0"]),
        front::sync(),
        message(b'D', &[b"S", name, b"\0"]),
        front::sync(),
        message(b'B', &[b"\0", name, b"\0\0\0\0\0\0\0"]),
        message(b'E', &[b"\0\0\0\0\0"]),
        front::sync(),
        message(b'C', &[b"S", name, b"\0"]),
        front::sync(),
    ]
    .concat()
}

#[test]
fn a_statement_with_a_name_of_any_length_lives_on_the_connection_that_the_session_keeps() {
    for length in [3_000, 12_000, 16_384, 100_000] {
        for piece in [1_000, 4_096, 16_384] {
            let mut relay = relay(false, OnServer::new(200));
            let bytes = life(&vec![b'n'; length]);
            let (mut out, mut at) = (Vec::new(), 0);
            // Each group is answered before the next one comes.
            for (group, answers) in [(2, &b"1"[..]), (2, b"tn"), (3, b"2C"), (2, b"3")] {
                let from = at;
                for _ in 0..group {
                    at += 1 + u32::from_be_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize;
                }
                let (said, goes) = through(&mut relay, &bytes[from..at], piece);
                assert!(goes, "{length} bytes in pieces of {piece}, behind {}", tags(&out));
                // A Close that gprxy can follow goes no further.
                let answers = if tags(&said) == "S" { b"" } else { answers };
                out.extend(said);
                let replies: Vec<u8> = answers.iter().flat_map(|tag| reply(*tag)).chain(back::ready(b'I')).collect();
                assert!(server(&mut relay, &replies));
            }
            if length > 12 * 1024 {
                assert_eq!(tags(&out), tags(&bytes), "{length} bytes in pieces of {piece}");
            }
            // PostgreSQL would end the session.
            let small = |message: &&crate::testing::wire::Message| b"DCES".contains(&message.tag);
            let messages = crate::testing::wire::messages(&out);
            assert!(messages.iter().filter(small).all(|message| message.body.len() < 10_000));
        }
    }
}

fn reply(tag: u8) -> Vec<u8> {
    match tag {
        b't' => message(b't', &[&[0, 0]]),
        b'C' => message(b'C', &[b"SELECT 1\0"]),
        tag => back::bare(tag),
    }
}

#[test]
fn what_somebody_else_has_left_under_such_a_name_is_not_found_by_it() {
    let mut somebody = relay(false, OnServer::new(200));
    let short = [b'n'; 63];
    let parse = message(b'P', &[&short, b"\0select 'secret'\0\0\0"]);
    let (_, goes) = through(&mut somebody, &[parse, front::sync()].concat(), 16_384);
    assert!(goes);
    server(&mut somebody, &[back::bare(b'1'), back::ready(b'I')].concat());
    let mut next = relay(false, *somebody.take_statements().unwrap());
    let long = vec![b'n'; 20_000];
    let (out, goes) = through(&mut next, &message(b'D', &[b"S", &long, b"\0"]), 16_384);
    assert!(goes);
    assert_eq!(tags(&out), "CD", "closed before the server looks for it");
}

#[test]
fn the_text_behind_a_name_that_hides_it_does_not_go_where_it_has_to_be_known() {
    let mut relay = relay(true, OnServer::new(200));
    let (_, goes) = through(&mut relay, &life(&vec![b'n'; 20_000]), 16_384);
    assert!(!goes);
}

//! Looking a user up on a server that sends anything: only the exact replies about this very user count.

use super::cuts::{Cut, Script};
use crate::codec::backend::split;
use crate::codec::{Reader, frontend};
use crate::fault::Lost;
use crate::time::{Now, Tick};
use crate::upstream::{Lookup, LookupFault, LookupOutcome, LookupOutput};

/// What is asked.
pub const QUERY: &str = "select name, kept from users where name = $1";

/// A byte of settings, one for the cuts, the name of the user behind its length, then what the server sends.
pub fn lookup(data: &[u8]) {
    let mut script = Script::new(data);
    let (setup, cut) = (script.byte(), Cut::seeded(script.byte()));
    let user = String::from_utf8_lossy(script.string()).into_owned();
    let bytes = script.rest();
    let (whole, _) = play(setup, &user, bytes, Cut::Whole);
    for cut in [Cut::Single, cut] {
        let (pieces, taken) = play(setup, &user, bytes, cut);
        if pieces != whole {
            // What comes behind the answer is seen only where it is read with it.
            assert_eq!(whole, End::Broken(LookupFault::TooMuchData));
            assert!(!matches!(pieces, End::Broken(_)) && taken < bytes.len(), "{pieces:?}");
        }
        if !matches!(pieces, End::Broken(_)) {
            assert_eq!(pieces, told(&user, &bytes[..taken]), "by the answer itself");
        }
    }
    if let End::Broken(fault) = &whole {
        let line = fault.to_string();
        assert!(!line.is_empty() && line.len() < 8192 && !line.contains(char::is_control), "{line:?}");
    }
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    Found(Vec<u8>),
    Nobody,
    SomebodyElse,
    Broken(LookupFault),
}

fn at(secs: u64) -> Now {
    Now { tick: Tick::from_nanos(secs * 1_000_000_000), ..Now::default() }
}

fn play(setup: u8, user: &str, bytes: &[u8], cut: Cut) -> (End, usize) {
    let mut machine = Lookup::new(QUERY, user.into(), at(5).tick);
    let (mut end, mut taken) = (None, 0);
    match machine.poll_output() {
        Some(LookupOutput::Send(sent)) => assert_eq!(sent, question(user)),
        Some(LookupOutput::Finished(LookupOutcome::Broken(fault))) => {
            assert!(fault == LookupFault::ZeroByte && user.contains('\0'), "nothing is asked of a server");
            end = Some(End::Broken(fault));
        }
        _ => panic!("it begins by asking"),
    }
    for piece in cut.pieces(bytes) {
        if end.is_some() {
            break;
        }
        machine.handle_input(piece, at(1));
        taken += piece.len();
        end = finished(&mut machine, end);
        machine.handle_timeout(at(2));
    }
    assert_eq!(machine.poll_timeout().is_none(), end.is_some());
    if setup & 1 == 0 {
        machine.handle_close(Lost::Closed, at(3));
    }
    machine.handle_timeout(at(9));
    let end = finished(&mut machine, end).expect("it ends by its deadline");
    machine.handle_timeout(at(10));
    machine.handle_close(Lost::Broken, at(10));
    machine.handle_input(b"Z\0\0\0\x05I", at(10));
    assert!(machine.poll_output().is_none() && machine.poll_timeout().is_none());
    (end, taken)
}

fn finished(machine: &mut Lookup, mut end: Option<End>) -> Option<End> {
    while let Some(output) = machine.poll_output() {
        assert!(end.is_none(), "something comes after the end");
        let LookupOutput::Finished(outcome) = output else { panic!("it asks once") };
        end = Some(match outcome {
            LookupOutcome::Found(secret, _) => End::Found(secret.expose().clone()),
            LookupOutcome::Nobody(_) => End::Nobody,
            LookupOutcome::SomebodyElse(_) => End::SomebodyElse,
            LookupOutcome::Broken(fault) => End::Broken(fault),
        });
    }
    end
}

/// The name in its place, whatever it is, and nowhere else.
fn question(user: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    frontend::emit_parse(&mut bytes, b"", &[QUERY.as_bytes(), b"\0\0\0"].concat());
    frontend::emit_bind(&mut bytes, &[user.as_bytes()]);
    frontend::emit_describe_portal(&mut bytes);
    frontend::emit_execute(&mut bytes, 2);
    frontend::emit_sync(&mut bytes);
    bytes
}

/// What an answer says, read in another way: all its messages at once, in the one order that is allowed.
fn told(user: &str, answer: &[u8]) -> End {
    let messages = split(answer).expect("it was accepted").into_iter().map(|(tag, body)| (tag, &answer[body]));
    let messages: Vec<(u8, &[u8])> = messages.collect();
    assert_eq!(messages.last(), Some(&(b'Z', &b"I"[..])), "it ends between transactions");
    let said: Vec<_> = messages.into_iter().filter(|(tag, _)| !b"NAS".contains(tag)).collect();
    let tags: Vec<u8> = said.iter().map(|(tag, _)| *tag).collect();
    match &tags[..] {
        b"12TCZ" => return End::Nobody,
        b"12TDCZ" => {}
        _ => panic!("not the answer to what was asked: {}", tags.escape_ascii()),
    }
    assert_eq!(said[2].1.get(..2), Some(&[0, 2][..]), "two columns");
    let mut row = Reader::new(said[3].1);
    assert_eq!(row.i16(), Ok(2));
    let mut value = || match row.i32().expect("a length") {
        -1 => None,
        length => Some(row.take(usize::try_from(length).expect("no other is negative")).expect("a value").to_vec()),
    };
    let (name, kept) = (value(), value().unwrap_or_default());
    assert!(row.rest().is_empty() && kept.len() <= 65_535 && !kept.contains(&0));
    match name {
        Some(name) if name == user.as_bytes() => End::Found(kept),
        Some(_) => End::SomebodyElse,
        None => End::Nobody,
    }
}

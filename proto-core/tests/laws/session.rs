//! Laws of one session over thousands of seeds.

use std::time::Duration;

use gprxy_proto::audit::AuditProfile;
use gprxy_proto::codec::startup::PROTOCOL_3_0;
use gprxy_proto::fault::{Lost, Refusal, SqlState};
use gprxy_proto::policy::{SessionTerms, Timeouts};
use gprxy_proto::session::{Side, Verdict};
use gprxy_proto::testing::corp;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::duel::{Duel, Permits, Terms};
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::wire::{back, front, message};

/// What a client or a server might send, and much that they must not.
fn bytes(dice: &mut Dice, from: Side) -> Vec<u8> {
    // No COPY in: a Sync in the middle of its data ends the session, sooner or later as the answers come.
    let text = *dice.pick(&["rows 2 x", "begin", "commit", "nonsense", "copy out 2 x", "", "set a b", "show a"]);
    let client: &[fn(&str) -> Vec<u8>] = &[
        |text| front::query(text),
        |text| front::query(text),
        |text| [front::parse("", text), front::bind("", ""), front::execute("", 1), front::sync()].concat(),
        |text| [front::parse("s", text), front::flush()].concat(),
        |_| front::sync(),
        |_| [front::copy_data(b"some data\n"), front::copy_done()].concat(),
        |_| front::copy_fail("no"),
        |_| [front::bind("", "s"), front::describe(b'P', ""), front::execute("", 0)].concat(),
        |_| front::function_call(1),
    ];
    let server: &[fn(&str) -> Vec<u8>] = &[
        |text| {
            [back::row_description(), back::row(text.as_bytes()), back::complete("SELECT 1"), back::ready(b'I')]
                .concat()
        },
        |_| back::notice("hear"),
        |_| back::bare(b'1'),
        |_| [back::error("ERROR", "42601", "no"), back::ready(b'I')].concat(),
        |_| [back::complete("BEGIN"), back::ready(b'T')].concat(),
        |_| back::copy_response(b'G'),
        |_| back::parameter("TimeZone", "UTC"),
    ];
    let hostile: &[fn(&str) -> Vec<u8>] = &[
        |text| message(b'Q', text.as_bytes()),
        |_| vec![b'D', 0xff, 0xff, 0xff, 0xfe],
        |_| message(0, b"nothing"),
        |_| message(b'E', b""),
        |_| message(b'Z', b""),
        |_| message(b'P', b"no end"),
    ];
    let kinds = match from {
        _ if dice.percent(4) => hostile,
        Side::Client => client,
        Side::Server => server,
    };
    dice.pick(kinds)(text)
}

fn terms(dice: &mut Dice, chop: Option<u64>) -> Terms {
    let mut terms = Terms { chop, server_answers: dice.percent(60), ..Terms::default() };
    terms.permits = *dice.pick(&[Permits::Grant, Permits::Grant, Permits::Refuse]);
    let required = dice.percent(50);
    terms.profile.audit = dice.percent(80).then_some(AuditProfile { statement_bytes: 64, required });
    if dice.percent(60) {
        let mut some = || Duration::from_secs(if dice.percent(50) { 0 } else { 1 + dice.below(60) });
        let timeouts = Timeouts { query: some(), idle_transaction: some(), transaction: some(), client_idle: some() };
        let session = SessionTerms { timeouts, ..SessionTerms::default() };
        terms.profile.databases = corp::with_terms(&terms.profile.databases, session);
    }
    terms
}

/// Everything that can be seen of a duel from outside.
fn outcome(duel: &mut Duel) -> (Vec<u8>, Vec<u8>, String) {
    let (seen, sent) = (duel.seen(), duel.sent());
    (seen, sent, format!("{:?} {:?} {:?}", duel.trail(), duel.returned, duel.finish))
}

/// The same conversation, whole or chopped.
fn converse(seed: u64, chop: Option<u64>) -> (Vec<u8>, Vec<u8>, String) {
    let mut dice = Dice::new(seed);
    let mut duel = Duel::new(terms(&mut dice, chop));
    let user = *dice.pick(&["alice@corp.example", "reader", corp::LOCAL_USER]);
    let packet = front::startup(PROTOCOL_3_0, &[("user", user), ("database", corp::DATABASE), ("_pq_.x", "y")]);
    if dice.percent(30) {
        duel.client(&front::gssenc_request());
    }
    let secret = match user {
        corp::LOCAL_USER => corp::LOCAL_PASSWORD.to_vec(),
        _ => corp::token("alice", &["reader"], duel.now),
    };
    duel.client(&[packet, front::password(&secret)].concat());
    for _ in 0..dice.length(12) {
        let server_speaks = dice.percent(40);
        let side = if server_speaks { Side::Server } else { Side::Client };
        let bytes = bytes(&mut dice, side);
        if duel.finish.is_some() {
            break;
        }
        match side {
            // A server that answers by itself says nothing else.
            Side::Server if duel.session.facts().is_none() || duel.answers_by_itself() => {}
            Side::Server => duel.server(&bytes),
            Side::Client => duel.client(&bytes),
        }
    }
    match dice.below(4) {
        0 => duel.client(&front::terminate()),
        1 => duel.close(Side::Client, Lost::Broken),
        2 => duel.close(Side::Server, Lost::Closed),
        _ => duel.drain(),
    }
    outcome(&mut duel)
}

#[test]
fn law_chop_any_split_of_any_input_gives_the_same_output() {
    check("law_chop", 5000, |seed| {
        let whole = converse(seed, None);
        for chop in 0..2 {
            let chopped = converse(seed, Some(seed * 2 + chop));
            // How much a client has sent when the server throws it out is a race, and no matter of pieces.
            if whole.2.contains("Lost(Server") {
                continue;
            }
            assert_eq!(whole.2, chopped.2);
            assert!(whole == chopped, "whole:\n{}\nchopped:\n{}", whole.0.escape_ascii(), chopped.0.escape_ascii());
        }
    });
}

#[test]
fn law_early_timeouts_and_repeated_polls_change_nothing() {
    check("law_early_timeout", 5000, |seed| {
        let dice = Dice::new(seed);
        let run = |noisy: bool| {
            let mut dice = dice.clone();
            let mut duel = Duel::new(terms(&mut dice, None));
            let packet = front::startup(PROTOCOL_3_0, &[("user", "alice@corp.example"), ("database", corp::DATABASE)]);
            let mut pieces = vec![packet, front::password(&corp::token("alice", &["reader"], duel.now))];
            pieces.extend((0..dice.length(6)).map(|_| bytes(&mut dice, Side::Client)));
            for piece in pieces {
                if noisy {
                    for _ in 0..3 {
                        duel.session.handle_timeout(duel.now);
                        assert_eq!(duel.session.poll_timeout(), duel.session.poll_timeout());
                        assert!(duel.session.poll_output().is_none(), "an early timeout has done something");
                    }
                }
                if duel.finish.is_none() {
                    duel.client(&piece);
                }
            }
            outcome(&mut duel)
        };
        assert_eq!(run(false), run(true));
    });
}

#[test]
fn law_drain_finished_exactly_once_and_nothing_after() {
    check("law_finished", 5000, |seed| {
        let mut dice = Dice::new(seed);
        let mut duel = Duel::new(terms(&mut dice, Some(seed)));
        let packet = front::startup(PROTOCOL_3_0, &[("user", "alice@corp.example"), ("database", corp::DATABASE)]);
        let login = [packet, front::password(&corp::token("alice", &["reader"], duel.now))].concat();
        let cut = if dice.percent(30) { dice.length(login.len()) } else { login.len() };
        duel.client(&login[..cut]);
        for _ in 0..dice.below(6) {
            let bytes = bytes(&mut dice, Side::Client);
            if duel.finish.is_none() && cut == login.len() {
                duel.client(&bytes);
            }
        }
        // Now everything at once, in any order, again and again. The duel fails when something comes behind the end.
        for _ in 0..20 {
            let refusal = Refusal::new(SqlState::ADMIN_SHUTDOWN, "the end");
            match dice.below(7) {
                0 => duel.drain(),
                1 => duel.kill(refusal),
                2 => duel.close(Side::Client, Lost::Closed),
                3 => duel.close(Side::Server, Lost::Broken),
                4 => duel.advance(Duration::from_secs(dice.below(100))),
                5 => duel.session.handle_timeout(duel.now),
                _ => {
                    let side = *dice.pick(&[Side::Client, Side::Server]);
                    let bytes = bytes(&mut dice, side);
                    if duel.finish.is_some() && !duel.session.wants_input(side) {
                        let verdict = duel.session.handle_input(side, &bytes, duel.now);
                        assert!(matches!(verdict, Verdict::Take(n) if n == bytes.len()) || bytes.is_empty());
                    }
                }
            }
        }
        duel.kill(Refusal::new(SqlState::ADMIN_SHUTDOWN, "the end"));
        assert!(duel.finish.is_some(), "it is over");
        assert!(duel.returned.len() <= 1, "a connection goes back once: {:?}", duel.returned);
        assert!(duel.session.poll_output().is_none());
        let ends = duel.trail().iter().filter(|line| line.starts_with("end")).count();
        let starts = duel.trail().iter().filter(|line| *line == "start").count();
        assert_eq!(starts, ends, "{:?}", duel.trail());
    });
}

#[test]
fn law_any_bytes_from_anybody_end_in_order_or_pass() {
    check("law_garbage", 10_000, |seed| {
        let mut dice = Dice::new(seed);
        let mut duel = if dice.percent(50) {
            Duel::new(terms(&mut dice, Some(seed)))
        } else {
            Duel::logged_in(Terms { chop: Some(seed), server_answers: false, ..Terms::default() })
        };
        for _ in 0..dice.length(5) {
            let mut garbage: Vec<u8> = (0..dice.below(200)).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
            // Half of the time it begins like a message.
            if dice.percent(50) && garbage.len() > 5 {
                garbage[0] = *dice.pick(b"QPBEDSHXdcfFpZTCEAN123R");
                let length = u32::try_from(dice.below(64)).unwrap();
                garbage[1..5].copy_from_slice(&length.to_be_bytes());
            }
            let side = *dice.pick(&[Side::Client, Side::Server]);
            if duel.finish.is_none() && !duel.wants_tls {
                match side {
                    Side::Server if duel.session.facts().is_none() => {}
                    Side::Server => duel.server(&garbage),
                    Side::Client => duel.client(&garbage),
                }
            }
        }
        duel.close(Side::Client, Lost::Broken);
        assert!(duel.finish.is_some());
    });
}

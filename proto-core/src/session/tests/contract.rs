//! What a driver may rely on at every call: what is wanted, when, and what is asked for.

use std::sync::Arc;
use std::time::Duration;

use super::{assert_refused, seen, the_error};
use crate::audit::{AuditProfile, Event};
use crate::auth::jwt::Verdict as TokenVerdict;
use crate::codec::startup::PROTOCOL_3_0;
use crate::fault::{Lost, Refusal, SqlState, Violation};
use crate::session::{Action, Finish, Output, Peer, Reply, Session, Side, Verdict, Wish};
use crate::session_id::SessionId;
use crate::testing::corp;
use crate::testing::duel::{Duel, Permits, Terms};
use crate::testing::wire::{back, front, message};
use crate::time::{Tick, Timer};

/// As long as a login may take.
const LOGIN: Duration = Duration::from_secs(60);

fn startup(user: &str) -> Vec<u8> {
    front::startup(PROTOCOL_3_0, &[("user", user), ("database", corp::DATABASE)])
}

/// Logged in; the test is the server.
fn silent() -> Duel {
    Duel::logged_in(Terms { server_answers: false, ..Terms::default() })
}

/// The time, without anything else, has come to `span` after the duel's.
fn wake(duel: &mut Duel, span: Duration) {
    duel.session.handle_timeout(corp::at(duel.now.tick.after(span)));
    // Only to have the outputs carried out.
    duel.reply(Reply::Waiting(Refusal::new(SqlState::SUCCESS, "late")));
}

/// The wish of a session whose client logs in like that.
fn wish(user: &str, password: &[u8]) -> Wish {
    let now = corp::at(Tick::from_nanos(1_000_000_000));
    let peer = Peer { address: "192.0.2.7:50000".into(), is_local: true, uid: None };
    let mut session = Session::new(SessionId(1), Arc::new(corp::profile()), peer, now);
    let bytes = [startup(user), front::password(password)].concat();
    let mut rest = &bytes[..];
    while let Verdict::Take(n) = session.handle_input(Side::Client, rest, now) {
        rest = &rest[n..];
    }
    loop {
        match session.poll_output() {
            Some(Output::Do(Action::Verify(token))) => {
                let keys = corp::keys(now);
                let TokenVerdict::Proven(who) = keys.keyring().verify(token.expose(), now) else {
                    panic!("not proven")
                };
                session.handle_reply(Reply::Verified(Ok(who)), now);
            }
            Some(Output::Do(Action::Lease(wish))) => return *wish,
            Some(_) => {}
            None => panic!("nothing was wished for"),
        }
    }
}

#[test]
fn only_an_accounts_connection_is_used_again() {
    let now = corp::at(Tick::from_nanos(1_000_000_000));
    let of = |wish: Wish| {
        let request = wish.request(SessionId(9));
        (request.session, request.key.own_password, request.reuse)
    };
    let token = corp::token("alice", &["reader"], now);
    assert_eq!(of(wish("alice@corp.example", &token)), (SessionId(9), false, true));
    assert_eq!(of(wish(corp::LOCAL_USER, corp::LOCAL_PASSWORD)), (SessionId(9), true, false));
}

#[test]
fn input_is_wanted_from_those_who_may_speak() {
    let wanted = |duel: &Duel| (duel.session.wants_input(Side::Client), duel.session.wants_input(Side::Server));
    let mut duel = Duel::new(Terms { server_answers: false, ..Terms::default() });
    assert_eq!((wanted(&duel), duel.session.facts().is_some()), ((true, false), false));
    duel.log_in("alice", &["reader"]);
    assert_eq!(wanted(&duel), (true, true));
    assert_eq!(duel.session.facts().map(|facts| facts.session()), Some(duel.session.id()));
    duel.client(&front::terminate());
    assert_eq!((wanted(&duel), duel.session.facts().is_some()), ((false, false), false));
}

#[test]
fn a_password_has_until_the_logins_end() {
    let mut duel = Duel::new(Terms::default());
    duel.client(&startup("alice@corp.example"));
    assert_eq!(seen(&mut duel), "R(3)");
    wake(&mut duel, LOGIN - Duration::from_nanos(1));
    assert_eq!((duel.finish.clone(), duel.seen()), (None, vec![]));
    wake(&mut duel, LOGIN);
    assert_refused(&mut duel, SqlState::INVALID_AUTHORIZATION);
}

#[test]
fn a_wait_without_a_proof_is_part_of_the_login() {
    let mut duel = Duel::new(Terms { lease_at_once: false, ..Terms::default() });
    duel.client(&[startup(corp::LOCAL_USER), front::password(corp::LOCAL_PASSWORD)].concat());
    duel.seen();
    assert_eq!(duel.deadline().map(|due| due.why), Some(Timer::ClientLogin));
    wake(&mut duel, LOGIN - Duration::from_nanos(1));
    assert_eq!((duel.finish.clone(), duel.is_waiting()), (None, true));
    wake(&mut duel, LOGIN);
    assert_refused(&mut duel, SqlState::INVALID_AUTHORIZATION);
    assert!(!duel.is_waiting(), "the wish is withdrawn");
}

#[test]
fn its_own_cancel_ends_a_wait_and_nothing_else() {
    let mut duel = Duel::new(Terms { lease_at_once: false, ..Terms::default() });
    duel.log_in("alice", &["reader"]);
    duel.seen();
    duel.session.handle_cancel(duel.now);
    wake(&mut duel, Duration::ZERO);
    assert_refused(&mut duel, SqlState::QUERY_CANCELED);
    assert!(!duel.is_waiting(), "the wish is withdrawn");
    let mut duel = silent();
    duel.session.handle_cancel(duel.now);
    wake(&mut duel, Duration::ZERO);
    assert_eq!((duel.finish.clone(), duel.seen()), (None, vec![]));
}

#[test]
fn a_drain_inside_a_handshake_says_nothing_in_clear() {
    let mut terms = Terms::default();
    terms.profile.tls = true;
    let mut duel = Duel::new(terms);
    duel.client(&front::ssl_request());
    assert_eq!(duel.seen(), b"S");
    duel.drain();
    assert_eq!((duel.finish.clone(), duel.seen()), (Some(Finish::Drained), vec![]));
}

#[test]
fn a_passwords_header_may_come_in_pieces() {
    let password = front::password(corp::LOCAL_PASSWORD);
    for cut in 1..=5 {
        let mut duel = Duel::new(Terms::default());
        duel.client(&startup(corp::LOCAL_USER));
        duel.client(&password[..cut]);
        duel.client(&password[cut..]);
        let words = seen(&mut duel);
        assert!(words.ends_with("Z(I)"), "cut at {cut}: {words}");
    }
}

#[test]
fn a_password_of_the_largest_size_is_looked_at() {
    let mut terms = Terms::default();
    terms.profile.limits.max_password_bytes = 10;
    let mut duel = Duel::new(terms);
    duel.client(&startup(corp::LOCAL_USER));
    duel.seen();
    duel.client(&front::password(b"0123456789"));
    let words = the_error(&mut duel).body;
    assert!(words.windows(21).any(|it| it == b"authentication failed"), "{}", words.escape_ascii());
}

#[test]
fn nothing_of_the_client_is_looked_at_before_its_permit() {
    let mut terms = Terms { permits: Permits::Hold, ..Terms::default() };
    terms.profile.audit = Some(AuditProfile { statement_bytes: 100, required: true });
    let mut duel = Duel::logged_in(terms);
    duel.client(&front::query("rows 1 a"));
    assert!(duel.wants_permit);
    assert_eq!(duel.session.handle_input(Side::Client, &front::terminate(), duel.now), Verdict::Wait);
    assert!(duel.session.poll_output().is_none(), "one place was asked for, not two");
}

/// Gives the client's bytes to the session of a required trail, with a place for whoever asks; then the server's.
/// What was asked for, in order.
fn places(client: &[u8], server: &[u8]) -> Vec<String> {
    let mut terms = Terms { server_answers: false, ..Terms::default() };
    terms.profile.audit = Some(AuditProfile { statement_bytes: 100, required: true });
    let mut duel = Duel::logged_in(terms);
    let (now, mut asked) = (duel.now, Vec::new());
    for (side, mut rest) in [(Side::Client, client), (Side::Server, server)] {
        while !rest.is_empty() {
            if let Verdict::Forward(n) | Verdict::Take(n) = duel.session.handle_input(side, rest, now) {
                rest = &rest[n..];
            }
            while let Some(output) = duel.session.poll_output() {
                match output {
                    Output::Do(Action::Reserve) => {
                        asked.push("reserve".into());
                        duel.session.handle_reply(Reply::Reserved(true), now);
                    }
                    Output::Do(Action::Unreserve(n)) => asked.push(format!("unreserve {n}")),
                    Output::AuditStatement(_) => asked.push("statement".into()),
                    Output::Audit(_) => asked.push("record".into()),
                    _ => panic!("an output that nobody expects"),
                }
            }
        }
    }
    asked
}

#[test]
fn places_that_no_statement_took_are_given_back_once() {
    let cycle = |text: &str| [front::parse("", text), front::bind("", ""), front::execute("", 0)].concat();
    let done = [back::bare(b'1'), back::bare(b'2'), back::complete("SELECT 1")].concat();
    let both = [cycle("a"), cycle("b"), front::sync()].concat();
    let ran = [&done[..], &done, &back::ready(b'I')].concat();
    assert_eq!(places(&both, &ran), ["reserve", "reserve", "statement", "statement"]);
    // The first one fails, so the second is skipped.
    let failed = [back::bare(b'1'), back::bare(b'2'), back::error("ERROR", "22012", "no"), back::ready(b'I')].concat();
    assert_eq!(places(&both, &failed), ["reserve", "reserve", "statement", "unreserve 1"]);
}

#[test]
fn the_trail_says_how_a_session_ended() {
    type Ending = fn(&mut Duel);
    let cases: [(&str, Option<SqlState>, Ending); 7] = [
        ("client terminated", None, |duel| duel.client(&front::terminate())),
        ("client lost", None, |duel| duel.close(Side::Client, Lost::Broken)),
        ("server lost", None, |duel| duel.close(Side::Server, Lost::Closed)),
        ("client broke the protocol", None, |duel| duel.client(&message(b'R', b""))),
        ("server broke the protocol", None, |duel| duel.server(&message(b'z', b""))),
        ("terminated by gprxy", Some(SqlState::ADMIN_SHUTDOWN), |duel| {
            duel.kill(Refusal::new(SqlState::ADMIN_SHUTDOWN, "because"));
        }),
        ("shutdown", None, Duel::drain),
    ];
    for (reason, sqlstate, end) in cases {
        let mut duel = silent();
        end(&mut duel);
        let Some(Event::SessionEnd(end)) = duel.records.last().map(|record| &record.event) else {
            panic!("{reason}: no end")
        };
        assert_eq!((&*end.reason, end.sqlstate), (reason, sqlstate));
    }
}

#[test]
fn blame_goes_by_the_deed_and_not_by_whose_bytes_showed_it() {
    // Answers to nothing are the sign of a client that has brought the sides out of step.
    let mut duel = silent();
    duel.server(&back::ready(b'I').repeat(2));
    assert_eq!(duel.finish, Some(Finish::Broken(Side::Client, Violation::OutOfStep)));
    // More parameters than can be remembered are the server's, though a wake-up finds it.
    let mut duel = silent();
    for n in 0..300 {
        duel.server(&back::parameter(&format!("p{n}"), "x"));
    }
    assert_eq!(duel.finish, Some(Finish::Broken(Side::Server, Violation::TooManyParameters)));
}

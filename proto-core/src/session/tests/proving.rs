//! Scenarios 8 to 10, as far as they are the session's: passwords and tokens on the wire.

use super::{assert_refused, assert_violation, seen};
use crate::codec::startup::PROTOCOL_3_0;
use crate::fault::{Lost, SqlState};
use crate::policy::AllowPlaintext;
use crate::session::{Finish, Side};
use crate::testing::corp;
use crate::testing::duel::{Duel, Terms};
use crate::testing::postgres::Auth;
use crate::testing::wire::{back, front, message};

/// Somebody who was asked for a password.
fn asked(terms: Terms, user: &str) -> Duel {
    let mut duel = Duel::new(terms);
    duel.client(&front::startup(PROTOCOL_3_0, &[("user", user), ("database", corp::DATABASE)]));
    assert_eq!(seen(&mut duel), "R(3)");
    duel
}

fn asked_alice() -> Duel {
    asked(Terms::default(), "alice@corp.example")
}

#[test]
fn passwords_of_every_size_arrive_whole() {
    for size in [1, 2, 1023, 1024, 4096, 65_535] {
        for piece in [1, 7, 4096, usize::MAX] {
            if size > 5000 && piece < 7 {
                continue;
            }
            let password: Vec<u8> = (0..size).map(|i| b'a' + (i % 26) as u8).collect();
            let mut duel = asked(Terms::default(), corp::LOCAL_USER);
            duel.postgres = crate::testing::postgres::Postgres::new(&[(corp::LOCAL_USER, &password)], 1);
            duel.postgres.set_auth(Auth::Cleartext);
            for piece in front::password(&password).chunks(piece) {
                duel.client(piece);
            }
            let words = seen(&mut duel);
            assert!(words.starts_with("R(0) K") && words.ends_with("Z(I)"), "{size} bytes: {words}");
        }
    }
}

#[test]
fn a_password_above_the_limit_is_refused_before_it_is_kept() {
    let mut duel = asked_alice();
    // The header alone is enough: nothing of the body has come.
    duel.client(&front::password(&vec![b'x'; 65_537])[..5]);
    assert_refused(&mut duel, SqlState::INVALID_PASSWORD);
    let mut terms = Terms::default();
    terms.profile.limits.max_password_bytes = 10;
    let mut duel = asked(terms, "alice@corp.example");
    duel.client(&front::password(b"01234567890"));
    assert_refused(&mut duel, SqlState::INVALID_PASSWORD);
}

#[test]
fn empty_and_malformed_passwords_are_refused() {
    let mut duel = asked_alice();
    duel.client(&front::password(b""));
    assert_refused(&mut duel, SqlState::INVALID_PASSWORD);
    for body in [&b""[..], b"no terminator", b"two\0strings\0"] {
        let mut duel = asked_alice();
        duel.client(&message(b'p', body));
        assert_violation(&mut duel);
    }
}

#[test]
fn only_a_password_message_is_expected() {
    for bytes in [
        front::query("select 1"),
        message(b'R', b"\0\0\0\0"),
        vec![b'p', 0, 0, 0, 3],
        vec![b'p', 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut duel = asked_alice();
        duel.client(&bytes);
        assert_violation(&mut duel);
    }
}

#[test]
fn leaving_instead_of_answering_is_no_error() {
    let mut duel = asked_alice();
    duel.client(&front::terminate());
    assert_eq!((duel.finish.clone(), duel.seen()), (Some(Finish::Terminated), vec![]));
    let mut duel = asked_alice();
    duel.close(Side::Client, Lost::Broken);
    assert_eq!((duel.finish.clone(), duel.seen()), (Some(Finish::Lost(Side::Client, Lost::Broken)), vec![]));
}

#[test]
fn a_secret_is_asked_for_only_where_it_may_travel() {
    for (allowed, is_local, is_asked) in [
        (AllowPlaintext::Always, false, true),
        (AllowPlaintext::Loopback, true, true),
        (AllowPlaintext::Loopback, false, false),
        (AllowPlaintext::Never, true, false),
    ] {
        for tls in [false, true] {
            let mut terms = Terms { is_local, ..Terms::default() };
            terms.profile.allow_plaintext = allowed;
            terms.profile.tls = tls;
            let mut duel = Duel::new(terms);
            duel.client(&front::startup(PROTOCOL_3_0, &[("user", "alice")]));
            if is_asked {
                assert_eq!(seen(&mut duel), "R(3)");
            } else {
                assert_refused(&mut duel, SqlState::INVALID_AUTHORIZATION);
                assert_eq!(duel.trail(), ["refusal(28000)"]);
            }
        }
    }
    // Under TLS it is always asked for.
    let mut terms = Terms { is_local: false, ..Terms::default() };
    terms.profile.allow_plaintext = AllowPlaintext::Never;
    terms.profile.tls = true;
    let mut duel = Duel::new(terms);
    duel.client(&front::ssl_request());
    duel.seen();
    duel.establish_tls(None);
    duel.client(&front::startup(PROTOCOL_3_0, &[("user", "alice")]));
    assert_eq!(seen(&mut duel), "R(3)");
}

#[test]
fn without_the_fallback_only_tokens_count() {
    let mut terms = Terms::default();
    terms.profile.password_fallback = false;
    let mut duel = asked(terms, corp::LOCAL_USER);
    duel.client(&front::password(corp::LOCAL_PASSWORD));
    assert_refused(&mut duel, SqlState::INVALID_PASSWORD);
    assert_eq!(duel.postgres.logins(), 0, "the server is not asked");
}

#[test]
fn unknown_users_and_wrong_passwords_look_the_same() {
    let mut answers = Vec::new();
    for (user, password) in [(corp::LOCAL_USER, &b"wrong"[..]), ("nobody_at_all", b"wrong")] {
        let mut duel = asked(Terms::default(), user);
        duel.client(&front::password(password));
        answers.push(duel.seen());
    }
    let expected =
        |user: &str| back::error("FATAL", "28P01", &format!("password authentication failed for user \"{user}\""));
    assert_eq!(answers, [expected(corp::LOCAL_USER), expected("nobody_at_all")]);
}

#[test]
fn a_server_that_does_not_ask_proves_nothing() {
    let mut duel = asked(Terms::default(), corp::LOCAL_USER);
    duel.postgres.set_auth(Auth::Trust);
    duel.client(&front::password(b"anything"));
    // The driver refuses this with a reason; the machine itself must not go on without a proof.
    assert!(!duel.seen().contains(&b'Z'), "nobody is let in");
}

#[test]
fn tokens_decide_who_it_is_and_as_whom_they_run() {
    for (user, roles, expected) in [
        ("alice@corp.example", &["reader"][..], Ok(corp::READER)),
        ("alice@corp.example", &["reader", "writer"], Ok(corp::WRITER)),
        ("reader", &["reader", "writer"], Ok(corp::READER)),
        ("app_reader", &["reader", "writer"], Ok(corp::READER)),
        ("writer", &["reader"], Err(())),
        ("bob@corp.example", &["reader"], Err(())),
        ("alice@corp.example", &["stranger"], Err(())),
        ("alice@corp.example", &[], Err(())),
    ] {
        let mut duel = asked(Terms::default(), user);
        duel.client(&front::password(&corp::token("alice", roles, duel.now)));
        match expected {
            Ok(account) => {
                duel.seen();
                duel.client(&front::query("whoami"));
                assert!(seen(&mut duel).contains(&format!("D({account} ")), "{user} {roles:?}");
            }
            Err(()) => assert_refused(&mut duel, SqlState::INVALID_AUTHORIZATION),
        }
    }
}

#[test]
fn a_bad_token_is_refused_and_its_refusal_written_down() {
    let mut duel = asked_alice();
    let mut token = corp::token("alice", &["reader"], duel.now);
    let last = token.len() - 2;
    token[last] = if token[last] == b'A' { b'B' } else { b'A' };
    duel.client(&front::password(&token));
    assert!(matches!(&duel.finish, Some(Finish::Refused(_))));
    assert_eq!(duel.trail().len(), 1);
    assert_eq!(duel.postgres.logins(), 0);
    // Bytes that come behind the refusal change nothing.
    duel.seen();
    duel.client(&front::query("rows 1 x"));
    assert!(duel.seen().is_empty() && duel.sent().is_empty());
}

#[test]
fn what_comes_right_behind_the_password_waits_for_its_turn() {
    let mut duel = asked(Terms { lease_at_once: false, ..Terms::default() }, "alice@corp.example");
    let token = corp::token("alice", &["reader"], duel.now);
    duel.client(&[front::password(&token), front::query("rows 1 early")].concat());
    assert_eq!(seen(&mut duel), "R(0) K");
    assert!(duel.sent().is_empty());
    duel.lease();
    let words = seen(&mut duel);
    assert!(words.ends_with("Z(I) T D(early/0) C(SELECT 1) Z(I)"), "{words}");
}

//! Servers that refuse, break off, or lie.

use super::*;

#[test]
fn a_servers_error_keeps_its_sqlstate() {
    let error = |body: &[u8]| msg(b'E', body);
    let wrong = error(b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"svc_reader\"\0\0");
    let refusal = failure(settings(), &[auth(5, b"salt"), wrong]).refusal();
    assert_eq!(refusal.code, SqlState::INVALID_PASSWORD);
    assert_eq!(refusal.message, "password authentication failed for user \"svc_reader\"");
    let late = [auth(0, b""), error(b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0")].concat();
    assert_eq!(failure(settings(), &[late]).refusal().code, SqlState::TOO_MANY_CONNECTIONS);
    let nameless = failure(settings(), &[error(b"SFATAL\0Mno\0\0")]);
    assert_eq!((nameless.refusal().code, nameless.refusal().message.as_str()), (SqlState::CONNECTION_FAILURE, "no"));
}

#[test]
fn a_failure_tells_on_which_side_of_the_authentication_it_came() {
    let error = msg(b'E', b"SFATAL\0VFATAL\0C58P01\0Mcould not access file \"nope\"\0\0");
    for (turn, let_in) in [(error.clone(), false), ([auth(0, b""), error].concat(), true), (auth(3, b""), false)] {
        let mut login = Login::new(LoginSettings { sslmode: SslMode::Disable, ..settings() }, at(0));
        assert!(!login.was_let_in());
        assert_eq!(login.handle_input(&turn, at(0)), turn.len());
        login.handle_timeout(at(60));
        assert_eq!(login.was_let_in(), let_in, "{}", turn.escape_ascii());
    }
}

#[test]
fn a_server_that_repeats_the_password_is_not_quoted() {
    let echo = msg(b'E', b"SFATAL\0VFATAL\0C28P01\0Mno entry for 'correct horse'\0Dcorrect horse\0\0");
    let failure = failure(settings(), &[auth(3, b""), echo]);
    assert_eq!(failure.refusal().code, SqlState::INVALID_PASSWORD);
    assert!(!format!("{failure:?} {failure} {:?}", failure.refusal()).contains("correct horse"));
    let LoginFailure::Server(error) = failure else { panic!("not the server's") };
    assert!(memchr::memmem::find(error.body(), PASSWORD).is_none());
}

#[test]
fn an_error_that_is_cut_off_by_the_close_still_tells() {
    let whole = msg(b'E', b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0");
    let ended = |bytes: &[u8]| {
        let mut login = Login::new(settings(), at(0));
        let _ = login.handle_input(bytes, at(0));
        login.handle_close(Lost::Closed, at(0));
        match std::iter::from_fn(|| login.poll_output()).last() {
            Some(LoginOutput::Finished(Err(failure))) => failure,
            _ => panic!("not failed"),
        }
    };
    assert_eq!(ended(&whole[..40]).refusal().code, SqlState::CANNOT_CONNECT_NOW);
    assert_eq!(ended(&whole[..40]).refusal().message, "the database ");
    assert_eq!(ended(&whole[..3]), LoginFailure::Lost(Lost::Closed));
    assert_eq!(ended(b""), LoginFailure::Lost(Lost::Closed));
    assert_eq!(ended(b"Ecould not fork").refusal().message, "could not fork");
}

#[test]
fn an_error_without_fields_is_read_to_its_end() {
    let told = failure(settings(), &[b"Ecould not fork new process: no memory\n\0".to_vec()]);
    assert_eq!(told.to_string(), "08006 could not fork new process: no memory");
    let endless = [&b"E"[..], &b"x".repeat(100_000)].concat();
    assert_eq!(failure(settings(), &[endless]).refusal().message, "x".repeat(MAX_OLD_ERROR));
    // Behind a real message an `E` with a wild length is no old error.
    let later = [msg(b'N', b"\0"), b"Ecould not fork\0".to_vec()].concat();
    assert_eq!(failure(settings(), &[later]), LoginFailure::Protocol(Violation::BadLength));
}

#[test]
fn what_is_not_spoken_is_named() {
    assert_eq!(failure(settings(), &[auth(7, b"")]), LoginFailure::UnsupportedAuth(7));
    let plus = failure(settings(), &[auth(10, b"SCRAM-SHA-256-PLUS\0\0")]);
    assert_eq!(plus, LoginFailure::UnsupportedMechanisms { plus: true });
    let other = failure(settings(), &[auth(10, b"OAUTHBEARER\0\0")]);
    assert_eq!(other, LoginFailure::UnsupportedMechanisms { plus: false });
    assert_eq!(failure(settings(), &[auth(10, b"SCRAM-SHA")]), LoginFailure::Protocol(Violation::Malformed));
}

#[test]
fn a_question_without_a_password_fails_before_anything_is_sent() {
    for credential in [Credential::None, Credential::Password { password: secret(b""), keys: None }] {
        for question in [auth(3, b""), auth(5, b"salt"), auth(10, b"SCRAM-SHA-256\0\0")] {
            let settings = LoginSettings { credential: credential.clone(), ..settings() };
            assert_eq!(play(settings, &[question]), [startup(), Seen::Failed(LoginFailure::PasswordMissing)]);
        }
    }
}

#[test]
fn a_scram_server_must_prove_itself_before_it_lets_us_in() {
    let server = scram_server(PASSWORD, b"salt", 2);
    let unexpected = LoginFailure::Protocol(Violation::UnexpectedMessage(b'R'));
    for end in 1..3 {
        let mut turns = scram_turns(&server);
        turns.truncate(end);
        turns.push(welcome());
        assert_eq!(failure(settings(), &turns), unexpected, "AuthenticationOk after {end} turns");
    }
    let mut turns = scram_turns(&server);
    turns[2] = [auth(12, &scram_server(b"other", b"salt", 2).server_final), welcome()].concat();
    assert_eq!(failure(settings(), &turns), LoginFailure::Scram(ScramFault::ServerSignature));
    turns[2] = auth(12, b"e=invalid-proof");
    assert_eq!(failure(settings(), &turns).refusal().code, SqlState::INVALID_PASSWORD);
}

#[test]
fn a_hostile_scram_challenge_costs_nothing() {
    let sasl = || auth(10, b"SCRAM-SHA-256\0\0");
    let ours = BASE64.encode(NONCE);
    let answer = |challenge: String| failure(settings(), &[sasl(), auth(11, challenge.as_bytes())]);
    let many = answer(format!("r={ours}x,s=AAAA,i={}", MAX_ITERATIONS + 1));
    assert_eq!(many, LoginFailure::Scram(ScramFault::Iterations));
    let long = answer(format!("r={ours}{},s=AAAA,i=1", "x".repeat(50_000)));
    assert_eq!(long, LoginFailure::Scram(ScramFault::TooLong));
    assert_eq!(answer(format!("r={ours},s=AAAA,i=1")), LoginFailure::Scram(ScramFault::Nonce));
    assert_eq!(answer(format!("r={ours}x,s=AAAA")), LoginFailure::Scram(ScramFault::Malformed("iteration count (i=)")));
}

#[test]
fn out_of_turn_messages_are_violations() {
    let unexpected = |tag| LoginFailure::Protocol(Violation::UnexpectedMessage(tag));
    let ok = || auth(0, b"");
    let cases = [
        (msg(b'Z', b"I"), unexpected(b'Z')),
        (msg(b'K', b"\0\0\0\x01abcd"), unexpected(b'K')),
        (auth(11, b"r=x"), unexpected(b'R')),
        ([ok(), ok()].concat(), unexpected(b'R')),
        ([ok(), msg(b'K', b"\0\0\0\x01abcd"), msg(b'K', b"\0\0\0\x01abcd")].concat(), unexpected(b'K')),
        ([ok(), msg(b'D', b"\0\0")].concat(), unexpected(b'D')),
        ([ok(), msg(b'Z', b"E")].concat(), LoginFailure::NotIdle(TransactionStatus::Failed)),
        ([ok(), msg(b'Z', b"?")].concat(), LoginFailure::Protocol(Violation::Malformed)),
        ([ok(), msg(b'Z', b"II")].concat(), LoginFailure::Protocol(Violation::Malformed)),
        ([ok(), msg(b'K', b"\0\0\0\x01abc")].concat(), LoginFailure::Protocol(Violation::Malformed)),
        ([ok(), msg(b'K', &[0; 261])].concat(), LoginFailure::Protocol(Violation::Malformed)),
        (msg(b'S', b"name\0no end"), LoginFailure::Protocol(Violation::Malformed)),
        (msg(b'R', b"\0\0"), LoginFailure::Protocol(Violation::Malformed)),
        (b"R\0\x01\0\x05".to_vec(), LoginFailure::Protocol(Violation::BadLength)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(failure(settings(), std::slice::from_ref(&bytes)), expected, "{bytes:?}");
    }
}

#[test]
fn floods_are_bounded() {
    let notices = msg(b'N', &[b'x'; 60_000]).repeat(20);
    assert_eq!(failure(settings(), &[notices]), LoginFailure::TooMuchData);
    let names = |count: usize| (0..count).flat_map(|i| msg(b'S', format!("p{i}\0v\0").as_bytes())).collect::<Vec<_>>();
    assert_eq!(failure(settings(), &[names(257)]), LoginFailure::TooMuchData);
    let seen = play(settings(), &[[names(256), names(256), auth(0, b""), msg(b'Z', b"I")].concat()]);
    assert!(matches!(seen.last(), Some(Seen::In { parameters, .. }) if parameters.len() == 256));
}

#[test]
fn timeouts_count_only_when_due() {
    let mut login = Login::new(settings(), at(10));
    let deadline = login.poll_timeout().unwrap();
    assert_eq!((deadline.at, deadline.why), (at(15).tick, Timer::ServerLogin));
    let _ = login.poll_output();
    login.handle_timeout(at(14));
    assert!(login.poll_output().is_none(), "early");
    login.handle_timeout(at(100));
    login.handle_timeout(at(101));
    login.handle_close(Lost::Broken, at(102));
    assert!(matches!(login.poll_output(), Some(LoginOutput::Finished(Err(LoginFailure::TimedOut)))));
    assert!(login.poll_output().is_none(), "finished once");
    assert_eq!(login.poll_timeout(), None);

    let mut login = Login::new(settings(), at(10));
    assert_eq!(login.handle_input(&welcome(), at(99)), welcome().len(), "late bytes before the timer's call count");
    login.handle_timeout(at(100));
    let last = std::iter::from_fn(|| login.poll_output()).last();
    assert!(matches!(last, Some(LoginOutput::Finished(Ok(_)))));
}

#[test]
fn a_server_that_speaks_or_leaves_during_the_derivation_is_heard() {
    let server = scram_server(PASSWORD, b"salt", 2);
    let challenged = || {
        let mut login = Login::new(settings(), at(0));
        for turn in &scram_turns(&server)[..2] {
            assert_eq!(login.handle_input(turn, at(0)), turn.len());
        }
        let derivation = std::iter::from_fn(|| login.poll_output()).last();
        let Some(LoginOutput::Derive(derivation)) = derivation else { panic!("no derivation") };
        (login, derivation)
    };
    let (mut login, derivation) = challenged();
    let _ = login.handle_input(&msg(b'E', b"SFATAL\0C57P01\0Mgoing down\0\0"), at(1));
    login.handle_derived(derivation.run(), at(2));
    let end = std::iter::from_fn(|| login.poll_output()).collect::<Vec<_>>();
    assert!(matches!(&end[..], [LoginOutput::Finished(Err(LoginFailure::Server(error)))]
        if error.code() == Some(SqlState::ADMIN_SHUTDOWN)));

    // Keys that belong to another login's challenge are not taken for this one's.
    let (mut login, derivation) = challenged();
    let other = scram_server(PASSWORD, b"pepper", 2);
    let (_, foreign) = play_chopped(settings(), &scram_turns(&other), |all| all);
    let foreign = Arc::into_inner(foreign.unwrap().new_keys.unwrap()).unwrap();
    login.handle_derived(foreign, at(1));
    assert!(login.poll_output().is_none());
    login.handle_derived(derivation.run(), at(2));
    assert!(matches!(login.poll_output(), Some(LoginOutput::Send(_))));
}

#[test]
fn damaged_transcripts_end_or_wait_but_never_panic_or_let_in_unproven() {
    let server = scram_server(PASSWORD, b"salt", 2);
    let turns = scram_turns(&server);
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..3_000 {
        let mut turns = turns.clone();
        // The proof itself stays: everything else is damaged.
        let turn = random.usize(0..2);
        let at = random.usize(0..turns[turn].len());
        turns[turn][at] ^= 1 << random.u32(0..8);
        let (seen, logged_in) = play_chopped(settings(), &turns, |all| random.usize(1..=all));
        let finished = seen.iter().filter(|seen| matches!(seen, Seen::In { .. } | Seen::Failed(_))).count();
        assert!(finished <= 1);
        if let Some(logged_in) = logged_in {
            // Only the offer of mechanisms may differ without consequence.
            assert!(turn == 0 && logged_in.password_checked());
        }
    }
}

//! Logins without a password: keys of a verifier, a stored hash, a token.

use super::*;
use crate::auth::md5;
use crate::auth::scram::ScramKeys;

fn with(credential: Credential) -> LoginSettings {
    LoginSettings { credential, ..settings() }
}

fn token(stays_here: bool) -> Credential {
    Credential::Token { token: secret(b"eyJhbGciOiJub25lIn0.e30."), stays_here }
}

/// The keys of a login by password to this server.
fn keys_of(server: &ScramServer) -> Arc<ScramKeys> {
    play_chopped(settings(), &scram_turns(server), |all| all).1.unwrap().new_keys.unwrap()
}

#[test]
fn keys_answer_their_own_challenge_without_a_derivation() {
    let server = scram_server(PASSWORD, b"some salt", 64);
    let keys = Credential::Keys(keys_of(&server));
    let seen = play(with(keys.clone()), &scram_turns(&server));
    assert_eq!(seen, scram_transcript(&server, false));
    let salted_anew = scram_server(PASSWORD, b"other salt", 64);
    let unfit = LoginFailure::Unfit("this SCRAM verifier");
    assert_eq!(failure(with(keys.clone()), &scram_turns(&salted_anew)), unfit);
    for question in [auth(3, b""), auth(5, b"salt")] {
        let seen = play(with(keys.clone()), &[question]);
        assert_eq!(seen, [startup(), Seen::Failed(LoginFailure::Unfit("a SCRAM verifier"))]);
    }
}

#[test]
fn a_stored_hash_answers_md5_and_nothing_else() {
    let hash = Credential::Md5(Arc::new(md5::stored(b"svc_reader", PASSWORD)));
    let answer = md5_hash(b"svc_reader", PASSWORD, *b"salt") + "\0";
    let seen = play(with(hash.clone()), &[auth(5, b"salt"), welcome()]);
    assert_eq!(seen, [startup(), Seen::Send(msg(b'p', answer.as_bytes())), welcomed(true, false, false)]);
    for question in [auth(3, b""), auth(10, b"SCRAM-SHA-256\0\0")] {
        let seen = play(with(hash.clone()), &[question]);
        assert_eq!(seen, [startup(), Seen::Failed(LoginFailure::Unfit("an MD5 hash"))]);
    }
}

#[test]
fn a_token_is_sent_only_where_nobody_else_can_read_it() {
    let sent = Seen::Send(msg(b'p', b"eyJhbGciOiJub25lIn0.e30.\0"));
    for (sslmode, goes) in
        [(SslMode::VerifyFull, true), (SslMode::VerifyCa, true), (SslMode::Require, false), (SslMode::Prefer, false)]
    {
        let settings = LoginSettings { sslmode, ..with(token(false)) };
        let seen = play(settings, &[b"S".to_vec(), auth(3, b"")]);
        assert_eq!(seen.contains(&sent), goes, "{sslmode:?}");
        assert_eq!(seen.contains(&Seen::Failed(LoginFailure::Unprotected)), !goes, "{sslmode:?}");
    }
    // `prefer` goes on without TLS when the server has none; the token does not.
    let prefer = || LoginSettings { sslmode: SslMode::Prefer, ..with(token(false)) };
    assert_eq!(failure(prefer(), &[b"N".to_vec(), auth(3, b"")]), LoginFailure::Unprotected);
    assert_eq!(failure(with(token(false)), &[auth(3, b"")]), LoginFailure::Unprotected);
    assert!(play(with(token(true)), &[auth(3, b"")]).contains(&sent), "on this machine");
}

#[test]
fn a_token_makes_no_other_proof_and_is_repeated_to_nobody() {
    for question in [auth(5, b"salt"), auth(10, b"SCRAM-SHA-256\0\0")] {
        assert_eq!(failure(with(token(true)), &[question]), LoginFailure::Unfit("a token"));
    }
    let told = msg(b'E', b"SFATAL\0C28000\0Mthe token eyJhbGciOiJub25lIn0.e30. is bad\0\0");
    let failed = failure(with(token(true)), &[auth(3, b""), told]);
    assert!(matches!(&failed, LoginFailure::Server(_)), "{failed:?}");
    assert!(!failed.to_string().contains("eyJ") && !format!("{failed:?}").contains("eyJ"), "{failed}");
}

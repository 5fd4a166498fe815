mod hostile;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use postgres_protocol::authentication::md5_hash;
use ring::{digest, hmac, pbkdf2};

use super::super::settings::Credential;
use super::*;
use crate::auth::Authenticated;
use crate::auth::scram::{MAX_ITERATIONS, ScramFault};
use crate::codec::frontend;
use crate::fault::SqlState;
use crate::time::Tick;

mod credentials;

const PASSWORD: &[u8] = b"correct horse";
const NONCE: [u8; 18] = [7; 18];
const TIMEOUT: Duration = Duration::from_secs(5);

fn at(seconds: u64) -> Now {
    Now { tick: Tick::from_nanos(seconds * 1_000_000_000), ..Now::default() }
}

fn secret(bytes: &[u8]) -> Arc<Secret<Vec<u8>>> {
    Arc::new(Secret::new(bytes.to_vec()))
}

fn settings() -> LoginSettings {
    LoginSettings {
        user: "svc_reader".into(),
        database: "app".into(),
        parameters: (*b"application_name\0psql\0").into(),
        credential: Credential::Password { password: secret(PASSWORD), keys: None },
        sslmode: SslMode::Disable,
        tls_possible: true,
        nonce: NONCE,
        timeout: TIMEOUT,
    }
}

/// What came out, in a form that can be compared.
#[derive(PartialEq, Debug)]
enum Seen {
    Send(Vec<u8>),
    StartTls(SslMode),
    Derive,
    In { parameters: Parameters, pid: u32, key: Vec<u8>, checked: bool, new_keys: bool, tls: bool },
    Failed(LoginFailure),
}

/// Does what a driver does, at once.
fn drain(login: &mut Login, seen: &mut Vec<Seen>) -> Option<LoggedIn> {
    let mut logged_in = None;
    while let Some(output) = login.poll_output() {
        seen.push(match output {
            LoginOutput::Send(bytes) => Seen::Send(bytes.expose().clone()),
            LoginOutput::StartTls(mode) => {
                login.handle_tls_established(at(0));
                Seen::StartTls(mode)
            }
            LoginOutput::Derive(derivation) => {
                login.handle_derived(derivation.run(), at(0));
                Seen::Derive
            }
            LoginOutput::Finished(Ok(login)) => {
                let seen = Seen::In {
                    parameters: login.parameters.clone(),
                    pid: login.key.pid,
                    key: login.key.key.expose().clone(),
                    checked: login.password_checked(),
                    new_keys: login.new_keys.is_some(),
                    tls: login.tls,
                };
                logged_in = Some(login);
                seen
            }
            LoginOutput::Finished(Err(failure)) => Seen::Failed(failure),
        });
    }
    logged_in
}

/// Plays the server's turns, each cut by `chop` into what one read brings.
fn play_chopped(
    settings: LoginSettings,
    turns: &[Vec<u8>],
    mut chop: impl FnMut(usize) -> usize,
) -> (Vec<Seen>, Option<LoggedIn>) {
    let (mut login, mut seen) = (Login::new(settings, at(0)), Vec::new());
    let mut logged_in = drain(&mut login, &mut seen);
    for turn in turns {
        let mut rest = turn.as_slice();
        while !rest.is_empty() {
            let read = chop(rest.len()).clamp(1, rest.len());
            let taken = login.handle_input(&rest[..read], at(0));
            logged_in = drain(&mut login, &mut seen).or(logged_in);
            if taken < read {
                return (seen, logged_in);
            }
            rest = &rest[read..];
        }
    }
    (seen, logged_in)
}

fn play(settings: LoginSettings, turns: &[Vec<u8>]) -> Vec<Seen> {
    play_chopped(settings, turns, |all| all).0
}

fn failure(settings: LoginSettings, turns: &[Vec<u8>]) -> LoginFailure {
    match play(settings, turns).pop() {
        Some(Seen::Failed(failure)) => failure,
        other => panic!("expected a failure, saw {other:?}"),
    }
}

fn msg(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn auth(kind: u32, data: &[u8]) -> Vec<u8> {
    msg(b'R', &[&kind.to_be_bytes(), data].concat())
}

/// AuthenticationOk up to ReadyForQuery.
fn welcome() -> Vec<u8> {
    [
        auth(0, b""),
        msg(b'S', b"server_version\x0015.4\0"),
        msg(b'N', b"SNOTICE\0C00000\0Mhello\0\0"),
        msg(b'S', b"TimeZone\0UTC\0"),
        msg(b'S', b"TimeZone\0Europe/Berlin\0"),
        msg(b'K', b"\0\0\x01\0abcd"),
        msg(b'Z', b"I"),
    ]
    .concat()
}

fn welcomed(checked: bool, new_keys: bool, tls: bool) -> Seen {
    Seen::In {
        parameters: vec![
            ((*b"server_version").into(), (*b"15.4").into()),
            ((*b"TimeZone").into(), (*b"Europe/Berlin").into()),
        ],
        pid: 256,
        key: b"abcd".to_vec(),
        checked,
        new_keys,
        tls,
    }
}

fn startup() -> Seen {
    let mut packet = Vec::new();
    let pairs = [(&b"user"[..], &b"svc_reader"[..]), (b"database", b"app"), (b"application_name", b"psql")];
    startup::emit(&mut packet, startup::PROTOCOL_3_0, pairs);
    Seen::Send(packet)
}

fn ssl_request() -> Seen {
    Seen::Send(vec![0, 0, 0, 8, 4, 210, 22, 47])
}

fn with_sslmode(sslmode: SslMode) -> LoginSettings {
    LoginSettings { sslmode, ..settings() }
}

/// A SCRAM server as RFC 5802 section 3 has it, written apart from the client's code.
struct ScramServer {
    first: String,
    client_final: Vec<u8>,
    server_final: Vec<u8>,
}

fn scram_server(password: &[u8], salt: &[u8], iterations: u32) -> ScramServer {
    let hmac = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let client = BASE64.encode(NONCE);
    let first = format!("r={client}+server,s={},i={iterations}", BASE64.encode(salt));
    let without_proof = format!("c=biws,r={client}+server");
    let auth_message = format!("n=,r={client},{first},{without_proof}");
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations.try_into().unwrap(), salt, password, &mut salted);
    let client_key = hmac(&salted, b"Client Key");
    let stored = digest::digest(&digest::SHA256, client_key.as_ref());
    let signature = hmac(stored.as_ref(), auth_message.as_bytes());
    let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    let server = hmac(hmac(&salted, b"Server Key").as_ref(), auth_message.as_bytes());
    ScramServer {
        first,
        client_final: format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes(),
        server_final: format!("v={}", BASE64.encode(server)).into_bytes(),
    }
}

fn scram_turns(server: &ScramServer) -> Vec<Vec<u8>> {
    vec![
        auth(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
        auth(11, server.first.as_bytes()),
        [auth(12, &server.server_final), welcome()].concat(),
    ]
}

fn client_initial() -> Seen {
    let mut bytes = Vec::new();
    let first = format!("n,,n=,r={}", BASE64.encode(NONCE));
    frontend::emit_sasl_initial(&mut bytes, b"SCRAM-SHA-256", first.as_bytes());
    Seen::Send(bytes)
}

fn scram_transcript(server: &ScramServer, derive: bool) -> Vec<Seen> {
    let mut seen = vec![startup(), client_initial()];
    seen.extend(derive.then_some(Seen::Derive));
    seen.push(Seen::Send(msg(b'p', &server.client_final)));
    seen.push(welcomed(true, derive, false));
    seen
}

#[test]
fn trust_lets_in_but_checks_nothing() {
    assert_eq!(play(settings(), &[welcome()]), [startup(), welcomed(false, false, false)]);
    let none = LoginSettings { credential: Credential::None, ..settings() };
    assert_eq!(play(none, &[welcome()]), [startup(), welcomed(false, false, false)]);
}

#[test]
fn answers_a_cleartext_question() {
    let seen = play(settings(), &[auth(3, b""), welcome()]);
    assert_eq!(seen, [startup(), Seen::Send(msg(b'p', b"correct horse\0")), welcomed(true, false, false)]);
}

#[test]
fn answers_an_md5_question() {
    let seen = play(settings(), &[auth(5, b"salt"), welcome()]);
    let answer = md5_hash(b"svc_reader", PASSWORD, *b"salt") + "\0";
    assert_eq!(seen, [startup(), Seen::Send(msg(b'p', answer.as_bytes())), welcomed(true, false, false)]);
}

#[test]
fn speaks_scram_and_derives_its_keys_once() {
    let server = scram_server(PASSWORD, b"some salt", 64);
    let turns = scram_turns(&server);
    let (seen, logged_in) = play_chopped(settings(), &turns, |all| all);
    assert_eq!(seen, scram_transcript(&server, true));
    let logged_in = logged_in.unwrap();
    assert_eq!(&**logged_in.user(), "svc_reader");

    let again = |password: &[u8]| LoginSettings {
        credential: Credential::Password { password: secret(password), keys: logged_in.new_keys.clone() },
        ..settings()
    };
    assert_eq!(play(again(PASSWORD), &turns), scram_transcript(&server, false));
    let salted_anew = scram_server(PASSWORD, b"other salt", 64);
    assert_eq!(play(again(PASSWORD), &scram_turns(&salted_anew)), scram_transcript(&salted_anew, true));
    // Somebody else's password does not become right by the keys of the right one.
    let seen = play(again(b"wrong"), &turns);
    assert_eq!(seen[2], Seen::Derive);
    assert_eq!(seen.last(), Some(&Seen::Failed(LoginFailure::Scram(ScramFault::ServerSignature))));
}

#[test]
fn only_a_checked_password_is_a_proof() {
    let by_server = |turns: &[Vec<u8>]| {
        let (_, logged_in) = play_chopped(settings(), turns, |all| all);
        Authenticated::by_server(&logged_in.unwrap())
    };
    assert!(by_server(&[welcome()]).is_none());
    assert_eq!(&*by_server(&[auth(3, b""), welcome()]).unwrap().identity().user, "svc_reader");
}

#[test]
fn asks_for_tls_as_sslmode_says() {
    let s = || vec![b"S".to_vec(), welcome()];
    let n = || vec![b"N".to_vec(), welcome()];
    for mode in [SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        let seen = play(with_sslmode(mode), &s());
        assert_eq!(seen, [ssl_request(), Seen::StartTls(mode), startup(), welcomed(false, false, true)]);
        let seen = play(with_sslmode(mode), &n());
        if mode == SslMode::Prefer {
            assert_eq!(seen, [ssl_request(), startup(), welcomed(false, false, false)]);
        } else {
            assert_eq!(seen, [ssl_request(), Seen::Failed(LoginFailure::TlsRefused)]);
        }
        let unix = LoginSettings { tls_possible: false, ..with_sslmode(mode) };
        assert_eq!(play(unix, &[welcome()]), [startup(), welcomed(false, false, false)]);
        assert_eq!(failure(with_sslmode(mode), &[b"Ecould not fork\n\0".to_vec()]), LoginFailure::TlsUnanswered);
        let odd = LoginFailure::Protocol(Violation::UnexpectedMessage(b'H'));
        assert_eq!(failure(with_sslmode(mode), &[b"HTTP/1.1 400".to_vec()]), odd);
    }
}

#[test]
fn nothing_may_be_buffered_behind_the_tls_answer() {
    let injected = LoginFailure::Protocol(Violation::PlaintextBehindTlsRequest);
    let stream = [b"S".to_vec(), welcome()].concat();
    let seen = play(with_sslmode(SslMode::Require), std::slice::from_ref(&stream));
    assert_eq!(seen, [ssl_request(), Seen::Failed(injected.clone())], "TLS is not even begun");

    // The same bytes in two reads: plaintext while the handshake is due.
    let mut login = Login::new(with_sslmode(SslMode::Require), at(0));
    assert_eq!(login.handle_input(&stream[..1], at(0)), 1);
    assert_eq!(login.handle_input(&stream[1..], at(0)), 0);
    let outputs: Vec<_> = std::iter::from_fn(|| login.poll_output()).collect();
    assert!(matches!(&outputs[1], LoginOutput::StartTls(_)));
    assert!(matches!(&outputs[2], LoginOutput::Finished(Err(failure)) if *failure == injected));
}

#[test]
fn a_failed_tls_handshake_has_its_reason() {
    let mut login = Login::new(with_sslmode(SslMode::VerifyFull), at(0));
    login.handle_tls_failed("too early to count", at(0));
    login.handle_tls_established(at(0));
    assert_eq!(login.handle_input(b"S", at(0)), 1);
    login.handle_tls_failed("the certificate has expired", at(0));
    login.handle_tls_established(at(0));
    let last = std::iter::from_fn(|| login.poll_output()).last();
    let Some(LoginOutput::Finished(Err(failure))) = last else { panic!("not failed") };
    assert_eq!(failure, LoginFailure::TlsFailed("the certificate has expired".into()));
}

#[test]
fn any_split_of_the_servers_bytes_gives_the_same_outputs() {
    let scram = scram_server(PASSWORD, b"salt", 2);
    let refusal = msg(b'E', b"SFATAL\0VFATAL\0C3D000\0Mdatabase \"app\" does not exist\0\0");
    let scripts = [
        (SslMode::Disable, vec![welcome()]),
        (SslMode::Disable, vec![auth(3, b""), welcome()]),
        (SslMode::Disable, vec![auth(5, b"salt"), welcome()]),
        (SslMode::Prefer, [vec![b"N".to_vec()], scram_turns(&scram)].concat()),
        (SslMode::Require, [vec![b"S".to_vec()], scram_turns(&scram)].concat()),
        (SslMode::Disable, vec![[auth(0, b""), refusal.clone()].concat()]),
        (SslMode::Disable, vec![auth(3, b""), refusal]),
        (SslMode::Disable, vec![b"Ecould not fork new process\n\0".to_vec()]),
        (SslMode::Disable, vec![[auth(0, b""), msg(b'Z', b"T")].concat()]),
        (SslMode::Disable, vec![[auth(0, b""), b"S\xff\xff\xff\xff".to_vec()].concat()]),
    ];
    let mut random = fastrand::Rng::with_seed(3);
    for (mode, turns) in scripts {
        let whole = play(with_sslmode(mode), &turns);
        assert!(matches!(whole.last(), Some(Seen::In { .. } | Seen::Failed(_))));
        for fixed in 1..60 {
            assert_eq!(play_chopped(with_sslmode(mode), &turns, |_| fixed).0, whole, "reads of {fixed}");
        }
        for _ in 0..50 {
            assert_eq!(play_chopped(with_sslmode(mode), &turns, |all| random.usize(1..=all)).0, whole);
        }
    }
}

#[test]
fn bytes_behind_the_first_ready_for_query_are_the_sessions() {
    let mut login = Login::new(settings(), at(0));
    let stream = [welcome(), msg(b'A', b"\0\0\0\x01chan\0\0")].concat();
    assert_eq!(login.handle_input(&stream, at(0)), welcome().len());
    assert_eq!(login.handle_input(&stream, at(0)), 0, "a finished login takes nothing more");
}

#[test]
fn keys_of_every_allowed_length_are_kept() {
    for length in [4, 32, 256] {
        let key = vec![9; length];
        let stream = [auth(0, b""), msg(b'K', &[&7u32.to_be_bytes()[..], &key].concat()), msg(b'Z', b"I")].concat();
        let (_, logged_in) = play_chopped(settings(), &[stream], |all| all);
        assert_eq!(logged_in.unwrap().key.key.expose(), &key);
    }
    let (_, logged_in) = play_chopped(settings(), &[[auth(0, b""), msg(b'Z', b"I")].concat()], |all| all);
    assert!(logged_in.unwrap().key.key.expose().is_empty(), "a server may have no key to tell");
}

#[test]
fn notices_parameters_and_versions_may_come_early() {
    let early = [msg(b'N', b"\0"), msg(b'v', b"\0\x03\0\0\0\0\0\0"), msg(b'S', b"in_hot_standby\0off\0"), auth(3, b"")]
        .concat();
    let seen = play(settings(), &[early, welcome()]);
    let Some(Seen::In { parameters, .. }) = seen.last() else { panic!("not let in") };
    assert_eq!(parameters[0], ((*b"in_hot_standby").into(), (*b"off").into()));
}

#[test]
fn settings_that_would_be_read_differently_are_not_sent() {
    let refused =
        |settings: LoginSettings| matches!(&play(settings, &[])[..], [Seen::Failed(LoginFailure::Settings(_))]);
    assert!(refused(LoginSettings { user: "".into(), ..settings() }));
    assert!(refused(LoginSettings { user: "admin\0x".into(), ..settings() }));
    assert!(refused(LoginSettings { database: "a\0b".into(), ..settings() }));
    for parameters in ["user\0postgres\0", "database\0x\0", "a\0b\0user\0x\0", "a\0b", "a", "\0", "a\0b\0\0", "\0x\0"] {
        assert!(refused(LoginSettings { parameters: parameters.as_bytes().into(), ..settings() }), "{parameters:?}");
    }
    let long = [b"options\0", b"x".repeat(10_000).as_slice(), b"\0"].concat();
    assert!(refused(LoginSettings { parameters: long.into(), ..settings() }));
    assert!(!refused(LoginSettings { parameters: [].into(), ..settings() }));

    let zero = Credential::Password { password: secret(b"right\0wrong"), keys: None };
    let seen = play(LoginSettings { credential: zero, ..settings() }, &[auth(3, b"")]);
    assert_eq!(seen, [startup(), Seen::Failed(LoginFailure::Settings("the password holds a zero byte"))]);
}

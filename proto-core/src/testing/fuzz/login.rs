//! The login to a server that sends anything: it ends once, says why, and gives nothing away.

use std::sync::Arc;
use std::time::Duration;

use super::cuts::{Cut, Script};
use crate::auth::Authenticated;
use crate::auth::scram::Derivation;
use crate::fault::{Lost, Violation};
use crate::policy::SslMode;
use crate::secret::Secret;
use crate::time::{Now, Tick};
use crate::upstream::{Credential, LoggedIn, Login, LoginFailure, LoginOutput, LoginSettings, Parameters};

/// What the proxy logs in with.
pub const PASSWORD: &[u8] = b"correct horse";
/// The random part of its SCRAM messages, so that a server in a file can answer them.
pub const NONCE: [u8; 18] = [7; 18];
/// More work than a fuzzer has time for: such a derivation is never answered.
pub const MAX_ITERATIONS: u32 = 64;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Two bytes of settings, then the server's turns, each a length in two bytes and so many bytes of it.
pub fn login(data: &[u8]) {
    let mut script = Script::new(data);
    let (setup, cut) = (script.byte(), Cut::seeded(script.byte()));
    let mut turns = Vec::new();
    while !script.is_over() {
        turns.push(script.string());
    }
    let whole = Run::play(setup, &turns, Cut::Whole);
    let injected = Seen::Failed(LoginFailure::Protocol(Violation::PlaintextBehindTlsRequest));
    for cut in [Cut::Single, cut] {
        let pieces = Run::play(setup, &turns, cut);
        if whole.seen.last() == Some(&injected) {
            // Who does not see both at once begins TLS before.
            assert_eq!(pieces.seen.last(), Some(&injected));
        } else {
            assert_eq!(pieces.seen, whole.seen);
        }
    }
}

/// The proof of a user whose password a server has checked.
pub(super) fn proof(user: &str) -> Authenticated {
    let settings = LoginSettings { user: user.into(), ..settings(0) };
    let mut machine = Login::new(settings, at(0));
    let welcome = b"R\0\0\0\x08\0\0\0\x03R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    assert_eq!(machine.handle_input(welcome, at(0)), welcome.len());
    match std::iter::from_fn(|| machine.poll_output()).last() {
        Some(LoginOutput::Finished(Ok(login))) => Authenticated::by_server(&login).expect("it was asked for"),
        _ => panic!("not let in"),
    }
}

#[derive(PartialEq, Debug)]
enum Seen {
    Send(Vec<u8>),
    StartTls,
    Derive(u32),
    In { parameters: Parameters, pid: u32, key: Vec<u8>, checked: bool, keys: bool, tls: bool },
    Failed(LoginFailure),
}

struct Run {
    setup: u8,
    machine: Login,
    seen: Vec<Seen>,
    /// Answered behind the server's turn: a server that does not wait is the same however its bytes are cut.
    tls_begun: bool,
    derivation: Option<Derivation>,
    over: bool,
}

fn at(secs: u64) -> Now {
    Now { tick: Tick::from_nanos(secs * 1_000_000_000), ..Now::default() }
}

fn settings(setup: u8) -> LoginSettings {
    let sslmode = [SslMode::Disable, SslMode::Prefer, SslMode::Require, SslMode::VerifyFull][usize::from(setup & 3)];
    let password = Arc::new(Secret::new(PASSWORD.to_vec()));
    LoginSettings {
        user: "app_reader".into(),
        database: "app".into(),
        parameters: (*b"application_name\0psql\0").into(),
        credential: if setup & 4 == 0 { Credential::Password { password, keys: None } } else { Credential::None },
        sslmode,
        tls_possible: setup & 8 == 0,
        nonce: NONCE,
        timeout: TIMEOUT,
    }
}

impl Run {
    fn play(setup: u8, turns: &[&[u8]], cut: Cut) -> Self {
        let machine = Login::new(settings(setup), at(0));
        let mut run = Self { setup, machine, seen: Vec::new(), tls_begun: false, derivation: None, over: false };
        run.drain();
        for turn in turns {
            for piece in cut.pieces(turn) {
                let taken = run.machine.handle_input(piece, at(1));
                assert!(taken <= piece.len());
                run.drain();
                assert!(run.over || taken == piece.len(), "everything is taken up to the end");
                if !matches!(cut, Cut::Whole) {
                    // Too early to matter.
                    run.machine.handle_timeout(at(2));
                    run.drain();
                }
            }
            run.answer();
        }
        run.end();
        run
    }

    /// What a driver does meanwhile.
    fn answer(&mut self) {
        if std::mem::take(&mut self.tls_begun) {
            if self.setup & 32 == 0 {
                self.machine.handle_tls_established(at(1));
            } else {
                self.machine.handle_tls_failed("the certificate has expired", at(1));
            }
        }
        if let Some(derivation) = self.derivation.take() {
            self.machine.handle_derived(derivation.run(), at(1));
        }
        self.drain();
    }

    /// Half of all servers go away at last, the others keep silent.
    fn end(&mut self) {
        assert_eq!(self.machine.poll_timeout().is_none(), self.over);
        if self.setup & 16 == 0 {
            self.machine.handle_close(Lost::Closed, at(3));
        }
        self.machine.handle_timeout(at(9));
        self.drain();
        assert!(self.over && self.machine.poll_timeout().is_none());
        self.machine.handle_timeout(at(10));
        self.machine.handle_close(Lost::Broken, at(10));
        self.machine.handle_tls_established(at(10));
        assert_eq!(self.machine.handle_input(b"Z", at(10)), 0);
        assert!(self.machine.poll_output().is_none(), "something comes after the end");
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            assert!(!std::mem::take(&mut self.over), "something comes after the end");
            let seen = match output {
                LoginOutput::Send(bytes) => Seen::Send(bytes.expose().clone()),
                LoginOutput::StartTls(_) => {
                    self.tls_begun = true;
                    Seen::StartTls
                }
                LoginOutput::Derive(derivation) => {
                    let rounds = derivation.iterations();
                    self.derivation = Some(derivation).filter(|_| rounds <= MAX_ITERATIONS);
                    Seen::Derive(rounds)
                }
                LoginOutput::Finished(result) => {
                    self.over = true;
                    self.finished(result)
                }
            };
            self.seen.push(seen);
        }
    }

    fn finished(&self, result: Result<LoggedIn, LoginFailure>) -> Seen {
        let password_sent = self.seen.iter().any(|seen| matches!(seen, Seen::Send(bytes) if holds_password(bytes)));
        match result {
            Ok(login) => {
                assert_eq!(&**login.user(), "app_reader");
                assert_eq!(Authenticated::by_server(&login).is_some(), login.password_checked());
                assert!(!login.password_checked() || self.setup & 4 == 0, "a password that nobody has");
                Seen::In {
                    parameters: login.parameters.clone(),
                    pid: login.key.pid,
                    key: login.key.key.expose().clone(),
                    checked: login.password_checked(),
                    keys: login.new_keys.is_some(),
                    tls: login.tls,
                }
            }
            Err(failure) => {
                let refusal = failure.refusal();
                let told = format!("{failure} {failure:?} {refusal:?}");
                assert!(!failure.to_string().contains(char::is_control));
                // A server that did not get it cannot give it away.
                assert!(!password_sent || !holds_password(told.as_bytes()), "{told}");
                Seen::Failed(failure)
            }
        }
    }
}

fn holds_password(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, PASSWORD).is_some()
}

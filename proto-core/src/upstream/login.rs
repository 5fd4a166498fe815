//! Logging the proxy in to a server: TLS negotiation, startup packet, authentication, first ReadyForQuery
//! (PostgreSQL manual, sections 54.2.1 and 54.2.9).
//!
//! ```text
//! TlsAnswer --S--> TlsHandshake --established--> Proving --AuthenticationOk--> Starting --ReadyForQuery--> Finished
//!     '------N, sslmode=prefer--------------------^  '--an error without fields--> OldError --its end--> Finished
//! ```
//! Any state ends as `Finished` with a failure. Nothing is retried here, in particular not without TLS: that `prefer`
//! goes on in clear after an `N` is all the downgrade there is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::failure::{LoginFailure, ServerError};
use super::frames::{Frame, Frames};
use super::proving::{Checked, Evidence, Proving, Step};
use super::settings::{LoginSettings, startup_packet};
use super::{BackendKey, LoggedIn, Parameters, remember};
use crate::auth::scram::{Derivation, ScramKeys};
use crate::codec::backend::{self, Authentication, TransactionStatus, tag};
use crate::codec::startup;
use crate::fault::{Lost, Violation};
use crate::policy::SslMode;
use crate::secret::Secret;
use crate::time::{Deadline, Now, Timer};

/// The most that a server may send before its first ReadyForQuery. PostgreSQL sends about 500 bytes; notices of a
/// login trigger may add to it.
pub const MAX_LOGIN_BYTES: usize = 1024 * 1024;

/// The shortest cancel key: four bytes in protocol 3.0 and, as the least, in 3.2.
const MIN_CANCEL_KEY: usize = 4;

/// The longest error without fields that is waited for (a line such as `could not fork new process`).
const MAX_OLD_ERROR: usize = 1024;

/// What a login wants done, in this order.
#[must_use]
#[non_exhaustive]
pub enum LoginOutput {
    /// Send these bytes. They may hold a password.
    Send(Secret<Vec<u8>>),
    /// Begin TLS on the connection, verify as far as this `sslmode` says, then call
    /// [`Login::handle_tls_established`] or [`Login::handle_tls_failed`].
    StartTls(SslMode),
    /// Run this where blocking is allowed, then call [`Login::handle_derived`].
    Derive(Derivation),
    /// The end. Bytes that `handle_input` did not take belong to the session that follows.
    Finished(Result<LoggedIn, LoginFailure>),
}

enum Phase {
    TlsAnswer,
    TlsHandshake,
    Proving(Proving),
    Starting(Checked),
    OldError(Vec<u8>),
    Finished,
}

/// The machine. See the [module](self) for its states.
pub struct Login {
    settings: LoginSettings,
    phase: Phase,
    frames: Frames,
    received: usize,
    deadline: Deadline,
    parameters: Parameters,
    key: Option<BackendKey>,
    tls: bool,
    let_in: bool,
    outputs: VecDeque<LoginOutput>,
}

impl Login {
    /// Begins a login on a fresh connection.
    #[must_use]
    pub fn new(settings: LoginSettings, now: Now) -> Self {
        let mut login = Self {
            deadline: Deadline { at: now.tick.after(settings.timeout), why: Timer::ServerLogin },
            settings,
            phase: Phase::TlsAnswer,
            frames: Frames::new(),
            received: 0,
            parameters: Vec::new(),
            key: None,
            tls: false,
            let_in: false,
            outputs: VecDeque::new(),
        };
        if login.settings.tls_possible && login.settings.sslmode != SslMode::Disable {
            let mut request = Vec::new();
            startup::emit_ssl_request(&mut request);
            login.send(Secret::new(request));
        } else {
            login.start();
        }
        login
    }

    /// Takes bytes from the server, chopped in any way, and says how many it took: all of them, up to the end.
    #[must_use = "what it did not take belongs to the session that follows"]
    pub fn handle_input(&mut self, bytes: &[u8], _now: Now) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            taken += match &mut self.phase {
                Phase::TlsAnswer => self.handle_tls_answer(rest),
                Phase::TlsHandshake => {
                    self.fail(Violation::PlaintextBehindTlsRequest.into());
                    0
                }
                Phase::Proving(_) | Phase::Starting(_) => self.handle_messages(rest),
                Phase::OldError(text) => {
                    let room = MAX_OLD_ERROR.saturating_sub(text.len()).min(rest.len());
                    text.extend_from_slice(&rest[..room]);
                    self.end_old_error(false);
                    room
                }
                Phase::Finished => break,
            };
        }
        taken
    }

    /// Says that TLS is up. What follows is read from inside it.
    pub fn handle_tls_established(&mut self, _now: Now) {
        if matches!(self.phase, Phase::TlsHandshake) {
            self.tls = true;
            self.start();
        }
    }

    /// Says that TLS did not come about. The reason is shown to clients and must hold no secret.
    pub fn handle_tls_failed(&mut self, reason: &str, _now: Now) {
        if matches!(self.phase, Phase::TlsHandshake) {
            self.fail(LoginFailure::TlsFailed(reason.into()));
        }
    }

    /// Hands in what the derivation made. Ignored when none is awaited.
    pub fn handle_derived(&mut self, keys: ScramKeys, _now: Now) {
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Proving(Proving::Deriving(challenge)) => self.follow(Proving::handle_derived(challenge, keys)),
            phase => self.phase = phase,
        }
    }

    /// Says that the transport has ended.
    pub fn handle_close(&mut self, how: Lost, _now: Now) {
        match &self.phase {
            Phase::Finished => {}
            Phase::OldError(_) => self.end_old_error(true),
            Phase::TlsAnswer | Phase::TlsHandshake => self.fail(LoginFailure::Lost(how)),
            Phase::Proving(_) | Phase::Starting(_) => {
                // An error that was cut off tells more than the loss does.
                let failure = match self.frames.partial() {
                    Some((tag::ERROR_RESPONSE, body)) if !body.is_empty() => self.server_error(body),
                    _ => LoginFailure::Lost(how),
                };
                self.fail(failure);
            }
        }
    }

    /// Gives up when the deadline has come. Early, late and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Finished) && now.tick >= self.deadline.at {
            self.fail(LoginFailure::TimedOut);
        }
    }

    /// When `handle_timeout` has work to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        (!matches!(self.phase, Phase::Finished)).then_some(self.deadline)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<LoginOutput> {
        self.outputs.pop_front()
    }

    /// Whether the server has sent AuthenticationOk. It applies the startup parameters only then: what fails from here
    /// on may be the doing of the client that they came from.
    #[must_use]
    pub const fn was_let_in(&self) -> bool {
        self.let_in
    }

    /// The answer to an SSLRequest is one byte, and nothing may be buffered behind an `S`: it would be read as if it
    /// had come under TLS (CVE-2021-23222).
    fn handle_tls_answer(&mut self, bytes: &[u8]) -> usize {
        match bytes {
            [b'S'] => {
                self.phase = Phase::TlsHandshake;
                self.outputs.push_back(LoginOutput::StartTls(self.settings.sslmode));
            }
            [b'S', ..] => self.fail(Violation::PlaintextBehindTlsRequest.into()),
            [b'N', ..] if self.settings.sslmode == SslMode::Prefer => self.start(),
            [b'N', ..] => self.fail(LoginFailure::TlsRefused),
            [b'E', ..] => self.fail(LoginFailure::TlsUnanswered),
            [other, ..] => self.fail(Violation::UnexpectedMessage(*other).into()),
            [] => return 0,
        }
        1
    }

    /// Sends the startup packet.
    fn start(&mut self) {
        match startup_packet(&self.settings) {
            Ok(packet) => {
                self.phase = Phase::Proving(Proving::Asked);
                self.send(Secret::new(packet));
            }
            Err(what) => self.fail(LoginFailure::Settings(what)),
        }
    }

    fn handle_messages(&mut self, bytes: &[u8]) -> usize {
        let (used, frame) = self.frames.take(bytes);
        // The first bytes of the first message, and `E`: anything that came before it would have been a real message.
        let first = self.received < self.frames.header().len();
        self.received += used;
        match frame {
            _ if self.received > MAX_LOGIN_BYTES => self.fail(LoginFailure::TooMuchData),
            Ok(None) => {}
            Ok(Some(frame)) => self.handle_message(&frame),
            Err(_) if first && self.frames.header().first() == Some(&tag::ERROR_RESPONSE) => {
                self.phase = Phase::OldError(self.frames.header()[1..].to_vec());
                self.end_old_error(false);
            }
            Err(violation) => self.fail(violation.into()),
        }
        used
    }

    fn handle_message(&mut self, frame: &Frame) {
        let body = frame.body.expose().as_slice();
        let result = match (&self.phase, frame.tag) {
            (_, tag::ERROR_RESPONSE) => Err(self.server_error(body)),
            (_, tag::NOTICE_RESPONSE) => Ok(()),
            (_, tag::PARAMETER_STATUS) => self.handle_parameter(body),
            (Phase::Proving(_), tag::AUTHENTICATION) => self.handle_authentication(body),
            // It names options that the server does not know, or an older minor version: 3.0 has none to lose.
            (Phase::Proving(_), tag::NEGOTIATE_PROTOCOL_VERSION) => Ok(()),
            (Phase::Starting(_), tag::BACKEND_KEY_DATA) if self.key.is_none() => self.handle_key(body),
            (Phase::Starting(_), tag::READY_FOR_QUERY) => self.finish(body),
            (_, other) => Err(Violation::UnexpectedMessage(other).into()),
        };
        if let Err(failure) = result {
            self.fail(failure);
        }
    }

    fn handle_authentication(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let asked = Authentication::parse(body)?;
        let Phase::Proving(proving) = std::mem::replace(&mut self.phase, Phase::Finished) else { return Ok(()) };
        let evidence = Evidence {
            user: &self.settings.user,
            credential: &self.settings.credential,
            verified: self.tls && matches!(self.settings.sslmode, SslMode::VerifyCa | SslMode::VerifyFull),
            nonce: self.settings.nonce,
        };
        let step = proving.handle(&asked, &evidence)?;
        self.follow(step);
        Ok(())
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::Next(proving, answer) => {
                self.phase = Phase::Proving(proving);
                if let Some(answer) = answer {
                    self.send(answer);
                }
            }
            Step::Derive(challenge, derivation) => {
                self.phase = Phase::Proving(Proving::Deriving(challenge));
                self.outputs.push_back(LoginOutput::Derive(derivation));
            }
            Step::Done(checked) => {
                self.let_in = true;
                self.phase = Phase::Starting(checked);
            }
        }
    }

    fn handle_parameter(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let (name, value) = backend::parameter_status(body)?;
        if remember(&mut self.parameters, name, value) { Ok(()) } else { Err(LoginFailure::TooMuchData) }
    }

    fn handle_key(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let (pid, key) = backend::backend_key_data(body)?;
        if key.len() < MIN_CANCEL_KEY {
            return Err(Violation::Malformed.into());
        }
        self.key = Some(BackendKey { pid, key: Arc::new(Secret::new(key.to_vec())) });
        Ok(())
    }

    fn finish(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        match body {
            &[status] => match TransactionStatus::from_byte(status).ok_or(Violation::Malformed)? {
                TransactionStatus::Idle => {}
                status => return Err(LoginFailure::NotIdle(status)),
            },
            _ => return Err(Violation::Malformed.into()),
        }
        let Phase::Starting(checked) = std::mem::replace(&mut self.phase, Phase::Finished) else { return Ok(()) };
        let key = self.key.take().unwrap_or_else(|| BackendKey { pid: 0, key: Arc::new(Secret::new(Vec::new())) });
        self.outputs.push_back(LoginOutput::Finished(Ok(LoggedIn {
            parameters: std::mem::take(&mut self.parameters),
            key,
            new_keys: checked.new_keys,
            tls: self.tls,
            user: self.settings.user.clone(),
            password_checked: checked.password,
        })));
        Ok(())
    }

    /// Ends the wait for the rest of an error without fields: at its zero byte, at the limit, or at the close.
    fn end_old_error(&mut self, closed: bool) {
        if let Phase::OldError(text) = &self.phase
            && (closed || text.len() >= MAX_OLD_ERROR || text.contains(&0))
        {
            let error = ServerError::old_style(text);
            self.fail(LoginFailure::Server(error));
        }
    }

    fn server_error(&self, body: &[u8]) -> LoginFailure {
        let in_clear = match &self.phase {
            Phase::Proving(proving) => proving.in_clear(),
            Phase::Starting(checked) => checked.in_clear,
            _ => false,
        };
        let sent = self.settings.credential.in_clear();
        // A password that is part of the account's own name is no news in a message that names the account.
        let sent = sent.filter(|sent| in_clear && memchr::memmem::find(self.settings.user.as_bytes(), sent).is_none());
        LoginFailure::Server(ServerError::new(body, sent))
    }

    fn send(&mut self, bytes: Secret<Vec<u8>>) {
        self.outputs.push_back(LoginOutput::Send(bytes));
    }

    fn fail(&mut self, failure: LoginFailure) {
        self.phase = Phase::Finished;
        self.outputs.push_back(LoginOutput::Finished(Err(failure)));
    }
}

#[cfg(test)]
mod tests;

//! Carrying a cancel request to a server: a connection of its own on which nothing else is ever said (PostgreSQL
//! manual, section 54.2.8).
//!
//! ```text
//! [TlsAnswer --S--> TlsHandshake --established-->] Sent --the server closes--> Finished
//! ```
//! The server answers nothing, it closes; and only its close says that the signal has been given. Until then a
//! connection whose statement is being cancelled must not be handed on, or the cancel hits the next one's statement.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::BackendKey;
use crate::codec::startup;
use crate::fault::{Lost, Violation};
use crate::secret::Secret;
use crate::time::{Deadline, Now, Timer};

/// What a cancel wants done, in this order.
#[must_use]
pub enum CancelOutput {
    /// Send these bytes. They may hold the server's cancel key.
    Send(Secret<Vec<u8>>),
    /// Begin TLS on the connection, verified as the session's was, then call
    /// [`CancelRequest::handle_tls_established`], or [`CancelRequest::handle_close`] when it fails.
    StartTls,
    /// The end; close the connection.
    Finished(Result<(), CancelFailure>),
}

/// Why it is not known that the server has cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CancelFailure {
    /// The server told no cancel key when the session began.
    NoKey,
    /// The session is under TLS and the server does not offer it for the cancel: the key must not travel in clear.
    TlsRefused,
    /// The server did what the protocol does not allow, before the request was sent.
    Protocol(Violation),
    /// The transport ended before the request was sent.
    Lost(Lost),
    /// It took longer than it may.
    TimedOut {
        /// The request was handed out to be sent, so that the server may still act on it.
        sent: bool,
    },
}

impl CancelFailure {
    /// Whether the server may still cancel something: then the connection that was meant must not be handed on.
    #[must_use]
    pub const fn may_strike_late(self) -> bool {
        matches!(self, Self::TimedOut { sent: true })
    }
}

impl fmt::Display for CancelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("the server told no cancel key"),
            Self::TlsRefused => f.write_str("the server does not offer TLS for the cancel request"),
            Self::Protocol(violation) => {
                write!(f, "the server broke the protocol before the cancel request: {}", violation.describe())
            }
            Self::Lost(Lost::Closed) => f.write_str("the server closed the connection before the cancel request"),
            Self::Lost(Lost::Broken) => f.write_str("the connection broke before the cancel request"),
            Self::TimedOut { sent: false } => f.write_str("the cancel request could not be sent in time"),
            Self::TimedOut { sent: true } => f.write_str("the server did not confirm the cancel request in time"),
        }
    }
}

enum Phase {
    TlsAnswer,
    TlsHandshake,
    Sent,
    Finished,
}

/// The machine. See the [module](self) for its states.
pub struct CancelRequest {
    request: Secret<Vec<u8>>,
    phase: Phase,
    deadline: Deadline,
    outputs: VecDeque<CancelOutput>,
}

impl CancelRequest {
    /// Begins on a fresh connection to the same endpoint. `tls`: whether the session that is cancelled is under TLS.
    #[must_use]
    pub fn new(key: &BackendKey, tls: bool, timeout: Duration, now: Now) -> Self {
        let secret = key.key.expose();
        let mut request = Secret::new(Vec::with_capacity(12 + secret.len()));
        startup::emit_cancel_request(request.expose_mut(), key.pid, secret);
        let mut cancel = Self {
            request,
            phase: Phase::TlsAnswer,
            deadline: Deadline { at: now.tick.after(timeout), why: Timer::ServerCancel },
            outputs: VecDeque::new(),
        };
        if secret.is_empty() {
            cancel.finish(Err(CancelFailure::NoKey));
        } else if tls {
            let mut wish = Vec::new();
            startup::emit_ssl_request(&mut wish);
            cancel.outputs.push_back(CancelOutput::Send(Secret::new(wish)));
        } else {
            cancel.send();
        }
        cancel
    }

    /// Takes bytes from the server and says how many it took. Behind the request they mean nothing.
    pub fn handle_input(&mut self, bytes: &[u8], _now: Now) -> usize {
        match (&self.phase, bytes) {
            (Phase::Finished, _) => return 0,
            (Phase::Sent, _) | (_, []) => {}
            (Phase::TlsAnswer, [b'S']) => {
                self.phase = Phase::TlsHandshake;
                self.outputs.push_back(CancelOutput::StartTls);
            }
            (Phase::TlsAnswer, [b'N' | b'E', ..]) => self.finish(Err(CancelFailure::TlsRefused)),
            (Phase::TlsAnswer, [b'S', ..]) | (Phase::TlsHandshake, _) => {
                self.finish(Err(CancelFailure::Protocol(Violation::PlaintextBehindTlsRequest)));
            }
            (Phase::TlsAnswer, [other, ..]) => {
                self.finish(Err(CancelFailure::Protocol(Violation::UnexpectedMessage(*other))));
            }
        }
        bytes.len()
    }

    /// Says that TLS is up.
    pub fn handle_tls_established(&mut self, _now: Now) {
        if matches!(self.phase, Phase::TlsHandshake) {
            self.send();
        }
    }

    /// Says that the transport has ended. Once the request is sent, however it ends is the server's answer: a server
    /// that closes with unread bytes in its buffer resets the connection.
    pub fn handle_close(&mut self, how: Lost, _now: Now) {
        match self.phase {
            Phase::Finished => {}
            Phase::Sent => self.finish(Ok(())),
            Phase::TlsAnswer | Phase::TlsHandshake => self.finish(Err(CancelFailure::Lost(how))),
        }
    }

    /// Gives up when the deadline has come. Early, late and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Finished) && now.tick >= self.deadline.at {
            let sent = matches!(self.phase, Phase::Sent);
            self.finish(Err(CancelFailure::TimedOut { sent }));
        }
    }

    /// When `handle_timeout` has work to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        (!matches!(self.phase, Phase::Finished)).then_some(self.deadline)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<CancelOutput> {
        self.outputs.pop_front()
    }

    fn send(&mut self) {
        self.phase = Phase::Sent;
        let request = std::mem::replace(&mut self.request, Secret::new(Vec::new()));
        self.outputs.push_back(CancelOutput::Send(request));
    }

    fn finish(&mut self, result: Result<(), CancelFailure>) {
        self.phase = Phase::Finished;
        self.outputs.push_back(CancelOutput::Finished(result));
    }
}

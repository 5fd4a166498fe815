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
#[non_exhaustive]
pub enum CancelOutput {
    /// Send these bytes. They may hold the server's cancel key.
    Send(Secret<Vec<u8>>),
    /// Begin TLS on the connection, verified as the session's was, then call
    /// [`CancelRequest::handle_tls_established`], or [`CancelRequest::handle_close`] when it fails.
    StartTls,
    /// The end; close the connection.
    Finished(Result<(), CancelFailure>),
}

/// Whether a cancel request travels under TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CancelTls {
    /// In clear.
    Without,
    /// When the server offers it, else in clear (`sslmode=prefer`).
    IfOffered,
    /// Or not at all.
    Required,
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
    /// The server has answered the request with an error, as one does that is full. It may have acted on it all the same.
    Refused,
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
        matches!(self, Self::TimedOut { sent: true } | Self::Refused)
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
            Self::Refused => f.write_str("the server answered the cancel request with an error"),
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
    tls: CancelTls,
    phase: Phase,
    deadline: Deadline,
    outputs: VecDeque<CancelOutput>,
}

impl CancelRequest {
    /// Begins on a fresh connection to the same endpoint. `tls`: [`CancelTls::Required`] for a session under TLS, and
    /// [`CancelTls::Without`] for another one.
    #[must_use]
    pub fn new(key: &BackendKey, tls: CancelTls, timeout: Duration, now: Now) -> Self {
        let secret = key.key.expose();
        let mut request = Secret::new(Vec::with_capacity(12 + secret.len()));
        startup::emit_cancel_request(request.expose_mut(), key.pid, secret);
        let mut cancel = Self {
            request,
            tls,
            phase: Phase::TlsAnswer,
            deadline: Deadline { at: now.tick.after(timeout), why: Timer::ServerCancel },
            outputs: VecDeque::new(),
        };
        if secret.is_empty() {
            cancel.finish(Err(CancelFailure::NoKey));
        } else if tls != CancelTls::Without {
            let mut wish = Vec::new();
            startup::emit_ssl_request(&mut wish);
            cancel.outputs.push_back(CancelOutput::Send(Secret::new(wish)));
        } else {
            cancel.send();
        }
        cancel
    }

    /// Takes bytes from the server and says how many it took. Behind the request they mean nothing,
    /// but for an error.
    pub fn handle_input(&mut self, bytes: &[u8], _now: Now) -> usize {
        match (&self.phase, bytes) {
            (Phase::Finished, _) => return 0,
            (Phase::Sent, [b'E', ..]) => self.finish(Err(CancelFailure::Refused)),
            (Phase::Sent, _) | (_, []) => {}
            (Phase::TlsAnswer, [b'S']) => {
                self.phase = Phase::TlsHandshake;
                self.outputs.push_back(CancelOutput::StartTls);
            }
            (Phase::TlsAnswer, [b'N']) if self.tls == CancelTls::IfOffered => self.send(),
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

    /// Whether the request itself has been handed out to be sent.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        matches!(self.phase, Phase::Sent)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::time::Tick;

    fn at(seconds: u64) -> Now {
        Now { tick: Tick::from_nanos(seconds * 1_000_000_000), ..Now::default() }
    }

    fn begin(key: &[u8], tls: bool) -> CancelRequest {
        begin_with(key, if tls { CancelTls::Required } else { CancelTls::Without })
    }

    fn begin_with(key: &[u8], tls: CancelTls) -> CancelRequest {
        let key = BackendKey { pid: 258, key: Arc::new(Secret::new(key.to_vec())) };
        CancelRequest::new(&key, tls, Duration::from_secs(5), at(0))
    }

    #[derive(PartialEq, Debug)]
    enum Seen {
        Send(Vec<u8>),
        StartTls,
        Finished(Result<(), CancelFailure>),
    }

    fn seen(cancel: &mut CancelRequest) -> Vec<Seen> {
        std::iter::from_fn(|| cancel.poll_output())
            .map(|output| match output {
                CancelOutput::Send(bytes) => Seen::Send(bytes.expose().clone()),
                CancelOutput::StartTls => Seen::StartTls,
                CancelOutput::Finished(result) => Seen::Finished(result),
            })
            .collect()
    }

    fn request() -> Seen {
        Seen::Send(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x01\x02abcd".to_vec())
    }

    fn wish() -> Seen {
        Seen::Send(b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec())
    }

    #[test]
    fn waits_for_the_servers_close() {
        let mut cancel = begin(b"abcd", false);
        assert_eq!(seen(&mut cancel), [request()]);
        assert_eq!(cancel.handle_input(b"anything", at(1)), 8);
        assert_eq!(seen(&mut cancel), []);
        cancel.handle_close(Lost::Closed, at(1));
        cancel.handle_close(Lost::Broken, at(1));
        assert_eq!(seen(&mut cancel), [Seen::Finished(Ok(()))]);
        assert_eq!(cancel.poll_timeout(), None);
    }

    #[test]
    fn an_error_behind_the_request_is_no_success() {
        let mut cancel = begin(b"abcd", false);
        cancel.handle_input(b"E\0\0\0\x2e", at(1));
        cancel.handle_close(Lost::Closed, at(1));
        assert_eq!(seen(&mut cancel), [request(), Seen::Finished(Err(CancelFailure::Refused))]);
        assert!(CancelFailure::Refused.may_strike_late());
    }

    #[test]
    fn carries_the_longest_key_of_protocol_3_2() {
        let mut cancel = begin(&[7; 256], false);
        let [Seen::Send(bytes)] = &seen(&mut cancel)[..] else { panic!("one packet") };
        assert_eq!((bytes.len(), &bytes[..4], &bytes[12..]), (268, &268u32.to_be_bytes()[..], &[7; 256][..]));
    }

    #[test]
    fn a_session_under_tls_is_cancelled_under_tls() {
        let mut cancel = begin(b"abcd", true);
        cancel.handle_tls_established(at(0));
        assert_eq!(cancel.handle_input(b"S", at(0)), 1);
        assert_eq!(seen(&mut cancel), [wish(), Seen::StartTls]);
        cancel.handle_tls_established(at(0));
        assert_eq!(seen(&mut cancel), [request()]);
    }

    #[test]
    fn the_key_never_travels_in_clear_instead() {
        let cases = [
            (&b"N"[..], CancelFailure::TlsRefused),
            (b"E", CancelFailure::TlsRefused),
            (b"SX", CancelFailure::Protocol(Violation::PlaintextBehindTlsRequest)),
            (b"H", CancelFailure::Protocol(Violation::UnexpectedMessage(b'H'))),
        ];
        for (answer, failure) in cases {
            let mut cancel = begin(b"abcd", true);
            cancel.handle_input(answer, at(0));
            cancel.handle_tls_established(at(0));
            assert_eq!(seen(&mut cancel), [wish(), Seen::Finished(Err(failure))]);
            assert!(!failure.may_strike_late());
        }
    }

    #[test]
    fn where_tls_is_only_preferred_the_request_follows_a_plain_no_in_clear() {
        let mut cancel = begin_with(b"abcd", CancelTls::IfOffered);
        assert!(!cancel.is_out());
        cancel.handle_input(b"N", at(0));
        assert!(cancel.is_out());
        assert_eq!(seen(&mut cancel), [wish(), request()]);

        let mut cancel = begin_with(b"abcd", CancelTls::IfOffered);
        cancel.handle_input(b"S", at(0));
        assert!(!cancel.is_out());
        assert_eq!(seen(&mut cancel), [wish(), Seen::StartTls]);
        // Nothing is known of a server that goes on behind its answer.
        for odd in [&b"NX"[..], b"E"] {
            let mut cancel = begin_with(b"abcd", CancelTls::IfOffered);
            cancel.handle_input(odd, at(0));
            assert_eq!(seen(&mut cancel), [wish(), Seen::Finished(Err(CancelFailure::TlsRefused))]);
        }
    }

    #[test]
    fn nothing_is_sent_without_a_key() {
        assert_eq!(seen(&mut begin(b"", true)), [Seen::Finished(Err(CancelFailure::NoKey))]);
    }

    #[test]
    fn a_timeout_tells_whether_the_cancel_may_still_strike() {
        for (tls, late) in [(true, false), (false, true)] {
            let mut cancel = begin(b"abcd", tls);
            assert_eq!(cancel.poll_timeout(), Some(Deadline { at: at(5).tick, why: Timer::ServerCancel }));
            cancel.handle_timeout(at(4));
            cancel.handle_timeout(at(6));
            cancel.handle_timeout(at(7));
            let outputs = seen(&mut cancel);
            assert_eq!(outputs.len(), 2, "one packet and one end: {outputs:?}");
            let Seen::Finished(Err(failure)) = outputs[1] else { panic!("not failed") };
            assert_eq!(failure, CancelFailure::TimedOut { sent: late });
            assert_eq!(failure.may_strike_late(), late);
        }
        let mut cancel = begin(b"abcd", true);
        cancel.handle_close(Lost::Broken, at(0));
        assert_eq!(seen(&mut cancel), [wish(), Seen::Finished(Err(CancelFailure::Lost(Lost::Broken)))]);
    }
}

//! Why a login to a server failed, and how a client is told.

use std::fmt;

use crate::auth::scram::{MECHANISM, ScramFault};
use crate::codec::backend::{ErrorFields, TransactionStatus, tag};
use crate::codec::{HEADER_LEN, Malformed, Reader};
use crate::fault::{Lost, Refusal, SqlState, Violation};

/// Why a login to a server failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LoginFailure {
    /// The server said no, in its own words.
    Server(ServerError),
    /// The server did what the protocol does not allow.
    Protocol(Violation),
    /// The transport ended.
    Lost(Lost),
    /// The login took longer than it may.
    TimedOut,
    /// The server speaks no TLS, and `sslmode` insists on it.
    TlsRefused,
    /// The server answered the wish for TLS with an error. Its text came unauthenticated and is not passed on.
    TlsUnanswered,
    /// TLS did not come about, for this reason (a certificate that does not verify, ...).
    TlsFailed(Box<str>),
    /// The server wants an authentication method that is not spoken here, by its number in the Authentication message.
    UnsupportedAuth(i32),
    /// None of the server's SASL mechanisms is spoken here; `plus` when it offers the one with channel binding.
    UnsupportedMechanisms {
        /// SCRAM-SHA-256-PLUS was among them.
        plus: bool,
    },
    /// The server wants a password, and there is none.
    PasswordMissing,
    /// The server wants a password, and there is a SCRAM verifier without keys: see [`super::Credential::Verifier`].
    KeysUnknown,
    /// The server wants a proof that cannot be made of what there is.
    Unfit(&'static str),
    /// There is a token, and nothing says that nobody else would read it on its way.
    Unprotected,
    /// The SCRAM exchange failed.
    Scram(ScramFault),
    /// The server's first ReadyForQuery told of an open transaction.
    NotIdle(TransactionStatus),
    /// The server sent more before its first ReadyForQuery than is plausible.
    TooMuchData,
    /// The settings cannot be sent: this one holds a zero byte, is too long, or is not the caller's to set.
    Settings(&'static str),
}

impl LoginFailure {
    /// What a client is told. Neither a password nor a key can be in it.
    ///
    /// A server's own error keeps its SQLSTATE (28P01, 28000, 3D000, 53300, 57P03, ...). For the rest, 08001 says that
    /// the proxy and this server cannot come together as they are set up, 08006 that the connection failed on the way.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let cannot = |message: &str| Refusal::new(SqlState::CANNOT_CONNECT, message);
        let failed = |message: &str| Refusal::new(SqlState::CONNECTION_FAILURE, message);
        match self {
            Self::Server(error) => error.refusal(),
            Self::Protocol(violation) => {
                failed(&format!("the server broke the protocol during login: {}", violation.describe()))
            }
            Self::Lost(Lost::Closed) => failed("the server closed the connection during login"),
            Self::Lost(Lost::Broken) => failed("the connection to the server broke during login"),
            Self::TimedOut => failed("the server did not finish the login in time").hint("Try again later."),
            Self::TlsRefused => cannot("the server does not support TLS, but sslmode requires it")
                .hint("Turn on ssl at the server, or relax sslmode for this database in gprxy's configuration."),
            Self::TlsUnanswered => cannot("the server answered the TLS request with an error"),
            Self::TlsFailed(reason) => cannot(&format!("TLS with the server failed: {reason}")),
            Self::UnsupportedAuth(kind) => {
                cannot(&format!("the server wants authentication method {kind}, which gprxy does not speak"))
                    .hint("Set scram-sha-256 for gprxy's address in the server's pg_hba.conf.")
            }
            Self::UnsupportedMechanisms { plus: true } => {
                cannot("the server offers only SASL with channel binding, which gprxy does not speak")
                    .hint(format!("Let the server offer {MECHANISM} as well."))
            }
            Self::UnsupportedMechanisms { plus: false } => {
                cannot(&format!("the server offers no SASL mechanism that gprxy speaks ({MECHANISM})"))
            }
            Self::PasswordMissing => cannot("the server wants a password, but the account has none configured")
                .hint("Set the account's password in gprxy's configuration."),
            Self::KeysUnknown => cannot(
                "cannot log in to the server, wrong password type: of the account's password only a SCRAM verifier is \
                 known, and no login to gprxy has shown its keys",
            )
            .hint("Use auth_type = scram-sha-256 with users who run as themselves, or give gprxy the password."),
            Self::Unfit(what) => cannot(&format!("the server wants another proof than {what} can give"))
                .hint("A verifier or hash serves only a server that keeps the same one; a token, only another gprxy."),
            Self::Unprotected => cannot("the token is not sent: TLS with the server is missing or not verified")
                .hint("Use sslmode=verify-full, with the authority's certificate where it is not a public one."),
            // The server could not say it as an ErrorResponse with a code; it still is a refused password.
            Self::Scram(fault @ ScramFault::Refused(_)) => Refusal::new(SqlState::INVALID_PASSWORD, fault.to_string()),
            Self::Scram(fault) => failed(&fault.to_string()),
            Self::NotIdle(_) => failed("the server's new session is already in a transaction"),
            Self::TooMuchData => failed("the server sent too much data during login"),
            Self::Settings(what) => cannot(&format!("the login cannot be sent to the server: {what}")),
        }
    }
}

impl From<Violation> for LoginFailure {
    fn from(violation: Violation) -> Self {
        Self::Protocol(violation)
    }
}

impl From<Malformed> for LoginFailure {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.into())
    }
}

impl fmt::Display for LoginFailure {
    /// The refusal on one line, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.refusal()))
    }
}

/// A server's text may hold line breaks and other control characters; a log line may not.
fn one_line(refusal: &Refusal) -> String {
    refusal.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The most that is kept of a server's error, and of one field. PostgreSQL's own at login have a few hundred bytes.
const MAX_ERROR: usize = 8 * 1024;
const MAX_FIELD: usize = 2 * 1024;

/// A server's ErrorResponse, bounded and made whole: it always has a severity, a SQLSTATE, a message and its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerError {
    fields: Box<[u8]>,
    code: Option<SqlState>,
}

impl ServerError {
    /// Reads a body, also one that is cut off or lacks fields.
    ///
    /// `sent` is the password if the server has got it in clear: an error that repeats it is not passed on as it is.
    pub(crate) fn new(body: &[u8], sent: Option<&[u8]>) -> Self {
        let code = ErrorFields::parse(body).code;
        if sent.is_some_and(|password| !password.is_empty() && memchr::memmem::find(body, password).is_some()) {
            return Self::from_fields(&[], code, "the server's message is withheld: it repeats a secret");
        }
        Self::from_fields(body, code, "the server gave no reason")
    }

    /// A text without fields, as servers send that could not even start a process for the connection.
    pub(super) fn old_style(text: &[u8]) -> Self {
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        let text = text[..end].trim_ascii();
        Self::from_fields(&[], None, &String::from_utf8_lossy(text))
    }

    fn from_fields(body: &[u8], code: Option<SqlState>, message: &str) -> Self {
        let (mut fields, mut has) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(body);
        while let Ok(kind @ 1..) = reader.u8() {
            let value = match (kind, reader.cstr()) {
                (b'C', Ok(value)) if has.contains(&kind) || code.is_none_or(|code| code.0 != *value) => continue,
                (_, Ok(value)) => shorten(value),
                // Half a message tells more than none.
                (b'M', Err(_)) if !reader.is_empty() => shorten(reader.rest()),
                (_, Err(_)) => break,
            };
            if fields.len() + value.len() <= MAX_ERROR {
                append(&mut fields, kind, value);
                has.push(kind);
            }
        }
        for (kind, value) in [
            (b'S', &b"FATAL"[..]),
            (b'C', &code.unwrap_or(SqlState::CONNECTION_FAILURE).0),
            (b'M', shorten(message.as_bytes())),
        ] {
            if !has.contains(&kind) {
                append(&mut fields, kind, value);
            }
        }
        fields.push(0);
        Self { fields: fields.into(), code }
    }

    /// The server's SQLSTATE, when it sent one.
    #[must_use]
    pub const fn code(&self) -> Option<SqlState> {
        self.code
    }

    /// Severity, SQLSTATE (08006 where the server sent none) and message.
    #[must_use]
    pub fn fields(&self) -> ErrorFields<'_> {
        ErrorFields::parse(&self.fields)
    }

    /// The body of an ErrorResponse, ready to be relayed; see [`ServerError::emit`].
    #[must_use]
    pub const fn body(&self) -> &[u8] {
        &self.fields
    }

    /// Appends it as a whole ErrorResponse, with every field that the server sent.
    pub fn emit(&self, out: &mut Vec<u8>) {
        // A few KiB, see MAX_ERROR.
        let len = u32::try_from(self.fields.len() + HEADER_LEN - 1).unwrap_or(u32::MAX);
        out.push(tag::ERROR_RESPONSE);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&self.fields);
    }

    /// SQLSTATE and message on one line, for logs.
    #[must_use]
    pub fn one_line(&self) -> String {
        one_line(&self.refusal())
    }

    /// The same as a refusal: its code, its message and its hint.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let code = self.code.unwrap_or(SqlState::CONNECTION_FAILURE);
        let refusal = Refusal::new(code, String::from_utf8_lossy(self.fields().message));
        let mut reader = Reader::new(&self.fields);
        while let Ok(kind @ 1..) = reader.u8() {
            let Ok(value) = reader.cstr() else { break };
            if kind == b'H' {
                return refusal.hint(String::from_utf8_lossy(value));
            }
        }
        refusal
    }
}

fn append(fields: &mut Vec<u8>, kind: u8, value: &[u8]) {
    fields.push(kind);
    fields.extend_from_slice(value);
    fields.push(0);
}

/// Cuts a field to its limit, not through the middle of a UTF-8 character.
fn shorten(value: &[u8]) -> &[u8] {
    if value.len() <= MAX_FIELD {
        return value;
    }
    let mut end = MAX_FIELD;
    while end > MAX_FIELD - 4 && value[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &value[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_error_is_relayed_with_its_fields() {
        let body = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"svc\"\0Hask\0Fauth.c\0\0";
        let error = ServerError::new(body, Some(b"s3cret"));
        assert_eq!(error.code(), Some(SqlState::INVALID_PASSWORD));
        let refusal = error.refusal();
        assert_eq!(refusal.code, SqlState::INVALID_PASSWORD);
        assert_eq!(refusal.message, "password authentication failed for user \"svc\"");
        assert_eq!(refusal.hint.as_deref(), Some("ask"));
        let mut out = Vec::new();
        error.emit(&mut out);
        assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize, out.len() - 1);
        for field in [&b"SFATAL\0"[..], b"VFATAL\0", b"C28P01\0", b"Hask\0", b"Fauth.c\0"] {
            assert!(memchr::memmem::find(&out, field).is_some());
        }
        assert!(out.ends_with(b"\0\0"));
    }

    #[test]
    fn an_error_that_is_cut_off_anywhere_becomes_a_whole_one() {
        let body = b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0";
        for end in 0..=body.len() {
            let error = ServerError::new(&body[..end], None);
            assert_eq!(error.code().is_some(), end >= 21, "cut at {end}");
            let fields = error.fields();
            assert!(fields.code.is_some() && fields.is_fatal() && !fields.message.is_empty(), "cut at {end}");
            assert!(error.body().ends_with(b"\0\0"));
        }
        let cut = ServerError::new(&body[..36], None);
        assert_eq!(cut.refusal(), Refusal::new(SqlState::TOO_MANY_CONNECTIONS, "sorry, too man"));
        let nameless = ServerError::new(b"SFATAL\0Mno code\0\0", None);
        assert_eq!(nameless.refusal(), Refusal::new(SqlState::CONNECTION_FAILURE, "no code"));
    }

    #[test]
    fn a_password_that_comes_back_is_withheld() {
        let error = ServerError::new(b"SFATAL\0C28P01\0Mbad: hunter2!\0\0", Some(b"hunter2"));
        assert_eq!(error.code(), Some(SqlState::INVALID_PASSWORD));
        assert!(memchr::memmem::find(error.body(), b"hunter2").is_none());
        assert!(!LoginFailure::Server(error).to_string().contains("hunter2"));
    }

    #[test]
    fn errors_are_bounded() {
        let huge = [&b"SFATAL\0C28000\0M"[..], "ä".repeat(20_000).as_bytes(), b"\0\0"].concat();
        let error = ServerError::new(&huge, None);
        assert!(error.body().len() < MAX_ERROR + 100);
        assert_eq!(error.refusal().message, "ä".repeat(MAX_FIELD / 2));
        let many = b"DX\0".repeat(20_000);
        let many = ServerError::new(&many, None);
        assert!(many.body().len() < MAX_ERROR + 100);
        assert_eq!(many.refusal().message, "the server gave no reason");
    }

    #[test]
    fn a_log_line_stays_one_line() {
        let error = ServerError::new(b"C28000\0Mone\ntwo\x1b[31m\0\0", None);
        assert_eq!(LoginFailure::Server(error).to_string(), "28000 one two [31m");
        assert_eq!(ServerError::old_style(b"could not fork\n\0rest").refusal().message, "could not fork");
    }

    #[test]
    fn connect_problems_have_their_own_codes() {
        let code = |failure: LoginFailure| failure.refusal().code;
        assert_eq!(code(LoginFailure::TimedOut), SqlState::CONNECTION_FAILURE);
        assert_eq!(code(LoginFailure::Lost(Lost::Closed)), SqlState::CONNECTION_FAILURE);
        assert_eq!(code(LoginFailure::Protocol(Violation::BadLength)), SqlState::CONNECTION_FAILURE);
        assert_eq!(code(LoginFailure::TlsRefused), SqlState::CANNOT_CONNECT);
        assert_eq!(code(LoginFailure::UnsupportedAuth(7)), SqlState::CANNOT_CONNECT);
        assert_eq!(code(LoginFailure::Scram(ScramFault::ServerSignature)), SqlState::CONNECTION_FAILURE);
        assert_eq!(code(LoginFailure::Scram(ScramFault::Refused("x".into()))), SqlState::INVALID_PASSWORD);
    }
}

//! SQLSTATEs, and the one table that says which fault is told to a client with which of them.
//!
//! Four families stay apart: bad syntax and protocol violations ([`Violation`]), policy refusals ([`Refusal`]),
//! the server's own errors (relayed as they came, see [`crate::codec::backend::ErrorFields`]) and lost transports
//! ([`Lost`]).

use std::fmt;

/// Five ASCII characters that name a class and kind of error (PostgreSQL manual, appendix A).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

macro_rules! sqlstates {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl SqlState { $($(#[$doc])* pub const $name: Self = Self(*$code);)* }
    };
}

sqlstates! {
    /// successful_completion
    SUCCESS = b"00000";
    /// connection_exception
    CONNECTION_EXCEPTION = b"08000";
    /// sqlclient_unable_to_establish_sqlconnection
    CANNOT_CONNECT = b"08001";
    /// connection_failure
    CONNECTION_FAILURE = b"08006";
    /// protocol_violation
    PROTOCOL_VIOLATION = b"08P01";
    /// feature_not_supported
    FEATURE_NOT_SUPPORTED = b"0A000";
    /// in_failed_sql_transaction
    IN_FAILED_TRANSACTION = b"25P02";
    /// invalid_sql_statement_name
    INVALID_STATEMENT_NAME = b"26000";
    /// invalid_parameter_value
    INVALID_PARAMETER_VALUE = b"22023";
    /// invalid_authorization_specification
    INVALID_AUTHORIZATION = b"28000";
    /// invalid_password
    INVALID_PASSWORD = b"28P01";
    /// invalid_cursor_name
    INVALID_CURSOR_NAME = b"34000";
    /// idle_in_transaction_session_timeout
    IDLE_IN_TRANSACTION_TIMEOUT = b"25P03";
    /// transaction_timeout
    TRANSACTION_TIMEOUT = b"25P04";
    /// invalid_catalog_name
    INVALID_CATALOG_NAME = b"3D000";
    /// insufficient_privilege
    INSUFFICIENT_PRIVILEGE = b"42501";
    /// syntax_error
    SYNTAX_ERROR = b"42601";
    /// duplicate_prepared_statement
    DUPLICATE_STATEMENT = b"42P05";
    /// too_many_connections
    TOO_MANY_CONNECTIONS = b"53300";
    /// configuration_limit_exceeded
    LIMIT_EXCEEDED = b"53400";
    /// query_canceled
    QUERY_CANCELED = b"57014";
    /// object_not_in_prerequisite_state
    NOT_IN_PREREQUISITE_STATE = b"55000";
    /// admin_shutdown
    ADMIN_SHUTDOWN = b"57P01";
    /// cannot_connect_now
    CANNOT_CONNECT_NOW = b"57P03";
    /// idle_session_timeout
    IDLE_SESSION_TIMEOUT = b"57P05";
    /// io_error
    IO_ERROR = b"58030";
    /// config_file_error
    CONFIG_FILE_ERROR = b"F0000";
    /// internal_error
    INTERNAL_ERROR = b"XX000";
}

impl SqlState {
    /// Reads the five characters of a `C` field; `None` when the text is not five ASCII letters or digits.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let code: [u8; 5] = text.try_into().ok()?;
        code.iter().all(u8::is_ascii_alphanumeric).then_some(Self(code))
    }

    /// The five characters as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as a client is told about it: SQLSTATE, one line, and where it helps a hint.
///
/// The message never holds a secret; it says what happened, what was expected, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// What a driver decides on.
    pub code: SqlState,
    /// What a person reads first.
    pub message: String,
    /// What a person may do about it.
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal without a hint.
    #[must_use]
    pub fn new(code: SqlState, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

/// What a peer did that the protocol does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// A length field below its own size or above the limit for its place.
    BadLength,
    /// A message type that does not exist, or not in this direction or phase.
    UnexpectedMessage(u8),
    /// A message body that does not parse.
    Malformed,
    /// Bytes behind an SSLRequest, sent before TLS began.
    PlaintextBehindTlsRequest,
    /// The same negotiation packet twice.
    RepeatedRequest,
    /// A major protocol version other than 3.
    UnsupportedProtocol,
    /// Answers and questions do not fit together any more.
    OutOfStep,
    /// A name of a statement or portal that the audit trail could not follow.
    NameTooLong,
    /// More different parameters than are kept of a server.
    TooManyParameters,
    /// The server refused, or answered wrongly, what gives a connection the parameters of the session that goes on there.
    ParametersRefused,
    /// Direct TLS without the ALPN protocol `postgresql`.
    WrongAlpn,
}

impl Violation {
    /// The words for it.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::BadLength => "a message has an invalid length".into(),
            Self::UnexpectedMessage(tag) if tag.is_ascii_graphic() => {
                format!("unexpected message of type '{}'", char::from(tag))
            }
            Self::UnexpectedMessage(tag) => format!("unexpected message of type 0x{tag:02x}"),
            Self::Malformed => "a message could not be parsed".into(),
            Self::PlaintextBehindTlsRequest => "received unencrypted data after an SSLRequest".into(),
            Self::RepeatedRequest => "an encryption request was repeated".into(),
            Self::UnsupportedProtocol => "unsupported frontend protocol: gprxy speaks 3.0 and 3.2".into(),
            Self::OutOfStep => {
                "answers and questions are out of step, as after a Sync in the middle of COPY data".into()
            }
            Self::NameTooLong => "a statement or portal name is longer than 2,000 bytes".into(),
            Self::TooManyParameters => "the server reported too many parameters".into(),
            Self::ParametersRefused => "it did not take over the session's parameters".into(),
            Self::WrongAlpn => "direct TLS needs the ALPN protocol \"postgresql\"".into(),
        }
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        let code = match violation {
            Violation::UnsupportedProtocol => SqlState::FEATURE_NOT_SUPPORTED,
            _ => SqlState::PROTOCOL_VIOLATION,
        };
        Self::new(code, violation.describe())
    }
}

/// How a transport ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The peer closed its side in order.
    Closed,
    /// The transport failed (reset, timeout, TLS error).
    Broken,
}

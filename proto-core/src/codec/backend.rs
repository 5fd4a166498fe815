//! Messages of a server: readers for those that the proxy must see, emitters for those that it sends itself.

use std::ops::Range;

use super::{Malformed, Reader, cstr, message};
use crate::fault::{Refusal, SqlState};

/// Message types that a server may send.
pub mod tag {
    #![allow(missing_docs)]
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// The transaction status in a ReadyForQuery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionStatus {
    /// `I`: not in a transaction.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// Reads the only byte of a ReadyForQuery body.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    const fn to_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// What a server asks for in an Authentication message.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Authentication<'a> {
    /// Nothing more.
    Ok,
    /// The password in clear.
    CleartextPassword,
    /// The password under MD5 with this salt.
    Md5Password {
        /// Four random bytes.
        salt: [u8; 4],
    },
    /// One of these SASL mechanisms.
    Sasl {
        /// Zero-terminated names, ended by an empty one.
        mechanisms: &'a [u8],
    },
    /// The next SASL challenge.
    SaslContinue(&'a [u8]),
    /// The last SASL data.
    SaslFinal(&'a [u8]),
    /// A method that this proxy does not speak (Kerberos, GSSAPI, SSPI, ...), by its number.
    Unsupported(i32),
}

impl<'a> Authentication<'a> {
    /// Reads an Authentication body.
    ///
    /// # Errors
    /// [`Malformed`] when it is shorter than its kind.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        Ok(match reader.i32()? {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password { salt: reader.take(4)?.try_into().map_err(|_| Malformed)? },
            10 => Self::Sasl { mechanisms: reader.rest() },
            11 => Self::SaslContinue(reader.rest()),
            12 => Self::SaslFinal(reader.rest()),
            other => Self::Unsupported(other),
        })
    }
}

/// Name and value of a ParameterStatus body.
///
/// # Errors
/// [`Malformed`] without the terminators.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let pair = (reader.cstr()?, reader.cstr()?);
    reader.finish().map(|()| pair)
}

/// Process id and key of a BackendKeyData body.
///
/// # Errors
/// [`Malformed`] without a key, or with one above the 256 bytes of protocol 3.2.
pub fn backend_key_data(body: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let pid = reader.i32()?.cast_unsigned();
    let key = reader.rest();
    if key.is_empty() || key.len() > super::startup::MAX_CANCEL_KEY { Err(Malformed) } else { Ok((pid, key)) }
}

/// The rows in a command tag: the last word, when it is a number (`INSERT 0 5`, `SELECT 5`, `COPY 5`).
#[must_use]
pub fn rows_of(command_tag: &[u8]) -> Option<u64> {
    let word = command_tag.rsplit(|&b| b == b' ').next()?;
    if word.len() == command_tag.len() {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// The fields of an ErrorResponse or NoticeResponse that the proxy looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ErrorFields<'a> {
    /// `V`, or `S` from servers before 9.6: `ERROR`, `FATAL`, `PANIC`, `WARNING`, ...
    pub severity: &'a [u8],
    /// `C`; `None` when the server sent none, or not five letters and digits.
    pub code: Option<SqlState>,
    /// `M`.
    pub message: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// Reads what is there of a body; a body that is cut off, or lacks fields, gives what could be read.
    #[must_use]
    pub fn parse(body: &'a [u8]) -> Self {
        let mut reader = Reader::new(body);
        let mut fields = Self::default();
        while let Ok(kind) = reader.u8() {
            if kind == 0 {
                break;
            }
            let Ok(value) = reader.cstr() else { break };
            match kind {
                b'V' => fields.severity = value,
                b'S' if fields.severity.is_empty() => fields.severity = value,
                b'C' => fields.code = SqlState::parse(value),
                b'M' => fields.message = value,
                _ => {}
            }
        }
        fields
    }

    /// Whether the server ends the connection with this.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }
}

/// How bad an own error is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Severity {
    /// The statement failed, the session goes on.
    Error,
    /// The session ends.
    Fatal,
    /// For the person's information (NoticeResponse).
    Notice,
}

impl Severity {
    const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Error => b"ERROR",
            Self::Fatal => b"FATAL",
            Self::Notice => b"NOTICE",
        }
    }
}

/// Appends a CommandComplete.
pub fn emit_command_complete(out: &mut Vec<u8>, command: &[u8]) {
    message(out, tag::COMMAND_COMPLETE, |out| cstr(out, command));
}

/// A column in a RowDescription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a str,
    /// The oid of its type.
    pub oid: u32,
    /// The size of its type.
    pub size: i16,
    /// Whether its values come in binary.
    pub binary: bool,
}

/// Appends a RowDescription of columns that belong to no table.
pub fn emit_row_description<'a>(out: &mut Vec<u8>, fields: impl ExactSizeIterator<Item = Field<'a>>) {
    message(out, tag::ROW_DESCRIPTION, |out| {
        out.extend_from_slice(&u16::try_from(fields.len()).unwrap_or(u16::MAX).to_be_bytes());
        for field in fields {
            cstr(out, field.name.as_bytes());
            // No table and no place in one.
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&field.oid.to_be_bytes());
            out.extend_from_slice(&field.size.to_be_bytes());
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            out.extend_from_slice(&u16::from(field.binary).to_be_bytes());
        }
    });
}

/// Appends a DataRow; `None` is NULL.
pub fn emit_data_row<V: AsRef<[u8]>>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = Option<V>>) {
    message(out, tag::DATA_ROW, |out| {
        out.extend_from_slice(&u16::try_from(values.len()).unwrap_or(u16::MAX).to_be_bytes());
        for value in values {
            match value {
                None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(value) => {
                    let value = value.as_ref();
                    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
                    out.extend_from_slice(value);
                }
            }
        }
    });
}

/// Appends a ParameterDescription of no parameters.
pub fn emit_no_parameters(out: &mut Vec<u8>) {
    message(out, tag::PARAMETER_DESCRIPTION, |out| out.extend_from_slice(&[0; 2]));
}

/// Appends a message that says all by its tag: ParseComplete, BindComplete, CloseComplete, NoData, PortalSuspended,
/// EmptyQueryResponse.
pub fn emit_bare(out: &mut Vec<u8>, tag: u8) {
    message(out, tag, |_| {});
}

/// Appends an ErrorResponse, or a NoticeResponse for [`Severity::Notice`].
pub fn emit_error(out: &mut Vec<u8>, severity: Severity, refusal: &Refusal) {
    let kind = if severity == Severity::Notice { tag::NOTICE_RESPONSE } else { tag::ERROR_RESPONSE };
    message(out, kind, |out| {
        let mut field = |kind: u8, value: &[u8]| {
            out.push(kind);
            cstr(out, value);
        };
        field(b'S', severity.as_bytes());
        field(b'V', severity.as_bytes());
        field(b'C', &refusal.code.0);
        field(b'M', refusal.message.as_bytes());
        if let Some(hint) = &refusal.hint {
            field(b'H', hint.as_bytes());
        }
        out.push(0);
    });
}

/// Appends AuthenticationOk.
pub fn emit_authentication_ok(out: &mut Vec<u8>) {
    message(out, tag::AUTHENTICATION, |out| out.extend_from_slice(&0u32.to_be_bytes()));
}

/// Appends AuthenticationCleartextPassword.
pub fn emit_cleartext_password(out: &mut Vec<u8>) {
    message(out, tag::AUTHENTICATION, |out| out.extend_from_slice(&3u32.to_be_bytes()));
}

/// Appends AuthenticationMD5Password.
pub fn emit_md5_password(out: &mut Vec<u8>, salt: [u8; 4]) {
    message(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&5u32.to_be_bytes());
        out.extend_from_slice(&salt);
    });
}

/// Appends AuthenticationSASL with these mechanisms.
pub fn emit_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    message(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&10u32.to_be_bytes());
        for mechanism in mechanisms {
            cstr(out, mechanism.as_bytes());
        }
        out.push(0);
    });
}

/// Appends AuthenticationSASLContinue.
pub fn emit_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    message(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&11u32.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Appends AuthenticationSASLFinal.
pub fn emit_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    message(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&12u32.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Appends BackendKeyData.
pub fn emit_backend_key_data(out: &mut Vec<u8>, pid: u32, key: &[u8]) {
    message(out, tag::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// Appends a ParameterStatus.
pub fn emit_parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    message(out, tag::PARAMETER_STATUS, |out| {
        cstr(out, name);
        cstr(out, value);
    });
}

/// Appends ReadyForQuery.
pub fn emit_ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    message(out, tag::READY_FOR_QUERY, |out| out.push(status.to_byte()));
}

/// Appends NegotiateProtocolVersion with the newest minor version and the options that are not known.
pub fn emit_negotiate_protocol_version(out: &mut Vec<u8>, newest: u32, unknown: &[&[u8]]) {
    message(out, tag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.extend_from_slice(&newest.to_be_bytes());
        // A startup packet of 10,000 bytes cannot hold more options than fit an Int32.
        out.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(u32::MAX).to_be_bytes());
        for option in unknown {
            cstr(out, option);
        }
    });
}

/// Cuts whole messages out of `bytes`: tag and the range of the body, until one is incomplete.
///
/// For tests and small peers; the relay itself never needs a whole message.
///
/// # Errors
/// [`crate::fault::Violation::BadLength`] from a bad header.
pub fn split(bytes: &[u8]) -> Result<Vec<(u8, Range<usize>)>, crate::fault::Violation> {
    let mut messages = Vec::new();
    let mut at = 0;
    while let Some(header) = super::Header::parse(&bytes[at..])? {
        let body = at + super::HEADER_LEN;
        let end = body + header.body as usize;
        if end > bytes.len() {
            break;
        }
        messages.push((header.tag, body..end));
        at = end;
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_code_of_an_error_even_when_cut_off() {
        let body = b"SFEHLER\0VERROR\0C42601\0Msyntax error at or near";
        let fields = ErrorFields::parse(body);
        assert_eq!(fields.severity, b"ERROR");
        assert_eq!(fields.code, Some(SqlState(*b"42601")));
        assert_eq!(ErrorFields::parse(b"SERROR\0").code, None);
        assert_eq!(ErrorFields::parse(b"SERROR\0C4260\0\0").code, None);
    }

    #[test]
    fn counts_rows_only_where_a_tag_has_them() {
        assert_eq!(rows_of(b"INSERT 0 5"), Some(5));
        assert_eq!(rows_of(b"SELECT 100000"), Some(100_000));
        assert_eq!(rows_of(b"CREATE TABLE"), None);
        assert_eq!(rows_of(b"BEGIN"), None);
        assert_eq!(rows_of(b""), None);
    }

    #[test]
    fn own_errors_parse_as_errors_and_cannot_smuggle_fields() {
        let mut out = Vec::new();
        let refusal = Refusal::new(SqlState::INVALID_PASSWORD, "no\0C00000").hint("log in again");
        emit_error(&mut out, Severity::Fatal, &refusal);
        let fields = ErrorFields::parse(&out[5..]);
        assert!(fields.is_fatal());
        assert_eq!(fields.code, Some(SqlState::INVALID_PASSWORD));
        assert_eq!(fields.message, b"no");
    }

    #[test]
    fn splits_whole_messages_only() {
        let mut out = Vec::new();
        emit_authentication_ok(&mut out);
        emit_ready_for_query(&mut out, TransactionStatus::Idle);
        assert_eq!(split(&out), Ok(vec![(b'R', 5..9), (b'Z', 14..15)]));
        assert_eq!(split(&out[..14]), Ok(vec![(b'R', 5..9)]));
    }
}

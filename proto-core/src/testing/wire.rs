//! Messages of both peers: made, cut apart, and shown to people.

use crate::codec::backend::ErrorFields;
use crate::codec::{HEADER_LEN, Header, startup};

/// Any message: its type and its body, which need not make sense.
#[must_use]
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    // Tests do not build messages of 4 GiB.
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// Byte strings, each with its zero behind it.
fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.iter().copied().chain([0])).collect()
}

/// What clients send.
pub mod front {
    use super::{message, startup, strings};
    use crate::codec::frontend;

    /// A startup packet of any version.
    #[must_use]
    pub fn startup(version: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        startup::emit(&mut out, version, pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        out
    }

    /// A packet of the opening, by its code.
    fn opening(code: u32) -> Vec<u8> {
        [8u32.to_be_bytes(), code.to_be_bytes()].concat()
    }

    /// SSLRequest.
    #[must_use]
    pub fn ssl_request() -> Vec<u8> {
        opening(startup::SSL_REQUEST)
    }

    /// GSSENCRequest.
    #[must_use]
    pub fn gssenc_request() -> Vec<u8> {
        opening(startup::GSSENC_REQUEST)
    }

    /// CancelRequest.
    #[must_use]
    pub fn cancel_request(pid: u32, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        startup::emit_cancel_request(&mut out, pid, key);
        out
    }

    /// PasswordMessage.
    #[must_use]
    pub fn password(secret: &[u8]) -> Vec<u8> {
        message(b'p', &strings(&[secret]))
    }

    /// Query.
    #[must_use]
    pub fn query(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        frontend::emit_query(&mut out, text.as_bytes());
        out
    }

    /// Parse, without parameter types.
    #[must_use]
    pub fn parse(name: &str, text: &str) -> Vec<u8> {
        message(b'P', &[&strings(&[name.as_bytes(), text.as_bytes()])[..], &[0, 0]].concat())
    }

    /// Bind, without parameters.
    #[must_use]
    pub fn bind(portal: &str, statement: &str) -> Vec<u8> {
        message(b'B', &[&strings(&[portal.as_bytes(), statement.as_bytes()])[..], &[0; 6]].concat())
    }

    /// Describe of a statement (`S`) or portal (`P`).
    #[must_use]
    pub fn describe(kind: u8, name: &str) -> Vec<u8> {
        message(b'D', &[&[kind][..], &strings(&[name.as_bytes()])].concat())
    }

    /// Execute; 0 rows means all.
    #[must_use]
    pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
        message(b'E', &[&strings(&[portal.as_bytes()])[..], &rows.to_be_bytes()].concat())
    }

    /// Close of a statement (`S`) or portal (`P`).
    #[must_use]
    pub fn close(kind: u8, name: &str) -> Vec<u8> {
        message(b'C', &[&[kind][..], &strings(&[name.as_bytes()])].concat())
    }

    /// Sync.
    #[must_use]
    pub fn sync() -> Vec<u8> {
        message(b'S', b"")
    }

    /// Flush.
    #[must_use]
    pub fn flush() -> Vec<u8> {
        message(b'H', b"")
    }

    /// FunctionCall without arguments.
    #[must_use]
    pub fn function_call(oid: u32) -> Vec<u8> {
        message(b'F', &[&oid.to_be_bytes()[..], &[0; 6]].concat())
    }

    /// CopyData.
    #[must_use]
    pub fn copy_data(bytes: &[u8]) -> Vec<u8> {
        message(b'd', bytes)
    }

    /// CopyDone.
    #[must_use]
    pub fn copy_done() -> Vec<u8> {
        message(b'c', b"")
    }

    /// CopyFail.
    #[must_use]
    pub fn copy_fail(reason: &str) -> Vec<u8> {
        message(b'f', &strings(&[reason.as_bytes()]))
    }

    /// Terminate.
    #[must_use]
    pub fn terminate() -> Vec<u8> {
        message(b'X', b"")
    }
}

/// What servers send.
pub mod back {
    use super::{message, strings};

    /// An Authentication message of this kind.
    #[must_use]
    pub fn authentication(kind: u32, data: &[u8]) -> Vec<u8> {
        message(b'R', &[&kind.to_be_bytes()[..], data].concat())
    }

    /// BackendKeyData.
    #[must_use]
    pub fn key_data(pid: u32, key: &[u8]) -> Vec<u8> {
        message(b'K', &[&pid.to_be_bytes()[..], key].concat())
    }

    /// ParameterStatus.
    #[must_use]
    pub fn parameter(name: &str, value: &str) -> Vec<u8> {
        message(b'S', &strings(&[name.as_bytes(), value.as_bytes()]))
    }

    /// ReadyForQuery with `I`, `T` or `E`.
    #[must_use]
    pub fn ready(status: u8) -> Vec<u8> {
        message(b'Z', &[status])
    }

    /// RowDescription with one text column.
    #[must_use]
    pub fn row_description() -> Vec<u8> {
        row_description_of(1)
    }

    /// RowDescription with so many text columns.
    #[must_use]
    pub fn row_description_of(columns: u16) -> Vec<u8> {
        // Table and attribute none, type text (25) of variable size, no modifier, text format.
        let column = [&b"c\0"[..], &[0; 6], &25u32.to_be_bytes(), &[0xff; 6], &[0; 2]].concat();
        message(b'T', &[&columns.to_be_bytes()[..], &column.repeat(usize::from(columns))].concat())
    }

    /// DataRow with one column.
    #[must_use]
    pub fn row(value: &[u8]) -> Vec<u8> {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes();
        message(b'D', &[&1u16.to_be_bytes()[..], &length, value].concat())
    }

    /// DataRow with several columns.
    #[must_use]
    pub fn columns(values: &[Vec<u8>]) -> Vec<u8> {
        let mut body = u16::try_from(values.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        for value in values {
            body.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
            body.extend(value);
        }
        message(b'D', &body)
    }

    /// CommandComplete.
    #[must_use]
    pub fn complete(tag: &str) -> Vec<u8> {
        message(b'C', &strings(&[tag.as_bytes()]))
    }

    fn fields(severity: &str, code: &str, text: &str) -> Vec<u8> {
        let field = |kind: u8, value: &str| [&[kind][..], value.as_bytes(), &[0]].concat();
        [field(b'S', severity), field(b'V', severity), field(b'C', code), field(b'M', text), vec![0]].concat()
    }

    /// ErrorResponse.
    #[must_use]
    pub fn error(severity: &str, code: &str, text: &str) -> Vec<u8> {
        message(b'E', &fields(severity, code, text))
    }

    /// NoticeResponse.
    #[must_use]
    pub fn notice(text: &str) -> Vec<u8> {
        message(b'N', &fields("NOTICE", "00000", text))
    }

    /// NotificationResponse.
    #[must_use]
    pub fn notification(pid: u32, channel: &str, payload: &str) -> Vec<u8> {
        message(b'A', &[&pid.to_be_bytes()[..], &strings(&[channel.as_bytes(), payload.as_bytes()])].concat())
    }

    /// CopyInResponse (`G`) or CopyOutResponse (`H`), text, one column.
    #[must_use]
    pub fn copy_response(tag: u8) -> Vec<u8> {
        message(tag, &[0, 0, 1, 0, 0])
    }

    /// FunctionCallResponse with a null.
    #[must_use]
    pub fn function_result() -> Vec<u8> {
        message(b'V', &[0xff; 4])
    }

    /// A message without a body: `1`, `2`, `3`, `n`, `s`, `I`, `c`.
    #[must_use]
    pub fn bare(tag: u8) -> Vec<u8> {
        message(tag, b"")
    }
}

/// A whole message behind the startup.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub tag: u8,
    /// Its body.
    pub body: Vec<u8>,
}

impl Message {
    /// The message as bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        message(self.tag, &self.body)
    }

    /// SQLSTATE of an ErrorResponse or NoticeResponse; empty for everything else.
    #[must_use]
    pub fn code(&self) -> String {
        let fields = matches!(self.tag, b'E' | b'N').then(|| ErrorFields::parse(&self.body));
        fields.and_then(|fields| fields.code).map(|code| code.as_str().to_owned()).unwrap_or_default()
    }

    /// Severity of an ErrorResponse or NoticeResponse.
    #[must_use]
    pub fn severity(&self) -> String {
        String::from_utf8_lossy(ErrorFields::parse(&self.body).severity).into_owned()
    }

    /// The only column of a DataRow; the data of a CopyData.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        match self.tag {
            b'D' => self.body.get(6..).unwrap_or_default(),
            _ => &self.body,
        }
    }

    /// What a person wants to read: `D(alice)`, `Z(I)`, `E(FATAL 57P01)`, `C(SELECT 1)`, `S(TimeZone)`.
    #[must_use]
    pub fn brief(&self) -> String {
        let tag = char::from(self.tag);
        let text = |bytes: &[u8]| bytes.split(|&byte| byte == 0).next().unwrap_or_default().escape_ascii().to_string();
        match self.tag {
            b'E' | b'N' if self.body.len() > 4 => format!("{tag}({} {})", self.severity(), self.code()),
            b'D' | b'd' => format!("{tag}({})", self.value().escape_ascii()),
            b'Z' | b'C' | b'S' | b'Q' if !self.body.is_empty() => format!("{tag}({})", text(&self.body)),
            b'R' => format!("R({})", self.body.get(3).copied().unwrap_or_default()),
            _ => tag.to_string(),
        }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.brief())
    }
}

/// Puts a stream together and cuts it into messages.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    bytes: Vec<u8>,
    /// How much of it is cut off already: moving the rest for each message would make long streams slow.
    at: usize,
}

impl Tape {
    /// Nothing has come yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), at: 0 }
    }

    /// More has come.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Exactly so many bytes of the front, for packets without a type.
    pub fn cut(&mut self, n: usize) -> Option<Vec<u8>> {
        let front = self.rest().get(..n)?.to_vec();
        self.at += n;
        Some(front)
    }

    /// What has not been cut yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

/// The whole messages. `None` is not the end: more may be pushed.
///
/// # Panics
/// When the length of one is not possible: whoever sent that is broken.
impl Iterator for Tape {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let rest = self.rest();
        let header = Header::parse(rest).unwrap_or_else(|_| panic!("bad header: {}", rest.escape_ascii()))?;
        let end = HEADER_LEN + header.body as usize;
        let body = rest.get(HEADER_LEN..end)?.to_vec();
        self.at += end;
        Some(Message { tag: header.tag, body })
    }
}

/// All messages of a stream that ends between two.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut tape = Tape::new();
    tape.push(bytes);
    let messages = tape.by_ref().collect();
    assert!(tape.rest().is_empty(), "half a message at the end: {}", tape.rest().escape_ascii());
    messages
}

/// A stream in words, such as `T D(a/0) C(SELECT 1) Z(I)`.
#[must_use]
pub fn brief(bytes: &[u8]) -> String {
    messages(bytes).iter().map(Message::brief).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_shown_in_words() {
        let bytes = [
            back::authentication(0, b""),
            back::row_description(),
            back::row(b"alice/0"),
            back::complete("SELECT 1"),
            back::error("ERROR", "42601", "no"),
            back::ready(b'T'),
        ]
        .concat();
        assert_eq!(brief(&bytes), "R(0) T D(alice/0) C(SELECT 1) E(ERROR 42601) Z(T)");
    }

    #[test]
    #[should_panic(expected = "half a message")]
    fn a_torn_stream_is_not_shown() {
        let _ = brief(&back::ready(b'I')[..5]);
    }
}

//! Messages of both peers: what is read of one can be written and read again, and nothing that is written can smuggle.

use super::cuts::Script;
use crate::audit::CommandTag;
use crate::codec::backend::{
    self, Authentication, ErrorFields, Severity, TransactionStatus, backend_key_data, emit_error, parameter_status,
    rows_of, split,
};
use crate::codec::frontend::{self, BindView, Target};
use crate::codec::{HEADER_LEN, Header};
use crate::fault::{Refusal, SqlState};
use crate::upstream::ServerError;

/// A stream of messages of either side. Each body, and the stream itself, is shown to every reader.
pub fn messages(data: &[u8]) {
    every_reader(data);
    every_writer(data);
    let Ok(messages) = split(data) else { return };
    let mut at = 0;
    for (tag, body) in messages {
        assert_eq!(Header::parse(&data[at..]), Ok(Some(Header { tag, body: body.len() as u32 })));
        assert_eq!(body.start, at + HEADER_LEN);
        at = body.end;
        every_reader(&data[body]);
    }
    assert!(Header::parse(&data[at..]).is_ok());
}

fn every_reader(body: &[u8]) {
    names(body);
    if let Ok(asked) = Authentication::parse(body) {
        assert_eq!(Authentication::parse(&authentication(&asked)), Ok(asked));
    }
    if let Ok((name, value)) = parameter_status(body) {
        let out = written(|out| backend::emit_parameter_status(out, name, value));
        assert_eq!((out[0], parameter_status(&out[HEADER_LEN..])), (b'S', Ok((name, value))));
    }
    if let Ok((pid, key)) = backend_key_data(body) {
        assert!((1..=256).contains(&key.len()));
        let out = written(|out| backend::emit_backend_key_data(out, pid, key));
        assert_eq!((out[0], backend_key_data(&out[HEADER_LEN..])), (b'K', Ok((pid, key))));
    }
    if let Some(status) = body.first().copied().and_then(TransactionStatus::from_byte) {
        assert_eq!(written(|out| backend::emit_ready_for_query(out, status))[HEADER_LEN..], body[..1]);
    }
    errors(body);
    if let Some(rows) = rows_of(body) {
        let last = body.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
        assert_eq!(rows_of(format!("X {rows}").as_bytes()), Some(rows));
        assert!(last.len() < body.len() && !last.is_empty());
    }
    assert!(body.starts_with(CommandTag::new(body).bytes()));
}

/// Bind, Describe, Close.
fn names(body: &[u8]) {
    if let Ok(view) = BindView::parse(body) {
        let again = [view.portal, b"\0", view.statement, b"\0"].concat();
        assert!(body.starts_with(&again));
        assert_eq!(BindView::parse(&again), Ok(view));
    }
    if let Ok((target, name)) = frontend::target(body) {
        let kind = if target == Target::Statement { b"S" } else { b"P" };
        let again = [&kind[..], name, b"\0"].concat();
        assert!(body.starts_with(&again));
        assert_eq!(frontend::target(&again), Ok((target, name)));
    }
}

fn authentication(asked: &Authentication<'_>) -> Vec<u8> {
    let (kind, data): (i32, &[u8]) = match asked {
        Authentication::Ok => (0, b""),
        Authentication::CleartextPassword => (3, b""),
        Authentication::Md5Password { salt } => (5, salt),
        Authentication::Sasl { mechanisms } => (10, mechanisms),
        Authentication::SaslContinue(data) => (11, data),
        Authentication::SaslFinal(data) => (12, data),
        Authentication::Unsupported(kind) => (*kind, b""),
    };
    [&kind.to_be_bytes()[..], data].concat()
}

/// An error is read as far as it goes; what the proxy makes of it is whole, bounded, and one line in a log.
fn errors(body: &[u8]) {
    let fields = ErrorFields::parse(body);
    let error = ServerError::new(body, None);
    assert_eq!(error.code(), fields.code);
    let refusal = error.refusal();
    assert!(error.body().len() < 32 * 1024 && error.body().ends_with(b"\0"));
    assert!(!error.one_line().contains(char::is_control));
    let out = written(|out| error.emit(out));
    let again = ErrorFields::parse(&out[HEADER_LEN..]);
    assert_eq!(again.code, Some(fields.code.unwrap_or(SqlState::CONNECTION_FAILURE)));
    assert_eq!(refusal.code, fields.code.unwrap_or(SqlState::CONNECTION_FAILURE));

    let own = written(|out| emit_error(out, Severity::Fatal, &refusal));
    let own = ErrorFields::parse(&own[HEADER_LEN..]);
    assert!(own.is_fatal() && own.code == Some(refusal.code));
    assert_eq!(own.message, refusal.message.as_bytes());
}

/// Whatever is put into a message, it stays one message of its kind.
fn every_writer(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let text = script.string();
    let rest = script.rest();
    let words = String::from_utf8_lossy(text);
    let refusal = Refusal::new(SqlState::INTERNAL_ERROR, &*words).hint(String::from_utf8_lossy(rest));
    for (tag, out) in [
        (b'Q', written(|out| frontend::emit_query(out, text))),
        (b'p', written(|out| frontend::emit_password(out, text))),
        (b'p', written(|out| frontend::emit_sasl_initial(out, text, rest))),
        (b'p', written(|out| frontend::emit_sasl_response(out, text))),
        (b'S', written(|out| backend::emit_parameter_status(out, text, rest))),
        (b'v', written(|out| backend::emit_negotiate_protocol_version(out, 3 << 16, &[text, rest]))),
        (b'E', written(|out| emit_error(out, Severity::Error, &refusal))),
        (b'N', written(|out| emit_error(out, Severity::Notice, &refusal))),
    ] {
        assert_eq!(split(&out), Ok(vec![(tag, HEADER_LEN..out.len())]));
    }
    let query = written(|out| frontend::emit_query(out, text));
    assert_eq!(query[HEADER_LEN..].iter().position(|&byte| byte == 0), Some(query.len() - HEADER_LEN - 1));
}

fn written(emit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    emit(&mut out);
    assert_eq!(split(&out).map(|messages| messages.len()), Ok(1));
    out
}

//! Taking secrets out of statement text: linear, and nothing but masks in place of parts of the text.

use std::sync::Arc;

use memchr::memmem;

use super::cuts::Script;
use crate::audit::mask::{mask as masked, mask_message};
use crate::audit::{CommandTag, Event, Protocol, Record, SessionFacts, Sheet, Statement, StatementText};
use crate::session_id::SessionId;
use crate::time::UnixMicros;

const MASK: &[u8] = b"***";

/// A byte of settings, then a statement's text.
pub fn mask(data: &[u8]) {
    let mut script = Script::new(data);
    let setup = script.byte();
    let text = script.rest();
    for truncated in [false, true] {
        only_replaces(text, &masked(text, truncated));
    }
    if let Ok(prose) = std::str::from_utf8(text) {
        only_replaces(text, &mask_message(prose));
    }
    let limit = usize::from(setup) * 4;
    let kept = StatementText::new(text, text.len() as u64 + u64::from(setup & 1), limit);
    assert!(kept.bytes().len() <= limit && masked(text, setup & 1 != 0).starts_with(kept.bytes()));
    assert!(kept.shortened(limit / 2).bytes().len() <= limit / 2);
    one_line(kept, text);
}

/// What is left of the text around the masks stands in it, in this order.
fn only_replaces(text: &[u8], after: &[u8]) {
    assert!(after.len() <= 4 * text.len() + MASK.len());
    let mut rest = text;
    let mut tail = after;
    loop {
        let end = memmem::find(tail, MASK).unwrap_or(tail.len());
        let at = memmem::find(rest, &tail[..end]);
        let at = at.unwrap_or_else(|| panic!("{} became {}", text.escape_ascii(), after.escape_ascii()));
        rest = &rest[at + end..];
        match tail[end..].strip_prefix(MASK) {
            Some(next) => tail = next,
            None => break,
        }
    }
}

/// Its record is one line of JSON, whatever stands in it.
fn one_line(text: StatementText, bytes: &[u8]) {
    let facts = SessionFacts::new(SessionId(1), &Sheet { application: Some(bytes), ..Sheet::default() });
    let statement = Statement {
        id: 1,
        protocol: Protocol::Simple,
        text: Some(text),
        prepared: Some(bytes.into()),
        duration: std::time::Duration::ZERO,
        rows: None,
        command_tag: Some(CommandTag::new(bytes)),
        sqlstate: None,
        bytes_to_client: 0,
        bytes_to_server: 0,
    };
    let mut line = Vec::new();
    Record { time: UnixMicros(0), facts: Arc::new(facts), event: Event::Statement(statement) }.write_line(&mut line);
    let (end, line) = line.split_last().expect("it has a line end");
    assert_eq!(*end, b'\n');
    let line = std::str::from_utf8(line).expect("JSON is UTF-8");
    assert!(!line.contains(char::is_control) && !line.contains(['\u{2028}', '\u{2029}', '\u{202e}']));
    assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|value| value.is_object()));
}

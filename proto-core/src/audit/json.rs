//! JSON members, appended to a buffer.

use std::io::{self, Write as _};

use serde::Serialize as _;
use serde_json::ser::{Formatter, Serializer};

/// A compact JSON object under construction. Members stand in the order of the calls.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Opens the object.
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Goes on with members only, without braces.
    pub(super) const fn fragment(out: &'a mut Vec<u8>) -> Self {
        Self { out, first: true }
    }

    /// Closes it.
    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// The name of a member; its value is to be appended to the buffer that comes back. Names are plain ASCII.
    pub(super) fn member(&mut self, name: &'static str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Members that were made before, as a fragment.
    pub(super) fn members(&mut self, fragment: &[u8]) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(fragment);
    }

    pub(super) fn string(&mut self, name: &'static str, value: Option<&str>) {
        let out = self.member(name);
        match value {
            Some(value) => string(out, value),
            None => null(out),
        }
    }

    /// Text in an encoding that only its sender knows; what is no UTF-8 becomes U+FFFD.
    pub(super) fn text(&mut self, name: &'static str, value: Option<&[u8]>) {
        match value {
            Some(value) => self.string(name, Some(&String::from_utf8_lossy(value))),
            None => self.string(name, None),
        }
    }

    pub(super) fn number(&mut self, name: &'static str, value: Option<u64>) {
        let out = self.member(name);
        match value {
            // Writing to a `Vec` does not fail.
            Some(value) => drop(write!(out, "{value}")),
            None => null(out),
        }
    }

    pub(super) fn boolean(&mut self, name: &'static str, value: bool) {
        self.member(name).extend_from_slice(if value { b"true" } else { b"false" });
    }
}

pub(super) fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

/// Appends a JSON string.
pub(super) fn string(out: &mut Vec<u8>, value: &str) {
    let start = out.len();
    if value.serialize(&mut Serializer::with_formatter(&mut *out, Visible)).is_err() {
        // Cannot happen (a `Vec` takes every byte), and would still leave valid JSON.
        out.truncate(start);
        null(out);
    }
}

/// serde_json's compact output, in which nothing moves a line or a terminal.
///
/// JSON escapes the ASCII controls itself, so a newline in a statement cannot begin a forged line. Some readers also
/// break lines at U+0085, U+2028 and U+2029, terminals obey C1 controls such as U+009B, and the bidirectional controls
/// (Unicode UAX #9) show a text in another order than it runs in: they are escaped as well.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().all(|b| b < 0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(is_deceptive) {
            let (head, tail) = rest.split_at(at);
            writer.write_all(head.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

const fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

//! The wire format: how bytes become messages and messages bytes. No state, no policy.
//!
//! Source: PostgreSQL manual, chapter 54 "Frontend/Backend Protocol". All integers are big-endian.

pub mod backend;
pub mod frontend;
pub mod header;
mod reader;
pub mod startup;

pub use header::{HEADER_LEN, Header, MAX_MESSAGE_LEN};
pub use reader::{Malformed, Reader};

/// Appends a whole message: tag, length and whatever `body` writes.
fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    with_length(out, body);
}

/// Appends a length-prefixed packet without a tag, as used before the startup is over.
fn with_length(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    // Own messages are a few KiB; the largest carries a token of 64 KiB.
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends a zero-terminated string. A zero byte inside would end it early, so nothing behind one is written.
fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(&text[..end]);
    out.push(0);
}

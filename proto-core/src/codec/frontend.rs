//! Messages of a client: views for those that the relay looks into, emitters for those that the proxy sends itself.

use super::{Malformed, Reader, cstr, message};

/// Message types that a client may send after its startup.
pub mod tag {
    #![allow(missing_docs)]
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse share it.
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// Statement or portal, in Describe and Close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// A prepared statement (`S`).
    Statement,
    /// A portal (`P`).
    Portal,
}

/// The names in a Bind body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BindView<'a> {
    /// The portal that is made; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The prepared statement that it is made of.
    pub statement: &'a [u8],
}

impl<'a> BindView<'a> {
    /// Reads the two names; the parameters behind them are not looked at.
    ///
    /// # Errors
    /// [`Malformed`] without their terminators.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        Ok(Self { portal: reader.cstr()?, statement: reader.cstr()? })
    }
}

/// Reads the kind and name in a Describe or Close body.
///
/// # Errors
/// [`Malformed`] for another kind than `S` or `P`, or without the terminator.
pub fn target(body: &[u8]) -> Result<(Target, &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let target = match reader.u8()? {
        b'S' => Target::Statement,
        b'P' => Target::Portal,
        _ => return Err(Malformed),
    };
    Ok((target, reader.cstr()?))
}

/// Appends a simple Query.
pub fn emit_query(out: &mut Vec<u8>, text: &[u8]) {
    message(out, tag::QUERY, |out| cstr(out, text));
}

/// Appends a Parse; `definition` is what stands behind the name: text, zero byte, types of parameters.
pub fn emit_parse(out: &mut Vec<u8>, name: &[u8], definition: &[u8]) {
    message(out, tag::PARSE, |out| {
        cstr(out, name);
        out.extend_from_slice(definition);
    });
}

/// Appends a Close.
pub fn emit_close(out: &mut Vec<u8>, target: Target, name: &[u8]) {
    message(out, tag::CLOSE, |out| {
        out.push(match target {
            Target::Statement => b'S',
            Target::Portal => b'P',
        });
        cstr(out, name);
    });
}

/// Appends a Bind of the unnamed statement to the unnamed portal: parameters and results as text.
pub fn emit_bind(out: &mut Vec<u8>, parameters: &[&[u8]]) {
    message(out, tag::BIND, |out| {
        // Two empty names, and no format codes: text is what holds without any.
        out.extend_from_slice(&[0, 0, 0, 0]);
        out.extend_from_slice(&u16::try_from(parameters.len()).unwrap_or(u16::MAX).to_be_bytes());
        for parameter in parameters {
            out.extend_from_slice(&u32::try_from(parameter.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(parameter);
        }
        out.extend_from_slice(&[0, 0]);
    });
}

/// Appends a Describe of the unnamed portal.
pub fn emit_describe_portal(out: &mut Vec<u8>) {
    message(out, tag::DESCRIBE, |out| out.extend_from_slice(b"P\0"));
}

/// Appends an Execute of the unnamed portal for this many rows at most; 0: all.
pub fn emit_execute(out: &mut Vec<u8>, rows: u32) {
    message(out, tag::EXECUTE, |out| {
        out.push(0);
        out.extend_from_slice(&rows.to_be_bytes());
    });
}

/// Appends a Sync.
pub fn emit_sync(out: &mut Vec<u8>) {
    message(out, tag::SYNC, |_| {});
}

/// Appends a PasswordMessage.
pub fn emit_password(out: &mut Vec<u8>, password: &[u8]) {
    message(out, tag::PASSWORD, |out| cstr(out, password));
}

/// Appends a SASLInitialResponse.
pub fn emit_sasl_initial(out: &mut Vec<u8>, mechanism: &[u8], data: &[u8]) {
    message(out, tag::PASSWORD, |out| {
        cstr(out, mechanism);
        out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Appends a SASLResponse.
pub fn emit_sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    message(out, tag::PASSWORD, |out| out.extend_from_slice(data));
}

/// Appends a Terminate.
pub fn emit_terminate(out: &mut Vec<u8>) {
    message(out, tag::TERMINATE, |_| {});
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_read_names_and_stop() {
        assert_eq!(BindView::parse(b"p\0s\0\0\0"), Ok(BindView { portal: b"p", statement: b"s" }));
        assert_eq!(target(b"Sname\0"), Ok((Target::Statement, &b"name"[..])));
        assert_eq!(target(b"Xname\0"), Err(Malformed));
        assert_eq!(BindView::parse(b"p\0s"), Err(Malformed));
    }
}

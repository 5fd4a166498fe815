//! The packets before the first tagged message: startup, encryption requests, cancel.

use super::{Malformed, Reader, cstr, with_length};

/// PostgreSQL's own limit for a startup packet (`MAX_STARTUP_PACKET_LENGTH`), its length field included.
pub const MAX_STARTUP_PACKET: u32 = 10_000;
/// The code of an SSLRequest: 1234 in the high half, 5679 in the low one.
pub const SSL_REQUEST: u32 = 80_877_103;
/// The code of a GSSENCRequest.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// The code of a CancelRequest.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol 3.0.
pub const PROTOCOL_3_0: u32 = 3 << 16;
/// Protocol 3.2 (PostgreSQL 18): cancel keys of up to 256 bytes.
pub const PROTOCOL_3_2: u32 = (3 << 16) | 2;
/// The longest cancel key that protocol 3.2 allows.
pub const MAX_CANCEL_KEY: usize = 256;

/// The first packet of a connection, cut out of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StartupPacket<'a> {
    /// A wish for TLS.
    Ssl,
    /// A wish for GSSAPI encryption.
    GssEnc,
    /// A wish to cancel what another connection runs.
    Cancel {
        /// The process id told in BackendKeyData.
        pid: u32,
        /// The key told in BackendKeyData.
        key: &'a [u8],
    },
    /// A session.
    Startup {
        /// Major version in the high half, minor in the low one.
        version: u32,
        /// Name and value pairs, terminated by an empty name; see [`parameters`].
        body: &'a [u8],
    },
}

/// Reads a packet whose length field (of `packet.len()`) has been checked and removed.
///
/// # Errors
/// [`Malformed`] when it is shorter than its kind.
pub fn parse(packet: &[u8]) -> Result<StartupPacket<'_>, Malformed> {
    let mut reader = Reader::new(packet);
    let code = reader.i32()?.cast_unsigned();
    match code {
        SSL_REQUEST => reader.finish().map(|()| StartupPacket::Ssl),
        GSSENC_REQUEST => reader.finish().map(|()| StartupPacket::GssEnc),
        CANCEL_REQUEST => {
            // Nobody is told whether a cancel request was well formed: one that is not names nobody.
            let pid = reader.i32().unwrap_or_default().cast_unsigned();
            Ok(StartupPacket::Cancel { pid, key: reader.rest() })
        }
        version => Ok(StartupPacket::Startup { version, body: reader.rest() }),
    }
}

/// Name and value of a startup parameter.
pub type Parameter<'a> = (&'a [u8], &'a [u8]);

/// The name and value pairs of a startup packet.
///
/// # Errors
/// [`Malformed`] without the terminators, or with bytes behind the last one.
pub fn parameters(body: &[u8]) -> Result<Vec<Parameter<'_>>, Malformed> {
    let mut reader = Reader::new(body);
    let mut pairs = Vec::new();
    loop {
        let name = reader.cstr()?;
        if name.is_empty() {
            return reader.finish().map(|()| pairs);
        }
        pairs.push((name, reader.cstr()?));
    }
}

/// The pairs of an encoding without a terminator at its end.
pub fn encoded(pairs: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    let mut reader = Reader::new(pairs);
    std::iter::from_fn(move || Some((reader.cstr().ok()?, reader.cstr().ok()?)))
}

/// Whitespace as well, by C's `isspace`.
const VERTICAL_TAB: u8 = 0x0b;

/// The words of `options`, cut at spaces that no backslash stands before; the backslashes stay (PostgreSQL manual, section
/// 32.1.2, options).
#[must_use]
pub fn option_words(options: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    let (mut begin, mut escaped) = (0, false);
    for (at, &byte) in options.iter().enumerate() {
        if (byte.is_ascii_whitespace() || byte == VERTICAL_TAB) && !escaped {
            words.push(&options[begin..at]);
            begin = at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    words.push(&options[begin..]);
    words.retain(|word| !word.is_empty());
    words
}

/// The settings in `options`, each as `name=value` with its backslashes: `-c name=value` and `--name=value`. `None` when there
/// is anything else (PostgreSQL manual, section 32.1.2, options).
pub fn option_settings(options: &[u8]) -> Option<Vec<&[u8]>> {
    let mut settings = Vec::new();
    let mut words = option_words(options).into_iter();
    while let Some(word) = words.next() {
        settings.push(match word.strip_prefix(b"--") {
            Some(setting) => setting,
            None => match word.strip_prefix(b"-c")? {
                b"" => words.next()?,
                setting => setting,
            },
        });
    }
    Some(settings)
}

/// Appends a startup packet.
pub fn emit<'a>(out: &mut Vec<u8>, version: u32, pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    with_length(out, |out| {
        out.extend_from_slice(&version.to_be_bytes());
        for (name, value) in pairs {
            cstr(out, name);
            cstr(out, value);
        }
        out.push(0);
    });
}

/// Appends an SSLRequest.
pub fn emit_ssl_request(out: &mut Vec<u8>) {
    with_length(out, |out| out.extend_from_slice(&SSL_REQUEST.to_be_bytes()));
}

/// Appends a CancelRequest.
pub fn emit_cancel_request(out: &mut Vec<u8>, pid: u32, key: &[u8]) {
    with_length(out, |out| {
        out.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(key);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_startup_packet_survives_the_round_trip() {
        let mut out = Vec::new();
        emit(&mut out, PROTOCOL_3_0, [(&b"user"[..], &b"alice"[..]), (b"database", b"app")]);
        assert_eq!(out.len(), u32::from_be_bytes(out[..4].try_into().unwrap()) as usize);
        let Ok(StartupPacket::Startup { version, body }) = parse(&out[4..]) else { panic!("not a startup packet") };
        assert_eq!(version, PROTOCOL_3_0);
        assert_eq!(parameters(body), Ok(vec![(&b"user"[..], &b"alice"[..]), (b"database", b"app")]));
    }

    #[test]
    fn parameters_need_their_terminators() {
        assert_eq!(parameters(b"user\0alice\0"), Err(Malformed));
        assert_eq!(parameters(b"user\0alice"), Err(Malformed));
        assert_eq!(parameters(b"user\0alice\0\0x"), Err(Malformed));
        assert_eq!(parameters(b"\0"), Ok(vec![]));
    }

    #[test]
    fn a_cancel_request_is_taken_as_it_comes() {
        let mut out = Vec::new();
        emit_cancel_request(&mut out, 7, b"abcd");
        assert_eq!(parse(&out[4..]), Ok(StartupPacket::Cancel { pid: 7, key: b"abcd" }));
        assert_eq!(parse(&out[4..12]), Ok(StartupPacket::Cancel { pid: 7, key: b"" }));
        assert_eq!(parse(&out[4..10]), Ok(StartupPacket::Cancel { pid: 0, key: b"\0\0" }));
    }
}

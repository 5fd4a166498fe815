//! The packets before a session: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage, direct TLS.
//!
//! ```text
//!            ┌── SSLRequest ──▶ 'S', TLS  or 'N' ──┐   each at most once,
//!  connect ──┼── GSSENCRequest ──▶ 'N' ────────────┼─▶ nothing buffered behind it
//!            ├── 0x16 (direct TLS, ALPN) ──────────┘
//!            ├── CancelRequest ──▶ forwarded, closed without an answer
//!            └── StartupMessage ──▶ a session
//! ```
//! Source: PostgreSQL manual, sections 54.2.1 and 54.2.10.

use std::sync::Arc;

use crate::codec::startup::{self, MAX_STARTUP_PACKET, PROTOCOL_3_2, StartupPacket};
use crate::fault::{Refusal, SqlState, Violation};

/// The first byte of a TLS record that carries a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE_RECORD: u8 = 0x16;

/// What the front of a connection turned out to be.
#[derive(PartialEq, Eq)]
#[non_exhaustive]
pub enum Opening {
    /// The client wants TLS and waits for one byte.
    SslRequest,
    /// The client wants GSSAPI encryption and waits for one byte.
    GssEncRequest,
    /// The client began a TLS handshake without asking.
    DirectTls,
    /// The client wants to cancel what another connection runs.
    Cancel {
        /// Process id from BackendKeyData.
        pid: u32,
        /// Key from BackendKeyData.
        key: Box<[u8]>,
    },
    /// The client wants a session.
    Startup(Startup),
}

impl std::fmt::Debug for Opening {
    /// Without the key of a cancel request.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SslRequest => f.write_str("SslRequest"),
            Self::GssEncRequest => f.write_str("GssEncRequest"),
            Self::DirectTls => f.write_str("DirectTls"),
            Self::Cancel { pid, .. } => f.debug_struct("Cancel").field("pid", pid).finish_non_exhaustive(),
            Self::Startup(startup) => f.debug_tuple("Startup").field(startup).finish(),
        }
    }
}

/// A session as a client asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Startup {
    /// The version both sides speak from here on.
    pub version: u32,
    /// Set when the client asked for a newer minor version or for options that are not known: exactly one
    /// NegotiateProtocolVersion answers it.
    pub negotiate: Option<Box<[Box<[u8]>]>>,
    /// The claimed user: a wish, checked against the verified identity.
    pub user: Arc<str>,
    /// The database, by default named like the user.
    pub database: Arc<str>,
    /// For the audit trail; it is also among the parameters.
    pub application: Option<Arc<str>>,
    /// All other parameters, encoded as they go into the server's startup packet.
    pub parameters: Arc<[u8]>,
}

/// Reads the packets in front of a session. It holds at most one packet of 10,000 bytes.
#[derive(Debug, Default)]
pub struct Preamble {
    packet: Vec<u8>,
    started: bool,
    ssl_asked: bool,
    gss_asked: bool,
    encrypted: bool,
}

impl Preamble {
    /// TLS is established from here on.
    pub fn handle_encrypted(&mut self) {
        self.encrypted = true;
        self.started = false;
    }

    /// Whether a byte has been seen: a client that connects and leaves is nobody's concern.
    #[must_use]
    pub const fn is_untouched(&self) -> bool {
        !self.started && !self.ssl_asked && !self.gss_asked
    }

    /// Takes bytes from the client: how many were used, and what they made when a packet is whole.
    ///
    /// # Errors
    /// What to tell the client before the connection is closed.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<(usize, Option<Opening>), Refusal> {
        let mut used = 0;
        if let Some(&first) = bytes.first()
            && !self.started
        {
            self.started = true;
            if first == TLS_HANDSHAKE_RECORD && !self.encrypted {
                if self.ssl_asked {
                    return Err(Violation::RepeatedRequest.into());
                }
                self.ssl_asked = true;
                return Ok((0, Some(Opening::DirectTls)));
            }
        }
        while let Some(missing) = self.missing()? {
            let n = missing.min(bytes.len() - used);
            if n == 0 {
                return Ok((used, None));
            }
            self.packet.extend_from_slice(&bytes[used..used + n]);
            used += n;
        }
        let packet = std::mem::take(&mut self.packet);
        let opening = self.open(&packet[4..], used < bytes.len())?;
        self.started = false;
        Ok((used, Some(opening)))
    }

    /// Bytes that the packet still lacks; `None` when it is whole.
    fn missing(&self) -> Result<Option<usize>, Refusal> {
        let Some(&length) = self.packet.first_chunk::<4>() else { return Ok(Some(4 - self.packet.len())) };
        let length = u32::from_be_bytes(length);
        if !(8..=MAX_STARTUP_PACKET).contains(&length) {
            return Err(Refusal::new(SqlState::PROTOCOL_VIOLATION, "invalid length of startup packet"));
        }
        let missing = length as usize - self.packet.len();
        Ok((missing > 0).then_some(missing))
    }

    fn open(&mut self, packet: &[u8], more_behind: bool) -> Result<Opening, Refusal> {
        let parsed = startup::parse(packet).map_err(Violation::from)?;
        match parsed {
            StartupPacket::Ssl => {
                if self.ssl_asked || self.encrypted {
                    return Err(Violation::RepeatedRequest.into());
                }
                self.ssl_asked = true;
                refuse_bytes_behind(more_behind)?;
                Ok(Opening::SslRequest)
            }
            StartupPacket::GssEnc => {
                if self.gss_asked || self.encrypted {
                    return Err(Violation::RepeatedRequest.into());
                }
                self.gss_asked = true;
                refuse_bytes_behind(more_behind)?;
                Ok(Opening::GssEncRequest)
            }
            StartupPacket::Cancel { pid, key } => Ok(Opening::Cancel { pid, key: key.into() }),
            StartupPacket::Startup { version, body } => Startup::parse(version, body).map(Opening::Startup),
        }
    }
}

/// Bytes that came before the encryption they should travel under could be an attacker's (CVE-2021-23214).
fn refuse_bytes_behind(more_behind: bool) -> Result<(), Refusal> {
    if more_behind { Err(Violation::PlaintextBehindTlsRequest.into()) } else { Ok(()) }
}

impl Startup {
    fn parse(version: u32, body: &[u8]) -> Result<Self, Refusal> {
        if version >> 16 != 3 {
            return Err(Violation::UnsupportedProtocol.into());
        }
        let pairs = startup::parameters(body).map_err(|_| {
            Refusal::new(
                SqlState::PROTOCOL_VIOLATION,
                "invalid startup packet layout: expected terminator as last byte",
            )
        })?;
        let mut user = None;
        let mut database = None;
        let mut application = None;
        let mut unknown: Vec<Box<[u8]>> = Vec::new();
        let mut parameters = Vec::with_capacity(body.len());
        for (name, value) in pairs {
            match name {
                b"user" => user = Some(text("user", value)?),
                b"database" => database = Some(text("database", value)?),
                b"replication" if is_off(value) => {}
                b"replication" => {
                    return Err(Refusal::new(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "replication connections are not supported through gprxy",
                    )
                    .hint("Connect to the PostgreSQL server itself for replication."));
                }
                option if option.starts_with(b"_pq_.") => unknown.push(option.into()),
                _ => {
                    if name == b"application_name" {
                        application = Some(String::from_utf8_lossy(value).into());
                    }
                    for part in [name, value] {
                        parameters.extend_from_slice(part);
                        parameters.push(0);
                    }
                }
            }
        }
        let user = user.filter(|user| !user.is_empty()).ok_or_else(|| {
            Refusal::new(SqlState::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
        })?;
        let database = database.filter(|database| !database.is_empty()).unwrap_or_else(|| user.clone());
        let negotiate = (version > PROTOCOL_3_2 || !unknown.is_empty()).then(|| unknown.into_boxed_slice());
        let version = version.min(PROTOCOL_3_2);
        Ok(Self { version, negotiate, user, database, application, parameters: parameters.into() })
    }
}

fn text(name: &str, value: &[u8]) -> Result<Arc<str>, Refusal> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.chars().any(char::is_control));
    text.map(Into::into).ok_or_else(|| {
        Refusal::new(
            SqlState::INVALID_AUTHORIZATION,
            format!("the startup parameter \"{name}\" must be UTF-8 text without control characters"),
        )
    })
}

/// PostgreSQL's spellings of false (`parse_bool`).
fn is_off(value: &[u8]) -> bool {
    matches!(value, b"false" | b"off" | b"no" | b"0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::startup::{PROTOCOL_3_0, emit, emit_ssl_request};

    fn startup(version: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        emit(&mut out, version, pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        out
    }

    fn open(bytes: &[u8]) -> Result<Opening, Refusal> {
        let (used, opening) = Preamble::default().handle_input(bytes)?;
        assert_eq!(used, bytes.len());
        Ok(opening.expect("a whole packet"))
    }

    #[test]
    fn any_split_gives_the_same_startup() {
        let bytes = startup(PROTOCOL_3_0, &[("user", "alice"), ("database", "app"), ("application_name", "psql")]);
        let whole = open(&bytes).unwrap();
        let mut preamble = Preamble::default();
        for (i, byte) in bytes.iter().enumerate() {
            let (used, opening) = preamble.handle_input(std::slice::from_ref(byte)).unwrap();
            assert_eq!(used, 1);
            assert_eq!(opening.is_some(), i + 1 == bytes.len());
            if let Some(opening) = opening {
                assert_eq!(opening, whole);
            }
        }
        let Opening::Startup(startup) = whole else { panic!("not a startup") };
        assert_eq!((&*startup.user, &*startup.database), ("alice", "app"));
        assert_eq!(&*startup.parameters, b"application_name\0psql\0");
        assert_eq!(startup.negotiate, None);
    }

    #[test]
    fn newer_minors_and_options_are_negotiated_and_not_forwarded() {
        for (version, spoken) in [((3 << 16) | 3, PROTOCOL_3_2), ((3 << 16) | 9999, PROTOCOL_3_2), (3 << 16, 3 << 16)] {
            let bytes = startup(version, &[("user", "alice"), ("_pq_.command", "x")]);
            let Opening::Startup(startup) = open(&bytes).unwrap() else { panic!("not a startup") };
            assert_eq!(startup.version, spoken);
            assert_eq!(startup.negotiate.as_deref(), Some(&[Box::from(&b"_pq_.command"[..])][..]));
            assert!(startup.parameters.is_empty());
        }
        for version in [2 << 16, 4 << 16] {
            assert_eq!(open(&startup(version, &[("user", "a")])).unwrap_err().code, SqlState::FEATURE_NOT_SUPPORTED);
        }
    }

    #[test]
    fn requests_are_answered_once_each_and_nothing_may_follow_them() {
        let mut bytes = Vec::new();
        emit_ssl_request(&mut bytes);
        let mut preamble = Preamble::default();
        assert_eq!(preamble.handle_input(&bytes), Ok((8, Some(Opening::SslRequest))));
        assert_eq!(preamble.handle_input(&bytes).unwrap_err(), Violation::RepeatedRequest.into());
        bytes.push(b'x');
        assert_eq!(Preamble::default().handle_input(&bytes).unwrap_err(), Violation::PlaintextBehindTlsRequest.into());
    }

    #[test]
    fn direct_tls_is_seen_by_its_first_byte_and_only_there() {
        let mut preamble = Preamble::default();
        assert_eq!(preamble.handle_input(&[0x16, 3, 1]), Ok((0, Some(Opening::DirectTls))));
        preamble.handle_encrypted();
        assert!(preamble.handle_input(&[0x16, 3, 1, 0]).is_err());
    }

    #[test]
    fn bad_startups_are_refused_with_a_reason() {
        let code = |bytes: &[u8]| Preamble::default().handle_input(bytes).unwrap_err().code;
        assert_eq!(code(&[0, 0, 0, 7]), SqlState::PROTOCOL_VIOLATION);
        assert_eq!(code(&[0, 0, 0x27, 0x11]), SqlState::PROTOCOL_VIOLATION);
        assert_eq!(code(&[0xff; 4]), SqlState::PROTOCOL_VIOLATION);
        assert_eq!(code(&startup(PROTOCOL_3_0, &[])), SqlState::INVALID_AUTHORIZATION);
        assert_eq!(code(&startup(PROTOCOL_3_0, &[("user", "a\nb")])), SqlState::INVALID_AUTHORIZATION);
        assert_eq!(
            code(&startup(PROTOCOL_3_0, &[("user", "a"), ("replication", "database")])),
            SqlState::FEATURE_NOT_SUPPORTED
        );
        let mut unterminated = startup(PROTOCOL_3_0, &[("user", "alice")]);
        unterminated.pop();
        unterminated[3] -= 1;
        assert_eq!(code(&unterminated), SqlState::PROTOCOL_VIOLATION);
    }
}

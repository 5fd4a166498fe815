//! What all records of one session have in common.

use std::fmt;

use super::json::{Object, null, string};
use crate::auth::{Authenticated, Identity, Method};
use crate::session_id::SessionId;

/// How the client's connection is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tls<'a> {
    /// As in `TLSv1.3`.
    pub version: &'a str,
    /// The cipher suite, as in `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'a str,
}

/// What is known about a session when its facts are put down. `None` and empty mean: not known (yet).
#[derive(Clone, Copy, Default)]
pub struct Sheet<'a> {
    /// Who it is. Only a verified identity gets into the records; what a client claims does not.
    pub who: Option<&'a Authenticated>,
    /// The PostgreSQL account that runs the statements.
    pub account: Option<&'a str>,
    /// The database as the client named it.
    pub database: Option<&'a [u8]>,
    /// Address and port, or the path of the Unix socket.
    pub client_addr: Option<&'a str>,
    /// `application_name` of the startup packet.
    pub application: Option<&'a [u8]>,
    /// `None`: not encrypted.
    pub tls: Option<Tls<'a>>,
}

/// The constant part of a session's records, as JSON members that were serialised once.
pub struct SessionFacts {
    session: SessionId,
    members: Box<[u8]>,
}

impl SessionFacts {
    /// Puts the facts of a session down.
    #[must_use]
    pub fn new(session: SessionId, sheet: &Sheet<'_>) -> Self {
        Self::with_identity(session, sheet, sheet.who.map(|who| &**who.identity()))
    }

    pub(super) fn with_identity(session: SessionId, sheet: &Sheet<'_>, who: Option<&Identity>) -> Self {
        let mut members = Vec::with_capacity(512);
        let mut object = Object::fragment(&mut members);
        object.string("subject", who.map(|who| &*who.subject));
        // A password has no issuer.
        object.string("issuer", who.map(|who| &*who.issuer).filter(|issuer| !issuer.is_empty()));
        object.string("user", who.map(|who| &*who.user));
        roles(object.member("roles"), who);
        object.string(
            "auth",
            who.map(|who| match who.method {
                Method::Token => "token",
                Method::Password => "password",
                Method::Trust => "trust",
                Method::Peer => "peer",
            }),
        );
        object.string("account", sheet.account);
        object.text("database", sheet.database);
        object.string("client_addr", sheet.client_addr);
        object.text("application", sheet.application);
        tls(object.member("tls"), sheet.tls);
        Self { session, members: members.into_boxed_slice() }
    }

    /// The session that they are about.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Their JSON members, from `subject` to `tls`, without braces.
    #[must_use]
    pub fn members(&self) -> &[u8] {
        &self.members
    }
}

impl fmt::Debug for SessionFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} {{{}}}", self.session, String::from_utf8_lossy(&self.members))
    }
}

fn roles(out: &mut Vec<u8>, who: Option<&Identity>) {
    out.push(b'[');
    for (n, role) in who.into_iter().flat_map(|who| who.roles.iter()).enumerate() {
        if n > 0 {
            out.push(b',');
        }
        string(out, role);
    }
    out.push(b']');
}

fn tls(out: &mut Vec<u8>, tls: Option<Tls<'_>>) {
    let Some(tls) = tls else { return null(out) };
    let mut object = Object::open(out);
    object.string("version", Some(tls.version));
    object.string("cipher", Some(tls.cipher));
    object.close();
}

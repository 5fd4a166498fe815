//! What the log tells of clients and server connections: in PgBouncer's words, which people and tools look for.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use super::dial::OpenFailure;
use super::runtime::Runtime;
use super::server::ServerConnection;
use super::shared::Shared;
use crate::fault::Lost;
use crate::policy::{Endpoint, LogTerms};
use crate::session::{Finish, Peer, Session, Side, Wish};
use crate::session_id::SessionId;
use crate::time::Tick;
use crate::upstream::LoginFailure;

/// A client, as it is named in a line of its own: number, what it asked for, address.
pub(super) struct Client<'a> {
    id: SessionId,
    asked: Option<(&'a str, &'a str)>,
    peer: &'a Peer,
}

impl<'a> Client<'a> {
    pub(super) fn of(session: &'a Session) -> Self {
        Self { id: session.id(), asked: session.asked(), peer: session.peer() }
    }

    /// It has said what it wants.
    pub(super) fn attempts(&self, tls: Option<&str>) {
        let Some((user, database)) = self.asked else { return };
        log::info!("{self} login attempt: db={database} user={user} tls={}", tls.unwrap_or("no"));
    }

    /// It has ended.
    pub(super) fn ended(&self, finish: &Finish, terms: LogTerms, age: std::time::Duration) {
        let why: Cow<'_, str> = match finish {
            Finish::Untouched | Finish::Cancel => {
                return log::debug!("session {} from {} ended: {finish:?}", self.id, self.peer.address);
            }
            Finish::Broken(side, violation) => {
                log::warn!("{self} {side:?} broke the protocol: {}", violation.describe());
                violation.describe().into()
            }
            Finish::Refused(refusal) => {
                if terms.pooler_errors {
                    log::warn!("{self} pooler error: {refusal}");
                }
                (&*refusal.message).into()
            }
            Finish::Terminated => "client close request".into(),
            Finish::Lost(Side::Client, _) => "client unexpected eof".into(),
            Finish::Lost(Side::Server, Lost::Closed | Lost::Broken) => CRASHED.into(),
            Finish::Drained => "server shutting down".into(),
        };
        let level = if terms.disconnections { log::Level::Info } else { log::Level::Debug };
        log::log!(level, "{self} closing because: {why} (age={}s)", age.as_secs());
    }
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, database) = self.asked.unwrap_or(("(nouser)", "(nodb)"));
        write!(f, "session {}: {database}/{user}@{}", self.id, self.peer.address)
    }
}

/// What is said of a connection that its server has closed.
pub(super) const CRASHED: &str = "server conn crashed?";

/// What is said of one that could not be reset, or failed a check.
pub(super) const UNCLEAN: &str = "unclean server";

/// What is said of one whose client has left it in the middle of something.
pub(super) const NOT_READY: &str = "client disconnect while server was not ready";

/// A server connection, as it is named in a line of its own.
pub(super) struct Named {
    /// As the console shows it.
    pub(super) number: u64,
    pool: Box<str>,
    since: Tick,
}

/// Who logs in to a server, and whether the log tells of it.
pub(super) struct Teller {
    terms: LogTerms,
    pool: Box<str>,
}

impl Teller {
    /// Nothing is told.
    pub(super) fn silent() -> Self {
        Self { terms: LogTerms::default(), pool: "".into() }
    }

    pub(super) fn of(wish: &Wish, terms: LogTerms) -> Self {
        Self { terms, pool: pool(wish) }
    }

    /// An endpoint could not be used.
    pub(super) fn failed(&self, endpoint: &Endpoint, failure: &OpenFailure) {
        if self.terms.disconnections {
            log::info!("server connection: {}@{endpoint} closing because: {} (age=0s)", self.pool, why_not(failure));
        }
    }
}

fn pool(wish: &Wish) -> Box<str> {
    format!("{}/{}", wish.database, wish.account).into()
}

fn why_not(failure: &OpenFailure) -> Cow<'static, str> {
    let words = match failure {
        OpenFailure::Login { failure: failure @ LoginFailure::Server(_), .. } => {
            return failure.refusal().message.into();
        }
        OpenFailure::Connect(_, error) if error.kind() == std::io::ErrorKind::TimedOut => "connect timeout",
        // A resolver's failure has no number of the system's.
        OpenFailure::Connect(Endpoint::Tcp { host, .. }, error)
            if error.raw_os_error().is_none() && host.parse::<std::net::IpAddr>().is_err() =>
        {
            "server DNS lookup failed"
        }
        OpenFailure::Connect(..) => "connect failed",
        OpenFailure::Login { failure: LoginFailure::TimedOut, .. } => "connect timeout",
        OpenFailure::ConnectQuery(_) => "connect query failed",
        OpenFailure::Login { .. } | OpenFailure::NoToken(_) => "login failed",
    };
    words.into()
}

/// A login to the server has failed for good.
pub(super) fn login_failed(wish: &Wish, failure: &OpenFailure) {
    let (pool, refusal) = (pool(wish), failure.refusal());
    match failure {
        OpenFailure::Login { failure: LoginFailure::Server(error), .. } => {
            let severity = String::from_utf8_lossy(error.fields().severity);
            log::warn!("{pool} server login failed: {severity} {} ({})", refusal.message, refusal.code);
        }
        _ => log::warn!("{pool} server login failed: {refusal}"),
    }
}

impl<R: Runtime> Shared<R> {
    /// A new connection is there: gives it its name.
    pub(super) fn name_server(&self, connection: &mut ServerConnection<R::Socket>, wish: &Wish, number: u64) {
        let named = Named { number, pool: pool(wish), since: R::now().tick };
        if self.terms().profile.log.connections {
            let from = connection.local.map_or_else(|| "unix".to_owned(), |address: SocketAddr| address.to_string());
            let (pool, endpoint) = (&named.pool, &connection.endpoint);
            log::info!("server connection {number}: {pool}@{endpoint} new connection to server (from {from})");
        }
        connection.named = Some(Box::new(named));
    }

    /// It is about to be closed.
    pub(super) fn tell_end(&self, connection: &ServerConnection<R::Socket>, why: &str) {
        let Some(Named { number, pool, since }) = connection.named.as_deref() else { return };
        if self.terms().profile.log.disconnections {
            let age = R::now().tick.since(*since).as_secs();
            let endpoint = &connection.endpoint;
            log::info!("server connection {number}: {pool}@{endpoint} closing because: {why} (age={age}s)");
        }
    }
}

//! New server connections: the hosts of a database one after the other, TLS as its `sslmode` says, the login.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_rustls::rustls::ClientConfig;

use super::link::Link;
use super::runtime::Runtime;
use super::server::{HANDSHAKE_READ, ServerConnection, read_until, within, write_all};
use super::tls;
use super::told::Teller;
use crate::fault::{Lost, Refusal, SqlState};
use crate::policy::{Database, Endpoint, HostOrder, SocketOptions, SslMode, TlsTerms};
use crate::time::Tick;
use crate::upstream::{BackendKey, LoggedIn, Login, LoginFailure, LoginOutput, LoginSettings, ResetFault};

/// What was tried and how it ended.
pub(super) enum OpenFailure {
    /// The login failed.
    Login {
        /// How.
        failure: LoginFailure,
        /// Whether the server had sent AuthenticationOk before.
        let_in: bool,
    },
    /// No connection came about.
    Connect(Endpoint, io::Error),
    /// There was nothing to log in with.
    NoToken(Refusal),
    /// The operator's query failed behind the login.
    ConnectQuery(ResetFault),
}

impl OpenFailure {
    /// The words for a client.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Login { failure, .. } => failure.refusal(),
            Self::NoToken(refusal) => refusal.clone(),
            Self::ConnectQuery(fault) => Refusal::new(SqlState::CANNOT_CONNECT, format!("connect_query: {fault}"))
                .hint("gprxy's operator has configured a query for new server connections that does not work."),
            Self::Connect(endpoint, error) => Refusal::new(
                SqlState::CANNOT_CONNECT,
                format!("gprxy cannot connect to the PostgreSQL server at {endpoint}: {error}"),
            )
            .hint("Is the server running, and is the address in gprxy's configuration right?"),
        }
    }

    /// Whether others would fail at the same. Behind AuthenticationOk the server acts on this client's startup
    /// parameters, and one client's `local_preload_libraries` must not keep the others out; what is left then is a
    /// server that is full or starting up, and a database that does not exist.
    pub(super) fn concerns_others(&self) -> bool {
        match self {
            // Parameters that do not fit into a startup packet are a client's, too.
            Self::Login { failure: LoginFailure::Settings(_), .. } => false,
            // The next one asks the source again.
            Self::NoToken(_) => false,
            Self::Connect(..) | Self::Login { let_in: false, .. } | Self::ConnectQuery(_) => true,
            Self::Login { failure, let_in: true } => {
                let code = failure.refusal().code;
                code.0.starts_with(b"53")
                    || matches!(code, SqlState::CANNOT_CONNECT_NOW | SqlState::INVALID_CATALOG_NAME)
            }
        }
    }

    /// Whether the server is not there, or not yet: nothing has been refused, and a later try may succeed.
    pub(super) fn is_down(&self) -> bool {
        match self {
            Self::Connect(..) => true,
            Self::Login { failure: LoginFailure::Lost(_) | LoginFailure::TimedOut, .. } => true,
            Self::Login { failure: LoginFailure::Server(error), .. } => {
                error.code() == Some(SqlState::CANNOT_CONNECT_NOW)
            }
            Self::Login { .. } | Self::NoToken(_) | Self::ConnectQuery(_) => false,
        }
    }

    /// Whether another host of the list may do better: libpq goes on after everything but a server's own refusal. One
    /// that had let us in has failed over something of this client's, and would hide it behind the next host's failure.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Login { failure: LoginFailure::Server(_), .. } | Self::Login { let_in: true, .. })
    }
}

/// Where among the hosts of a list the next connection begins.
#[derive(Clone, Default)]
pub(super) struct Hosts {
    order: HostOrder,
    next: Arc<AtomicUsize>,
}

impl Hosts {
    pub(super) const fn new(order: HostOrder, next: Arc<AtomicUsize>) -> Self {
        Self { order, next }
    }

    fn first(&self, hosts: usize) -> usize {
        let at = match self.order {
            HostOrder::Listed => 0,
            HostOrder::RoundRobin => self.next.fetch_add(1, Ordering::Relaxed),
            HostOrder::LastGood => self.next.load(Ordering::Relaxed),
        };
        at % hosts.max(1)
    }

    /// This one could not be used. Who tries at the same time moves on no further.
    fn failed(&self, host: usize, hosts: usize) {
        if self.order == HostOrder::LastGood {
            let next = (host + 1) % hosts.max(1);
            let _ = self.next.compare_exchange(host, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// Opens a connection to the first endpoint that lets the account in.
pub(super) async fn open<R: Runtime>(
    target: &Database,
    hosts: &Hosts,
    tls: Option<Arc<ClientConfig>>,
    options: SocketOptions,
    teller: &Teller,
    mut settings: impl FnMut(&Endpoint) -> LoginSettings,
) -> Result<(ServerConnection<R::Socket>, LoggedIn), OpenFailure> {
    let mut last = None;
    let terms = tls.is_some().then(|| target.tls_terms());
    let count = target.endpoints.len();
    let first = hosts.first(count);
    for at in (0..count).map(|nth| (first + nth) % count) {
        let endpoint = &target.endpoints[at];
        match open_one::<R>(endpoint, tls.clone(), terms.clone(), options, settings(endpoint)).await {
            Ok(opened) => return Ok(opened),
            Err(failure) => {
                teller.failed(endpoint, &failure);
                hosts.failed(at, count);
                if failure.is_final() {
                    return Err(failure);
                }
                last = Some(failure);
            }
        }
    }
    Err(last.unwrap_or(OpenFailure::Login { failure: LoginFailure::TimedOut, let_in: false }))
}

async fn open_one<R: Runtime>(
    endpoint: &Endpoint,
    tls: Option<Arc<ClientConfig>>,
    terms: Option<TlsTerms>,
    options: SocketOptions,
    settings: LoginSettings,
) -> Result<(ServerConnection<R::Socket>, LoggedIn), OpenFailure> {
    let until = R::now().tick.after(settings.timeout);
    let socket = match within::<R, _>(until, R::connect(endpoint.clone())).await {
        Some(Ok(socket)) => socket,
        Some(Err(error)) => return Err(OpenFailure::Connect(endpoint.clone(), error)),
        None => {
            let error = io::Error::new(io::ErrorKind::TimedOut, "no answer within the connect timeout");
            return Err(OpenFailure::Connect(endpoint.clone(), error));
        }
    };
    if let Err(error) = R::tune(&socket, &options) {
        log::warn!("the options of a socket to {endpoint} cannot be set: {error}");
    }
    let local = R::local_address(&socket);
    let mut login = Login::new(settings, R::now());
    let (link, result) = log_in::<R>(Link::Plain(socket), &mut login, endpoint, tls.as_ref()).await;
    let failed = |failure| OpenFailure::Login { failure, let_in: login.was_let_in() };
    let logged_in = result.map_err(failed)?;
    let Some(link) = link else { return Err(failed(LoginFailure::TimedOut)) };
    let connection = ServerConnection {
        link,
        parameters: logged_in.parameters.clone().into(),
        bare: None,
        startup_query: None,
        key: Arc::new(BackendKey { pid: logged_in.key.pid, key: logged_in.key.key.clone() }),
        endpoint: endpoint.clone(),
        tls: terms.filter(|_| logged_in.tls),
        statements: None,
        target: None,
        single_use: false,
        local,
        named: None,
        settings: Arc::default(),
    };
    Ok((connection, logged_in))
}

/// Drives a login. The link is gone when its TLS handshake failed.
async fn log_in<R: Runtime>(
    link: Link<R::Socket>,
    login: &mut Login,
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
) -> (Option<Link<R::Socket>>, Result<LoggedIn, LoginFailure>) {
    let mut link = Some(link);
    loop {
        while let Some(output) = login.poll_output() {
            match output {
                LoginOutput::Send(bytes) => {
                    let Some(link) = &mut link else { continue };
                    if write_all(link, bytes.expose()).await.is_err() {
                        login.handle_close(Lost::Broken, R::now());
                    }
                }
                LoginOutput::StartTls(_) => match start_tls::<R>(link.take(), endpoint, tls, login).await {
                    Ok(encrypted) => {
                        link = Some(encrypted);
                        login.handle_tls_established(R::now());
                    }
                    Err(reason) => login.handle_tls_failed(&reason, R::now()),
                },
                LoginOutput::Derive(derivation) => {
                    let keys = R::blocking(move || derivation.run()).await;
                    login.handle_derived(keys, R::now());
                }
                LoginOutput::Finished(result) => return (link, result),
            }
        }
        let Some(open) = &mut link else {
            login.handle_close(Lost::Broken, R::now());
            continue;
        };
        let mut bytes = [0; HANDSHAKE_READ];
        let until = login.poll_timeout().map(|deadline| deadline.at);
        match read_until::<R>(open, &mut bytes, until).await {
            None => login.handle_timeout(R::now()),
            Some(Ok(0)) => login.handle_close(Lost::Closed, R::now()),
            Some(Ok(n)) => {
                if login.handle_input(&bytes[..n], R::now()) < n {
                    // A server that goes on behind its first ReadyForQuery is out of step before the session began.
                    return (None, Err(LoginFailure::TooMuchData));
                }
            }
            Some(Err(_)) => login.handle_close(Lost::Broken, R::now()),
        }
    }
}

async fn start_tls<R: Runtime>(
    link: Option<Link<R::Socket>>,
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
    login: &Login,
) -> Result<Link<R::Socket>, String> {
    let (Some(Link::Plain(socket)), Some(config)) = (link, tls) else {
        return Err("this server's sslmode has no TLS configuration".into());
    };
    let until = login.poll_timeout().map_or(Tick::default(), |deadline| deadline.at);
    match within::<R, _>(until, tls::connect(config.clone(), endpoint, socket)).await {
        Some(Ok(link)) => Ok(link),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the handshake was not finished in time".into()),
    }
}

/// Whether TLS can be spoken to such an endpoint: libpq never does over Unix sockets.
pub(super) const fn tls_possible(endpoint: &Endpoint, mode: SslMode) -> bool {
    matches!(endpoint, Endpoint::Tcp { .. }) && !matches!(mode, SslMode::Disable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ServerError;

    fn failed(failure: LoginFailure, let_in: bool) -> OpenFailure {
        OpenFailure::Login { failure, let_in }
    }

    fn server_error(code: &str) -> LoginFailure {
        LoginFailure::Server(ServerError::new(format!("SFATAL\0C{code}\0Mno\0\0").as_bytes(), None))
    }

    #[test]
    fn what_one_client_provokes_behind_its_authentication_concerns_nobody_else() {
        for code in ["58P01", "57P01", "08006", "XX000", "28000", "42501"] {
            assert!(!failed(server_error(code), true).concerns_others(), "{code}");
            assert!(failed(server_error(code), false).concerns_others(), "{code}");
        }
        for failure in [LoginFailure::TimedOut, LoginFailure::Lost(Lost::Closed), LoginFailure::TooMuchData] {
            assert!(!failed(failure.clone(), true).concerns_others(), "{failure:?}");
            assert!(failed(failure.clone(), false).concerns_others(), "{failure:?}");
        }
        assert!(!failed(LoginFailure::Settings("too long"), false).concerns_others());
    }

    #[test]
    fn a_server_without_room_concerns_everybody_whenever_it_says_so() {
        for code in ["53300", "53200", "57P03", "3D000"] {
            assert!(failed(server_error(code), true).concerns_others(), "{code}");
        }
        let endpoint = Endpoint::Tcp { host: "db".into(), port: 5432 };
        assert!(OpenFailure::Connect(endpoint, io::ErrorKind::ConnectionRefused.into()).concerns_others());
    }

    #[test]
    fn the_next_host_is_tried_unless_this_one_has_answered() {
        assert!(!failed(LoginFailure::TimedOut, false).is_final());
        // Otherwise a second host that is down would hide whose doing it was.
        assert!(failed(LoginFailure::TimedOut, true).is_final());
        assert!(failed(server_error("53300"), false).is_final());
    }

    #[test]
    fn hosts_have_their_turns_as_their_database_says() {
        let hosts = |order| Hosts::new(order, Arc::default());
        let listed = hosts(HostOrder::Listed);
        listed.failed(0, 3);
        assert_eq!([listed.first(3), listed.first(3)], [0, 0]);
        let turns = hosts(HostOrder::RoundRobin);
        assert_eq!([turns.first(3), turns.first(3), turns.first(3), turns.first(3)], [0, 1, 2, 0]);
        let good = hosts(HostOrder::LastGood);
        assert_eq!(good.first(3), 0);
        // Two find out at the same time.
        good.failed(0, 3);
        good.failed(0, 3);
        assert_eq!([good.first(3), good.first(3)], [1, 1]);
        good.failed(1, 3);
        good.failed(2, 3);
        assert_eq!(good.first(3), 0);
        // A reload has made the list shorter.
        assert_eq!(turns.first(1), 0);
    }
}

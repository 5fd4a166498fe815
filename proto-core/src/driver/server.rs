//! Server connections: opening, giving back, cancelling. Each is a machine of [`crate::upstream`] over a socket.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_rustls::rustls::ClientConfig;

use super::link::Link;
use super::runtime::{Alarm, Runtime, Socket};
use super::tls;
use crate::codec::frontend::emit_terminate;
use crate::fault::{Lost, Refusal, SqlState};
use crate::policy::{Database, Endpoint, SslMode, TlsTerms};
use crate::time::Tick;
use crate::upstream::{
    BackendKey, CancelOutput, CancelRequest, LoggedIn, Login, LoginFailure, LoginOutput, LoginSettings, Parameters,
    Reset, ResetOutcome, ResetOutput,
};

/// The longest read of a handshake.
const HANDSHAKE_READ: usize = 4096;

/// A server connection between sessions, or of one.
pub(super) struct ServerConnection<S> {
    pub(super) link: Link<S>,
    pub(super) parameters: Parameters,
    pub(super) key: Arc<BackendKey>,
    pub(super) endpoint: Endpoint,
    /// How it is encrypted, if it is: a cancel request goes the same way.
    pub(super) tls: Option<TlsTerms>,
}

impl<S: Socket> ServerConnection<S> {
    /// Whether the server is still there and silent: a connection that has something to say between two sessions is
    /// about to end, or out of step.
    pub(super) fn poll_alive(&mut self, context: &mut Context<'_>) -> bool {
        let mut byte = [0; 1];
        self.link.poll_read(context, &mut byte).is_pending()
    }

    /// Takes leave in order, as far as the server listens. Only for a connection that stands between messages.
    pub(super) async fn close<R: Runtime<Socket = S>>(self) {
        let mut farewell = Vec::new();
        emit_terminate(&mut farewell);
        self.end::<R>(&farewell).await;
    }

    /// Leaves without a word: a client may have left in the middle of a message, and the server would read a
    /// Terminate as the rest of it, and run what nobody has sent.
    pub(super) async fn abandon<R: Runtime<Socket = S>>(self) {
        self.end::<R>(b"").await;
    }

    async fn end<R: Runtime<Socket = S>>(mut self, farewell: &[u8]) {
        let until = R::now().tick.after(std::time::Duration::from_secs(2));
        let _ = within::<R, _>(until, async {
            write_all(&mut self.link, farewell).await?;
            poll_fn(|context| self.link.poll_close(context)).await
        })
        .await;
    }
}

/// What was tried and how it ended.
pub(super) enum OpenFailure {
    /// The login failed.
    Login(LoginFailure),
    /// No connection came about.
    Connect(Endpoint, io::Error),
}

impl OpenFailure {
    /// The words for a client.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Login(failure) => failure.refusal(),
            Self::Connect(endpoint, error) => Refusal::new(
                SqlState::CANNOT_CONNECT,
                format!("gprxy cannot connect to the PostgreSQL server at {endpoint}: {error}"),
            )
            .hint("Is the server running, and is the address in gprxy's configuration right?"),
        }
    }

    /// Whether another host of the list may do better: libpq goes on after everything but a server's own refusal.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Login(LoginFailure::Server(_)))
    }
}

/// Opens a connection to the first endpoint that lets the account in.
pub(super) async fn open<R: Runtime>(
    target: &Database,
    tls: Option<Arc<ClientConfig>>,
    mut settings: impl FnMut(&Endpoint) -> LoginSettings,
) -> Result<(ServerConnection<R::Socket>, LoggedIn), OpenFailure> {
    let mut last = None;
    let terms = tls.is_some().then(|| target.tls_terms());
    for endpoint in &*target.endpoints {
        match open_one::<R>(endpoint, tls.clone(), terms.clone(), settings(endpoint)).await {
            Ok(opened) => return Ok(opened),
            Err(failure) if failure.is_final() => return Err(failure),
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or(OpenFailure::Login(LoginFailure::TimedOut)))
}

async fn open_one<R: Runtime>(
    endpoint: &Endpoint,
    tls: Option<Arc<ClientConfig>>,
    terms: Option<TlsTerms>,
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
    let login = Login::new(settings, R::now());
    let (link, result) = log_in::<R>(Link::Plain(socket), login, endpoint, tls.as_ref()).await;
    let logged_in = result.map_err(OpenFailure::Login)?;
    let Some(link) = link else { return Err(OpenFailure::Login(LoginFailure::TimedOut)) };
    let connection = ServerConnection {
        link,
        parameters: logged_in.parameters.clone(),
        key: Arc::new(BackendKey { pid: logged_in.key.pid, key: logged_in.key.key.clone() }),
        endpoint: endpoint.clone(),
        tls: terms.filter(|_| logged_in.tls),
    };
    Ok((connection, logged_in))
}

/// Drives a login. The link is gone when its TLS handshake failed.
async fn log_in<R: Runtime>(
    link: Link<R::Socket>,
    mut login: Login,
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
                LoginOutput::StartTls(_) => match start_tls::<R>(link.take(), endpoint, tls, &login).await {
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

/// Drives a reset on a connection that came back. `true` when it may be used again.
pub(super) async fn reset<R: Runtime>(connection: &mut ServerConnection<R::Socket>, mut reset: Reset) -> bool {
    loop {
        while let Some(output) = reset.poll_output() {
            match output {
                ResetOutput::Send(bytes) => {
                    if write_all(&mut connection.link, &bytes).await.is_err() {
                        reset.handle_close(Lost::Broken, R::now());
                    }
                }
                ResetOutput::Finished(ResetOutcome::Clean(parameters)) => {
                    for (name, value) in parameters {
                        let _ = crate::upstream::remember(&mut connection.parameters, &name, &value);
                    }
                    return true;
                }
                ResetOutput::Finished(ResetOutcome::Broken(fault)) => {
                    log::debug!("a server connection to {} is closed instead of reused: {fault}", connection.endpoint);
                    return false;
                }
            }
        }
        let mut bytes = [0; HANDSHAKE_READ];
        let until = reset.poll_timeout().map(|deadline| deadline.at);
        match read_until::<R>(&mut connection.link, &mut bytes, until).await {
            None => reset.handle_timeout(R::now()),
            Some(Ok(0)) => reset.handle_close(Lost::Closed, R::now()),
            Some(Ok(n)) => {
                reset.handle_input(&bytes[..n], R::now());
            }
            Some(Err(_)) => reset.handle_close(Lost::Broken, R::now()),
        }
    }
}

/// Cancels what a server process runs, and waits until the server has closed the cancel connection: from then on the
/// cancel has been delivered, or will never be.
pub(super) async fn cancel<R: Runtime>(
    endpoint: &Endpoint,
    key: &BackendKey,
    tls: Option<Arc<ClientConfig>>,
    timeout: std::time::Duration,
) -> Result<(), String> {
    let until = R::now().tick.after(timeout);
    let attempt = async {
        let socket = R::connect(endpoint.clone()).await.map_err(|error| error.to_string())?;
        let mut machine = CancelRequest::new(key, tls.is_some(), timeout, R::now());
        let mut link = Link::Plain(socket);
        loop {
            while let Some(output) = machine.poll_output() {
                match output {
                    CancelOutput::Send(bytes) => {
                        write_all(&mut link, bytes.expose()).await.map_err(|error| error.to_string())?;
                    }
                    CancelOutput::StartTls => {
                        let (Link::Plain(socket), Some(config)) = (link, tls.clone()) else {
                            return Err("TLS was asked for twice".into());
                        };
                        link = tls::connect(config, endpoint, socket).await.map_err(|error| error.to_string())?;
                        machine.handle_tls_established(R::now());
                    }
                    CancelOutput::Finished(result) => return result.map_err(|failure| failure.to_string()),
                }
            }
            let mut bytes = [0; 64];
            match poll_fn(|context| link.poll_read(context, &mut bytes)).await {
                Ok(0) => machine.handle_close(Lost::Closed, R::now()),
                Ok(n) => {
                    machine.handle_input(&bytes[..n], R::now());
                }
                Err(_) => machine.handle_close(Lost::Broken, R::now()),
            }
        }
    };
    within::<R, _>(until, attempt).await.unwrap_or_else(|| Err("no answer within cancel_wait_timeout".into()))
}

pub(super) async fn write_all<S: Socket>(link: &mut Link<S>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|context| link.poll_write(context, bytes, &[])).await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
    }
    poll_fn(|context| link.poll_flush(context)).await
}

async fn read_until<R: Runtime>(
    link: &mut Link<R::Socket>,
    bytes: &mut [u8],
    until: Option<Tick>,
) -> Option<io::Result<usize>> {
    let read = poll_fn(|context| link.poll_read(context, bytes));
    match until {
        Some(until) => within::<R, _>(until, read).await,
        None => Some(read.await),
    }
}

/// The future's result, or `None` when the tick comes first.
pub async fn within<R: Runtime, F: Future>(until: Tick, future: F) -> Option<F::Output> {
    let mut alarm = R::alarm();
    alarm.set(Some(until));
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => alarm.poll(context).map(|()| None),
    })
    .await
}

/// Whether TLS can be spoken to such an endpoint: libpq never does over Unix sockets.
pub(super) const fn tls_possible(endpoint: &Endpoint, mode: SslMode) -> bool {
    matches!(endpoint, Endpoint::Tcp { .. }) && !matches!(mode, SslMode::Disable)
}

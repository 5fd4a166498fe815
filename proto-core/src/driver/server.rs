//! Server connections that are there: what is known of one, its reset, its end; and reading and writing within a time.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use log::Level;

use super::link::Link;
use super::runtime::{Alarm, Runtime, Socket};
use super::told::Named;
use crate::cancel::BackendTarget;
use crate::codec::backend::TransactionStatus;
use crate::codec::frontend::emit_terminate;
use crate::fault::Lost;
use crate::policy::{Endpoint, TlsTerms};
use crate::pool::PoolSettings;
use crate::relay::OnServer;
use crate::time::Tick;
use crate::upstream::{BackendKey, Parameters, Reported, Reset, ResetFault, ResetOutcome, ResetOutput, ResetPlan};

/// How long a server may take to answer a reset before its connection is closed instead.
const RESET_TIME: Duration = Duration::from_secs(5);
/// The longest read of a handshake.
pub(super) const HANDSHAKE_READ: usize = 4096;

/// A server connection between sessions, or of one.
pub(super) struct ServerConnection<S> {
    pub(super) link: Link<S>,
    pub(super) parameters: Reported,
    /// It was opened without startup parameters: what its login reported.
    pub(super) bare: Option<Arc<Parameters>>,
    /// What gives it those of the session that it serves, where it is bare.
    pub(super) startup_query: Option<Arc<str>>,
    pub(super) key: Arc<BackendKey>,
    pub(super) endpoint: Endpoint,
    /// How it is encrypted, if it is: a cancel request goes the same way.
    pub(super) tls: Option<TlsTerms>,
    /// Which statements are prepared there; `None` where nobody needs to know.
    pub(super) statements: Option<Box<OnServer>>,
    /// What a cancel is aimed at, once it has a slot.
    pub(super) target: Option<Arc<BackendTarget>>,
    /// It serves the session that opened it, and no other.
    pub(super) single_use: bool,
    /// Our end of it.
    pub(super) local: Option<SocketAddr>,
    /// How the log names it, once it has a number.
    pub(super) named: Option<Box<Named>>,
    /// Those of its pool when it was leased last: what is done to it between sessions.
    pub(super) settings: Arc<PoolSettings>,
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

/// Drives a reset or a check on a connection that nobody uses.
///
/// # Errors
/// It must be closed.
pub(super) async fn reset<R: Runtime>(
    connection: &mut ServerConnection<R::Socket>,
    status: TransactionStatus,
    plan: ResetPlan,
) -> Result<(), ResetFault> {
    let plan = ResetPlan { startup_query: connection.startup_query.clone(), ..plan };
    let mut reset = Reset::new(status, plan, RESET_TIME, R::now());
    loop {
        while let Some(output) = reset.poll_output() {
            match output {
                ResetOutput::Send(bytes) => {
                    if write_all(&mut connection.link, &bytes).await.is_err() {
                        reset.handle_close(Lost::Broken, R::now());
                    }
                }
                ResetOutput::Finished(ResetOutcome::Clean(parameters)) => {
                    connection.parameters.set_all(&parameters);
                    if let Some(statements) = &mut connection.statements
                        && reset.has_deallocated()
                    {
                        statements.clear();
                    }
                    return Ok(());
                }
                ResetOutput::Finished(ResetOutcome::Broken(fault)) => {
                    let level = if matches!(fault, ResetFault::Query(_)) { Level::Warn } else { Level::Debug };
                    log::log!(level, "a server connection to {} is not used (again): {fault}", connection.endpoint);
                    return Err(fault);
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

/// An error of its kind when the tick comes first.
pub(super) async fn timely<R: Runtime, T>(until: Tick, attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within the time that it may take"));
    within::<R, _>(until, attempt).await.unwrap_or_else(late)
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

pub(super) async fn read_until<R: Runtime>(
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

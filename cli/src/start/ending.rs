//! What a running proxy is told by signals and at the admin console, and how it ends.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use gprxy_proto::driver::control::{Control as _, Shutdown};
use gprxy_proto::driver::host::{Host, Signal, Signals as _};
use gprxy_proto::driver::serve;
use gprxy_proto::driver::shared::Shared;

use super::LAST_WORDS;
use super::desk::Desk;

/// How a proxy ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Idle sessions at once, others when their transactions have ended or the limit has passed.
    Drain,
    /// As somebody said at the admin console, or by a signal as PgBouncer means it.
    Told(Shutdown),
}

/// Who waits for what the operator says.
pub(super) struct Watch<H: Host> {
    pub(super) signals: H::Signals,
    pub(super) desk: Arc<Desk<H>>,
    pub(super) shared: Arc<Shared<H>>,
}

/// What was said.
enum Word {
    Signal(Signal),
    End(Shutdown),
}

impl End {
    /// Whether those at the admin console may still come, through the Unix socket.
    pub(super) const fn is_watched(self) -> bool {
        matches!(self, Self::Told(Shutdown::WaitForServers | Shutdown::WaitForClients))
    }
}

impl<H: Host> Watch<H> {
    async fn next(&mut self) -> Word {
        let mut signal = pin!(self.signals.next());
        let mut end = pin!(self.desk.next_end());
        poll_fn(|context| {
            if let Poll::Ready(how) = end.as_mut().poll(context) {
                return Poll::Ready(Word::End(how));
            }
            signal.as_mut().poll(context).map(Word::Signal)
        })
        .await
    }

    /// Does what it is told, until that is to end.
    async fn until_told_to_end(&mut self) -> End {
        loop {
            match self.next().await {
                Word::End(how) => return End::Told(how),
                Word::Signal(Signal::Hangup) => self.reload().await,
                Word::Signal(signal @ (Signal::Interrupt | Signal::Terminate)) => {
                    return match (self.desk.is_pgbouncer(), signal) {
                        (false, _) => End::Drain,
                        (true, Signal::Terminate) => End::Told(Shutdown::WaitForClients),
                        (true, _) => End::Told(Shutdown::WaitForServers),
                    };
                }
                Word::Signal(Signal::Quit) => return End::Told(Shutdown::Now),
                Word::Signal(Signal::User1) => {
                    log::info!("SIGUSR1: nobody gets a server connection until SIGUSR2");
                    self.shared.pause();
                }
                Word::Signal(Signal::User2) if self.shared.is_closed() => {
                    log::info!("got SIGUSR2 while shutting down, ignoring it");
                }
                Word::Signal(Signal::User2) => {
                    log::info!("SIGUSR2: server connections are given out again");
                    self.shared.resume();
                }
            }
        }
    }

    /// What the future comes to; `Err` when the process is told to end before.
    pub(super) async fn unless_told_to_end<T>(&mut self, future: impl Future<Output = T>) -> Result<T, End> {
        let mut end = pin!(self.until_told_to_end());
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => end.as_mut().poll(context).map(Err),
        })
        .await
    }

    async fn reload(&self) {
        log::info!("SIGHUP: the audit file is opened anew, and the settings are read again");
        self.shared.reopen_audit();
        let desk = self.desk.clone();
        // What is wrong has been logged by the desk.
        let _ = H::blocking(move || desk.reload()).await;
    }

    /// Ends the sessions, and gives those that are ended by force the time to say so.
    pub(super) async fn end(&mut self, how: End) {
        match how {
            End::Drain => self.drain().await,
            End::Told(Shutdown::Now) => self.shared.drain(),
            End::Told(Shutdown::WaitForServers) => self.wait_for_servers().await,
            End::Told(Shutdown::WaitForClients) => self.wait_for_clients().await,
        }
        self.shared.drain();
        self.shared.kill_all();
        let last_words = LAST_WORDS.saturating_add(self.desk.cancel_wait_timeout());
        let _ = serve::within::<H, _>(H::now().tick.after(last_words), self.shared.deserted()).await;
        self.shared.close_idle();
    }

    /// Lets running transactions end, up to the limit or a second signal to end.
    async fn drain(&mut self) {
        let limit = self.desk.drain_timeout();
        log::info!("shutting down: {} sessions may finish their transactions within {limit:?}", self.shared.sessions());
        self.shared.drain();
        let until = H::now().tick.after(limit);
        let shared = self.shared.clone();
        let ended = serve::within::<H, _>(until, self.unless_told_to_end(shared.emptied())).await;
        match ended {
            Some(Ok(())) => log::info!("all sessions have ended"),
            Some(Err(_)) => log::warn!("a second signal ends {} sessions now", shared.sessions()),
            None => log::warn!("the drain's limit has passed: {} sessions are ended now", shared.sessions()),
        }
    }

    /// Nobody gets a server connection any more, and who needs one is told so; all end when the last one has come back.
    async fn wait_for_servers(&mut self) {
        /// How often it is looked whether the last one has.
        const LOOK: Duration = Duration::from_millis(20);
        let shared = self.shared.clone();
        log::info!("shutting down when no server connection is in use any more");
        shared.stop_accepting();
        shared.close_pools();
        let released = async {
            shared.arrivals_ended().await;
            // Who came last may not have begun.
            serve::pause::<H>(serve::LAST_ARRIVALS).await;
            while shared.leased() > 0 {
                serve::pause::<H>(LOOK).await;
            }
        };
        if self.unless_told_to_end(released).await.is_err() {
            log::warn!("a second signal ends {} sessions now", shared.sessions());
        }
    }

    /// Nobody new is let in; the process ends when the last client has left.
    async fn wait_for_clients(&mut self) {
        let shared = self.shared.clone();
        log::info!("shutting down when the last of {} clients has left", shared.sessions());
        shared.stop_accepting();
        let emptied = async {
            shared.arrivals_ended().await;
            // Who came last may not have begun.
            serve::pause::<H>(serve::LAST_ARRIVALS).await;
            shared.emptied().await;
        };
        if self.unless_told_to_end(emptied).await.is_err() {
            log::warn!("a second signal ends {} sessions now", shared.sessions());
        }
    }
}

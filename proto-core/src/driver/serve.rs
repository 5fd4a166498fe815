//! Accepting clients, and one client's life from its first byte to its last.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::connection::{Connection, Next};
use super::link::Link;
use super::mailbox::Mailbox;
use super::runtime::{Alarm, Caller, Listener, Runtime};
pub use super::server::within;
use super::server::write_all;
use super::shared::{Arrived, Shared};
use super::tls;
use crate::codec::backend::{Severity, emit_error};
use crate::fault::{Lost, Refusal};
use crate::session::{Finish, Session, Side, shutting_down};
use crate::session_id::SessionId;

/// How long a client that was refused may still send: closing on unread bytes would reset the connection and take
/// the ErrorResponse with it.
const LINGER: Duration = Duration::from_secs(1);
/// How much of that is read.
const LINGER_BYTES: usize = 256 * 1024;
/// Who had connected before nobody was let in any more may still be on the way to the process for so long.
pub const LAST_ARRIVALS: Duration = Duration::from_millis(50);
/// The same where the kernel passes nobody new to the process: those who have begun to connect may be far away. Less than the
/// second after which others try again (RFC 6298, section 2), which is to find this socket closed.
const LAST_HANDSHAKES: Duration = Duration::from_millis(500);
/// After a failed accept (no file descriptors left, say) the next one waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts clients until nobody is to be let in any more, and then those who have connected already: closing the socket on
/// them would reset their connections, while another process may listen beside this one.
pub async fn serve<R, L>(shared: Arc<Shared<R>>, listener: L)
where
    R: Runtime,
    L: Listener<Socket = R::Socket>,
{
    accept_all(shared, listener, false).await;
}

/// The same for a Unix socket, and goes on for those at the admin console until sessions are told to end: who is stopping the
/// process on this machine may see what it waits for.
pub async fn serve_local<R, L>(shared: Arc<Shared<R>>, listener: L)
where
    R: Runtime,
    L: Listener<Socket = R::Socket>,
{
    accept_all(shared, listener, true).await;
}

async fn accept_all<R, L>(shared: Arc<Shared<R>>, listener: L, for_console: bool)
where
    R: Runtime,
    L: Listener<Socket = R::Socket>,
{
    let mut closed = pin!(shared.accepting_ended());
    let mut ending = pin!(shared.draining_begun());
    let (mut last, mut console_only) = (None, false);
    let mut accepting = Some(shared.begin_accepting());
    let mut failures = 0_u64;
    loop {
        let accepted = {
            let mut accept = pin!(listener.accept());
            poll_fn(|context| {
                if last.is_none() && closed.as_mut().poll(context).is_ready() {
                    let mut alarm = R::alarm();
                    alarm.set(Some(R::now().tick.after(last_arrivals(&listener))));
                    last = Some(alarm);
                }
                if let Poll::Ready(accepted) = accept.as_mut().poll(context) {
                    return Poll::Ready(Some(accepted));
                }
                if let Some(alarm) = last.as_mut().filter(|_| !console_only) {
                    match alarm.poll(context) {
                        Poll::Ready(()) => {
                            console_only = true;
                            accepting = None;
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
                match console_only {
                    true if for_console => ending.as_mut().poll(context).map(|()| None),
                    true => Poll::Ready(None),
                    false => Poll::Pending,
                }
            })
            .await
        };
        match accepted {
            None => return,
            Some(Ok((socket, caller))) => {
                failures = 0;
                R::spawn(client(shared.clone(), socket, caller, console_only));
            }
            Some(Err(error)) => {
                failures += 1;
                // The 1st, 2nd, 4th, 8th ... of a row: a shortage of descriptors may last for hours.
                if failures.is_power_of_two() {
                    log::error!("accepting a client failed ({failures} times in a row): {error}");
                }
                pause::<R>(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// For how long clients are still accepted.
fn last_arrivals<L: Listener>(listener: &L) -> Duration {
    match listener.turn_away() {
        Ok(true) => LAST_HANDSHAKES,
        Ok(false) => LAST_ARRIVALS,
        Err(error) => {
            log::warn!("clients that connect at this moment may be refused: {error}");
            LAST_ARRIVALS
        }
    }
}

/// Waits.
pub async fn pause<R: Runtime>(span: Duration) {
    let mut alarm = R::alarm();
    alarm.set(Some(R::now().tick.after(span)));
    poll_fn(|context| alarm.poll(context)).await;
}

/// One client. `console_only`: whoever wants something else is told that the process is being stopped.
async fn client<R: Runtime>(shared: Arc<Shared<R>>, socket: R::Socket, caller: Caller, console_only: bool) {
    let terms = shared.terms();
    if let Some(refusal) = terms.profile.gate.as_ref().and_then(|gate| gate.refuse_peer(caller.uid)) {
        log::warn!("a client from {} is refused: {refusal}", caller.address);
        return Box::pin(refuse_at_the_door::<R>(socket, &refusal)).await;
    }
    let Arrived { id, crowded, mailbox, card } = match shared.arrive(&caller.address, R::local_address(&socket)) {
        Ok(arrived) => arrived,
        // Boxed, as are the handshake and the farewell: their buffers would be part of every session's task.
        Err(refusal) => return Box::pin(refuse_at_the_door::<R>(socket, &refusal)).await,
    };
    if let Err(error) = R::tune(&socket, &terms.profile.sockets) {
        log::warn!("session {id}: the socket's options cannot be set: {error}");
    }
    let mut session = Session::new(id, terms.profile.clone(), caller.into(), R::now());
    let crowded = crowded.or_else(|| console_only.then(shutting_down));
    if let Some(refusal) = crowded {
        session.handle_crowd(refusal);
    }
    let _guard = Departure { shared: shared.clone(), id, mailbox: mailbox.clone() };
    let mut connection = Box::new(Connection::new(shared, terms, session, mailbox, card, socket));
    let finish = loop {
        match poll_fn(|context| connection.poll(context)).await {
            Next::StartTls => Box::pin(start_tls(&mut connection)).await,
            Next::End(finish) => break finish,
        }
    };
    // Who connects behind this one finds the place free, even if its last bytes are still on their way.
    connection.shared.with_hub(|hub, _| hub.handle_end(id));
    if let Some(mut link) = connection.client.take() {
        drop(connection);
        Box::pin(farewell::<R, _>(&mut link, &finish)).await;
    }
}

/// Signs the client off, also when its task is dropped or panics.
struct Departure<R: Runtime> {
    shared: Arc<Shared<R>>,
    id: SessionId,
    mailbox: Arc<Mailbox>,
}

impl<R: Runtime> Drop for Departure<R> {
    fn drop(&mut self) {
        self.shared.depart(self.id, &self.mailbox);
    }
}

async fn start_tls<R: Runtime>(connection: &mut Connection<R>) {
    let Some(config) = connection.terms.tls.clone() else { return };
    let Some(socket) = connection.take_client_for_tls() else { return };
    let until = connection.session.poll_timeout().map_or_else(|| R::now().tick, |deadline| deadline.at);
    match within::<R, _>(until, tls::accept(config, socket)).await {
        Some(Ok((link, encryption, alpn))) => {
            connection.client = Some(link);
            connection.session.handle_tls(encryption, alpn.as_deref(), R::now());
            connection.from_client.waiting = false;
        }
        Some(Err(error)) => {
            log::info!("session {}: TLS with the client failed: {error}", connection.session.id());
            connection.session.handle_close(Side::Client, Lost::Broken, R::now());
        }
        None => connection.session.handle_timeout(R::now()),
    }
}

/// Nothing is read of a client of the wrong user of this machine, or of one so far beyond the limit that it is not even
/// listened to: said in plain, since no TLS was set up.
async fn refuse_at_the_door<R: Runtime>(socket: R::Socket, refusal: &Refusal) {
    let mut bytes = Vec::new();
    emit_error(&mut bytes, Severity::Fatal, refusal);
    let mut link = Link::Plain(socket);
    let until = R::now().tick.after(LINGER);
    let _ = within::<R, _>(until, write_all(&mut link, &bytes)).await;
    farewell::<R, _>(&mut link, &Finish::Refused(refusal.clone())).await;
}

/// Closes the client's side so that its last bytes arrive.
async fn farewell<R: Runtime, S: super::runtime::Socket>(link: &mut Link<S>, finish: &Finish) {
    let until = R::now().tick.after(LINGER);
    let lingering = matches!(finish, Finish::Refused(_) | Finish::Broken(..) | Finish::Drained);
    let _ = within::<R, _>(until, async {
        poll_fn(|context| link.poll_close(context)).await?;
        let mut unread = [0; 4096];
        let mut left = if lingering { LINGER_BYTES } else { 0 };
        while left > 0 {
            match poll_fn(|context| link.poll_read(context, &mut unread)).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        io::Result::Ok(())
    })
    .await;
}

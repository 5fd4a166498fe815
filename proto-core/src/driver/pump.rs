//! The moving of bytes between a client and its server: what is read from one side, judged, and written to the other.

use std::task::{Context, Poll, ready};

use super::connection::Connection;
use super::link::Link;
use super::replayed::Replayed;
use super::runtime::Runtime;
use super::server::ServerConnection;
use crate::fault::Lost;
use crate::session::{Side, Verdict};
use crate::time::Now;

/// Answers of the proxy's own that a client may leave unread before nothing more is taken from it, in bytes.
const MOST_UNREAD: usize = 64 * 1024;

impl<R: Runtime> Connection<R> {
    /// One pass over client → server: what is read is written at once. Whether anything moved.
    pub(super) fn poll_client_to_server(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        let Poll::Ready(mut moved) = self.poll_write_server(context) else { return false };
        moved |= self.judge(Side::Client, now);
        if self.poll_read(Side::Client, context, now) {
            moved = true;
            let _ = self.poll_write_server(context);
        }
        moved
    }

    pub(super) fn poll_server_to_client(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        let Poll::Ready(mut moved) = self.poll_write_client(context, now) else { return false };
        moved |= self.judge(Side::Server, now);
        if self.poll_read(Side::Server, context, now) {
            moved = true;
            let _ = self.poll_write_client(context, now);
        }
        moved
    }

    /// Whether anything moved, once all is written.
    fn poll_write_server(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Some(server) = &mut self.server else { return Poll::Ready(false) };
        let idle = self.to_server.is_empty();
        if ready!(self.to_server.poll_write(&mut server.link, &mut self.from_client, context)).is_ok() {
            return Poll::Ready(!idle);
        }
        // What the server said last is still to be read; its end shows there.
        self.to_server.drop_all();
        self.from_client.clear();
        self.from_client.closed = true;
        Poll::Ready(true)
    }

    fn poll_write_client(&mut self, context: &mut Context<'_>, now: Now) -> Poll<bool> {
        let Some(client) = &mut self.client else { return Poll::Pending };
        let idle = self.to_client.is_empty();
        if ready!(self.to_client.poll_write(client, &mut self.from_server, context)).is_ok() {
            return Poll::Ready(!idle);
        }
        self.dropped_unjudged |= self.from_server.len() != self.to_client.span();
        self.to_client.drop_all();
        self.from_server.clear();
        self.client = None;
        self.session.handle_close(Side::Client, Lost::Broken, now);
        Poll::Ready(true)
    }

    /// Shows the machine what has come from a side.
    fn judge(&mut self, side: Side, now: Now) -> bool {
        let mut moved = false;
        loop {
            let (from, to) = match side {
                Side::Client => (&mut self.from_client, &mut self.to_server),
                Side::Server => (&mut self.from_server, &mut self.to_client),
            };
            if from.is_empty() || from.waiting || !to.is_empty() || self.start_tls || self.finish.is_some() {
                return moved;
            }
            if side == Side::Client && self.to_client.own() > MOST_UNREAD {
                return moved;
            }
            let verdict = self.session.handle_input(side, from.bytes(), now);
            match verdict {
                Verdict::Wait => from.waiting = true,
                Verdict::Take(n) => {
                    from.consume(n);
                    if side == Side::Server {
                        self.from_client.waiting = false;
                    }
                }
                Verdict::Forward(_) => {}
            }
            self.carry_out(now);
            moved = true;
            if let Verdict::Forward(n) = verdict {
                self.gauge.forwarded(side == Side::Client, n);
                match side {
                    Side::Client => self.to_server.forward(n),
                    Side::Server => {
                        // Answers make room for operations that were held back.
                        self.from_client.waiting = false;
                        self.to_client.forward(n);
                    }
                }
                return true;
            }
        }
    }

    fn poll_read(&mut self, side: Side, context: &mut Context<'_>, now: Now) -> bool {
        // Who is not served yet may be on the way to the console, where a suspension ends.
        let suspended = self.suspended.is_some() && self.session.facts().is_some();
        if self.start_tls || self.finish.is_some() || !self.session.wants_input(side) || suspended {
            return false;
        }
        let result = match side {
            Side::Client => {
                let Some(link) = &mut self.client else { return false };
                if self.from_client.closed || !self.to_server.is_empty() {
                    return false;
                }
                self.from_client.poll_read(link, context)
            }
            Side::Server => {
                let Some(server) = &mut self.server else { return false };
                if self.from_server.closed || !self.to_client.is_empty() {
                    return false;
                }
                self.from_server.poll_read(&mut server.link, context)
            }
        };
        let how = match result {
            Poll::Pending => return false,
            Poll::Ready(Ok(n)) if n > 0 => {
                self.judge(side, now);
                return true;
            }
            Poll::Ready(Ok(_)) => Lost::Closed,
            Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Lost::Closed,
            Poll::Ready(Err(_)) => Lost::Broken,
        };
        match side {
            Side::Client => self.from_client.closed = true,
            Side::Server => self.from_server.closed = true,
        }
        self.session.handle_close(side, how, now);
        true
    }

    /// The client's socket for its handshake, and what was read of it already.
    pub(super) fn take_client_for_tls(&mut self) -> Option<Replayed<R::Socket>> {
        match self.client.take() {
            Some(Link::Plain(mut socket)) => {
                socket.replay(self.from_client.take_rest());
                Some(socket)
            }
            encrypted => {
                self.client = encrypted;
                None
            }
        }
    }

    /// Takes the server connection away. Bytes half written to it, or read from it and never looked at, mean that
    /// its state is not known.
    pub(super) fn take_server(&mut self) -> (Option<ServerConnection<R::Socket>>, bool) {
        let judged = !self.dropped_unjudged && self.from_server.len() == self.to_client.span();
        let certain = judged && self.to_server.is_empty();
        self.to_server.drop_all();
        self.from_client.clear();
        (self.server.take(), certain)
    }

    /// The same between two transactions. What was read from the server has been judged, and goes to the client behind this.
    pub(super) fn take_server_between(&mut self) -> (Option<ServerConnection<R::Socket>>, bool) {
        let certain = !self.dropped_unjudged && self.to_server.is_empty() && !self.from_server.closed;
        (self.server.take(), certain)
    }
}

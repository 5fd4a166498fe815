//! The task around a [`Backend`]: a scripted server on a virtual socket.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::AsyncWrite;
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;

use super::super::corp;
use super::super::postgres::{Backend, Ending, Postgres};
use super::super::wire::front;
use super::runtime::{Handle, Sim, SimAlarm, SimListener, SimSocket, sleep};
use crate::driver::link::Link;
use crate::driver::runtime::{Alarm, Listener, Runtime};
use crate::policy::Endpoint;

/// Accepts for ever.
pub(super) async fn serve(postgres: Postgres, endpoint: Endpoint, tls: Option<Arc<ServerConfig>>) {
    let listener = SimListener::new(Handle::current(), endpoint);
    while let Ok((socket, _)) = listener.accept().await {
        Handle::current().spawn(connection(postgres.clone(), socket, tls.clone()));
    }
}

async fn connection(postgres: Postgres, socket: SimSocket, tls: Option<Arc<ServerConfig>>) {
    let mut server = Server {
        backend: Backend::new(&postgres),
        link: Link::Plain(socket),
        out: Vec::new(),
        at: 0,
        alarm: Sim::alarm(),
    };
    if let Some(tls) = tls {
        match encrypted(server.link, tls).await {
            Ok((link, front)) => {
                server.link = link;
                server.backend.handle_input(&front, corp::at(Handle::time()));
            }
            Err(_) => return,
        }
    }
    let outcome = poll_fn(|context| server.poll(context)).await;
    match outcome {
        Outcome::Cancel(pid, key) => {
            // PostgreSQL forks, signals, and only then closes.
            let pause = Handle::current().core().dice.below(5_000_000);
            sleep(Duration::from_nanos(pause)).await;
            postgres.cancel(pid, &key);
            Handle::current().core().note(|| format!("cancel of backend {pid} is carried out"));
        }
        Outcome::Over(Ending::Reset) => match &mut server.link {
            Link::Plain(socket) => socket.reset(),
            Link::Accepted(stream) => stream.get_mut().0.reset(),
            Link::Connected(_) => {}
        },
        // Nobody may be there any more to read the goodbye.
        Outcome::Over(Ending::Close) => drop(poll_fn(|context| server.link.poll_close(context)).await),
    }
}

/// TLS, when the first packet asks for it; otherwise that packet.
async fn encrypted(mut link: Link<SimSocket>, tls: Arc<ServerConfig>) -> io::Result<(Link<SimSocket>, Vec<u8>)> {
    // No first packet is shorter than an SSLRequest.
    let mut first = [0; 8];
    let mut have = 0;
    while have < first.len() {
        match poll_fn(|context| link.poll_read(context, &mut first[have..])).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    let Link::Plain(mut socket) = link else { return Ok((link, first.to_vec())) };
    if first[..] != front::ssl_request() {
        return Ok((Link::Plain(socket), first.to_vec()));
    }
    while poll_fn(|context| Pin::new(&mut socket).poll_write(context, b"S")).await? == 0 {}
    let stream = TlsAcceptor::from(tls).accept(socket).await?;
    Ok((Link::Accepted(Box::new(stream)), Vec::new()))
}

enum Outcome {
    Cancel(u32, Vec<u8>),
    Over(Ending),
}

struct Server {
    backend: Backend,
    link: Link<SimSocket>,
    out: Vec<u8>,
    /// How much of it is written.
    at: usize,
    alarm: SimAlarm,
}

impl Server {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        self.backend.register(context.waker());
        self.backend.handle_timeout(corp::at(Handle::time()));
        loop {
            if let Some(bytes) = self.backend.poll_output() {
                self.out.extend(bytes);
            }
            if let Some((pid, key)) = self.backend.take_cancel() {
                return Poll::Ready(Outcome::Cancel(pid, key));
            }
            let writing = self.poll_write(context);
            if writing.is_ready()
                && let Some(ending) = self.backend.ending()
            {
                return Poll::Ready(Outcome::Over(ending));
            }
            self.backend.register(context.waker());
            self.alarm.set(self.backend.poll_timeout());
            let late = self.alarm.poll(context).is_ready();
            if late {
                self.backend.handle_timeout(corp::at(Handle::time()));
                continue;
            }
            // A server that cannot write does not read: its memory is bounded, too.
            if writing.is_pending() {
                return Poll::Pending;
            }
            let mut buffer = [0; 4096];
            match self.link.poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n)) if n > 0 => {
                    let now = corp::at(Handle::time());
                    self.backend.handle_input(&buffer[..n], now);
                }
                Poll::Ready(_) => {
                    self.backend.handle_close();
                    return Poll::Ready(Outcome::Over(Ending::Close));
                }
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.at < self.out.len() {
            match self.link.poll_write(context, &self.out[self.at..], &[]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(io::Result::Ok(n)) => self.at += n,
                Poll::Ready(Err(_)) => self.at = self.out.len(),
            }
        }
        self.out.clear();
        self.at = 0;
        self.link.poll_flush(context).map(drop)
    }
}

//! The task around a [`Backend`]: a scripted server on a virtual socket.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};

use super::super::corp;
use super::super::postgres::{Backend, Ending, Postgres};
use super::runtime::{Handle, Sim, SimAlarm, SimListener, SimSocket, sleep};
use crate::driver::runtime::{Alarm, Listener, Runtime};
use crate::policy::Endpoint;

/// Accepts for ever.
pub(super) async fn serve(postgres: Postgres, endpoint: Endpoint) {
    let listener = SimListener::new(Handle::current(), endpoint);
    while let Ok((socket, _)) = listener.accept().await {
        Handle::current().spawn(connection(postgres.clone(), socket));
    }
}

async fn connection(postgres: Postgres, socket: SimSocket) {
    let mut server = Server { backend: Backend::new(&postgres), socket, out: Vec::new(), at: 0, alarm: Sim::alarm() };
    let outcome = poll_fn(|context| server.poll(context)).await;
    match outcome {
        Outcome::Cancel(pid, key) => {
            // PostgreSQL forks, signals, and only then closes.
            let pause = Handle::current().core().dice.below(5_000_000);
            sleep(Duration::from_nanos(pause)).await;
            postgres.cancel(pid, &key);
            Handle::current().core().note(|| format!("cancel of backend {pid} is carried out"));
        }
        Outcome::Over(Ending::Reset) => server.socket.reset(),
        Outcome::Over(Ending::Close) => {}
    }
}

enum Outcome {
    Cancel(u32, Vec<u8>),
    Over(Ending),
}

struct Server {
    backend: Backend,
    socket: SimSocket,
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
            match Pin::new(&mut self.socket).poll_read(context, &mut buffer) {
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
            match Pin::new(&mut self.socket).poll_write(context, &self.out[self.at..]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(io::Result::Ok(n)) => self.at += n,
                Poll::Ready(Err(_)) => self.at = self.out.len(),
            }
        }
        self.out.clear();
        self.at = 0;
        Poll::Ready(())
    }
}

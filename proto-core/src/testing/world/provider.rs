//! The identity provider's web server, in memory: a transport for `ureq` that answers by itself.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use ureq::Error;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::super::corp;
use super::runtime::lock;

/// What the provider answers; `Err` is a connection that does not come about.
type Answer = Result<(u16, Vec<u8>), io::ErrorKind>;

/// The provider. Clones are the same one.
#[derive(Clone)]
pub struct Provider(Arc<Mutex<State>>);

struct State {
    answer: Answer,
    requests: u32,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}

impl Provider {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { answer: Ok((200, corp::key_document())), requests: 0 })))
    }

    /// What it answers from now on.
    pub fn set(&self, answer: Answer) {
        lock(&self.0).answer = answer;
    }

    /// How often it was asked.
    #[must_use]
    pub fn requests(&self) -> u32 {
        lock(&self.0).requests
    }

    pub(super) fn agent(&self) -> ureq::Agent {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(0).build();
        ureq::Agent::with_parts(config, self.clone(), Anywhere)
    }
}

impl Connector for Provider {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Wire>, Error> {
        let mut state = lock(&self.0);
        state.requests += 1;
        let (status, body) = state.answer.clone().map_err(|kind| Error::Io(kind.into()))?;
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Wire { buffers, answer: [head.as_bytes(), &body].concat(), at: 0 }))
    }
}

/// A connection that has its answer before it is asked.
#[derive(Debug)]
pub struct Wire {
    buffers: LazyBuffers,
    answer: Vec<u8>,
    at: usize,
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), Error> {
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let room = self.buffers.input_append_buf();
        let n = room.len().min(self.answer.len() - self.at);
        room[..n].copy_from_slice(&self.answer[self.at..self.at + n]);
        self.at += n;
        self.buffers.input_appended(n);
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Anywhere;

impl Resolver for Anywhere {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(std::net::SocketAddr::from(([192, 0, 2, 99], 443)));
        Ok(addresses)
    }
}

//! A scripted client on a virtual socket.

use std::future::poll_fn;
use std::time::Duration;

use futures_rustls::TlsConnector;
use futures_rustls::rustls::pki_types::ServerName;

use super::super::corp;
use super::super::wire::{Message, Tape, front};
use super::runtime::{Handle, Sim, SimSocket};
use crate::codec::startup::PROTOCOL_3_0;
use crate::driver::link::Link;

/// The connection has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

/// A client.
pub struct Client {
    /// Its name in the transcript, and the tag of what it sends.
    pub name: String,
    /// What BackendKeyData said.
    pub key: Option<(u32, Vec<u8>)>,
    /// ParameterStatus messages, in order.
    pub parameters: Vec<Message>,
    /// `None` in the middle of a handshake.
    link: Option<Link<SimSocket>>,
    tape: Tape,
    received: Vec<u8>,
}

impl Client {
    /// Connects to the proxy.
    #[must_use]
    pub fn dial(name: &str) -> Self {
        let handle = Handle::current();
        let near = {
            let mut core = handle.core();
            let [near, far] = core.connect(name, "client", "gprxy");
            core.knock(&super::front_door(), far);
            near
        };
        Self {
            name: name.into(),
            key: None,
            parameters: Vec::new(),
            link: Some(Link::Plain(SimSocket::new(handle, &near))),
            tape: Tape::new(),
            received: Vec::new(),
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When nobody takes them.
    pub async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        let link = self.link.as_mut().ok_or(Gone)?;
        while !bytes.is_empty() {
            let written = poll_fn(|context| link.poll_write(context, bytes, &[])).await;
            bytes = &bytes[written.map_err(|_| Gone)?..];
        }
        poll_fn(|context| link.poll_flush(context)).await.map_err(|_| Gone)
    }

    /// The next bytes, however many there are.
    ///
    /// # Errors
    /// At the end.
    pub async fn read(&mut self) -> Result<(), Gone> {
        let mut buffer = [0; 8192];
        let link = self.link.as_mut().ok_or(Gone)?;
        let read = poll_fn(|context| link.poll_read(context, &mut buffer)).await;
        match read {
            Ok(n) if n > 0 => {
                self.tape.push(&buffer[..n]);
                self.received.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            _ => Err(Gone),
        }
    }

    /// The next bytes, if any come within this time. Whether any did.
    pub async fn read_within(&mut self, span: Duration) -> bool {
        let until = corp::at(Handle::time()).tick.after(span);
        matches!(crate::driver::serve::within::<Sim, _>(until, self.read()).await, Some(Ok(())))
    }

    /// The next message.
    ///
    /// # Errors
    /// At the end.
    pub async fn next(&mut self) -> Result<Message, Gone> {
        loop {
            if let Some(message) = self.tape.next() {
                return Ok(message);
            }
            self.read().await?;
        }
    }

    /// One byte, as an answer to SSLRequest.
    ///
    /// # Errors
    /// At the end.
    pub async fn byte(&mut self) -> Result<u8, Gone> {
        loop {
            if let Some(byte) = self.tape.cut(1) {
                return Ok(byte[0]);
            }
            self.read().await?;
        }
    }

    /// Asks for TLS and sets it up, where the clients of this world speak it.
    async fn encrypt(&mut self) -> Result<(), Gone> {
        let config = Handle::current().core().client_tls.clone();
        let Some(config) = config.filter(|_| matches!(self.link, Some(Link::Plain(_)))) else { return Ok(()) };
        self.send(&front::ssl_request()).await?;
        if self.byte().await? != b'S' {
            return Err(Gone);
        }
        let Some(Link::Plain(socket)) = self.link.take() else { return Err(Gone) };
        let name = ServerName::try_from(super::FRONT_HOST).map_err(|_| Gone)?;
        let stream = TlsConnector::from(config).connect(name, socket).await.map_err(|_| Gone)?;
        self.link = Some(Link::Connected(Box::new(stream)));
        Ok(())
    }

    /// Whether the stream stands, or has ended, inside a message.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        !self.tape.rest().is_empty()
    }

    /// What has come of a message that is not whole yet.
    #[must_use]
    pub fn torn(&self) -> &[u8] {
        self.tape.rest()
    }

    /// Everything that this client has ever received.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Logs in with a startup packet and a password or token. The messages up to ReadyForQuery, or to the error.
    ///
    /// # Errors
    /// When the connection ends before either.
    pub async fn log_in(&mut self, user: &str, secret: &[u8], extra: &[(&str, &str)]) -> Result<Vec<Message>, Gone> {
        self.log_in_to(corp::DATABASE, user, secret, extra).await
    }

    /// The same in any database.
    ///
    /// # Errors
    /// When the connection ends before either.
    pub async fn log_in_to(
        &mut self,
        database: &str,
        user: &str,
        secret: &[u8],
        extra: &[(&str, &str)],
    ) -> Result<Vec<Message>, Gone> {
        let pairs = [&[("user", user), ("database", database)], extra].concat();
        self.encrypt().await?;
        self.send(&front::startup(PROTOCOL_3_0, &pairs)).await?;
        self.send(&front::password(secret)).await?;
        let mut messages = Vec::new();
        loop {
            let message = self.next().await?;
            match message.tag {
                b'K' => {
                    let (pid, key) = message.body.split_at(4);
                    let pid = pid.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                    self.key = Some((pid, key.to_vec()));
                }
                b'S' => self.parameters.push(message.clone()),
                _ => {}
            }
            let last = matches!(message.tag, b'Z' | b'E');
            messages.push(message);
            if last {
                return Ok(messages);
            }
        }
    }

    /// Logs in as a person of the company with these roles.
    ///
    /// # Errors
    /// When the connection ends before the login is over.
    pub async fn log_in_with_token(&mut self, subject: &str, roles: &[&str]) -> Result<Vec<Message>, Gone> {
        let now = corp::at(Handle::time());
        let token = corp::token(subject, roles, now);
        self.log_in(&format!("{subject}@corp.example"), &token, &[]).await
    }

    /// Sends and collects everything up to `n` ReadyForQuery messages.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn exchange(&mut self, bytes: &[u8], mut n: usize) -> Result<Vec<Message>, Gone> {
        self.send(bytes).await?;
        let mut messages = Vec::new();
        while n > 0 {
            let message = self.next().await?;
            if message.tag == b'Z' {
                n -= 1;
            }
            messages.push(message);
        }
        Ok(messages)
    }

    /// The same, as long as it takes no longer than that; `None` also when the connection ends before.
    pub async fn exchange_within(&mut self, bytes: &[u8], n: usize, span: Duration) -> Option<Vec<Message>> {
        let until = corp::at(Handle::time()).tick.after(span);
        crate::driver::serve::within::<Sim, _>(until, self.exchange(bytes, n)).await?.ok()
    }

    /// A simple query and its answer, ReadyForQuery included.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn query(&mut self, text: &str) -> Result<Vec<Message>, Gone> {
        self.exchange(&front::query(text), 1).await
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Ok(message) = self.next().await {
            messages.push(message);
        }
        messages
    }

    /// Leaves in order.
    pub async fn leave(mut self) {
        if self.send(&front::terminate()).await.is_ok() {
            self.rest().await;
        }
    }

    /// Vanishes without a word: the socket is reset.
    pub fn vanish(mut self) {
        match &mut self.link {
            Some(Link::Plain(socket)) => socket.reset(),
            Some(Link::Connected(stream)) => stream.get_mut().0.reset(),
            Some(Link::Accepted(_)) | None => {}
        }
    }

    /// Asks to cancel what the owner of this key runs, on a connection of its own, and waits for its end.
    ///
    /// # Panics
    /// When it is answered. A proxy that shuts down says so before it has read what is wanted of it.
    pub async fn cancel(name: &str, pid: u32, key: &[u8]) {
        let mut other = Self::dial(name);
        if other.encrypt().await.is_ok() && other.send(&front::cancel_request(pid, key)).await.is_ok() {
            let answer = other.rest().await;
            let is_farewell = |message: &Message| matches!(&*message.code(), "57P01" | "57P03");
            assert!(answer.iter().all(is_farewell), "a cancel request is never answered: {answer:?}");
        }
    }

    /// Waits.
    pub async fn pause(&self, span: Duration) {
        super::runtime::sleep(span).await;
    }
}

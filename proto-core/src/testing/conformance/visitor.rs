//! A scripted client of a proxy, on a socket of the runtime.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use super::super::corp;
use super::super::wire::{Message, Tape, front};
use super::proxy::encrypt;
use crate::codec::startup::PROTOCOL_3_0;
use crate::driver::host::Host;
use crate::driver::link::Link;
use crate::driver::serve::within;

/// Who cannot write for so long stands before something full. Only a guess too early makes a test weaker, none wrong.
const STUCK: Duration = Duration::from_millis(200);

/// A client.
pub(super) struct Visitor<H: Host> {
    /// `None` only while TLS is set up.
    link: Option<Link<H::Socket>>,
    tape: Tape,
    /// What BackendKeyData said.
    pub(super) key: (u32, Vec<u8>),
    /// It reads no more than so many bytes at once.
    pub(super) crumbs: usize,
}

impl<H: Host> Visitor<H> {
    pub(super) fn new(socket: H::Socket) -> Self {
        Self { link: Some(Link::Plain(socket)), tape: Tape::new(), key: (0, Vec::new()), crumbs: 64 * 1024 }
    }

    fn link(&mut self) -> &mut Link<H::Socket> {
        self.link.as_mut().expect("TLS is set up or not wanted")
    }

    /// Asks for TLS and gets it.
    pub(super) async fn start_tls(&mut self) {
        self.send(&front::ssl_request()).await.expect("the proxy is there");
        assert_eq!(self.byte().await, Some(b'S'));
        let Some(Link::Plain(socket)) = self.link.take() else { panic!("TLS twice") };
        self.link = Some(encrypt::<H>(socket).await);
    }

    pub(super) async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let link = self.link();
            let n = poll_fn(|context| link.poll_write(context, bytes, &[])).await?;
            bytes = &bytes[n..];
        }
        let link = self.link();
        poll_fn(|context| link.poll_flush(context)).await
    }

    /// Sends this over and over until nothing more is taken for a while, or so much is; how much was.
    pub(super) async fn send_until_stuck(&mut self, bytes: &[u8], most: usize) -> usize {
        let mut sent = 0;
        while sent < most {
            let link = self.link.as_mut().expect("TLS is set up or not wanted");
            let rest = &bytes[sent % bytes.len()..];
            let until = H::now().tick.after(STUCK);
            match within::<H, _>(until, poll_fn(|context| link.poll_write(context, rest, &[]))).await {
                Some(n) => sent += n.expect("the proxy is there"),
                None => break,
            }
        }
        sent
    }

    /// A byte in each write, and everybody else's turn between them.
    pub(super) async fn send_slowly(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(&[*byte]).await.expect("the proxy is there");
            super::yield_now().await;
        }
    }

    /// Nothing more is sent; answers can still be read.
    pub(super) async fn half_close(&mut self) {
        let link = self.link();
        poll_fn(|context| link.poll_close(context)).await.expect("the proxy is there");
    }

    /// Reads once. Whether anything came before the end.
    async fn read(&mut self) -> bool {
        let mut buffer = vec![0; self.crumbs];
        let link = self.link();
        match poll_fn(|context| link.poll_read(context, &mut buffer)).await {
            Ok(n) if n > 0 => {
                self.tape.push(&buffer[..n]);
                true
            }
            _ => false,
        }
    }

    pub(super) async fn byte(&mut self) -> Option<u8> {
        loop {
            if let Some(byte) = self.tape.cut(1) {
                return Some(byte[0]);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Reads so many bytes and drops them.
    pub(super) async fn skip(&mut self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let n = left.min(self.tape.rest().len());
            self.tape.cut(n);
            left -= n;
            assert!(left == 0 || self.read().await, "an answer of {bytes} bytes or more");
        }
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.tape.next() {
                return Some(message);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The password or token of a person with role `writer`, behind a startup packet.
    pub(super) fn introduction(subject: &str) -> (Vec<u8>, Vec<u8>) {
        let user = format!("{subject}@corp.example");
        let packet = front::startup(PROTOCOL_3_0, &[("user", &user), ("database", corp::DATABASE)]);
        (packet, front::password(&corp::token(subject, &["writer"], H::now())))
    }

    /// Logs in; the message that ended it, ReadyForQuery or an error.
    pub(super) async fn log_in(&mut self, subject: &str) -> Message {
        let (packet, password) = Self::introduction(subject);
        self.send(&packet).await.expect("the proxy is there");
        self.send(&password).await.expect("the proxy is there");
        self.finish_login().await
    }

    pub(super) async fn finish_login(&mut self) -> Message {
        loop {
            let message = self.next().await.expect("a login ends with a word");
            self.note_key(&message);
            if matches!(message.tag, b'Z' | b'E') {
                return message;
            }
        }
    }

    /// Reads up to the key, which comes before a connection to the server does.
    pub(super) async fn read_key(&mut self) {
        while self.key.1.is_empty() {
            let message = self.next().await.expect("the login goes on");
            assert_ne!(message.tag, b'E', "{}", message.brief());
            self.note_key(&message);
        }
    }

    fn note_key(&mut self, message: &Message) {
        if message.tag == b'K' {
            let (pid, key) = message.body.split_first_chunk().expect("a number and a key");
            self.key = (u32::from_be_bytes(*pid), key.to_vec());
        }
    }

    /// Everything up to ReadyForQuery, or to the end.
    pub(super) async fn answer(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            let last = message.tag == b'Z';
            messages.push(message);
            if last {
                break;
            }
        }
        messages
    }

    /// A simple query and its answer.
    pub(super) async fn query(&mut self, text: &str) -> Vec<Message> {
        self.send(&front::query(text)).await.expect("the proxy is there");
        self.answer().await
    }

    /// The one value of a query.
    pub(super) async fn value(&mut self, text: &str) -> Vec<u8> {
        let answer = self.query(text).await;
        let row = answer.iter().find(|message| message.tag == b'D');
        row.unwrap_or_else(|| panic!("no row from {text}: {answer:?}")).value().to_vec()
    }

    /// Leaves in order.
    pub(super) async fn leave(mut self) {
        self.send(&front::terminate()).await.expect("the proxy is there");
        while self.next().await.is_some() {}
    }
}

//! A frontend made of bytes: it says exactly what a test tells it to, also what no driver would.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::target::Target;

/// Request codes in place of a protocol version (PostgreSQL manual, section 55.7).
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
pub(crate) const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
pub(crate) const V3_0: i32 = 0x0003_0000;
pub(crate) const V3_2: i32 = 0x0003_0002;

/// One message of the backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) tag: char,
    pub(crate) body: Vec<u8>,
}

/// An ErrorResponse or NoticeResponse.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Complaint {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Message {
    /// The fields of an `E` or `N` message.
    pub(crate) fn complaint(&self) -> Complaint {
        let mut fields = BTreeMap::new();
        for field in self.body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
            fields.insert(field[0], String::from_utf8_lossy(&field[1..]).into_owned());
        }
        let mut take = |field: u8| fields.remove(&field).unwrap_or_default();
        Complaint { severity: take(b'V'), code: take(b'C'), message: take(b'M') }
    }

    /// The columns of a DataRow as text.
    pub(crate) fn columns(&self) -> Vec<Option<String>> {
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = i32::from_be_bytes(*length);
            let (value, tail) = tail.split_at(usize::try_from(length).unwrap_or(0));
            columns.push((length >= 0).then(|| String::from_utf8_lossy(value).into_owned()));
            rest = tail;
        }
        columns
    }
}

/// Frames a message with its tag.
pub(crate) fn frame(tag: char, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag as u8];
    message.extend(i32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend(body);
    message
}

/// A simple query.
pub(crate) fn query(sql: &str) -> Vec<u8> {
    frame('Q', format!("{sql}\0").as_bytes())
}

/// Parse without parameter types.
pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame('P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Bind of text parameters to the unnamed portal, results as text.
pub(crate) fn bind(statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = format!("\0{statement}\0\0\0").into_bytes();
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        body.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    frame('B', &body)
}

/// Describe of the unnamed portal and Execute without a row limit.
pub(crate) fn describe_and_execute() -> Vec<u8> {
    [frame('D', b"P\0"), frame('E', b"\0\0\0\0\0")].concat()
}

/// Sync.
pub(crate) fn sync() -> Vec<u8> {
    frame('S', b"")
}

/// A startup packet of any version.
pub(crate) fn startup(version: i32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    let mut packet = i32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection.
pub(crate) struct Wire {
    stream: Stream,
    /// What the server reported while logging in and since.
    pub(crate) parameters: BTreeMap<String, String>,
    /// Process id and secret for a cancel request.
    pub(crate) key: (i32, Vec<u8>),
    /// Notices so far.
    pub(crate) notices: Vec<Complaint>,
}

/// Over TCP, or at the Unix socket in the directory that is the target's host. Both are sockets to the kernel, and none of
/// what is done with them here is TCP's own.
fn connect(target: &Target) -> io::Result<TcpStream> {
    if target.host.starts_with('/') {
        let stream = UnixStream::connect(format!("{}/.s.PGSQL.{}", target.host, target.port))?;
        return Ok(OwnedFd::from(stream).into());
    }
    let host = if target.host == "::1" { "::1" } else { "127.0.0.1" };
    let stream = TcpStream::connect((host, target.port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Wire {
    /// Opens the socket and says nothing yet.
    pub(crate) fn open(target: &Target) -> Self {
        let stream = connect(target).expect("somebody listens");
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        Self { stream: Stream::Plain(stream), parameters: BTreeMap::new(), key: (0, Vec::new()), notices: Vec::new() }
    }

    /// Asks for TLS and shakes hands, verifying the name.
    pub(crate) fn open_tls(target: &Target) -> Self {
        let mut wire = Self::open(target);
        wire.send(&SSL_REQUEST);
        assert_eq!(wire.read_byte(), Some(b'S'), "TLS is offered");
        wire.shake_hands(target)
    }

    /// TLS from here on.
    pub(crate) fn shake_hands(self, target: &Target) -> Self {
        self.shake_hands_for(target, &[])
    }

    /// TLS with these application protocols (ALPN).
    pub(crate) fn shake_hands_for(mut self, target: &Target, protocols: &[&str]) -> Self {
        let Stream::Plain(socket) = self.stream else { panic!("TLS twice") };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&target.root_ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(target.host.clone()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        self.stream = Stream::Tls(Box::new(StreamOwned::new(connection, socket)));
        self
    }

    /// Logs in as the target says.
    pub(crate) fn login(target: &Target) -> Result<Self, Complaint> {
        Self::login_with(target, &[])
    }

    /// The same with further startup parameters.
    pub(crate) fn login_with(target: &Target, parameters: &[(&str, &str)]) -> Result<Self, Complaint> {
        let mut wire = if target.sslmode == "disable" { Self::open(target) } else { Self::open_tls(target) };
        let mut all = vec![("user", target.user.as_str()), ("database", target.database.as_str())];
        all.extend(parameters);
        wire.send(&startup(V3_0, &all));
        wire.finish_login(&target.password)?;
        Ok(wire)
    }

    /// The same without TLS where the peer may as well not be there, or go in the middle of it.
    pub(crate) fn try_login(target: &Target, parameters: &[(&str, &str)]) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", target.port))?;
        stream.set_read_timeout(Some(super::PATIENCE))?;
        stream.set_nodelay(true)?;
        let stream = Stream::Plain(stream);
        let mut wire = Self { stream, parameters: BTreeMap::new(), key: (0, Vec::new()), notices: Vec::new() };
        let mut all = vec![("user", target.user.as_str()), ("database", target.database.as_str())];
        all.extend(parameters);
        wire.try_send(&startup(V3_0, &all))?;
        wire.try_finish_login(&target.password)?.map_err(|complaint| io::Error::other(complaint.message))?;
        Ok(wire)
    }

    /// Everything after the startup packet: answers the password request, reads up to ReadyForQuery.
    pub(crate) fn finish_login(&mut self, password: &str) -> Result<(), Complaint> {
        self.try_finish_login(password).expect("the server answers a startup packet")
    }

    fn try_finish_login(&mut self, password: &str) -> io::Result<Result<(), Complaint>> {
        loop {
            let message = self.try_read()?;
            match message.tag {
                'R' if message.body == [0, 0, 0, 3] => {
                    self.try_send(&frame('p', format!("{password}\0").as_bytes()))?;
                }
                'R' => assert_eq!(message.body, [0, 0, 0, 0], "cleartext or nothing"),
                'K' => {
                    self.key = (i32::from_be_bytes(message.body[..4].try_into().unwrap()), message.body[4..].to_vec())
                }
                'E' => return Ok(Err(message.complaint())),
                'Z' => return Ok(Ok(())),
                'N' | 'S' | 'v' => {}
                other => panic!("{other} during login"),
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the peer takes it");
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// One byte, as after SSLRequest; `None` at the end of the stream.
    pub(crate) fn read_byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.read_exact(buffer),
            Stream::Tls(stream) => stream.read_exact(buffer),
        }
    }

    /// The next message; `None` when the peer has closed. A silent peer is a failure.
    pub(crate) fn read(&mut self) -> Option<Message> {
        match self.try_read() {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the peer says nothing for {} s", super::PATIENCE.as_secs())
            }
            message => message.ok(),
        }
    }

    /// The next message, or why there is none.
    pub(crate) fn try_read(&mut self) -> io::Result<Message> {
        let mut header = [0; 5];
        self.read_exact(&mut header)?;
        let length = i32::from_be_bytes(header[1..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length - 4).expect("a length of at least 4")];
        self.read_exact(&mut body).expect("a whole message");
        let message = Message { tag: char::from(header[0]), body };
        match message.tag {
            'S' => {
                let text = String::from_utf8_lossy(&message.body).into_owned();
                let mut parts = text.split('\0').map(str::to_owned);
                self.parameters.insert(parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            }
            'N' => self.notices.push(message.complaint()),
            _ => {}
        }
        Ok(message)
    }

    /// How long a silent peer is waited for.
    pub(crate) fn set_patience(&self, patience: Duration) {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        };
        socket.set_read_timeout(Some(patience)).expect("an open socket");
    }

    /// Everything up to and with the next ReadyForQuery.
    pub(crate) fn read_until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.read().unwrap_or_else(|| panic!("closed before ReadyForQuery, after {messages:?}"));
            let ready = message.tag == 'Z';
            messages.push(message);
            if ready {
                return messages;
            }
        }
    }

    /// Runs a simple query: the first column of each row, or the error.
    pub(crate) fn rows(&mut self, sql: &str) -> Result<Vec<String>, Complaint> {
        self.send(&query(sql));
        let messages = self.read_until_ready();
        if let Some(error) = messages.iter().find(|message| message.tag == 'E') {
            return Err(error.complaint());
        }
        let rows = messages.iter().filter(|message| message.tag == 'D');
        Ok(rows.map(|row| row.columns().swap_remove(0).unwrap_or_default()).collect())
    }

    /// The single value of a simple query.
    #[track_caller]
    pub(crate) fn value(&mut self, sql: &str) -> String {
        let mut rows = self.rows(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(rows.len(), 1, "one row from {sql}");
        rows.swap_remove(0)
    }

    /// What the server says last: its complaint, and then nothing more.
    #[track_caller]
    pub(crate) fn expect_fatal(&mut self) -> Complaint {
        loop {
            let message = self.read().expect("an ErrorResponse before the connection closes");
            if message.tag == 'E' {
                let complaint = message.complaint();
                assert_eq!(complaint.severity, "FATAL", "{complaint:?}");
                assert_eq!(self.read(), None, "closed after a FATAL");
                return complaint;
            }
        }
    }

    /// Reads to the end of the stream and returns the last complaint, if there was one.
    pub(crate) fn drain(&mut self) -> Option<Complaint> {
        let mut last = None;
        while let Some(message) = self.read() {
            if message.tag == 'E' {
                last = Some(message.complaint());
            }
        }
        last
    }

    /// Every byte up to the end of the stream, however it ends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // What came before an error is kept.
        let _ = match &mut self.stream {
            Stream::Plain(stream) => stream.read_to_end(&mut bytes),
            Stream::Tls(stream) => stream.read_to_end(&mut bytes),
        };
        bytes
    }

    /// Whether the server has sent something that was not read yet (without TLS).
    pub(crate) fn has_something(&mut self) -> bool {
        let Stream::Plain(socket) = &self.stream else { panic!("only the kernel is asked") };
        socket.set_nonblocking(true).unwrap();
        let something = socket.peek(&mut [0]).is_ok_and(|n| n > 0);
        socket.set_nonblocking(false).unwrap();
        something
    }

    /// Reads and drops so many bytes.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.read_exact(&mut vec![0; bytes]).expect("so many bytes come");
    }

    /// Sends Terminate and waits until the server has closed.
    pub(crate) fn quit(mut self) {
        self.send(&frame('X', b""));
        while self.read().is_some() {}
    }

    /// Closes the sending half only.
    pub(crate) fn half_close(&mut self) {
        let socket = match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &mut stream.sock,
        };
        socket.shutdown(Shutdown::Write).expect("an open socket");
    }

    /// Vanishes with a reset instead of a farewell.
    pub(crate) fn vanish(self) {
        let socket = match self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.sock,
        };
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("an open socket");
    }
}

/// Sends a cancel request (section 55.2.8) and waits until the peer has closed.
pub(crate) fn cancel(target: &Target, pid: i32, secret: &[u8]) {
    let mut wire = send_cancel(target, pid, secret);
    assert_eq!(wire.read(), None, "a cancel request is never answered");
}

/// Sends a cancel request and closes without waiting.
pub(crate) fn cancel_and_leave(target: &Target, pid: i32, secret: &[u8]) {
    drop(send_cancel(target, pid, secret));
}

fn send_cancel(target: &Target, pid: i32, secret: &[u8]) -> Wire {
    let mut wire = if target.sslmode == "disable" { Wire::open(target) } else { Wire::open_tls(target) };
    let mut packet = i32::try_from(12 + secret.len()).unwrap().to_be_bytes().to_vec();
    packet.extend([0x04, 0xd2, 0x16, 0x2e]);
    packet.extend(pid.to_be_bytes());
    packet.extend(secret);
    wire.send(&packet);
    wire
}

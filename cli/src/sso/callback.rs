//! The listener that the browser comes back to: on this machine only, one path only, and nobody can make it hold more
//! than a little memory for a few seconds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::page::Page;
use crate::profile::Callback;

/// A request with the cookies that other programs on localhost have left in the browser.
const MAX_REQUEST: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
/// Browsers open connections ahead of need and leave them silent; those must not keep others out.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sockets that are listened at.
pub(super) struct Listener {
    sockets: Vec<TcpListener>,
    port: u16,
    path: Arc<str>,
    connections: Arc<AtomicUsize>,
    send: SyncSender<Visit>,
    visits: Receiver<Visit>,
}

/// Somebody who asked for the callback's path, and waits for an answer.
pub(super) struct Visit {
    stream: TcpStream,
    answer: Answer,
}

/// What the query says (RFC 6749 sections 4.1.2 and 4.1.2.1, RFC 9207). Nothing in it is to be believed before the state
/// is compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) state: Option<String>,
    pub(super) code: Option<String>,
    pub(super) error: Option<String>,
    pub(super) error_description: Option<String>,
    pub(super) iss: Option<String>,
    /// A name that stands there twice could mean one thing to us and another to the provider.
    pub(super) is_ambiguous: bool,
}

impl Listener {
    /// Listens at every loopback address that the callback's host may mean; port 0: at any free one.
    pub(super) fn bind(callback: &Callback, port: u16) -> io::Result<Self> {
        /// A port that is free at one address may be taken at the other.
        const TRIES: usize = 8;
        let mut bound = Self::bind_once(callback, port);
        for _ in 1..TRIES {
            if port != 0 || !bound.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse) {
                break;
            }
            bound = Self::bind_once(callback, port);
        }
        bound
    }

    fn bind_once(callback: &Callback, port: u16) -> io::Result<Self> {
        let addresses = addresses(&callback.host);
        let first = TcpListener::bind(SocketAddr::new(addresses[0], port))?;
        let port = first.local_addr()?.port();
        let mut sockets = vec![first];
        for address in &addresses[1..] {
            match TcpListener::bind(SocketAddr::new(*address, port)) {
                Ok(socket) => sockets.push(socket),
                // A machine without IPv6. One where somebody else listens at that address must not get our answer.
                Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
                Err(_) => {}
            }
        }
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        let (send, visits) = sync_channel(MAX_CONNECTIONS);
        Ok(Self { sockets, port, path: callback.path.as_str().into(), connections: Arc::default(), send, visits })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The next visit to the callback within this time. Everything else is answered on the way.
    pub(super) fn next(&self, within: Duration) -> Option<Visit> {
        for socket in &self.sockets {
            while let Ok((stream, _)) = socket.accept() {
                self.receive(stream);
            }
        }
        self.visits.recv_timeout(within).ok()
    }

    fn receive(&self, stream: TcpStream) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (path, send, connections) = (self.path.clone(), self.send.clone(), self.connections.clone());
        let handle = move || {
            if let Ok((mut stream, target)) = read_target(stream) {
                match target.as_deref().and_then(|target| query_of(target, &path)) {
                    // The channel has room for every connection; it is closed when nobody waits any more.
                    Some(query) => drop(send.try_send(Visit { stream, answer: Answer::parse(query) })),
                    None => write(&mut stream, &Page::nothing_here()),
                }
            }
            connections.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("gprxy-callback".into()).spawn(handle).is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Visit {
    pub(super) fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Shows the page and ends the connection.
    pub(super) fn reply(mut self, page: &Page) {
        write(&mut self.stream, page);
    }
}

impl Answer {
    fn parse(query: &str) -> Self {
        let mut answer = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "state" => &mut answer.state,
                "code" => &mut answer.code,
                "error" => &mut answer.error,
                "error_description" => &mut answer.error_description,
                "iss" => &mut answer.iss,
                _ => continue,
            };
            answer.is_ambiguous |= place.replace(value.into_owned()).is_some();
        }
        answer
    }
}

/// `localhost` may be either; an address is itself.
fn addresses(host: &str) -> Vec<IpAddr> {
    match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
    }
}

/// The query, when the target is the callback's path.
fn query_of<'t>(target: &'t str, path: &str) -> Option<&'t str> {
    let (found, query) = target.split_once('?').unwrap_or((target, ""));
    (found == path).then_some(query)
}

/// Reads one request's head and gives its target; `None` when it is no GET.
fn read_target(mut stream: TcpStream) -> io::Result<(TcpStream, Option<String>)> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let end = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    loop {
        // The whole head has one deadline: a byte every nine seconds would otherwise go on for ever.
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        stream.set_read_timeout(Some(left.ok_or(ErrorKind::TimedOut)?))?;
        let read = stream.read(&mut piece)?;
        if read == 0 || head.len() + read > MAX_REQUEST {
            return Err(ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&piece[..read]);
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let target = request.path.filter(|_| request.method == Some("GET")).map(str::to_owned);
                return Ok((stream, target));
            }
            Ok(httparse::Status::Partial) => {}
            Err(_) => return Err(ErrorKind::InvalidData.into()),
        }
    }
}

fn write(stream: &mut TcpStream, page: &Page) {
    // A browser that went away has no use for it.
    let _ = stream.write_all(page.response().as_bytes()).and_then(|()| stream.flush());
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Listener {
        let callback = Callback { host: "127.0.0.1".into(), port: 0, path: "/callback".into(), is_chosen: false };
        Listener::bind(&callback, 0).unwrap()
    }

    fn connect(listener: &Listener) -> TcpStream {
        TcpStream::connect(("127.0.0.1", listener.port())).unwrap()
    }

    /// Sends this, and reads what comes back while the listener works.
    fn exchange(listener: &Listener, request: &[u8]) -> String {
        let mut stream = connect(listener);
        stream.write_all(request).unwrap();
        let reader = thread::spawn(move || {
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            text
        });
        while !reader.is_finished() {
            if let Some(visit) = listener.next(Duration::from_millis(5)) {
                visit.reply(&Page::success("x"));
            }
        }
        reader.join().unwrap()
    }

    #[test]
    fn only_the_callback_is_answered() {
        let listener = listener();
        assert!(exchange(&listener, b"GET /callback?code=a HTTP/1.1\r\nhost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET /favicon.ico HTTP/1.1\r\n\r\n",
            "GET /callback/ HTTP/1.1\r\n\r\n",
            "GET /callbackx?code=a HTTP/1.1\r\n\r\n",
            "GET //callback HTTP/1.1\r\n\r\n",
            "GET /x/../callback HTTP/1.1\r\n\r\n",
            "GET http://localhost/callback HTTP/1.1\r\n\r\n",
            "POST /callback HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "HEAD /callback HTTP/1.1\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\n\r\n",
        ] {
            assert!(exchange(&listener, request.as_bytes()).starts_with("HTTP/1.1 404"), "{request}");
        }
    }

    #[test]
    fn hostile_requests_end_and_the_next_one_is_served() {
        let listener = listener();
        let endless = [b"GET /callback HTTP/1.1\r\nx: ".to_vec(), vec![b'y'; 2 * MAX_REQUEST]].concat();
        let many = format!("GET /callback HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        for request in [&b"\x16\x03\x01\x02\0\x01"[..], b"GET", b"\r\n\r\n\0", many.as_bytes(), &endless] {
            let mut stream = connect(&listener);
            // What is refused halfway breaks the pipe.
            let _ = stream.write_all(request);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let reader = thread::spawn(move || stream.read_to_end(&mut answer).map_or(0, |_| answer.len()));
            while !reader.is_finished() {
                assert!(listener.next(Duration::from_millis(5)).is_none(), "{}", request.len());
            }
            assert_eq!(reader.join().unwrap(), 0);
        }
        // Silent connections, as browsers keep them, more than are allowed at once.
        let silent: Vec<TcpStream> = (0..MAX_CONNECTIONS - 1).map(|_| connect(&listener)).collect();
        assert!(listener.next(Duration::from_millis(5)).is_none());
        let answer = exchange(&listener, b"GET /callback?state=s HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(silent);
    }

    #[test]
    fn queries_are_decoded_and_doubles_noticed() {
        let answer = Answer::parse("code=a%2Bb&state=s+t&error_description=%3Cb%3E&x=1&iss=https%3A%2F%2Fi");
        assert_eq!(answer.code.as_deref(), Some("a+b"));
        assert_eq!(answer.state.as_deref(), Some("s t"));
        assert_eq!(answer.error_description.as_deref(), Some("<b>"));
        assert!(!answer.is_ambiguous);
        assert!(Answer::parse("code=a&code=b").is_ambiguous && Answer::parse("state=a&st%61te=a").is_ambiguous);
        assert_eq!(Answer::parse("%ff%fe&&&=").code, None);
    }

    #[test]
    fn a_port_in_use_is_told() {
        let taken = listener();
        let callback = Callback { host: "127.0.0.1".into(), port: taken.port(), path: "/".into(), is_chosen: true };
        assert_eq!(Listener::bind(&callback, taken.port()).err().map(|error| error.kind()), Some(ErrorKind::AddrInUse));
    }
}

//! A TCP relay that breaks on command: resets in mid-row, silence, and a server that refuses TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::reaper::free_port;
use super::wire::SSL_REQUEST;

/// How often a pump looks whether its connection was reset or thawed meanwhile.
const GLANCE: Duration = Duration::from_millis(10);

/// A relay to a port of this machine. Connections it has accepted go on until the run ends; it accepts until then, too.
pub(crate) struct FaultProxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
    /// New connections are accepted and then nothing is read from or written to them.
    black_hole: AtomicBool,
    /// An SSLRequest is answered `N`, as by a PostgreSQL without a certificate.
    without_tls: AtomicBool,
    /// What the server may still say before both sides are reset.
    budget: AtomicI64,
    accepted: AtomicU64,
    /// Connections accepted before this number stand still.
    frozen_below: AtomicU64,
    /// Kept open, never touched until they are let go.
    swallowed: Mutex<Vec<TcpStream>>,
}

/// One relayed connection.
struct Pair {
    number: u64,
    client: TcpStream,
    server: TcpStream,
    doomed: AtomicBool,
}

impl FaultProxy {
    /// In front of this port, and for now an honest relay.
    pub(crate) fn before(upstream: u16) -> Self {
        Self::listen(free_port(), upstream)
    }

    /// The same at a port that somebody tried before anybody listened.
    pub(crate) fn listen(port: u16, upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let shared = Arc::new(Shared {
            upstream,
            black_hole: AtomicBool::new(false),
            without_tls: AtomicBool::new(false),
            budget: AtomicI64::new(i64::MAX),
            accepted: AtomicU64::new(0),
            frozen_below: AtomicU64::new(0),
            swallowed: Mutex::default(),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.accept(client);
            }
        });
        Self { port, shared }
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// From now on new connections hear nothing, or are relayed again.
    pub(crate) fn set_black_hole(&self, on: bool) {
        self.shared.black_hole.store(on, Ordering::SeqCst);
    }

    /// Connections that have heard nothing end.
    pub(crate) fn let_go(&self) {
        self.shared.swallowed.lock().unwrap().clear();
    }

    /// From now on new connections are told that there is no TLS.
    pub(crate) fn set_without_tls(&self, on: bool) {
        self.shared.without_tls.store(on, Ordering::SeqCst);
    }

    /// Connections that are open now stand still: nothing gets through, nothing is closed.
    pub(crate) fn freeze(&self) {
        self.shared.frozen_below.store(self.accepted(), Ordering::SeqCst);
    }

    /// They go on where they stopped.
    pub(crate) fn thaw(&self) {
        self.shared.frozen_below.store(0, Ordering::SeqCst);
    }

    /// After so many further bytes of the server both sides are reset.
    pub(crate) fn reset_after(&self, bytes: i64) {
        self.shared.budget.store(bytes, Ordering::SeqCst);
    }

    /// No more resets.
    pub(crate) fn heal(&self) {
        self.reset_after(i64::MAX);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, client: TcpStream) {
        let number = self.accepted.fetch_add(1, Ordering::SeqCst);
        if self.black_hole.load(Ordering::SeqCst) {
            return self.swallowed.lock().unwrap().push(client);
        }
        let shared = self.clone();
        thread::spawn(move || {
            // A server that is down is a connection that ends at once.
            let Ok(server) = TcpStream::connect(("127.0.0.1", shared.upstream)) else { return };
            for socket in [&client, &server] {
                socket.set_nodelay(true).unwrap();
                socket.set_read_timeout(Some(GLANCE)).unwrap();
            }
            let pair = Arc::new(Pair { number, client, server, doomed: AtomicBool::new(false) });
            let (there, back) = (pair.clone(), shared.clone());
            thread::spawn(move || back.pump_answers(&there));
            shared.pump_requests(&pair);
        });
    }

    fn pump_requests(&self, pair: &Pair) {
        let mut buffer = [0; 16 * 1024];
        let mut refuse_tls = self.without_tls.load(Ordering::SeqCst);
        while let Some(n) = self.next(&pair.client, pair, &mut buffer) {
            if std::mem::take(&mut refuse_tls) && buffer[..n] == SSL_REQUEST {
                if (&pair.client).write_all(b"N").is_err() {
                    return;
                }
                continue;
            }
            if (&pair.server).write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = pair.server.shutdown(Shutdown::Write);
    }

    fn pump_answers(&self, pair: &Pair) {
        let mut buffer = [0; 16 * 1024];
        while let Some(n) = self.next(&pair.server, pair, &mut buffer) {
            let before = self.budget.fetch_sub(n as i64, Ordering::SeqCst);
            let allowed = usize::try_from(before.max(0)).unwrap_or(usize::MAX).min(n);
            if (&pair.client).write_all(&buffer[..allowed]).is_err() {
                break;
            }
            if allowed < n {
                return pair.doom();
            }
        }
        let _ = pair.client.shutdown(Shutdown::Write);
    }

    /// The next bytes of one side, once the connection is not frozen; `None` when it is over.
    fn next(&self, mut from: &TcpStream, pair: &Pair, buffer: &mut [u8]) -> Option<usize> {
        loop {
            if pair.doomed.load(Ordering::SeqCst) {
                return None;
            }
            match from.read(buffer) {
                // What was read while it froze stands still, too.
                Ok(n) => {
                    while pair.number < self.frozen_below.load(Ordering::SeqCst) {
                        thread::sleep(GLANCE);
                    }
                    return (n > 0).then_some(n);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return None,
            }
        }
    }
}

impl Pair {
    /// Both pumps let go of the sockets, and with this setting that is a reset.
    fn doom(&self) {
        for socket in [&self.client, &self.server] {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        self.doomed.store(true, Ordering::SeqCst);
    }
}

//! A runtime in memory whose sockets write down every call that a kernel would get.
//!
//! Readiness is that of tokio over epoll: a socket becomes readable when bytes arrive and stops being so when a read
//! does not fill its buffer; polls in between cost no call. One thread runs everything; only what the proxy's own
//! tasks do is counted.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use futures_io::{AsyncRead, AsyncWrite};
use gprxy_proto::driver::runtime::{Alarm, Caller, Listener, Runtime};
use gprxy_proto::policy::Endpoint;
use gprxy_proto::time::{Now, Tick, UnixMicros};

use crate::counting;

/// No more bytes than this are ever on their way.
const WIRE_BYTES: usize = 4 * 1024 * 1024;
/// No round of a test makes more calls than this.
const MAX_CALLS: usize = 4096;

/// A call to the kernel, seen from the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    /// Bytes were read to this address.
    Read { from: Peer, address: usize, len: usize },
    /// Bytes were written from this address.
    Write { to: Peer, address: usize, len: usize },
    /// A read that found nothing: wasted.
    Empty { from: Peer },
}

/// Who is at the other end of one of the proxy's sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Client,
    Server,
}

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    future: Job,
    flag: Arc<Flag>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

thread_local! {
    static SPAWNED: RefCell<Vec<Job>> = const { RefCell::new(Vec::new()) };
    static TASKS: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
    static CONNECTED: RefCell<Vec<End>> = const { RefCell::new(Vec::new()) };
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

/// Runs all tasks until each of them waits, and counts what they allocate.
pub(crate) fn run(counter: &'static AtomicU64) {
    loop {
        for future in SPAWNED.take() {
            let flag = Arc::new(Flag(AtomicBool::new(true)));
            TASKS.with_borrow_mut(|tasks| tasks.push(Task { future, flag }));
        }
        let polled = TASKS.with_borrow_mut(|tasks| {
            let mut polled = false;
            tasks.retain_mut(|task| {
                if !task.flag.0.swap(false, Ordering::SeqCst) {
                    return true;
                }
                polled = true;
                let waker = Waker::from(task.flag.clone());
                counting::count_into(Some(counter));
                let result = task.future.as_mut().poll(&mut Context::from_waker(&waker));
                counting::count_into(None);
                result.is_pending()
            });
            polled
        });
        if !polled && SPAWNED.with_borrow(Vec::is_empty) {
            return;
        }
    }
}

/// Forgets all tasks without dropping them.
pub(crate) fn abandon() {
    std::mem::forget(TASKS.take());
    std::mem::forget(SPAWNED.take());
}

/// The calls since this was asked last, in their order.
pub(crate) fn take_calls(into: &mut Vec<Call>) {
    into.clear();
    CALLS.with_borrow_mut(|calls| into.append(calls));
}

fn log(call: Call) {
    CALLS.with_borrow_mut(|calls| {
        if calls.capacity() == 0 {
            calls.reserve(MAX_CALLS);
        }
        assert!(calls.len() < MAX_CALLS, "far more calls than any round should need");
        calls.push(call);
    });
}

/// The proxy's end of the next connection that it opened to the server.
pub(crate) fn connected() -> Option<End> {
    CONNECTED.with_borrow_mut(Vec::pop)
}

/// One direction of a connection.
#[derive(Default)]
struct Wire(Mutex<State>);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    at: usize,
    ready: bool,
    closed: bool,
    reader: Option<Waker>,
}

impl Wire {
    fn new() -> Arc<Self> {
        let state = State { bytes: Vec::with_capacity(WIRE_BYTES), ..State::default() };
        Arc::new(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with it")
    }

    fn put(&self, bytes: &[u8]) {
        let mut state = self.state();
        assert!(state.bytes.len() + bytes.len() <= WIRE_BYTES, "the test puts too much on the wire");
        state.bytes.extend_from_slice(bytes);
        state.ready = true;
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
    }

    fn close(&self) {
        let mut state = self.state();
        state.ready = true;
        state.closed = true;
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
    }

    fn take(&self, into: &mut [u8]) -> usize {
        let mut state = self.state();
        let n = into.len().min(state.bytes.len() - state.at);
        into[..n].copy_from_slice(&state.bytes[state.at..state.at + n]);
        state.at += n;
        if state.at == state.bytes.len() {
            state.bytes.clear();
            state.at = 0;
        }
        if n < into.len() {
            state.ready = false;
        }
        n
    }
}

/// The peer's end of a connection.
pub(crate) struct End {
    to_proxy: Arc<Wire>,
    from_proxy: Arc<Wire>,
}

impl End {
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.to_proxy.put(bytes);
    }

    /// Nothing more will come from here.
    pub(crate) fn close(&self) {
        self.to_proxy.close();
    }

    /// Everything that has come.
    pub(crate) fn receive(&self, into: &mut Vec<u8>) {
        into.clear();
        let mut state = self.from_proxy.state();
        into.extend_from_slice(&state.bytes[state.at..]);
        state.bytes.clear();
        state.at = 0;
    }
}

/// The proxy's end.
pub(crate) struct Socket {
    peer: Peer,
    incoming: Arc<Wire>,
    outgoing: Arc<Wire>,
}

/// A connection between the proxy and a peer.
pub(crate) fn connection(peer: Peer) -> (Socket, End) {
    let (incoming, outgoing) = (Wire::new(), Wire::new());
    let end = End { to_proxy: incoming.clone(), from_proxy: outgoing.clone() };
    (Socket { peer, incoming, outgoing }, end)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let from = self.peer;
        if self.incoming.state().ready {
            let n = self.incoming.take(buffer);
            if n > 0 || self.incoming.state().closed {
                log(Call::Read { from, address: buffer.as_ptr().addr(), len: n });
                return Poll::Ready(Ok(n));
            }
            log(Call::Empty { from });
        }
        self.incoming.state().reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        log(Call::Write { to: self.peer, address: bytes.as_ptr().addr(), len: bytes.len() });
        self.outgoing.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Accepts one client.
pub(crate) struct OneClient(Mutex<Option<Socket>>);

impl OneClient {
    pub(crate) fn new(socket: Socket) -> Self {
        Self(Mutex::new(Some(socket)))
    }
}

impl Listener for OneClient {
    type Socket = Socket;

    async fn accept(&self) -> io::Result<(Socket, Caller)> {
        let socket = self.0.lock().expect("no test panics with it").take();
        match socket {
            Some(socket) => Ok((socket, Caller { address: "memory".into(), is_local: true, uid: None })),
            None => pending().await,
        }
    }
}

/// No test waits for it: time stands still.
pub(crate) struct Never;

impl Alarm for Never {
    fn set(&mut self, _: Option<Tick>) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// The runtime.
#[derive(Clone, Copy)]
pub(crate) struct InMemory;

impl Runtime for InMemory {
    type Socket = Socket;
    type Alarm = Never;

    fn now() -> Now {
        Now { tick: Tick::from_nanos(1), unix: UnixMicros::from_secs(1_800_000_000) }
    }

    fn alarm() -> Never {
        Never
    }

    async fn connect(_: Endpoint) -> io::Result<Socket> {
        let (socket, end) = connection(Peer::Server);
        CONNECTED.with_borrow_mut(|all| all.push(end));
        Ok(socket)
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        SPAWNED.with_borrow_mut(|all| all.push(Box::pin(future)));
    }

    async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        call()
    }
}

//! What the driver expects of a runtime, as tests over real loopback sockets.
//!
//! A runtime crate runs all of them with one line in a test file of its own:
//! ```text
//! gprxy_proto::conformance!(my_runtime::MyRuntime, before each: raise_descriptor_limit);
//! ```
//! No test measures time, except that a deadline comes neither early nor never.
#![expect(clippy::disallowed_types, reason = "the tests bind real sockets")]

mod faults;
mod proxy;
mod sessions;
mod streams;
mod tasks;
mod timers;
mod visitor;

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::driver::host::{Bound, Host};
use crate::driver::runtime::{Caller, Listener as _, Socket};
use crate::driver::serve::within;
use crate::policy::Endpoint;

pub use faults::{
    a_connect_that_is_given_up_leaves_nothing_behind, a_dead_peer_wakes_who_reads, a_dead_peer_wakes_who_writes,
    a_refused_connect_says_so, resets_at_any_point_end_in_an_error_or_the_end,
};
pub use sessions::{
    a_drain_lets_work_end, a_full_queue_is_refused_in_time, a_half_closed_client_leaves_an_idle_pool,
    a_reader_that_does_not_read_stops_its_server, a_server_that_does_not_read_stops_its_client,
    cancels_reach_their_statement_only, clients_that_reset_anywhere_leave_an_idle_pool,
    servers_that_die_anywhere_leave_a_pool_that_works, sessions_work_over_tls_on_both_sides,
    silent_clients_are_sent_away, slow_readers_and_writers_get_the_same_answers, thousands_of_sessions_share_a_pool,
};
pub use streams::{
    a_full_peer_makes_the_writer_wait, a_half_closed_socket_still_carries_the_other_way, a_look_finds_what_has_come,
    accepts_thousands_of_sockets, callers_are_named, echoes_chopped_bytes, listeners_share_a_bound_socket,
    names_are_looked_up, sockets_are_tuned, the_last_waker_is_the_one_that_is_woken,
};
pub use tasks::{
    a_panic_ends_one_task, a_socket_moves_between_workers, blocking_calls_block_nobody, busy_tasks_starve_nobody,
    signals_arrive, tasks_end_with_their_runtime, tasks_spawn_tasks, wakes_cross_threads,
};
pub use timers::{
    alarms_ring_once_and_not_early, alarms_that_are_cleared_stay_silent, alarms_that_are_moved_ring_at_the_last_tick,
    clocks_go_forward, many_alarms_ring,
};

/// Makes a `#[test]` of every test of the suite, for one [`Host`], with something to do before each: a process needs
/// 10,000 file descriptors.
#[macro_export]
macro_rules! conformance {
    ($host:ty, before each: $before:expr) => {
        $crate::conformance! { $host, $before,
            a_drain_lets_work_end
            a_full_queue_is_refused_in_time
            a_half_closed_client_leaves_an_idle_pool
            a_reader_that_does_not_read_stops_its_server
            a_server_that_does_not_read_stops_its_client
            cancels_reach_their_statement_only
            clients_that_reset_anywhere_leave_an_idle_pool
            servers_that_die_anywhere_leave_a_pool_that_works
            sessions_work_over_tls_on_both_sides
            silent_clients_are_sent_away
            slow_readers_and_writers_get_the_same_answers
            thousands_of_sessions_share_a_pool
            a_connect_that_is_given_up_leaves_nothing_behind
            a_dead_peer_wakes_who_reads
            a_dead_peer_wakes_who_writes
            a_full_peer_makes_the_writer_wait
            a_half_closed_socket_still_carries_the_other_way
            a_panic_ends_one_task
            a_refused_connect_says_so
            a_socket_moves_between_workers
            accepts_thousands_of_sockets
            alarms_ring_once_and_not_early
            alarms_that_are_cleared_stay_silent
            alarms_that_are_moved_ring_at_the_last_tick
            blocking_calls_block_nobody
            a_look_finds_what_has_come
            busy_tasks_starve_nobody
            callers_are_named
            clocks_go_forward
            echoes_chopped_bytes
            listeners_share_a_bound_socket
            many_alarms_ring
            names_are_looked_up
            resets_at_any_point_end_in_an_error_or_the_end
            signals_arrive
            sockets_are_tuned
            tasks_end_with_their_runtime
            tasks_spawn_tasks
            the_last_waker_is_the_one_that_is_woken
            wakes_cross_threads
        }
    };
    ($host:ty, $before:expr, $($test:ident)+) => {
        $(
            #[test]
            fn $test() {
                $before();
                $crate::testing::conformance::$test::<$host>();
            }
        )+
    };
}

/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn run<H: Host, T>(test: impl Future<Output = T>) -> T {
    let limited = async { within::<H, _>(H::now().tick.after(PATIENCE), test).await };
    H::block_on(limited).expect("the runtime can be set up").expect("the test comes to its end")
}

/// The kinds of sockets.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Unix,
}

const KINDS: [Kind; 2] = [Kind::Tcp, Kind::Unix];

/// A bound socket, and how to get there.
struct Place {
    bound: Bound,
    endpoint: Endpoint,
    path: Option<PathBuf>,
}

impl Place {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Tcp => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback can be bound");
                let port = listener.local_addr().expect("a bound socket has an address").port();
                let endpoint = Endpoint::Tcp { host: Ipv4Addr::LOCALHOST.to_string().into(), port };
                Self { bound: Bound::Tcp(listener), endpoint, path: None }
            }
            Kind::Unix => {
                let path = fresh_path();
                let listener = UnixListener::bind(&path).expect("a socket file can be made");
                let endpoint = Endpoint::Unix(path.to_str().expect("the path is text").into());
                Self { bound: Bound::Unix(listener), endpoint, path: Some(path) }
            }
        }
    }

    /// The user whose socket file it is.
    fn owner(&self) -> u32 {
        let path = self.path.as_ref().expect("a Unix socket");
        std::fs::metadata(path).expect("the file is there").uid()
    }

    fn listen<H: Host>(&self) -> H::Listener {
        H::listen(self.bound.share().expect("descriptors are left")).expect("the socket can be watched")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn fresh_path() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("gprxy-conformance-{}-{number}", std::process::id()))
}

/// A connected pair: who connected, and who accepted.
async fn pair<H: Host>(kind: Kind) -> (H::Socket, H::Socket) {
    let place = Place::new(kind);
    let listener = place.listen::<H>();
    let (client, (server, _)) = both(connect::<H>(&place.endpoint), accept::<H>(&listener)).await;
    (client, server)
}

async fn connect<H: Host>(endpoint: &Endpoint) -> H::Socket {
    H::connect(endpoint.clone()).await.expect("the listener is there")
}

fn accept<H: Host>(listener: &H::Listener) -> impl Future<Output = (H::Socket, Caller)> + Send {
    let accepting = listener.accept();
    async { accepting.await.expect("somebody connects") }
}

async fn read<S: Socket>(socket: &mut S, bytes: &mut [u8]) -> io::Result<usize> {
    poll_fn(|context| Pin::new(&mut *socket).poll_read(context, bytes)).await
}

async fn read_exact<S: Socket>(socket: &mut S, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match read(socket, bytes).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes = &mut bytes[n..],
        }
    }
    Ok(())
}

async fn write<S: Socket>(socket: &mut S, bytes: &[u8]) -> io::Result<usize> {
    poll_fn(|context| Pin::new(&mut *socket).poll_write(context, bytes)).await
}

async fn write_all<S: Socket>(socket: &mut S, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = write(socket, bytes).await?;
        assert!(n > 0 && n <= bytes.len(), "a write of {} bytes wrote {n}", bytes.len());
        bytes = &bytes[n..];
    }
    poll_fn(|context| Pin::new(&mut *socket).poll_flush(context)).await
}

async fn close<S: Socket>(socket: &mut S) -> io::Result<()> {
    poll_fn(|context| Pin::new(&mut *socket).poll_close(context)).await
}

/// Runs two futures in one task.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|context| {
        if first.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(context)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(context)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// Polls a future once.
async fn once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// Lets everybody else run.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Values on their way from one task to another, perhaps on another thread.
struct Queue<T>(Arc<Mutex<Queued<T>>>);

struct Queued<T> {
    values: std::collections::VecDeque<T>,
    waker: Option<Waker>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Queued { values: std::collections::VecDeque::new(), waker: None })))
    }

    fn put(&self, value: T) {
        let mut queued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queued.values.push_back(value);
        if let Some(waker) = queued.waker.take() {
            waker.wake();
        }
    }

    async fn take(&self) -> T {
        poll_fn(|context| {
            let mut queued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(value) = queued.values.pop_front() {
                return Poll::Ready(value);
            }
            queued.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Spawns a future; its result arrives in the queue.
fn task<H: Host, T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Queue<T> {
    let done = Queue::new();
    let queue = done.clone();
    H::spawn(async move { queue.put(future.await) });
    done
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    /// From `low` to `high`, both included.
    fn between(&mut self, low: usize, high: usize) -> usize {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        low + usize::try_from(self.0 % (high - low + 1) as u64).expect("below a usize")
    }
}

/// Bytes whose order can be checked.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at ^ (at >> 8)) & 0xff).expect("a byte")).collect()
}

/// Reads until the end or an error.
async fn drain<S: Socket>(socket: &mut S) -> io::Result<usize> {
    let mut bytes = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match read(socket, &mut bytes).await? {
            0 => return Ok(total),
            n => total += n,
        }
    }
}

fn loopback_port(place: &Place) -> u16 {
    place.bound.address().map_or(0, |address: SocketAddr| address.port())
}

/// Writes until the socket takes nothing more; how much it took.
fn poll_fill<S: Socket>(socket: &mut S, context: &mut std::task::Context<'_>, most: usize) -> Poll<io::Result<usize>> {
    let bytes = pattern(64 * 1024);
    let mut taken = 0;
    loop {
        match Pin::new(&mut *socket).poll_write(context, &bytes) {
            Poll::Pending => return Poll::Ready(Ok(taken)),
            Poll::Ready(result) => taken += result?,
        }
        assert!(taken < most, "{taken} bytes went into a socket that nobody reads");
    }
}

fn is_lost<T: Debug>(result: &io::Result<T>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    result
        .as_ref()
        .is_err_and(|error| matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected))
}

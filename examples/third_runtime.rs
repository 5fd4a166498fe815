//! A third runtime: what gprxy needs of an executor, on `std` and poll(2), in one file.
//!
//! `cargo run -p gprxy-examples --example third_runtime -- 127.0.0.1:7777 127.0.0.1:5432` serves a whole gprxy with it
//! (pools, cancel, drain and all) to people who log in with PostgreSQL passwords of their own.
//! `cargo test -p gprxy-examples --example third_runtime` holds it to the suite that tokio and smol pass.
//!
//! Each worker is a thread with a queue of tasks that were woken, the sockets and alarms that they wait for, and a bell
//! that others ring. It runs what is in the queue, then sleeps in poll(2) until something happens.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use gprxy_proto::auth::jwks::{KeySetLimits, KeySets};
use gprxy_proto::driver::host::{Bound, Host, Signal, Signals};
use gprxy_proto::driver::runtime::{Alarm, Caller, Listener, Runtime};
use gprxy_proto::driver::shared::{Parts, ServerTls, Shared};
use gprxy_proto::driver::{clock, entropy::SystemEntropy, serve::serve};
use gprxy_proto::hub::Hub;
use gprxy_proto::policy::{Database, Databases, Endpoint};
use gprxy_proto::session::Profile;
use gprxy_proto::time::{Now, Tick};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number of its own for each task, socket and alarm.
fn fresh() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

thread_local! {
    static HERE: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;
type Descriptor = Arc<dyn AsFd + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    In,
    Out,
}

/// What one thread has to do.
struct Worker {
    tasks: Mutex<BTreeMap<u64, Arc<Task>>>,
    woken: Mutex<VecDeque<Arc<Task>>>,
    sockets: Mutex<BTreeMap<(u64, Way), (Descriptor, Waker)>>,
    alarms: Mutex<BTreeMap<(Tick, u64), Waker>>,
    /// A byte in this pipe ends the sleep.
    bell: (UnixStream, UnixStream),
    over: AtomicBool,
}

struct Task {
    id: u64,
    job: Mutex<Option<Job>>,
    worker: Weak<Worker>,
    queued: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if let Some(worker) = self.worker.upgrade()
            && !self.queued.swap(true, Ordering::AcqRel)
        {
            lock(&worker.woken).push_back(self);
            worker.ring();
        }
    }
}

/// Wakes the future that a thread is there for.
struct Main {
    worker: Arc<Worker>,
    woken: AtomicBool,
}

impl Wake for Main {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.worker.ring();
    }
}

impl Worker {
    fn new() -> io::Result<Self> {
        let bell = UnixStream::pair()?;
        bell.0.set_nonblocking(true)?;
        bell.1.set_nonblocking(true)?;
        let (tasks, woken, sockets, alarms) = Default::default();
        Ok(Self { tasks, woken, sockets, alarms, bell, over: AtomicBool::new(false) })
    }

    /// A bell that is full is heard as well.
    fn ring(&self) {
        let _ = (&self.bell.1).write(&[1]);
    }

    fn spawn(self: &Arc<Self>, job: Job) {
        if self.over.load(Ordering::Acquire) {
            return;
        }
        let (id, job, worker) = (fresh(), Mutex::new(Some(job)), Arc::downgrade(self));
        let task = Arc::new(Task { id, job, worker, queued: AtomicBool::new(false) });
        lock(&self.tasks).insert(id, task.clone());
        task.wake();
    }

    /// Runs the tasks that are woken by now; those that they wake come after the sockets have been looked at.
    fn run_woken(&self) {
        let woken = std::mem::take(&mut *lock(&self.woken));
        for task in woken {
            task.queued.store(false, Ordering::Release);
            let Some(mut job) = lock(&task.job).take() else { continue };
            let waker = Waker::from(task.clone());
            let polled = catch_unwind(AssertUnwindSafe(|| job.as_mut().poll(&mut Context::from_waker(&waker))));
            match polled {
                Ok(Poll::Pending) => *lock(&task.job) = Some(job),
                // A panic has said what it had to say, and takes only its own task along.
                Ok(Poll::Ready(())) | Err(_) => drop(lock(&self.tasks).remove(&task.id)),
            }
        }
    }

    /// Sleeps until something happens, and wakes whoever waited for it.
    fn sleep(&self, may_sleep: bool) {
        let sockets: Vec<(u64, Way, Descriptor)> =
            lock(&self.sockets).iter().map(|(&(id, way), (socket, _))| (id, way, socket.clone())).collect();
        let first = lock(&self.alarms).keys().next().map(|(at, _)| at.since(clock::now().tick));
        let span = if may_sleep { first } else { Some(Duration::ZERO) };
        // Rounded up: an alarm never rings early.
        let span = span.map(|span| span.saturating_add(Duration::from_nanos(1)).min(Duration::from_secs(3600)));
        let timeout = span.and_then(|span| Timespec::try_from(span).ok());
        let mut fds = vec![PollFd::new(&self.bell.0, PollFlags::IN)];
        fds.extend(sockets.iter().map(|(_, way, socket)| {
            PollFd::from_borrowed_fd(socket.as_fd(), if *way == Way::In { PollFlags::IN } else { PollFlags::OUT })
        }));
        // An interrupted call has found nothing; the next one will.
        let _ = poll(&mut fds, timeout.as_ref());
        while matches!((&self.bell.0).read(&mut [0; 64]), Ok(1..)) {}
        for (fd, (id, way, _)) in fds[1..].iter().zip(&sockets) {
            if !fd.revents().is_empty() {
                let waiting = lock(&self.sockets).remove(&(*id, *way));
                waiting.into_iter().for_each(|(_, waker)| waker.wake());
            }
        }
        let later = lock(&self.alarms).split_off(&(clock::now().tick, u64::MAX));
        let due = std::mem::replace(&mut *lock(&self.alarms), later);
        due.into_values().for_each(Waker::wake);
    }

    /// Ends every task, also those that something elsewhere would still wake.
    fn end(&self) {
        self.over.store(true, Ordering::Release);
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks.into_values() {
            let job = lock(&task.job).take();
            drop(job);
        }
        lock(&self.sockets).clear();
        lock(&self.alarms).clear();
    }
}

fn here() -> Option<Arc<Worker>> {
    HERE.with_borrow(Clone::clone)
}

/// Something with a descriptor that can be waited for, on whichever worker it is used.
struct Source<T> {
    id: u64,
    io: Arc<T>,
    home: Mutex<Option<Arc<Worker>>>,
}

impl<T: AsFd + Send + Sync + 'static> Source<T> {
    fn new(io: T) -> Self {
        Self { id: fresh(), io: Arc::new(io), home: Mutex::new(None) }
    }

    /// Tries; where that would block, the task is woken when it is worth another try.
    fn attempt<R>(
        &self,
        way: Way,
        context: &Context<'_>,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            match call(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
        let Some(worker) = here() else { return Poll::Ready(Err(io::Error::other("not on a worker"))) };
        let moved = lock(&self.home).replace(worker.clone()).filter(|home| !Arc::ptr_eq(home, &worker));
        moved.iter().for_each(|home| self.leave(home));
        lock(&worker.sockets).insert((self.id, way), (self.io.clone(), context.waker().clone()));
        Poll::Pending
    }
}

impl<T> Source<T> {
    fn leave(&self, worker: &Worker) {
        for way in [Way::In, Way::Out] {
            lock(&worker.sockets).remove(&(self.id, way));
        }
        // Who sleeps on the descriptor lets go of it.
        worker.ring();
    }
}

impl<T> Drop for Source<T> {
    fn drop(&mut self) {
        if let Some(home) = lock(&self.home).take() {
            self.leave(&home);
        }
    }
}

/// A connected socket. To read(2), write(2) and shutdown(2) TCP is no different from a Unix socket.
struct Socket(Source<UnixStream>);

impl Socket {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(Source::new(stream)))
    }

    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Self::new(OwnedFd::from(stream).into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.attempt(Way::In, context, |mut io| io.read(buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.attempt(Way::Out, context, |mut io| io.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.attempt(Way::Out, context, |mut io| io.write_vectored(slices))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.0.io.shutdown(Shutdown::Write) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

/// A listening socket of one worker.
enum Door {
    Tcp(Source<TcpListener>),
    Unix(Source<UnixListener>),
}

impl Listener for Door {
    type Socket = Socket;

    async fn accept(&self) -> io::Result<(Socket, Caller)> {
        match self {
            Self::Tcp(door) => {
                let accept = poll_fn(|context| door.attempt(Way::In, context, TcpListener::accept));
                let (stream, peer) = accept.await?;
                Ok((Socket::tcp(stream)?, Caller::tcp(peer)))
            }
            Self::Unix(door) => {
                let accept = poll_fn(|context| door.attempt(Way::In, context, UnixListener::accept));
                let stream = accept.await?.0;
                let uid = rustix::net::sockopt::socket_peercred(&stream).ok().map(|peer| peer.uid.as_raw());
                Ok((Socket::new(stream)?, Caller::unix(uid)))
            }
        }
    }
}

/// A timer.
struct Bell {
    id: u64,
    at: Option<Tick>,
    /// Where it is written down, and for when.
    home: Option<(Arc<Worker>, Tick)>,
}

impl Bell {
    fn leave(&mut self) {
        if let Some((worker, at)) = self.home.take() {
            lock(&worker.alarms).remove(&(at, self.id));
        }
    }
}

impl Alarm for Bell {
    fn set(&mut self, at: Option<Tick>) {
        self.leave();
        self.at = at;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.leave();
        let (Some(at), Some(worker)) = (self.at, here()) else { return Poll::Pending };
        if at <= clock::now().tick {
            self.at = None;
            return Poll::Ready(());
        }
        lock(&worker.alarms).insert((at, self.id), context.waker().clone());
        self.home = Some((worker, at));
        Poll::Pending
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The runtime, as the driver sees it.
#[derive(Clone, Copy)]
struct Polled;

impl Runtime for Polled {
    type Socket = Socket;
    type Alarm = Bell;

    fn now() -> Now {
        clock::now()
    }

    fn alarm() -> Bell {
        Bell { id: fresh(), at: None, home: None }
    }

    async fn connect(endpoint: Endpoint) -> io::Result<Socket> {
        Self::blocking(move || match endpoint {
            Endpoint::Tcp { host, port } => Socket::tcp(TcpStream::connect((&*host, port))?),
            Endpoint::Unix(path) => Socket::new(UnixStream::connect(&*path)?),
        })
        .await
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        // At the end of a worker there is nobody left to run it.
        if let Some(worker) = here() {
            worker.spawn(Box::pin(future));
        }
    }

    /// A thread for each call: there are few, and they are slow anyway.
    async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        let answer = Arc::new(Mutex::new((None, None::<Waker>)));
        let theirs = answer.clone();
        thread::spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(call));
            let mut answer = lock(&theirs);
            answer.0 = Some(result);
            answer.1.take().into_iter().for_each(Waker::wake);
        });
        let result = poll_fn(|context| {
            let mut answer = lock(&answer);
            answer.1 = Some(context.waker().clone());
            answer.0.take().map_or(Poll::Pending, Poll::Ready)
        });
        result.await.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Nobody tells this process anything: Ctrl-C ends it as it ends every other.
struct Deaf;

impl Signals for Deaf {
    fn install() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        std::future::pending().await
    }
}

impl Host for Polled {
    type Listener = Door;
    type Signals = Deaf;

    fn listen(bound: Bound) -> io::Result<Door> {
        Ok(match bound {
            Bound::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Door::Tcp(Source::new(listener))
            }
            Bound::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Door::Unix(Source::new(listener))
            }
        })
    }

    fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
        let worker = Arc::new(Worker::new()?);
        let before = HERE.replace(Some(worker.clone()));
        let main = Arc::new(Main { worker: worker.clone(), woken: AtomicBool::new(true) });
        let waker = Waker::from(main.clone());
        let mut future = pin!(future);
        let value = loop {
            if main.woken.swap(false, Ordering::AcqRel)
                && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                break value;
            }
            worker.run_woken();
            worker.sleep(lock(&worker.woken).is_empty() && !main.woken.load(Ordering::Acquire));
        };
        worker.end();
        HERE.set(before);
        Ok(value)
    }

    fn start_worker<F>(index: usize, make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
    where
        F: Future<Output = ()>,
    {
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let ended = Self::block_on(async { make().await });
            ended.expect("two descriptors are left");
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let [listen, server] = &addresses[..] else { return Err("usage: third_runtime LISTEN SERVER".into()) };
    let (host, port) = server.rsplit_once(':').ok_or("SERVER is HOST:PORT")?;
    let database = Database::new([Endpoint::Tcp { host: host.into(), port: port.parse()? }]);
    let databases = Databases::new([(Databases::ANY.into(), database)]);
    let profile = Profile { password_fallback: true, databases, ..Profile::default() };
    let keys = KeySets::new(Vec::new(), KeySetLimits::default(), clock::now())?;
    let hub = Hub::new(keys, &profile.limits, Box::new(SystemEntropy::new()));
    let (http, server_tls) = (ureq::Agent::new_with_defaults(), ServerTls::new());
    let parts = Parts { profile: profile.into(), hub, tls: None, server_tls, tokens: None, audit: None, http };
    let bound = Bound::Tcp(TcpListener::bind(listen)?);
    Polled::block_on(async {
        let shared = Shared::<Polled>::new(parts);
        Polled::spawn(shared.clone().keep());
        serve(shared, Polled::listen(bound)?).await;
        Ok(())
    })?
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, getrlimit, setrlimit};

    use super::Polled;

    fn raise_descriptor_limit() {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).expect("the limit can be raised up to its maximum");
    }

    // All of the suite but `signals_arrive`.
    gprxy_proto::conformance! { Polled, raise_descriptor_limit,
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
        busy_tasks_starve_nobody
        callers_are_named
        clocks_go_forward
        echoes_chopped_bytes
        listeners_share_a_bound_socket
        many_alarms_ring
        names_are_looked_up
        resets_at_any_point_end_in_an_error_or_the_end
        tasks_end_with_their_runtime
        tasks_spawn_tasks
        the_last_waker_is_the_one_that_is_woken
        wakes_cross_threads
    }
}

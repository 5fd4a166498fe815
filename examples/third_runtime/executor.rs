//! An executor in miniature, on `std` and poll(2). It knows nothing of gprxy but its clock.
//!
//! A worker is a thread and its tasks: it runs those that were woken, and parks. One reactor for all is a thread that
//! sleeps in poll(2) until a socket is ready or a timer is due, and wakes whoever waits for that.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use gprxy_proto::driver::clock;
use gprxy_proto::time::Tick;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number of its own for each task, socket and alarm.
fn fresh() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One thread, the future that it is there for, and what that has spawned.
struct Worker {
    thread: Thread,
    /// Whether the future that it is there for was woken.
    main_woken: AtomicBool,
    woken: Mutex<VecDeque<Arc<Task>>>,
    /// `None` at the end.
    tasks: Mutex<Option<BTreeMap<u64, Arc<Task>>>>,
}

struct Task {
    id: u64,
    /// `None` while it runs, and when it is over.
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
            worker.thread.unpark();
        }
    }
}

impl Wake for Worker {
    fn wake(self: Arc<Self>) {
        self.main_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

thread_local! {
    static HERE: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

impl Worker {
    fn spawn(self: &Arc<Self>, job: Job) {
        let (id, job, worker) = (fresh(), Mutex::new(Some(job)), Arc::downgrade(self));
        let task = Arc::new(Task { id, job, worker, queued: AtomicBool::new(false) });
        // At the end there is nobody left to run it.
        let Some(tasks) = &mut *lock(&self.tasks) else { return };
        tasks.insert(id, task.clone());
        task.wake();
    }

    fn block_on<T>(self: Arc<Self>, future: impl Future<Output = T>) -> T {
        let waker = Waker::from(self.clone());
        let mut future = pin!(future);
        loop {
            if self.main_woken.swap(false, Ordering::AcqRel)
                && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                self.end();
                return value;
            }
            self.run_woken();
            if lock(&self.woken).is_empty() && !self.main_woken.load(Ordering::Acquire) {
                // Whoever wakes something now has unparked this thread, and it does not sleep.
                thread::park();
            }
        }
    }

    /// Runs the tasks that are woken by now; those that they wake come after the main future.
    fn run_woken(&self) {
        let woken = std::mem::take(&mut *lock(&self.woken));
        for task in woken {
            task.queued.store(false, Ordering::Release);
            let Some(mut job) = lock(&task.job).take() else { continue };
            let waker = Waker::from(task.clone());
            match catch_unwind(AssertUnwindSafe(|| job.as_mut().poll(&mut Context::from_waker(&waker)))) {
                Ok(Poll::Pending) => *lock(&task.job) = Some(job),
                // A panic has said what it had to say, and takes only its own task along.
                Ok(Poll::Ready(())) | Err(_) => {
                    let over = lock(&self.tasks).as_mut().and_then(|tasks| tasks.remove(&task.id));
                    drop(over);
                }
            }
        }
    }

    /// Ends every task, also those that something elsewhere would still wake.
    fn end(&self) {
        let tasks = lock(&self.tasks).take().unwrap_or_default();
        for task in tasks.into_values() {
            let job = lock(&task.job).take();
            drop(job);
        }
    }
}

/// Runs a future on this thread, and what it spawns until it has ended.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let worker = Arc::new(Worker {
        thread: thread::current(),
        main_woken: AtomicBool::new(true),
        woken: Mutex::default(),
        tasks: Mutex::new(Some(BTreeMap::new())),
    });
    let before = HERE.replace(Some(worker.clone()));
    let value = worker.block_on(future);
    HERE.set(before);
    value
}

/// Runs a future by itself on this thread.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    if let Some(worker) = HERE.with_borrow(Clone::clone) {
        worker.spawn(Box::pin(future));
    }
}

/// A thread for each call: there are few, and they are slow anyway.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
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

/// What a descriptor is waited for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    In,
    Out,
}

type Descriptor = Arc<dyn AsFd + Send + Sync>;

/// Who waits for what.
#[derive(Default)]
struct Waiting {
    sockets: BTreeMap<(u64, Way), (Descriptor, Waker)>,
    alarms: BTreeMap<(Tick, u64), Waker>,
}

/// A thread that sleeps in poll(2) for all workers, until a socket is ready or an alarm is due.
struct Reactor {
    waiting: Mutex<Waiting>,
    /// A byte in this pipe ends the sleep.
    bell: (UnixStream, UnixStream),
}

static REACTOR: LazyLock<Reactor> = LazyLock::new(|| {
    let bell = UnixStream::pair().expect("two descriptors are left");
    for end in [&bell.0, &bell.1] {
        end.set_nonblocking(true).expect("a socket can be made non-blocking");
    }
    thread::spawn(|| {
        loop {
            REACTOR.sleep();
        }
    });
    Reactor { waiting: Mutex::default(), bell }
});

impl Reactor {
    /// A bell that is full is heard as well.
    fn ring(&self) {
        let _ = (&self.bell.1).write(&[1]);
    }

    fn watch(&self, id: u64, way: Way, descriptor: Descriptor, waker: &Waker) {
        // One that is there already is being watched.
        if lock(&self.waiting).sockets.insert((id, way), (descriptor, waker.clone())).is_none() {
            self.ring();
        }
    }

    fn forget(&self, id: u64) {
        let sockets = &mut lock(&self.waiting).sockets;
        let watched = [sockets.remove(&(id, Way::In)), sockets.remove(&(id, Way::Out))];
        if watched.iter().any(Option::is_some) {
            // The thread that sleeps on the descriptor lets go of it, so that it is closed.
            self.ring();
        }
    }

    /// Sleeps until something happens, and wakes whoever waited for it.
    fn sleep(&self) {
        let (watched, first) = {
            let Waiting { sockets, alarms } = &*lock(&self.waiting);
            let watched: Vec<_> = sockets.iter().map(|(&key, (descriptor, _))| (key, descriptor.clone())).collect();
            (watched, alarms.keys().next().map(|(at, _)| at.since(clock::now().tick)))
        };
        // Rounded up: an alarm never rings early.
        let span = first.map(|span| span.saturating_add(Duration::from_nanos(1)).min(Duration::from_secs(3600)));
        let timeout = span.and_then(|span| Timespec::try_from(span).ok());
        let mut fds = vec![PollFd::new(&self.bell.0, PollFlags::IN)];
        fds.extend(watched.iter().map(|((_, way), descriptor)| {
            let flags = if *way == Way::In { PollFlags::IN } else { PollFlags::OUT };
            PollFd::from_borrowed_fd(descriptor.as_fd(), flags)
        }));
        // An interrupted call has found nothing; the next one will.
        let _ = poll(&mut fds, timeout.as_ref());
        while matches!((&self.bell.0).read(&mut [0; 64]), Ok(1..)) {}

        let ready = fds[1..].iter().zip(&watched).filter(|(fd, _)| !fd.revents().is_empty());
        let mut waiting = lock(&self.waiting);
        let mut woken: Vec<Waker> = ready.filter_map(|(_, (key, _))| Some(waiting.sockets.remove(key)?.1)).collect();
        let later = waiting.alarms.split_off(&(clock::now().tick, u64::MAX));
        woken.extend(std::mem::replace(&mut waiting.alarms, later).into_values());
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Something with a descriptor that can be waited for.
pub(crate) struct Source<T> {
    id: u64,
    pub(crate) io: Arc<T>,
}

impl<T: AsFd + Send + Sync + 'static> Source<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { id: fresh(), io: Arc::new(io) }
    }

    /// Tries; where that would block, the task is woken when it is worth another try.
    pub(crate) fn attempt<R>(
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
        REACTOR.watch(self.id, way, self.io.clone(), context.waker());
        Poll::Pending
    }
}

impl<T> Drop for Source<T> {
    fn drop(&mut self) {
        REACTOR.forget(self.id);
    }
}

/// A timer.
pub(crate) struct Timer {
    id: u64,
    at: Option<Tick>,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Self { id: fresh(), at: None }
    }

    pub(crate) fn set(&mut self, at: Option<Tick>) {
        if let Some(before) = std::mem::replace(&mut self.at, at) {
            lock(&REACTOR.waiting).alarms.remove(&(before, self.id));
        }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if at <= clock::now().tick {
            self.set(None);
            return Poll::Ready(());
        }
        let alarms = &mut lock(&REACTOR.waiting).alarms;
        alarms.insert((at, self.id), context.waker().clone());
        if alarms.keys().next() == Some(&(at, self.id)) {
            REACTOR.ring();
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.set(None);
    }
}

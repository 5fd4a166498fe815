//! An executor without threads, and sockets without a kernel: the driver's [`Runtime`] for a [`World`](super::World).

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};

use super::super::corp;
use super::core::{Arrival, Core, Door, End, PipeId};
use crate::driver::runtime::{Alarm, Caller, Listener, Runtime};
use crate::policy::Endpoint;
use crate::time::{Now, Tick};

/// A task.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tasks that are to be polled.
type Ready = Arc<Mutex<Vec<usize>>>;

thread_local! {
    static CURRENT: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// What tasks know of their world.
#[derive(Clone)]
pub(super) struct Handle {
    core: Arc<Mutex<Core>>,
    spawned: Arc<Mutex<Vec<Task>>>,
}

/// Never poisoned for long: a world whose task panics is not used again.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    pub(super) fn new(core: Core) -> Self {
        Self { core: Arc::new(Mutex::new(core)), spawned: Arc::default() }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// The world of this thread.
    pub(super) fn current() -> Self {
        CURRENT.with_borrow(Clone::clone).expect("a world is running on this thread")
    }

    /// The time in the world of this thread.
    pub(super) fn time() -> Tick {
        CURRENT.with_borrow(|handle| handle.as_ref().expect("a world is running on this thread").core().tick)
    }

    pub(super) fn enter(&self) {
        CURRENT.set(Some(self.clone()));
    }

    pub(super) fn leave() {
        CURRENT.set(None);
    }

    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        lock(&self.spawned).push(Box::pin(future));
    }
}

struct TaskWaker {
    id: usize,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&self.id) {
            ready.push(self.id);
        }
    }
}

/// All tasks, polled one at a time in the dice's order.
pub(super) struct Executor {
    handle: Handle,
    /// By number; `None` when it is over, or is being polled. Numbers are not used again.
    tasks: Vec<Option<(Task, Waker)>>,
    ready: Ready,
}

impl Executor {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, tasks: Vec::new(), ready: Ready::default() }
    }

    fn adopt(&mut self) {
        let mut spawned = lock(&self.handle.spawned);
        if spawned.is_empty() {
            return;
        }
        let mut ready = lock(&self.ready);
        for task in spawned.drain(..) {
            let id = self.tasks.len();
            let waker = Arc::new(TaskWaker { id, ready: self.ready.clone() });
            self.tasks.push(Some((task, waker.into())));
            ready.push(id);
        }
    }

    /// Polls one task that is ready; `false` when there is none.
    pub(super) fn step(&mut self) -> bool {
        self.adopt();
        let id = {
            let mut ready = lock(&self.ready);
            if ready.is_empty() {
                return false;
            }
            let place = self.handle.core().dice.length(ready.len()) - 1;
            ready.swap_remove(place)
        };
        let Some((mut task, waker)) = self.tasks[id].take() else { return true };
        // Computing takes time, too.
        let mut core = self.handle.core();
        let pause = 1000 + core.dice.below(2000);
        core.tick = core.tick.after(Duration::from_nanos(pause));
        drop(core);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks[id] = Some((task, waker));
        }
        true
    }

    /// Drops all tasks, also those that they spawn while they are dropped.
    pub(super) fn clear(&mut self) {
        self.adopt();
        let mut next = 0;
        while let Some(task) = self.tasks.get_mut(next) {
            drop(task.take());
            next += 1;
            self.adopt();
        }
    }
}

/// The simulated runtime.
#[derive(Clone, Copy, Debug)]
pub struct Sim;

impl Runtime for Sim {
    type Socket = SimSocket;
    type Alarm = SimAlarm;

    fn now() -> Now {
        corp::at(Handle::time())
    }

    fn alarm() -> SimAlarm {
        let handle = Handle::current();
        let id = handle.core().next_serial();
        SimAlarm { handle, id, at: None }
    }

    async fn connect(endpoint: Endpoint) -> io::Result<SimSocket> {
        let handle = Handle::current();
        let pause = {
            let mut core = handle.core();
            let most = u64::try_from(core.weather.latency.as_nanos()).unwrap_or(u64::MAX);
            core.dice.below(most)
        };
        sleep(Duration::from_nanos(pause)).await;
        let door = handle.core().porch(&endpoint).door;
        match door {
            Door::BlackHole => std::future::pending().await,
            Door::Shut => Err(io::ErrorKind::ConnectionRefused.into()),
            Door::Open => {
                let mut core = handle.core();
                let name = format!("server connection {}", core.next_serial());
                let [near, far] = core.connect(&name, "gprxy", "server");
                core.knock(&endpoint, far);
                drop(core);
                Ok(SimSocket::new(handle, &near))
            }
        }
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        Handle::current().spawn(future);
    }

    async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        let pause = Handle::current().core().dice.below(2_000_000);
        sleep(Duration::from_nanos(pause)).await;
        call()
    }
}

/// Lets virtual time pass.
pub async fn sleep(span: Duration) {
    crate::driver::serve::pause::<Sim>(span).await;
}

/// A virtual timer.
pub struct SimAlarm {
    handle: Handle,
    id: u64,
    at: Option<Tick>,
}

impl Alarm for SimAlarm {
    fn set(&mut self, at: Option<Tick>) {
        if let Some(old) = std::mem::replace(&mut self.at, at) {
            self.handle.core().unset_alarm(old, self.id);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let mut core = self.handle.core();
        if at <= core.tick {
            core.unset_alarm(at, self.id);
            self.at = None;
            return Poll::Ready(());
        }
        core.set_alarm(at, self.id, context.waker());
        Poll::Pending
    }
}

impl Drop for SimAlarm {
    fn drop(&mut self) {
        self.set(None);
    }
}

/// One end of a virtual connection.
pub struct SimSocket {
    handle: Handle,
    read: PipeId,
    write: PipeId,
    name: String,
}

impl SimSocket {
    pub(super) fn new(handle: Handle, arrival: &Arrival) -> Self {
        Self { handle, read: arrival.read, write: arrival.write, name: arrival.name.clone() }
    }

    /// The connection's name in the transcript.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends it by a reset.
    pub fn reset(&mut self) {
        self.handle.core().send_end(self.write, End::Reset);
    }

    fn poll_with(
        &self,
        context: &Context<'_>,
        call: impl FnOnce(&mut Core, &Waker) -> Result<Result<usize, End>, bool>,
    ) -> Poll<io::Result<usize>> {
        match call(&mut self.handle.core(), context.waker()) {
            Ok(Ok(n)) => Poll::Ready(Ok(n)),
            Ok(Err(_)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Err(again) => {
                if again {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for SimSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_with(context, |core, waker| core.read(self.read, buffer, waker))
    }
}

impl AsyncWrite for SimSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with(context, |core, waker| core.write(self.write, bytes, waker))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let whole: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(context, &whole)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut core = self.handle.core();
        if !core.is_closed(self.write) {
            core.send_end(self.write, End::Fin);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.handle.core().drop_end(self.read, self.write);
    }
}

/// A virtual listening socket.
pub struct SimListener {
    handle: Handle,
    endpoint: Endpoint,
}

impl SimListener {
    pub(super) fn new(handle: Handle, endpoint: Endpoint) -> Self {
        Self { handle, endpoint }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.handle.core().close_porch(&self.endpoint);
    }
}

impl Listener for SimListener {
    type Socket = SimSocket;

    async fn accept(&self) -> io::Result<(SimSocket, Caller)> {
        let arrival = std::future::poll_fn(|context| {
            let arrival = self.handle.core().accept(&self.endpoint, context.waker());
            arrival.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let caller =
            Caller { address: format!("192.0.2.1:{}", 40_000 + arrival.read).into(), is_local: true, uid: None };
        Ok((SimSocket::new(self.handle.clone(), &arrival), caller))
    }
}

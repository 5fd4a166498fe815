//! Threads with an executor each.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use smol::Executor;

thread_local! {
    /// What this thread runs.
    static HERE: RefCell<Option<Arc<Executor<'static>>>> = const { RefCell::new(None) };
}

/// While it lives, [`spawn`] on this thread finds its executor.
struct Entered {
    before: Option<Arc<Executor<'static>>>,
}

impl Entered {
    fn new(executor: Arc<Executor<'static>>) -> Self {
        Self { before: HERE.replace(Some(executor)) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let executor = HERE.replace(self.before.take());
        // Ends its tasks, which may spawn others when they are dropped: not on what is being taken down.
        drop(executor);
    }
}

/// A task's panic is caught and goes down with the task; the executor runs on.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    match HERE.with_borrow(Clone::clone) {
        Some(executor) => executor.spawn(future).detach(),
        // Not on a worker, or at its end: what is to be done goes on elsewhere.
        None => smol::spawn(future).detach(),
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let executor = Arc::new(Executor::new());
    let _entered = Entered::new(executor.clone());
    // By value, so that of the two handles the other is the last.
    async_io::block_on(async move { executor.run(future).await })
}

pub(crate) fn start_worker<F>(index: usize, make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()>,
{
    std::thread::Builder::new().name(format!("gprxy-{index}")).spawn(move || block_on(async { make().await }))
}

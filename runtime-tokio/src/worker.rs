//! Threads with a runtime each.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};

fn runtime() -> io::Result<Runtime> {
    // Blocking threads serve key fetches, name look-ups and key derivations.
    Builder::new_current_thread().enable_all().max_blocking_threads(8).build()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = runtime()?;
    let output = runtime.block_on(future);
    // A key fetch that nobody answers must not hold up the end.
    runtime.shutdown_background();
    Ok(output)
}

pub(crate) fn start_worker<F>(index: usize, make: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()>,
{
    let runtime = runtime()?;
    std::thread::Builder::new().name(format!("gprxy-{index}")).spawn(move || runtime.block_on(async { make().await }))
}

//! `gprxy start`: the proxy itself, from its settings to its last session.

mod audit;
mod desk;
mod ending;
mod listen;
mod parts;
mod pidfile;

use std::io;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use gprxy_proto::driver::host::{Bound, Host, Signals as _};
use gprxy_proto::driver::serve;
use gprxy_proto::driver::shared::Shared;

use crate::EX_UNAVAILABLE;
use crate::args::RuntimeName;
use crate::config::{Effective, Settings, Snapshot, Sources};

use desk::Desk;
use ending::{End, Watch};
#[cfg(feature = "login")]
pub(crate) use listen::{Listening, listen_tcp, listen_unix};

/// How long the first client waits for the issuers' keys: a proxy that listens should be able to let people in, but an
/// issuer that is down must not keep it from starting.
const FIRST_KEYS: Duration = Duration::from_secs(10);
/// How long sessions that are ended by force may take to say so, before what they left running is cancelled.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where the settings came from: to read them again, and the files as they were.
type Origins = (Sources, Snapshot);

/// Runs the proxy until it is told to end. `effective` and `origins`: what the settings were read from.
pub(crate) fn run(settings: Settings, effective: &Effective, origins: Origins, runtime: RuntimeName) -> ExitCode {
    guard_process();
    match runtime {
        #[cfg(feature = "tokio")]
        RuntimeName::Tokio => run_on::<gprxy_tokio::Tokio>(settings, effective, origins),
        #[cfg(feature = "smol")]
        RuntimeName::Smol => run_on::<gprxy_smol::Smol>(settings, effective, origins),
    }
}

fn run_on<H: Host>(settings: Settings, effective: &Effective, origins: Origins) -> ExitCode {
    let desk = Desk::<H>::new(origins, &settings, effective);
    match H::block_on(start::<H>(settings, desk)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(problem)) => {
            log::error!("{problem}");
            ExitCode::from(EX_UNAVAILABLE)
        }
        Err(error) => {
            log::error!("the runtime cannot be set up: {error}");
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}

async fn start<H: Host>(settings: Settings, desk: Arc<Desk<H>>) -> Result<(), String> {
    let workers = settings.workers;
    // Installed before anything can be seen from outside: who sees the proxy can stop it.
    let signals = H::Signals::install().map_err(|error| format!("signals cannot be caught: {error}"))?;
    let mut listeners = listen::bind(&settings.listen)?;
    let _pidfile = settings.listen.pidfile.clone().map(pidfile::write).transpose()?;
    let shared = Shared::<H>::new(parts::assemble(settings, &desk.mock(), desk.clone(), H::now())?);
    desk.open(&shared);
    H::spawn(shared.clone().keep());
    H::spawn(keep_statistics(shared.clone(), desk.clone()));
    let mut watch = Watch { signals, desk, shared: shared.clone() };
    let mut end = watch.unless_told_to_end(wait_for_keys(&shared)).await.err();
    if end.is_none() {
        for index in 0..workers {
            start_worker(index, &shared, &listeners).await?;
        }
        for listener in &listeners {
            log::info!("listening on {listener}");
        }
        end = watch.unless_told_to_end(std::future::pending::<()>()).await.err();
    }
    let end = end.unwrap_or(End::Drain);
    listeners.retain(|listener| end.is_watched() && listener.is_local());
    watch.end(end).await;
    drop(listeners);
    shared.close_audit();
    Ok(())
}

/// Every worker accepts from every socket: the kernel wakes one that is free. Ends when this one does.
async fn start_worker<H: Host>(
    index: usize,
    shared: &Arc<Shared<H>>,
    listeners: &[listen::Listening],
) -> Result<(), String> {
    let mut bound: Vec<Bound> = Vec::with_capacity(listeners.len());
    for listener in listeners {
        bound.push(listener.share()?);
    }
    let shared = shared.clone();
    let (tell, told) = mpsc::channel();
    let worker = move || async move {
        let listening = bound.into_iter().try_for_each(|bound| {
            let is_local = matches!(bound, Bound::Unix(_));
            let listener = H::listen(bound)?;
            match is_local {
                true => H::spawn(serve::serve_local(shared.clone(), listener)),
                false => H::spawn(serve::serve(shared.clone(), listener)),
            }
            io::Result::Ok(())
        });
        let is_listening = listening.is_ok();
        let _ = tell.send(listening);
        if is_listening {
            // Sessions go on after the last accept; the end of the process ends this.
            std::future::pending::<()>().await;
        }
    };
    let cannot = |error: io::Error| format!("worker {index} cannot be started: {error}");
    H::start_worker(index, worker).map_err(cannot)?;
    match H::blocking(move || told.recv()).await {
        Ok(listening) => listening.map_err(|error| format!("worker {index} cannot listen: {error}")),
        Err(_) => Err(format!("worker {index} ended before it listened")),
    }
}

/// One period of the statistics after the other.
async fn keep_statistics<H: Host>(shared: Arc<Shared<H>>, desk: Arc<Desk<H>>) {
    loop {
        serve::pause::<H>(desk.stats_period()).await;
        shared.turn_statistics();
    }
}

async fn wait_for_keys<H: Host>(shared: &Arc<Shared<H>>) {
    let until = H::now().tick.after(FIRST_KEYS);
    while shared.is_fetching() && H::now().tick < until {
        serve::pause::<H>(Duration::from_millis(10)).await;
    }
    if !shared.is_ready() {
        log::warn!("not every issuer's keys could be fetched: their tokens are refused until they are there");
    }
}

/// Descriptors as many as allowed, and no core file: tokens and passwords are in this memory.
#[cfg(unix)]
pub(crate) fn guard_process() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        log::warn!("the limit of open files cannot be raised");
    }
    let mut cores = getrlimit(Resource::Core);
    cores.current = Some(0);
    let _ = setrlimit(Resource::Core, cores);
}

#[cfg(not(unix))]
pub(crate) fn guard_process() {}

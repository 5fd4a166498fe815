//! Where a running process is told what to do: settings read anew, one of them changed, an end.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use gprxy_proto::driver::control::{Control, Setting, Shutdown};
use gprxy_proto::driver::host::Host;
use gprxy_proto::driver::shared::Shared;
use gprxy_proto::fault::{Refusal, SqlState};

use super::parts::{self, Mock};
use crate::config::{self, AuditSettings, Loaded, Overlay, Settable, Settings, Snapshot, Sources};
use crate::logging;

/// One for each process; the admin console and the signals come here.
pub(super) struct Desk<H: Host> {
    /// Set once there are sessions.
    shared: OnceLock<Weak<Shared<H>>>,
    /// One change of settings at a time.
    state: Mutex<State>,
    orders: Mutex<Orders>,
}

struct State {
    sources: Sources,
    /// The files that the settings in force were read from, as they were.
    files: Snapshot,
    /// As the admin console shows them.
    shown: BTreeMap<String, String>,
    /// What the trail was opened with.
    audit: AuditSettings,
    mock: Mock,
    drain_timeout: Duration,
    cancel_wait_timeout: Duration,
    stats_period: Duration,
    /// What an operator was told last: `SET` tells what is new.
    warnings: Vec<String>,
}

#[derive(Default)]
struct Orders {
    ends: VecDeque<Shutdown>,
    waker: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<H: Host> Desk<H> {
    /// With the settings that the process begins with, and where they came from.
    pub(super) fn new(
        (sources, files): (Sources, Snapshot),
        settings: &Settings,
        effective: &config::Effective,
    ) -> Arc<Self> {
        let state = State {
            sources,
            files,
            shown: shown(effective),
            audit: settings.audit.clone(),
            mock: Mock::new(),
            drain_timeout: settings.limits.drain_timeout,
            cancel_wait_timeout: settings.limits.cancel_wait_timeout,
            stats_period: settings.admin.stats_period,
            warnings: Vec::new(),
        };
        Arc::new(Self { shared: OnceLock::new(), state: Mutex::new(state), orders: Mutex::default() })
    }

    /// The sessions that a change of settings is for.
    pub(super) fn open(&self, shared: &Arc<Shared<H>>) {
        let _ = self.shared.set(Arc::downgrade(shared));
    }

    /// See [`Mock`].
    pub(super) fn mock(&self) -> Mock {
        lock(&self.state).mock.clone()
    }

    /// Whether signals mean what they mean to PgBouncer.
    pub(super) fn is_pgbouncer(&self) -> bool {
        lock(&self.state).sources.ini.is_some()
    }

    /// How long running transactions may take when the process ends.
    pub(super) fn drain_timeout(&self) -> Duration {
        lock(&self.state).drain_timeout
    }

    /// How long a period of the statistics is.
    pub(super) fn stats_period(&self) -> Duration {
        lock(&self.state).stats_period
    }

    /// How long forwarding a cancel may take.
    pub(super) fn cancel_wait_timeout(&self) -> Duration {
        lock(&self.state).cancel_wait_timeout
    }

    /// The next end that somebody has ordered.
    pub(super) async fn next_end(&self) -> Shutdown {
        poll_fn(|context| {
            let mut orders = lock(&self.orders);
            match orders.ends.pop_front() {
                Some(how) => Poll::Ready(how),
                None => {
                    orders.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Reads the settings and puts them into force, all or nothing. What `files` has is not read anew.
    fn load(&self, state: &mut State, mut files: Snapshot) -> Result<(), Refusal> {
        files.during(|| self.load_from_files(state))?;
        state.files = files;
        Ok(())
    }

    fn load_from_files(&self, state: &mut State) -> Result<(), Refusal> {
        let Loaded { settings, effective, warnings } = config::load(&state.sources);
        let settings = settings.map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            refused(&lines)
        })?;
        let log = settings.log.clone();
        let stats_period = settings.admin.stats_period;
        let (drain_timeout, cancel_wait_timeout) = (settings.limits.drain_timeout, settings.limits.cancel_wait_timeout);
        let reload = parts::policy(settings, &state.audit, &state.mock).map_err(|problem| refused(&[problem]))?;
        let Some(shared) = self.shared.get().and_then(Weak::upgrade) else {
            return Err(refused(&["gprxy is not serving".to_owned()]));
        };
        shared.reload(reload).map_err(|problem| refused(&[problem]))?;
        if let Err(problem) = logging::install(&log) {
            log::error!("{problem}");
        }
        for warning in warnings.iter().filter(|warning| !state.warnings.contains(warning)) {
            log::warn!("{warning}");
        }
        state.warnings = warnings;
        let shown = shown(&effective);
        for (name, before) in &state.shown {
            let after = shown.get(name).map_or("", String::as_str);
            if is_fixed(name) && after != before {
                log::warn!("{name} is {after:?} now, and {before:?} until gprxy is started again");
            }
        }
        let fixed =
            state.shown.iter().filter(|(name, _)| is_fixed(name)).map(|(name, value)| (name.clone(), value.clone()));
        state.shown = shown.into_iter().filter(|(name, _)| !is_fixed(name)).chain(fixed.collect::<Vec<_>>()).collect();
        (state.drain_timeout, state.cancel_wait_timeout) = (drain_timeout, cancel_wait_timeout);
        state.stats_period = stats_period;
        Ok(())
    }
}

fn shown(effective: &config::Effective) -> BTreeMap<String, String> {
    let options = effective.options.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    effective
        .shown()
        .filter_map(|line| Some((config::console_name(line.section, line.key)?, line.value.to_owned())))
        .chain(options)
        .collect()
}

/// What holds where nothing is configured; PgBouncer's, where the settings come from its file.
fn default_of(sources: &Sources, name: &str) -> &'static str {
    let theirs = sources.ini.is_some().then(|| config::pgbouncer_default(name)).flatten();
    theirs.or_else(|| config::by_console_name(name).map(|(_, key)| key.default)).unwrap_or_default()
}

fn is_fixed(name: &str) -> bool {
    config::by_console_name(name).is_some_and(|(_, key)| key.fixed)
}

/// Every mistake, for the log and for whoever asked.
fn refused(problems: &[String]) -> Refusal {
    for problem in problems {
        log::error!("{problem}");
    }
    let all = problems.join("; ");
    Refusal::new(
        SqlState::CONFIG_FILE_ERROR,
        format!("the settings of before stay in force, the new ones are wrong: {all}"),
    )
}

impl<H: Host> Control for Desk<H> {
    /// What was `SET` before is forgotten, as with PgBouncer: the files decide.
    fn reload(&self) -> Result<(), Refusal> {
        let state = &mut *lock(&self.state);
        let set = std::mem::take(&mut state.sources.overlay);
        state.warnings.clear();
        let result = self.load(state, Snapshot::default());
        match &result {
            Ok(()) => log::info!("the settings were read anew and are in force"),
            Err(_) => {
                state.sources.overlay = set;
                log::error!("the settings of before stay in force");
            }
        }
        result
    }

    fn set(&self, key: &str, value: &str) -> Result<(), Refusal> {
        let state = &mut *lock(&self.state);
        let settable = config::settable(&state.sources, key).map_err(|why| {
            Refusal::new(SqlState::INVALID_PARAMETER_VALUE, why).hint("SHOW CONFIG lists what can be changed.")
        })?;
        // Nothing else changes, whoever is editing a file in this moment; but a file that is named now is read now.
        let mut files = state.files.clone();
        files.forget(Path::new(value));
        let before: Overlay = state.sources.overlay.clone();
        let overlay = &mut state.sources.overlay;
        match settable {
            Settable::Setting(section, key) => overlay.settings.insert((section, key), value.to_owned()),
            Settable::Option(name) => overlay.options.insert(name, value.to_owned()),
        };
        let result = self.load(state, files);
        if result.is_err() {
            state.sources.overlay = before;
        }
        result
    }

    fn settings(&self) -> Vec<Setting> {
        let state = lock(&self.state);
        let rows = state.shown.iter().map(|(name, value)| Setting {
            key: name.clone(),
            value: value.clone(),
            default: default_of(&state.sources, name).to_owned(),
            changeable: config::settable(&state.sources, name).is_ok(),
        });
        rows.collect()
    }

    fn shutdown(&self, how: Shutdown) {
        let mut orders = lock(&self.orders);
        orders.ends.push_back(how);
        if let Some(waker) = orders.waker.take() {
            waker.wake();
        }
    }
}

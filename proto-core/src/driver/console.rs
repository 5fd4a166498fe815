//! What is said at the admin console, done.

use std::sync::Arc;

use super::connection::Connection;
use super::control::{Control, Shutdown};
use super::runtime::Runtime;
use super::shared::Shared;
use super::slow::Slow;
use crate::console::{ConsoleAccess, Errand, Found, Show, Snapshot, Standing, Verb, Which, no_such_database, not_now};
use crate::fault::{Refusal, SqlState};
use crate::hub::Applicant;
use crate::session::Reply;
use crate::session_id::SessionId;
use crate::time::Now;

/// What a verb comes to.
enum Done {
    /// It is done.
    Now,
    /// It is done when this has an end.
    Later(std::pin::Pin<Box<dyn Future<Output = Found> + Send>>),
}

impl<R: Runtime> Connection<R> {
    /// It is decided what the client gets.
    pub(super) fn introduce(&self, pid: u32) {
        if let Some(about) = self.session.about() {
            self.gauge.card().introduce(about, pid);
        }
    }

    /// The session is at the console: it gets a cancel key.
    pub(super) fn enroll(&mut self, wide_key: bool, now: Now) {
        let session = self.session.id();
        let profile = self.terms.profile.clone();
        let about = self.session.about();
        let names = profile.gate.as_ref().is_some_and(|gate| gate.knows_names());
        let user = about.as_ref().map(|about| &about.user).filter(|_| names);
        let settings = profile.pool_settings("", user.map_or("", |user| user), &profile.pool);
        let admitted = self.shared.with_hub(|hub, _| {
            let applicant = Applicant {
                database: &ConsoleAccess::DATABASES[0].into(),
                user,
                identity: None,
                is_admin: self.standing() == Some(Standing::Admin),
                at_console: true,
                settings: &settings,
            };
            hub.admit(session, &applicant)?;
            let key = hub.enroll(session, wide_key);
            // What there is to cancel is a wait.
            hub.cancels.handle_waiting(session);
            Ok(key)
        });
        match admitted {
            Ok(key) => {
                self.shared.enter_console(self.gauge.card());
                self.introduce(key.pid());
                self.reply(Reply::Enrolled(key), now);
            }
            Err(refusal) => self.reply(Reply::Refused(refusal), now),
        }
    }

    pub(super) fn console(&mut self, errand: Errand, now: Now) {
        let found = match errand {
            errand if !self.may_still(&errand) => Found::Refused(
                Refusal::new(
                    SqlState::INSUFFICIENT_PRIVILEGE,
                    "the settings have changed, and this is not allowed any more",
                )
                .hint("Connect again."),
            ),
            Errand::Look(Show::Config) => match self.shared.control.clone() {
                Some(control) => {
                    return self.later(R::blocking(move || {
                        let settings = control.settings();
                        Found::Snapshot(Box::new(Snapshot { settings, ..Snapshot::default() }))
                    }));
                }
                None => Found::Snapshot(Box::default()),
            },
            Errand::Look(show) => {
                let mut snapshot = self.shared.look(show, now);
                // This very command counts, as it does with PgBouncer.
                let database = self.gauge.card().database();
                let own = snapshot.statistics.iter_mut().find(|it| Some(&it.name) == database);
                if let Some(own) = own {
                    own.now.queries += 1;
                    own.now.transactions += 1;
                }
                Found::Snapshot(Box::new(snapshot))
            }
            Errand::Do(verb) => {
                log::info!("session {}: {verb:?} at the admin console", self.session.id());
                match perform(&self.shared, verb) {
                    Ok(Done::Now) => Found::Done,
                    Ok(Done::Later(job)) => return self.later(job),
                    Err(refusal) => Found::Refused(refusal),
                }
            }
        };
        self.reply(Reply::Console(found), now);
    }

    /// Whether the settings that hold now, and not those that held at the login, let this visitor do that.
    fn may_still(&self, errand: &Errand) -> bool {
        match errand {
            Errand::Look(_) => self.standing().is_some(),
            Errand::Do(_) => self.standing() == Some(Standing::Admin),
        }
    }

    fn standing(&self) -> Option<Standing> {
        let terms = self.shared.terms();
        self.session.identity().and_then(|who| terms.profile.console.as_ref()?.standing(who))
    }

    fn later(&mut self, job: impl Future<Output = Found> + Send + 'static) {
        self.slow = Some(Slow::Console(Box::pin(job)));
        // It is polled for the first time with this task's next wake-up.
        self.mailbox.wake();
    }
}

fn perform<R: Runtime>(shared: &Arc<Shared<R>>, verb: Verb) -> Result<Done, Refusal> {
    match verb {
        Verb::Set { key, value } => with_control::<R>(shared, move |control| control.set(&key, &value)),
        Verb::Reload => with_control::<R>(shared, |control| control.reload().map_err(|why| reload_failed(&why))),
        Verb::Shutdown(how) => {
            let done = with_control::<R>(shared, move |control| {
                control.shutdown(how);
                Ok(())
            })?;
            // From here on, and not from when the process comes to it: whoever has the answer can rely on it.
            match how {
                Shutdown::Now => {}
                Shutdown::WaitForClients => shared.stop_accepting(),
                Shutdown::WaitForServers => {
                    shared.stop_accepting();
                    shared.close_pools();
                }
            }
            Ok(done)
        }
        Verb::Pause(which) => pause(shared, which),
        Verb::Resume(which) => resume(shared, which.as_deref()),
        Verb::Disable(name) => {
            check(shared, Some(&name), "disable")?;
            shared.with_hub(|hub, _| hub.pools.disable(&name));
            Ok(Done::Now)
        }
        Verb::Enable(name) => {
            check(shared, Some(&name), "enable")?;
            shared.with_hub(|hub, _| hub.pools.enable(&name));
            Ok(Done::Now)
        }
        Verb::Reconnect(which) => {
            check(shared, which.as_deref(), "reconnect")?;
            shared.with_hub(|hub, now| hub.pools.reconnect(which.as_deref(), now));
            shared.close_fast();
            Ok(Done::Now)
        }
        Verb::Kill(which) => kill(shared, which),
        Verb::KillClient(client) => {
            let session = shared.session_called(client.0).ok_or_else(|| not_now("client not found"))?;
            Ok(end(shared, vec![session]))
        }
        Verb::WaitClose(which) => {
            check(shared, which.as_deref(), "wait in")?;
            Ok(when(shared, move |shared| !shared.any_stale(which.as_deref())))
        }
        Verb::Suspend => suspend(shared),
    }
}

/// Whether there is such a database, and it is none of gprxy's own.
fn check<R: Runtime>(shared: &Shared<R>, name: Option<&str>, verb: &str) -> Result<(), Refusal> {
    let Some(name) = name else { return Ok(()) };
    if shared.terms().profile.is_console(name) {
        return Err(not_now(format!("cannot {verb} admin db: {name}")));
    }
    shared.terms().profile.databases.find(name).map(|_| ()).ok_or_else(|| no_such_database(name))
}

fn not_paused_yet<R: Runtime>(shared: &Arc<Shared<R>>) -> Result<(), Refusal> {
    let paused = shared.is_suspended() || shared.with_hub(|hub, _| hub.pools.is_paused(None));
    if paused { Err(not_now("already suspended/paused")) } else { Ok(()) }
}

fn pause<R: Runtime>(shared: &Arc<Shared<R>>, which: Which) -> Result<Done, Refusal> {
    not_paused_yet(shared)?;
    check(shared, which.as_deref(), "pause")?;
    shared.with_hub(|hub, now| hub.pools.pause(which.as_deref(), now));
    Ok(when(shared, move |shared| shared.leased_of(which.as_deref()) == 0))
}

fn resume<R: Runtime>(shared: &Arc<Shared<R>>, which: Option<&str>) -> Result<Done, Refusal> {
    if which.is_none() && shared.is_closed() {
        return Err(not_now("pooler is shutting down"));
    }
    check(shared, which, "resume")?;
    if which.is_none() && shared.resume_reading() {
        return Ok(Done::Now);
    }
    shared.with_hub(|hub, now| match (hub.pools.is_paused(which), which) {
        (true, _) => {
            hub.pools.resume(which, now);
            Ok(Done::Now)
        }
        (false, None) => Err(not_now("pooler is not paused/suspended")),
        (false, Some(name)) => Err(not_now(format!("database {name} is not paused"))),
    })
}

fn kill<R: Runtime>(shared: &Arc<Shared<R>>, which: Which) -> Result<Done, Refusal> {
    not_paused_yet(shared)?;
    check(shared, which.as_deref(), "kill")?;
    shared.with_hub(|hub, now| hub.pools.pause(which.as_deref(), now));
    let sessions = shared.sessions_of(which.as_deref());
    Ok(end(shared, sessions))
}

/// Ends sessions; done when they are gone.
fn end<R: Runtime>(shared: &Arc<Shared<R>>, sessions: Vec<SessionId>) -> Done {
    let refusal = Refusal::new(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command");
    shared.kill(&sessions, &refusal);
    when(shared, move |shared| !shared.any_present(&sessions))
}

fn suspend<R: Runtime>(shared: &Arc<Shared<R>>) -> Result<Done, Refusal> {
    not_paused_yet(shared)?;
    if shared.any_paused() {
        return Err(not_now("cannot suspend with paused databases"));
    }
    let flushed = shared.suspend_reading();
    Ok(when(shared, move |_| flushed.is_complete()))
}

/// Done when that is so.
fn when<R: Runtime>(shared: &Arc<Shared<R>>, is_so: impl Fn(&Shared<R>) -> bool + Send + Sync + 'static) -> Done {
    if is_so(shared) {
        return Done::Now;
    }
    let shared = shared.clone();
    Done::Later(Box::pin(async move {
        shared.until(is_so).await;
        Found::Done
    }))
}

/// Where settings come from is asked where blocking is allowed.
fn with_control<R: Runtime>(
    shared: &Shared<R>,
    call: impl FnOnce(&dyn Control) -> Result<(), Refusal> + Send + 'static,
) -> Result<Done, Refusal> {
    let control = shared.control.clone().ok_or_else(|| {
        Refusal::new(SqlState::FEATURE_NOT_SUPPORTED, "this process cannot be controlled from its console")
    })?;
    Ok(Done::Later(Box::pin(async move {
        match R::blocking(move || call(&*control)).await {
            Ok(()) => Found::Done,
            Err(refusal) => Found::Refused(refusal),
        }
    })))
}

fn reload_failed(why: &Refusal) -> Refusal {
    Refusal::new(SqlState::CONFIG_FILE_ERROR, "RELOAD failed, see logs for additional details")
        .hint(why.message.clone())
}

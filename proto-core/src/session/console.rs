//! A session that reached no database but gprxy itself: see [`crate::console`].

use std::sync::Arc;

use crate::audit::{Event, Record, SessionEnd, SessionFacts};
use crate::auth::Authenticated;
use crate::cancel::CancelKey;
use crate::codec::backend::{Severity, emit_authentication_ok, emit_backend_key_data, emit_error};
use crate::codec::startup::PROTOCOL_3_2;
use crate::console::{self, Console, Found, Input, Visitor};
use crate::fault::{Lost, Refusal, SqlState};
use crate::preamble::Startup;
use crate::time::{Now, Tick};

use super::leasing::Leasing;
use super::proving::Proving;
use super::relaying::describe;
use super::{Action, Finish, Output, Phase, Session, Side, Verdict};

pub(super) struct Consoling {
    pub(super) who: Authenticated,
    pub(super) startup: Startup,
    pub(super) console: Console,
    facts: Arc<SessionFacts>,
    began: Tick,
    greeted: bool,
}

impl Session {
    /// Lets gprxy's own user of this machine in without a question. `false`: it is somebody else.
    pub(super) fn console_without_password(&mut self, startup: &Startup, now: Now) -> bool {
        let Some(access) = self.profile.console.clone() else { return false };
        if !self.profile.is_console(&startup.database) || !access.is_own(&startup.user, self.peer.uid) {
            return false;
        }
        let Some(who) = Authenticated::by_peer(self.peer.uid, access.own_uid, &startup.user) else { return false };
        self.write(emit_authentication_ok);
        self.enter_console(startup.clone(), who, now);
        true
    }

    /// Somebody is proven and asked for the console: they get it if they may, also when there are too many clients.
    pub(super) fn enter_console(&mut self, startup: Startup, who: Authenticated, now: Now) {
        let standing = self.profile.console.as_ref().and_then(|access| access.standing(who.identity()));
        let Some(standing) = standing else {
            let refusal = self.crowded.take().map_or_else(|| not_allowed(&startup.database), |crowd| *crowd);
            self.phase = Phase::Leasing(Box::new(Leasing::new(startup, Some(who), None)));
            return self.refuse(refusal, now);
        };
        self.crowded = None;
        let facts = self.facts_of(&startup, Some(&who), None);
        let visitor = Visitor {
            standing,
            user: startup.user.clone(),
            database: startup.database.clone(),
            application: startup.application.clone(),
        };
        let console = Console::new(visitor, self.profile.audit);
        if self.profile.audit.is_some() {
            let record = Record { time: now.unix, facts: facts.clone(), event: Event::SessionStart };
            self.out.push_back(Output::Audit(Box::new(record)));
        }
        let wide_key = startup.version >= PROTOCOL_3_2;
        let consoling = Consoling { who, startup, console, facts, began: now.tick, greeted: false };
        self.phase = Phase::Console(Box::new(consoling));
        self.out.push_back(Output::Do(Action::Enroll { wide_key }));
    }

    /// The console needs a proof that gprxy can check itself: there is no server that could.
    pub(super) fn refuse_console_password(&mut self, now: Now) {
        self.refuse(
            Refusal::new(SqlState::INVALID_PASSWORD, "the admin console cannot check this password")
                .hint("Log in with a token, or as gprxy's own user of its machine through the Unix socket."),
            now,
        );
    }

    /// Its cancel key: now it is ready.
    pub(super) fn console_enrolled(&mut self, key: &CancelKey, now: Now) {
        let Phase::Console(consoling) = &mut self.phase else { return };
        if std::mem::replace(&mut consoling.greeted, true) {
            return;
        }
        self.write(|out| emit_backend_key_data(out, key.pid(), key.key()));
        self.at_console(now, |console| console.handle_enrolled(key.pid()));
    }

    pub(super) fn console_input(&mut self, bytes: &[u8], now: Now) -> Verdict {
        let Phase::Console(consoling) = &mut self.phase else { return Verdict::Wait };
        if !consoling.greeted {
            return Verdict::Wait;
        }
        let input = self.at_console(now, |console| console.handle_input(bytes, now));
        match input {
            Some(Input::Took(n)) => return Verdict::Take(n),
            Some(Input::Wait) | None => return Verdict::Wait,
            Some(Input::Left) => self.leave_console(Finish::Terminated, now),
            Some(Input::Broken(violation)) => {
                self.write(|out| emit_error(out, Severity::Fatal, &violation.into()));
                self.leave_console(Finish::Broken(Side::Client, violation), now);
            }
        }
        Verdict::Take(bytes.len())
    }

    pub(super) fn console_found(&mut self, found: Found, now: Now) {
        let _ = self.at_console(now, |console| console.handle_found(found, now));
    }

    pub(super) fn console_reserved(&mut self, granted: bool, now: Now) {
        let _ = self.at_console(now, |console| console.handle_reserved(granted, now));
    }

    pub(super) fn console_cancelled(&mut self, now: Now) {
        let _ = self.at_console(now, |console| console.handle_cancel(now));
    }

    pub(super) fn console_closed(&mut self, how: Lost, now: Now) {
        self.leave_console(Finish::Lost(Side::Client, how), now);
    }

    pub(super) fn console_killed(&mut self, refusal: Refusal, now: Now) {
        self.write(|out| emit_error(out, Severity::Fatal, &refusal));
        self.leave_console(Finish::Refused(refusal), now);
    }

    fn leave_console(&mut self, finish: Finish, now: Now) {
        let _ = self.at_console(now, |console| {
            console.handle_cancel(now);
            console.handle_end(now);
        });
        self.last = Some(Box::new(self.progress()));
        let Phase::Console(consoling) = &self.phase else { return };
        if self.profile.audit.is_some() {
            let event = Event::SessionEnd(SessionEnd {
                statements: consoling.console.commands(),
                duration: now.tick.since(consoling.began),
                reason: describe(&finish).into(),
                sqlstate: match &finish {
                    Finish::Refused(refusal) => Some(refusal.code),
                    _ => None,
                },
                bytes_to_client: 0,
                bytes_to_server: 0,
            });
            let record = Record { time: now.unix, facts: consoling.facts.clone(), event };
            self.out.push_back(Output::Audit(Box::new(record)));
        }
        self.finish(finish, now);
    }

    /// Does something at the console, then what it wants done.
    fn at_console<T>(&mut self, now: Now, call: impl FnOnce(&mut Console) -> T) -> Option<T> {
        let Phase::Console(consoling) = &mut self.phase else { return None };
        let result = call(&mut consoling.console);
        while let Some(output) = consoling.console.poll_output() {
            self.out.push_back(match output {
                console::Output::Send(bytes) => Output::Send(Side::Client, bytes),
                console::Output::Ask(errand) => Output::Do(Action::Console(errand)),
                console::Output::Reserve => Output::Do(Action::Reserve),
                console::Output::GiveUp => Output::Do(Action::GiveUp),
                console::Output::Record(statement, has_place) => {
                    let event = Event::Statement(*statement);
                    let record = Box::new(Record { time: now.unix, facts: consoling.facts.clone(), event });
                    if has_place { Output::AuditStatement(record) } else { Output::Audit(record) }
                }
            });
        }
        Some(result)
    }

    /// A client that may be let in although there are too many waits for its proof.
    pub(super) fn may_enter_crowded(&self, startup: &Startup) -> bool {
        self.crowded.is_none() || self.profile.is_console(&startup.database)
    }

    pub(super) fn proves_for_console(&self, proving: &Proving) -> bool {
        self.profile.is_console(&proving.startup.database)
    }
}

fn not_allowed(database: &str) -> Refusal {
    Refusal::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("not allowed: \"{database}\" is gprxy's admin console"))
        .hint("admin.admin_roles, admin.stats_roles, admin.admin_users and admin.stats_users say who may use it.")
}

//! A user whom the gate does not know is looked up on a server, before anything is asked of the client.
//!
//! ```text
//!   Proving ──LookUp──▶ asked ──Leased──▶ on the server ──Release──▶ Proving, with what is kept of the password
//! ```
//! Nobody is proven here. So nothing of the client but the name reaches the server, and that as a parameter; the
//! connection is opened without the client's parameters and carries nobody's state; and the client learns no more than
//! that it worked or not: whether the user exists is not told, and what the server says goes to the log.

use std::sync::Arc;

use crate::auth::gate::{Backing, Gate};
use crate::auth::scram::NONCE_LEN;
use crate::auth::users::StoredSecret;
use crate::fault::{Lost, Refusal, SqlState};
use crate::policy::{AuthQuery, Database};
use crate::pool::{Lease, PoolMode};
use crate::preamble::Startup;
use crate::relay::OnServer;
use crate::time::{Deadline, Now};
use crate::upstream::{Lookup, LookupFault, LookupOutcome, LookupOutput, Parameters};

use super::gating::credential_of;
use super::proving::Proving;
use super::{Action, Credential, Leased, Output, Phase, Return, ReturnState, Session, Side, Verdict, Wish};

/// Where to look somebody up.
pub(super) struct Place {
    terms: Arc<AuthQuery>,
    /// As clients name it.
    database: Arc<str>,
    target: Arc<Database>,
}

/// What becomes of somebody before the gate asks them.
pub(super) enum Search {
    /// Nobody is looked up, or not this one.
    Needless,
    /// They are looked up here.
    In(Place),
    /// Others are looked up, but there is no place to look for this one.
    Nowhere,
}

pub(super) struct Looking {
    proving: Box<Proving>,
    /// For the gate, behind this.
    nonce: [u8; NONCE_LEN],
    place: Place,
    server: Option<OnLease>,
}

/// The question is asked.
struct OnLease {
    lease: Lease,
    lookup: Lookup,
    statements: Option<Box<OnServer>>,
}

impl Looking {
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.server.as_ref()?.lookup.poll_timeout()
    }
}

impl Session {
    /// Where this client's user is looked up. Who asks for a database that does not exist is asked for a password as
    /// everybody is, and so looked up as everybody is, where one place is named for all.
    ///
    /// # Errors
    /// What is wrong with the settings, for the log.
    pub(super) fn search(&self, gate: &Gate, startup: &Startup) -> Result<Search, String> {
        let profile = &self.profile;
        let somewhere =
            || profile.auth_query.is_some() || profile.databases.entries().any(|(_, it)| it.auth_query.is_some());
        if gate.knows(&startup.user) {
            return Ok(Search::Needless);
        }
        let terms = match profile.databases.find(&startup.database) {
            Some(target) if !profile.is_console(&startup.database) => target.auth_query.as_ref(),
            // There is no server that could be asked but one that is named.
            _ => profile.auth_query.as_ref().filter(|terms| terms.database.is_some()),
        };
        let Some(terms) = terms else {
            return Ok(if somewhere() { Search::Nowhere } else { Search::Needless });
        };
        let database = terms.database.as_ref().unwrap_or(&startup.database);
        if profile.is_console(database) {
            return Err(format!("cannot use the reserved \"{database}\" database as an auth_dbname"));
        }
        let target = profile.databases.find(database);
        let target = target.ok_or_else(|| format!("authentication database \"{database}\" is not configured"))?;
        Ok(Search::In(Place { terms: terms.clone(), database: database.clone(), target: target.clone() }))
    }

    /// Asks for a server connection.
    pub(super) fn look_up(&mut self, gate: &Gate, place: Place, nonce: [u8; NONCE_LEN], now: Now) {
        let user = &place.terms.user;
        let wish = Wish {
            account: user.clone(),
            credential: gate.backing(user).map_or(
                // The server must trust it then.
                Credential::Passed(crate::upstream::Credential::None),
                |backing| match backing {
                    Backing::Provided => Credential::Passed(crate::upstream::Credential::None),
                    backing => credential_of(backing),
                },
            ),
            database: place.database.clone(),
            target: place.target.clone(),
            role: user.clone(),
            settings: self.profile.pool_settings(user, user, &place.target.pool),
            identity: None,
            // Not the client's: they could change what the query means.
            parameters: Arc::new([]),
            startup_query: None,
            // It goes back as soon as the answer is there,
            mode: PoolMode::Transaction,
            // and what others leave on it is removed before. No issuer has this name.
            owner: Some(format!("auth_query\0{user}").into()),
            wide_key: false,
            for_lookup: true,
        };
        match std::mem::replace(&mut self.phase, Phase::Closing(now.tick)) {
            Phase::Proving(proving) => {
                self.phase = Phase::Looking(Box::new(Looking { proving, nonce, place, server: None }));
                self.out.push_back(Output::Do(Action::LookUp(Box::new(wish))));
            }
            other => self.phase = other,
        }
    }

    pub(super) fn looking_leased(&mut self, leased: Leased, now: Now) {
        let Phase::Looking(looking) = &mut self.phase else { return self.give_back_unused(leased) };
        if looking.server.is_some() {
            return self.give_back_unused(leased);
        }
        let usual = looking.place.target.session.timeouts;
        let timeout = self.profile.users.timeouts(&looking.place.terms.user, usual).query;
        let until = match timeout.is_zero() {
            true => self.login_until,
            false => self.login_until.min(now.tick.after(timeout)),
        };
        let user = looking.proving.startup.user.clone();
        let lookup = Lookup::new(&looking.place.terms.query, user, until);
        looking.server = Some(OnLease { lease: leased.lease, lookup, statements: leased.statements });
        self.go_on_looking(now);
    }

    pub(super) fn looking_input(&mut self, bytes: &[u8], now: Now) -> Verdict {
        self.while_looking(now, |lookup| lookup.handle_input(bytes, now));
        Verdict::Take(bytes.len())
    }

    pub(super) fn looking_lost(&mut self, how: Lost, now: Now) {
        self.while_looking(now, |lookup| lookup.handle_close(how, now));
    }

    pub(super) fn looking_timed_out(&mut self, now: Now) {
        self.while_looking(now, |lookup| lookup.handle_timeout(now));
    }

    /// There is no server connection to ask on.
    pub(super) fn looking_refused(&mut self, refusal: &Refusal, now: Now) {
        let Phase::Looking(looking) = &self.phase else { return };
        if looking.server.is_some() {
            return;
        }
        self.warn(looking, refusal);
        let told = match refusal.code {
            // An operator has closed it.
            SqlState::NOT_IN_PREREQUISITE_STATE => {
                Refusal::new(refusal.code, format!("authentication {}", refusal.message))
            }
            _ => not_now(),
        };
        self.back_to_proving();
        self.refuse(told, now);
    }

    /// The client leaves, or is refused: the server connection goes back, or is not waited for any more.
    pub(super) fn stop_looking(&mut self) {
        if !matches!(self.phase, Phase::Looking(_)) {
            return;
        }
        match self.take_server_of_looking() {
            Some(OnLease { lease, statements, .. }) => {
                self.end_question(lease, statements, ReturnState::Busy, Vec::new())
            }
            None => self.out.push_back(Output::Do(Action::GiveUp)),
        }
        self.back_to_proving();
    }

    fn while_looking(&mut self, now: Now, call: impl FnOnce(&mut Lookup)) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        if let Some(server) = &mut looking.server {
            call(&mut server.lookup);
            self.go_on_looking(now);
        }
    }

    fn go_on_looking(&mut self, now: Now) {
        loop {
            let Phase::Looking(looking) = &mut self.phase else { return };
            let output = looking.server.as_mut().and_then(|server| server.lookup.poll_output());
            match output {
                Some(LookupOutput::Send(bytes)) => self.out.push_back(Output::Send(Side::Server, bytes)),
                Some(LookupOutput::Finished(outcome)) => return self.looked_up(outcome, now),
                None => return,
            }
        }
    }

    fn looked_up(&mut self, outcome: LookupOutcome, now: Now) {
        let Phase::Looking(looking) = &self.phase else { return };
        let nonce = looking.nonce;
        let (state, parameters, found) = match outcome {
            LookupOutcome::Found(secret, parameters) => {
                (ReturnState::Between, parameters, Ok(Some(StoredSecret::parse(secret.expose()))))
            }
            LookupOutcome::Nobody(parameters) => (ReturnState::Between, parameters, Ok(None)),
            LookupOutcome::SomebodyElse(parameters) => {
                self.warn(looking, &"auth_query gave a row for another user");
                (ReturnState::Between, parameters, Ok(None))
            }
            LookupOutcome::Broken(fault) => {
                self.warn(looking, &fault);
                let state = if fault == LookupFault::TimedOut { ReturnState::Busy } else { ReturnState::Broken };
                (state, Vec::new(), Err(fault))
            }
        };
        if let Some(OnLease { lease, statements, .. }) = self.take_server_of_looking() {
            self.end_question(lease, statements, state, parameters);
        }
        self.back_to_proving();
        match found {
            Ok(found) => self.gate_looked_up(found, nonce, now),
            Err(fault) if fault.is_temporary() => self.refuse(not_now(), now),
            Err(_) => self.refuse(misconfigured(), now),
        }
    }

    fn take_server_of_looking(&mut self) -> Option<OnLease> {
        match &mut self.phase {
            Phase::Looking(looking) => looking.server.take(),
            _ => None,
        }
    }

    fn end_question(
        &mut self,
        lease: Lease,
        statements: Option<Box<OnServer>>,
        state: ReturnState,
        changed: Parameters,
    ) {
        self.out.push_back(Output::Do(Action::Release(Return { lease, state, changed, statements })));
    }

    fn back_to_proving(&mut self) {
        let closing = Phase::Closing(self.login_until);
        self.phase = match std::mem::replace(&mut self.phase, closing) {
            Phase::Looking(looking) => Phase::Proving(looking.proving),
            other => other,
        };
    }

    fn warn(&self, looking: &Looking, why: &dyn std::fmt::Display) {
        let (user, place) = (&looking.proving.startup.user, &looking.place);
        log::warn!("session {}: user {user:?} cannot be looked up in database {:?}: {why}", self.id, place.database);
    }
}

/// The settings, or what the query gives, are not as they must be. PgBouncer's words are among it, for those who look
/// for them.
pub(super) fn misconfigured() -> Refusal {
    Refusal::new(
        SqlState::PROTOCOL_VIOLATION,
        "login failed: gprxy is not able to look up users (bouncer config error)",
    )
    .hint("The log of gprxy says why; its operator has to see to it.")
}

fn not_now() -> Refusal {
    Refusal::new(SqlState::CANNOT_CONNECT_NOW, "login failed: gprxy is not able to look up users at the moment")
        .hint("Try again later; the log of gprxy says why.")
}

//! Logins to servers: for a session under its lease, and ahead of whoever comes next.

use std::sync::Arc;

use super::connection::Connection;
use super::dial::{self, OpenFailure};
use super::runtime::Runtime;
use super::server::{self, ServerConnection};
use super::shared::Shared;
use super::slow::{Opened, Slow};
use super::told::{self, Teller};
use crate::auth::Authenticated;
use crate::cancel::BackendTarget;
use crate::codec::backend::TransactionStatus;
use crate::fault::{Refusal, SqlState};
use crate::pool::{Lease, OpenError, PoolMode};
use crate::relay::OnServer;
use crate::secret::Secret;
use crate::session::{Credential, Reply, Wish, canonical};
use crate::time::Now;
use crate::upstream::{self, BackendKey, LoggedIn, LoginFailure, LoginSettings, Parameters, ResetFault, ResetPlan};

impl<R: Runtime> Connection<R> {
    /// Logs in to the server under this lease; `bare`: without startup parameters, which are set behind it.
    pub(super) fn open(&mut self, lease: Lease, bare: bool) {
        let Some(wish) = &self.wish else { return self.shared.discard(lease) };
        let (shared, wish) = (self.shared.clone(), wish.clone());
        let job = async move {
            match bare {
                true => log_in_bare::<R>(&shared, &wish).await,
                false => log_in::<R>(&shared, &wish).await,
            }
        };
        self.slow = Some(Slow::Opening(Some(lease), Box::pin(job)));
        // It is polled for the first time with this task's next wake-up.
        self.mailbox.wake();
    }

    pub(super) fn opened(
        &mut self,
        lease: Lease,
        opened: Result<(ServerConnection<R::Socket>, LoggedIn), OpenFailure>,
        now: Now,
    ) {
        let (mut connection, login) = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.open_failed(lease, &failure, now),
        };
        if let Some(wish) = &self.wish {
            furnish(&self.shared, self.terms.generation, wish, &lease, &mut connection, &login);
            self.shared.recipes.keep(self.terms.generation, wish);
        }
        let Some(wish) = self.wish.clone() else { return self.shared.discard(lease) };
        let proof = match &wish.credential {
            Credential::Account(_) | Credential::Passed(_) | Credential::Provided => None,
            Credential::Own(_) => match self.prove(&wish, &login) {
                Ok(who) => Some(who),
                Err((why, refusal)) => {
                    self.shared.tell_end(&connection, why);
                    R::spawn(connection.close::<R>());
                    self.shared.discard(lease);
                    self.stop_asking();
                    return self.reply(Reply::Refused(refusal), now);
                }
            },
        };
        let bare = connection.bare.is_some();
        self.shared.with_hub(|hub, now| {
            if !bare {
                hub.pools.handle_unadaptable(&lease);
            }
            hub.pools.handle_opened(&lease, now);
        });
        self.leased(lease, connection, proof, now);
    }

    /// PostgreSQL itself has checked a password, and tells by that who this is: only from here on the client counts.
    fn prove(&self, wish: &Wish, login: &LoggedIn) -> Result<Authenticated, (&'static str, Refusal)> {
        let who = Authenticated::by_server(login).ok_or_else(|| ("password not asked for", password_not_asked()))?;
        self.admit(wish, Some(&canonical(who.identity()))).map_err(|refusal| ("client has no place", refusal))?;
        Ok(who)
    }

    fn open_failed(&mut self, lease: Lease, failure: &OpenFailure, now: Now) {
        let refusal = failure.refusal();
        let own_password = self.wish.as_ref().is_some_and(|wish| matches!(wish.credential, Credential::Own(_)));
        if !own_password && let Some(wish) = &self.wish {
            told::login_failed(wish, failure);
        }
        // A person's wrong password says nothing about the server, and must not hold up the others.
        if own_password || !failure.concerns_others() {
            self.shared.discard(lease);
        } else {
            let error = OpenError { refusal: refusal.clone(), is_down: failure.is_down() };
            if self.shared.with_hub(|hub, now| hub.pools.handle_open_failed(lease, error, now)) {
                return;
            }
        }
        self.stop_asking();
        let reply = match failure {
            OpenFailure::Login { failure: LoginFailure::Server(error), .. } => {
                let mut message = Vec::new();
                error.emit(&mut message);
                Reply::RefusedByServer(message.into(), refusal)
            }
            _ => Reply::Refused(refusal),
        };
        self.reply(reply, now);
    }
}

/// Logs in to a server as a wish says.
pub(super) async fn log_in<R: Runtime>(shared: &Arc<Shared<R>>, wish: &Wish) -> Opened<R::Socket> {
    let (mut connection, mut login) = connect::<R>(shared, wish, false).await?;
    if wish.settings.connect_query.is_some() {
        begin::<R>(shared, wish, &mut connection).await.map_err(OpenFailure::ConnectQuery)?;
        login.parameters = current(&connection);
    }
    Ok((connection, login))
}

/// The same without startup parameters, which are set behind the login; with them where the server refuses that.
pub(super) async fn log_in_bare<R: Runtime>(shared: &Arc<Shared<R>>, wish: &Wish) -> Opened<R::Socket> {
    let (mut connection, mut login) = connect::<R>(shared, wish, true).await?;
    connection.bare = Some(Arc::new(login.parameters.clone()));
    connection.startup_query.clone_from(&wish.startup_query);
    match begin::<R>(shared, wish, &mut connection).await {
        Ok(()) => {
            login.parameters = current(&connection);
            Ok((connection, login))
        }
        Err(fault @ ResetFault::Query(_)) => Err(OpenFailure::ConnectQuery(fault)),
        // Whatever it is: a login with the parameters succeeds, or says why not.
        Err(_) => {
            connection.abandon::<R>().await;
            log_in::<R>(shared, wish).await
        }
    }
}

/// What is done first on every new connection.
async fn begin<R: Runtime>(
    shared: &Arc<Shared<R>>,
    wish: &Wish,
    connection: &mut ServerConnection<R::Socket>,
) -> Result<(), ResetFault> {
    let plan = ResetPlan::connect(wish.settings.connect_query.clone(), shared.with_hub(|hub, _| hub.random()));
    server::reset::<R>(connection, TransactionStatus::Idle, plan).await
}

/// What the server has reported so far, each name with its last value.
pub(super) fn current<S>(connection: &ServerConnection<S>) -> Parameters {
    connection.parameters.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

async fn connect<R: Runtime>(shared: &Arc<Shared<R>>, wish: &Wish, bare: bool) -> Opened<R::Socket> {
    let target = &*wish.target;
    let tls = shared.server_tls(&target.tls_terms());
    let token = match &wish.credential {
        Credential::Provided => Some(fresh_token(shared).await?),
        _ => None,
    };
    let profile = shared.terms().profile.clone();
    let (teller, hosts) = (Teller::of(wish, profile.log), shared.hosts(target));
    let opened = dial::open::<R>(target, &hosts, tls, profile.sockets, &teller, |endpoint| {
        let settings = wish.login_settings(shared.with_hub(|hub, _| hub.random()));
        let credential = match (&wish.credential, &token) {
            (Credential::Account(_), _) => settings.credential.with_keys(shared.scram_keys(&wish.account, endpoint)),
            (_, Some(token)) => upstream::Credential::Token { token: token.clone(), stays_here: endpoint.is_local() },
            _ => settings.credential,
        };
        let parameters = if bare { Arc::new([]) } else { settings.parameters };
        let tls_possible = dial::tls_possible(endpoint, target.sslmode);
        LoginSettings { tls_possible, credential, parameters, ..settings }
    });
    opened.await
}

/// What a connection needs that was opened by a wish under this lease, and what is kept of its login.
pub(super) fn furnish<R: Runtime>(
    shared: &Arc<Shared<R>>,
    generation: u64,
    wish: &Wish,
    lease: &Lease,
    connection: &mut ServerConnection<R::Socket>,
    login: &LoggedIn,
) {
    connection.settings.clone_from(&wish.settings);
    if wish.mode != PoolMode::Session {
        for name in &*wish.settings.track_extra_parameters {
            if !login.parameters.iter().any(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())) {
                shared.warn_untracked(name, &wish.database);
            }
        }
        let reported = shared.keep_welcome(generation, wish, &login.parameters);
        connection.parameters = reported.into();
        connection.statements = Some(Box::new(OnServer::new(wish.settings.max_prepared_statements as usize)));
    }
    connection.single_use = !wish.credential.may_be_shared();
    let number = shared.with_hub(|hub, _| hub.number_server());
    shared.name_server(connection, wish, number);
    let target = Arc::new(BackendTarget {
        endpoint: connection.endpoint.clone(),
        tls: connection.tls.clone(),
        backend: BackendKey { pid: connection.key.pid, key: connection.key.key.clone() },
        slot: lease.slot(),
    });
    shared.note_server(&target, number, connection.local);
    connection.target = Some(target);
    if let (Credential::Account(account), Some(keys)) = (&wish.credential, login.new_keys.clone()) {
        shared.keep_scram_keys(&account.name, &connection.endpoint, keys);
    }
}

/// A token for a login that begins now.
async fn fresh_token<R: Runtime>(shared: &Shared<R>) -> Result<Arc<Secret<Vec<u8>>>, OpenFailure> {
    let tokens = shared.tokens.clone().ok_or_else(|| OpenFailure::NoToken(no_source()))?;
    let token = R::blocking(move || tokens.fresh()).await;
    token.map(Arc::new).map_err(OpenFailure::NoToken)
}

fn no_source() -> Refusal {
    Refusal::new(SqlState::CANNOT_CONNECT, "gprxy has no source of tokens for this server")
}

fn password_not_asked() -> Refusal {
    Refusal::new(
        SqlState::INVALID_AUTHORIZATION,
        "the PostgreSQL server did not ask for the password, so it proves nothing",
    )
    .hint("Log in with a token; passwords count only where PostgreSQL checks them (scram-sha-256, md5, password).")
}

//! Trying a login, without a session behind it.

use std::sync::Arc;

use futures_rustls::rustls::ClientConfig;

use super::dial::{self, Hosts};
use super::runtime::Runtime;
use super::told::Teller;
use crate::entropy::Entropy;
use crate::fault::Refusal;
use crate::policy::{Account, Database, Endpoint, SocketOptions};
use crate::upstream::{Credential, LoginSettings};

/// What a server said of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// Where the login succeeded.
    pub endpoint: Endpoint,
    /// `server_version`, as PostgreSQL reports it.
    pub version: String,
    /// `session_authorization`: the account that queries run as, which behind a proxy may not be the one that logged in.
    pub session_user: String,
    /// Whether the connection was encrypted.
    pub tls: bool,
}

/// Logs in to a database as an account and leaves again.
///
/// # Errors
/// What a client would have been told.
pub async fn log_in<R: Runtime>(
    database: &Database,
    dbname: &str,
    account: &Account,
    tls: Option<Arc<ClientConfig>>,
    entropy: &mut (dyn Entropy + Send),
) -> Result<Seen, Refusal> {
    let credential = Credential::of(account.password.clone());
    let (hosts, silent) = (Hosts::default(), Teller::silent());
    let opened = dial::open::<R>(database, &hosts, tls, SocketOptions::default(), &silent, |endpoint| {
        let mut nonce = [0; 18];
        entropy.fill(&mut nonce);
        LoginSettings {
            user: account.name.clone(),
            database: database.dbname.clone().unwrap_or_else(|| dbname.into()),
            parameters: Arc::new([]),
            credential: credential.clone(),
            sslmode: database.sslmode,
            tls_possible: dial::tls_possible(endpoint, database.sslmode),
            nonce,
            timeout: database.connect_timeout,
        }
    });
    let (connection, login) = opened.await.map_err(|failure| failure.refusal())?;
    let parameter = |name: &[u8]| {
        let found = login.parameters.iter().find(|(known, _)| **known == *name);
        found.map_or_else(String::new, |(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let seen = Seen {
        endpoint: connection.endpoint.clone(),
        version: parameter(b"server_version"),
        session_user: parameter(b"session_authorization"),
        tls: login.tls,
    };
    connection.close::<R>().await;
    Ok(seen)
}

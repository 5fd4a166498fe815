//! Tries what the proxy will do for people: logging in to a database as an account.

use gprxy_proto::driver::entropy::SystemEntropy;
use gprxy_proto::driver::host::Host;
use gprxy_proto::driver::probe;
use gprxy_proto::policy::{Account, Database, Databases};

use super::Outcome;
use crate::server_tls;

/// The database that every PostgreSQL server has: for the `*` entry, which names none.
const MAINTENANCE_DATABASE: &str = "postgres";

/// Logs in and leaves again.
pub(super) fn probe(name: &str, database: &Database, account: &Account) -> Outcome {
    let tls = server_tls::config_for(&database.tls_terms())?;
    let dbname = if name == Databases::ANY { MAINTENANCE_DATABASE } else { name };
    let mut entropy = SystemEntropy::new();
    let login = probe::log_in::<crate::args::DefaultHost>(database, dbname, account, tls, &mut entropy);
    let result = crate::args::DefaultHost::block_on(login).map_err(|error| error.to_string())?;
    let seen = result.map_err(|refusal| refusal.to_string())?;
    let encrypted = if seen.tls { "over TLS" } else { "without TLS" };
    Ok(format!("logged in to {dbname} at {} {encrypted}, PostgreSQL {}", seen.endpoint, seen.version))
}

//! `gprxy status`, `gprxy whoami`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::driver::entropy::SystemEntropy;
use gprxy_proto::driver::host::Host as _;
use gprxy_proto::driver::probe;
use gprxy_proto::policy::{Account, Database, Endpoint, SslMode};
use gprxy_proto::secret::Secret;
use jiff::Timestamp;
use serde_json::json;

use super::args::StatusArgs;
use super::connection::Connection;
use super::print;
use super::standing::{Standing, Verdict};
use crate::args::DefaultHost;
use crate::credentials::{Credentials, Store};
use crate::profile::Profile;
use crate::server_tls;
use crate::sso;
use crate::sso::failure::{Failure, Kind, Result};

/// A proxy that makes a person wait longer has no free server connection, which is an answer too.
const PROXY_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(args: &StatusArgs) -> Result<ExitCode> {
    let profile = Profile::load(&args.profile)?;
    let store = Store::of(&profile.name)?;
    let kept = match sso::current(&profile, &store) {
        Ok(kept) => kept,
        Err(failure) => {
            if args.json && failure.kind == Kind::Refused {
                print(&format!(
                    "{:#}\n",
                    json!({ "logged_in": false, "profile": profile.name, "error": failure.to_string() })
                ));
            }
            return Err(failure);
        }
    };
    let (credentials, renewal) = brought_up_to_date(args, &profile, &store, kept);
    // An expired token and a provider that is away: nobody can tell whether the login has ended.
    let is_away = matches!(&renewal, Some(Err(failure)) if failure.kind == Kind::Unavailable);
    let mut standing = Standing { renewal, ..Standing::of(&profile, &store, &credentials) };
    let is_good = credentials.remaining(Timestamp::now()).is_some();
    if is_good && !args.offline {
        standing.proxy = ask_proxy(args, &profile, &credentials);
    }
    if args.json {
        let mut value = standing.json();
        value["logged_in"] = json!(is_good);
        print(&format!("{value:#}\n"));
    } else {
        print(&standing.text());
    }
    if is_good {
        return Ok(ExitCode::SUCCESS);
    }
    if is_away {
        return Err(Failure::unavailable("the token has expired, and the provider does not answer: try again later"));
    }
    Err(Failure::refused(format!("the login has ended: run gprxy login{}", profile.flag())))
}

/// The credentials after a renewal, where that is needed or wanted, and what came of it.
fn brought_up_to_date(
    args: &StatusArgs,
    profile: &Profile,
    store: &Store,
    kept: Credentials,
) -> (Credentials, Option<Result<()>>) {
    let is_due = !kept.is_fresh(Timestamp::now()) && kept.is_renewable();
    let renewal = match (args.offline, args.refresh, is_due) {
        (false, true, _) => sso::renewed(profile, store),
        (false, false, true) => sso::fresh(profile, store),
        _ => return (kept, None),
    };
    match renewal {
        Ok(new) => (new, Some(Ok(()))),
        Err(failure) => (kept, Some(Err(failure))),
    }
}

/// Connects as psql would, and reads which account PostgreSQL says it is. Whatever stands in the way is an answer too: the
/// person is logged in all the same.
fn ask_proxy(args: &StatusArgs, profile: &Profile, credentials: &Credentials) -> Option<Verdict> {
    profile.proxy.address.as_ref()?;
    let database = args.database.clone().or_else(|| profile.proxy.database.clone())?;
    let connection =
        Connection::new(profile, credentials, Some(&database), None).map_err(|failure| failure.to_string());
    let account = connection.and_then(|connection| log_in(&connection, &database, credentials));
    Some(Verdict { database, account })
}

fn log_in(connection: &Connection, name: &str, credentials: &Credentials) -> std::result::Result<String, String> {
    let proxy = &connection.proxy;
    let endpoint = Endpoint::Tcp { host: proxy.host.as_str().into(), port: proxy.port };
    let mut database = Database::new([endpoint]);
    database.sslmode = match connection.sslmode.as_str() {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        _ => SslMode::VerifyFull,
    };
    database.sslrootcert = connection.sslrootcert.as_ref().map(|path| path.display().to_string().into());
    database.connect_timeout = PROXY_PATIENCE;
    let tls = server_tls::config_for(&database.tls_terms())?;
    let token = Secret::new(credentials.access_token.expose().clone().into_bytes());
    let account = Account { name: connection.user.as_str().into(), password: Some(Arc::new(token)) };
    let mut entropy = SystemEntropy::new();
    let login = probe::log_in::<DefaultHost>(&database, name, &account, tls, &mut entropy);
    let seen = DefaultHost::block_on(login).map_err(|error| error.to_string())?;
    let seen = seen.map_err(|refusal| match refusal.hint {
        Some(hint) => format!("{} {hint}", refusal.message),
        None => refusal.message,
    })?;
    Ok(seen.session_user)
}

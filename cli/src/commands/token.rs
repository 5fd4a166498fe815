//! `gprxy token`.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::json;

use super::args::TokenArgs;
use super::connection::Connection;
use super::{passfile, print};
use crate::credentials::Store;
use crate::profile::Profile;
use crate::sso;
use crate::sso::failure::Result;

pub(super) fn run(args: &TokenArgs) -> Result<ExitCode> {
    let profile = Profile::load(&args.profile)?;
    let store = Store::of(&profile.name)?;
    let credentials = sso::fresh(&profile, &store)?;
    let token = credentials.access_token.expose();
    if args.pgpass {
        let connection = Connection::new(&profile, &credentials, None, None)?;
        let path = passfile::write(&connection, token)?;
        eprintln!(
            "{} now lets {} in to {} until {:.0}.",
            path.display(),
            connection.user,
            connection.proxy,
            credentials.expires_at
        );
    } else if args.json {
        let left = credentials.remaining(Timestamp::now()).map_or(0, |left| left.as_secs());
        let value = json!({
            "access_token": token, "token_type": "Bearer", "expires_in": left,
            "expires_at": credentials.expires_at.to_string(),
        });
        print(&format!("{value:#}\n"));
    } else {
        print(&format!("{token}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

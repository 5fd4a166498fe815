//! `gprxy logout`.

use std::process::ExitCode;

use jiff::Timestamp;

use super::args::LogoutArgs;
use super::connection::Connection;
use super::passfile;
use crate::credentials::{Credentials, Store};
use crate::interrupts;
use crate::profile::Profile;
use crate::sso::failure::{Failure, Result};
use crate::sso::{self, Provider, Revoked};

pub(super) fn run(args: &LogoutArgs) -> Result<ExitCode> {
    let profile = Profile::load(&args.profile)?;
    let store = Store::of(&profile.name)?;
    let lock = store.lock()?;
    let kept = match store.load() {
        Ok(None) if store.place()?.is_none() => {
            eprintln!("Not logged in: there is nothing to delete.");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(kept) => kept,
        Err(failure) => {
            // Whatever is there is to go away; what cannot be read cannot be revoked.
            eprintln!("gprxy: warning: {failure}");
            None
        }
    };
    let outcome = kept.as_ref().map(|credentials| revoke(&profile, credentials));
    {
        let _finished = interrupts::hold();
        store.delete(&lock)?;
    }
    if let Some(credentials) = &kept {
        forget_copy(&profile, credentials);
    }
    eprintln!("Logged out: the tokens are deleted from this computer.");
    if let (Some(outcome), Some(credentials)) = (outcome, kept) {
        tell(&outcome, &credentials);
    }
    Ok(ExitCode::SUCCESS)
}

/// The copy in the password file, if `gprxy token --pgpass` made one for this proxy.
fn forget_copy(profile: &Profile, credentials: &Credentials) {
    let Ok(connection) = Connection::new(profile, credentials, None, None) else { return };
    if let Err(failure) = passfile::forget(&connection) {
        eprintln!("gprxy: warning: {failure}");
    }
}

/// At the provider that gave them, whatever the settings say now.
fn revoke(profile: &Profile, credentials: &Credentials) -> Revoked {
    let provider = match (credentials.issuer.as_str(), credentials.client_id.as_str()) {
        ("", _) | (_, "") => Provider::discover(profile),
        (issuer, client) => Provider::discover_at(issuer, client, profile),
    };
    match provider {
        Ok(provider) => sso::revoke(&provider, credentials),
        Err(Failure { words, .. }) => Revoked::Failed(words),
    }
}

fn tell(outcome: &Revoked, credentials: &Credentials) {
    let until = match credentials.remaining(Timestamp::now()) {
        Some(_) => format!("whoever has a copy of the access token can use it until {:.0}", credentials.expires_at),
        None => "the access token has expired".into(),
    };
    let words = match outcome {
        Revoked::Both => "The provider has revoked them. A proxy that does not ask the provider takes a copy of the \
                          access token until it expires."
            .to_owned(),
        Revoked::RefreshOnly => format!("The provider has revoked the refresh token; {until}."),
        Revoked::NotOffered => format!("The provider offers no revocation: {until}."),
        Revoked::Failed(why) => format!("gprxy: warning: the provider did not revoke them ({why}); {until}."),
    };
    eprintln!("{}", crate::logging::one_line(&words));
}

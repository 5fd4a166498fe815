//! `gprxy login`.

use std::env::var_os;
use std::process::ExitCode;
use std::time::Duration;

use super::args::LoginArgs;
use super::print;
use super::standing::Standing;
use crate::credentials::{Credentials, Grant, Place, Store};
use crate::interrupts;
use crate::logging::one_line;
use crate::profile::Profile;
use crate::sso::failure::{Failure, Result};
use crate::sso::{self, Browsing, Provider};

/// How long a person may take in the browser.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn run(args: &LoginArgs) -> Result<ExitCode> {
    let profile = Profile::load(&args.profile)?;
    let store = Store::of(&profile.name)?;
    if !args.force
        && let Some(credentials) = already(&profile, &store)
    {
        let who = credentials.user_info.shown();
        eprintln!("Already logged in as {}; --force logs in anew.", one_line(&who));
        report(args, &profile, &store, &credentials)?;
        return Ok(ExitCode::SUCCESS);
    }
    // A file that cannot be read is about to be replaced: its place does not matter.
    let place = args.store.or(profile.store).or_else(|| store.place().ok().flatten()).unwrap_or_default();
    store.try_place(place)?;
    let credentials = log_in(args, &profile)?;
    keep(&store, place, &credentials)?;
    let who = credentials.user_info.shown();
    let roles = credentials.user_info.roles.join(", ");
    let roles = if roles.is_empty() { "without roles".into() } else { format!("roles: {roles}") };
    eprintln!("✓ Logged in as {} ({})", one_line(&who), one_line(&roles));
    if !credentials.is_renewable() {
        eprintln!("  The provider gave no refresh token: you will be asked again when this one ends.");
    }
    if profile.proxy.address.is_some() {
        let database = profile.proxy.database.as_ref().map_or(" -d DATABASE", |_| "");
        eprintln!("  Next: gprxy psql{}{database}", profile.flag());
    }
    report(args, &profile, &store, &credentials)?;
    Ok(ExitCode::SUCCESS)
}

/// Who is logged in with a token that works, or that could be renewed; whatever is wrong with it, a login will mend.
fn already(profile: &Profile, store: &Store) -> Option<Credentials> {
    sso::fresh(profile, store).ok()
}

fn log_in(args: &LoginArgs, profile: &Profile) -> Result<Credentials> {
    let provider = Provider::discover(profile)?;
    if args.client_credentials {
        let tokens = sso::for_machine(&provider)?;
        return Ok(sso::first(&provider, Grant::ClientCredentials, tokens, None));
    }
    let patience = args.timeout.map(Duration::from_secs);
    let by_device = args.device || (!args.no_browser && !has_browser() && offers_device(&provider));
    if by_device {
        let (tokens, claims) = sso::by_device(&provider, patience)?;
        return Ok(sso::first(&provider, Grant::DeviceCode, tokens, claims.as_ref()));
    }
    let browsing = if args.no_browser || !has_browser() { Browsing::Printed } else { Browsing::Open };
    let (tokens, claims) = sso::authorize(&provider, browsing, patience.unwrap_or(PATIENCE))?;
    Ok(sso::first(&provider, Grant::AuthorizationCode, tokens, claims.as_ref()))
}

/// Whether a browser of this person can be opened here. Who sets BROWSER has one, also over SSH (editors forward it).
fn has_browser() -> bool {
    let is_set = |name: &str| var_os(name).is_some_and(|value| !value.is_empty());
    if is_set("BROWSER") {
        return true;
    }
    let is_remote = is_set("SSH_CONNECTION") || is_set("SSH_TTY");
    let needs_display = cfg!(all(unix, not(target_os = "macos")));
    let has_display = is_set("DISPLAY") || is_set("WAYLAND_DISPLAY") || is_set("WSL_DISTRO_NAME");
    !is_remote && (!needs_display || has_display)
}

fn offers_device(provider: &Provider<'_>) -> bool {
    provider.metadata.device_authorization_endpoint.is_some()
}

fn keep(store: &Store, place: Place, credentials: &Credentials) -> Result<()> {
    let lock = store.lock()?;
    let _finished = interrupts::hold();
    store.save_at(place, credentials, &lock)
}

fn report(args: &LoginArgs, profile: &Profile, store: &Store, credentials: &Credentials) -> Result<()> {
    if args.json {
        let json = serde_json::to_string_pretty(&Standing::of(profile, store, credentials).json())
            .map_err(|_| Failure::refused("the answer cannot be written as JSON"))?;
        print(&format!("{json}\n"));
    }
    Ok(())
}

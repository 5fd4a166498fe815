//! Configuration: four sources, one table of settings, every mistake at once.
//!
//! ```text
//! environment ─┐
//! file (TOML) ─┼─ merge ── Entry per table ── Reader + Kind per setting ── Settings
//! .env        ─┤                                     │
//! schema      ─┘ (names, defaults)                   └─ Draft: problems, warnings, effective view
//! ```
//!
//! The stronger source is above: the environment wins over the file that was named explicitly, the file wins over the
//! `.env` that happens to lie in the working directory, and `.env` wins over the defaults.

mod access;
mod admin;
mod convert;
mod databases;
mod document;
mod dotenv;
mod draft;
mod file;
mod files;
mod issuers;
mod kinds;
mod listen;
mod merge;
mod peers;
mod pgbouncer;
mod problem;
mod reader;
mod roles;
mod schema;
mod server;
mod settings;
mod sources;
mod terms;
mod tls;
mod units;
mod url;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub(crate) use draft::Effective;
pub(crate) use files::{Snapshot, words as io_words};
pub(crate) use pgbouncer::{convert, default_of as pgbouncer_default};
pub(crate) use problem::Problem;
pub(crate) use schema::{by_console_name, console_name};
pub(crate) use settings::*;
#[cfg(all(test, feature = "login"))]
pub(crate) use sources::Environment;
pub(crate) use sources::{Overlay, Sources};
pub(crate) use tls::{certificates, private_key};
pub(crate) use url::parse as parse_url;
#[cfg(feature = "login")]
pub(crate) use {
    files::{read_text, readable_by_all},
    issuers::auth0_issuer,
    sources::{Layer, Variables},
    url::is_loopback,
};

use draft::Draft;
use merge::Merged;
#[cfg(not(feature = "login"))]
use sources::Variables;

/// The path that marks the development issuer of `gprxy demo`. `gprxy start` refuses every issuer that has it.
pub(crate) const DEMO_ISSUER_PATH: &str = "/gprxy-demo-not-for-production";

/// What `SET` changes.
pub(crate) enum Settable {
    /// A setting of a section that stands once.
    Setting(&'static str, &'static str),
    /// An option of PgBouncer, whose file the settings come from.
    Option(&'static str),
}

/// What `SET` changes by this name; the error says why nothing.
pub(crate) fn settable(sources: &Sources, name: &str) -> Result<Settable, String> {
    if sources.ini.is_some()
        && let Some(option) = pgbouncer::settable(name)
    {
        return option.map(Settable::Option);
    }
    match by_console_name(name) {
        None => Err(format!("there is no setting {name:?}")),
        Some((_, key)) if key.fixed => Err(format!("{name} cannot be changed while gprxy runs")),
        Some((section, key)) => Ok(Settable::Setting(section.name, key.name)),
    }
}

/// What loading gives, right or wrong.
pub(crate) struct Loaded {
    /// The settings, or everything that is wrong with them (at least one problem).
    pub(crate) settings: Result<Settings, Vec<Problem>>,
    /// What holds, with its origins and without secrets; where there are problems, what could be read.
    pub(crate) effective: Effective,
    /// What an operator should know, one line each.
    pub(crate) warnings: Vec<String>,
}

/// Reads all sources and checks every setting.
pub(crate) fn load(sources: &Sources) -> Loaded {
    let mut draft = Draft::default();
    let settings = match &sources.ini {
        Some(path) => read_ini(path, sources, &mut draft),
        None => read_toml(sources, &mut draft),
    };
    let Draft { problems, warnings, effective } = draft;
    let settings = match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems),
    };
    Loaded { settings, effective, warnings }
}

fn read_toml(sources: &Sources, draft: &mut Draft) -> Option<Settings> {
    let variables = Variables::read(sources, draft);
    let file = sources.file.clone().or_else(|| variables.any(schema::env::CONFIG).map(|(path, _)| PathBuf::from(path)));
    let merged = merge::merge(file.as_deref(), &variables, &sources.overlay, draft)?;
    Some(settle(merged, &variables, sources, draft))
}

/// PgBouncer's own file. The environment and `.env` have no say: PgBouncer knows neither.
fn read_ini(path: &Path, sources: &Sources, draft: &mut Draft) -> Option<Settings> {
    let mut merged = pgbouncer::read(path, &sources.overlay.options, draft)?;
    merge::lay_set_values(&mut merged, &sources.overlay);
    let nothing = Sources::default();
    let variables = Variables::read(&nothing, draft);
    Some(settle(merged, &variables, sources, draft))
}

/// The environment and `.env` for the commands of a workstation, and what is odd about them. There a `.env` of some
/// project that is none of ours is no reason to stop.
#[cfg(feature = "login")]
pub(crate) fn variables(sources: &Sources) -> (Variables<'_>, Vec<String>) {
    let mut draft = Draft::default();
    let variables = Variables::read(sources, &mut draft);
    let warnings = draft.problems.iter().map(ToString::to_string).chain(draft.warnings).collect();
    (variables, warnings)
}

/// Reads every table. The settings are only worth something when no problem was noted.
fn settle(merged: Merged, variables: &Variables<'_>, sources: &Sources, draft: &mut Draft) -> Settings {
    // `[server]` is shown first and needs to know whether a certificate is meant to be there.
    let has_tls = ["cert", "key"].iter().any(|key| merged.tls.values.contains_key(key));
    let server = server::server(merged.server, has_tls, draft);
    let tls = tls::tls(merged.tls, draft);
    let issuers = issuers::issuers(merged.issuers, &server.access.proof, sources.allow_demo_issuer, draft);
    let roles = roles::roles(merged.roles, server.default_role, &server.access.proof, variables, draft);
    let check_account = roles::check_account(variables, draft);
    let usual = server::pool(merged.pool, draft);
    let databases = databases::databases(merged.databases, &server.access, &usual, draft);
    let peers = peers::peers(merged.peers, server.peer_id, draft);
    let admin = admin::admin(merged.admin, draft);
    let audit = server::audit(merged.audit, draft);
    let limits = server::limits(merged.limits, server.drain_timeout, draft);
    let mut log = LogSettings { quiet: sources.quiet, ..server::log(merged.log, draft) };
    for _ in 0..sources.verbose.min(2) {
        log.level = log.level.max(log::LevelFilter::Info).increment_severity();
    }

    Settings {
        listen: server.listen,
        workers: server.workers,
        access: server.access,
        tls,
        issuers,
        roles,
        check_account,
        databases,
        peer_id: server.peer_id,
        peers,
        pool: usual.pool,
        admin,
        audit,
        limits,
        startup: server.startup,
        sockets: server.sockets,
        log,
    }
}

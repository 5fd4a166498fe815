//! Lays the sources over each other: environment over file over `.env` over defaults.
//!
//! Single settings are taken one by one. Issuers, roles and databases are lists: what the environment names is added
//! to the list of the file, or takes the place of the same entry there; what `.env` names counts only when the file
//! has no such list, because a forgotten `.env` must not add an issuer to a list that somebody wrote down.

use std::path::Path;

use super::draft::Draft;
use super::file;
use super::problem::{Origin, Problem};
use super::reader::Entry;
use super::schema::{self, Form, Key, env};
use super::sources::{Layer, Overlay, Variables};

/// All tables after merging.
#[derive(Default)]
pub(crate) struct Merged {
    /// `[server]`
    pub(crate) server: Entry,
    /// `[tls]`
    pub(crate) tls: Entry,
    /// `[[issuer]]`
    pub(crate) issuers: Vec<Entry>,
    /// `[[role]]`
    pub(crate) roles: Vec<Entry>,
    /// `[databases.NAME]`, in the order of the file
    pub(crate) databases: Vec<(String, Entry)>,
    /// `[peers.N]`, in the order of the file
    pub(crate) peers: Vec<(String, Entry)>,
    /// `[pool]`
    pub(crate) pool: Entry,
    /// `[admin]`
    pub(crate) admin: Entry,
    /// `[audit]`
    pub(crate) audit: Entry,
    /// `[limits]`
    pub(crate) limits: Entry,
    /// `[log]`
    pub(crate) log: Entry,
}

impl Merged {
    /// The entry of a section that stands once.
    pub(crate) fn single(&mut self, section: &'static str) -> Option<&mut Entry> {
        Some(match section {
            "server" => &mut self.server,
            "tls" => &mut self.tls,
            "pool" => &mut self.pool,
            "admin" => &mut self.admin,
            "audit" => &mut self.audit,
            "limits" => &mut self.limits,
            "log" => &mut self.log,
            _ => return None,
        })
    }
}

/// Reads the file, if there is one, and lays everything over each other. `None`: there is one and it cannot be used.
pub(crate) fn merge(
    file: Option<&Path>,
    variables: &Variables<'_>,
    overlay: &Overlay,
    draft: &mut Draft,
) -> Option<Merged> {
    let mut merged = match file {
        Some(path) => file::read(path, variables, draft)?,
        None => Merged::default(),
    };
    for section in schema::SECTIONS.iter().filter(|section| section.form == Form::One) {
        let Some(entry) = merged.single(section.name) else { continue };
        for key in section.keys {
            lay_over(entry, key, variables);
        }
    }
    issuers(&mut merged.issuers, variables, draft);
    roles(&mut merged.roles, variables, draft);
    databases(&mut merged.databases, variables, draft);
    lay_set_values(&mut merged, overlay);
    Some(merged)
}

/// What was `SET` at the admin console wins.
pub(crate) fn lay_set_values(merged: &mut Merged, overlay: &Overlay) {
    for (&(section, key), value) in &overlay.settings {
        let Some(entry) = merged.single(section) else { continue };
        if value.is_empty() {
            entry.values.remove(key);
        } else {
            entry.set(key, value, Origin::Console);
        }
    }
}

/// The environment wins; `.env` fills what is missing.
fn lay_over(entry: &mut Entry, key: &'static Key, variables: &Variables<'_>) {
    let Some(name) = key.env else { return };
    if let Some((value, origin)) = variables.of(Layer::Environment, name) {
        entry.set(key.name, value, origin);
    } else if !entry.values.contains_key(key.name)
        && let Some((value, origin)) = variables.of(Layer::DotEnv, name)
    {
        entry.set(key.name, value, origin);
    }
}

/// `AUTH0_TENANT`, `AUDIENCE` and `AUTH0_NATIVE_CLIENT_ID`.
fn issuers(issuers: &mut Vec<Entry>, variables: &Variables<'_>, draft: &mut Draft) {
    const TENANT: &str = "AUTH0_TENANT";
    const AUDIENCE: &str = "AUDIENCE";
    let from_env = variables.of(Layer::Environment, TENANT);
    let from_dotenv = variables.of(Layer::DotEnv, TENANT);
    if from_env.is_none() && from_dotenv.is_some() && !issuers.is_empty() {
        draft.warn(".env: AUTH0_TENANT is not used, because the configuration file has [[issuer]]");
    }
    let tenant = from_env.or_else(|| from_dotenv.filter(|_| issuers.is_empty()));
    let mut audience_used = false;
    if let Some((tenant, origin)) = tenant {
        let url = super::issuers::auth0_issuer(tenant);
        let same =
            |entry: &Entry| entry.text("auth0_tenant") == Some(tenant) || entry.text("issuer") == Some(url.as_str());
        let at = issuers.iter().position(same).unwrap_or_else(|| {
            let mut entry = Entry { origin: Some(origin.clone()), ..Entry::default() };
            entry.set("auth0_tenant", tenant, origin);
            issuers.push(entry);
            issuers.len() - 1
        });
        for name in ["audience", "client_id"] {
            if let Some(key) = schema::ISSUER.key(name) {
                lay_over(&mut issuers[at], key, variables);
            }
        }
        audience_used = variables.any(AUDIENCE).is_some();
    }
    if let Some((audience, origin)) = variables.any(AUDIENCE) {
        for entry in issuers.iter_mut().filter(|entry| !entry.values.contains_key("audience")) {
            entry.set("audience", audience, origin.clone());
            audience_used = true;
        }
        if !audience_used && !issuers.is_empty() {
            draft.warn("AUDIENCE is not used, because every [[issuer]] states its own");
        }
    }
}

/// `ROLE_MAPPING_<ROLE>=account:password`.
fn roles(roles: &mut Vec<Entry>, variables: &Variables<'_>, draft: &mut Draft) {
    let file_has_list = !roles.is_empty();
    for layer in [Layer::DotEnv, Layer::Environment] {
        let names = variables.beginning_with(layer, env::ROLE_MAPPING);
        if layer == Layer::DotEnv && file_has_list {
            for name in names {
                draft.warn(format!(".env: {name} is not used, because the configuration file has [[role]]"));
            }
            continue;
        }
        let weaker = roles.len();
        let mut replaced = vec![false; weaker];
        for name in names {
            let Some((value, origin)) = variables.of(layer, name) else { continue };
            let role = &name[env::ROLE_MAPPING.len()..];
            let Some((account, password)) = value.split_once(':') else {
                let found = "a value without ':' (not shown, it may be a password)";
                draft.problem(Problem::at(name, &origin, found, "account:password, or account: for none"));
                continue;
            };
            let same = roles[..weaker].iter().position(|entry| {
                entry.text("name").is_some_and(|known| known.trim().to_lowercase() == role.trim().to_lowercase())
            });
            let at = match same.filter(|&at| !std::mem::replace(&mut replaced[at], true)) {
                Some(at) => at,
                None => {
                    roles.push(Entry { origin: Some(origin.clone()), ..Entry::default() });
                    roles.len() - 1
                }
            };
            let entry = &mut roles[at];
            entry.values.remove("password");
            entry.set("name", role, origin.clone());
            entry.set("account", account, origin.clone());
            if !password.is_empty() {
                entry.set("password", password, origin);
            }
        }
    }
}

/// `DB_HOST` is the host of the `*` entry.
fn databases(databases: &mut Vec<(String, Entry)>, variables: &Variables<'_>, draft: &mut Draft) {
    const HOST: &str = "DB_HOST";
    let from_env = variables.of(Layer::Environment, HOST);
    let from_dotenv = variables.of(Layer::DotEnv, HOST);
    if from_env.is_none() && from_dotenv.is_some() && !databases.is_empty() {
        draft.warn(".env: DB_HOST is not used, because the configuration file has [databases]");
    }
    let host = from_env.or_else(|| from_dotenv.filter(|_| databases.is_empty()));
    if host.is_none() && !databases.is_empty() {
        return;
    }
    let at = databases.iter().position(|(name, _)| name == "*").unwrap_or_else(|| {
        databases.push(("*".into(), Entry::default()));
        databases.len() - 1
    });
    if let Some((value, origin)) = host {
        databases[at].1.set("host", value, origin);
    }
}

//! From settings to the parts of a proxy.

use std::collections::BTreeMap;
use std::sync::Arc;

use gprxy_proto::audit::AuditProfile;
use gprxy_proto::auth::gate::Gate;
use gprxy_proto::auth::jwks::{KeySetLimits, KeySets};
use gprxy_proto::auth::jwt::{ClaimPath, IssuerSettings, KeySource};
use gprxy_proto::auth::roles::{RoleEntry, RoleMap};
use gprxy_proto::cancel::Registry;
use gprxy_proto::console::ConsoleAccess;
use gprxy_proto::driver::control::Control;
use gprxy_proto::driver::entropy::SystemEntropy;
use gprxy_proto::driver::shared::{Parts, ServerTls};
use gprxy_proto::driver::terms::Reload;
use gprxy_proto::driver::tls;
use gprxy_proto::entropy::Entropy;
use gprxy_proto::hub::Hub;
use gprxy_proto::policy::{Database, Databases, Peers, Users};
use gprxy_proto::secret::Secret;
use gprxy_proto::session::Profile;
use gprxy_proto::time::Now;
use rustls::server::ServerConfig;

use crate::config::{self, AuditFailure, AuditSettings, IssuerConfig, Proof, Roles, Settings, TlsSettings, TlsVersion};
use crate::server_tls;

/// What a process begins with.
pub(super) fn assemble(settings: Settings, mock: &Mock, control: Arc<dyn Control>, now: Now) -> Result<Parts, String> {
    let (audit, peer_id) = (settings.audit.clone(), settings.peer_id);
    let Reload { profile, tls, server_tls, issuers } = policy(settings, &audit, mock)?;
    let keys = KeySets::new(issuers, KeySetLimits::default(), now).map_err(|error| error.to_string())?;
    let mut hub = Hub::new(keys, &profile.limits, Box::new(SystemEntropy::default()));
    hub.cancels = Registry::of_peer(peer_id);
    let audit = super::audit::open(&audit, now)?;
    let control = Some(control);
    Ok(Parts { profile, hub, tls, server_tls, tokens: None, control, audit, http: crate::http::agent() })
}

/// What sessions are let in by. Everything that was checked when the settings were read may still have changed since: files
/// are read again here. `audit` is what the trail was opened with.
pub(super) fn policy(settings: Settings, audit: &AuditSettings, mock: &Mock) -> Result<Reload, String> {
    let issuers = settings.issuers.into_iter().map(issuer).collect::<Result<Vec<_>, _>>()?;
    let tls = settings.tls.as_ref().map(client_tls).transpose()?;
    let server_tls = server_tls(&settings.databases, &settings.peers)?;
    let users = Users::new(settings.roles.mappings.iter().map(|mapping| (mapping.role.clone(), mapping.timeouts)))
        .with_pools(settings.roles.mappings.iter().map(|mapping| (mapping.role.clone(), mapping.pool)));
    let profile = Profile {
        tls: tls.is_some(),
        allow_plaintext: settings.access.allow_plaintext,
        tls_required: settings.tls.as_ref().is_some_and(|tls| tls.required),
        gate: gate(settings.access.proof, mock),
        // The console is no database: its users can only be looked up in one that is named.
        auth_query: settings.access.lookup.auth_query().filter(|terms| terms.database.is_some()),
        password_fallback: settings.access.password_fallback,
        roles: role_map(settings.roles)?,
        databases: Databases::new(settings.databases),
        peers: Arc::new(settings.peers),
        pool: Arc::new(settings.pool),
        limits: settings.limits,
        users,
        startup: settings.startup,
        sockets: settings.sockets,
        log: settings.log.told,
        console: Some(Arc::new(ConsoleAccess { own_uid: own_uid(), ..settings.admin.access })),
        audit: audit.enabled.then(|| AuditProfile {
            statement_bytes: settings.audit.statement_bytes,
            required: audit.on_failure == AuditFailure::Refuse,
        }),
    };
    Ok(Reload { profile: Arc::new(profile), tls, server_tls, issuers })
}

/// The user whose processes may use the console through the Unix socket: the one that gprxy runs as.
#[cfg(unix)]
fn own_uid() -> Option<u32> {
    let own = rustix::process::geteuid().as_raw();
    // What the kernel says of peers from other user namespaces says nothing about who they are.
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
    let overflow = overflow.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_534);
    (own != overflow).then_some(own)
}

#[cfg(not(unix))]
const fn own_uid() -> Option<u32> {
    None
}

fn issuer(config: IssuerConfig) -> Result<IssuerSettings, String> {
    let paths = |claims: Vec<String>| -> Result<Vec<ClaimPath>, String> {
        claims.iter().map(|claim| claim.parse().map_err(|error| format!("claim {claim:?}: {error}"))).collect()
    };
    let mut settings = IssuerSettings::new(config.issuer, config.audiences);
    if let Some(url) = config.jwks_url {
        settings.source = KeySource::Url(url);
    }
    settings.leeway = config.leeway;
    settings.required_claims = paths(config.required_claims)?;
    settings.user_claims = paths(config.user_claims)?;
    settings.roles_claims = paths(config.roles_claims)?;
    Ok(settings)
}

/// What salts for users without a verifier are made of: the same after a reload, so that nobody can tell by it who exists.
#[derive(Clone)]
pub(super) struct Mock(Arc<Secret<[u8; 32]>>);

impl Mock {
    pub(super) fn new() -> Self {
        Self(Arc::new(Secret::new(SystemEntropy::new().bytes())))
    }
}

impl Entropy for Mock {
    fn fill(&mut self, bytes: &mut [u8]) {
        for (byte, known) in bytes.iter_mut().zip(self.0.expose()) {
            *byte = *known;
        }
    }
}

fn gate(proof: Proof, mock: &Mock) -> Option<Arc<Gate>> {
    let gate = match proof {
        Proof::Token => return None,
        Proof::Listed(auth_type, users) => Gate::listed(auth_type, users, &mut mock.clone()),
        Proof::Anyone => Gate::open(&mut mock.clone()),
    };
    Some(Arc::new(gate))
}

fn role_map(roles: Roles) -> Result<RoleMap, String> {
    let entries = roles.mappings.into_iter().map(|mapping| RoleEntry {
        role: mapping.role.to_string(),
        priority: mapping.priority,
        account: Arc::new((&mapping).into()),
    });
    RoleMap::new(entries, roles.default_role.as_deref()).map_err(|error| error.to_string())
}

fn client_tls(settings: &TlsSettings) -> Result<Arc<ServerConfig>, String> {
    let chain = config::certificates(&settings.cert).map_err(|found| format!("tls.cert: found {found}"))?;
    let key = config::private_key(&settings.key).map_err(|found| format!("tls.key: found {found}"))?;
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    tls::server_config(chain, key, versions).map_err(|error| format!("tls.cert and tls.key: {error}"))
}

fn server_tls(databases: &BTreeMap<Arc<str>, Database>, peers: &Peers) -> Result<ServerTls, String> {
    let mut all = ServerTls::new();
    let databases = databases.iter().map(|(name, database)| (format!("databases.{name}"), database.tls_terms()));
    let peers = peers.iter().map(|(id, peer)| (format!("peers.{id}"), peer.tls_terms()));
    for (place, terms) in databases.chain(peers) {
        if all.contains_key(&terms) {
            continue;
        }
        let config = server_tls::config_for(&terms);
        if let Some(config) = config.map_err(|problem| format!("{place}.sslrootcert: {problem}"))? {
            all.insert(terms, config);
        }
    }
    Ok(all)
}

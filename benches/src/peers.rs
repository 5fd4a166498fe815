//! What is compared: no proxy at all, PgBouncer, and gprxy without and with its audit trail.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::cluster::{ACCOUNT, Cluster, DATABASE, PASSWORD};
use crate::issuer::{AUDIENCE, Issuer, ROLE};
use crate::process::{Server, Stage, free_port};

/// Debian's place for it, which is not on everybody's PATH.
pub(crate) const PGBOUNCER: &str = "/usr/sbin/pgbouncer";

/// Everything that a measurement needs around it.
pub(crate) struct Site<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) cluster: &'a Cluster,
    pub(crate) issuer: &'a Issuer,
    pub(crate) gprxy: PathBuf,
}

/// A way to the database.
pub(crate) struct Peer {
    /// `None`: straight to PostgreSQL.
    pub(crate) server: Option<Server>,
    pub(crate) port: u16,
    /// What a client shows for [`ACCOUNT`].
    pub(crate) password: String,
}

impl Peer {
    pub(crate) fn direct(site: &Site<'_>) -> Self {
        Self { server: None, port: site.cluster.port(), password: PASSWORD.into() }
    }

    /// Session pooling, the password in clear as with us, everything else as it comes.
    pub(crate) fn pgbouncer(site: &Site<'_>, pool: usize) -> Result<Self> {
        Self::pgbouncer_in(site, "session", pool)
    }

    /// The same in this `pool_mode`.
    pub(crate) fn pgbouncer_in(site: &Site<'_>, mode: &str, pool: usize) -> Result<Self> {
        let port = free_port()?;
        let users = site.stage.write("users.txt", &format!("\"{ACCOUNT}\" \"{PASSWORD}\"\n"))?;
        let settings = format!(
            "[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = {mode}
default_pool_size = {pool}
max_client_conn = 5000
query_wait_timeout = 600
server_tls_sslmode = disable
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
log_stats = 0
",
            server = site.cluster.port(),
            users = users.display(),
        );
        let file = site.stage.write(&format!("pgbouncer-{mode}.ini"), &settings)?;
        let mut command = site.stage.demoted(PGBOUNCER);
        command.arg(file);
        let server = Server::start(command, port, &site.stage.file(&format!("pgbouncer-{mode}.log")))?;
        Ok(Self { server: Some(server), port, password: PASSWORD.into() })
    }

    /// One worker; people log in with a token.
    pub(crate) fn gprxy(site: &Site<'_>, pool: usize, audited: bool) -> Result<Self> {
        Self::gprxy_on(site, "tokio", pool, audited)
    }

    /// The same on a runtime of this name.
    pub(crate) fn gprxy_on(site: &Site<'_>, runtime: &str, pool: usize, audited: bool) -> Result<Self> {
        let stem = format!("gprxy-{runtime}{}", if audited { "-audited" } else { "" });
        Self::gprxy_of(site, &site.gprxy, &["--runtime", runtime], &stem, "session", pool, audited)
    }

    /// Transaction mode, everybody the same person.
    pub(crate) fn gprxy_shared(site: &Site<'_>, pool: usize, audited: bool) -> Result<Self> {
        let stem = if audited { "gprxy-shared-audited" } else { "gprxy-shared" };
        Self::gprxy_of(site, &site.gprxy, &["--runtime", "tokio"], stem, "transaction", pool, audited)
    }

    /// The smallest build, with its audit trail.
    pub(crate) fn edge(site: &Site<'_>, program: &Path, pool: usize) -> Result<Self> {
        Self::gprxy_of(site, program, &[], "edge", "session", pool, true)
    }

    fn gprxy_of(
        site: &Site<'_>,
        program: &Path,
        arguments: &[&str],
        stem: &str,
        mode: &str,
        pool: usize,
        audited: bool,
    ) -> Result<Self> {
        let port = free_port()?;
        let audit = site.stage.file(&format!("{stem}.jsonl"));
        let settings = format!(
            "[server]
listen_addr = \"127.0.0.1\"
listen_port = {port}
workers = 1
[[issuer]]
issuer = \"{issuer}\"
jwks_url = \"{issuer}/jwks.json\"
audience = \"{AUDIENCE}\"
roles_claims = [\"roles\"]
[[role]]
name = \"{ROLE}\"
account = \"{ACCOUNT}\"
password = \"{PASSWORD}\"
[databases.\"*\"]
host = \"127.0.0.1\"
port = {server}
sslmode = \"disable\"
[pool]
pool_mode = \"{mode}\"
default_pool_size = {pool}
query_wait_timeout = \"10m\"
query_wait_notify = \"0s\"
[audit]
enabled = {audited}
path = \"{audit}\"
[log]
level = \"warn\"
",
            issuer = site.issuer.url,
            server = site.cluster.port(),
            audit = audit.display(),
        );
        let file = site.stage.write(&format!("{stem}.toml"), &settings)?;
        let mut command = site.stage.command(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("start").args(arguments).arg("--config").arg(file);
        let server = Server::start(command, port, &site.stage.file(&format!("{stem}.log")))?;
        Ok(Self { server: Some(server), port, password: site.issuer.token.clone() })
    }

    /// The proxy's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// A program of PostgreSQL's that connects here.
    pub(crate) fn client(&self, site: &Site<'_>, program: &str) -> Command {
        let mut command = site.cluster.client(site.stage, program, self.port, ACCOUNT, &self.password);
        command.env("PGDATABASE", DATABASE);
        command
    }
}

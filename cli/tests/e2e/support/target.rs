//! What a client needs to connect, and what an observer needs to look behind it.

use std::path::PathBuf;

use super::fixtures::{CLEARTEXT, DATABASE};
use super::postgres::{Cluster, Version};

/// One way to the test database: straight to PostgreSQL, or through gprxy. Tests of what a proxy must not change
/// take one of these, so the same promise is held against PostgreSQL itself.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    /// libpq's name.
    pub(crate) sslmode: &'static str,
    pub(crate) root_ca: PathBuf,
    /// The account that the session runs as.
    pub(crate) account: &'static str,
    /// The server behind it.
    pub(crate) server: &'static Cluster,
}

impl Target {
    /// PostgreSQL itself, with a cleartext password: the method that a token needs too.
    pub(crate) fn direct(version: Version) -> Self {
        let server = Cluster::shared(version);
        Self {
            host: "localhost".to_owned(),
            port: server.port,
            user: CLEARTEXT.0.to_owned(),
            password: CLEARTEXT.1.to_owned(),
            database: DATABASE.to_owned(),
            sslmode: "verify-full",
            root_ca: super::tls::pki().ca.clone(),
            account: CLEARTEXT.0,
            server,
        }
    }

    pub(crate) fn with_user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    pub(crate) fn with_password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.password);
        self
    }

    pub(crate) fn with_database(mut self, database: &str) -> Self {
        database.clone_into(&mut self.database);
        self
    }

    /// Without TLS.
    pub(crate) fn in_plaintext(mut self) -> Self {
        self.sslmode = "disable";
        self
    }

    /// What libpq and those who imitate it read from the environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("PGHOST", self.host.clone()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGPASSWORD", self.password.clone()),
            ("PGDATABASE", self.database.clone()),
            ("PGSSLMODE", self.sslmode.to_owned()),
            ("PGSSLROOTCERT", self.root_ca.display().to_string()),
            ("PGGSSENCMODE", "disable".to_owned()),
            ("PGCONNECT_TIMEOUT", "20".to_owned()),
        ]
    }
}

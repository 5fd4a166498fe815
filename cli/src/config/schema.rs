//! Every setting there is: its name, its environment name, its default. Unknown keys, defaults, `gprxy check` and the
//! tables of `docs/configuration.md` all follow this one table.

/// A section of the configuration file.
pub(crate) struct Section {
    /// `server` for `[server]`.
    pub(crate) name: &'static str,
    /// How often it may stand in the file.
    pub(crate) form: Form,
    /// What it may hold.
    pub(crate) keys: &'static [Key],
}

/// How a section stands in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// `[name]`, once.
    One,
    /// `[[name]]`, any number of times.
    Many,
    /// `[name.KEY]`, once for every key.
    Named,
}

/// A setting.
pub(crate) struct Key {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// A second name that is accepted: PgBouncer's, where the section makes ours shorter.
    pub(crate) alias: Option<&'static str>,
    /// Its name in the environment and in `.env`.
    pub(crate) env: Option<&'static str>,
    /// In the form that the file takes, lists with commas; empty when there is none.
    pub(crate) default: &'static str,
    /// Whether its value is never shown, and may be given as `file:PATH`.
    pub(crate) secret: bool,
    /// Whether it holds from the start to the end of the process.
    pub(crate) fixed: bool,
}

impl Section {
    /// As its header stands in a file.
    pub(crate) fn header(&self) -> String {
        let name = self.name;
        match self.form {
            Form::One => format!("[{name}]"),
            Form::Many => format!("[[{name}]]"),
            Form::Named if name == PEERS.name => format!("[{name}.N]"),
            Form::Named => format!("[{name}.NAME]"),
        }
    }

    /// The key of that name or alias.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name || key.alias == Some(name))
    }

    /// All names that are accepted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().flat_map(|key| [Some(key.name), key.alias]).flatten()
    }
}

const fn key(name: &'static str, default: &'static str) -> Key {
    Key { name, alias: None, env: None, default, secret: false, fixed: false }
}

impl Key {
    const fn env(mut self, name: &'static str) -> Self {
        self.env = Some(name);
        self
    }

    const fn alias(mut self, name: &'static str) -> Self {
        self.alias = Some(name);
        self
    }

    const fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

/// The name of a setting of a section that stands once, for the admin console: PgBouncer's where there is one.
pub(crate) fn console_name(section: &str, key: &str) -> Option<String> {
    let section = SECTIONS.iter().find(|known| known.name == section && known.form == Form::One)?;
    let key = section.key(key)?;
    Some(match (section.name, key.alias) {
        (_, Some(name)) => name.to_owned(),
        ("server" | "pool" | "limits" | "admin", None) => key.name.to_owned(),
        (section, None) => format!("{section}_{}", key.name),
    })
}

/// The setting that the admin console calls so.
pub(crate) fn by_console_name(name: &str) -> Option<(&'static Section, &'static Key)> {
    let once = SECTIONS.iter().filter(|section| section.form == Form::One);
    once.flat_map(|section| section.keys.iter().map(move |key| (*section, key)))
        .find(|(section, key)| console_name(section.name, key.name).is_some_and(|known| known == name))
}

/// What PostgreSQL keeps of a password that has not expired, of a role that may log in; what PgBouncer asks, too. Whatever
/// the search path of `auth_user` or of its database is, these are the system's own tables and operators.
const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() THEN NULL \
                          ELSE rolpassword END FROM pg_catalog.pg_authid \
                          WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin";

/// Where the proxy listens and whom it lets in.
pub(crate) static SERVER: Section = Section {
    name: "server",
    form: Form::One,
    keys: &[
        key("listen_addr", "0.0.0.0").env("PROXY_HOST").fixed(),
        key("listen_port", "7777").env("PROXY_PORT").fixed(),
        key("unix_socket_dir", "").fixed(),
        key("unix_socket_mode", "0777").fixed(),
        key("unix_socket_group", "").fixed(),
        key("listen_backlog", "4096").fixed(),
        key("so_reuseport", "false").fixed(),
        key("tcp_defer_accept", "0s").fixed(),
        key("pidfile", "").fixed(),
        key("workers", "").fixed(),
        key("peer_id", "0").fixed(),
        key("auth_type", "oidc"),
        key("auth_file", ""),
        key("auth_user", ""),
        key("auth_query", AUTH_QUERY),
        key("auth_dbname", ""),
        key("allow_plaintext", "loopback"),
        key("password_fallback", "true"),
        key("default_role", "").env("DEFAULT_ROLE"),
        key("drain_timeout", "30s"),
        key("ignore_startup_parameters", ""),
        key("application_name_add_host", "false"),
        key("login_notify_message", ""),
        key("tcp_keepalive", "true"),
        key("tcp_keepidle", "1m"),
        key("tcp_keepintvl", "15s"),
        key("tcp_keepcnt", ""),
        key("tcp_user_timeout", ""),
        key("tcp_socket_buffer", ""),
    ],
};

/// TLS towards clients.
pub(crate) static TLS: Section = Section {
    name: "tls",
    form: Form::One,
    keys: &[
        key("cert", "").env("PROXY_CERT").alias("client_tls_cert_file"),
        key("key", "").env("PROXY_KEY").alias("client_tls_key_file"),
        key("min_version", "1.2"),
        key("required", "false"),
    ],
};

/// Whose tokens are believed.
pub(crate) static ISSUER: Section = Section {
    name: "issuer",
    form: Form::Many,
    keys: &[
        key("issuer", ""),
        key("auth0_tenant", "").env("AUTH0_TENANT"),
        key("jwks_url", ""),
        key("audience", "").env("AUDIENCE"),
        key("client_id", "").env("AUTH0_NATIVE_CLIENT_ID"),
        key("leeway", "1m"),
        key("required_claims", ""),
        key("user_claims", "email"),
        key("roles_claims", "role,roles"),
    ],
};

/// Which PostgreSQL account a role runs as.
pub(crate) static ROLE: Section = Section {
    name: "role",
    form: Form::Many,
    keys: &[
        key("name", ""),
        key("account", ""),
        key("password", "").secret(),
        key("priority", ""),
        key("pool_mode", ""),
        key("pool_size", ""),
        key("reserve_pool_size", ""),
        key("max_user_connections", ""),
        key("max_user_client_connections", ""),
        key("query_wait_timeout", ""),
        key("query_timeout", ""),
        key("idle_transaction_timeout", ""),
        key("transaction_timeout", ""),
        key("client_idle_timeout", ""),
    ],
};

/// Server connections.
pub(crate) static POOL: Section = Section {
    name: "pool",
    form: Form::One,
    keys: &[
        key("pool_mode", "session"),
        key("isolation", "identity"),
        key("default_pool_size", "5"),
        key("min_pool_size", "0"),
        key("reserve_pool_size", "0"),
        key("reserve_pool_timeout", "5s"),
        key("max_db_connections", "0"),
        key("max_user_connections", "0"),
        key("max_db_client_connections", "0"),
        key("max_user_client_connections", "0"),
        key("server_round_robin", "false"),
        key("server_fast_close", "false"),
        key("max_prepared_statements", "200"),
        key("server_lifetime", "1h"),
        key("server_idle_timeout", "30m"),
        key("pool_idle_timeout", "0s"),
        key("autodb_idle_timeout", "1h"),
        key("server_check_delay", "30s"),
        key("server_check_query", "<empty>"),
        key("server_reset_query", "DISCARD ALL"),
        key("server_reset_query_always", "false"),
        key("server_connect_timeout", "5s"),
        key("server_login_retry", "15s"),
        key("wait_for_server", "false"),
        key("query_wait_timeout", "2m"),
        key("query_wait_notify", "5s"),
        key("track_extra_parameters", "IntervalStyle"),
        key("session_state", "pin"),
        key("cache_unnamed_statements", "false"),
        key("query_timeout", "0s"),
        key("idle_transaction_timeout", "0s"),
        key("transaction_timeout", "0s"),
        key("client_idle_timeout", "0s"),
    ],
};

/// Where the databases are.
pub(crate) static DATABASES: Section = Section {
    name: "databases",
    form: Form::Named,
    keys: &[
        key("host", "localhost").env("DB_HOST"),
        key("port", "5432"),
        key("load_balance_hosts", "listed"),
        key("dbname", ""),
        key("user", ""),
        key("password", "").secret(),
        key("auth_user", ""),
        key("auth_query", ""),
        key("auth_dbname", ""),
        key("sslmode", "prefer"),
        key("sslrootcert", ""),
        key("connect_timeout", ""),
        key("pool_size", ""),
        key("min_pool_size", ""),
        key("reserve_pool_size", ""),
        key("reserve_pool_timeout", ""),
        key("max_db_connections", ""),
        key("max_db_client_connections", ""),
        key("server_round_robin", ""),
        key("server_lifetime", ""),
        key("server_idle_timeout", ""),
        key("server_check_delay", ""),
        key("server_check_query", ""),
        key("server_reset_query", ""),
        key("server_reset_query_always", ""),
        key("connect_query", ""),
        key("pool_mode", ""),
        key("isolation", ""),
        key("max_prepared_statements", ""),
        key("query_wait_timeout", ""),
        key("query_wait_notify", ""),
        key("session_state", ""),
        key("cache_unnamed_statements", ""),
        key("query_timeout", ""),
        key("idle_transaction_timeout", ""),
        key("transaction_timeout", ""),
        key("client_idle_timeout", ""),
        key("server_login_retry", ""),
        key("wait_for_server", ""),
    ],
};

/// Other processes behind the same address.
pub(crate) static PEERS: Section = Section {
    name: "peers",
    form: Form::Named,
    keys: &[
        key("host", ""),
        key("port", "7777"),
        key("sslmode", "prefer"),
        key("sslrootcert", ""),
        key("pool_size", "100"),
    ],
};

/// Who ran what.
pub(crate) static AUDIT: Section = Section {
    name: "audit",
    form: Form::One,
    keys: &[
        key("enabled", "true").fixed(),
        key("path", "-").fixed(),
        key("statement_bytes", "8KiB"),
        key("on_failure", "refuse").fixed(),
        key("queue", "65536").fixed(),
    ],
};

/// Bounds on what clients may make the proxy hold or wait for.
pub(crate) static LIMITS: Section = Section {
    name: "limits",
    form: Form::One,
    keys: &[
        key("max_client_conn", "10000"),
        key("max_client_conn_per_identity", "0"),
        key("reserved_for_admins", "0"),
        key("client_login_timeout", "1m"),
        key("max_password_bytes", "64KiB"),
        key("cancel_wait_timeout", "10s"),
    ],
};

/// Who may use the admin console.
pub(crate) static ADMIN: Section = Section {
    name: "admin",
    form: Form::One,
    keys: &[
        key("admin_roles", ""),
        key("stats_roles", ""),
        key("admin_users", ""),
        key("stats_users", ""),
        key("stats_period", "1m"),
    ],
};

/// The proxy's own log.
pub(crate) static LOG: Section = Section {
    name: "log",
    form: Form::One,
    keys: &[
        key("level", "production").env("LOG_LEVEL"),
        key("format", "text"),
        key("file", "").alias("logfile"),
        key("connections", "false").alias("log_connections"),
        key("disconnections", "false").alias("log_disconnections"),
        key("pooler_errors", "true").alias("log_pooler_errors"),
    ],
};

/// All sections, in the order in which they are shown.
pub(crate) static SECTIONS: [&Section; 11] =
    [&SERVER, &TLS, &ISSUER, &ROLE, &POOL, &DATABASES, &PEERS, &ADMIN, &AUDIT, &LIMITS, &LOG];

/// Names that are read from the environment and stand for no single key of the file.
pub(crate) mod env {
    /// The configuration file.
    pub(crate) const CONFIG: &str = "GPRXY_CONFIG";
    /// `ROLE_MAPPING_<ROLE>=account:password`, one for every role.
    pub(crate) const ROLE_MAPPING: &str = "ROLE_MAPPING_";
    /// The pool account of the first gprxy.
    pub(crate) const USER: &str = "GPRXY_USER";
    /// Its password.
    pub(crate) const PASS: &str = "GPRXY_PASS";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_used_twice() {
        for section in SECTIONS {
            let mut names: Vec<_> = section.names().collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "[{}]", section.name);
        }
        let mut envs: Vec<_> = SECTIONS.iter().flat_map(|s| s.keys).filter_map(|k| k.env).collect();
        let all = envs.len();
        envs.sort_unstable();
        envs.dedup();
        assert_eq!(envs.len(), all);
    }
}

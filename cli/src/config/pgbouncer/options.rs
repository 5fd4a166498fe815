//! Every option of PgBouncer 1.25 (its `config.md`), and what becomes of it here.

/// How a value is written there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// Taken as it stands.
    Text,
    /// A whole number.
    Number,
    /// 0 or 1.
    Flag,
    /// Seconds, with a fraction if need be.
    Seconds,
    /// Milliseconds.
    Millis,
}

/// What becomes of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// The setting of the same name, in whichever section that is.
    Same,
    /// Several settings together: see [`super::translate`].
    Woven,
    /// It has no effect: what holds instead.
    Without(&'static str),
}

use Fate::{Same, Without, Woven};
use Form::{Flag, Millis, Number, Seconds, Text};

/// An option of the section `[pgbouncer]`.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// PgBouncer's; empty when it has none.
    pub(super) default: &'static str,
    pub(super) fate: Fate,
}

const fn of(name: &'static str, form: Form, default: &'static str, fate: Fate) -> Known {
    Known { name, form, default, fate }
}

const CIPHERS: &str = "TLS uses the ciphers of rustls, all of them strong";
const BUFFERS: &str = "buffers are gprxy's own";
const DNS: &str = "names are looked up by the system for each new server connection";
const SYSLOG: &str = "the log goes to standard error and to logfile";
const NAMES: &str = "a process is told from others by its pid";

/// All of them, by name.
pub(super) static OPTIONS: &[Known] = &[
    of("admin_users", Text, "", Same),
    of("application_name_add_host", Flag, "0", Same),
    of("auth_dbname", Text, "", Same),
    of("auth_file", Text, "", Woven),
    of("auth_hba_file", Text, "", Without("it counts with auth_type = hba only, which is not supported")),
    of("auth_ident_file", Text, "", Without("it counts with auth_type = hba only, which is not supported")),
    of("auth_ldap_options", Text, "", Without("LDAP is not supported")),
    of("auth_query", Text, "", Same),
    of("auth_type", Text, "md5", Woven),
    of("auth_user", Text, "", Same),
    of("autodb_idle_timeout", Seconds, "3600", Same),
    of("cancel_wait_timeout", Seconds, "10", Woven),
    of("client_idle_timeout", Seconds, "0", Same),
    of("client_login_timeout", Seconds, "60", Woven),
    of("client_tls13_ciphers", Text, "", Without(CIPHERS)),
    of("client_tls_ca_file", Text, "", Without("certificates of clients are not looked at")),
    of("client_tls_cert_file", Text, "", Woven),
    of("client_tls_ciphers", Text, "default", Without(CIPHERS)),
    of("client_tls_dheparams", Text, "auto", Without(CIPHERS)),
    of("client_tls_ecdhcurve", Text, "auto", Without(CIPHERS)),
    of("client_tls_key_file", Text, "", Woven),
    of("client_tls_protocols", Text, "secure", Woven),
    of("client_tls_sslmode", Text, "disable", Woven),
    of("conffile", Text, "", Without("the file of the command line is the one that is read again")),
    of("default_pool_size", Number, "20", Same),
    of("disable_pqexec", Flag, "0", Woven),
    of("dns_max_ttl", Seconds, "15", Without(DNS)),
    of("dns_nxdomain_ttl", Seconds, "15", Without(DNS)),
    of("dns_zone_check_period", Seconds, "0", Without(DNS)),
    of("idle_transaction_timeout", Seconds, "0", Same),
    of("ignore_startup_parameters", Text, "", Same),
    of("job_name", Text, "pgbouncer", Without(NAMES)),
    of("listen_addr", Text, "", Woven),
    of("listen_backlog", Number, "128", Same),
    of("listen_port", Number, "6432", Same),
    of("log_connections", Flag, "1", Same),
    of("log_disconnections", Flag, "1", Same),
    of("log_pooler_errors", Flag, "1", Same),
    of("log_stats", Flag, "1", Without("SHOW STATS tells them")),
    of("logfile", Text, "", Same),
    of("login_notify_message", Text, "", Same),
    of("max_client_conn", Number, "100", Same),
    of("max_db_client_connections", Number, "0", Same),
    of("max_db_connections", Number, "0", Same),
    of("max_packet_size", Number, "2147483647", Without("messages are never collected, so their size does not matter")),
    of("max_prepared_statements", Number, "200", Same),
    of("max_user_client_connections", Number, "0", Same),
    of("max_user_connections", Number, "0", Same),
    of("min_pool_size", Number, "0", Same),
    of("peer_id", Number, "0", Same),
    of("pidfile", Text, "", Same),
    of("pkt_buf", Number, "4096", Without(BUFFERS)),
    of("pool_idle_timeout", Seconds, "0", Same),
    of("pool_mode", Text, "session", Same),
    of("query_timeout", Seconds, "0", Same),
    of("query_wait_notify", Number, "5", Same),
    of("query_wait_timeout", Seconds, "120", Same),
    of("reserve_pool_size", Number, "0", Same),
    of("reserve_pool_timeout", Seconds, "5", Same),
    of("resolv_conf", Text, "", Without(DNS)),
    of("sbuf_loopcnt", Number, "5", Without(BUFFERS)),
    of("scram_iterations", Number, "4096", Without("verifiers of plain passwords are made with 4096 rounds")),
    of("server_check_delay", Seconds, "30", Same),
    of("server_check_query", Text, "<empty>", Same),
    of("server_connect_timeout", Seconds, "15", Woven),
    of("server_fast_close", Flag, "0", Same),
    of("server_idle_timeout", Seconds, "600", Same),
    of("server_lifetime", Seconds, "3600", Same),
    of("server_login_retry", Seconds, "15", Same),
    of("server_reset_query", Text, "DISCARD ALL", Same),
    of("server_reset_query_always", Flag, "0", Same),
    of("server_round_robin", Flag, "0", Same),
    of("server_tls13_ciphers", Text, "", Without(CIPHERS)),
    of("server_tls_ca_file", Text, "", Woven),
    of("server_tls_cert_file", Text, "", Without("gprxy has no certificate for servers: one that asks for it refuses")),
    of("server_tls_ciphers", Text, "default", Without(CIPHERS)),
    of("server_tls_key_file", Text, "", Without("gprxy has no certificate for servers: one that asks for it refuses")),
    of("server_tls_protocols", Text, "secure", Without("TLS to servers is 1.2 or 1.3")),
    of("server_tls_sslmode", Text, "prefer", Woven),
    of("service_name", Text, "", Without(NAMES)),
    of("so_reuseport", Flag, "0", Same),
    of("stats_period", Seconds, "60", Same),
    of("stats_users", Text, "", Same),
    of("suspend_timeout", Seconds, "10", Without("SUSPEND waits for as long as it takes")),
    of("syslog", Flag, "0", Without(SYSLOG)),
    of("syslog_facility", Text, "daemon", Without(SYSLOG)),
    of("syslog_ident", Text, "pgbouncer", Without(SYSLOG)),
    of("tcp_defer_accept", Number, "", Woven),
    of("tcp_keepalive", Flag, "1", Same),
    of("tcp_keepcnt", Number, "", Same),
    of("tcp_keepidle", Number, "", Same),
    of("tcp_keepintvl", Number, "", Same),
    of("tcp_socket_buffer", Number, "", Same),
    of("tcp_user_timeout", Millis, "", Same),
    of("track_extra_parameters", Text, "IntervalStyle", Same),
    of("transaction_timeout", Seconds, "0", Same),
    of("unix_socket_dir", Text, "/tmp", Woven),
    of("unix_socket_group", Text, "", Same),
    of("unix_socket_mode", Text, "0777", Same),
    of("user", Text, "", Woven),
    of("verbose", Number, "0", Woven),
];

/// Of the connection strings in `[databases]`.
pub(super) static OF_DATABASES: &[Known] = &[
    of("application_name", Text, "", Without("the client's own name reaches the server")),
    of("auth_dbname", Text, "", Same),
    of("auth_query", Text, "", Same),
    of("auth_user", Text, "", Same),
    of("client_encoding", Text, "", Without("the client's own parameters reach the server")),
    of("connect_query", Text, "", Same),
    of("datestyle", Text, "", Without("the client's own parameters reach the server")),
    of("dbname", Text, "", Same),
    of("host", Text, "", Woven),
    of("load_balance_hosts", Text, "round-robin", Woven),
    of("max_db_client_connections", Number, "", Same),
    of("max_db_connections", Number, "", Same),
    of("min_pool_size", Number, "", Same),
    of("password", Text, "", Same),
    of("pool_mode", Text, "", Same),
    of("pool_size", Number, "", Same),
    of("port", Number, "5432", Same),
    of("query_wait_timeout", Seconds, "", Same),
    of("reserve_pool", Number, "", Woven),
    of("reserve_pool_size", Number, "", Same),
    of("server_lifetime", Seconds, "", Same),
    of("timezone", Text, "", Without("the client's own parameters reach the server")),
    of("user", Text, "", Same),
];

/// Of the strings in `[peers]`.
pub(super) static OF_PEERS: &[Known] =
    &[of("host", Text, "", Same), of("pool_size", Number, "", Same), of("port", Number, "6432", Same)];

/// Of the strings in `[users]`.
pub(super) static OF_USERS: &[Known] = &[
    of("client_idle_timeout", Seconds, "", Same),
    of("idle_transaction_timeout", Seconds, "", Same),
    of("max_user_client_connections", Number, "", Same),
    of("max_user_connections", Number, "", Same),
    of("pool_mode", Text, "", Same),
    of("pool_size", Number, "", Same),
    of("query_timeout", Seconds, "", Same),
    of("query_wait_timeout", Seconds, "", Same),
    of("reserve_pool_size", Number, "", Same),
    of("transaction_timeout", Seconds, "", Same),
];

/// The entry of a table.
pub(super) fn find(table: &'static [Known], name: &str) -> Option<&'static Known> {
    table.iter().find(|known| known.name == name)
}

/// Those that hold from the start to the end of a process, and have no setting of one name here that says so.
const FIXED: [&str; 2] = ["disable_pqexec", "user"];

/// Whether `SET` changes the option of this name; the error says why it would have no effect. `None`: PgBouncer has none.
pub(crate) fn settable(name: &str) -> Option<Result<&'static str, String>> {
    let known = find(OPTIONS, name)?;
    let home = super::translate::home(name);
    let fixed = FIXED.contains(&name) || home.is_some_and(|(_, key)| key.fixed);
    Some(match known.fate {
        Without(instead) => Err(format!("{name} has no effect: {instead}")),
        Same if home.is_none() => Err(format!("{name} has no effect: gprxy has no such setting")),
        Same | Woven if fixed => Err(format!("{name} cannot be changed while gprxy runs")),
        Same | Woven => Ok(known.name),
    })
}

/// What PgBouncer has for an option that is not given.
pub(crate) fn default_of(name: &str) -> Option<&'static str> {
    find(OPTIONS, name).map(|known| known.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_order() {
        for table in [OPTIONS, OF_DATABASES, OF_PEERS, OF_USERS] {
            assert!(table.is_sorted_by_key(|known| known.name));
        }
    }
}

//! The settings as the rest of the program uses them: typed, checked, complete.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::auth::users::UserList;
use gprxy_proto::console::ConsoleAccess;
use gprxy_proto::policy::{
    Account, AllowPlaintext, AuthQuery, AuthType, Database, Limits, LogTerms, OwnPool, OwnTimeouts, PeerId, Peers,
    SocketOptions, StartupRules,
};
use gprxy_proto::pool::PoolSettings;
use gprxy_proto::secret::Secret;

/// Everything that `gprxy start` needs.
pub(crate) struct Settings {
    /// Where clients connect.
    pub(crate) listen: Listen,
    /// Worker threads.
    pub(crate) workers: usize,
    /// How clients may prove who they are.
    pub(crate) access: Access,
    /// TLS towards clients; `None`: an SSLRequest is answered with `N`.
    pub(crate) tls: Option<TlsSettings>,
    /// Whose tokens are believed; at least one.
    pub(crate) issuers: Vec<IssuerConfig>,
    /// What roles run as.
    pub(crate) roles: Roles,
    /// `GPRXY_USER`: what `gprxy check` may log in with. It runs nobody's queries.
    pub(crate) check_account: Option<Account>,
    /// By the name that clients ask for; `*` stands for all that are not named. At least one.
    pub(crate) databases: BTreeMap<Arc<str>, Database>,
    /// The number of this process among its peers; `None`: its cancel keys are good here only.
    pub(crate) peer_id: Option<PeerId>,
    /// To whom cancel requests are passed on.
    pub(crate) peers: Peers,
    /// What holds for pools of databases that say nothing else.
    pub(crate) pool: PoolSettings,
    /// Who may use the admin console.
    pub(crate) admin: AdminSettings,
    /// Who ran what.
    pub(crate) audit: AuditSettings,
    /// Bounds on what clients may make the proxy hold or wait for.
    pub(crate) limits: Limits,
    /// What becomes of the parameters in startup packets.
    pub(crate) startup: StartupRules,
    /// How the kernel treats connections.
    pub(crate) sockets: SocketOptions,
    /// The proxy's own log.
    pub(crate) log: LogSettings,
}

/// Where clients connect.
pub(crate) struct Listen {
    /// IP addresses or host names; `*` stands for all addresses of this machine.
    pub(crate) addresses: Vec<String>,
    /// 0: any free port.
    pub(crate) port: u16,
    /// The directory of a Unix socket `.s.PGSQL.<port>`.
    pub(crate) unix_socket_dir: Option<PathBuf>,
    /// The mode of its file.
    pub(crate) unix_socket_mode: u32,
    /// The id of its group.
    pub(crate) unix_socket_group: Option<u32>,
    /// Connections that wait to be accepted.
    pub(crate) backlog: i32,
    /// Whether several processes may listen on the same address.
    pub(crate) reuse_port: bool,
    /// How long the kernel keeps a client that says nothing to itself; zero: not at all.
    pub(crate) defer_accept: Duration,
    /// Where the number of the process is written.
    pub(crate) pidfile: Option<PathBuf>,
}

/// How clients may prove who they are.
pub(crate) struct Access {
    /// Where a token or password may be asked for without TLS.
    pub(crate) allow_plaintext: AllowPlaintext,
    /// Whether a password that is no token is checked by PostgreSQL itself.
    pub(crate) password_fallback: bool,
    /// Who is let in by what.
    pub(crate) proof: Proof,
    /// How users are looked up whom the list does not have, where a database says nothing else.
    pub(crate) lookup: Lookup,
}

/// `auth_user`, `auth_query`, `auth_dbname`.
#[derive(Clone)]
pub(crate) struct Lookup {
    /// Who asks; `None`: nobody is looked up.
    pub(crate) user: Option<Arc<str>>,
    /// What is asked.
    pub(crate) query: Arc<str>,
    /// Where; `None`: in the database that the client wants.
    pub(crate) database: Option<Arc<str>>,
}

impl Lookup {
    /// The same for the machines.
    pub(crate) fn auth_query(&self) -> Option<Arc<AuthQuery>> {
        let user = self.user.clone()?;
        Some(Arc::new(AuthQuery { user, query: self.query.clone(), database: self.database.clone() }))
    }
}

/// What lets somebody in: `auth_type`.
pub(crate) enum Proof {
    /// A token of an issuer.
    Token,
    /// What is in a list of users.
    Listed(AuthType, UserList),
    /// Nothing, and the name does not count: databases log in as users of their own.
    Anyone,
}

impl Proof {
    /// Whether tokens, and so issuers and roles, mean anything.
    pub(crate) const fn is_token(&self) -> bool {
        matches!(self, Self::Token)
    }
}

/// The admin console.
#[derive(Clone)]
pub(crate) struct AdminSettings {
    /// Who may use it.
    pub(crate) access: ConsoleAccess,
    /// How long the periods are that averages are of.
    pub(crate) stats_period: Duration,
}

/// TLS towards clients. Both files were read and fit together when the settings were loaded.
pub(crate) struct TlsSettings {
    /// PEM, the chain with the server's own certificate first.
    pub(crate) cert: PathBuf,
    /// PEM, the key of that certificate.
    pub(crate) key: PathBuf,
    /// Whether clients must use it, but for those at a Unix socket.
    pub(crate) required: bool,
    /// The oldest version that is spoken.
    pub(crate) min_version: TlsVersion,
}

/// A TLS version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// An OIDC provider whose tokens are believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct IssuerConfig {
    /// Exactly as it stands in the tokens' `iss`.
    pub(crate) issuer: String,
    /// Where its keys are; `None`: discovery tells.
    pub(crate) jwks_url: Option<String>,
    /// A token must name one of them in `aud`.
    pub(crate) audiences: Vec<String>,
    /// How far its clock and ours may be apart.
    pub(crate) leeway: Duration,
    /// Claims that a token must have, besides `iss`, `aud`, `exp` and `sub`.
    pub(crate) required_claims: Vec<String>,
    /// Claims that name the person, the first one present counts.
    pub(crate) user_claims: Vec<String>,
    /// Claims that list the roles; all of them are taken, in this order.
    pub(crate) roles_claims: Vec<String>,
    /// The OAuth client of `gprxy login`.
    pub(crate) client_id: Option<String>,
}

/// What roles run as.
pub(crate) struct Roles {
    /// In the order of the configuration; at least one. No two have the same name, letter case aside.
    pub(crate) mappings: Vec<RoleConfig>,
    /// The role of those whose token names none of them; spelled as in `mappings`.
    pub(crate) default_role: Option<Arc<str>>,
}

/// A role of the provider and the PostgreSQL account it runs as.
pub(crate) struct RoleConfig {
    /// Matched without letter case.
    pub(crate) role: Arc<str>,
    /// The PostgreSQL role name.
    pub(crate) account: Arc<str>,
    /// The account's password; `None` where PostgreSQL trusts the proxy.
    pub(crate) password: Option<Secret<String>>,
    /// For people with several roles: the highest counts, `None` is 0, among equals the token's order decides.
    pub(crate) priority: Option<i32>,
    /// Other timeouts than the rest has.
    pub(crate) timeouts: OwnTimeouts,
    /// Another pool than the rest has.
    pub(crate) pool: OwnPool,
}

/// Who ran what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AuditSettings {
    /// Whether anything is recorded.
    pub(crate) enabled: bool,
    /// Where to.
    pub(crate) path: AuditPath,
    /// Longer statements are cut, their full length is told.
    pub(crate) statement_bytes: usize,
    /// What happens when a record cannot be written.
    pub(crate) on_failure: AuditFailure,
    /// Records between the sessions and the writer.
    pub(crate) queue: usize,
}

/// Where audit records go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AuditPath {
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// What happens when an audit record cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AuditFailure {
    /// No statement runs unrecorded.
    Refuse,
    /// It is counted and told in the log.
    Count,
}

/// The proxy's own log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LogSettings {
    /// What is told.
    pub(crate) level: log::LevelFilter,
    /// In which form.
    pub(crate) format: LogFormat,
    /// A file that is appended to, besides standard error.
    pub(crate) file: Option<PathBuf>,
    /// Whether standard error gets nothing.
    pub(crate) quiet: bool,
    /// What is told of clients and server connections.
    pub(crate) told: LogTerms,
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

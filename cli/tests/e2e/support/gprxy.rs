//! The real `gprxy` as a child process. The names of its settings stand here and nowhere else in the tests.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use toml::{Table, Value};

use super::audit::{self, Line};
use super::fixtures::{DATABASE, READER, WRITER};
use super::postgres::{Cluster, Version};
use super::provider::{AUDIENCE, Provider};
use super::reaper::{Leashed, free_port, fresh_path, write_private};
use super::target::Target;
use super::{eventually, tls};

/// Settings of one instance, on the way to a TOML file.
#[derive(Clone)]
pub(crate) struct Config {
    file: PathBuf,
    settings: Table,
    roles: Vec<Table>,
    issuers: Vec<Table>,
    server: &'static Cluster,
    provider: &'static Provider,
    port: u16,
    audit: PathBuf,
    environment: Vec<(String, String)>,
    launcher: Vec<String>,
    runtime: Option<String>,
}

impl Config {
    /// What most tests want: TLS, the shared provider, `reader` and `writer` mapped, an audit file.
    pub(crate) fn new(version: Version) -> Self {
        Self::with(Cluster::shared(version), Provider::shared())
    }

    /// The same with another server or provider. Both outlive the test, because a [`Target`] may be cloned freely.
    pub(crate) fn with(server: &'static Cluster, provider: &'static Provider) -> Self {
        let (pki, port, audit) = (tls::pki(), free_port(), fresh_path("audit"));
        let config = Self {
            file: fresh_path("config").with_extension("toml"),
            settings: Table::new(),
            roles: Vec::new(),
            issuers: vec![issuer(&provider.issuer)],
            server,
            provider,
            port,
            audit: audit.clone(),
            environment: Vec::new(),
            launcher: Vec::new(),
            runtime: runtime_under_test(),
        };
        config
            .set("server.listen_addr", "127.0.0.1")
            .set("server.listen_port", i64::from(port))
            .set("tls.cert", path(&pki.cert))
            .set("tls.key", path(&pki.key))
            .set("databases.*.host", "127.0.0.1")
            .set("databases.*.port", i64::from(server.port))
            .set("databases.*.sslmode", "verify-full")
            .set("databases.*.sslrootcert", path(&pki.ca))
            .set("audit.path", path(&audit))
            // Sooner than the defaults, which are meant for people who wait.
            .set("pool.query_wait_notify", "200ms")
            .set("pool.server_login_retry", "1s")
            .set("log.level", "debug")
            .role("reader", READER, 2)
            .role("writer", WRITER, 1)
    }

    /// Sets a value by its dotted name.
    pub(crate) fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        let mut table = &mut self.settings;
        let mut parts = name.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                table.insert(part.to_owned(), value.into());
                return self;
            }
            let inner = table.entry(part).or_insert_with(|| Table::new().into());
            table = inner.as_table_mut().expect("a section");
        }
        unreachable!("split yields at least one part");
    }

    /// Removes a value.
    pub(crate) fn unset(mut self, section: &str, name: &str) -> Self {
        self.settings[section].as_table_mut().expect("a section").remove(name);
        self
    }

    /// Removes a value of a named part of a section.
    pub(crate) fn unset_in(mut self, section: &str, part: &str, name: &str) -> Self {
        self.settings[section][part].as_table_mut().expect("a section").remove(name);
        self
    }

    /// Where it will listen.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Listens where another one did.
    pub(crate) fn at_port(mut self, port: u16) -> Self {
        self.port = port;
        self.set("server.listen_port", i64::from(port))
    }

    /// Maps a role to an account, the highest priority counts; an empty password is none. Replaces an earlier mapping of the same role.
    pub(crate) fn role(mut self, name: &str, (account, password): (&str, &str), priority: i64) -> Self {
        self.roles.retain(|role| role["name"].as_str() != Some(name));
        let mut role = Table::new();
        role.insert("name".into(), name.into());
        role.insert("account".into(), account.into());
        if !password.is_empty() {
            role.insert("password".into(), password.into());
        }
        role.insert("priority".into(), priority.into());
        self.roles.push(role);
        self
    }

    /// Sets a value of a `[[role]]`.
    pub(crate) fn role_setting(mut self, role: &str, name: &str, value: impl Into<Value>) -> Self {
        let found = self.roles.iter_mut().find(|entry| entry["name"].as_str() == Some(role));
        found.expect("a role").insert(name.to_owned(), value.into());
        self
    }

    /// Sets a value of the provider's `[[issuer]]`.
    pub(crate) fn issuer_setting(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.issuers[0].insert(name.to_owned(), value.into());
        self
    }

    /// Believes the tokens of a second provider, too.
    pub(crate) fn and_issuer(mut self, provider: &Provider) -> Self {
        self.issuers.push(issuer(&provider.issuer));
        self
    }

    /// Takes back the last [`Self::and_issuer`].
    pub(crate) fn without_last_issuer(mut self) -> Self {
        self.issuers.pop();
        self
    }

    /// Points the proxy's databases at the server's Unix socket.
    pub(crate) fn over_unix_socket(self) -> Self {
        let dir = path(&self.server.socket_dir);
        self.set("databases.*.host", dir).set("databases.*.sslmode", "disable")
    }

    /// One server connection per account and database.
    pub(crate) fn pool_of(self, size: i64) -> Self {
        self.set("pool.default_pool_size", size)
    }

    /// How long a client waits for a server connection, as a duration with unit.
    pub(crate) fn queue_wait(self, timeout: &str) -> Self {
        self.set("pool.query_wait_timeout", timeout)
    }

    /// Who may send a password without TLS: `never`, `loopback`, `always`.
    pub(crate) fn allow_plaintext(self, who: &str) -> Self {
        self.set("server.allow_plaintext", who)
    }

    /// Neither certificate nor key: no TLS towards clients.
    pub(crate) fn without_tls(self) -> Self {
        self.unset("tls", "cert").unset("tls", "key")
    }

    /// Whether a password that is no token is passed on to PostgreSQL.
    pub(crate) fn password_fallback(self, on: bool) -> Self {
        self.set("server.password_fallback", on)
    }

    /// A variable in the environment of the process.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs on this runtime, whichever the other tests run on.
    pub(crate) fn on_runtime(mut self, name: &str) -> Self {
        self.runtime = Some(name.to_owned());
        self
    }

    /// Starts it through this program, which gets gprxy's command line behind its own arguments.
    pub(crate) fn launched_by(mut self, program: &[&str]) -> Self {
        self.launcher = program.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The file's text.
    fn render(&self) -> String {
        let mut settings = self.settings.clone();
        settings.insert("issuer".into(), Value::Array(self.issuers.iter().cloned().map(Value::from).collect()));
        settings.insert("role".into(), Value::Array(self.roles.iter().cloned().map(Value::from).collect()));
        toml::to_string(&settings).expect("a table is TOML")
    }

    fn command(&self, verb: &str) -> Command {
        let file = &self.file;
        write_private(file, &self.render());
        let mut words = self.launcher.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_gprxy")]);
        let mut command = Command::new(words.next().expect("at least gprxy itself"));
        command.args(words).arg(verb).arg("--config").arg(file);
        // A clean environment: the machine's own PG* or proxy variables must not decide a test.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("RUST_BACKTRACE", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Away from any `.env` of the checkout.
        command.current_dir(super::reaper::run_dir()).stdin(Stdio::null());
        command
    }

    fn start_command(&self) -> Command {
        let mut command = self.command("start");
        command.args(self.runtime.iter().map(|name| format!("--runtime={name}")));
        command
    }

    /// Runs `gprxy check` to its end.
    pub(crate) fn check(&self) -> std::process::Output {
        self.command("check").output().expect("gprxy starts")
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(self) -> Gprxy {
        let (log, output) = (fresh_path("gprxy.log"), fresh_path("gprxy.out"));
        let mut command = self.start_command();
        command.stdout(fs::File::create(&output).unwrap()).stderr(fs::File::create(&log).unwrap());
        let host = if self.settings["server"]["listen_addr"].as_str() == Some("::1") { "::1" } else { "127.0.0.1" };
        let mut child = Leashed::spawn(&mut command);
        eventually("gprxy to listen", || {
            assert!(!child.has_ended(), "gprxy ended:\n{}", fs::read_to_string(&log).unwrap_or_default());
            TcpStream::connect((host, self.port)).ok()
        });
        Gprxy { child, config: self, log, output }
    }

    /// Starts it where it is expected to refuse: its exit status and what it said.
    pub(crate) fn refused(self) -> (ExitStatus, String) {
        let output = self.start_command().output().expect("gprxy starts");
        (output.status, String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

/// What all tests run on: `GPRXY_TEST_RUNTIME`, else what gprxy takes by itself.
pub(crate) fn runtime_under_test() -> Option<String> {
    std::env::var("GPRXY_TEST_RUNTIME").ok()
}

fn issuer(url: &str) -> Table {
    let mut issuer = Table::new();
    issuer.insert("issuer".into(), url.into());
    issuer.insert("audience".into(), AUDIENCE.into());
    issuer
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("a path of ours is text")
}

/// A running instance.
pub(crate) struct Gprxy {
    pub(crate) child: Leashed,
    config: Config,
    log: PathBuf,
    output: PathBuf,
}

impl Gprxy {
    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.config.port
    }

    /// The way in for a person of the provider, with their token as the password, over verified TLS.
    pub(crate) fn target(&self, person: &str) -> Target {
        let account = if person == "bob" { WRITER.0 } else { READER.0 };
        Target {
            host: "localhost".to_owned(),
            port: self.config.port,
            user: format!("{person}@corp.example"),
            password: self.config.provider.token(person).to_string(),
            database: DATABASE.to_owned(),
            sslmode: "verify-full",
            root_ca: tls::pki().ca.clone(),
            account,
            server: self.config.server,
        }
    }

    /// The PostgreSQL behind it.
    pub(crate) fn server(&self) -> &'static Cluster {
        self.config.server
    }

    /// Writes other settings into its file and tells it to read them. What it has logged about that: an error, when the
    /// settings of before stay in force.
    pub(crate) fn reload(&mut self, change: impl FnOnce(Config) -> Config) -> String {
        let config = change(self.config.clone());
        write_private(&config.file, &config.render());
        self.config = config;
        self.hang_up()
    }

    /// The same with a file that is already what it should be.
    pub(crate) fn hang_up(&self) -> String {
        let before = self.log().len();
        self.child.signal("HUP");
        eventually("the settings to be read", || {
            let told = self.log().split_off(before);
            (told.contains("and are in force") || told.contains("of before stay in force")).then_some(told)
        })
    }

    /// Its settings file.
    pub(crate) fn file(&self) -> &std::path::Path {
        &self.config.file
    }

    /// Everything it has logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Its standard output so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    /// Where the audit trail is.
    pub(crate) fn audit_path(&self) -> &std::path::Path {
        &self.config.audit
    }

    /// Every audit line so far.
    pub(crate) fn audit(&self) -> Vec<Line> {
        audit::read(&self.config.audit)
    }

    /// The text of the audit file.
    pub(crate) fn audit_text(&self) -> String {
        fs::read_to_string(&self.config.audit).unwrap_or_default()
    }

    /// The audit line of the statement that contains `marker`, once it is written.
    pub(crate) fn await_audited(&self, marker: &str) -> Line {
        eventually(&format!("an audit line with {marker}"), || {
            self.audit().into_iter().find(|line| line.statement().is_some_and(|text| text.contains(marker)))
        })
    }

    /// Fails when it is not running any more.
    #[track_caller]
    pub(crate) fn assert_alive(&mut self) {
        assert!(!self.child.has_ended(), "gprxy died:\n{}", self.log());
    }
}

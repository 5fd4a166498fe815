//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[cfg(feature = "login")]
use crate::commands::{self, examples};

const EXAMPLES: &str = "\
Examples:
  gprxy demo                               see it work on this machine, nothing to prepare
  gprxy check --config gprxy.toml          read the settings, try the issuer and the databases
  gprxy start --config gprxy.toml          run the proxy
  AUTH0_TENANT=corp.eu.auth0.com AUDIENCE=https://db.corp.example \\
  ROLE_MAPPING_reader=app_reader:secret DB_HOST=db.corp.example gprxy start

Every morning, on your own computer:
  gprxy login                              single sign-on in the browser
  gprxy psql -d app                        psql as always, through the proxy

Or with a token of your provider, any PostgreSQL client:
  PGPASSWORD=$TOKEN psql \"host=localhost port=7777 dbname=app user=alice@corp.example\"

Exit codes: 0 well, 1 failed while running, not logged in or refused,
  2 wrong command line, 69 something does not answer,
  78 wrong or missing settings: one line for each on standard error,
  127 psql is not installed.";

const START_EXAMPLES: &str = "\
Examples:
  gprxy start                              settings from the environment and .env only
  gprxy start --config /etc/gprxy.toml     and from a file
  gprxy start --pgbouncer-ini pgbouncer.ini   as PgBouncer would, with its signals
  RUST_LOG=gprxy=debug gprxy start         more to read

The environment wins over the file, the file over .env, .env over the defaults.
SIGTERM drains: new sessions are refused, running work may end, and gprxy ends
when all is done or server.drain_timeout is over.";

const CONVERT_EXAMPLES: &str = "\
Examples:
  gprxy convert /etc/pgbouncer/pgbouncer.ini > gprxy.toml
  APP_PASSWORD=secret gprxy check --config gprxy.toml

Passwords become variables, listed on standard error; what cannot be carried over
is a comment. Exit codes: 0 well, 78 something would be weaker or is wrong.";

const CHECK_EXAMPLES: &str = "\
Examples:
  gprxy check --config gprxy.toml          everything
  gprxy check --offline                    the settings alone, for a build or a container without network
  gprxy check > effective.toml             what is printed is TOML, trials are comments in it

Exit codes: 0 all is well, 69 an issuer or a database does not answer,
  78 wrong or missing settings.";

/// An SSO-first PostgreSQL proxy: people log in with a token of the company's identity provider, run as the
/// PostgreSQL account that their role maps to, and every statement is recorded under their name.
#[derive(Parser)]
#[command(name = "gprxy", version, after_help = EXAMPLES, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What gprxy can do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the proxy
    #[command(after_help = START_EXAMPLES)]
    Start(StartArgs),
    /// Print PgBouncer's configuration as a settings file of gprxy
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(ConvertArgs),
    /// Print the effective settings without secrets, and try the issuers and the databases
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Show everything on this machine: PostgreSQL, a development issuer, the proxy, and what people do with them
    #[cfg(feature = "demo")]
    Demo(crate::demo::DemoArgs),
    /// Log in with single sign-on
    #[cfg(feature = "login")]
    #[command(after_help = examples::LOGIN)]
    Login(commands::LoginArgs),
    /// Show who is logged in, for how long, and what the proxy makes of it
    #[cfg(feature = "login")]
    #[command(visible_alias = "whoami", after_help = examples::STATUS)]
    Status(commands::StatusArgs),
    /// Revoke the tokens at the provider and delete them
    #[cfg(feature = "login")]
    #[command(after_help = examples::LOGOUT)]
    Logout(commands::LogoutArgs),
    /// Print a fresh access token and nothing else
    #[cfg(feature = "login")]
    #[command(after_help = examples::TOKEN)]
    Token(commands::TokenArgs),
    /// Start psql through the proxy, with a fresh token
    #[cfg(feature = "login")]
    #[command(after_help = examples::PSQL, disable_help_flag = true)]
    Psql(commands::PsqlArgs),
    /// Start psql on a database, in the words of the first gprxy
    #[cfg(feature = "login")]
    #[command(after_help = examples::CONNECT)]
    Connect(commands::ConnectArgs),
    /// Open a port of this computer that leads to the proxy, for programs that cannot renew a token
    #[cfg(feature = "login")]
    #[command(after_help = examples::TUNNEL)]
    Tunnel(crate::tunnel::TunnelArgs),
    /// Print libpq's variables for a shell
    #[cfg(feature = "login")]
    #[command(after_help = examples::ENV)]
    Env(commands::EnvArgs),
    /// Write an entry into libpq's service file
    #[cfg(feature = "login")]
    #[command(after_help = examples::SERVICE)]
    Service(commands::ServiceArgs),
    /// Print a completion script for a shell
    #[cfg(feature = "login")]
    #[command(after_help = examples::COMPLETIONS)]
    Completions(commands::CompletionsArgs),
    /// Print the manual page
    #[cfg(feature = "login")]
    #[command(after_help = examples::MAN)]
    Man(commands::ManArgs),
}

/// Where the settings are.
#[derive(Args)]
pub(crate) struct ConfigArgs {
    /// Settings file in TOML [environment: GPRXY_CONFIG]; see docs/configuration.md
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// What carries the sessions. People notice no difference but in speed and memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
#[cfg_attr(not(all(feature = "tokio", feature = "smol")), allow(dead_code, reason = "with one there is no choice"))]
pub(crate) enum RuntimeName {
    #[cfg(feature = "tokio")]
    #[default]
    Tokio,
    #[cfg(feature = "smol")]
    #[cfg_attr(not(feature = "tokio"), default)]
    Smol,
}

/// Which runtime, where there is a choice.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct RuntimeArgs {
    /// What carries the sessions: tokio for servers, smol for small machines
    #[cfg(all(feature = "tokio", feature = "smol"))]
    #[arg(long = "runtime", value_name = "NAME", value_enum, default_value_t)]
    name: RuntimeName,
}

impl RuntimeArgs {
    /// What was asked for, or the one that is there.
    pub(crate) fn name(self) -> RuntimeName {
        #[cfg(all(feature = "tokio", feature = "smol"))]
        return self.name;
        #[cfg(not(all(feature = "tokio", feature = "smol")))]
        RuntimeName::default()
    }

    /// The same for the command line of a child.
    #[cfg(feature = "demo")]
    pub(crate) fn arguments(self) -> Vec<String> {
        #[cfg(all(feature = "tokio", feature = "smol"))]
        let arguments = self.name.to_possible_value().map(|value| format!("--runtime={}", value.get_name()));
        #[cfg(not(all(feature = "tokio", feature = "smol")))]
        let arguments = None;
        arguments.into_iter().collect()
    }
}

/// `gprxy start`
#[derive(Args)]
pub(crate) struct StartArgs {
    /// Where the settings are
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Run with PgBouncer's own configuration; see docs/pgbouncer.md
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) pgbouncer_ini: Option<PathBuf>,

    /// No log on standard error
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Log more than the settings say; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// PgBouncer's, refused with a hint
    #[arg(short, long, hide = true)]
    daemon: bool,

    /// PgBouncer's, refused with a hint
    #[arg(short = 'R', long, hide = true)]
    reboot: bool,

    /// PgBouncer's, refused with a hint
    #[arg(short, long, hide = true, value_name = "USER")]
    user: Option<String>,

    /// What to run on
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,

    /// Trust the development issuer on this machine. Not for people: `gprxy demo` starts its own proxy with it.
    #[cfg(feature = "demo")]
    #[arg(long, hide = true)]
    pub(crate) allow_demo_issuer: bool,
}

impl StartArgs {
    /// What PgBouncer's command line has and this one does not, and what to do instead.
    pub(crate) fn unsupported(&self) -> Option<&'static str> {
        let options = [
            (self.daemon, "-d: gprxy stays in the foreground; let systemd start it (Type=simple), or setsid(1)"),
            (self.reboot, "-R: set so_reuseport, start the new process, then send SIGTERM to the old one"),
            (self.user.is_some(), "-u: start gprxy as that user: User= in the unit of systemd, or setpriv(1)"),
        ];
        options.into_iter().find_map(|(given, words)| given.then_some(words))
    }
}

/// `gprxy convert`
#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// PgBouncer's configuration
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `gprxy check`
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Where the settings are
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Only read the settings, connect to nothing
    #[arg(long)]
    pub(crate) offline: bool,
}

/// What single connections of `gprxy check` run on.
#[cfg(feature = "tokio")]
pub(crate) type DefaultHost = gprxy_tokio::Tokio;
/// What single connections of `gprxy check` run on.
#[cfg(all(feature = "smol", not(feature = "tokio")))]
pub(crate) type DefaultHost = gprxy_smol::Smol;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}

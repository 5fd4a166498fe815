//! The command lines of these commands.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::credentials::Place;
use crate::profile::ProfileArgs;

/// What stands below `--help`.
pub(crate) mod examples {
    pub(crate) const LOGIN: &str = "\
Examples:
  gprxy login                              opens a browser; over SSH shows a code instead
  gprxy login --device                     a code for the browser of another device
  gprxy login --profile staging            the provider and proxy of a profile
  GPRXY_CLIENT_SECRET=… gprxy login --client-credentials    for a machine

Settings come from ~/.gprxy/config.toml, the environment and .env: see docs/cli.md.
Exit codes: 0 logged in, 1 refused or given up, 69 the provider does not answer,
  78 wrong or missing settings, 130 interrupted.";

    pub(crate) const STATUS: &str = "\
Examples:
  gprxy status                             who am I, and for how long
  gprxy status -d app                      and what the proxy makes of me
  gprxy status --json | jq -r .user.email
  gprxy status >/dev/null 2>&1 || gprxy login

Exit codes: 0 logged in, 1 not logged in or the login has ended.";

    pub(crate) const LOGOUT: &str = "\
Examples:
  gprxy logout                             revokes the tokens and deletes them
  gprxy logout --profile staging";

    pub(crate) const TOKEN: &str = "\
Examples:
  PGPASSWORD=$(gprxy token) psql \"host=gprxy.example.com port=7777 user=alice@example.com dbname=app\"
  gprxy token --json | jq -r .expires_at
  gprxy token --pgpass                     into ~/.pgpass, for programs that read it

Exit codes: 0 printed, 1 not logged in, 69 the provider does not answer.";

    pub(crate) const SERVICE: &str = "\
Examples:
  gprxy service -d app                     writes [gprxy] into ~/.pg_service.conf
  gprxy token --pgpass && psql service=gprxy
  gprxy service --name staging --profile staging -d app
  gprxy service --print                    only shows it";

    pub(crate) const ENV: &str = "\
Examples:
  eval \"$(gprxy env)\"                      PGHOST, PGPORT, PGUSER, PGSSLMODE, PGSSLROOTCERT
  eval \"$(gprxy env -d app --with-token)\"  and PGPASSWORD, for an hour or so
  gprxy env --shell fish | source";

    pub(crate) const TUNNEL: &str = "\
Examples:
  gprxy tunnel                             127.0.0.1:5433, with a password made for this tunnel
  gprxy tunnel --listen 127.0.0.1:6000 -d app
  gprxy tunnel --listen $XDG_RUNTIME_DIR/gprxy
                                           a Unix socket that only your own programs can use
  gprxy tunnel --profile staging           to the proxy of a profile
  gprxy tunnel --json --listen 0           any free port, told as one line of JSON

Each connection gets a fresh token. The user name that a program gives is passed
on: your own, or a role or account of yours. Ctrl-C lets running statements end,
a second one does not.

Exit codes: 0 closed, 1 not logged in, 69 the address cannot be listened on,
  78 wrong or missing settings.";

    pub(crate) const CONNECT: &str = "\
Examples:
  gprxy connect -d app                     psql on the database app
  gprxy connect -s db.example.com -d app   as with the first gprxy
  gprxy connect -d app -- -c 'select 1' --csv

gprxy's proxy chooses the server by the database's name. Where a profile has
[profile.NAME.databases], -s and -p choose among these names; otherwise they are
not sent, and a note says so. The exit code is psql's; 127: there is no psql.";

    pub(crate) const PSQL: &str = "\
Examples:
  gprxy psql -d app                        everything behind psql is for psql itself
  gprxy psql -d app -c 'select current_user'
  gprxy psql --profile staging -d app -f report.sql --csv

The server is the proxy: -h, -p and connection strings that name another one are
refused, so that the token goes nowhere else. The exit code is psql's; 127: there
is no psql.";

    pub(crate) const COMPLETIONS: &str = "\
Examples:
  gprxy completions bash > ~/.local/share/bash-completion/completions/gprxy
  gprxy completions zsh > ~/.zfunc/_gprxy
  gprxy completions fish > ~/.config/fish/completions/gprxy.fish";

    pub(crate) const MAN: &str = "\
Examples:
  gprxy man | man -l -                     read it
  gprxy man --dir ~/.local/share/man/man1  one page for each command";
}

/// `gprxy login`
#[derive(Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,

    /// Show a code to enter in the browser of any device; chosen by itself over SSH and without a display
    #[arg(long, conflicts_with_all = ["client_credentials", "no_browser"])]
    pub(crate) device: bool,

    /// Log in as a machine, with client_secret or GPRXY_CLIENT_SECRET
    #[arg(long, conflicts_with = "no_browser")]
    pub(crate) client_credentials: bool,

    /// Print the URL instead of opening a browser
    #[arg(long)]
    pub(crate) no_browser: bool,

    /// Log in even if you are logged in already
    #[arg(long)]
    pub(crate) force: bool,

    /// Where the tokens are kept
    #[arg(long, value_name = "PLACE", value_enum)]
    pub(crate) store: Option<Place>,

    /// Give up after so many seconds [default: 300; with --device as long as the code counts]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: Option<u64>,

    /// Print who you are as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `gprxy status`
#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,

    /// Ask the proxy by connecting to this database [default: the profile's]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) database: Option<String>,

    /// Ask neither the provider nor the proxy
    #[arg(long, conflicts_with_all = ["database", "refresh"])]
    pub(crate) offline: bool,

    /// Renew the token now, to see that it works
    #[arg(long)]
    pub(crate) refresh: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `gprxy logout`
#[derive(Args)]
pub(crate) struct LogoutArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,
}

/// `gprxy token`
#[derive(Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,

    /// Print the token with its expiry as JSON
    #[arg(long, conflicts_with = "pgpass")]
    pub(crate) json: bool,

    /// Write it into the password file (~/.pgpass or PGPASSFILE) instead of printing it
    #[arg(long)]
    pub(crate) pgpass: bool,
}

/// `gprxy service`
#[derive(Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,

    /// The service's name [default: gprxy, or the profile's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Database to connect to [default: the profile's]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) database: Option<String>,

    /// Print the entry and write nothing
    #[arg(long)]
    pub(crate) print: bool,

    /// Replace an entry of that name that somebody else wrote
    #[arg(long)]
    pub(crate) force: bool,
}

/// `gprxy env`
#[derive(Args)]
pub(crate) struct EnvArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,

    /// Whose language to speak
    #[arg(long, value_name = "SHELL", value_enum, default_value_t)]
    pub(crate) shell: Shell,

    /// Database to connect to [default: the profile's]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) database: Option<String>,

    /// Also PGPASSWORD with a fresh token: every program started from that shell can read it
    #[arg(long)]
    pub(crate) with_token: bool,
}

/// Shells that set variables in different ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Shell {
    /// sh, bash, zsh, dash, ksh
    #[default]
    Sh,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
}

/// `gprxy connect`
#[derive(Args)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,

    /// Host of the database server, to choose among the profile's databases
    #[arg(short = 's', long = "host", value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Port of the database server, to choose among the profile's databases
    #[arg(short, long, value_name = "PORT", default_value_t = 5432)]
    pub(crate) port: u16,

    /// Database to connect to, by the name that the proxy knows [default: the profile's]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) database: Option<String>,

    /// How TLS to the proxy is verified: libpq's sslmode [default: verify-full]
    #[arg(long, value_name = "MODE")]
    pub(crate) sslmode: Option<String>,

    /// Arguments for psql
    #[arg(last = true, value_name = "PSQL ARGUMENTS")]
    pub(crate) psql: Vec<OsString>,
}

/// `gprxy psql`
#[derive(Args)]
pub(crate) struct PsqlArgs {
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,

    /// How TLS to the proxy is verified: libpq's sslmode [default: verify-full]
    #[arg(long, value_name = "MODE")]
    pub(crate) sslmode: Option<String>,

    /// Print help; `-h` is psql's own
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,

    /// Arguments for psql
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PSQL ARGUMENTS")]
    pub(crate) psql: Vec<OsString>,
}

/// `gprxy completions`
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// For this shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `gprxy man`
#[derive(Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

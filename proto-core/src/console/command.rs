//! What can be said at the console: PgBouncer's commands, and the small talk of drivers.

use super::courtesy::{self, Courtesy};
use super::refusals::{no_command, no_sql, not_now};
use super::words::{self, Word};
use crate::fault::Refusal;

/// A statement of the console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Shows something.
    Show(Show),
    /// Changes something: for admins.
    Verb(Verb),
    /// What drivers and tools say to every server, answered so that they go on.
    Courtesy(Courtesy),
}

macro_rules! shows {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What follows SHOW.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Show { $($(#[$doc])* $name,)* }

        impl Show {
            /// All of them, by their words.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$name),)*];
        }
    };
}

shows! {
    /// Sockets that are in use.
    ActiveSockets = "active_sockets",
    /// Client connections.
    Clients = "clients",
    /// Settings.
    Config = "config",
    /// Databases.
    Databases = "databases",
    /// Names that were looked up: kept by the system here.
    DnsHosts = "dns_hosts",
    /// The same for zones.
    DnsZones = "dns_zones",
    /// File descriptors: they are not handed to another process here.
    Fds = "fds",
    /// The commands.
    Help = "help",
    /// How many there are of what.
    Lists = "lists",
    /// Memory.
    Mem = "mem",
    /// Other processes that cancel requests are passed on to.
    Peers = "peers",
    /// The same for their pools.
    PeerPools = "peer_pools",
    /// Pools.
    Pools = "pools",
    /// Server connections.
    Servers = "servers",
    /// Both kinds of connections.
    Sockets = "sockets",
    /// Whether something is paused.
    State = "state",
    /// Totals and averages of each database.
    Stats = "stats",
    /// Averages of each database.
    StatsAverages = "stats_averages",
    /// Totals of each database.
    StatsTotals = "stats_totals",
    /// Totals and averages of all.
    Totals = "totals",
    /// Users.
    Users = "users",
    /// What this is.
    Version = "version",
}

impl Show {
    fn find(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|&(_, show)| show)
    }

    /// Whether only admins may see it.
    pub(super) const fn is_for_admins(self) -> bool {
        matches!(self, Self::Fds)
    }
}

/// How the process is to end, with PgBouncer's words behind `SHUTDOWN`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// At once.
    Now,
    /// When no client holds a server connection any more; nobody gets one meanwhile.
    WaitForServers,
    /// When the last client has left by itself; new ones are refused.
    WaitForClients,
}

/// The name of a database, or all of them.
pub type Which = Option<Box<str>>;

/// What changes something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verb {
    /// `SET key = value`.
    Set {
        /// The setting.
        key: Box<str>,
        /// What it is to be.
        value: Box<str>,
    },
    /// Reads the settings anew.
    Reload,
    /// Nobody gets a server connection any more; done when none is in use.
    Pause(Which),
    /// Ends a pause.
    Resume(Which),
    /// Clients of a database are refused.
    Disable(Box<str>),
    /// They are let in again.
    Enable(Box<str>),
    /// Server connections are opened anew.
    Reconnect(Which),
    /// Clients and server connections are ended, and the databases paused.
    Kill(Which),
    /// One client is ended.
    KillClient(Client),
    /// Done when server connections that are to be closed are.
    WaitClose(Which),
    /// Nothing is read any more; done when everything is written.
    Suspend,
    /// The process ends.
    Shutdown(Shutdown),
}

/// Which client: the `id` of SHOW CLIENTS, or its `session_id`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client(pub u64);

impl Verb {
    /// The command tag that says it is done.
    #[must_use]
    pub fn tag(&self) -> String {
        let word = match self {
            Self::Set { key, value } => return format!("SET {key}={value}"),
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::Reconnect(_) => "RECONNECT",
            Self::Kill(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::Suspend => "SUSPEND",
            Self::Shutdown(_) => "SHUTDOWN",
        };
        word.into()
    }
}

impl Command {
    /// Whether it is a SELECT that is answered out of courtesy.
    pub(super) fn is_select(&self) -> bool {
        matches!(self, Self::Courtesy(Courtesy::Row { tag, .. }) if tag.starts_with("SELECT"))
    }
}

/// Reads all statements of a text, with the text of each.
///
/// # Errors
/// 42601 for what is no command, 0A000 for SQL; a text is judged as a whole before any of it runs.
pub fn parse(text: &str) -> Result<Vec<(&str, Command)>, Refusal> {
    words::statements(text)?.into_iter().map(|(text, words)| Ok((text, command(text, &words)?))).collect()
}

fn command(text: &str, words: &[Word<'_>]) -> Result<Command, Refusal> {
    if let [first, what] = words
        && (first.is("show") || first.is("select"))
        && let Some(show) = what.name().and_then(Show::find)
    {
        return Ok(Command::Show(show));
    }
    if let Some(courtesy) = courtesy::recognise(words) {
        return Ok(Command::Courtesy(courtesy));
    }
    if let Some(verb) = verb(words)? {
        return Ok(Command::Verb(verb));
    }
    if courtesy::is_sql(&words[0]) { Err(no_sql(text)) } else { Err(no_command(text)) }
}

fn verb(words: &[Word<'_>]) -> Result<Option<Verb>, Refusal> {
    let [first, rest @ ..] = words else { return Ok(None) };
    if first.is("set") {
        return Ok(assignment(rest));
    }
    let argument = match rest {
        [] => None,
        [word] => match word.name() {
            Some(name) => Some(name),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let which = || argument.map(Into::into);
    let one = || argument.map(Into::into).ok_or_else(|| not_now("a database is required"));
    let Some(word) = first.name() else { return Ok(None) };
    Ok(Some(match &*word.to_ascii_lowercase() {
        "reload" if argument.is_none() => Verb::Reload,
        "pause" => Verb::Pause(which()),
        "resume" => Verb::Resume(which()),
        "disable" => Verb::Disable(one()?),
        "enable" => Verb::Enable(one()?),
        "reconnect" => Verb::Reconnect(which()),
        "kill" => Verb::Kill(which()),
        "kill_client" => {
            let client = argument.and_then(client).ok_or_else(|| not_now("invalid client pointer supplied"))?;
            Verb::KillClient(client)
        }
        "wait_close" => Verb::WaitClose(which()),
        "suspend" if argument.is_none() => Verb::Suspend,
        "shutdown" => match argument {
            None => Verb::Shutdown(Shutdown::Now),
            Some(how) if how.eq_ignore_ascii_case("wait_for_servers") => Verb::Shutdown(Shutdown::WaitForServers),
            Some(how) if how.eq_ignore_ascii_case("wait_for_clients") => Verb::Shutdown(Shutdown::WaitForClients),
            Some(_) => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

/// `key = value` or `key TO value`.
fn assignment(words: &[Word<'_>]) -> Option<Verb> {
    let [key, sign, value] = words else { return None };
    if *sign != Word::Sign('=') && !sign.is("to") {
        return None;
    }
    let key = key.name().filter(|key| !key.is_empty())?;
    Some(Verb::Set { key: key.to_ascii_lowercase().into(), value: value.value()?.into() })
}

/// A decimal number is the `id`, sixteen hexadecimal digits are the `session_id`.
fn client(word: &str) -> Option<Client> {
    let number = if word.len() == 16 { u64::from_str_radix(word, 16) } else { word.parse() };
    number.ok().map(Client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::SqlState;

    fn one(text: &str) -> Command {
        let mut all = parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal}"));
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0).1
    }

    #[test]
    fn every_show_has_its_word_in_any_case_and_with_a_semicolon() {
        for (word, show) in Show::ALL {
            assert_eq!(one(&format!("show {word}")), Command::Show(*show));
            assert_eq!(one(&format!("  SHOW\n{};  ", word.to_uppercase())), Command::Show(*show));
            // PgBouncer takes SELECT for SHOW.
            assert_eq!(one(&format!("SELECT {word}")), Command::Show(*show));
        }
    }

    #[test]
    fn verbs_take_the_arguments_that_pgbouncer_gives_them() {
        let all: Which = None;
        let app: Which = Some("app".into());
        let expected = [
            ("RELOAD", Verb::Reload),
            ("pause", Verb::Pause(all.clone())),
            ("PAUSE app;", Verb::Pause(app.clone())),
            ("PAUSE \"my \"\"db\"\"\"", Verb::Pause(Some("my \"db\"".into()))),
            ("RESUME", Verb::Resume(all.clone())),
            ("DISABLE app", Verb::Disable("app".into())),
            ("ENABLE app", Verb::Enable("app".into())),
            ("RECONNECT app", Verb::Reconnect(app.clone())),
            ("KILL", Verb::Kill(all)),
            ("KILL_CLIENT 17", Verb::KillClient(Client(17))),
            ("KILL_CLIENT c0ffee0000000001", Verb::KillClient(Client(0xc0ff_ee00_0000_0001))),
            ("WAIT_CLOSE app", Verb::WaitClose(app)),
            ("SUSPEND", Verb::Suspend),
            ("SHUTDOWN", Verb::Shutdown(Shutdown::Now)),
            ("shutdown wait_for_servers", Verb::Shutdown(Shutdown::WaitForServers)),
            ("SHUTDOWN WAIT_FOR_CLIENTS;", Verb::Shutdown(Shutdown::WaitForClients)),
            ("SET log_connections = 1;", Verb::Set { key: "log_connections".into(), value: "1".into() }),
            (
                "set Server_Check_Query='select 2'",
                Verb::Set { key: "server_check_query".into(), value: "select 2".into() },
            ),
            ("SET a TO \"b c\"", Verb::Set { key: "a".into(), value: "b c".into() }),
        ];
        for (text, verb) in expected {
            assert_eq!(one(text), Command::Verb(verb), "{text}");
        }
    }

    #[test]
    fn whatever_else_is_refused_with_the_code_for_it() {
        let code = |text: &str| parse(text).expect_err(text).code;
        for text in
            ["FOO", "SHOW", "SHOW nothing", "PAUSE a b", "RELOAD now", "SHUTDOWN WAIT_FOR_GODOT", "SET a", "= 1"]
        {
            assert_eq!(code(text), SqlState::SYNTAX_ERROR, "{text}");
        }
        for text in
            ["SELECT * FROM pg_class", "INSERT INTO a VALUES (1)", "COPY a FROM STDIN", "with x as (select 1) table x"]
        {
            assert_eq!(code(text), SqlState::FEATURE_NOT_SUPPORTED, "{text}");
        }
        // As PgBouncer does.
        for text in ["DISABLE", "KILL_CLIENT", "KILL_CLIENT everybody"] {
            assert_eq!(code(text), SqlState::PROTOCOL_VIOLATION, "{text}");
        }
    }

    #[test]
    fn a_text_with_a_mistake_in_it_does_nothing() {
        assert!(parse("RELOAD; FOO").is_err());
        let all = parse("PAUSE a; RESUME a").unwrap();
        assert_eq!(all.iter().map(|(text, _)| *text).collect::<Vec<_>>(), ["PAUSE a", "RESUME a"]);
        assert!(parse(" -- nothing").unwrap().is_empty());
    }

    #[test]
    fn tags_are_pgbouncers() {
        assert_eq!(Verb::KillClient(Client(1)).tag(), "KILL_CLIENT");
        assert_eq!(Verb::Set { key: "a".into(), value: "b".into() }.tag(), "SET a=b");
    }
}

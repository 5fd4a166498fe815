//! Small talk: what drivers and tools say to every server before and between what their user wants.
//!
//! It has no effect on gprxy. It is answered in the form that PostgreSQL would give the answer, so that a driver that
//! begins a transaction, sets its encoding or asks for the version goes on and comes to the command.

use super::table::{Column, Kind, Value};
use super::words::Word;

/// What the console says to be where a driver decides by the version. The dialect of PostgreSQL 18, by gprxy.
pub const SERVER_VERSION: &str = concat!("18.0 (gprxy ", env!("CARGO_PKG_VERSION"), ")");

/// What is reported at the login, and shown by SHOW.
pub(super) const PARAMETERS: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("IntervalStyle", "postgres"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "off"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
];

/// What is shown besides.
const SHOWN: &[(&str, &str)] = &[
    ("default_transaction_isolation", "read committed"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "off"),
    ("search_path", "public"),
    ("max_identifier_length", "63"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("statement_timeout", "0"),
    ("server_version_num", "180000"),
];

/// What drivers set for their sessions and what means nothing here. No setting of gprxy has one of these names.
const SET_IN_VAIN: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "escape_string_warning",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "names",
    "row_security",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
    "time",
    "timezone",
    "transaction",
    "transaction_isolation",
    "transaction_read_only",
    "xmloption",
];

/// Words that begin a statement of SQL.
const SQL: &[&str] = &[
    "alter",
    "analyze",
    "call",
    "checkpoint",
    "cluster",
    "comment",
    "copy",
    "create",
    "declare",
    "delete",
    "do",
    "drop",
    "execute",
    "explain",
    "fetch",
    "grant",
    "import",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "move",
    "notify",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "revoke",
    "security",
    "select",
    "table",
    "truncate",
    "update",
    "vacuum",
    "values",
    "with",
];

/// Something that is answered and has no effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Courtesy {
    /// A transaction block begins.
    Begin,
    /// It ends; `false`: it is rolled back.
    End(bool),
    /// Its command tag.
    Done(&'static str),
    /// The same, and the person is told that nothing has changed.
    InVain(&'static str),
    /// Prepared statements are forgotten: one or all.
    Deallocate(Option<Box<str>>),
    /// The same for all of a session.
    DiscardAll,
    /// One row.
    Row {
        /// Its command tag.
        tag: &'static str,
        /// Names and values.
        items: Vec<(Box<str>, Given)>,
    },
}

/// A value that is given without anything being looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Given {
    /// A text.
    Text(Box<str>),
    /// A number.
    Number(i32),
    /// Nothing.
    Null,
    /// The user of the startup packet.
    User,
    /// The database of the startup packet.
    Database,
    /// The process id of the session's cancel key.
    Pid,
}

impl Given {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Number(_) | Self::Pid => Kind::Int4,
            Self::Text(_) | Self::Null | Self::User | Self::Database => Kind::Text,
        }
    }
}

/// Who talks.
#[derive(Clone, Copy)]
pub(super) struct Speaker<'a> {
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    pub(super) pid: u32,
}

impl Courtesy {
    /// The columns of its answer, if it has rows.
    pub(super) fn columns(&self) -> Option<Vec<Column>> {
        let Self::Row { items, .. } = self else { return None };
        Some(items.iter().map(|(name, given)| Column { name: name.to_string().into(), kind: given.kind() }).collect())
    }

    /// The row of its answer.
    pub(super) fn row(&self, speaker: Speaker<'_>) -> Vec<Value> {
        let Self::Row { items, .. } = self else { return Vec::new() };
        let value = |given: &Given| match given {
            Given::Text(text) => Value::text(&**text),
            Given::Number(number) => Value::Int(i64::from(*number)),
            Given::Null => Value::Null,
            Given::User => Value::text(speaker.user),
            Given::Database => Value::text(speaker.database),
            Given::Pid => Value::Int(i64::from(speaker.pid.cast_signed())),
        };
        items.iter().map(|(_, given)| value(given)).collect()
    }
}

/// Whether a word begins a statement of SQL.
pub(super) fn is_sql(word: &Word<'_>) -> bool {
    matches!(word, Word::Bare(word) if SQL.iter().any(|sql| sql.eq_ignore_ascii_case(word)))
}

/// The courtesy that these words are, if they are one.
pub(super) fn recognise(words: &[Word<'_>]) -> Option<Courtesy> {
    let [Word::Bare(first), rest @ ..] = words else { return None };
    Some(match &*first.to_ascii_lowercase() {
        "begin" => Courtesy::Begin,
        "start" if rest.first()?.is("transaction") => Courtesy::Begin,
        "commit" | "end" => Courtesy::End(true),
        "rollback" if rest.iter().any(|word| word.is("to")) => Courtesy::Done("ROLLBACK"),
        "rollback" | "abort" => Courtesy::End(false),
        "savepoint" if rest.len() == 1 => Courtesy::Done("SAVEPOINT"),
        "release" if !rest.is_empty() => Courtesy::Done("RELEASE"),
        "reset" if rest.len() == 1 => Courtesy::Done("RESET"),
        "close" if rest.len() == 1 && rest[0].is("all") => Courtesy::Done("CLOSE CURSOR ALL"),
        "unlisten" if rest.len() == 1 => Courtesy::Done("UNLISTEN"),
        "discard" if rest.len() == 1 && rest[0].is("all") => Courtesy::DiscardAll,
        "deallocate" => deallocate(rest)?,
        "show" => show(rest)?,
        "select" => Courtesy::Row { tag: "SELECT 1", items: select(rest)? },
        "set" => set(rest)?,
        _ => return None,
    })
}

fn deallocate(words: &[Word<'_>]) -> Option<Courtesy> {
    match words {
        [all] | [_, all] if all.is("all") => Some(Courtesy::Deallocate(None)),
        [name] => Some(Courtesy::Deallocate(Some(name.name()?.into()))),
        [prepare, name] if prepare.is("prepare") => Some(Courtesy::Deallocate(Some(name.name()?.into()))),
        _ => None,
    }
}

fn set(words: &[Word<'_>]) -> Option<Courtesy> {
    let scoped = words.first()?.is("session") || words[0].is("local");
    let words = if scoped { &words[1..] } else { words };
    let key = words.first()?.name()?;
    let in_vain = SET_IN_VAIN.iter().any(|known| known.eq_ignore_ascii_case(key));
    (words.len() > 1 && (in_vain || scoped && key.eq_ignore_ascii_case("characteristics")))
        .then_some(Courtesy::InVain("SET"))
}

fn show(words: &[Word<'_>]) -> Option<Courtesy> {
    let name = match words {
        [name] => name.name()?,
        [a, b, c] if a.is("transaction") && b.is("isolation") && c.is("level") => "transaction_isolation",
        [a, b] if a.is("time") && b.is("zone") => "timezone",
        _ => return None,
    };
    let (name, value) = parameter(name)?;
    Some(Courtesy::Row { tag: "SHOW", items: vec![(name.into(), Given::Text(value.into()))] })
}

fn parameter(name: &str) -> Option<(&'static str, &'static str)> {
    PARAMETERS.iter().chain(SHOWN).find(|(known, _)| known.eq_ignore_ascii_case(name)).copied()
}

/// A list of constants and of the few functions that say who and where somebody is.
fn select(words: &[Word<'_>]) -> Option<Vec<(Box<str>, Given)>> {
    words.split(|word| *word == Word::Sign(',')).map(item).collect()
}

fn item(words: &[Word<'_>]) -> Option<(Box<str>, Given)> {
    let (words, alias) = match words {
        [expression @ .., keyword, alias] if keyword.is("as") => (expression, Some(alias.name()?)),
        words => (words, None),
    };
    let (name, given) = match words {
        [Word::Text(text)] => ("?column?", Given::Text((&**text).into())),
        [Word::Bare(word)] => match word.parse() {
            Ok(number) => ("?column?", Given::Number(number)),
            Err(_) => bare(word)?,
        },
        [Word::Bare(function), Word::Sign('('), Word::Sign(')')] => call(function)?,
        [Word::Bare(function), Word::Sign('('), Word::Text(argument), Word::Sign(')')]
            if plain(function).eq_ignore_ascii_case("current_setting") =>
        {
            ("current_setting", Given::Text(parameter(argument)?.1.into()))
        }
        _ => return None,
    };
    Some((alias.unwrap_or(name).into(), given))
}

fn bare(word: &str) -> Option<(&'static str, Given)> {
    Some(match &*word.to_ascii_lowercase() {
        "current_user" => ("current_user", Given::User),
        "session_user" => ("session_user", Given::User),
        "user" => ("user", Given::User),
        "current_role" => ("current_role", Given::User),
        "current_catalog" => ("current_catalog", Given::Database),
        "current_schema" => ("current_schema", Given::Text("public".into())),
        "null" => ("?column?", Given::Null),
        _ => return None,
    })
}

fn call(function: &str) -> Option<(&'static str, Given)> {
    Some(match &*plain(function).to_ascii_lowercase() {
        "version" => ("version", Given::Text(format!("PostgreSQL {SERVER_VERSION}, admin console").into())),
        "current_database" => ("current_database", Given::Database),
        "current_schema" => ("current_schema", Given::Text("public".into())),
        "pg_backend_pid" => ("pg_backend_pid", Given::Pid),
        "pg_is_in_recovery" => ("pg_is_in_recovery", Given::Text("f".into())),
        "pg_advisory_unlock_all" => ("pg_advisory_unlock_all", Given::Text("".into())),
        _ => return None,
    })
}

fn plain(function: &str) -> &str {
    match function.split_once('.') {
        Some((schema, name)) if schema.eq_ignore_ascii_case("pg_catalog") => name,
        _ => function,
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::{Command, Verb, parse};
    use super::*;

    fn one(text: &str) -> Courtesy {
        match parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal}")).remove(0).1 {
            Command::Courtesy(courtesy) => courtesy,
            other => panic!("{text} is {other:?}"),
        }
    }

    fn said(text: &str) -> Vec<(String, Value)> {
        let courtesy = one(text);
        let row = courtesy.row(Speaker { user: "ann", database: "pgbouncer", pid: 7 });
        let columns = courtesy.columns().unwrap();
        columns.into_iter().map(|column| column.name.into_owned()).zip(row).collect()
    }

    #[test]
    fn what_drivers_say_around_a_command_is_understood() {
        for text in ["BEGIN", "begin isolation level serializable", "START TRANSACTION READ ONLY"] {
            assert_eq!(one(text), Courtesy::Begin, "{text}");
        }
        assert_eq!(one("COMMIT;"), Courtesy::End(true));
        assert_eq!(one("ROLLBACK AND NO CHAIN"), Courtesy::End(false));
        assert_eq!(one("ROLLBACK TO SAVEPOINT a"), Courtesy::Done("ROLLBACK"));
        assert_eq!(one("DISCARD ALL"), Courtesy::DiscardAll);
        assert_eq!(one("DEALLOCATE PREPARE ALL"), Courtesy::Deallocate(None));
        assert_eq!(one("deallocate \"S_1\""), Courtesy::Deallocate(Some("S_1".into())));
        // asyncpg, when a connection goes back to its pool.
        let all = parse("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;").unwrap();
        assert!(all.len() == 4 && all.iter().all(|(_, command)| matches!(command, Command::Courtesy(_))));
    }

    #[test]
    fn settings_of_a_client_are_not_settings_of_gprxy() {
        for text in [
            "SET client_encoding TO 'UTF8'",
            "SET extra_float_digits = 3",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "set session timezone to 'UTC'",
            "SET NAMES 'utf8'",
            "SET TIME ZONE 'UTC'",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET search_path TO a, b",
        ] {
            assert_eq!(one(text), Courtesy::InVain("SET"), "{text}");
        }
        let verb = parse("SET server_lifetime = 60").unwrap().remove(0).1;
        assert!(matches!(verb, Command::Verb(Verb::Set { .. })));
    }

    #[test]
    fn who_and_where_somebody_is_can_be_asked() {
        assert_eq!(said("SELECT 1"), [("?column?".into(), Value::Int(1))]);
        assert_eq!(said("select 'a' as b, NULL"), [("b".into(), Value::text("a")), ("?column?".into(), Value::Null)]);
        assert_eq!(
            said("SELECT current_user, pg_catalog.current_database(), pg_backend_pid()"),
            [
                ("current_user".into(), Value::text("ann")),
                ("current_database".into(), Value::text("pgbouncer")),
                ("pg_backend_pid".into(), Value::Int(7)),
            ]
        );
        assert_eq!(
            said("SHOW TRANSACTION ISOLATION LEVEL"),
            [("transaction_isolation".into(), Value::text("read committed"))]
        );
        assert_eq!(said("show Server_Version")[0].1, Value::text(SERVER_VERSION));
        assert!(parse("SELECT 1 FROM a").is_err() && parse("SELECT f(1)").is_err() && parse("SELECT").is_err());
    }
}

//! Arguments of psql that name a server. The server is the proxy: somebody who types `-h` out of habit would send their
//! token to another one.

use std::ffi::OsString;

/// psql's short options that take a value.
const WITH_VALUE: &str = "cdfFhLoPpRTUv";
/// psql's long options that take a value and matter here, or could be taken for a database name when their value is the
/// next word.
const LONG_WITH_VALUE: [&str; 13] = [
    "command",
    "dbname",
    "file",
    "field-separator",
    "host",
    "log-file",
    "output",
    "port",
    "pset",
    "record-separator",
    "table-attr",
    "username",
    "variable",
];

/// The argument that names a server, if there is one.
pub(super) fn named_server(args: &[OsString]) -> Option<String> {
    let mut words = args.iter().map(|word| word.to_string_lossy().into_owned());
    let mut has_database = false;
    while let Some(word) = words.next() {
        if word == "--" {
            // psql takes the first of what is left as the database.
            return words.next().filter(|database| !has_database && names_server(database));
        }
        let (option, value) = if let Some(long) = word.strip_prefix("--") {
            long_option(long, &mut words)
        } else if word.len() > 1 && word.starts_with('-') {
            short_options(&word[1..], &mut words)
        } else if has_database {
            continue; // The second bare word is the user.
        } else {
            (Some('d'), Some(word.clone()))
        };
        match (option, value) {
            (Some('h' | 'p'), _) => return Some(word),
            (Some('d'), value) => {
                has_database = true;
                if value.is_some_and(|database| names_server(&database)) {
                    return Some(word);
                }
            }
            _ => {}
        }
    }
    None
}

/// A long option as its short letter, with its value. getopt_long accepts any unambiguous beginning of a name.
fn long_option(long: &str, rest: &mut impl Iterator<Item = String>) -> (Option<char>, Option<String>) {
    let (name, value) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (long, None),
    };
    let Some(full) = LONG_WITH_VALUE.into_iter().find(|full| name.len() > 1 && full.starts_with(name)) else {
        return (None, None);
    };
    let value = value.or_else(|| rest.next());
    let letter = match full {
        "host" => Some('h'),
        "port" => Some('p'),
        "dbname" => Some('d'),
        _ => None,
    };
    (letter, value)
}

/// The last of a cluster of short options, with its value: `-Xqd app`, `-Xqdapp`.
fn short_options(cluster: &str, rest: &mut impl Iterator<Item = String>) -> (Option<char>, Option<String>) {
    let Some(at) = cluster.find(|c| WITH_VALUE.contains(c)) else { return (None, None) };
    let mut tail = cluster[at..].chars();
    let letter = tail.next();
    let attached = tail.as_str();
    let value = if attached.is_empty() { rest.next() } else { Some(attached.to_owned()) };
    (letter, value)
}

/// Whether a database is a connection string that says where (PostgreSQL manual, section 34.1.1).
fn names_server(database: &str) -> bool {
    const KEYS: [&str; 4] = ["host", "hostaddr", "port", "service"];
    let uri = ["postgresql://", "postgres://"].into_iter().find_map(|scheme| database.strip_prefix(scheme));
    if let Some(rest) = uri {
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = address.split('/').next().unwrap_or_default();
        let server = authority.rsplit('@').next().unwrap_or_default();
        let in_query = url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| KEYS.contains(&&*name));
        return !server.is_empty() || in_query;
    }
    // A key stands at the beginning or behind white space or a quoted value, and white space may follow it.
    database.match_indices('=').any(|(at, _)| {
        let before = database[..at].trim_end();
        let start = before.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map_or(0, |end| end + 1);
        before.is_char_boundary(start) && KEYS.contains(&&before[start..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Option<String> {
        let args: Vec<OsString> = line.split('|').map(Into::into).collect();
        named_server(&args)
    }

    #[test]
    fn everything_that_names_a_server_is_seen() {
        for line in [
            "-h|db",
            "-hdb",
            "-Xqh|db",
            "-p|5432",
            "-p5432",
            "--host|db",
            "--host=db",
            "--hos=db",
            "--port=1",
            "--po|1",
            "-d|host=db dbname=x",
            "--dbname=dbname=x host=db",
            "--dbn|port = 5432",
            "host=db",
            "dbname='a' hostaddr=1.2.3.4",
            "service=prod",
            "postgresql://db/x",
            "postgres://alice@db:5432/x",
            "postgres:///x?host=db",
            "postgresql:///?po%72t=1",
            "-c|select 1|host=db",
            "--|host=db",
            "-X|-d|x|-h|db",
            "dbname='x'host=db",
        ] {
            assert!(named(line).is_some(), "{line}");
        }
    }

    #[test]
    fn everything_else_is_psqls() {
        for line in [
            "",
            "-d|app",
            "-dapp",
            "app",
            "app|alice",
            "-c|select 'host=x'",
            "-chost=x",
            "--command=select 1 as port",
            "-v|host=x",
            "-vport=1",
            "--set=x=1",
            "-f|-h",
            "-o|host=x",
            "--file|host=y",
            "-Xqc|select 1",
            "-P|format=csv",
            "--csv",
            "--html",
            "--help",
            "-d|dbname=app sslmode=require",
            "postgresql:///app",
            "postgresql://alice@/app?application_name=x",
            "app|host=x",
            "-d|app|host=x",
            "--pset|border=1",
            "-d|myhost=1",
        ] {
            assert_eq!(named(line), None, "{line}");
        }
    }
}

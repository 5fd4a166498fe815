//! What becomes of a startup packet's parameters before they go to a server: `ignore_startup_parameters` and
//! `application_name_add_host`.

use crate::codec::startup;
use crate::policy::StartupRules;
use crate::preamble::Startup;

/// The longest name that PostgreSQL keeps (`NAMEDATALEN - 1`).
const MAX_NAME: usize = 63;
/// What follows a client when everything else in its `options` is ignored, as with PgBouncer.
const KNOWN: [&[u8]; 6] = [
    b"client_encoding",
    b"datestyle",
    b"timezone",
    b"standard_conforming_strings",
    b"application_name",
    b"intervalstyle",
];

/// Keeps a client's wishes to what the rules allow.
pub(super) fn apply(startup: &mut Startup, rules: &StartupRules, address: &str) {
    if rules.ignore.is_empty() && !rules.add_host {
        return;
    }
    let is_ignored = |name: &[u8]| rules.ignore.iter().any(|ignored| same_name(ignored.as_bytes(), name));
    let all_options = is_ignored(b"options");
    let mut kept = Vec::with_capacity(startup.parameters.len());
    let mut application = None;
    for (name, value) in startup::encoded(&startup.parameters) {
        if name == b"options" {
            let is_dropped = |setting: &[u8]| {
                let is_known = KNOWN.iter().any(|known| same_name(known, setting));
                is_ignored(setting) || all_options && !is_known
            };
            match without(value, is_dropped) {
                Some(left) if left.is_empty() => {}
                Some(left) => push(&mut kept, name, &left),
                // Other switches: the server says what it makes of them.
                None if !all_options => push(&mut kept, name, value),
                None => {}
            }
        } else if name == b"application_name" {
            application = startup.application.clone().filter(|_| !is_ignored(name));
        } else if !is_ignored(name) {
            push(&mut kept, name, value);
        }
    }
    if rules.add_host {
        let mut named = format!("{} - {address}", application.as_deref().unwrap_or("app"));
        let end = (0..=MAX_NAME.min(named.len())).rev().find(|&at| named.is_char_boundary(at)).unwrap_or(0);
        named.truncate(end);
        application = Some(named.into());
    }
    if let Some(application) = &application {
        push(&mut kept, b"application_name", application.as_bytes());
    }
    startup.application = application;
    startup.parameters = kept.into();
}

fn push(parameters: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, value] {
        parameters.extend_from_slice(part);
        parameters.push(0);
    }
}

/// Names of settings, in which PostgreSQL takes `-` for `_` on a command line, and any letter case.
fn same_name(known: &[u8], name: &[u8]) -> bool {
    let folded = |byte: &u8| if *byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    known.iter().map(folded).eq(name.iter().map(folded))
}

/// The settings in `options` without those that are dropped; `None` when there is anything else.
fn without(options: &[u8], is_dropped: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut left = Vec::new();
    for setting in startup::option_settings(options)? {
        let name = &setting[..memchr::memchr(b'=', setting)?];
        if !is_dropped(name) {
            left.extend_from_slice(if left.is_empty() { b"-c " } else { b" -c " });
            left.extend_from_slice(setting);
        }
    }
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::startup::PROTOCOL_3_0;

    fn applied(pairs: &[(&str, &str)], ignore: &[&str], add_host: bool) -> (String, Option<String>) {
        let mut parameters = Vec::new();
        for (name, value) in pairs {
            push(&mut parameters, name.as_bytes(), value.as_bytes());
        }
        let application = pairs.iter().find(|(name, _)| *name == "application_name").map(|(_, value)| (*value).into());
        let mut startup = Startup {
            version: PROTOCOL_3_0,
            negotiate: None,
            user: "alice".into(),
            database: "app".into(),
            application,
            parameters: parameters.into(),
        };
        let ignore = ignore.iter().map(|&name| name.to_owned()).collect();
        let rules = StartupRules { ignore, add_host, ..StartupRules::default() };
        apply(&mut startup, &rules, "192.0.2.7:50000");
        let text = String::from_utf8(startup.parameters.to_vec()).unwrap();
        (text.replace('\0', "|"), startup.application.map(|name| name.to_string()))
    }

    #[test]
    fn ignored_parameters_go_no_further() {
        let pairs = [("TimeZone", "UTC"), ("Extra_Float_Digits", "3"), ("application_name", "psql")];
        assert_eq!(applied(&pairs, &[], false).0, "TimeZone|UTC|Extra_Float_Digits|3|application_name|psql|");
        let (left, name) = applied(&pairs, &["extra_float_digits", "application_name"], false);
        assert_eq!((left.as_str(), name), ("TimeZone|UTC|", None));
    }

    #[test]
    fn settings_inside_of_options_are_parameters_too() {
        let left = |options: &str, ignore: &[&str]| applied(&[("options", options)], ignore, false).0;
        let options = r"-c geqo=off --statement-timeout=5min -csearch_path=a\ b -c timezone=UTC";
        assert_eq!(left(options, &["geqo", "statement_timeout"]), r"options|-c search_path=a\ b -c timezone=UTC|");
        assert_eq!(left("-c geqo=off", &["geqo"]), "");
        assert_eq!(left(options, &["options"]), "options|-c timezone=UTC|", "what follows a client by itself");
        for other in ["-B 5", "-c", "-c geqo", "geqo=off"] {
            assert_eq!(left(other, &["geqo"]), format!("options|{other}|"), "the server's to judge");
            assert_eq!(left(other, &["options"]), "");
        }
    }

    #[test]
    fn the_address_stands_behind_the_name() {
        let name = |pairs: &[(&str, &str)]| applied(pairs, &[], true);
        assert_eq!(name(&[]), ("application_name|app - 192.0.2.7:50000|".into(), Some("app - 192.0.2.7:50000".into())));
        assert_eq!(name(&[("application_name", "psql")]).1.unwrap(), "psql - 192.0.2.7:50000");
        let long = "é".repeat(40);
        let (_, Some(named)) = name(&[("application_name", &long)]) else { panic!("a name") };
        assert_eq!(named, "é".repeat(31), "as long as PostgreSQL keeps it");
    }
}

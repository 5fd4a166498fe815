//! Startup parameters behind a login: the query that has their effect on a connection that was opened without them.

use std::sync::Arc;

use crate::codec::startup::{encoded, option_settings};

/// The longest query that is made. Who asks for more gets a login.
const MAX_QUERY: usize = 8 * 1024;

/// What may be set behind a login: it decides how values look and in which language, and how long a plan takes to make.
/// What a `RESET` of the client's leads to while it keeps a bare connection is the server's value, so nothing is among these
/// that protects anybody (a timeout, a role, a `search_path`), that could fail the check behind a reset, or that acts at a
/// login alone (libraries).
const HARMLESS: [&[u8]; 12] = [
    b"bytea_output",
    b"client_encoding",
    b"client_min_messages",
    b"datestyle",
    b"extra_float_digits",
    b"geqo",
    b"intervalstyle",
    b"jit",
    b"lc_monetary",
    b"lc_numeric",
    b"lc_time",
    b"timezone",
];

/// The query that has the effect of these encoded startup parameters, empty for none; `None` where only a login can have
/// it, or should.
///
/// `set_config` reads a value as the server reads one in a startup packet (a `search_path` is a list), and settings inside
/// of `options` come before the others, as there.
#[must_use]
pub fn startup_query(parameters: &[u8]) -> Option<Arc<str>> {
    let mut settings = Vec::new();
    let mut options = encoded(parameters).filter(|(name, _)| *name == b"options");
    if let Some((_, first)) = options.next() {
        settings_in(first, &mut settings)?;
    }
    if options.next().is_some() {
        // PostgreSQL takes one of them.
        return None;
    }
    let others = encoded(parameters).filter(|(name, _)| *name != b"options");
    settings.extend(others.map(|(name, value)| (name.to_vec(), value.to_vec())));
    let mut query = String::new();
    for (name, value) in settings {
        if !HARMLESS.iter().any(|harmless| harmless.eq_ignore_ascii_case(&name)) {
            return None;
        }
        query.push_str(if query.is_empty() { "SELECT " } else { ", " });
        query.push_str("pg_catalog.set_config(");
        emit_literal(&name, &mut query)?;
        query.push_str(", ");
        emit_literal(&value, &mut query)?;
        query.push_str(", false)");
        if query.len() > MAX_QUERY {
            return None;
        }
    }
    Some(query.into())
}

/// Name and value of each setting inside of `options`; `None` when there is anything else.
fn settings_in(options: &[u8], settings: &mut Vec<(Vec<u8>, Vec<u8>)>) -> Option<()> {
    for setting in option_settings(options)? {
        let setting = unescaped(setting);
        let at = memchr::memchr(b'=', &setting)?;
        // On a command line PostgreSQL takes `-` for `_`.
        let name = setting[..at].iter().map(|&byte| if byte == b'-' { b'_' } else { byte });
        settings.push((name.collect(), setting[at + 1..].to_vec()));
    }
    Some(())
}

/// A backslash takes the byte behind it as it is.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut bytes = word.iter();
    let mut plain = Vec::with_capacity(word.len());
    while let Some(&byte) = bytes.next() {
        plain.extend(if byte == b'\\' { bytes.next().copied() } else { Some(byte) });
    }
    plain
}

/// As a string that means the same whatever `standard_conforming_strings` is. ASCII alone means the same in every encoding.
fn emit_literal(text: &[u8], query: &mut String) -> Option<()> {
    query.push_str("E'");
    for &byte in text {
        match byte {
            b'\'' | b'\\' => query.extend([char::from(byte), char::from(byte)]),
            1..=0x7f => query.push(char::from(byte)),
            _ => return None,
        }
    }
    query.push('\'');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Option<String> {
        let encoded: Vec<u8> =
            pairs.iter().flat_map(|(name, value)| format!("{name}\0{value}\0").into_bytes()).collect();
        startup_query(&encoded).map(|query| query.to_string())
    }

    #[test]
    fn every_parameter_is_set_as_a_login_would() {
        assert_eq!(query(&[]).as_deref(), Some(""));
        assert_eq!(
            query(&[("DateStyle", "ISO"), ("TimeZone", "o'clock \\")]).as_deref(),
            Some(
                "SELECT pg_catalog.set_config(E'DateStyle', E'ISO', false), \
                 pg_catalog.set_config(E'TimeZone', E'o\'\'clock \\\\', false)"
            )
        );
    }

    #[test]
    fn settings_inside_of_options_come_first() {
        let options = r"-c geqo=off --extra-float-digits=3 -cTimeZone=a\ b\\c";
        assert_eq!(
            query(&[("geqo", "on"), ("options", options)]).as_deref(),
            Some(
                r"SELECT pg_catalog.set_config(E'geqo', E'off', false), pg_catalog.set_config(E'extra_float_digits', E'3', false), pg_catalog.set_config(E'TimeZone', E'a b\\c', false), pg_catalog.set_config(E'geqo', E'on', false)"
            )
        );
    }

    #[test]
    fn what_only_a_login_should_give_is_left_to_it() {
        for options in ["-B 100", "-c", "-c geqo", "geqo=off", "--geqo", "-c jit=off -e", "-c statement_timeout=5s"] {
            assert_eq!(query(&[("options", options)]), None, "{options}");
        }
        for name in
            ["search_path", "role", "local_preload_libraries", "default_transaction_isolation", "my.own", "seed"]
        {
            assert_eq!(query(&[(name, "x")]), None, "{name}");
        }
        assert_eq!(query(&[("TimeZone", "caf\u{e9}")]), None);
        assert_eq!(query(&[("TimeZone", &"x".repeat(9000))]), None);
        assert_eq!(query(&[("options", "-c jit=off"), ("options", "-c geqo=off")]), None, "which one counts?");
        assert_eq!(query(&[("options", "-c jit=off\u{b}-c geqo=off")]).unwrap().matches("set_config").count(), 2);
    }
}

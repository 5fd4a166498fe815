//! `docs/configuration.md` and the example agree with the schema.

use super::Case;
use crate::config::schema::{Form, SECTIONS, env};

const MANUAL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md"));
const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gprxy.example.toml"));

/// The chapter of a section: from its heading to the next one.
fn chapter(heading: &str) -> &'static str {
    let start = MANUAL.find(heading).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let rest = &MANUAL[start + heading.len()..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

#[test]
fn every_setting_stands_in_the_manual_with_its_names_and_its_default() {
    for section in SECTIONS {
        let brackets = format!("`{}`", section.header());
        let text = chapter(&format!("\n## {brackets}"));
        for key in section.keys {
            let env = key.env.map_or("–".to_owned(), |name| format!("`{name}`"));
            let row = format!("| `{}` | {env} | ", key.name);
            let line = text.lines().find(|line| line.starts_with(&row));
            let line = line.unwrap_or_else(|| panic!("{brackets} has no row that begins with {row:?}"));
            let default = line[row.len()..].split(" | ").next().unwrap();
            match key.default {
                "" => assert!(
                    !default.contains('`') || ["[pool]", "[server]"].iter().any(|home| default.contains(home)),
                    "{line}"
                ),
                known => assert_eq!(default.trim_matches('`'), known, "{line}"),
            }
            if let Some(alias) = key.alias {
                assert!(line.contains(&format!("`{alias}`")), "{line} does not name {alias}");
            }
        }
        let rows = text.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, section.keys.len(), "{brackets} tells of settings that do not exist");
    }
    for name in [env::CONFIG, env::ROLE_MAPPING, env::USER, env::PASS, "RUST_LOG"] {
        assert!(MANUAL.contains(&format!("`{name}")), "{name}");
    }
}

/// The settings of the example that stand behind `#`, made real: the paths replaced by ones that exist.
fn uncommented() -> String {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        // "#key = value" is a setting, "# words" is a comment.
        let setting =
            line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
        text.push_str(setting.unwrap_or(line));
        text.push('\n');
    }
    text
}

#[test]
fn the_example_loads_as_it_stands() {
    let case = Case::file(EXAMPLE).env(&[("READER_PASSWORD", "x"), ("WRITER_PASSWORD", "y"), ("APP_PASSWORD", "z")]);
    assert_eq!(case.problems(), [""; 0]);
}

#[test]
fn the_example_shows_every_setting_with_its_default() {
    let case = Case::empty();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let cert = case.write("server.pem", &made.cert.pem()).display().to_string();
    let key = case.write("server.key", &made.signing_key.serialize_pem()).display().to_string();
    let dir = case.dir.path().display().to_string();
    let text = uncommented()
        .replace("/etc/gprxy/server.pem", &cert)
        .replace("/etc/gprxy/ca.pem", &cert)
        .replace("/etc/gprxy/server.key", &key)
        .replace("/var/log/gprxy", &dir)
        .replace("/run/gprxy", &dir);
    let table: toml::Table = text.parse().unwrap();
    let case = case.with_file(&text).env(&[("READER_PASSWORD", "x"), ("WRITER_PASSWORD", "y"), ("APP_PASSWORD", "z")]);
    assert_eq!(case.problems(), [""; 0]);
    for section in SECTIONS {
        let shown: Vec<&toml::Table> = match &table[section.name] {
            toml::Value::Array(items) => items.iter().filter_map(toml::Value::as_table).collect(),
            toml::Value::Table(tables) if section.form == Form::Named => {
                tables.values().filter_map(toml::Value::as_table).collect()
            }
            other => other.as_table().into_iter().collect(),
        };
        for key in section.keys {
            let found = shown.iter().any(|table| table.contains_key(key.name));
            assert!(found, "the example does not show {} of {}", key.name, section.name);
        }
    }
}

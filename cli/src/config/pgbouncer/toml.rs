//! `gprxy convert`: what PgBouncer's configuration comes to, as a settings file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::super::document::Value;
use super::super::draft::{Draft, toml_string};
use super::super::problem::{Origin, Problem};
use super::super::reader::Entry;
use super::super::schema::{self, Key, Section};
use crate::logging::one_line;

/// A settings file, or everything that is wrong.
pub(crate) struct Converted {
    /// TOML. Passwords are variables in it.
    pub(crate) text: String,
    /// The variables, and what each of them is for.
    pub(crate) secrets: Vec<(String, String)>,
    /// What somebody should decide who goes on from here, one line each. Also in the text.
    pub(crate) remarks: Vec<&'static str>,
    /// What could not be carried over.
    pub(crate) problems: Vec<Problem>,
}

/// Why `allow_plaintext` is wider than it is without PgBouncer's file.
const PLAINTEXT: &str = "allow_plaintext = \"always\", as with PgBouncer: where the password or token itself is asked for \
     (auth_type \"plain\" or \"oidc\"), it may travel unencrypted, from anywhere. Set \"loopback\" or \"never\" \
     when every client has TLS, at the latest with tokens.";

/// Reads PgBouncer's configuration and writes it as TOML, with comments on what could not be carried over.
pub(crate) fn convert(path: &Path) -> Converted {
    let mut draft = Draft::default();
    let merged = super::read(path, &BTreeMap::new(), &mut draft);
    let mut writer = Writer { text: String::new(), secrets: Vec::new(), remarks: Vec::new(), must_encrypt: false };
    let _ = writeln!(writer.text, "# From {}, by `gprxy convert`.", one_line(&path.display().to_string()));
    for warning in &draft.warnings {
        let _ = writeln!(writer.text, "# {}", one_line(warning));
    }
    for problem in &draft.problems {
        let _ = writeln!(writer.text, "# ERROR {problem}");
    }
    if let Some(mut merged) = merged {
        writer.must_encrypt = merged.tls.text("required") == Some("true");
        for section in schema::SECTIONS {
            match section.name {
                "role" => {
                    for role in &merged.roles {
                        writer.table(section, "[[role]]", role, "USER", role.text("name").unwrap_or_default());
                    }
                }
                "databases" => {
                    for (name, database) in &merged.databases {
                        let header = format!("[databases.{}]", toml_string(name));
                        writer.table(section, &header, database, "DB", name);
                    }
                }
                "peers" => {
                    for (name, peer) in &merged.peers {
                        let bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
                        let key = if bare { name.clone() } else { toml_string(name) };
                        writer.table(section, &format!("[peers.{key}]"), peer, "", "");
                    }
                }
                name => {
                    if let Some(entry) = merged.single(name).filter(|entry| !entry.values.is_empty()) {
                        writer.table(section, &format!("[{name}]"), entry, "", "");
                    }
                }
            }
        }
    }
    let Writer { text, secrets, remarks, .. } = writer;
    Converted { text, secrets, remarks, problems: draft.problems }
}

struct Writer {
    text: String,
    secrets: Vec<(String, String)>,
    remarks: Vec<&'static str>,
    /// Clients without TLS are refused.
    must_encrypt: bool,
}

impl Writer {
    fn table(&mut self, section: &Section, header: &str, entry: &Entry, kind: &str, name: &str) {
        let _ = writeln!(self.text, "\n{header}");
        for key in section.keys {
            let Some(found) = entry.values.get(key.name) else { continue };
            let literal = if key.secret {
                let variable = self.variable(kind, name, key);
                format!("\"${{{variable}}}\"")
            } else {
                literal(key, &found.value)
            };
            let note = match &found.origin {
                Origin::File { line, .. } => format!("line {line}"),
                other => other.to_string(),
            };
            if key.name == "allow_plaintext" && literal == "\"always\"" && !self.must_encrypt {
                let _ = writeln!(self.text, "# {PLAINTEXT}");
                self.remarks.push(PLAINTEXT);
            }
            let _ = writeln!(self.text, "{} = {literal}  # {}", key.name, one_line(&note));
        }
    }

    /// A name that no other secret has.
    fn variable(&mut self, kind: &str, name: &str, key: &Key) -> String {
        let plain: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        let stem = format!("{kind}_{plain}_{}", key.name.to_ascii_uppercase());
        let taken = |name: &str| self.secrets.iter().any(|(known, _)| known == name);
        let mut variable = stem.clone();
        let mut nth = 1;
        while taken(&variable) {
            nth += 1;
            variable = format!("{stem}_{nth}");
        }
        self.secrets.push((variable.clone(), format!("{} of {}", key.name, one_line(name))));
        variable
    }
}

/// Numbers and flags as such where the setting is one; everything else as text.
fn literal(key: &Key, value: &Value) -> String {
    let text = value.as_text().unwrap_or_default();
    let is_number = key.default.parse::<i64>().is_ok() || ["port", "pool_size"].contains(&key.name);
    let bare = match key.default {
        "true" | "false" => ["true", "false"].contains(&text),
        // A mode is octal.
        _ => is_number && key.name != "unix_socket_mode" && text.parse::<i64>().is_ok_and(|it| it.to_string() == text),
    };
    if bare { text.to_owned() } else { toml_string(&text.replace("${", "$${")) }
}

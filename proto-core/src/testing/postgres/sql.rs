//! What the words of the toy language mean.

use std::collections::{BTreeMap, BTreeSet};

use super::super::wire::back;
use super::{Cluster, Ending};

/// The state of a session that others must never see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) settings: BTreeMap<String, String>,
    pub(super) temp: BTreeSet<String>,
    pub(super) statements: BTreeMap<String, String>,
    /// What was prepared in SQL, where no text shows it.
    hidden: BTreeSet<String>,
    pub(super) portals: BTreeMap<String, Portal>,
    pub(super) status: u8,
    defaults: BTreeMap<String, String>,
}

/// A bound statement and how many rows of it were fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Portal {
    pub(super) text: String,
    pub(super) fetched: usize,
}

/// What became of a statement.
pub(super) enum Effect {
    /// It is complete, with this command tag.
    Complete(String),
    /// Rows, then the command tag.
    Rows(Vec<Vec<u8>>, String),
    /// One row of several columns, then the command tag.
    Columns(Vec<Vec<u8>>, String),
    /// It failed.
    Failed(&'static str, String),
    /// It waits for this many milliseconds.
    Sleep(u64),
    /// It waits for CopyData.
    CopyIn,
    /// It sent CopyData.
    CopyOut(Vec<Vec<u8>>),
    /// The connection ends, behind these bytes.
    End(Vec<u8>, Ending),
    /// These bytes, then the tag.
    Raw(Vec<u8>, String),
}

/// Settings that the server reports.
const REPORTED: [&str; 3] = ["TimeZone", "application_name", "search_path"];

impl State {
    pub(super) fn new(mut defaults: BTreeMap<String, String>) -> Self {
        defaults.entry("TimeZone".into()).or_insert_with(|| "UTC".into());
        defaults.entry("application_name".into()).or_default();
        defaults.entry("search_path".into()).or_insert_with(|| "public".into());
        Self {
            settings: BTreeMap::new(),
            temp: BTreeSet::new(),
            statements: BTreeMap::new(),
            hidden: BTreeSet::new(),
            portals: BTreeMap::new(),
            status: b'I',
            defaults,
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        let nothing_prepared = self.statements.is_empty() && self.hidden.is_empty();
        self.settings.is_empty() && self.temp.is_empty() && nothing_prepared && self.status == b'I'
    }

    /// What a session may leave to its own next transaction: statements, and settings that the proxy is told of.
    pub(super) fn is_between(&self) -> bool {
        let reported = self.settings.keys().all(|name| REPORTED.contains(&&**name));
        reported && self.temp.is_empty() && self.status == b'I'
    }

    fn value(&self, name: &str) -> String {
        self.settings.get(name).or_else(|| self.defaults.get(name)).cloned().unwrap_or_default()
    }

    pub(super) fn report(&self, out: &mut Vec<u8>) {
        for name in REPORTED {
            out.extend(back::parameter(name, &self.value(name)));
        }
    }

    /// Runs one statement of a backend. What it reports on the way goes to `out`.
    pub(super) fn run(&mut self, text: &str, pid: u32, cluster: &mut Cluster, out: &mut Vec<u8>) -> Effect {
        let code = text.split_once("--").map_or(text, |(code, _comment)| code);
        // What PostgreSQL would take for a query that can be planned.
        let code = code.strip_prefix("values ").unwrap_or(code);
        let words: Vec<&str> = code.split_whitespace().collect();
        let lower: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        let rest = |n: usize| words.get(n..).unwrap_or_default().join(" ");
        if self.status == b'E' && !matches!(lower[..], ["rollback" | "commit"]) {
            return Effect::Failed("25P02", "current transaction is aborted".into());
        }
        match lower[..] {
            ["rows", n, ..] => match n.parse() {
                Ok(n) => Effect::Rows(rows(n, &rest(2)), format!("SELECT {n}")),
                Err(_) => Effect::Failed("42601", "rows wants a number".into()),
            },
            ["big", n] => Effect::Rows(vec![vec![b'x'; n.parse().unwrap_or(0)]], "SELECT 1".into()),
            ["begin" | "commit" | "rollback"] => self.transaction(lower[0]),
            ["set", "session", "authorization", "default"] => Effect::Complete("SET".into()),
            ["set", _, "to", ..] => {
                let value = rest(3);
                let quoted = value.strip_prefix("E'").and_then(|value| value.strip_suffix('\''));
                self.set(words[1], quoted.unwrap_or(&value), out)
            }
            ["set", _, ..] => self.set(words[1], &rest(2), out),
            ["show", _] => Effect::Rows(vec![self.value(words[1]).into_bytes()], "SHOW".into()),
            ["reset", "all"] => {
                self.settings.clear();
                self.report(out);
                Effect::Complete("RESET".into())
            }
            ["reset", "role"] => Effect::Complete("RESET".into()),
            ["close", "all"] => Effect::Complete("CLOSE CURSOR ALL".into()),
            ["unlisten", "*"] => {
                if let Some(process) = cluster.processes.get_mut(&pid) {
                    process.listening.clear();
                    process.mail.clear();
                }
                Effect::Complete("UNLISTEN".into())
            }
            ["discard", "temp"] => {
                self.temp.clear();
                Effect::Complete("DISCARD TEMP".into())
            }
            ["discard", "sequences"] => Effect::Complete("DISCARD SEQUENCES".into()),
            ["discard", "all"] => self.discard(pid, cluster, out),
            ["create", "temp", "table", name] => {
                if self.temp.insert(name.into()) {
                    Effect::Complete("CREATE TABLE".into())
                } else {
                    Effect::Failed("42P07", format!("relation \"{name}\" already exists"))
                }
            }
            ["deallocate", "all"] => {
                self.statements.clear();
                self.hidden.clear();
                Effect::Complete("DEALLOCATE ALL".into())
            }
            ["listen", channel] => {
                if let Some(process) = cluster.processes.get_mut(&pid) {
                    process.listening.insert(channel.into());
                }
                Effect::Complete("LISTEN".into())
            }
            ["notify", channel, ..] => {
                cluster.notify(pid, channel, &rest(2));
                Effect::Complete("NOTIFY".into())
            }
            ["notice", ..] => {
                out.extend(back::notice(&rest(1)));
                Effect::Complete("DO".into())
            }
            ["sleep", millis, ..] => Effect::Sleep(millis.parse().unwrap_or(0)),
            ["copy", "in"] => Effect::CopyIn,
            ["copy", "out", n, ..] => Effect::CopyOut(rows(n.parse().unwrap_or(0), &rest(3))),
            ["remember", ..] => {
                self.hidden.insert(rest(1));
                Effect::Complete("SELECT 0".into())
            }
            ["recall"] => {
                let all = self.hidden.iter().chain(self.statements.values());
                let rows: Vec<Vec<u8>> = all.map(|text| text.clone().into_bytes()).collect();
                let tag = format!("SELECT {}", rows.len());
                Effect::Rows(rows, tag)
            }
            ["select", text] => Effect::Rows(vec![text.trim_matches('\'').as_bytes().to_vec()], "SELECT 1".into()),
            ["whoami"] => {
                let user = cluster.processes.get(&pid).map_or("", |process| &process.user);
                Effect::Rows(vec![format!("{user} {pid}").into_bytes()], "SELECT 1".into())
            }
            ["password", "of", _] => match cluster.users.get(words[2]) {
                Some(password) => Effect::Columns(vec![words[2].into(), password.clone()], "SELECT 1".into()),
                None => Effect::Rows(Vec::new(), "SELECT 0".into()),
            },
            _ => self.fault(&lower, &words),
        }
    }

    /// The statements that are there to make trouble.
    fn fault(&mut self, lower: &[&str], words: &[&str]) -> Effect {
        match *lower {
            ["fail", code, ..] => Effect::Failed(leak_code(code), "as wished".into()),
            ["exit", _, ..] => Effect::End(back::error("FATAL", words[1], "terminating connection"), Ending::Close),
            ["crash", ..] => Effect::End(Vec::new(), Ending::Reset),
            ["tear", ..] => {
                let row = back::row(b"this row is torn");
                Effect::End([back::row_description(), row[..row.len() / 2].to_vec()].concat(), Ending::Reset)
            }
            ["raw", hex, ..] => Effect::Raw(unhex(hex), "SELECT 0".into()),
            _ => Effect::Failed("42601", format!("syntax error at or near {:?}", words.first().unwrap_or(&""))),
        }
    }

    fn transaction(&mut self, word: &str) -> Effect {
        let failed = self.status == b'E';
        self.status = if word == "begin" { b'T' } else { b'I' };
        if word != "begin" {
            self.portals.clear();
        }
        Effect::Complete(if failed { "ROLLBACK".into() } else { word.to_ascii_uppercase() })
    }

    fn set(&mut self, name: &str, value: &str, out: &mut Vec<u8>) -> Effect {
        self.settings.insert(name.into(), value.into());
        if REPORTED.contains(&name) {
            out.extend(back::parameter(name, value));
        }
        Effect::Complete("SET".into())
    }

    fn discard(&mut self, pid: u32, cluster: &mut Cluster, out: &mut Vec<u8>) -> Effect {
        if self.status != b'I' {
            return Effect::Failed("25001", "DISCARD ALL cannot run inside a transaction block".into());
        }
        let defaults = std::mem::take(&mut self.defaults);
        *self = Self::new(defaults);
        if let Some(process) = cluster.processes.get_mut(&pid) {
            process.listening.clear();
            process.mail.clear();
        }
        self.report(out);
        Effect::Complete("DISCARD ALL".into())
    }
}

fn rows(n: usize, text: &str) -> Vec<Vec<u8>> {
    (0..n).map(|i| format!("{text}/{i}").into_bytes()).collect()
}

/// The SQLSTATEs that tests ask for.
fn leak_code(code: &str) -> &'static str {
    ["23505", "22012", "40001", "57014", "42601", "XX000"].into_iter().find(|known| *known == code).unwrap_or("P0001")
}

/// How many columns a statement has, for Describe; 0: it has no rows.
pub(super) fn columns(text: &str) -> u16 {
    match text.split_whitespace().next() {
        Some("rows" | "values" | "big" | "show" | "whoami" | "tear" | "sleep") => 1,
        Some("password") => 2,
        _ => 0,
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    let pair = |pair: &[u8]| pair.iter().fold(0, |sum, &byte| sum * 16 + digit(byte)) as u8; // two digits
    text.as_bytes().chunks(2).map(pair).collect()
}

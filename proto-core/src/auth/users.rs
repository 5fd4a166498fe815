//! Users with secrets of their own: what is kept of a password, and the list of them in PgBouncer's `auth_file` format.
//!
//! ```text
//! ; comment
//! "ann" "plain password"
//! "bob" "md5" and 32 hexadecimal digits       what is behind is ignored
//! "eve" "SCRAM-SHA-256$4096:salt$StoredKey:ServerKey"
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use super::md5::{self, StoredDigest};
use super::scram::server::Verifier;
use crate::policy::Account;
use crate::secret::Secret;

/// The longest user name. PostgreSQL's have 63 bytes, PgBouncer's 127.
const MAX_NAME: usize = 127;
/// The longest secret: what one message of a login holds. PgBouncer's limit is 65,530 bytes.
pub(crate) const MAX_SECRET: usize = 65_535;
/// The most users of a list: some hundred bytes for each.
const MAX_USERS: usize = 100_000;
/// The most problems that are told of one list.
const MAX_PROBLEMS: usize = 20;

/// What is kept of a password, in one of the three forms of `pg_authid.rolpassword` and PgBouncer's `auth_file`.
#[derive(Clone)]
pub enum StoredSecret {
    /// The password itself. An empty one lets nobody in.
    Plain(Arc<Secret<Vec<u8>>>),
    /// `md5...`: a hash that is as good as the password where MD5 is spoken.
    Md5(Arc<StoredDigest>),
    /// `SCRAM-SHA-256$...`: checks a proof and cannot make one.
    Scram(Arc<Verifier>),
}

impl StoredSecret {
    /// Tells the three forms apart as PostgreSQL does (`get_password_type`): what is neither hash nor verifier is a
    /// password.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        if let Some(digest) = md5::parse_stored(text) {
            return Self::Md5(Arc::new(digest));
        }
        match Verifier::parse(text) {
            Some(verifier) => Self::Scram(Arc::new(verifier)),
            None => Self::Plain(Arc::new(Secret::new(text.to_vec()))),
        }
    }

    /// Whether it is an empty password, which lets nobody in.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Plain(password) if password.expose().is_empty())
    }

    /// Whether the other is the same. Both are of the operator's: how long it takes tells nobody anything.
    #[cfg(feature = "driver")]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain(one), Self::Plain(other)) => one.expose() == other.expose(),
            (Self::Md5(one), Self::Md5(other)) => one.expose() == other.expose(),
            (Self::Scram(one), Self::Scram(other)) => one.is_same(other),
            _ => false,
        }
    }
}

/// A user of a list.
pub struct User {
    /// What is kept of the password.
    pub(super) secret: StoredSecret,
    /// The account of the same name, with the password where that is known.
    pub(super) account: Arc<Account>,
    /// Of a password in clear, made when it is needed for the first time.
    made: Mutex<Option<Arc<Verifier>>>,
}

impl User {
    pub(super) fn new(name: Arc<str>, secret: StoredSecret) -> Self {
        let password = match &secret {
            StoredSecret::Plain(password) if !password.expose().is_empty() => Some(password.clone()),
            _ => None,
        };
        let account = Arc::new(Account { name, password });
        Self { secret, account, made: Mutex::default() }
    }

    /// The verifier that was made of a password in clear, where it answers this challenge.
    pub(super) fn made(&self, salt: &[u8], rounds: NonZeroU32) -> Option<Arc<Verifier>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.as_ref().filter(|made| made.salt() == salt && made.iterations() == rounds).cloned()
    }

    /// Keeps the one that was made last.
    pub(super) fn keep(&self, made: Arc<Verifier>) {
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
    }
}

/// Users and their secrets.
#[derive(Default)]
pub struct UserList {
    users: BTreeMap<Arc<str>, User>,
}

/// A mistake in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserListProblem {
    /// From 1.
    pub line: usize,
    /// What was found and what was expected. No part of a secret is in it.
    pub what: &'static str,
}

impl fmt::Display for UserListProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl UserList {
    /// From pairs of name and secret. The last of two with the same name counts.
    #[must_use]
    pub fn new<'a>(users: impl IntoIterator<Item = (&'a str, StoredSecret)>) -> Self {
        let mut list = Self::default();
        for (name, secret) in users {
            list.insert(name, secret);
        }
        list
    }

    fn insert(&mut self, name: &str, secret: StoredSecret) {
        let name: Arc<str> = name.into();
        self.users.insert(name.clone(), User::new(name, secret));
    }

    /// Reads PgBouncer's `auth_file`: two quoted fields on each line, `""` for a quote inside, the rest of the line
    /// ignored; empty lines and lines that begin with `;`. The last of two lines with the same name counts.
    ///
    /// # Errors
    /// Every mistake with its line, up to twenty. PgBouncer goes on with the users above the first one; here a list with
    /// a mistake is none, so that nobody is locked out without a word.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<UserListProblem>> {
        let (mut list, mut problems) = (Self::default(), Vec::new());
        // A byte order mark is what some editors put in front.
        let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut line = 1;
        while !rest.is_empty() && problems.len() < MAX_PROBLEMS {
            let Some(start) = rest.iter().position(|byte| !byte.is_ascii_whitespace() && *byte != 0x0b) else { break };
            line += newlines(&rest[..start]);
            rest = &rest[start..];
            let mut entry = Entry { rest };
            if rest[0] != b';' {
                match entry.read() {
                    Ok(_) if list.users.len() >= MAX_USERS => {
                        problems.push(UserListProblem { line, what: "there are more than 100,000 users" });
                        break;
                    }
                    Ok((name, secret)) => list.insert(&name, StoredSecret::parse(secret.expose())),
                    Err(what) => {
                        problems.push(UserListProblem { line, what });
                        // From the beginning of its line: where a quote is missing, no later place can be trusted.
                        entry.rest = rest;
                    }
                }
            }
            let end = memchr::memchr(b'\n', entry.rest).unwrap_or(entry.rest.len());
            let used = rest.len() - entry.rest.len() + end;
            line += newlines(&rest[..used]);
            rest = &rest[used..];
        }
        if problems.is_empty() { Ok(list) } else { Err(problems) }
    }

    /// The user of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The password of a user, where the list has it in clear.
    #[must_use]
    pub fn password_of(&self, name: &str) -> Option<Arc<Secret<Vec<u8>>>> {
        self.find(name)?.account.password.clone()
    }

    /// All names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.users.keys()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether whoever has a password at all has a verifier of it, and somebody has.
    pub(super) fn has_only_verifiers(&self) -> bool {
        let mut secrets = self.users.values().map(|user| &user.secret).filter(|secret| !secret.is_empty()).peekable();
        secrets.peek().is_some() && secrets.all(|secret| matches!(secret, StoredSecret::Scram(_)))
    }

    /// Whether somebody has a password in clear.
    pub(super) fn has_passwords(&self) -> bool {
        self.users.values().any(|user| user.account.password.is_some())
    }

    /// The verifier of the first user who has one, in the order of their names: what a challenge for a user who does not
    /// exist is made alike.
    pub(super) fn some_verifier(&self) -> Option<&Arc<Verifier>> {
        self.users.values().find_map(|user| match &user.secret {
            StoredSecret::Scram(verifier) => Some(verifier),
            _ => None,
        })
    }
}

fn newlines(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text).count()
}

/// A line with its two fields.
struct Entry<'a> {
    rest: &'a [u8],
}

impl Entry<'_> {
    fn read(&mut self) -> Result<(String, Secret<Vec<u8>>), &'static str> {
        let mut name = self.quoted("expected a user name in double quotes", "the user name has no closing quote")?;
        let name = std::mem::take(name.expose_mut());
        if name.len() > MAX_NAME {
            return Err("the user name is longer than 127 bytes");
        }
        let name = String::from_utf8(name).map_err(|_| "the user name is not UTF-8")?;
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err("the user name is empty or has control characters");
        }
        let blanks = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.rest = &self.rest[blanks..];
        let secret = self.quoted(
            "expected a password, an MD5 hash or a SCRAM verifier in double quotes behind the user name",
            "the password has no closing quote",
        )?;
        match secret.expose() {
            secret if secret.len() > MAX_SECRET => Err("the password is longer than 65,535 bytes"),
            secret if secret.contains(&0) => Err("the password holds a zero byte"),
            _ => Ok((name, secret)),
        }
    }

    fn quoted(&mut self, absent: &'static str, open: &'static str) -> Result<Secret<Vec<u8>>, &'static str> {
        let Some((b'"', mut rest)) = self.rest.split_first() else { return Err(absent) };
        // No field reaches beyond its line: a missing quote must not swallow the users below.
        let line = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let mut field = Secret::new(Vec::with_capacity(line.min(MAX_SECRET)));
        let mut left = line;
        loop {
            let Some(quote) = memchr::memchr(b'"', &rest[..left]) else { return Err(open) };
            field.expose_mut().extend_from_slice(&rest[..quote]);
            rest = &rest[quote + 1..];
            left -= quote + 1;
            if rest.first() != Some(&b'"') {
                self.rest = rest;
                return Ok(field);
            }
            field.expose_mut().push(b'"');
            rest = &rest[1..];
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests;

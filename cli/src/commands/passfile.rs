//! The password file of libpq (PostgreSQL manual, section 34.16): `host:port:database:user:password`, the first line that
//! fits counts.

use std::path::PathBuf;

use gprxy_proto::secret::Secret;

use super::connection::Connection;
use crate::config;
use crate::credentials::{Lock, home, replace};
use crate::interrupts;
use crate::sso::failure::{Failure, Result};

/// Puts the token in front of everything else in the file, in the place of the one that gprxy put there before.
pub(super) fn write(connection: &Connection, token: &str) -> Result<PathBuf> {
    change(|old| Some(with_entry(old, connection, token)))
}

/// Takes the token away again, if it is there.
pub(super) fn forget(connection: &Connection) -> Result<PathBuf> {
    change(|old| {
        let rest = without_entry(old, &key(connection));
        (rest.expose() != old).then_some(rest)
    })
}

/// Replaces the file by what is made of it; `None`: it stays.
fn change(make: impl FnOnce(&str) -> Option<Secret<String>>) -> Result<PathBuf> {
    let path = path()?;
    let _lock = Lock::take(&home()?.join(".pgpass.lock"))?;
    let old = match path.try_exists() {
        Ok(false) => Secret::new(String::new()),
        _ => config::read_text(&path)
            .map_err(|why| Failure::refused(format!("{} cannot be read: {why}", path.display())))?,
    };
    if let Some(new) = make(old.expose()) {
        let _finished = interrupts::hold();
        replace(&path, new.expose().as_bytes())?;
    }
    Ok(path)
}

/// The whole content for psql alone: this token, for this proxy and nothing else.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only there files live in memory"))]
pub(super) fn single(connection: &Connection, token: &str) -> Secret<String> {
    with_entry("", connection, token)
}

fn path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PGPASSFILE").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let place = if cfg!(windows) {
        std::env::var_os("APPDATA").map(|data| PathBuf::from(data).join("postgresql").join("pgpass.conf"))
    } else {
        std::env::home_dir().map(|home| home.join(".pgpass"))
    };
    place.ok_or_else(|| Failure::settings("there is no home directory for the password file; set PGPASSFILE"))
}

/// The first line that fits counts, so ours goes first: a wildcard of somebody's would hide it.
fn with_entry(old: &str, connection: &Connection, token: &str) -> Secret<String> {
    let key = key(connection);
    let mut new = Secret::new(format!("{key}{}\n", escape(token)));
    new.expose_mut().push_str(without_entry(old, &key).expose());
    new
}

fn without_entry(old: &str, key: &str) -> Secret<String> {
    Secret::new(old.split_inclusive('\n').filter(|line| !line.starts_with(key)).collect())
}

/// What the line begins with: no other program writes its fields just so.
fn key(connection: &Connection) -> String {
    let proxy = &connection.proxy;
    format!("{}:{}:*:{}:", escape(&proxy.host), proxy.port, escape(&connection.user))
}

/// `:` would end a field, and `\` is what it is escaped with.
fn escape(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::ProxyAddress;

    fn connection(proxy: &str, user: &str) -> Connection {
        Connection {
            proxy: ProxyAddress::parse(proxy).unwrap(),
            user: user.into(),
            database: None,
            sslmode: "verify-full".into(),
            sslrootcert: None,
        }
    }

    #[test]
    fn fields_are_escaped() {
        let entry = single(&connection("[::1]:6000", "a:b\\c"), "eyJ.x.y");
        assert_eq!(entry.expose(), "\\:\\:1:6000:*:a\\:b\\\\c:eyJ.x.y\n");
    }

    #[test]
    fn the_own_entry_is_replaced_and_everything_else_stays() {
        let ours = connection("gprxy.example", "alice@corp.example");
        let others = "# mine\n*:*:*:*:old\ngprxy.example:7777:app:alice@corp.example:kept\nno newline at the end";
        let first = with_entry(others, &ours, "t1");
        assert_eq!(first.expose(), &format!("gprxy.example:7777:*:alice@corp.example:t1\n{others}"));
        let second = with_entry(first.expose(), &ours, "t2");
        assert_eq!(second.expose(), &format!("gprxy.example:7777:*:alice@corp.example:t2\n{others}"));
        let other = with_entry(second.expose(), &connection("gprxy.example", "alice"), "t3");
        assert_eq!(without_entry(second.expose(), &key(&ours)).expose(), others);
        assert!(other.expose().contains(":t2\n") && other.expose().starts_with("gprxy.example:7777:*:alice:t3\n"));
    }
}

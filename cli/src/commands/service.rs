//! `gprxy service`: an entry in libpq's connection service file (PostgreSQL manual, section 34.17).

use std::path::PathBuf;
use std::process::ExitCode;

use super::args::ServiceArgs;
use super::connection::Connection;
use super::print;
use crate::config;
use crate::credentials::{Lock, Store, home, replace};
use crate::interrupts;
use crate::profile::{DEFAULT, Profile};
use crate::sso;
use crate::sso::failure::{Failure, Result};

/// How an entry of ours is known again.
const MARK: &str = "# written by gprxy service: changed here, it is lost with the next one";

pub(super) fn run(args: &ServiceArgs) -> Result<ExitCode> {
    let profile = Profile::load(&args.profile)?;
    let credentials = sso::current(&profile, &Store::of(&profile.name)?)?;
    let connection = Connection::new(&profile, &credentials, args.database.as_deref(), None)?;
    let usual = if profile.name == DEFAULT { "gprxy" } else { &profile.name };
    let name = args.name.as_deref().unwrap_or(usual);
    if name.is_empty() || name.contains([']', '[', '#']) || name.contains(char::is_control) {
        return Err(Failure::usage("a service's name has no brackets, no '#' and no line breaks"));
    }
    let entry = entry(name, &connection);
    if args.print {
        print(&entry);
        return Ok(ExitCode::SUCCESS);
    }
    let path = path()?;
    let _lock = Lock::take(&home()?.join(".pg_service.lock"))?;
    let old = match path.try_exists() {
        Ok(false) => String::new(),
        _ => {
            let text = config::read_text(&path);
            text.map_err(|why| Failure::refused(format!("{} cannot be read: {why}", path.display())))?.expose().clone()
        }
    };
    let new = with_entry(&old, name, &entry, args.force).ok_or_else(|| {
        let words = format!(
            "{} has a service [{name}] that gprxy did not write: choose another --name, or replace it with --force",
            path.display()
        );
        Failure::refused(words)
    })?;
    let _finished = interrupts::hold();
    replace(&path, new.as_bytes())?;
    eprintln!(
        "{} now has the service {name}. With a token in the password file (gprxy token --pgpass):",
        path.display()
    );
    eprintln!("  psql service={name}");
    Ok(ExitCode::SUCCESS)
}

fn path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PGSERVICEFILE").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let home = std::env::home_dir().map(|home| home.join(".pg_service.conf"));
    home.ok_or_else(|| Failure::settings("there is no home directory for the service file; set PGSERVICEFILE"))
}

/// Values stand as they are, up to the end of the line; [`Connection`] lets no line break in.
fn entry(name: &str, connection: &Connection) -> String {
    let proxy = &connection.proxy;
    let mut lines =
        vec![format!("[{name}]"), MARK.to_owned(), format!("host={}", proxy.host), format!("port={}", proxy.port)];
    lines.push(format!("user={}", connection.user));
    lines.extend(connection.database.as_ref().map(|database| format!("dbname={database}")));
    lines.push(format!("sslmode={}", connection.sslmode));
    lines.extend(connection.sslrootcert.as_ref().map(|path| format!("sslrootcert={}", path.display())));
    lines.join("\n") + "\n"
}

/// The file with the entry in the place of the old one of that name, or at its end. `None`: the old one is not ours.
fn with_entry(old: &str, name: &str, entry: &str, force: bool) -> Option<String> {
    let header = format!("[{name}]");
    let (mut kept, mut replaced, mut inside) = (String::new(), String::new(), false);
    for line in old.split_inclusive('\n') {
        if line.starts_with('[') {
            inside = line.trim_end() == header;
        }
        let part = if inside { &mut replaced } else { &mut kept };
        part.push_str(line);
    }
    if !replaced.is_empty() && !replaced.contains(MARK) && !force {
        return None;
    }
    if !kept.is_empty() && !kept.ends_with('\n') {
        kept.push('\n');
    }
    let gap = if kept.is_empty() || kept.ends_with("\n\n") { "" } else { "\n" };
    Some(format!("{kept}{gap}{entry}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(name: &str, host: &str) -> String {
        format!("[{name}]\n{MARK}\nhost={host}\n")
    }

    #[test]
    fn an_entry_is_added_then_replaced_and_others_stay() {
        let others = "# mine\n[app]\nhost=db\n";
        let first = with_entry(others, "gprxy", &ours("gprxy", "one"), false).unwrap();
        assert_eq!(first, format!("{others}\n{}", ours("gprxy", "one")));
        let behind = format!("{first}\n[last]\nport=1");
        let second = with_entry(&behind, "gprxy", &ours("gprxy", "two"), false).unwrap();
        assert!(second.contains("[last]\nport=1\n") && second.contains("host=two") && !second.contains("host=one"));
        assert_eq!(second.matches("[gprxy]").count(), 1);
        assert_eq!(with_entry("", "gprxy", "x\n", false).unwrap(), "x\n");
    }

    #[test]
    fn an_entry_of_somebody_else_is_left_alone() {
        let theirs = "[gprxy]\nhost=mine\n";
        assert_eq!(with_entry(theirs, "gprxy", &ours("gprxy", "x"), false), None);
        assert_eq!(with_entry(theirs, "gprxy", &ours("gprxy", "x"), true), Some(ours("gprxy", "x")));
    }
}

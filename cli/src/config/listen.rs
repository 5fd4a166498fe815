//! Where clients connect: the part of `[server]` that is about sockets.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::document::Value;
use super::kinds::{Flag, Kind, List, Span, Whole, Words};
use super::problem::quoted;
use super::reader::Reader;
use super::settings::Listen;

/// A TCP port; 0 means any free one where we listen.
const PORT: Whole = Whole { what: "a port number", min: 0, max: 65_535 };

/// Reads it.
pub(crate) fn listen(reader: &mut Reader<'_>) -> Listen {
    let addresses = addresses(reader);
    // The bounds of PORT are those of u16.
    let port = u16::try_from(reader.read("listen_port", &PORT)).unwrap_or(0);
    let unix_socket_dir = reader.optional("unix_socket_dir", &Words("the path of a directory")).map(PathBuf::from);
    if let Some(dir) = unix_socket_dir.as_deref().filter(|dir| !dir.is_absolute() || !dir.is_dir()) {
        let found = format!("{}, which is not there", quoted(&dir.display().to_string()));
        reader.reject("unix_socket_dir", found, "the absolute path of an existing directory");
    }
    if addresses.is_empty() && unix_socket_dir.is_none() {
        reader.reject("listen_addr", "no address, and no unix_socket_dir", "one of the two");
    }
    let unix_socket_mode = reader.read("unix_socket_mode", &Mode);
    let unix_socket_group = group(reader);
    let backlog = reader.read("listen_backlog", &Whole { what: "a number of connections", min: 1, max: 65_535 });
    let reuse_port = reader.read("so_reuseport", &Flag);
    let defer_accept = reader.read("tcp_defer_accept", &Span { min: Duration::ZERO, max: Duration::from_secs(32_767) });
    let pidfile = reader.optional("pidfile", &Words("the path of a file")).map(PathBuf::from);
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    Listen {
        addresses,
        port,
        unix_socket_dir,
        unix_socket_mode,
        unix_socket_group,
        backlog,
        reuse_port,
        defer_accept,
        pidfile,
    }
}

fn addresses(reader: &mut Reader<'_>) -> Vec<String> {
    const EXPECTED: &str = "IP addresses or host names, separated by commas, or * for all";
    if reader.text("listen_addr") == Some("") {
        reader.remark("listen_addr", "empty: Unix sockets only");
        return Vec::new();
    }
    let mut addresses = reader.read("listen_addr", &List(EXPECTED));
    for address in &mut addresses {
        let bare = address.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(address);
        let sound = bare == "*"
            || bare.parse::<IpAddr>().is_ok()
            || (bare.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)));
        if !sound {
            reader.reject("listen_addr", quoted(address), EXPECTED);
        }
        *address = bare.to_owned();
    }
    addresses
}

/// The group by its name or number.
fn group(reader: &mut Reader<'_>) -> Option<u32> {
    let name = reader.optional("unix_socket_group", &Words("the name or number of a group"))?;
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    // `group(5)`: name, password, number, members.
    let groups = super::files::read_text(std::path::Path::new("/etc/group"));
    let found = groups.ok().and_then(|groups| {
        let line = groups.expose().lines().find(|line| line.split(':').next() == Some(name.as_str()))?;
        line.split(':').nth(2)?.parse().ok()
    });
    if found.is_none() {
        reader.reject("unix_socket_group", quoted(&name), "a group of this machine");
    }
    found
}

/// The mode of a file, in octal digits.
struct Mode;

impl Kind for Mode {
    type Out = u32;

    fn parse(&self, value: &Value) -> Option<u32> {
        let text = value.as_text()?.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777)
    }

    fn expected(&self) -> String {
        "a mode as octal digits in quotes, such as \"0770\"".into()
    }

    fn show(&self, out: &u32) -> String {
        format!("\"{out:04o}\"")
    }
}

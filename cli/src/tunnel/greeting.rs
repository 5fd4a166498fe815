//! What people and scripts are told when the tunnel listens.

use std::fmt::Write as _;
use std::io::Write as _;

use gprxy_proto::secret::Secret;
use serde_json::json;

use super::listen::Place;
use super::way::Way;
use crate::logging::one_line;

/// Says it on standard output, the password included, once. A closed output is nobody's loss but the reader's.
pub(super) fn print(way: &Way, places: &[Place], as_json: bool) {
    let text = if as_json { machine(way, places) } else { human(way, places) };
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.expose().as_bytes()).and_then(|()| out.flush());
}

fn human(way: &Way, places: &[Place]) -> Secret<String> {
    let mut text = Secret::new(String::with_capacity(1024));
    let out = text.expose_mut();
    let _ = writeln!(out, "Tunnel to {}. Ctrl-C closes it.", one_line(&way.endpoint.to_string()));
    for place in places {
        let _ = writeln!(out, "\n  host      {}\n  port      {}", one_line(&place.host), place.port);
        let _ = writeln!(out, "  user      {}", one_line(&way.user));
        match &place.password {
            Some(password) => {
                let _ = writeln!(out, "  password  {}   (of this tunnel: a new one each time)", password.expose());
            }
            None if place.host.starts_with('/') => out.push_str("  password  none: only your own programs get in\n"),
            None => out.push_str("  password  NONE: every user of this computer gets in, as you\n"),
        }
        out.push_str("  sslmode   disable   (nothing leaves this computer here; the way to the proxy is encrypted)\n");
        let _ = writeln!(out, "\n  {}", uri(way, place));
    }
    text
}

fn machine(way: &Way, places: &[Place]) -> Secret<String> {
    let listen: Vec<serde_json::Value> = places
        .iter()
        .map(|place| {
            let password = place.password.as_ref().map(|password| password.expose().as_str());
            json!({ "host": place.host, "port": place.port, "password": password, "uri": uri(way, place) })
        })
        .collect();
    let line = json!({ "proxy": way.endpoint.to_string(), "user": way.user, "listen": listen });
    Secret::new(format!("{line}\n"))
}

/// A connection string without the password, as libpq and most others take it (PostgreSQL manual, section 34.1.1.2).
fn uri(way: &Way, place: &Place) -> String {
    let user = escaped(&way.user);
    let database = way.database.as_deref().map_or_else(String::new, |database| format!("/{}", escaped(database)));
    if place.host.starts_with('/') {
        let slash = if database.is_empty() { "/" } else { "" };
        return format!("postgresql://{user}@{database}{slash}?host={}&port={}", escaped(&place.host), place.port);
    }
    let host = if place.host.contains(':') { format!("[{}]", place.host) } else { place.host.clone() };
    format!("postgresql://{user}@{host}:{}{database}?sslmode=disable", place.port)
}

/// Percent-encoded, all but the unreserved characters (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use gprxy_proto::policy::{Endpoint, SslMode};

    use super::*;

    fn way(user: &str, database: Option<&str>) -> Way {
        Way {
            endpoint: Endpoint::Tcp { host: "gprxy.example".into(), port: 7777 },
            sslmode: SslMode::VerifyFull,
            ca: None,
            user: user.into(),
            database: database.map(str::to_owned),
        }
    }

    fn place(host: &str, password: Option<&str>) -> Place {
        Place { host: host.into(), port: 5433, password: password.map(Secret::from) }
    }

    #[test]
    fn connection_strings_can_be_pasted() {
        let alice = way("alice@corp.example", Some("a b"));
        assert_eq!(
            uri(&alice, &place("127.0.0.1", Some("secret"))),
            "postgresql://alice%40corp.example@127.0.0.1:5433/a%20b?sslmode=disable"
        );
        assert_eq!(
            uri(&alice, &place("/run/user/1/g", None)),
            "postgresql://alice%40corp.example@/a%20b?host=%2Frun%2Fuser%2F1%2Fg&port=5433"
        );
        assert_eq!(uri(&way("bob", None), &place("::1", None)), "postgresql://bob@[::1]:5433?sslmode=disable");
        assert_eq!(uri(&way("bob", None), &place("/s", None)), "postgresql://bob@/?host=%2Fs&port=5433");
    }

    #[test]
    fn the_password_is_told_once() {
        let places = [place("127.0.0.1", Some("the-password")), place("/run/g", None)];
        let told = human(&way("alice@corp.example", None), &places);
        assert_eq!(told.expose().matches("the-password").count(), 1, "{}", told.expose());
        let line = machine(&way("bob", None), &places);
        assert_eq!(line.expose().matches("the-password").count(), 1);
        let value: serde_json::Value = serde_json::from_str(line.expose()).unwrap();
        assert_eq!(value["listen"][0]["password"], "the-password");
        assert_eq!(value["listen"][1]["password"], serde_json::Value::Null);
        assert_eq!(value["proxy"], "gprxy.example:7777");
    }

    #[test]
    fn an_open_door_is_called_one() {
        let told = human(&way("bob", None), &[place("127.0.0.1", None)]);
        assert!(told.expose().contains("every user of this computer gets in"));
    }
}

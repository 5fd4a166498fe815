//! Just enough of URLs to tell which of them may carry keys and tokens.

use std::net::IpAddr;

/// An `http` or `https` URL, split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Url<'u> {
    /// Whether it is `https`.
    pub(crate) https: bool,
    /// Name or address, IPv6 without its brackets.
    pub(crate) host: &'u str,
    /// What follows the authority, query and fragment included.
    pub(crate) path: &'u str,
}

/// Reads a URL, or says what is wrong with it without repeating it (it may hold a password).
pub(crate) fn parse(text: &str) -> Result<Url<'_>, &'static str> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a URL with white space in it");
    }
    let (https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("text that is no http(s) URL"),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("a URL with a user name in it");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(inside) => {
            let (host, port) = inside.split_once(']').ok_or("a URL with an unclosed bracket")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("a URL with a wrong IPv6 address");
            }
            (host, port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_sound = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let host_is_sound = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    if !host_is_sound || !port_is_sound {
        return Err("a URL with a wrong host or port");
    }
    Ok(Url { https, host, path })
}

impl Url<'_> {
    /// Whether keys fetched from it can be believed: `https`, or this machine.
    pub(crate) fn is_safe(&self) -> bool {
        self.https || is_loopback(self.host)
    }
}

/// Whether a host name or address means this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        assert_eq!(parse("https://idp.example/a?b"), Ok(Url { https: true, host: "idp.example", path: "/a?b" }));
        assert_eq!(parse("http://[::1]:9400"), Ok(Url { https: false, host: "::1", path: "" }));
        assert_eq!(parse("https://h:1/").map(|u| u.host), Ok("h"));
    }

    #[test]
    fn only_https_and_this_machine_are_safe() {
        for safe in ["https://idp.example", "http://localhost:1/x", "http://127.0.0.2", "http://[::1]:1"] {
            assert!(parse(safe).is_ok_and(|url| url.is_safe()), "{safe}");
        }
        for unsafe_ in ["http://idp.example", "http://127.0.0.1.evil.example", "http://localhost.evil.example"] {
            assert!(parse(unsafe_).is_ok_and(|url| !url.is_safe()), "{unsafe_}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for bad in [
            "",
            "idp.example",
            "ftp://x",
            "https://",
            "https:///x",
            "https://u:p@host/",
            "http://localhost@evil.example/",
            "http://127.0.0.1\\@evil.example/",
            "https://h:99999",
            "https://h:x",
            "https://a b",
            "https://[::1",
            "https://[::1]x",
            "https://[zz]",
            "https://h\n",
            "http://[::1]evil.example/",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}

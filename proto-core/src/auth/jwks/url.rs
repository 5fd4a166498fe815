//! Which URLs keys may come from.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longer URLs are a mistake or an attack.
const MAX_URL_BYTES: usize = 2048;

/// Accepts `https://…` anywhere, and `http://…` on this machine only: whoever can change a key set on its way can sign
/// tokens. The reason for a refusal is fit to be shown.
pub(crate) fn check(url: &str) -> Result<(), &'static str> {
    const SCHEME: &str = "expected a URL that starts with https:// (http:// only for 127.0.0.1, ::1 and localhost)";
    // Anything else than printable ASCII belongs percent-encoded (RFC 3986 section 2); a backslash is read as a slash by
    // some readers, and so might name another host.
    if url.len() > MAX_URL_BYTES || !url.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err("expected a URL of at most 2048 printable ASCII characters");
    }
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(SCHEME),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("expected a URL without user name and password");
    }
    let host = host(authority).ok_or("expected a host name, and after it nothing but a port")?;
    if secure || is_loopback(host) { Ok(()) } else { Err(SCHEME) }
}

/// A text of others as it may stand in a log line or message: one line, bounded, nothing invisible.
pub(crate) fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    let mut out: String =
        text.chars().take(MAX_CHARS).map(|c| if crate::auth::jwt::is_hidden(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        out.push('…');
    }
    out
}

fn host(authority: &str) -> Option<&str> {
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    // `parse` alone would take a plus sign.
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p != 0);
    let port_is_fine = port.is_none_or(is_port);
    (!host.is_empty() && port_is_fine).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_anywhere_and_http_at_home() {
        for good in [
            "https://idp.example",
            "https://idp.example:8443/realms/x?y",
            "https://[2001:db8::1]/",
            "http://localhost:9400",
            "http://127.0.0.1:9400/x",
            "http://[::1]:9400/x",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn nothing_else() {
        for bad in [
            "",
            "idp.example",
            "ftp://idp.example",
            "HTTPS//idp.example",
            "http://idp.example",
            "http://127.0.0.1.evil.example/",
            "http://localhost.evil.example/",
            "http://localhost@evil.example/",
            "http://127.0.0.1:80@evil.example/",
            "http://localhost\\@evil.example/",
            "http://2130706433/",
            "http://[::ffff:1.2.3.4]/",
            "https://",
            "https:///path",
            "https://:443/",
            "https://host:port/",
            "https://host:99999/",
            "https://host:+80/",
            "https://host:/",
            "https://[::1/",
            "https://[::1]x/",
            "https://a b/",
            "https://a\r\nb/",
            "https://ex\u{e4}mple/",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&format!("https://{}/", "a".repeat(2048))).is_err());
    }

    #[test]
    fn printable_is_one_bounded_line() {
        assert_eq!(printable("a\nb\u{0}\u{202e}c"), "a\u{fffd}b\u{fffd}\u{fffd}c");
        assert_eq!(printable(&"x".repeat(300)).chars().count(), 201);
    }
}

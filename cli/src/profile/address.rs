//! Where the proxy listens, and where the browser comes back to.

use std::fmt;

use crate::config::parse_url;

/// gprxy's own port.
const PROXY_PORT: u16 = 7777;

/// The proxy as `PROXY_URL` names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ProxyAddress {
    /// Name or address, IPv6 without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl ProxyAddress {
    /// `gprxy.example.com`, `gprxy.example.com:7777`, `[::1]:7777`, or a URL with `postgres`, `postgresql`, `tcp`, `tls`,
    /// `http` or `https` in front of that; the first gprxy took several of these.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let bare = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => rest,
            Some(_) => return Err("a URL of a kind that gprxy is not reached by"),
            None => text,
        };
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        // A bare IPv6 address has no place for a port.
        let bare = if bare.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{bare}]") } else { bare.to_owned() };
        let url = format!("https://{bare}");
        let parsed = parse_url(&url)?;
        if !parsed.path.is_empty() {
            return Err("an address with a path or a query behind it");
        }
        let port = match bare.rsplit_once(':') {
            Some((_, port)) if !port.contains(']') => port.parse().map_err(|_| "an address with a wrong port")?,
            _ => PROXY_PORT,
        };
        if port == 0 {
            return Err("an address with port 0");
        }
        Ok(Self { host: parsed.host.to_owned(), port })
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        crate::config::is_loopback(&self.host)
    }
}

fn is_scheme(scheme: &str) -> bool {
    ["postgres", "postgresql", "tcp", "tls", "http", "https"].contains(&scheme)
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The redirect URI: only on this machine (RFC 8252 section 7.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Callback {
    /// As it stands in the URL; IPv6 without its brackets.
    pub(crate) host: String,
    /// 0: any free one.
    pub(crate) port: u16,
    pub(crate) path: String,
    /// Whether somebody chose the port, so that no other will do.
    pub(crate) is_chosen: bool,
}

impl Default for Callback {
    fn default() -> Self {
        Self { host: "localhost".into(), port: 8085, path: "/callback".into(), is_chosen: false }
    }
}

impl Callback {
    /// An `http` URL on this machine.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let url = parse_url(text)?;
        if url.https || !url.is_safe() {
            return Err("a URL that is not http on this machine");
        }
        if url.path.contains(['?', '#']) {
            return Err("a URL with a query or a fragment");
        }
        let authority = &text["http://".len()..text.len() - url.path.len()];
        let port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.contains(']') => port.parse().map_err(|_| "a URL with a wrong port")?,
            _ => 80,
        };
        let path = if url.path.is_empty() { "/" } else { url.path };
        Ok(Self { host: url.host.to_owned(), port, path: path.to_owned(), is_chosen: port != 0 })
    }

    /// The URI with the port that is really listened at.
    pub(crate) fn uri(&self, port: u16) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("http://{open}{}{close}:{port}{}", self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_named_in_many_ways() {
        let parse = |text: &str| ProxyAddress::parse(text).map(|address| address.to_string());
        for (text, expected) in [
            ("gprxy.example", "gprxy.example:7777"),
            ("gprxy.example:6000", "gprxy.example:6000"),
            ("postgres://gprxy.example:6000/", "gprxy.example:6000"),
            ("https://gprxy.example", "gprxy.example:7777"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[::1]:6000", "[::1]:6000"),
            ("[::1]", "[::1]:7777"),
            ("::1", "[::1]:7777"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", "ftp://x", "a b", "x/y", "x?host=y", "u@x", "x:0", "x:99999", "x:", "x,y:1", "-o\n", "[::1"] {
            assert!(parse(bad).is_err(), "{bad:?} gave {:?}", parse(bad));
        }
    }

    #[test]
    fn callbacks_are_on_this_machine() {
        let callback = Callback::parse("http://localhost:9000/callback").unwrap();
        assert_eq!((callback.port, callback.uri(9000).as_str()), (9000, "http://localhost:9000/callback"));
        assert_eq!(Callback::parse("http://[::1]:0/x").unwrap().uri(7), "http://[::1]:7/x");
        assert!(!Callback::parse("http://127.0.0.1:0/callback").unwrap().is_chosen);
        for bad in ["https://localhost/c", "http://evil.example/c", "http://localhost/c?x", "localhost:8085"] {
            assert!(Callback::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Callback::default().uri(8085), "http://localhost:8085/callback");
    }
}

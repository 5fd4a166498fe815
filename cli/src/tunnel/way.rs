//! Where the remote gprxy is, and how far its certificate is verified.

use std::sync::Arc;

use gprxy_proto::policy::{Endpoint, SslMode};

use super::Failure;
use crate::config;

/// gprxy's own port.
const PORT: u16 = 7777;

/// The way to the remote gprxy.
pub(super) struct Way {
    pub(super) endpoint: Endpoint,
    pub(super) sslmode: SslMode,
    /// The authorities that the certificate is verified with; `None`: those of the system.
    pub(super) ca: Option<Arc<str>>,
    /// Whose token it is, for the connection string.
    pub(super) user: Option<String>,
    /// For the connection string.
    pub(super) database: Option<String>,
}

impl Way {
    /// From `PROXY_URL` and `PROXY_CA`.
    pub(super) fn find(sslmode: Option<SslMode>, database: Option<String>) -> Result<Self, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = variable("PROXY_URL").ok_or_else(|| {
            Failure::settings(
                "PROXY_URL is not set: expected the proxy's address, as in PROXY_URL=gprxy.corp.example:7777",
            )
        })?;
        let endpoint = endpoint(&address).map_err(|found| {
            Failure::settings(format!(
                "PROXY_URL: found {found}; expected the proxy's address, as in gprxy.example:7777"
            ))
        })?;
        let ca = variable("PROXY_CA").map(Into::into);
        let sslmode = sslmode.unwrap_or(SslMode::VerifyFull);
        check(sslmode, &endpoint, ca.is_some())?;
        Ok(Self { endpoint, sslmode, ca, user: None, database })
    }
}

/// A token opens all that its owner may do, so it goes to the proxy itself and to nobody else.
fn check(sslmode: SslMode, endpoint: &Endpoint, has_ca: bool) -> Result<(), Failure> {
    match sslmode {
        SslMode::VerifyFull => Ok(()),
        _ if endpoint.is_local() => Ok(()),
        // Any public authority's certificate, for whatever name, would do (PostgreSQL manual, section 34.19.4).
        SslMode::VerifyCa if !has_ca => Err(Failure::settings(
            "sslmode verify-ca proves nothing with the system's authorities: set PROXY_CA, or use verify-full",
        )),
        SslMode::VerifyCa => Ok(()),
        SslMode::Disable | SslMode::Prefer | SslMode::Require => Err(Failure::settings(
            "a token is sent only to a proxy whose certificate is verified: use sslmode verify-full, with PROXY_CA \
             where the authority is not a public one",
        )),
    }
}

fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let url = format!("https://{bare}");
    let parsed = config::parse_url(&url)?;
    if !parsed.path.is_empty() {
        return Err("an address with a path behind it");
    }
    let port = match bare.rsplit_once(':') {
        Some((_, port)) if !port.contains(']') => port.parse().map_err(|_| "an address with a wrong port")?,
        _ => PORT,
    };
    Ok(Endpoint::Tcp { host: parsed.host.into(), port })
}

/// libpq's names.
pub(super) fn parse_sslmode(text: &str) -> Result<SslMode, &'static str> {
    match text {
        "disable" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => Err("expected verify-full or verify-ca, or, for a proxy on this computer, require, prefer or disable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, expected) in [
            ("gprxy.example", "gprxy.example:7777"),
            ("gprxy.example:6000", "gprxy.example:6000"),
            ("postgres://gprxy.example:6000/", "gprxy.example:6000"),
            ("[::1]:6000", "[::1]:6000"),
            ("[::1]", "[::1]:7777"),
        ] {
            assert_eq!(endpoint(text).map(|endpoint| endpoint.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", "x/y", "x?host=y", "u@x", "x:99999", "a b"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_needs_a_verified_proxy_or_one_on_this_computer() {
        let remote = endpoint("gprxy.example").unwrap();
        let local = endpoint("localhost").unwrap();
        for mode in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
            let sslmode = parse_sslmode(mode).unwrap();
            assert_eq!(check(sslmode, &remote, false).is_ok(), mode == "verify-full", "{mode}");
            assert_eq!(check(sslmode, &remote, true).is_ok(), mode.starts_with("verify"), "{mode} with a CA");
            assert!(check(sslmode, &local, false).is_ok(), "{mode} to this computer");
        }
        assert!(parse_sslmode("allow").is_err());
    }
}

//! Where the remote gprxy is, and how far its certificate is verified.

use std::sync::Arc;

use gprxy_proto::policy::{Endpoint, SslMode};

use crate::commands::Connection;
use crate::profile::Profile;
use crate::sso::failure::{Failure, Result};

/// The way to the remote gprxy.
pub(super) struct Way {
    pub(super) endpoint: Endpoint,
    pub(super) sslmode: SslMode,
    /// The authorities that the certificate is verified with; `None`: those of the system.
    pub(super) ca: Option<Arc<str>>,
    /// Whose token it is, for the connection string.
    pub(super) user: String,
    /// For the connection string.
    pub(super) database: Option<String>,
}

impl Way {
    /// The same as psql would be sent.
    pub(super) fn new(connection: Connection, profile: &Profile) -> Result<Self> {
        let Connection { proxy, user, database, sslmode, sslrootcert } = connection;
        let endpoint = Endpoint::Tcp { host: proxy.host.into(), port: proxy.port };
        let sslmode = parse(&sslmode)?;
        // Only libpq has to be told where the system's authorities are; one of the person's own counts here as it does there.
        let ca = sslrootcert.filter(|path| profile.proxy.ca.is_some() || path.ends_with(".postgresql/root.crt"));
        check(sslmode, &endpoint, ca.is_some())?;
        let ca = ca.map(|path| path.to_str().map(Arc::from).ok_or_else(|| Failure::settings("proxy_ca: not UTF-8")));
        Ok(Self { endpoint, sslmode, ca: ca.transpose()?, user, database })
    }
}

/// A token opens all that its owner may do, so it goes to the proxy itself and to nobody else.
fn check(sslmode: SslMode, endpoint: &Endpoint, has_ca: bool) -> Result<()> {
    match sslmode {
        SslMode::VerifyFull => Ok(()),
        _ if endpoint.is_local() => Ok(()),
        // Any public authority's certificate, for whatever name, would do (PostgreSQL manual, section 34.19.4).
        SslMode::VerifyCa if !has_ca => Err(Failure::settings(
            "sslmode verify-ca proves nothing with the system's authorities: set PROXY_CA, or use verify-full",
        )),
        SslMode::VerifyCa => Ok(()),
        SslMode::Disable | SslMode::Prefer | SslMode::Require => Err(Failure::settings(
            "a tunnel sends its tokens only to a proxy whose certificate is verified: use sslmode verify-full, with \
             PROXY_CA where the authority is not a public one",
        )),
    }
}

/// libpq's names.
fn parse(text: &str) -> Result<SslMode> {
    match text {
        "disable" => Ok(SslMode::Disable),
        // `allow` begins without TLS and asks for it when refused: a proxy on this computer refuses nothing of that.
        "prefer" | "allow" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => {
            Err(Failure::usage("sslmode: expected verify-full or verify-ca, or, for a proxy on this computer, require"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_needs_a_verified_proxy_or_one_on_this_computer() {
        let tcp = |host: &str| Endpoint::Tcp { host: host.into(), port: 7777 };
        for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
            let sslmode = parse(mode).unwrap();
            assert_eq!(check(sslmode, &tcp("gprxy.example"), false).is_ok(), mode == "verify-full", "{mode}");
            assert_eq!(check(sslmode, &tcp("10.0.0.1"), true).is_ok(), mode.starts_with("verify"), "{mode} with a CA");
            for local in ["localhost", "127.0.0.1", "::1"] {
                assert!(check(sslmode, &tcp(local), false).is_ok(), "{mode} to {local}");
            }
        }
        assert!(parse("on").is_err());
    }
}

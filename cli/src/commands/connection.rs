//! What libpq has to be told to reach the proxy: everything but the token.

use std::path::{Path, PathBuf};

use crate::config;
use crate::credentials::Credentials;
use crate::profile::{Profile, ProxyAddress, check_sslmode};
use crate::sso::failure::{Failure, Result};
use crate::sso::unverified;

/// The only one that keeps a token from whoever sits in between.
const SAFE_SSLMODE: &str = "verify-full";
/// Those that may go on without TLS at all.
const IN_CLEAR: [&str; 3] = ["disable", "allow", "prefer"];

/// Where systems keep the authorities that they trust. libpq before 16 has no name for them.
const SYSTEM_BUNDLES: [&str; 7] = [
    "/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",                  // older ones of these
    "/etc/ssl/ca-bundle.pem",                            // openSUSE
    "/etc/ssl/cert.pem",                                 // macOS, OpenBSD, Alpine
    "/opt/homebrew/etc/ca-certificates/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt", // FreeBSD
];

/// A way to the proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Connection {
    pub(crate) proxy: ProxyAddress,
    /// Whom the proxy is told; it lets nobody be anybody else.
    pub(crate) user: String,
    pub(crate) database: Option<String>,
    pub(crate) sslmode: String,
    pub(crate) sslrootcert: Option<PathBuf>,
}

impl Connection {
    /// From the profile and whoever is logged in; the command line may choose database and `sslmode`.
    pub(crate) fn new(
        profile: &Profile,
        credentials: &Credentials,
        database: Option<&str>,
        sslmode: Option<&str>,
    ) -> Result<Self> {
        let proxy = profile.proxy()?.clone();
        check_origin(profile, &proxy, credentials)?;
        let sslmode = sslmode.or(profile.proxy.sslmode.as_deref()).unwrap_or(SAFE_SSLMODE).to_owned();
        check_sslmode(&sslmode)?;
        if IN_CLEAR.contains(&sslmode.as_str()) && !proxy.is_loopback() {
            return Err(Failure::usage(format!(
                "sslmode={sslmode} would send the token to {proxy} without TLS if somebody in between asks for that; expected \
                 verify-full, verify-ca or require"
            )));
        }
        let sslrootcert = authorities(profile, &sslmode)?;
        let database = database.map(str::to_owned).or_else(|| profile.proxy.database.clone());
        let user = profile.proxy.user.clone().unwrap_or_else(|| own_name(credentials));
        if user.is_empty() {
            return Err(Failure::refused("the token does not say who you are; set user in the profile"));
        }
        for text in [Some(&user), database.as_ref()].into_iter().flatten() {
            if text.contains(char::is_control) {
                return Err(Failure::refused("the user or the database has a control character in its name"));
            }
        }
        Ok(Self { proxy, user, database, sslmode, sslrootcert })
    }

    /// libpq's variables for it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("PGHOST", self.proxy.host.clone()),
            ("PGPORT", self.proxy.port.to_string()),
            ("PGUSER", self.user.clone()),
        ];
        variables.extend(self.database.clone().map(|database| ("PGDATABASE", database)));
        variables.push(("PGSSLMODE", self.sslmode.clone()));
        variables.extend(self.sslrootcert.as_ref().map(|path| ("PGSSLROOTCERT", path.display().to_string())));
        // gprxy has no Kerberos; asking for it costs a round trip, or a question from a credential cache.
        variables.push(("PGGSSENCMODE", "disable".into()));
        variables
    }
}

/// A `.env` lies in whatever directory somebody works in, and whoever wrote it could send the token to a server of their
/// own. So it may name only the proxy that was set at login.
fn check_origin(profile: &Profile, proxy: &ProxyAddress, credentials: &Credentials) -> Result<()> {
    let known = &credentials.proxy;
    if !profile.proxy.is_from_dotenv || known.is_empty() || *known == proxy.to_string() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        ".env in this directory names the proxy {proxy}, and you logged in for {known}; your token is not sent there. If it is \
         right, run gprxy login --force here, or set PROXY_URL yourself"
    )))
}

/// The name that the proxy accepts from this token: the readable one where the token carries it, else the subject, which
/// it always does.
fn own_name(credentials: &Credentials) -> String {
    let claims = unverified(credentials.access_token.expose());
    let info = &credentials.user_info;
    let own = match &claims {
        Some(claims) => claims.text("email").or_else(|| claims.text("sub")),
        None => Some(info.email.as_str()).filter(|email| !email.is_empty()),
    };
    own.unwrap_or(&info.sub).to_owned()
}

/// The authorities that the proxy's certificate is verified with.
fn authorities(profile: &Profile, sslmode: &str) -> Result<Option<PathBuf>> {
    if let Some(path) = &profile.proxy.ca {
        // psql may run somewhere else than where `.env` lies.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        config::certificates(&path).map_err(|found| {
            Failure::settings(format!("proxy_ca: found {found}; expected a PEM file with the proxy's authority"))
        })?;
        return Ok(Some(path));
    }
    if !sslmode.starts_with("verify-") {
        return Ok(None);
    }
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    // libpq's own place comes first: somebody put a file there for this very purpose.
    let own = std::env::home_dir().map(|home| home.join(".postgresql/root.crt"));
    let candidates = own.into_iter().chain(named).chain(SYSTEM_BUNDLES.iter().map(PathBuf::from));
    let found = candidates.into_iter().find(|path| Path::is_file(path));
    found.map(Some).ok_or_else(|| {
        Failure::settings(
            "this system's certificate authorities were not found; set PROXY_CA or SSL_CERT_FILE to a PEM file",
        )
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::profile::{ProviderSettings, ProxySettings};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    pub(crate) fn credentials(claims: &Value) -> Credentials {
        let token = format!("eyJ9.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()));
        serde_json::from_value(json!({
            "access_token": token, "expires_at": "2999-01-01T00:00:00Z", "issued_at": "2026-01-01T00:00:00Z",
            "user_info": {"sub": "id-sub", "email": "id@corp.example"}, "proxy": "gprxy.example:7777",
        }))
        .unwrap()
    }

    fn profile(proxy: &str) -> Profile {
        let address = Some(ProxyAddress::parse(proxy).unwrap());
        Profile {
            name: "default".into(),
            provider: ProviderSettings::default(),
            proxy: ProxySettings { address, ..ProxySettings::default() },
            store: None,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn the_name_is_one_that_the_proxy_accepts() {
        assert_eq!(own_name(&credentials(&json!({"sub": "1", "email": "a@b"}))), "a@b");
        assert_eq!(
            own_name(&credentials(&json!({"sub": "auth0|1"}))),
            "auth0|1",
            "not the e-mail of the ID token alone"
        );
        let mut opaque = credentials(&json!({}));
        opaque.access_token = "opaque".into();
        assert_eq!(own_name(&opaque), "id@corp.example");
    }

    #[test]
    fn tokens_do_not_go_out_in_clear_but_on_this_machine() {
        let who = credentials(&json!({"sub": "1"}));
        for mode in ["disable", "allow", "prefer"] {
            let refused = Connection::new(&profile("gprxy.example"), &who, None, Some(mode));
            assert!(refused.is_err_and(|failure| failure.words.contains("TLS")), "{mode}");
            assert!(Connection::new(&profile("localhost"), &who, None, Some(mode)).is_ok(), "{mode}");
        }
        assert!(Connection::new(&profile("gprxy.example"), &who, None, Some("on")).is_err());
        assert_eq!(Connection::new(&profile("x"), &who, None, None).unwrap().sslmode, "verify-full");
    }

    #[test]
    fn a_dotenv_cannot_send_the_token_elsewhere() {
        let who = credentials(&json!({"sub": "1"}));
        let mut stranger = profile("evil.example:7777");
        assert!(Connection::new(&stranger, &who, None, None).is_ok(), "set by the person");
        stranger.proxy.is_from_dotenv = true;
        let failure = Connection::new(&stranger, &who, None, None).unwrap_err();
        assert!(failure.words.contains("gprxy.example:7777"), "{failure}");
        let mut same = profile("gprxy.example:7777");
        same.proxy.is_from_dotenv = true;
        assert!(Connection::new(&same, &who, None, None).is_ok());
    }

    #[test]
    fn names_with_line_breaks_are_refused() {
        let who = credentials(&json!({"sub": "a\nb"}));
        assert!(Connection::new(&profile("x"), &who, None, None).is_err());
        let who = credentials(&json!({"sub": "a"}));
        assert!(Connection::new(&profile("x"), &who, Some("a\nhost=b"), None).is_err());
    }
}

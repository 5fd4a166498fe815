//! A development OIDC issuer: discovery, one key, and tokens for whoever the demo says.
//!
//! **For demos and tests only.** It gives tokens without asking anybody anything. It listens on the loopback interface
//! under a path that says so, and `gprxy start` refuses to trust an issuer with that path.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use tiny_http::{Header, Method, Request, Response, Server};

use super::failure::{Failure, Result};

/// The path of every development issuer; `gprxy start` refuses issuers that have it.
const DEMO_ISSUER_PATH: &str = "/gprxy-demo-not-for-production";

const KEY_ID: &str = "demo";
/// RFC 7518, section 6.2.1: an uncompressed P-256 point is one byte of form and two coordinates of 32.
const COORDINATE_BYTES: usize = 32;

/// Who a token speaks for, and to whom.
#[derive(Clone, Debug)]
pub(super) struct Grant<'a> {
    /// `sub`: the identity.
    pub(super) subject: &'a str,
    /// `email`, said to be verified.
    pub(super) email: &'a str,
    /// `roles`.
    pub(super) roles: &'a [&'a str],
    /// `aud`.
    pub(super) audience: &'a str,
    /// `iat`.
    pub(super) issued: SystemTime,
    /// From `iat` to `exp`.
    pub(super) lifetime: Duration,
}

/// The running issuer; it stops when dropped.
pub(super) struct Issuer {
    url: String,
    key: EcdsaKeyPair,
    rng: SystemRandom,
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    /// Listens on a free port of 127.0.0.1 with a key that nobody has seen before.
    pub(super) fn start() -> Result<Self> {
        let (key, rng) = fresh_key()?;
        let server = Server::http(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .map_err(|error| Failure::broken(format!("cannot start the development issuer: {error}")))?;
        let Some(address) = server.server_addr().to_ip() else {
            return Err(Failure::broken("the development issuer has no address"));
        };
        let url = format!("http://{address}{DEMO_ISSUER_PATH}");
        let documents = Documents::new(&url, key.public_key().as_ref());
        let server = Arc::new(server);
        let listener = Arc::clone(&server);
        let thread = thread::spawn(move || {
            // Ends with `unblock`, or when the listener fails for good.
            while let Ok(request) = listener.recv() {
                documents.answer(request);
            }
        });
        Ok(Self { url, key, rng, server, thread: Some(thread) })
    }

    /// `iss`, to which `/.well-known/openid-configuration` is appended for discovery.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A signed token (RFC 7519, ES256).
    pub(super) fn mint(&self, grant: &Grant<'_>) -> Result<String> {
        let issued = grant.issued.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": KEY_ID });
        let claims = json!({
            "iss": self.url,
            "sub": grant.subject,
            "aud": grant.audience,
            "iat": issued,
            "exp": issued.saturating_add(grant.lifetime.as_secs()),
            "jti": random_hex(&self.rng, 8)?,
            "email": grant.email,
            "email_verified": true,
            "roles": grant.roles,
        });
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self
            .key
            .sign(&self.rng, signed.as_bytes())
            .map_err(|_| Failure::broken("cannot sign a token: the system gave no random bytes"))?;
        Ok(format!("{signed}.{}", encode(signature)))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has stopped too.
            let _ = thread.join();
        }
    }
}

/// `bytes` random bytes as hexadecimal digits.
pub(super) fn random_hex(rng: &SystemRandom, bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    rng.fill(&mut random).map_err(|_| Failure::broken("the system gave no random bytes"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn fresh_key() -> Result<(EcdsaKeyPair, SystemRandom)> {
    let rng = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &rng)
        .ok()
        .and_then(|pkcs8| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).ok())
        .ok_or_else(|| Failure::broken("cannot make a key for the development issuer"))?;
    Ok((key, rng))
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The two documents that a relying party reads.
struct Documents {
    discovery: String,
    jwks: String,
}

impl Documents {
    fn new(issuer: &str, point: &[u8]) -> Self {
        // ring gives P-256 points in exactly this form, 65 bytes long.
        let (x, y) = point[1..].split_at(COORDINATE_BYTES);
        let discovery = json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/jwks.json"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID,
            "x": encode(x), "y": encode(y),
        });
        Self { discovery: discovery.to_string(), jwks: json!({ "keys": [key] }).to_string() }
    }

    fn document(&self, url: &str) -> Option<&str> {
        match url.strip_prefix(DEMO_ISSUER_PATH)? {
            "/.well-known/openid-configuration" => Some(&self.discovery),
            "/jwks.json" => Some(&self.jwks),
            _ => None,
        }
    }

    fn answer(&self, request: Request) {
        let mut response = match (request.method(), self.document(request.url())) {
            (Method::Get | Method::Head, Some(document)) => Response::from_string(document),
            (_, Some(_)) => Response::from_string("{\"error\":\"GET only\"}").with_status_code(405),
            (_, None) => Response::from_string("{\"error\":\"discovery and keys only\"}").with_status_code(404),
        };
        // Replaces the `text/plain` that tiny_http assumes for strings.
        if let Ok(json) = Header::from_bytes("Content-Type", "application/json") {
            response.add_header(json);
        }
        // The reader went away: nothing to tell it.
        let _ = request.respond(response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use serde_json::Value;

    const HOUR: Duration = Duration::from_secs(3600);

    fn grant() -> Grant<'static> {
        Grant {
            subject: "u-alice",
            email: "alice@example.com",
            roles: &["reader"],
            audience: "gprxy-demo",
            issued: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            lifetime: HOUR,
        }
    }

    fn fetch(url: &str) -> Value {
        let body = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&body).unwrap()
    }

    fn part(token: &str, index: usize) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()
    }

    /// What a relying party does: discovery, keys, signature.
    fn verifies(issuer: &Issuer, token: &str) -> bool {
        let discovery = fetch(&format!("{}/.well-known/openid-configuration", issuer.url()));
        assert_eq!(discovery["issuer"], issuer.url());
        let keys = fetch(discovery["jwks_uri"].as_str().unwrap());
        let header: Value = serde_json::from_slice(&part(token, 0)).unwrap();
        let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap();
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let (signed, _) = token.rsplit_once('.').unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &part(token, 2)).is_ok()
    }

    #[test]
    fn a_token_verifies_against_the_published_key() {
        let issuer = Issuer::start().unwrap();
        let token = issuer.mint(&grant()).unwrap();
        assert!(token.starts_with("eyJ") && token.matches('.').count() == 2, "what gprxy takes for a token");
        assert!(verifies(&issuer, &token));
    }

    #[test]
    fn claims_are_what_was_granted() {
        let issuer = Issuer::start().unwrap();
        let claims: Value = serde_json::from_slice(&part(&issuer.mint(&grant()).unwrap(), 1)).unwrap();
        assert_eq!(claims["iss"], issuer.url());
        assert_eq!(claims["aud"], "gprxy-demo");
        assert_eq!(claims["email_verified"], true);
        assert_eq!(claims["roles"], json!(["reader"]));
        assert_eq!(claims["exp"].as_u64().unwrap(), 1_700_003_600);
    }

    #[test]
    fn another_issuers_token_does_not_verify() {
        let (ours, theirs) = (Issuer::start().unwrap(), Issuer::start().unwrap());
        assert!(!verifies(&ours, &theirs.mint(&grant()).unwrap()));
    }

    #[test]
    fn the_marker_stands_in_the_url() {
        let issuer = Issuer::start().unwrap();
        assert!(issuer.url().starts_with("http://127.0.0.1:") && issuer.url().ends_with(DEMO_ISSUER_PATH));
    }

    #[test]
    fn nothing_else_is_served() {
        let issuer = Issuer::start().unwrap();
        for path in ["", "/token", "/../etc/passwd"] {
            assert!(ureq::get(format!("{}{path}", issuer.url())).call().is_err(), "{path}");
        }
        assert!(ureq::post(format!("{}/jwks.json", issuer.url())).send("x").is_err());
    }
}

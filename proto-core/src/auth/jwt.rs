//! Tokens (RFC 7519, signed as in RFC 7515): evidence in, [`Authenticated`] out.
//!
//! ```text
//!            bytes ── three parts ── header ── issuer ── key ── signature ── claims ── Proven
//!                                                 │        │
//!                                                 │        └── none yet, or an unknown kid: NeedsKey
//!                                                 └── not configured: Refused
//! ```
//!
//! A [`Keyring`] is a snapshot that never changes: [`crate::auth::jwks::KeySets`] makes a new one when keys come or go, and
//! logins that are under way finish with the one they hold.

mod claim;
mod claims;
mod fault;
mod json;
mod key;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, Header};
use serde_json::{Map, Value};

pub use self::claim::{BadClaimPath, ClaimPath};
pub(crate) use self::claims::is_hidden;
use self::fault::TokenFault;
pub(crate) use self::json::parse as parse_json;
pub(crate) use self::key::PublicKey;
pub(crate) use self::settings::checked as checked_settings;
pub use self::settings::{IssuerSettings, KeySource, SettingsError};
use super::Authenticated;
use crate::fault::Refusal;
use crate::secret::Secret;
use crate::time::Now;

/// PostgreSQL itself takes passwords of up to 65,530 bytes; nothing larger can arrive as one.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// One of the configured issuers, by its place in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IssuerId(pub(crate) usize);

/// What a token turned out to be.
#[must_use]
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The proof of who sent it.
    Proven(Authenticated),
    /// It does not count, and never will.
    Refused(Refusal),
    /// It may be good, but the key that it names is not known (yet). Ask
    /// [`KeySets::handle_unknown_key`](crate::auth::jwks::KeySets::handle_unknown_key), wait for the fetch, try once more
    /// with the new keyring, and if it is this verdict again, answer with [`Keyring::without_key`].
    NeedsKey(IssuerId),
}

/// An issuer's settings and the keys that it publishes now.
#[derive(Clone, Debug)]
pub(crate) struct IssuerKeys {
    pub(crate) settings: Arc<IssuerSettings>,
    pub(crate) keys: Arc<[PublicKey]>,
}

/// All issuers with their current keys, as one immutable snapshot.
#[derive(Clone, Debug)]
pub struct Keyring {
    issuers: Vec<IssuerKeys>,
}

impl Keyring {
    pub(crate) fn new(issuers: Vec<IssuerKeys>) -> Self {
        Self { issuers }
    }

    /// Judges a token: work bounded by its size ([`MAX_TOKEN_BYTES`]) and the number of keys, no clock, no lock.
    pub fn verify(&self, token: &[u8], now: Now) -> Verdict {
        match self.judge(token, now) {
            Ok(verdict) => verdict,
            Err(fault) => Verdict::Refused(fault.into()),
        }
    }

    /// Whether tokens of this issuer are believed at all.
    #[must_use]
    pub fn trusts(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|known| *known.settings.issuer == *issuer)
    }

    /// The refusal for a token that still [needs a key](Verdict::NeedsKey) when waiting for one is over.
    #[must_use]
    pub fn without_key(&self, issuer: IssuerId) -> Refusal {
        match self.issuers.get(issuer.0) {
            Some(known) if known.keys.is_empty() => fault::keys_unavailable(),
            _ => TokenFault::UnknownKey.into(),
        }
    }

    /// How many keys each issuer has.
    #[cfg(test)]
    pub(crate) fn issuer_keys(&self) -> Vec<usize> {
        self.issuers.iter().map(|known| known.keys.len()).collect()
    }

    fn judge(&self, token: &[u8], now: Now) -> Result<Verdict, TokenFault> {
        let parts = Parts::split(token)?;
        let (algorithm, kid) = read_header(parts.header)?;
        let claims = object(parts.claims)?;
        let issuer = self.issuer_of(&claims)?;
        let known = &self.issuers[issuer.0];
        let identity = || claims::identity(&claims, &known.settings, now);
        let Some(keys) = candidates(&known.keys, algorithm, kid.as_deref())? else {
            // Nothing is proven, so nobody gets in; but a token that is expired anyway is told so, and costs no fetch.
            return identity().map(|_| Verdict::NeedsKey(issuer));
        };
        let signature = Secret::new(URL_SAFE_NO_PAD.decode(parts.signature).map_err(|_| TokenFault::Malformed)?);
        if !keys.iter().any(|key| key.verifies(algorithm, parts.signed, signature.expose())) {
            return Err(TokenFault::Signature);
        }
        identity().map(|identity| Verdict::Proven(Authenticated::new(identity)))
    }

    fn issuer_of(&self, claims: &Map<String, Value>) -> Result<IssuerId, TokenFault> {
        let value = claims.get("iss").ok_or_else(|| TokenFault::Missing { claim: "iss".into() })?;
        let Value::String(name) = value else {
            let found = json::type_name(value);
            return Err(TokenFault::WrongType { claim: "iss".into(), expected: "a string", found });
        };
        let place = self.issuers.iter().position(|known| known.settings.issuer == *name);
        place.map(IssuerId).ok_or(TokenFault::UnknownIssuer)
    }
}

/// The keys that may have made the signature: never an empty list. `None`: the issuer has none that the token could mean.
fn candidates<'a>(
    keys: &'a [PublicKey],
    algorithm: Algorithm,
    kid: Option<&str>,
) -> Result<Option<Vec<&'a PublicKey>>, TokenFault> {
    let named: Vec<&PublicKey> = keys.iter().filter(|key| kid.is_none() || key.id() == kid).collect();
    let fitting: Vec<&PublicKey> = named.iter().copied().filter(|key| key.fits(algorithm)).collect();
    match (kid, fitting.len()) {
        (None, 2..) => Err(TokenFault::AmbiguousKey),
        // The key is known, and it is for something else: whoever chose this algorithm does not own the key.
        (Some(_), 0) if !named.is_empty() => Err(TokenFault::Signature),
        (_, 0) => Ok(None),
        // Keys of one id and type are alternatives (RFC 7517 section 4.5).
        _ => Ok(Some(fitting)),
    }
}

/// The parts of a compact JWS (RFC 7515 section 3.1), still encoded.
struct Parts<'a> {
    header: &'a [u8],
    claims: &'a [u8],
    signature: &'a [u8],
    /// `header.claims`, over which the signature is made.
    signed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(token: &'a [u8]) -> Result<Self, TokenFault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenFault::TooLarge);
        }
        let mut dots = memchr::memchr_iter(b'.', token);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(TokenFault::Malformed);
        };
        Ok(Self {
            header: &token[..first],
            claims: &token[first + 1..second],
            signature: &token[second + 1..],
            signed: &token[..second],
        })
    }
}

/// The algorithm and the `kid`; everything else that a header may hold is either refused or ignored (`jku`, `jwk`, `x5u`
/// and `x5c` would let the sender bring the key along).
fn read_header(encoded: &[u8]) -> Result<(Algorithm, Option<String>), TokenFault> {
    let header = object(encoded)?;
    if header.contains_key("crit") {
        return Err(TokenFault::Critical);
    }
    let named = header.get("alg").and_then(Value::as_str).ok_or(TokenFault::Malformed)?;
    let algorithm: Algorithm = named.parse().map_err(|_| TokenFault::Algorithm)?;
    if algorithm.family() == AlgorithmFamily::Hmac {
        return Err(TokenFault::Algorithm);
    }
    // The parse refuses registered parameters of a wrong type.
    let header: Header = serde_json::from_value(Value::Object(header)).map_err(|_| TokenFault::Malformed)?;
    if header.typ.as_deref().is_some_and(|typ| !is_access_type(typ)) {
        return Err(TokenFault::NotForAccess);
    }
    Ok((algorithm, header.kid))
}

/// Whether a `typ` may stand on a token that identifies a person: `JWT`, `at+jwt` (RFC 9068), `id_token+jwt` and whatever
/// providers invent. The types that are statements about something else are refused, so that a token made for another
/// purpose does not open a database (RFC 8725 section 3.11).
fn is_access_type(typ: &str) -> bool {
    const SOMETHING_ELSE: [&str; 8] = [
        "logout+jwt",              // OpenID Connect Back-Channel Logout
        "secevent+jwt",            // RFC 8417
        "dpop+jwt",                // RFC 9449
        "token-introspection+jwt", // RFC 9701
        "oauth-authz-req+jwt",     // RFC 9101
        "client-authentication+jwt",
        "entity-statement+jwt", // OpenID Federation
        "refresh+jwt",
    ];
    // RFC 7515 section 4.1.9: the prefix may be left out, and media types are compared without case (RFC 2045).
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    !SOMETHING_ELSE.contains(&typ)
}

/// One encoded part as a JSON object.
fn object(encoded: &[u8]) -> Result<Map<String, Value>, TokenFault> {
    let text = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenFault::Malformed)?;
    match json::parse(&text) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(TokenFault::Malformed),
    }
}

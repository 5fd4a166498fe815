//! An issuer's public key: read from a JWK (RFC 7517), and used to verify with ring.
//!
//! Why not `jsonwebtoken::decode`: it finds its cryptography in a process-wide `CryptoProvider`, which panics when
//! nobody has installed one and silently belongs to whoever came first, an embedder's other library for instance. Which
//! code decides that a signature is good must not depend on that. So gprxy takes the types of jsonwebtoken (header,
//! algorithm names, JWK) and calls ring here, in one function, with no global and nothing to install.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use ring::signature as rs;
use serde_json::Value;

/// RSA moduli that ring's `RSA_*_2048_8192_*` verify, in bytes. RFC 7518 section 3.3 asks for 2048 bits at least.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// ring takes public exponents below 2^33.
const RSA_EXPONENT_MAX_BYTES: usize = 5;
/// No provider's key id comes near; it only keeps nonsense out.
const MAX_KEY_ID_BYTES: usize = 1024;

/// A public key that may verify tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PublicKey {
    id: Option<Box<str>>,
    /// The only algorithm for which the issuer meant it, when the set says so.
    only: Option<Algorithm>,
    material: Material,
}

/// The kind of key decides which algorithms it can serve; a token's header never does.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Material {
    /// Big-endian, without leading zeros.
    Rsa { n: Box<[u8]>, e: Box<[u8]> },
    /// An uncompressed point (SEC 1 section 2.3.3).
    P256(Box<[u8; 65]>),
    /// The same on the larger curve.
    P384(Box<[u8; 97]>),
    /// RFC 8032 section 5.1.5.
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// Reads one member of a key set. `None` for everything that cannot verify a token here: symmetric and encryption
    /// keys, curves that are not supported, weak or malformed keys. RFC 7517 section 5 asks to skip those.
    pub(crate) fn from_jwk(jwk: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return None;
        }
        if common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify)) {
            return None;
        }
        let only = match common.key_algorithm.map(Algorithm::try_from) {
            Some(Ok(algorithm)) => Some(algorithm),
            // An algorithm that jsonwebtoken does not know is still a restriction.
            Some(Err(_)) => return None,
            None => None,
        };
        let id = common.key_id.as_deref();
        if id.is_some_and(|id| id.len() > MAX_KEY_ID_BYTES) {
            return None;
        }
        let key = Self { id: id.map(Into::into), only, material: Material::from_parameters(&jwk.algorithm)? };
        // A key whose declared algorithm does not fit its own type serves none.
        (only.is_none_or(|algorithm| key.fits(algorithm))).then_some(key)
    }

    /// The `kid` in the set.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether this key may verify signatures of that algorithm. Always false for HS*: there is no symmetric material.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        self.only.is_none_or(|only| only == algorithm) && self.material.verifier(algorithm).is_some()
    }

    /// Whether the signature over `message` was made by the owner of this key with that algorithm.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self.only.is_some_and(|only| only != algorithm) {
            return false;
        }
        match (self.material.verifier(algorithm), &self.material) {
            (Some(Verifier::Rsa(parameters)), Material::Rsa { n, e }) => {
                rs::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            (Some(Verifier::Point(parameters)), Material::P256(point)) => {
                rs::UnparsedPublicKey::new(parameters, point.as_slice()).verify(message, signature).is_ok()
            }
            (Some(Verifier::Point(parameters)), Material::P384(point)) => {
                rs::UnparsedPublicKey::new(parameters, point.as_slice()).verify(message, signature).is_ok()
            }
            (Some(Verifier::Point(parameters)), Material::Ed25519(point)) => {
                rs::UnparsedPublicKey::new(parameters, point.as_slice()).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

enum Verifier {
    Rsa(&'static rs::RsaParameters),
    Point(&'static dyn rs::VerificationAlgorithm),
}

impl Material {
    fn from_parameters(parameters: &AlgorithmParameters) -> Option<Self> {
        match parameters {
            AlgorithmParameters::RSA(rsa) => {
                let (n, e) = (integer(&rsa.n)?, integer(&rsa.e)?);
                (RSA_MODULUS_BYTES.contains(&n.len()) && e.len() <= RSA_EXPONENT_MAX_BYTES)
                    .then_some(Self::Rsa { n, e })
            }
            // RFC 7518 section 6.2.1.2: coordinates have the full length of the curve's field.
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => Some(Self::P256(point::<32, 65>(&ec.x, &ec.y)?)),
                EllipticCurve::P384 => Some(Self::P384(point::<48, 97>(&ec.x, &ec.y)?)),
                _ => None,
            },
            // RFC 8037 section 2.
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                Some(Self::Ed25519(URL_SAFE_NO_PAD.decode(&okp.x).ok()?.try_into().ok()?))
            }
            _ => None,
        }
    }

    /// The one table that says which kind of key serves which algorithm (RFC 7518 section 3.1, RFC 8037 section 3.1).
    fn verifier(&self, algorithm: Algorithm) -> Option<Verifier> {
        Some(match (self, algorithm) {
            (Self::Rsa { .. }, Algorithm::RS256) => Verifier::Rsa(&rs::RSA_PKCS1_2048_8192_SHA256),
            (Self::Rsa { .. }, Algorithm::RS384) => Verifier::Rsa(&rs::RSA_PKCS1_2048_8192_SHA384),
            (Self::Rsa { .. }, Algorithm::RS512) => Verifier::Rsa(&rs::RSA_PKCS1_2048_8192_SHA512),
            (Self::Rsa { .. }, Algorithm::PS256) => Verifier::Rsa(&rs::RSA_PSS_2048_8192_SHA256),
            (Self::Rsa { .. }, Algorithm::PS384) => Verifier::Rsa(&rs::RSA_PSS_2048_8192_SHA384),
            (Self::Rsa { .. }, Algorithm::PS512) => Verifier::Rsa(&rs::RSA_PSS_2048_8192_SHA512),
            (Self::P256(_), Algorithm::ES256) => Verifier::Point(&rs::ECDSA_P256_SHA256_FIXED),
            (Self::P384(_), Algorithm::ES384) => Verifier::Point(&rs::ECDSA_P384_SHA384_FIXED),
            (Self::Ed25519(_), Algorithm::EdDSA) => Verifier::Point(&rs::ED25519),
            _ => return None,
        })
    }
}

/// A Base64urlUInt (RFC 7518 section 2). Leading zeros are against the RFC, but some providers send the sign byte of
/// their big-integer library, which changes nothing about the number.
fn integer(text: &str) -> Option<Box<[u8]>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[start..].into())
}

/// `0x04 || x || y`. `POINT` is `1 + 2 * FIELD`.
fn point<const FIELD: usize, const POINT: usize>(x: &str, y: &str) -> Option<Box<[u8; POINT]>> {
    let (x, y) = (URL_SAFE_NO_PAD.decode(x).ok()?, URL_SAFE_NO_PAD.decode(y).ok()?);
    if x.len() != FIELD || y.len() != FIELD {
        return None;
    }
    let mut point = Vec::with_capacity(POINT);
    point.push(0x04);
    point.extend_from_slice(&x);
    point.extend_from_slice(&y);
    point.into_boxed_slice().try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::tokens::TestKey;

    const ALL: [Algorithm; 12] = [
        Algorithm::HS256,
        Algorithm::HS384,
        Algorithm::HS512,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];

    fn fitting(key: &PublicKey) -> Vec<Algorithm> {
        ALL.into_iter().filter(|algorithm| key.fits(*algorithm)).collect()
    }

    fn with(mut jwk: Value, key: &str, value: Value) -> Value {
        jwk[key] = value;
        jwk
    }

    #[test]
    fn a_key_serves_the_algorithms_of_its_type_and_no_other() {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let any = |key: TestKey| PublicKey::from_jwk(key.jwk()).unwrap();
        assert_eq!(fitting(&any(TestKey::rsa("k"))), [RS256, RS384, RS512, PS256, PS384, PS512]);
        assert_eq!(fitting(&any(TestKey::es256("k"))), [ES256]);
        assert_eq!(fitting(&any(TestKey::es384("k"))), [ES384]);
        assert_eq!(fitting(&any(TestKey::ed25519("k"))), [EdDSA]);
    }

    #[test]
    fn each_algorithm_verifies_its_own_signature_only() {
        for key in [TestKey::rsa("k"), TestKey::es256("k"), TestKey::es384("k"), TestKey::ed25519("k")] {
            let public = PublicKey::from_jwk(key.jwk()).unwrap();
            for signed_with in fitting(&public) {
                let signature = key.sign(signed_with, b"message");
                for verified_as in ALL {
                    let good = public.verifies(verified_as, b"message", &signature);
                    assert_eq!(good, signed_with == verified_as, "{signed_with:?} as {verified_as:?}");
                }
                assert!(!public.verifies(signed_with, b"massage", &signature));
                assert!(!public.verifies(signed_with, b"message", &signature[..signature.len() - 1]));
                assert!(!public.verifies(signed_with, b"message", b""));
            }
        }
    }

    #[test]
    fn what_the_set_says_about_a_key_is_honoured() {
        let jwk = TestKey::rsa("k").jwk();
        let read = |key: &str, value: Value| PublicKey::from_jwk(with(jwk.clone(), key, value));
        assert_eq!(fitting(&read("alg", json!("PS384")).unwrap()), [Algorithm::PS384]);
        assert!(read("use", json!("sig")).is_some());
        assert!(read("key_ops", json!(["verify"])).is_some());
        for (key, value) in [
            ("alg", json!("ES256")),
            ("alg", json!("HS256")),
            ("alg", json!("RSA-OAEP")),
            ("alg", json!("XY999")),
            ("use", json!("enc")),
            ("use", json!(7)),
            ("key_ops", json!(["encrypt", "wrapKey"])),
            ("key_ops", json!([])),
            ("kid", json!(7)),
            ("kid", json!("k".repeat(1025))),
        ] {
            assert!(read(key, value.clone()).is_none(), "{key}: {value}");
        }
    }

    #[test]
    fn a_declared_algorithm_binds_the_signature_check_too() {
        let key = TestKey::rsa("k");
        let public = PublicKey::from_jwk(with(key.jwk(), "alg", json!("RS256"))).unwrap();
        assert!(public.verifies(Algorithm::RS256, b"m", &key.sign(Algorithm::RS256, b"m")));
        assert!(!public.verifies(Algorithm::PS256, b"m", &key.sign(Algorithm::PS256, b"m")));
    }

    #[test]
    fn unusable_keys_are_skipped() {
        let ec = TestKey::es256("k").jwk();
        let ed = TestKey::ed25519("k").jwk();
        let rsa = TestKey::rsa("k").jwk();
        let short = URL_SAFE_NO_PAD.encode([0x80; 128]);
        for bad in [
            json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
            json!({}),
            json!(null),
            json!("x"),
            with(ec.clone(), "crv", json!("P-521")),
            with(ec.clone(), "crv", json!("P-384")),
            with(ec.clone(), "crv", json!("secp256k1")),
            with(ec, "x", json!("AAAA")),
            with(ed.clone(), "crv", json!("X25519")),
            with(ed.clone(), "crv", json!("Ed448")),
            with(ed, "x", json!("AAAA")),
            with(rsa.clone(), "n", json!(short)),
            with(rsa.clone(), "n", json!("")),
            with(rsa.clone(), "n", json!("!!")),
            with(rsa, "e", json!("AQABAQABAQ")),
        ] {
            assert!(PublicKey::from_jwk(bad.clone()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_leading_zero_in_a_modulus_changes_nothing() {
        let key = TestKey::rsa("k");
        let n = URL_SAFE_NO_PAD.decode(key.jwk()["n"].as_str().unwrap()).unwrap();
        let padded = URL_SAFE_NO_PAD.encode([&[0], n.as_slice()].concat());
        let public = PublicKey::from_jwk(with(key.jwk(), "n", json!(padded))).unwrap();
        assert!(public.verifies(Algorithm::RS256, b"m", &key.sign(Algorithm::RS256, b"m")));
    }
}

//! Keys that sign tokens for tests. Nothing here is secret, and nothing here may ever be trusted outside of a test.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use ring::rand::SystemRandom;
use ring::signature as rs;
use ring::signature::KeyPair as _;
use serde_json::{Value, json};

/// Made with `openssl genpkey -algorithm RSA` for this repository: ring cannot generate RSA keys.
const RSA_A: &[u8] = include_bytes!("keys/rsa-2048-a.der");
const RSA_B: &[u8] = include_bytes!("keys/rsa-2048-b.der");

/// A key pair with its key id.
pub struct TestKey {
    kid: String,
    pair: Pair,
}

enum Pair {
    Rsa(rs::RsaKeyPair),
    P256(rs::EcdsaKeyPair),
    P384(rs::EcdsaKeyPair),
    Ed25519(rs::Ed25519KeyPair),
}

/// Claims that every verifier accepts: valid from `now` for five minutes.
#[must_use]
pub fn claims(issuer: &str, audience: &str, subject: &str, now_secs: i64) -> Value {
    json!({
        "iss": issuer, "aud": audience, "sub": subject, "email": format!("{subject}@corp.example"),
        "email_verified": true, "iat": now_secs, "nbf": now_secs, "exp": now_secs + 300, "roles": ["reader"],
    })
}

/// A key set document (RFC 7517 section 5) with these keys.
#[must_use]
pub fn key_set(keys: &[&TestKey]) -> Vec<u8> {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string().into_bytes()
}

impl TestKey {
    /// An RSA key of 2048 bits, always the same one.
    #[must_use]
    pub fn rsa(kid: &str) -> Self {
        Self::rsa_from(kid, RSA_A)
    }

    /// Another RSA key.
    #[must_use]
    pub fn other_rsa(kid: &str) -> Self {
        Self::rsa_from(kid, RSA_B)
    }

    fn rsa_from(kid: &str, der: &[u8]) -> Self {
        Self { kid: kid.into(), pair: Pair::Rsa(rs::RsaKeyPair::from_der(der).expect("the key is embedded")) }
    }

    /// A fresh key on P-256.
    #[must_use]
    pub fn es256(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::P256(ecdsa(&rs::ECDSA_P256_SHA256_FIXED_SIGNING)) }
    }

    /// A fresh key on P-384.
    #[must_use]
    pub fn es384(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::P384(ecdsa(&rs::ECDSA_P384_SHA384_FIXED_SIGNING)) }
    }

    /// The Ed25519 key that belongs to its key id.
    #[must_use]
    pub fn ed25519(kid: &str) -> Self {
        let seed = ring::digest::digest(&ring::digest::SHA256, kid.as_bytes());
        let pair = rs::Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).expect("a seed has 32 bytes");
        Self { kid: kid.into(), pair: Pair::Ed25519(pair) }
    }

    /// The key id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm that [`Self::token`] uses.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Rsa(_) => Algorithm::RS256,
            Pair::P256(_) => Algorithm::ES256,
            Pair::P384(_) => Algorithm::ES384,
            Pair::Ed25519(_) => Algorithm::EdDSA,
        }
    }

    /// The public half as a JWK, with `kty`, `kid` and the key itself only.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.pair {
            Pair::Rsa(pair) => {
                let public = rs::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "kid": self.kid, "n": encode(&public.n), "e": encode(&public.e)})
            }
            Pair::P256(pair) | Pair::P384(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "kid": self.kid, "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "kid": self.kid, "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
        }
    }

    /// The bare signature. An algorithm that does not fit the key is a mistake in the test, and panics.
    #[must_use]
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match (&self.pair, algorithm) {
            (Pair::Rsa(pair), _) => {
                let padding: &dyn rs::RsaEncoding = match algorithm {
                    Algorithm::RS256 => &rs::RSA_PKCS1_SHA256,
                    Algorithm::RS384 => &rs::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &rs::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &rs::RSA_PSS_SHA256,
                    Algorithm::PS384 => &rs::RSA_PSS_SHA384,
                    Algorithm::PS512 => &rs::RSA_PSS_SHA512,
                    other => panic!("an RSA key cannot sign {other:?}"),
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &rng, message, &mut signature).expect("the key is good");
                signature
            }
            (Pair::P256(pair), Algorithm::ES256) | (Pair::P384(pair), Algorithm::ES384) => {
                pair.sign(&rng, message).expect("the key is good").as_ref().to_vec()
            }
            (Pair::Ed25519(pair), Algorithm::EdDSA) => pair.sign(message).as_ref().to_vec(),
            (_, other) => panic!("this key cannot sign {other:?}"),
        }
    }

    /// A token over these claims, with the usual header.
    #[must_use]
    pub fn token(&self, claims: &Value) -> Vec<u8> {
        self.token_with(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.kid}), claims)
    }

    /// A token with a header of one's own; its `alg`, if it is one of this key's, is the one that signs.
    #[must_use]
    pub fn token_with(&self, header: &Value, claims: &Value) -> Vec<u8> {
        let named = header["alg"].as_str().and_then(|name| name.parse::<Algorithm>().ok());
        let fits = |named: &Algorithm| match self.pair {
            Pair::Rsa(_) => named.family() == jsonwebtoken::AlgorithmFamily::Rsa,
            _ => *named == self.algorithm(),
        };
        let algorithm = named.filter(fits).unwrap_or(self.algorithm());
        self.token_of(algorithm, header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    /// A token over any bytes at all.
    #[must_use]
    pub fn token_of(&self, algorithm: Algorithm, header: &[u8], claims: &[u8]) -> Vec<u8> {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()
    }
}

fn ecdsa(algorithm: &'static rs::EcdsaSigningAlgorithm) -> rs::EcdsaKeyPair {
    let rng = SystemRandom::new();
    let document = rs::EcdsaKeyPair::generate_pkcs8(algorithm, &rng).expect("the system has randomness");
    rs::EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &rng).expect("just generated")
}

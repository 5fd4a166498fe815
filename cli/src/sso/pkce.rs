//! Random values of one login, and the proof key (RFC 7636) that makes a stolen code worthless.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gprxy_proto::secret::Secret;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::failure::{Failure, Result};

/// A text that nobody can guess: 32 random bytes, as RFC 7636 section 4.1 recommends.
pub(super) fn random() -> Result<Secret<String>> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::unavailable("the system gave no random bytes"))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// The verifier and what is shown of it.
pub(super) struct ProofKey {
    pub(super) verifier: Secret<String>,
}

impl ProofKey {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { verifier: random()? })
    }

    /// Section 4.2, method S256. `plain` is no option: it would show the verifier itself.
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.expose().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7636_appendix_b() {
        let key = ProofKey { verifier: Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into()) };
        assert_eq!(key.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn values_are_long_and_never_the_same() {
        let (one, other) = (random().unwrap(), random().unwrap());
        assert_eq!(one.expose().len(), 43);
        assert_ne!(one.expose(), other.expose());
    }
}

//! The operating system's randomness.

use ring::rand::{SecureRandom, SystemRandom};

use crate::entropy::Entropy;

/// Random bytes for cancel keys and nonces.
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// The system's generator.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    /// # Panics
    /// When the operating system has no randomness to give: no key may be made of anything less.
    fn fill(&mut self, out: &mut [u8]) {
        assert!(self.0.fill(out).is_ok(), "the operating system gives no random bytes");
    }
}

//! Where tokens for server connections come from, when the server is another gprxy.

use crate::fault::Refusal;
use crate::secret::Secret;

/// Gives a token that is still good, for each server connection anew.
pub trait TokenSource: Send + Sync + 'static {
    /// One for a login that begins now. It is called where blocking is allowed, and may ask an identity provider; it
    /// gives up by itself.
    ///
    /// # Errors
    /// What the client is told: why there is none, and what to do. No part of a token is in it.
    fn fresh(&self) -> Result<Secret<Vec<u8>>, Refusal>;
}

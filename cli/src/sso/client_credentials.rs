//! Machines that log in by themselves (RFC 6749 section 4.4).

use super::failure::{Failure, Result};
use super::provider::Provider;
use super::tokens::{self, Tokens};

/// A token for the client itself.
pub(crate) fn for_machine(provider: &Provider<'_>) -> Result<Tokens> {
    if provider.client_secret().is_none() {
        return Err(Failure::settings(
            "client_secret is not set: a machine logs in with one; expected the variable GPRXY_CLIENT_SECRET, or \
             client_secret = \"file:PATH\" in the profile",
        ));
    }
    // There is no person to name: the scopes of people are asked for only where somebody set them.
    let scopes = provider.profile.provider.scopes.as_ref().map(|scopes| scopes.join(" "));
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(scopes.as_deref().map(|scopes| ("scope", scopes)));
    form.extend(provider.target());
    tokens::request(provider, &form)?
        .map_err(|error| Failure::refused(format!("the provider refuses the client: {error}; {}", error.advice())))
}

//! Single sign-on as a client: how tokens are got, checked, renewed and given back (OpenID Connect Core 1.0, RFC 6749,
//! 7009, 7636, 8252, 8628).
//!
//! ```text
//!  authorization ──┐                            ┌─▶ id_token ─▶ claims
//!  device ─────────┼─▶ token endpoint ─ Tokens ─┤
//!  client_creds. ──┘        ▲                   └─▶ credentials
//!                           └── renew, under the store's lock
//! ```

mod authorization;
mod callback;
mod claims;
mod client_credentials;
mod device;
pub(crate) mod failure;
mod http;
mod id_token;
mod page;
mod pkce;
mod provider;
mod renew;
mod revoke;
mod tokens;

pub(crate) use authorization::{Browsing, authorize};
pub(crate) use claims::unverified;
pub(crate) use client_credentials::for_machine;
pub(crate) use device::by_device;
pub(crate) use provider::Provider;
pub(crate) use renew::{current, first, fresh, renewed, shown};
pub(crate) use revoke::{Revoked, revoke};

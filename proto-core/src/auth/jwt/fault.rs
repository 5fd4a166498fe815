//! Why a token does not count, and how its sender is told: one table.
//!
//! The words help a person (an expired token says so) and not a forger: what a token claims is judged aloud only after its
//! signature was good, or when no key could ever make it good. No word and no byte of a token stands in a message;
//! names of claims and audiences come from the configuration.

use crate::fault::{Refusal, SqlState};

/// What is wrong with a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum TokenFault {
    TooLarge,
    /// Not three parts, not base64url, not JSON, or JSON with duplicate keys.
    Malformed,
    /// `none`, HS*, or something unknown.
    Algorithm,
    /// An extension that must be understood (RFC 7515 section 4.1.11).
    Critical,
    /// A `typ` that says that this is something else.
    NotForAccess,
    UnknownIssuer,
    UnknownKey,
    /// No `kid`, and more than one key fits.
    AmbiguousKey,
    Signature,
    Expired,
    NotYetValid,
    Audience {
        expected: String,
    },
    Missing {
        claim: String,
    },
    /// A claim of another JSON type than it must have.
    WrongType {
        claim: String,
        expected: &'static str,
        found: &'static str,
    },
    /// Empty, too long or too many, or with characters that could forge a log line.
    Unfit {
        claim: String,
        expected: &'static str,
    },
    NoUser {
        claims: String,
    },
    EmailNotVerified,
}

const LOG_IN: &str = "Log in again at your identity provider, and send the new access token as the password.";
const ASK_PROVIDER: &str =
    "Ask whoever runs the identity provider or gprxy; the issuer's settings and its claims do not match.";

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        let (message, hint) = match fault {
            TokenFault::TooLarge => ("the token is larger than 64 KiB".into(), ASK_PROVIDER),
            TokenFault::Malformed => ("the password looks like a token, but is not a well-formed one".into(), LOG_IN),
            TokenFault::Algorithm => (
                "the token is signed with an algorithm that is not accepted; expected RS256, RS384, RS512, PS256, PS384, \
                 PS512, ES256, ES384 or EdDSA"
                    .into(),
                ASK_PROVIDER,
            ),
            TokenFault::Critical => {
                ("the token demands an extension (\"crit\") that gprxy does not implement".into(), ASK_PROVIDER)
            }
            TokenFault::NotForAccess => ("the token is of a type that does not identify a user".into(), LOG_IN),
            TokenFault::UnknownIssuer => ("the token's issuer is not one that gprxy is configured for".into(), LOG_IN),
            TokenFault::UnknownKey => ("the token is signed with a key that its issuer does not publish".into(), LOG_IN),
            TokenFault::AmbiguousKey => {
                ("the token does not say which of its issuer's keys signed it".into(), ASK_PROVIDER)
            }
            TokenFault::Signature => ("the token's signature does not verify".into(), LOG_IN),
            TokenFault::Expired => ("the token has expired".into(), LOG_IN),
            TokenFault::NotYetValid => (
                "the token is not valid yet".into(),
                "Compare the clocks of the identity provider and of gprxy, or wait a moment and try again.",
            ),
            TokenFault::Audience { expected } => (
                format!("the token was not made for this server: expected the audience {expected}"),
                "Log in again at your identity provider; if that does not help, compare the configured audience.",
            ),
            TokenFault::Missing { claim } => (format!("the token has no claim \"{claim}\""), ASK_PROVIDER),
            TokenFault::WrongType { claim, expected, found } => {
                (format!("the token's claim \"{claim}\" is {found}, expected {expected}"), ASK_PROVIDER)
            }
            TokenFault::Unfit { claim, expected } => {
                (format!("the token's claim \"{claim}\" cannot be used: expected {expected}"), ASK_PROVIDER)
            }
            TokenFault::NoUser { claims } => {
                (format!("the token does not name its user: expected the claim {claims}"), ASK_PROVIDER)
            }
            TokenFault::EmailNotVerified => (
                "the token's e-mail address is not verified".into(),
                "Verify the address at the identity provider, then log in there again.",
            ),
        };
        Self::new(SqlState::INVALID_PASSWORD, message).hint(hint)
    }
}

/// For a token whose issuer's keys could not be had: the sender did nothing wrong, and may try again.
pub(crate) fn keys_unavailable() -> Refusal {
    Refusal::new(
        SqlState::CANNOT_CONNECT_NOW,
        "the token cannot be verified now: gprxy has no keys of its issuer, because they could not be fetched",
    )
    .hint("Try again in a minute; `gprxy check` on the server shows why the identity provider does not answer.")
}

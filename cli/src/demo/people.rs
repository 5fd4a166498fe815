//! Who takes part in the story, and the tokens that they hold.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::failure::{Failure, Result};
use super::issuer::{Grant, Issuer};
use super::proxy::AUDIENCE;

/// As long as a demo may stay open on somebody's second screen.
const WORKDAY: Duration = Duration::from_secs(12 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A person of the story.
#[derive(Clone, Debug)]
pub(super) struct Person {
    /// The first name, as the story calls them.
    pub(super) name: &'static str,
    /// The identity in the token, and the PostgreSQL user name that they log in with.
    pub(super) email: &'static str,
    subject: &'static str,
    role: &'static str,
}

/// Reads.
pub(super) const ALICE: Person =
    Person { name: "alice", email: "alice@example.com", subject: "demo|alice", role: "reader" };
/// Writes.
pub(super) const BOB: Person = Person { name: "bob", email: "bob@example.com", subject: "demo|bob", role: "writer" };
/// May read, and wants to be somebody else.
pub(super) const MALLORY: Person =
    Person { name: "mallory", email: "mallory@example.com", subject: "demo|mallory", role: "reader" };

impl Person {
    /// A token for this working day.
    pub(super) fn token(&self, issuer: &Issuer) -> Result<String> {
        issuer.mint(&self.grant(SystemTime::now(), WORKDAY))
    }

    /// A token that was good until a while ago, longer than any clock leeway.
    pub(super) fn expired_token(&self, issuer: &Issuer) -> Result<String> {
        let issued = SystemTime::now().checked_sub(2 * HOUR);
        issuer.mint(&self.grant(issued.unwrap_or(SystemTime::UNIX_EPOCH), HOUR))
    }

    fn grant(&self, issued: SystemTime, lifetime: Duration) -> Grant<'_> {
        Grant {
            subject: self.subject,
            email: self.email,
            roles: std::slice::from_ref(&self.role),
            audience: AUDIENCE,
            issued,
            lifetime,
        }
    }
}

/// The token with another role in its claims, under the old signature: what its holder could do with a text editor.
pub(super) fn with_role(token: &str, role: &str) -> Result<String> {
    let broken = || Failure::broken("the development issuer made a token that is none");
    let mut parts: Vec<&str> = token.split('.').collect();
    let payload = parts.get(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).ok_or_else(broken)?;
    let mut claims: serde_json::Value = serde_json::from_slice(&payload).map_err(|_| broken())?;
    claims["roles"] = serde_json::json!([role]);
    let edited = URL_SAFE_NO_PAD.encode(claims.to_string());
    parts[1] = &edited;
    Ok(parts.join("."))
}

/// Enough of a token to recognise it, and nothing to log in with.
pub(super) fn abbreviated(token: &str) -> String {
    match (token.get(..6), token.len().checked_sub(4).and_then(|end| token.get(end..))) {
        (Some(head), Some(tail)) if token.len() > 20 => format!("{head}…{tail}"),
        _ => "…".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(token: &str) -> serde_json::Value {
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice(&payload).unwrap()
    }

    #[test]
    fn an_edited_token_keeps_everything_but_the_role() {
        let issuer = Issuer::start().unwrap();
        let token = ALICE.token(&issuer).unwrap();
        let edited = with_role(&token, "writer").unwrap();
        assert_eq!(claims(&edited)["roles"], serde_json::json!(["writer"]));
        assert_eq!(claims(&edited)["exp"], claims(&token)["exp"]);
        assert_eq!(edited.rsplit_once('.').unwrap().1, token.rsplit_once('.').unwrap().1, "the old signature");
        assert!(with_role("no token", "writer").is_err());
    }

    #[test]
    fn the_expired_token_has_expired_beyond_any_leeway() {
        let issuer = Issuer::start().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let expiry = claims(&ALICE.expired_token(&issuer).unwrap())["exp"].as_u64().unwrap();
        assert!(expiry + 3000 < now);
        assert!(claims(&ALICE.token(&issuer).unwrap())["exp"].as_u64().unwrap() > now);
    }

    #[test]
    fn an_abbreviated_token_cannot_be_used() {
        assert_eq!(abbreviated("eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.abc.defg"), "eyJhbG…defg");
        assert_eq!(abbreviated("short"), "…");
    }
}

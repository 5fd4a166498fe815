//! Requests to a provider: https or this machine, bounded in time and size, without redirects; and what their answers
//! tell about this computer's clock.

use std::cell::Cell;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gprxy_proto::secret::Secret;
use jiff::Timestamp;
use ureq::Agent;
use ureq::http::Response;

use super::failure::{Failure, Result};
use crate::config::parse_url;

/// Documents and answers are a few kilobytes; tokens of people in very many groups take some more.
const MAX_BODY: u64 = 1 << 20;

/// A client for one command.
pub(crate) struct Http {
    agent: Agent,
    /// How far this computer's clock is ahead of the server that answered last, in seconds.
    ahead: Cell<Option<i64>>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// It may hold tokens.
    pub(crate) body: Secret<Vec<u8>>,
}

/// How a client proves who it is at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy)]
pub(crate) enum ClientProof<'a> {
    /// A native application has no secret that it could keep.
    None,
    Basic {
        id: &'a str,
        secret: &'a Secret<String>,
    },
    Post {
        secret: &'a Secret<String>,
    },
}

impl Http {
    pub(crate) fn new() -> Self {
        Self { agent: crate::http::agent(), ahead: Cell::new(None) }
    }

    /// How far this computer's clock is ahead of the provider's, in seconds; below zero when it is behind.
    pub(crate) fn clock_ahead(&self) -> Option<i64> {
        self.ahead.get()
    }

    /// GET, for JSON.
    pub(crate) fn get(&self, url: &str) -> Result<Answer> {
        let shown = checked(url)?;
        let response = self.agent.get(url).header("accept", "application/json").call();
        self.answer(shown, response)
    }

    /// POST of a form (RFC 6749 appendix B), for JSON.
    pub(crate) fn post(&self, url: &str, form: &[(&str, &str)], proof: ClientProof<'_>) -> Result<Answer> {
        let shown = checked(url)?;
        let mut form = form.to_vec();
        let mut request = self.agent.post(url).header("accept", "application/json");
        match proof {
            ClientProof::None => {}
            ClientProof::Basic { id, secret } => {
                // Each part is form-encoded before the two are joined, so that a colon in one cannot split them.
                let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let joined = Secret::new(format!("{}:{}", encode(id), encode(secret.expose())));
                let value = Secret::new(format!("Basic {}", STANDARD.encode(joined.expose())));
                request = request.header("authorization", value.expose().as_str());
            }
            ClientProof::Post { secret } => form.push(("client_secret", secret.expose())),
        }
        self.answer(shown, request.send_form(form))
    }

    fn answer(&self, url: &str, response: std::result::Result<Response<ureq::Body>, ureq::Error>) -> Result<Answer> {
        let unreachable = |error: &ureq::Error| {
            Failure::unavailable(format!("the provider cannot be reached at {url}: {}", words(error)))
        };
        let mut response = response.map_err(|error| unreachable(&error))?;
        let date = response.headers().get("date").and_then(|value| value.to_str().ok());
        if let Some(ahead) = date.and_then(|date| clock_ahead(date, Timestamp::now())) {
            self.ahead.set(Some(ahead));
        }
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec();
        Ok(Answer { status, body: Secret::new(body.map_err(|error| unreachable(&error))?) })
    }
}

/// The URL without its query, for messages; a URL that may not be spoken to is refused.
fn checked(url: &str) -> Result<&str> {
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    match parse_url(url) {
        Ok(parsed) if parsed.is_safe() => Ok(shown),
        _ => Err(Failure::refused(format!("the provider names {shown:?}, which is neither https nor on this machine"))),
    }
}

fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "it did not answer within 10 s".into(),
        ureq::Error::Io(error) => crate::config::io_words(error),
        other => other.to_string(),
    }
}

/// The difference to the header `Date` (RFC 9110 section 6.6.1).
fn clock_ahead(date: &str, now: Timestamp) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(now.as_second() - theirs.as_second())
}

/// `4 minutes ahead`, when a clock is wrong by so much that tokens may be refused for it.
pub(crate) fn clock_fault(ahead: Option<i64>) -> Option<String> {
    /// The proxy's own leeway: what is within it does no harm.
    const HARMLESS: Duration = Duration::from_secs(60);
    let ahead = ahead.filter(|seconds| seconds.unsigned_abs() > HARMLESS.as_secs())?;
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let minutes = ahead.unsigned_abs().div_ceil(60);
    Some(format!("this computer's clock is about {minutes} minutes {direction} the provider's; set it right"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_this_machine_are_spoken_to() {
        for good in ["https://idp.example/x?token=1", "http://127.0.0.1:1/x"] {
            assert!(!checked(good).unwrap().contains("token"), "{good}");
        }
        for bad in ["http://idp.example/x", "ftp://idp.example", "", "https://u@idp.example"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_clock_is_seen_in_the_providers_answers() {
        let now = "1994-11-06T08:53:37Z".parse().unwrap();
        let ahead = clock_ahead("Sun, 06 Nov 1994 08:49:37 GMT", now);
        assert_eq!(ahead, Some(240));
        assert!(clock_fault(ahead).unwrap().contains("4 minutes ahead of"));
        assert!(clock_fault(Some(-3600)).unwrap().contains("60 minutes behind"));
        assert_eq!((clock_fault(Some(-60)), clock_fault(None), clock_ahead("now", now)), (None, None, None));
    }
}

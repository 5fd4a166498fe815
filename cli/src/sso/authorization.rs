//! Logging in with a browser: the authorization code grant (RFC 6749 section 4.1) of a native application (RFC 8252) with
//! PKCE, state and nonce.
//!
//! ```text
//!  listen at the callback ─▶ browser at the provider ─▶ GET /callback?code&state ─▶ token endpoint ─▶ page, tokens
//!                                                    └▶ error, 5 minutes, Ctrl-C: the end, with a message
//! ```

use std::io::ErrorKind;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gprxy_proto::secret::{Secret, equal_in_constant_time};

use super::callback::{Answer, Listener, Visit};
use super::claims::{UserClaims, unverified, user_info};
use super::failure::{Failure, Result};
use super::page::Page;
use super::pkce::{ProofKey, random};
use super::provider::Provider;
use super::tokens::{self, OAuthError, Tokens};
use super::{http, id_token};
use crate::spinner::Spinner;

/// How often the spinner turns and the sockets are looked at.
const TURN: Duration = Duration::from_millis(80);

/// Who opens the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Browsing {
    /// We do.
    Open,
    /// The person does.
    Printed,
}

/// One login, from its random values to its end.
struct Attempt<'a> {
    provider: &'a Provider<'a>,
    state: Secret<String>,
    nonce: Secret<String>,
    key: ProofKey,
    redirect_uri: String,
}

/// What a visit to the callback means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    /// The provider's code for this login.
    Code(&'a str),
    /// The provider's no.
    Error(OAuthError),
    /// Nothing of this login.
    Stranger,
}

/// Takes the person through the provider's pages; the tokens and the ID token's claims.
pub(crate) fn authorize(
    provider: &Provider<'_>,
    browsing: Browsing,
    patience: Duration,
) -> Result<(Tokens, Option<UserClaims>)> {
    let endpoint = provider.metadata.authorization_endpoint.as_deref();
    let endpoint = endpoint.ok_or_else(|| {
        Failure::settings("the provider has no page to log in at (authorization_endpoint); try gprxy login --device")
    })?;
    if provider.metadata.lacks_s256() {
        let words = "the provider does not check proof keys (PKCE with S256), so a stolen code would be worth something; \
                     gprxy login --device does without";
        return Err(Failure::settings(words));
    }
    let listener = listen(provider, endpoint)?;
    let attempt = Attempt::new(provider, listener.port())?;
    let url = attempt.url(endpoint)?;
    let trouble = invite(&url, browsing, &provider.metadata.issuer);
    if browsing == Browsing::Printed && std::env::var_os("SSH_CONNECTION").is_some() {
        let port = listener.port();
        eprintln!(
            "If your browser runs where you came from, connect once more with: ssh -L {port}:localhost:{port} …\n"
        );
    }
    attempt.wait(&listener, &trouble, &url, patience)
}

/// Says where to log in, and opens the page if asked to; what is received is a browser that could not be opened.
fn invite(url: &str, browsing: Browsing, issuer: &str) -> mpsc::Receiver<()> {
    let (tell, trouble) = mpsc::channel();
    match browsing {
        Browsing::Printed => {
            eprintln!("To log in at {issuer}, open this page in a browser on this computer:\n\n{url}\n")
        }
        Browsing::Open => {
            eprintln!("Opening your browser to log in at {issuer}. If nothing opens, visit:\n\n{url}\n");
            let url = url.to_owned();
            // Some openers only end with the browser.
            thread::spawn(move || {
                if webbrowser::open(&url).is_err() {
                    // Nobody listens any more when the login is over already.
                    let _ = tell.send(());
                }
            });
        }
    }
    trouble
}

/// At the callback's port, or at a free one where nobody chose and the provider takes any (RFC 8252 section 7.3).
fn listen(provider: &Provider<'_>, endpoint: &str) -> Result<Listener> {
    let callback = &provider.profile.provider.callback;
    let error = match Listener::bind(callback, callback.port) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let uri = callback.uri(callback.port);
    let cannot = |why: &str| {
        let words = format!(
            "gprxy cannot listen at {uri}, where the browser comes back to: {why}; end the program that uses the port, set \
             CALLBACK_URL to another one that the provider knows, or use gprxy login --device"
        );
        Err(Failure::refused(words))
    };
    if error.kind() != ErrorKind::AddrInUse || callback.is_chosen {
        return cannot(&crate::config::io_words(&error));
    }
    let Ok(listener) = Listener::bind(callback, 0) else { return cannot("no port is free") };
    // A provider that does not know the new URI shows an error page and never comes back. So it is asked first, with
    // values that are used for nothing else.
    let trial = Attempt::new(provider, listener.port())?.url(endpoint)?;
    match provider.http.get(&trial) {
        Ok(answer) if answer.status < 400 => Ok(listener),
        Ok(_) => cannot("the port is in use, and the provider takes no other"),
        Err(failure) => Err(failure),
    }
}

impl<'a> Attempt<'a> {
    fn new(provider: &'a Provider<'a>, port: u16) -> Result<Self> {
        let redirect_uri = provider.profile.provider.callback.uri(port);
        Ok(Self { provider, state: random()?, nonce: random()?, key: ProofKey::new()?, redirect_uri })
    }

    /// The authorization request (RFC 6749 section 4.1.1, OpenID Connect Core section 3.1.2.1).
    fn url(&self, endpoint: &str) -> Result<String> {
        let settings = &self.provider.profile.provider;
        let mut url = url::Url::parse(endpoint).map_err(|_| {
            Failure::settings(format!("the provider names {endpoint:?} as its login page, which is no URL"))
        })?;
        let challenge = self.key.challenge();
        let scopes = self.provider.scopes();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.provider.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", &scopes)
            .append_pair("state", self.state.expose())
            .append_pair("nonce", self.nonce.expose())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(self.provider.target());
        let optional = [("connection", &settings.connection), ("prompt", &settings.prompt)];
        query.extend_pairs(optional.iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
        drop(query);
        Ok(url.into())
    }

    fn wait(
        &self,
        listener: &Listener,
        trouble: &mpsc::Receiver<()>,
        url: &str,
        patience: Duration,
    ) -> Result<(Tokens, Option<UserClaims>)> {
        let end = Instant::now() + patience;
        let mut spinner = Spinner::new();
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            spinner.turn(&format!("waiting for you in the browser ({} left, Ctrl-C gives up)", minutes(left)));
            if trouble.try_recv().is_ok() {
                spinner.clear();
                eprintln!("No browser could be opened. Open the page above yourself, or use gprxy login --device.");
            }
            let Some(visit) = listener.next(TURN.min(left)) else { continue };
            match self.judge(visit.answer()) {
                Meaning::Stranger => visit.reply(&Page::stranger()),
                meaning => {
                    spinner.turn("asking the provider for the tokens");
                    let meaning = self.settle(&meaning);
                    spinner.clear();
                    return finish(visit, meaning);
                }
            }
        }
        spinner.clear();
        let uri = &self.redirect_uri;
        let page = url.split('?').next().unwrap_or_default();
        Err(Failure::refused(format!(
            "nobody logged in at {page} within {}. If the browser showed an error, the provider may not know the callback \
             URL {uri} or this client; try again with gprxy login, or with gprxy login --device",
            minutes(patience)
        )))
    }

    /// Whoever asks for the callback may be anybody on this machine, or any page that the person has open: only the state
    /// tells that it is the provider. An error needs none: some providers send it without, and all that it can do is to
    /// end this login.
    fn judge<'v>(&self, answer: &'v Answer) -> Meaning<'v> {
        let state = answer.state.as_deref().unwrap_or_default();
        let is_ours = equal_in_constant_time(state.as_bytes(), self.state.expose().as_bytes());
        if answer.is_ambiguous || (!is_ours && answer.state.is_some()) {
            return Meaning::Stranger;
        }
        match (&answer.error, &answer.code) {
            (Some(code), _) => {
                Meaning::Error(OAuthError { code: code.clone(), description: answer.error_description.clone() })
            }
            (None, Some(code)) if is_ours && self.is_from_issuer(answer) => Meaning::Code(code),
            _ => Meaning::Stranger,
        }
    }

    /// RFC 9207: another provider's code must not be sent to this one.
    fn is_from_issuer(&self, answer: &Answer) -> bool {
        let metadata = &self.provider.metadata;
        match &answer.iss {
            Some(issuer) => *issuer == metadata.issuer,
            None => !metadata.authorization_response_iss_parameter_supported,
        }
    }

    /// From the provider's answer to tokens.
    fn settle(&self, meaning: &Meaning<'_>) -> Result<(Tokens, Option<UserClaims>)> {
        let refused = |error: &OAuthError| {
            Failure::refused(format!("the provider refuses the login: {error}; {}", error.advice()))
        };
        let code = match meaning {
            Meaning::Code(code) => code,
            Meaning::Error(error) => return Err(refused(error)),
            Meaning::Stranger => return Err(Failure::refused("the answer belongs to another login")),
        };
        let form = [
            ("grant_type", "authorization_code"),
            ("code", *code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", self.key.verifier.expose()),
        ];
        let tokens = tokens::request(self.provider, &form)?.map_err(|error| refused(&error))?;
        let claims = match &tokens.id {
            Some(token) => Some(id_token::verify(self.provider, token.expose(), Some(self.nonce.expose()))?),
            // OpenID Connect Core section 3.1.3.3: whoever asks with this scope gets one.
            None if self.provider.scopes().split(' ').any(|scope| scope == "openid") => {
                return Err(Failure::refused("the provider gave no ID token, so nothing says who logged in"));
            }
            // Plain OAuth, by somebody's own choice of scopes: nothing but PKCE ties the tokens to this login.
            None => None,
        };
        if let Some(clock) = http::clock_fault(self.provider.http.clock_ahead()) {
            eprintln!("gprxy: warning: {clock}");
        }
        Ok((tokens, claims))
    }
}

/// Shows the person in the browser what came of it.
fn finish(visit: Visit, outcome: Result<(Tokens, Option<UserClaims>)>) -> Result<(Tokens, Option<UserClaims>)> {
    match &outcome {
        Ok((tokens, claims)) => {
            let person = user_info(claims.as_ref(), unverified(tokens.access.expose()).as_ref()).shown();
            visit.reply(&Page::success(&person));
        }
        Err(failure) => visit.reply(&Page::failure(&failure.words)),
    }
    outcome
}

/// `4:59`.
fn minutes(span: Duration) -> String {
    let seconds = span.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests;

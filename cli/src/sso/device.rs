//! Logging in with another device (RFC 8628): for computers without a display.

use std::thread;
use std::time::{Duration, Instant};

use gprxy_proto::secret::Secret;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::Deserialize;

use super::claims::UserClaims;
use super::failure::{Failure, Kind, Result, foreign};
use super::id_token;
use super::provider::Provider;
use super::tokens::{self, OAuthError, Tokens};
use crate::config::parse_url;
use crate::logging::one_line;
use crate::spinner::{self, Spinner};

/// Section 3.2: what a missing interval means.
const USUAL_INTERVAL: Duration = Duration::from_secs(5);
/// Section 3.5: `slow_down` adds this for all further requests.
const SLOWER: Duration = Duration::from_secs(5);
/// A longer one would leave a person staring at a login that they finished minutes ago.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// Codes of every provider end within this.
const MAX_LIFETIME: Duration = Duration::from_secs(1800);
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The device authorization response (section 3.2).
#[derive(Deserialize)]
struct Authorization {
    device_code: String,
    user_code: String,
    /// Google's name is older than the RFC's.
    #[serde(alias = "verification_url")]
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: Option<f64>,
    interval: Option<f64>,
}

/// Shows a code, and waits until it was entered somewhere.
pub(crate) fn by_device(provider: &Provider<'_>, patience: Option<Duration>) -> Result<(Tokens, Option<UserClaims>)> {
    let authorization = begin(provider)?;
    authorization.show();
    let tokens = authorization.wait(provider, patience)?;
    let claims = match &tokens.id {
        Some(token) => Some(id_token::verify(provider, token.expose(), None)?),
        None => None,
    };
    if let Some(clock) = super::http::clock_fault(provider.http.clock_ahead()) {
        eprintln!("gprxy: warning: {clock}");
    }
    Ok((tokens, claims))
}

fn begin(provider: &Provider<'_>) -> Result<Authorization> {
    let endpoint = provider.metadata.device_authorization_endpoint.as_deref();
    let endpoint = endpoint.ok_or_else(|| {
        Failure::settings(
            "the provider has no login by device (device_authorization_endpoint); use gprxy login without --device",
        )
    })?;
    let scopes = provider.scopes();
    let mut form = vec![("client_id", provider.client_id.as_str()), ("scope", scopes.as_str())];
    form.extend(provider.target());
    let answer = provider.http.post(endpoint, &form, provider.proof())?;
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        error_description: Option<String>,
    }
    if let Ok(Refusal { error, error_description }) = serde_json::from_slice(answer.body.expose()) {
        let error = OAuthError { code: error, description: error_description };
        return Err(Failure::refused(format!("the provider refuses the login by device: {error}; {}", error.advice())));
    }
    let authorization: Authorization = serde_json::from_slice(answer.body.expose()).map_err(|_| {
        let words = format!("the provider answers a login by device with HTTP status {} and no code", answer.status);
        if answer.status >= 500 { Failure::unavailable(words) } else { Failure::refused(words) }
    })?;
    authorization.check()?;
    Ok(authorization)
}

impl Authorization {
    /// What is shown to a person must be a page they can trust their terminal about.
    fn check(&self) -> Result<()> {
        let page = |url: &String| parse_url(url).is_ok_and(|parsed| parsed.is_safe());
        let is_sound = page(&self.verification_uri) && self.verification_uri_complete.as_ref().is_none_or(page);
        if is_sound && !self.user_code.is_empty() && self.user_code.len() <= 64 {
            return Ok(());
        }
        let shown = foreign(&self.verification_uri);
        Err(Failure::refused(format!(
            "the provider sends people to {shown:?}; expected an https page and a short code"
        )))
    }

    fn show(&self) {
        let (page, code) = (one_line(&self.verification_uri), one_line(&self.user_code));
        eprintln!(
            "To log in, open this page in any browser, on this or another device:\n\n{page}\n\nand enter the code:\n\n{code}\n"
        );
        let url = self.verification_uri_complete.as_deref().unwrap_or(&self.verification_uri);
        if let Some(picture) = spinner::columns().and_then(|columns| picture(url, columns)) {
            eprintln!("or point the camera of a phone here, and compare the code:\n\n{picture}");
        }
    }

    fn wait(&self, provider: &Provider<'_>, patience: Option<Duration>) -> Result<Tokens> {
        let mut pace = Pace::new(self.interval);
        let lifetime = self.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let lifetime = lifetime.unwrap_or(MAX_LIFETIME).min(MAX_LIFETIME);
        let end = Instant::now() + patience.map_or(lifetime, |patience| patience.min(lifetime));
        let code = Secret::new(self.device_code.clone());
        let form = [("grant_type", GRANT), ("device_code", code.expose().as_str())];
        let mut spinner = Spinner::new();
        loop {
            if !pause(&mut spinner, pace.interval, end) {
                spinner.clear();
                return Err(Failure::refused(
                    "the code has expired before anybody entered it; try again with gprxy login",
                ));
            }
            let refused = match tokens::request(provider, &form) {
                Ok(Ok(tokens)) => return Ok(tokens),
                Ok(Err(error)) => error,
                // Section 3.5: a provider that cannot be reached now is asked again, less often.
                Err(failure) if failure.kind == Kind::Unavailable => {
                    pace.back_off();
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if !pace.goes_on_after(&refused) {
                spinner.clear();
                let advice =
                    if refused.code == "expired_token" { "the code has expired; try again" } else { refused.advice() };
                return Err(Failure::refused(format!("the provider refuses the login: {refused}; {advice}")));
            }
        }
    }
}

/// How long to wait between two requests.
struct Pace {
    interval: Duration,
}

impl Pace {
    fn new(told: Option<f64>) -> Self {
        let told = told.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Self { interval: told.unwrap_or(USUAL_INTERVAL).clamp(Duration::from_secs(1), MAX_INTERVAL) }
    }

    fn goes_on_after(&mut self, error: &OAuthError) -> bool {
        match error.code.as_str() {
            "authorization_pending" => true,
            "slow_down" => {
                self.interval = (self.interval + SLOWER).min(MAX_INTERVAL);
                true
            }
            _ => false,
        }
    }

    fn back_off(&mut self) {
        self.interval = (self.interval * 2).min(MAX_INTERVAL);
    }
}

/// Waits with the spinner turning; false when the end comes first.
fn pause(spinner: &mut Spinner, interval: Duration, end: Instant) -> bool {
    let next = Instant::now() + interval;
    if next > end {
        return false;
    }
    while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        let whole = end.saturating_duration_since(Instant::now()).as_secs();
        spinner.turn(&format!(
            "waiting for the code to be entered ({}:{:02} left, Ctrl-C gives up)",
            whole / 60,
            whole % 60
        ));
        thread::sleep(left.min(Duration::from_millis(80)));
    }
    true
}

/// Two modules a character, dark on light whatever the terminal's colours are: cameras read it that way round. `None` when
/// it is wider than the terminal, with four modules of quiet on each side (ISO/IEC 18004, section 6.3.8).
fn picture(url: &str, columns: usize) -> Option<String> {
    const QUIET: usize = 8;
    let code = QrCode::new(url.as_bytes()).ok().filter(|code| code.width() + QUIET <= columns)?;
    let text = code.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).build();
    let lines: Vec<String> = text.lines().map(|line| format!("\x1b[30;107m{line}\x1b[0m\n")).collect();
    Some(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str) -> OAuthError {
        OAuthError { code: code.into(), description: None }
    }

    #[test]
    fn the_pace_is_that_of_rfc_8628() {
        let mut pace = Pace::new(None);
        assert_eq!(pace.interval.as_secs(), 5, "section 3.2");
        assert!(pace.goes_on_after(&error("authorization_pending")));
        assert_eq!(pace.interval.as_secs(), 5);
        assert!(pace.goes_on_after(&error("slow_down")) && pace.goes_on_after(&error("slow_down")));
        assert_eq!(pace.interval.as_secs(), 15, "section 3.5: five more each time");
        pace.back_off();
        assert_eq!(pace.interval.as_secs(), 30);
        for over in ["access_denied", "expired_token", "invalid_grant", "server_error"] {
            assert!(!pace.goes_on_after(&error(over)), "{over}");
        }
        for (told, seconds) in [(Some(0.0), 1), (Some(1e9), 60), (Some(-1.0), 5), (Some(f64::NAN), 5)] {
            assert_eq!(Pace::new(told).interval.as_secs(), seconds, "{told:?}");
        }
    }

    #[test]
    fn pages_that_a_person_is_sent_to_are_https() {
        let authorization = |page: &str, complete: Option<&str>, code: &str| Authorization {
            device_code: "d".into(),
            user_code: code.into(),
            verification_uri: page.into(),
            verification_uri_complete: complete.map(str::to_owned),
            expires_in: None,
            interval: None,
        };
        assert!(authorization("https://idp.example/device", None, "ABCD-EFGH").check().is_ok());
        for (page, complete, code) in [
            ("http://idp.example/device", None, "A"),
            ("javascript:alert(1)", None, "A"),
            ("https://idp.example/device\u{1b}[2J", None, "A"),
            ("https://idp.example/device", Some("http://idp.example/x"), "A"),
            ("https://idp.example/device", None, ""),
        ] {
            assert!(authorization(page, complete, code).check().is_err(), "{page}");
        }
    }

    #[test]
    fn the_picture_has_the_same_width_in_every_line() {
        let url = "https://idp.example/device?user_code=ABCD-EFGH";
        let picture = picture(url, 80).unwrap();
        let widths: std::collections::BTreeSet<usize> = picture.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 1);
        assert!(super::picture(url, 30).is_none(), "wider than the terminal");
        assert!(super::picture(&"x".repeat(100_000), 1000).is_none(), "more than a QR code holds");
    }
}

//! Fetching issuers' documents: one bounded GET, on a thread where blocking is allowed.

use std::io::Read as _;
use std::time::Duration;

use crate::auth::jwks::Fetched;

/// A key set or discovery document is a few KiB; this is the limit that the key cache names, too.
const MAX_BODY: u64 = 1024 * 1024;

/// Gets a document. The agent brings time limits and authorities, and follows no redirects: what an issuer publishes
/// is where it says.
///
/// # Errors
/// When there is no answer, in the words of the library.
pub fn get(agent: &ureq::Agent, url: &str, etag: Option<&str>) -> Result<Fetched, String> {
    let mut request = agent.get(url).header("Accept", "application/json");
    if let Some(etag) = etag {
        request = request.header("If-None-Match", etag);
    }
    let response = request.call().map_err(|error| error.to_string())?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = response.status().as_u16();
    let etag = header("etag");
    let max_age = header("cache-control").as_deref().and_then(max_age);
    let mut body = Vec::new();
    let mut reader = response.into_body().into_reader().take(MAX_BODY + 1);
    reader.read_to_end(&mut body).map_err(|error| error.to_string())?;
    Ok(Fetched { status, body, etag, max_age })
}

/// `max-age` of a Cache-Control header (RFC 9111 section 5.2.2.1); `no-store` and `no-cache` count as zero.
fn max_age(header: &str) -> Option<Duration> {
    header.split(',').map(str::trim).find_map(|directive| {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        let (name, value) = directive.split_once('=')?;
        let seconds = value.trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| Duration::from_secs(seconds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_max_age_wherever_it_stands() {
        assert_eq!(max_age("public, max-age=300, must-revalidate"), Some(Duration::from_secs(300)));
        assert_eq!(max_age("Max-Age=\"60\""), Some(Duration::from_secs(60)));
        assert_eq!(max_age("no-store"), Some(Duration::ZERO));
        assert_eq!(max_age("public"), None);
        assert_eq!(max_age("max-age=soon"), None);
    }
}

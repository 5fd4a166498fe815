//! `[[issuer]]`: whose tokens are believed.

use std::time::Duration;

use super::DEMO_ISSUER_PATH;
use super::draft::Draft;
use super::kinds::{List, Span, Words};
use super::problem::{Problem, quoted};
use super::reader::{Entry, Reader};
use super::schema;
use super::settings::{IssuerConfig, Proof};
use super::url;

/// The issuer of an Auth0 tenant, as it stands in its tokens.
pub(crate) fn auth0_issuer(tenant: &str) -> String {
    format!("https://{}/", tenant.trim())
}

/// Reads all issuers; the same one twice is a problem, and so is none.
pub(crate) fn issuers(entries: Vec<Entry>, proof: &Proof, allow_demo: bool, draft: &mut Draft) -> Vec<IssuerConfig> {
    if !proof.is_token() && !entries.is_empty() {
        draft.warn("[[issuer]] has no effect with this server.auth_type: nobody is let in by a token");
    }
    if entries.is_empty() && proof.is_token() {
        draft.problem(Problem::missing("issuer", "at least one [[issuer]], or AUTH0_TENANT with AUDIENCE"));
    }
    let mut issuers: Vec<IssuerConfig> = Vec::new();
    for (nth, entry) in entries.into_iter().enumerate() {
        let place = format!("issuer[{}]", nth + 1);
        let mut reader = Reader::new(&schema::ISSUER, entry, &place, "[[issuer]]", draft);
        if let Some(config) = issuer(&mut reader, allow_demo) {
            if issuers.iter().any(|earlier| earlier.issuer == config.issuer) {
                let name = if reader.is_set("auth0_tenant") { "auth0_tenant" } else { "issuer" };
                reader.reject(name, format!("{} a second time", quoted(&config.issuer)), "each issuer once");
            }
            issuers.push(config);
        }
        reader.finish();
    }
    issuers
}

fn issuer(reader: &mut Reader<'_>, allow_demo: bool) -> Option<IssuerConfig> {
    let (issuer, keys_of_tenant) = name(reader, allow_demo);
    let absent = keys_of_tenant.as_ref().map_or("not set, discovery tells".to_owned(), |url| format!("not set, {url}"));
    let stated = reader.optional_or("jwks_url", &Words("the URL of the issuer's key set"), &absent);
    if let Some(text) = &stated {
        match url::parse(text) {
            Ok(url) if url.is_safe() => {}
            Ok(_) => reader.reject("jwks_url", quoted(text), "https, or http on this machine"),
            Err(found) => reader.reject("jwks_url", found, "an https URL"),
        }
    }
    let audiences = match reader.optional("audience", &List("one or more audiences")) {
        Some(audiences) => audiences,
        None => {
            if !reader.is_set("audience") {
                reader.require("audience", "what the issuer's tokens name in \"aud\" (environment AUDIENCE)");
            }
            Vec::new()
        }
    };
    let client_id = reader.optional("client_id", &Words("the id of an OAuth client"));
    // Clocks that differ by more are broken, and every second of leeway is a second that a stolen token lives longer.
    let leeway = reader.read("leeway", &Span { min: Duration::ZERO, max: Duration::from_secs(600) });
    let required_claims = reader.optional("required_claims", &List("a list of claim names")).unwrap_or_default();
    let user_claims = reader.read("user_claims", &List("a list of claim names, the first one present counts"));
    let roles_claims = reader.read("roles_claims", &List("a list of claim names or paths, all of them are taken"));
    Some(IssuerConfig {
        issuer: issuer?,
        jwks_url: stated.or(keys_of_tenant),
        audiences,
        leeway,
        required_claims,
        user_claims,
        roles_claims,
        client_id,
    })
}

/// The issuer's URL from either setting, and for a tenant the URL of its keys.
fn name(reader: &mut Reader<'_>, allow_demo: bool) -> (Option<String>, Option<String>) {
    const TENANT: &str = "the host name of an Auth0 tenant such as tenant.eu.auth0.com";
    let tenant = reader.optional("auth0_tenant", &Words(TENANT));
    let absent = tenant.as_deref().map_or("not set".to_owned(), |tenant| format!("not set, {}", auth0_issuer(tenant)));
    let issuer = reader.optional_or("issuer", &Words("the issuer's URL as it stands in \"iss\""), &absent);
    match (issuer, tenant) {
        (Some(text), None) => {
            check_issuer(reader, &text, allow_demo);
            (Some(text), None)
        }
        (issuer, Some(tenant)) => {
            let url = auth0_issuer(&tenant);
            let sound = url::parse(&url).is_ok_and(|parsed| parsed.path == "/");
            if !sound {
                reader.reject("auth0_tenant", quoted(&tenant), TENANT);
            }
            if issuer.is_some_and(|issuer| issuer != url) {
                reader.reject("issuer", "another issuer than that of auth0_tenant", "one of the two settings");
            }
            let keys = format!("{url}.well-known/jwks.json");
            (Some(url), Some(keys))
        }
        (None, None) => {
            if !reader.is_set("issuer") && !reader.is_set("auth0_tenant") {
                reader.require("issuer", "the issuer's URL, or auth0_tenant");
            }
            (None, None)
        }
    }
}

fn check_issuer(reader: &mut Reader<'_>, text: &str, allow_demo: bool) {
    // OpenID Connect Discovery 1.0, section 3: https, no query and no fragment.
    match url::parse(text) {
        Err(found) => reader.reject("issuer", found, "an https URL"),
        Ok(url) if !url.is_safe() => reader.reject("issuer", quoted(text), "https, or http on this machine"),
        Ok(url) if url.path.contains(['?', '#']) => {
            reader.reject("issuer", quoted(text), "a URL without query and fragment");
        }
        Ok(url) if url.path.contains(DEMO_ISSUER_PATH) && !(allow_demo && url::is_loopback(url.host)) => {
            let found = "the development issuer of `gprxy demo`, which signs a token for anybody";
            reader.reject("issuer", found, "the issuer of your identity provider");
        }
        Ok(_) => {}
    }
}

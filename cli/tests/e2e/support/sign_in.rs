//! A person at the provider's login page, played over plain HTTP.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

const CALLBACK: &str = "http://127.0.0.1:53682/callback";

/// Neither follows redirects nor turns a status into an error nor uses a proxy of the environment.
pub(crate) fn agent() -> Agent {
    Agent::config_builder().max_redirects(0).http_status_as_error(false).proxy(None).build().new_agent()
}

fn access_token(mut response: Response<ureq::Body>) -> String {
    let text = response.body_mut().read_to_string().unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON from the token endpoint: {text}"));
    body["access_token"].as_str().unwrap_or_else(|| panic!("no access token: {text}")).to_owned()
}

/// RFC 6749 section 4.4.
pub(crate) fn client_credentials(issuer: &str, resource: &str) -> String {
    let basic = STANDARD.encode("nightly-batch:nightly-batch-secret-for-tests");
    let form = [("grant_type", "client_credentials"), ("scope", "sql"), ("resource", resource)];
    let request = agent().post(format!("{issuer}/token")).header("authorization", format!("Basic {basic}"));
    access_token(request.send_form(form).unwrap())
}

/// RFC 6749 section 4.1 with RFC 7636: the whole way from the authorization request to the access token.
pub(crate) fn code_and_pkce(issuer: &str, person: &str, resource: &str) -> String {
    let verifier = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, person.as_bytes()));
    let challenge = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes()));
    let start = format!(
        "{issuer}/auth?client_id=gprxy-cli&response_type=code&redirect_uri={CALLBACK}&scope=openid+email+offline_access+sql\
         &prompt=consent&resource={resource}&code_challenge={challenge}&code_challenge_method=S256&state=s1"
    );
    let arrival = Browser { issuer, cookies: BTreeMap::new() }.walk(start, person);
    let code = arrival
        .split(['?', '&'])
        .find_map(|part| part.strip_prefix("code="))
        .unwrap_or_else(|| panic!("the provider sent no code: {arrival}"));
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "gprxy-cli"),
        ("code", code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", &verifier),
    ];
    access_token(agent().post(format!("{issuer}/token")).send_form(form).unwrap())
}

struct Browser<'a> {
    issuer: &'a str,
    cookies: BTreeMap<String, String>,
}

impl Browser<'_> {
    /// From page to page, filling in what is asked, until the provider sends us to the callback.
    fn walk(mut self, mut url: String, person: &str) -> String {
        for _ in 0..12 {
            let mut response = self.visit(&url, None);
            let mut next = location(&response);
            if next.is_none() {
                let page = response.body_mut().read_to_string().unwrap();
                let form: Vec<(&str, &str)> = if page.contains(r#"name="prompt" value="login""#) {
                    vec![("prompt", "login"), ("login", person), ("password", "anything")]
                } else if page.contains(r#"name="prompt" value="consent""#) {
                    vec![("prompt", "consent")]
                } else {
                    panic!("neither a login nor a consent page at {url}: {page}");
                };
                next = location(&self.visit(&url, Some(&form)));
            }
            url = next.expect("every step of the sign-in redirects");
            if url.starts_with('/') {
                url.insert_str(0, self.issuer);
            }
            if url.starts_with(CALLBACK) {
                return url;
            }
        }
        panic!("the sign-in goes in circles at {url}");
    }

    fn visit(&mut self, url: &str, form: Option<&[(&str, &str)]>) -> Response<ureq::Body> {
        let jar: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let jar = jar.join("; ");
        let response = match form {
            None => agent().get(url).header("cookie", jar).call(),
            Some(form) => agent().post(url).header("cookie", jar).send_form(form.iter().copied()),
        }
        .unwrap();
        for cookie in response.headers().get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap_or_default();
            match pair.split_once('=').unwrap_or((pair, "")) {
                (name, "") => drop(self.cookies.remove(name)),
                (name, value) => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        response
    }
}

fn location(response: &Response<ureq::Body>) -> Option<String> {
    Some(response.headers().get("location")?.to_str().unwrap().to_owned())
}

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
    let arrival = Browser::new(issuer, person).walk(start);
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

/// A browser without pictures, and the person in front of it.
pub(crate) struct Browser<'a> {
    issuer: &'a str,
    person: &'a str,
    cookies: BTreeMap<String, String>,
    /// What stands on the other device's screen.
    user_code: Option<String>,
    refuses: bool,
}

impl<'a> Browser<'a> {
    pub(crate) fn new(issuer: &'a str, person: &'a str) -> Self {
        Self { issuer, person, cookies: BTreeMap::new(), user_code: None, refuses: false }
    }

    /// Enters this code where one is asked for.
    pub(crate) fn with_user_code(mut self, code: &str) -> Self {
        self.user_code = Some(code.to_owned());
        self
    }

    /// Presses the button that gives up.
    pub(crate) fn refusing(mut self) -> Self {
        self.refuses = true;
        self
    }

    /// From page to page, filling in what is asked, until the provider sends us away or has nothing more to ask. The
    /// answer is where the way leads to, or the last page.
    pub(crate) fn walk(mut self, mut url: String) -> String {
        for _ in 0..16 {
            let mut response = self.visit(&url, None);
            let mut next = location(&response);
            while next.is_none() {
                let page = response.body_mut().read_to_string().unwrap();
                if page.contains("Sign-in Success") || page.contains("interrupted") {
                    return page;
                }
                let form = self.fill_in(&page, &url);
                if form.is_empty() {
                    next = Some(format!("{url}/abort"));
                } else {
                    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    response = self.visit(&url, Some(&form));
                    next = location(&response);
                }
            }
            url = next.expect("every step of the sign-in redirects");
            if url.starts_with('/') {
                url.insert_str(0, self.issuer);
            }
            if !url.starts_with(self.issuer) {
                return url;
            }
        }
        panic!("the sign-in goes in circles at {url}");
    }

    /// The form of a page; empty when the person turns away from it.
    fn fill_in(&self, page: &str, url: &str) -> Vec<(&'static str, String)> {
        let own = |name: &'static str, value: &str| (name, value.to_owned());
        let xsrf = || {
            let (_, rest) = page.split_once("name=\"xsrf\" value=\"").expect("a form with a token");
            own("xsrf", rest.split('"').next().unwrap_or_default())
        };
        let code = || own("user_code", self.user_code.as_deref().expect("a code to enter"));
        if page.contains(r#"name="prompt" value="login""#) {
            let login = vec![own("prompt", "login"), own("login", self.person), own("password", "anything")];
            if self.refuses { Vec::new() } else { login }
        } else if page.contains(r#"name="prompt" value="consent""#) {
            vec![own("prompt", "consent")]
        } else if page.contains("op.deviceInputForm") {
            vec![xsrf(), code()]
        } else if page.contains("op.deviceConfirmForm") {
            vec![xsrf(), code(), own(if self.refuses { "abort" } else { "confirm" }, "yes")]
        } else {
            panic!("a page that nobody expects at {url}: {page}");
        }
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

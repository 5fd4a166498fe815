//! node-oidc-provider as a child process, and what its side door can do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdin, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};

use super::reaper::{Leashed, fresh_path};
use super::{deps, sign_in};

/// The audience of tokens meant for gprxy.
pub(crate) const AUDIENCE: &str = "gprxy-test";

/// Resource indicators of the provider; each has its own signing algorithm or audience.
pub(crate) const RS256: &str = "urn:gprxy:rs256";
pub(crate) const ES256: &str = "urn:gprxy:es256";
pub(crate) const EDDSA: &str = "urn:gprxy:eddsa";
pub(crate) const ELSEWHERE: &str = "urn:elsewhere";

/// A running provider; `alice` is a reader, `bob` a writer, `carol` has no role, `grace` very many groups.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    tokens: Mutex<HashMap<(String, String), Arc<str>>>,
    // The child ends when its standard input closes.
    _stdin: ChildStdin,
    _child: Leashed,
}

impl Provider {
    /// The provider for all tests that leave its keys alone.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Provider> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A provider of one's own, to rotate and to break.
    pub(crate) fn start() -> Self {
        Self::with_clock_ahead(0)
    }

    /// One whose clock is ahead of this computer's by so many seconds.
    pub(crate) fn with_clock_ahead(seconds: i64) -> Self {
        let log = std::fs::File::create(fresh_path("provider.log")).unwrap();
        let mut command = deps::node("idp/provider.mjs");
        command.env("GPRXY_TEST_CLOCK_AHEAD", seconds.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = Leashed::spawn(&mut command);
        let stdin = child.0.stdin.take().expect("piped");
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("the provider says where it listens");
        let issuer = ready["issuer"].as_str().expect("a URL").to_owned();
        Self { issuer, tokens: Mutex::default(), _stdin: stdin, _child: child }
    }

    /// The person's access token, from a real sign-in (code and PKCE) the first time.
    pub(crate) fn token(&self, person: &str) -> Arc<str> {
        self.token_for(person, RS256)
    }

    /// The same for another resource.
    pub(crate) fn token_for(&self, person: &str, resource: &str) -> Arc<str> {
        let key = (person.to_owned(), resource.to_owned());
        if let Some(token) = self.tokens.lock().unwrap().get(&key) {
            return token.clone();
        }
        let token: Arc<str> = sign_in::code_and_pkce(&self.issuer, person, resource).into();
        self.tokens.lock().unwrap().insert(key, token.clone());
        token
    }

    /// A client-credentials token: its subject is the client, and it has no e-mail.
    pub(crate) fn machine_token(&self, resource: &str) -> String {
        sign_in::client_credentials(&self.issuer, resource)
    }

    /// Alice's token with these claims changed (`null` leaves one out), signed with the provider's RS256 key.
    pub(crate) fn mint(&self, claims: Value) -> String {
        self.mint_with(json!({ "claims": claims }))
    }

    /// The same with a free choice of `alg`, `kid`, `header` and `claims`.
    pub(crate) fn mint_with(&self, request: Value) -> String {
        self.post("/_test/mint", Some(request))
    }

    /// New keys; the old ones stay in the set.
    pub(crate) fn rotate(&self) {
        self.post("/_test/rotate", None);
    }

    /// New keys; the old ones leave the set.
    pub(crate) fn rotate_and_drop(&self) {
        self.post("/_test/rotate?drop=1", None);
    }

    /// Whether the key set answers.
    pub(crate) fn set_jwks_down(&self, down: bool) {
        self.post(&format!("/_test/jwks?down={}", u8::from(down)), None);
    }

    /// What the token endpoint does from now on: an OAuth error, `503`, `hold`, `bare`, or `well`.
    pub(crate) fn set_token_answer(&self, answer: &str) {
        self.post(&format!("/_test/token?answer={answer}"), None);
    }

    /// Changes what ID tokens say from now on: `claims`, `header`, `forge`; nothing in it makes them true again.
    pub(crate) fn set_id_change(&self, change: Value) {
        self.post("/_test/id", Some(change));
    }

    /// How often the key set was asked for.
    pub(crate) fn jwks_requests(&self) -> u64 {
        self.count("jwks")
    }

    /// How often the token endpoint was asked.
    pub(crate) fn token_requests(&self) -> u64 {
        self.count("token")
    }

    fn count(&self, what: &str) -> u64 {
        let mut response = sign_in::agent().get(format!("{}/_test/stats", self.issuer)).call().unwrap();
        let stats: Value = serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
        stats[what].as_u64().expect("a number")
    }

    fn post(&self, path: &str, body: Option<Value>) -> String {
        let request = sign_in::agent().post(format!("{}{path}", self.issuer));
        let response = match body {
            Some(body) => request.send(body.to_string()),
            None => request.send_empty(),
        };
        response.unwrap().body_mut().read_to_string().unwrap()
    }
}

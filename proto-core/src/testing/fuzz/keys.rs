//! Key sets and discovery documents from a provider that answers anything, at any time.

use std::time::Duration;

use super::cuts::Script;
use crate::auth::jwks::{Fetch, FetchId, Fetched, KeySetLimits, KeySets, MAX_KEYS, Unknown};
use crate::auth::jwt::{IssuerSettings, KeySource};
use crate::time::{Now, Tick, UnixMicros};

const STATUSES: [u16; 8] = [200, 200, 200, 200, 304, 301, 404, 500];

/// A byte of settings, then steps of one byte each and what they need: answers, failures, unknown keys, time.
pub fn keys(data: &[u8]) {
    let mut script = Script::new(data);
    let setup = script.byte();
    let mut provider = Provider::new(setup);
    while !script.is_over() {
        provider.step(&mut script);
        provider.check();
    }
}

/// The machine, and a twin that is also woken early and repeatedly and must say the same.
struct Provider {
    sets: KeySets,
    twin: KeySets,
    tick: Tick,
    /// Every request that was made, answered or not.
    asked: Vec<FetchId>,
}

impl Provider {
    fn new(setup: u8) -> Self {
        let source =
            if setup & 1 == 0 { KeySource::Discovery } else { KeySource::Url("https://idp.corp.example/keys".into()) };
        let issuer = IssuerSettings { source, ..IssuerSettings::new("https://idp.corp.example", ["pg"]) };
        let tick = Tick::from_nanos(1);
        let now = Now { tick, unix: UnixMicros::from_secs(1_800_000_000) };
        let make = || KeySets::new(vec![issuer.clone()], KeySetLimits::default(), now).expect("the settings are good");
        let mut provider = Self { sets: make(), twin: make(), tick, asked: Vec::new() };
        provider.fetch();
        provider
    }

    fn now(&self) -> Now {
        Now { tick: self.tick, unix: UnixMicros::from_secs(1_800_000_000) }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let now = self.now();
        match script.byte() % 8 {
            0..=3 => {
                let answer = fetched(script);
                self.answer(self.asked.last().copied(), &Ok(answer));
            }
            4 => {
                let reason = String::from_utf8_lossy(script.string()).into_owned();
                self.answer(self.asked.last().copied(), &Err(reason));
            }
            5 => {
                // Late, or repeated.
                let nth = usize::from(script.byte()) % self.asked.len();
                let answer = fetched(script);
                self.answer(self.asked.get(nth).copied(), &Ok(answer));
            }
            6 => {
                let issuer = self.sets.issuers().next().expect("there is one");
                let ours = self.sets.handle_unknown_key(issuer, now);
                assert_eq!(ours, self.twin.handle_unknown_key(issuer, now));
                if let Unknown::Fetching(awaited) = ours {
                    assert!(!self.sets.has_ended(awaited));
                }
            }
            _ => {
                self.tick = self.tick.after(Duration::from_secs(u64::from(script.word()) * 4));
                let now = self.now();
                self.sets.handle_timeout(now);
                self.twin.handle_timeout(now);
            }
        }
        self.fetch();
        self.twin.handle_timeout(self.now());
        self.twin.handle_timeout(self.now());
    }

    fn answer(&mut self, request: Option<FetchId>, answer: &Result<Fetched, String>) {
        let (Some(request), now) = (request, self.now()) else { return };
        self.sets.handle_fetched(request, answer.clone(), now);
        self.twin.handle_fetched(request, answer.clone(), now);
    }

    fn fetch(&mut self) {
        let (ours, theirs) = (self.sets.poll_output(), self.twin.poll_output());
        assert_eq!(ours, theirs, "the twin differs");
        assert!(self.sets.poll_output().is_none() && self.twin.poll_output().is_none(), "two requests at a time");
        if let Some(Fetch { url, request, etag, .. }) = ours {
            let at_home = ["http://localhost", "http://127.", "http://[::1]"];
            assert!(url.starts_with("https://") || at_home.iter().any(|home| url.starts_with(home)), "{url}");
            assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{url}");
            assert!(etag.is_none_or(|etag| etag.bytes().all(|byte| byte.is_ascii_graphic())));
            self.asked.push(request);
        }
    }

    fn check(&self) {
        let issuer = self.sets.issuers().next().expect("there is one");
        let (ours, theirs) = (self.sets.status(issuer), self.twin.status(issuer));
        assert_eq!(ours, theirs, "the twin differs");
        let status = ours.expect("there is one");
        assert!(status.keys <= MAX_KEYS && self.sets.is_ready() == (status.keys > 0));
        assert!(status.keys == 0 || status.last_success.is_some());
        if let Some(error) = status.last_error {
            assert!(error.chars().count() < 700 && !error.contains(char::is_control), "{error}");
        }
        // It always goes on: with the next round, or by giving this one up.
        assert!(self.sets.poll_timeout().is_some_and(|due| due.at > self.tick));
        assert_eq!(self.sets.poll_timeout(), self.twin.poll_timeout());
    }
}

fn fetched(script: &mut Script<'_>) -> Fetched {
    let (how, age) = (script.byte(), script.byte());
    let max_age = (age & 1 == 0).then(|| Duration::from_secs(u64::from(age) * 600));
    let etag = (how & 8 != 0).then(|| String::from_utf8_lossy(script.string()).into_owned());
    let body = script.string().to_vec();
    Fetched { status: STATUSES[usize::from(how & 7)], body, etag, max_age }
}

//! Key sets (RFC 7517) of all issuers: which document to fetch when, what to keep, and for how long.
//!
//! The machine does no HTTP. Its user takes a [`Fetch`] from [`KeySets::poll_output`], makes the GET (without following
//! redirects: the place of a key set was checked, that of a redirect was not; at most [`MAX_DOCUMENT_BYTES`] of body), and
//! hands the answer to [`KeySets::handle_fetched`]. Logins only ever read the [`Keyring`] snapshot, so a slow or dead
//! identity provider holds up nobody whose key is known.

mod document;
mod set;
#[cfg(test)]
mod tests;
pub(crate) mod url;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use self::document::{MAX_DOCUMENT_BYTES, MAX_KEYS};
use self::set::{KeySet, Shared};
use super::jwt::{IssuerId, IssuerKeys, IssuerSettings, Keyring, SettingsError, checked_settings};
use crate::time::{Deadline, Now, Timer, UnixMicros};

/// When keys are fetched, and how long they live without an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySetLimits {
    /// The age of a set whose response does not say `max-age`.
    pub default_refresh: Duration,
    /// A shorter `max-age` counts as this.
    pub min_refresh: Duration,
    /// A longer `max-age` counts as this.
    pub max_refresh: Duration,
    /// The pause after the first failed fetch; it doubles with each one that follows.
    pub min_retry: Duration,
    /// Where the doubling ends.
    pub max_retry: Duration,
    /// Tokens with unknown keys cause at most one round of fetches per issuer in this time.
    pub cool_down: Duration,
    /// How long known keys stay in use after the refresh that did not succeed.
    pub outage: Duration,
    /// A request without an answer counts as failed after this. Longer than the HTTP client's own timeout.
    pub fetch_timeout: Duration,
}

impl Default for KeySetLimits {
    fn default() -> Self {
        Self {
            default_refresh: Duration::from_secs(3600),
            min_refresh: Duration::from_secs(60),
            max_refresh: Duration::from_secs(24 * 3600),
            min_retry: Duration::from_secs(5),
            max_retry: Duration::from_secs(300),
            cool_down: Duration::from_secs(30),
            outage: Duration::from_secs(24 * 3600),
            fetch_timeout: Duration::from_secs(30),
        }
    }
}

/// Names one request; an answer to another one is ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FetchId(u64);

/// A GET to make.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Fetch {
    /// For whom.
    pub issuer: IssuerId,
    /// Goes back with the answer.
    pub request: FetchId,
    /// `https://…`, or `http://…` on this machine.
    pub url: String,
    /// To be sent as `If-None-Match`.
    pub etag: Option<String>,
}

/// What an HTTP server answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// The status code; a redirect is a failure.
    pub status: u16,
    /// The body, at most [`MAX_DOCUMENT_BYTES`] (a longer one is refused).
    pub body: Vec<u8>,
    /// The header `ETag` as it came.
    pub etag: Option<String>,
    /// `max-age` from `Cache-Control`; zero for `no-store` and `no-cache`.
    pub max_age: Option<Duration>,
}

/// What happens for a token whose key is unknown.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// A fetch is under way. Try the token again once [`KeySets::has_ended`] says so.
    Fetching(Awaited),
    /// There was a fetch for an unknown key a moment ago: refuse the token.
    CoolingDown,
}

/// A round of fetches that somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Awaited {
    epoch: u64,
    issuer: IssuerId,
    round: u64,
}

/// How an issuer's keys are, for `gprxy check`, readiness and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KeySetStatus<'a> {
    /// As configured.
    pub issuer: &'a str,
    /// Keys in use.
    pub keys: usize,
    /// When the issuer last published a good set, or confirmed it.
    pub last_success: Option<UnixMicros>,
    /// Why the latest round failed; `None` when it did not.
    pub last_error: Option<&'a str>,
    /// Whether a fetch is under way.
    pub fetching: bool,
}

/// The machine for all issuers.
pub struct KeySets {
    sets: Vec<KeySet>,
    limits: KeySetLimits,
    next_request: u64,
    outputs: VecDeque<Fetch>,
    keyring: Arc<Keyring>,
    /// Counts the reloads.
    epoch: u64,
}

impl KeySets {
    /// Checks the settings and asks for every issuer's keys at once.
    ///
    /// # Errors
    /// Everything that is wrong with the settings, together.
    pub fn new(issuers: Vec<IssuerSettings>, limits: KeySetLimits, now: Now) -> Result<Self, SettingsError> {
        let issuers = checked_settings(issuers)?;
        let numbered = issuers.into_iter().enumerate();
        let sets: Vec<KeySet> = numbered.map(|(id, settings)| KeySet::new(IssuerId(id), settings, now)).collect();
        let keyring = snapshot(&sets);
        let mut machine = Self { sets, limits, next_request: 0, outputs: VecDeque::new(), keyring, epoch: 0 };
        machine.handle_timeout(now);
        Ok(machine)
    }

    /// Puts other settings into force. An issuer whose keys are where they were keeps those that it has, so that nobody's
    /// token is refused meanwhile; one that is new is asked for its keys at once.
    ///
    /// # Errors
    /// Everything that is wrong with the settings, together; nothing has changed then.
    pub fn reload(&mut self, issuers: Vec<IssuerSettings>, now: Now) -> Result<(), SettingsError> {
        let issuers = checked_settings(issuers)?;
        let mut before: Vec<Option<KeySet>> = std::mem::take(&mut self.sets).into_iter().map(Some).collect();
        let numbered = issuers.into_iter().enumerate();
        self.sets = numbered
            .map(|(id, settings)| {
                let same = |set: &KeySet| set.has_its_keys_where(&settings);
                let known = before.iter_mut().find(|set| set.as_ref().is_some_and(same)).and_then(Option::take);
                match known {
                    Some(set) => set.with_settings(IssuerId(id), settings),
                    None => KeySet::new(IssuerId(id), settings, now),
                }
            })
            .collect();
        // Numbers of issuers mean something else now: who waits for one of them looks again.
        self.epoch += 1;
        self.keyring = snapshot(&self.sets);
        self.handle_timeout(now);
        Ok(())
    }

    /// Takes the answer to a [`Fetch`]; an `Err` says in words why there is none. Late and repeated answers are ignored.
    pub fn handle_fetched(&mut self, request: FetchId, answer: Result<Fetched, String>, now: Now) {
        let place = self.sets.iter().position(|set| set.expects(request));
        if let Some(place) = place
            && self.with(place, |set, shared| set.handle_fetched(answer, shared, now))
        {
            self.keyring = snapshot(&self.sets);
        }
    }

    /// Somebody holds a token of this issuer, signed with a key that the keyring does not have.
    pub fn handle_unknown_key(&mut self, issuer: IssuerId, now: Now) -> Unknown {
        if issuer.0 >= self.sets.len() || !self.with(issuer.0, |set, shared| set.handle_unknown_key(shared, now)) {
            return Unknown::CoolingDown;
        }
        Unknown::Fetching(Awaited { epoch: self.epoch, issuer, round: self.sets[issuer.0].rounds_ended() })
    }

    /// Does what is due. Early, late and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        let mut changed = false;
        for place in 0..self.sets.len() {
            changed |= self.with(place, |set, shared| set.handle_timeout(shared, now));
        }
        if changed {
            self.keyring = snapshot(&self.sets);
        }
    }

    /// The next GET to make.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Fetch> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` without issuers.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.sets.iter().map(|set| Deadline { at: set.due_at(), why: Timer::KeyRefresh }).min()
    }

    /// The current keys of all issuers. A new `Arc` only when a key came or went.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Whether the round that somebody waits for is over, well or badly.
    #[must_use]
    pub fn has_ended(&self, awaited: Awaited) -> bool {
        awaited.epoch != self.epoch
            || self.sets.get(awaited.issuer.0).is_none_or(|set| set.rounds_ended() > awaited.round)
    }

    /// The configured issuers.
    pub fn issuers(&self) -> impl Iterator<Item = IssuerId> + use<> {
        (0..self.sets.len()).map(IssuerId)
    }

    /// How an issuer's keys are; `None` for an id of another machine.
    #[must_use]
    pub fn status(&self, issuer: IssuerId) -> Option<KeySetStatus<'_>> {
        let set = self.sets.get(issuer.0)?;
        Some(KeySetStatus {
            issuer: &set.settings().issuer,
            keys: set.keys().len(),
            last_success: set.last_success(),
            last_error: set.last_error(),
            fetching: set.is_fetching(),
        })
    }

    /// Whether tokens of every issuer can be verified.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.sets.iter().all(|set| !set.keys().is_empty())
    }

    fn with<T>(&mut self, place: usize, act: impl FnOnce(&mut KeySet, &mut Shared<'_>) -> T) -> T {
        let Self { sets, limits, next_request, outputs, .. } = self;
        act(&mut sets[place], &mut Shared { limits, next_request, outputs })
    }
}

fn snapshot(sets: &[KeySet]) -> Arc<Keyring> {
    let issuers = sets.iter().map(|set| IssuerKeys { settings: set.settings().clone(), keys: set.keys().clone() });
    Arc::new(Keyring::new(issuers.collect()))
}

//! The keys of one issuer: when they are fetched, kept and dropped.
//!
//! ```text
//!               round starts: due, or an unknown kid outside the cool-down
//!    ┌─────────┐ ───────────────────────────────▶ ┌───────────┐  200  ┌──────┐
//!    │ Waiting │                                  │ Discovery │ ────▶ │ Keys │
//!    └─────────┘ ◀─────────────────────────────── └───────────┘       └──────┘
//!         ▲          failed: back-off, known keys stay (until `drop_at`)  │
//!         └───────────────────────────────────────────────────────────────┘
//!                    200: keys replaced; 304: confirmed; else: back-off
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Fetch, FetchId, Fetched, KeySetLimits, document, url};
use crate::auth::jwt::{IssuerId, IssuerSettings, KeySource, PublicKey};
use crate::time::{Now, Tick, UnixMicros};

/// A longer one is not remembered; it would only travel back and forth.
const MAX_ETAG_BYTES: usize = 256;
/// Doubling stops long before; this keeps the shift defined.
const MAX_DOUBLINGS: u32 = 16;

/// One issuer's part of the machine.
pub(super) struct KeySet {
    id: IssuerId,
    settings: Arc<IssuerSettings>,
    keys: Arc<[PublicKey]>,
    phase: Phase,
    location: Option<Location>,
    /// When the keys are forgotten unless a fetch succeeds before; `None` without keys.
    drop_at: Option<Tick>,
    /// When an unknown kid last started a round.
    asked_at: Option<Tick>,
    failures: u32,
    rounds_ended: u64,
    last_success: Option<UnixMicros>,
    last_error: Option<String>,
}

/// Where the keys are, and which version of them is held.
struct Location {
    url: String,
    etag: Option<String>,
    /// A discovered place is looked up again after this.
    valid_until: Option<Tick>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting { until: Tick },
    Fetching { request: FetchId, step: Step, overdue_at: Tick },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Discovery,
    Keys,
}

/// What all issuers share while one of them handles something.
pub(super) struct Shared<'a> {
    pub(super) limits: &'a KeySetLimits,
    pub(super) next_request: &'a mut u64,
    pub(super) outputs: &'a mut VecDeque<Fetch>,
}

impl KeySet {
    pub(super) fn new(id: IssuerId, settings: Arc<IssuerSettings>, now: Now) -> Self {
        let location = match &settings.source {
            KeySource::Url(url) => Some(Location { url: url.clone(), etag: None, valid_until: None }),
            KeySource::Discovery => None,
        };
        Self {
            id,
            settings,
            keys: Arc::new([]),
            phase: Phase::Waiting { until: now.tick },
            location,
            drop_at: None,
            asked_at: None,
            failures: 0,
            rounds_ended: 0,
            last_success: None,
            last_error: None,
        }
    }

    /// Whether these settings are of the same issuer and find its keys in the same place.
    pub(super) fn has_its_keys_where(&self, settings: &IssuerSettings) -> bool {
        self.settings.issuer == settings.issuer && self.settings.source == settings.source
    }

    /// The same keys under other settings.
    pub(super) fn with_settings(self, id: IssuerId, settings: Arc<IssuerSettings>) -> Self {
        Self { id, settings, ..self }
    }

    pub(super) fn settings(&self) -> &Arc<IssuerSettings> {
        &self.settings
    }

    pub(super) fn keys(&self) -> &Arc<[PublicKey]> {
        &self.keys
    }

    pub(super) fn is_fetching(&self) -> bool {
        matches!(self.phase, Phase::Fetching { .. })
    }

    pub(super) fn rounds_ended(&self) -> u64 {
        self.rounds_ended
    }

    pub(super) fn last_success(&self) -> Option<UnixMicros> {
        self.last_success
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// When [`Self::handle_timeout`] has work to do.
    pub(super) fn due_at(&self) -> Tick {
        let step = match self.phase {
            Phase::Waiting { until } => until,
            Phase::Fetching { overdue_at, .. } => overdue_at,
        };
        self.drop_at.map_or(step, |drop_at| drop_at.min(step))
    }

    /// Forgets keys, gives up on an answer, starts a round: whatever is due. True when the keys changed.
    pub(super) fn handle_timeout(&mut self, shared: &mut Shared<'_>, now: Now) -> bool {
        let mut changed = false;
        if self.drop_at.is_some_and(|at| now.tick >= at) {
            self.drop_at = None;
            self.keys = Arc::new([]);
            // A "not modified" would now confirm keys that are gone.
            if let Some(location) = &mut self.location {
                location.etag = None;
            }
            log::error!(
                "issuer {}: its keys could not be refreshed for too long and are dropped",
                self.settings.issuer
            );
            changed = true;
        }
        match self.phase {
            Phase::Fetching { overdue_at, .. } if now.tick >= overdue_at => {
                self.fail("no answer in time".into(), shared.limits, now);
            }
            Phase::Waiting { until } if now.tick >= until => self.start_round(shared, now),
            Phase::Fetching { .. } | Phase::Waiting { .. } => {}
        }
        changed
    }

    /// Starts a round for a token with an unknown key, unless one runs or the cool-down does. True when one is running.
    pub(super) fn handle_unknown_key(&mut self, shared: &mut Shared<'_>, now: Now) -> bool {
        if self.is_fetching() {
            return true;
        }
        if self.asked_at.is_some_and(|asked| now.tick.since(asked) < shared.limits.cool_down) {
            return false;
        }
        self.asked_at = Some(now.tick);
        self.start_round(shared, now);
        true
    }

    /// Whether this is the request whose answer is waited for.
    pub(super) fn expects(&self, request: FetchId) -> bool {
        matches!(self.phase, Phase::Fetching { request: expected, .. } if expected == request)
    }

    /// Takes the answer to the request under way. True when the keys changed.
    pub(super) fn handle_fetched(
        &mut self,
        answer: Result<Fetched, String>,
        shared: &mut Shared<'_>,
        now: Now,
    ) -> bool {
        let Phase::Fetching { step, .. } = self.phase else { return false };
        let outcome = match (answer, step) {
            (Ok(fetched), Step::Discovery) => self.take_discovery(&fetched, shared, now).map(|()| false),
            (Ok(fetched), Step::Keys) => self.take_keys(fetched, shared.limits, now),
            (Err(error), _) => Err(url::printable(&error)),
        };
        outcome.unwrap_or_else(|error| {
            self.fail(error, shared.limits, now);
            false
        })
    }

    fn start_round(&mut self, shared: &mut Shared<'_>, now: Now) {
        let discovered = matches!(self.settings.source, KeySource::Discovery);
        let stale = self.location.as_ref().is_none_or(|known| known.valid_until.is_some_and(|until| now.tick >= until));
        if discovered && (stale || self.failures > 0) {
            let url = document::discovery_url(&self.settings.issuer);
            self.send(Step::Discovery, url, None, shared, now);
        } else {
            self.send_for_keys(shared, now);
        }
    }

    fn send_for_keys(&mut self, shared: &mut Shared<'_>, now: Now) {
        // Both callers have a location: it is configured, or was just discovered.
        if let Some(location) = &self.location {
            let (url, etag) = (location.url.clone(), location.etag.clone());
            self.send(Step::Keys, url, etag, shared, now);
        }
    }

    fn send(&mut self, step: Step, url: String, etag: Option<String>, shared: &mut Shared<'_>, now: Now) {
        let request = FetchId(*shared.next_request);
        *shared.next_request += 1;
        self.phase = Phase::Fetching { request, step, overdue_at: now.tick.after(shared.limits.fetch_timeout) };
        // An older request of this issuer that nobody has taken yet is not waited for any more.
        shared.outputs.retain(|fetch| fetch.issuer != self.id);
        shared.outputs.push_back(Fetch { issuer: self.id, request, url, etag });
    }

    fn take_discovery(&mut self, fetched: &Fetched, shared: &mut Shared<'_>, now: Now) -> Result<(), String> {
        if fetched.status != 200 {
            return Err(format!("the discovery document was answered with status {}, expected 200", fetched.status));
        }
        let url = document::jwks_uri(&fetched.body, &self.settings.issuer)?;
        let valid_until = Some(now.tick.after(shared.limits.max_refresh));
        // An ETag belongs to its URL.
        let etag = self.location.take().filter(|known| known.url == url).and_then(|known| known.etag);
        self.location = Some(Location { url, etag, valid_until });
        self.send_for_keys(shared, now);
        Ok(())
    }

    fn take_keys(&mut self, fetched: Fetched, limits: &KeySetLimits, now: Now) -> Result<bool, String> {
        let asked_with_etag = self.location.as_ref().is_some_and(|location| location.etag.is_some());
        let changed = match fetched.status {
            200 => {
                let keys = document::keys(&fetched.body)?;
                let changed = keys != self.keys;
                if changed {
                    self.keys = keys;
                }
                changed
            }
            // The tag is forgotten with the keys, so there is something to confirm.
            304 if asked_with_etag => false,
            status => return Err(format!("the key set was answered with status {status}, expected 200")),
        };
        if let Some(location) = &mut self.location
            && fetched.status == 200
        {
            location.etag = fetched.etag.filter(|etag| is_etag(etag));
        }
        self.succeed(fetched.max_age, limits, now);
        if changed {
            log::info!("issuer {}: {} keys", self.settings.issuer, self.keys.len());
        }
        Ok(changed)
    }

    fn succeed(&mut self, max_age: Option<Duration>, limits: &KeySetLimits, now: Now) {
        let age = max_age.unwrap_or(limits.default_refresh).max(limits.min_refresh).min(limits.max_refresh);
        // A tenth earlier than the set expires, so that nobody waits for a fetch that could have been made before.
        let until = now.tick.after(age - age / 10);
        self.phase = Phase::Waiting { until };
        self.drop_at = Some(until.after(limits.outage));
        self.failures = 0;
        self.rounds_ended += 1;
        self.last_success = Some(now.unix);
        self.last_error = None;
    }

    fn fail(&mut self, error: String, limits: &KeySetLimits, now: Now) {
        let doublings = self.failures.min(MAX_DOUBLINGS);
        let pause = limits.min_retry.saturating_mul(1 << doublings).min(limits.max_retry);
        log::warn!("issuer {}: {error}; next try in {} s", self.settings.issuer, pause.as_secs());
        self.phase = Phase::Waiting { until: now.tick.after(pause) };
        self.failures = self.failures.saturating_add(1);
        self.rounds_ended += 1;
        self.last_error = Some(error);
    }
}

/// Visible ASCII and quotes (RFC 9110 section 8.8.3); anything else could break the header that it goes back in.
fn is_etag(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ETAG_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

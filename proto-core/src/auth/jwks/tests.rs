//! The machine for key sets under a virtual clock: rotation, outage, cool-down, and peers that misbehave.

use serde_json::json;

use super::*;
use crate::auth::jwt::{KeySource, MAX_TOKEN_BYTES, Verdict};
use crate::testing::tokens::{TestKey, claims, key_set};
use crate::time::Tick;

const ISSUER: &str = "https://idp.example/x";
const KEYS_URL: &str = "https://idp.example/keys";
const START_SECS: u64 = 1_800_000_000;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

fn at(secs: u64) -> Now {
    let unix = UnixMicros::from_secs((START_SECS + secs).cast_signed());
    Now { tick: Tick::from_nanos(secs * 1_000_000_000), unix }
}

fn direct() -> IssuerSettings {
    IssuerSettings { source: KeySource::Url(KEYS_URL.into()), ..IssuerSettings::new(ISSUER, ["gprxy"]) }
}

fn discovered() -> IssuerSettings {
    IssuerSettings::new(ISSUER, ["gprxy"])
}

fn machine(settings: IssuerSettings) -> KeySets {
    KeySets::new(vec![settings], KeySetLimits::default(), at(0)).unwrap()
}

fn ok(body: Vec<u8>) -> Result<Fetched, String> {
    Ok(Fetched { status: 200, body, etag: None, max_age: None })
}

fn status(status: u16) -> Result<Fetched, String> {
    Ok(Fetched { status, body: Vec::new(), etag: None, max_age: None })
}

fn discovery(issuer: &str, jwks_uri: &str) -> Result<Fetched, String> {
    ok(json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string().into_bytes())
}

fn only_fetch(sets: &mut KeySets) -> Fetch {
    let fetch = sets.poll_output().expect("a fetch");
    assert_eq!(sets.poll_output(), None);
    fetch
}

/// Answers the one fetch that is due.
fn answer(sets: &mut KeySets, answer: Result<Fetched, String>, now: Now) {
    let fetch = only_fetch(sets);
    sets.handle_fetched(fetch.request, answer, now);
}

fn due(sets: &KeySets) -> u64 {
    let deadline = sets.poll_timeout().expect("a deadline");
    assert_eq!(deadline.why, Timer::KeyRefresh);
    deadline.at.as_nanos() / 1_000_000_000
}

fn view(sets: &KeySets) -> KeySetStatus<'_> {
    sets.status(IssuerId(0)).unwrap()
}

/// Whether a fresh token of this key is accepted, refused, or in need of the key.
fn verdict(sets: &KeySets, key: &TestKey, secs: u64) -> &'static str {
    let now = at(secs);
    match sets.keyring().verify(&key.token(&claims(ISSUER, "gprxy", "ann", now.unix.as_secs())), now) {
        Verdict::Proven(_) => "proven",
        Verdict::NeedsKey(IssuerId(0)) => "needs key",
        Verdict::NeedsKey(_) | Verdict::Refused(_) => "refused",
    }
}

#[test]
fn keys_are_fetched_at_the_start_and_refreshed_before_an_hour_is_over() {
    let key = TestKey::ed25519("a");
    let mut sets = machine(direct());
    assert!(!sets.is_ready());
    assert_eq!(verdict(&sets, &key, 0), "needs key");
    let fetch = only_fetch(&mut sets);
    assert_eq!((fetch.url.as_str(), fetch.etag), (KEYS_URL, None));
    assert!(view(&sets).fetching);
    sets.handle_fetched(fetch.request, ok(key_set(&[&key])), at(1));
    assert!(sets.is_ready());
    assert_eq!(verdict(&sets, &key, 1), "proven");
    let expected =
        KeySetStatus { issuer: ISSUER, keys: 1, last_success: Some(at(1).unix), last_error: None, fetching: false };
    assert_eq!(view(&sets), expected);
    assert_eq!(due(&sets), 1 + HOUR * 9 / 10);
    sets.handle_timeout(at(due(&sets) - 1));
    assert_eq!(sets.poll_output(), None);
    sets.handle_timeout(at(due(&sets)));
    assert_eq!(only_fetch(&mut sets).url, KEYS_URL);
}

#[test]
fn discovery_is_two_fetches_and_then_one_for_a_day() {
    let key = TestKey::ed25519("a");
    let mut sets = machine(discovered());
    let fetch = only_fetch(&mut sets);
    assert_eq!(fetch.url, "https://idp.example/x/.well-known/openid-configuration");
    sets.handle_fetched(fetch.request, discovery(ISSUER, KEYS_URL), at(1));
    assert_eq!(sets.keyring().issuer_keys(), [0]);
    let fetch = only_fetch(&mut sets);
    assert_eq!(fetch.url, KEYS_URL);
    sets.handle_fetched(fetch.request, ok(key_set(&[&key])), at(2));
    assert_eq!(verdict(&sets, &key, 2), "proven");

    sets.handle_timeout(at(HOUR));
    assert_eq!(only_fetch(&mut sets).url, KEYS_URL);
    let mut sets = machine(discovered());
    answer(&mut sets, discovery(ISSUER, KEYS_URL), at(0));
    let day = Fetched { max_age: Some(Duration::from_secs(48 * HOUR)), ..ok(key_set(&[&key])).unwrap() };
    answer(&mut sets, Ok(day), at(0));
    assert_eq!(due(&sets), 24 * HOUR * 9 / 10);
    sets.handle_timeout(at(24 * HOUR));
    assert!(only_fetch(&mut sets).url.ends_with("/openid-configuration"));
}

#[test]
fn a_discovery_document_of_somebody_else_is_not_followed() {
    let mut sets = machine(discovered());
    for (bad, expected) in [
        (discovery("https://idp.example/x/", KEYS_URL), "trailing slash"),
        (discovery("https://evil.example", KEYS_URL), "https://evil.example"),
        (discovery(ISSUER, "http://idp.example/keys"), "https://"),
        (ok(b"<html>".to_vec()), "not valid JSON"),
        (status(404), "status 404"),
        (status(302), "status 302"),
        (Err("connection refused\nFATAL".into()), "connection refused\u{fffd}FATAL"),
    ] {
        let now = at(due(&sets) - 1);
        answer(&mut sets, bad, now);
        assert!(view(&sets).last_error.unwrap().contains(expected), "{:?}", view(&sets));
        assert_eq!(sets.poll_output(), None);
        sets.handle_timeout(at(due(&sets)));
    }
    assert_eq!(sets.keyring().issuer_keys(), [0]);
}

#[test]
fn a_key_set_that_moved_is_found_again_and_its_old_tag_stays_behind() {
    let key = TestKey::ed25519("a");
    let mut sets = machine(discovered());
    answer(&mut sets, discovery(ISSUER, KEYS_URL), at(0));
    let tagged = Fetched { etag: Some("\"v1\"".into()), ..ok(key_set(&[&key])).unwrap() };
    answer(&mut sets, Ok(tagged), at(0));
    for (place, expected_etag) in [(KEYS_URL, Some("\"v1\"")), ("https://idp.example/moved", None)] {
        sets.handle_timeout(at(due(&sets)));
        answer(&mut sets, status(404), at(HOUR));
        sets.handle_timeout(at(due(&sets)));
        let fetch = only_fetch(&mut sets);
        assert!(fetch.url.ends_with("/openid-configuration"), "{}", fetch.url);
        sets.handle_fetched(fetch.request, discovery(ISSUER, place), at(2 * HOUR));
        let fetch = only_fetch(&mut sets);
        assert_eq!((fetch.url.as_str(), fetch.etag.as_deref()), (place, expected_etag));
        let answer = if expected_etag.is_some() { status(304) } else { ok(key_set(&[&key])) };
        sets.handle_fetched(fetch.request, answer, at(2 * HOUR));
        assert_eq!(view(&sets).last_error, None);
    }
    assert_eq!(verdict(&sets, &key, 2 * HOUR), "proven");
}

#[test]
fn max_age_is_honoured_within_bounds() {
    let key = TestKey::ed25519("a");
    for (max_age, refreshed_after) in
        [(0, MINUTE * 9 / 10), (30, MINUTE * 9 / 10), (600, 540), (7 * 24 * HOUR, 24 * HOUR * 9 / 10)]
    {
        let mut sets = machine(direct());
        let fetched = Fetched { max_age: Some(Duration::from_secs(max_age)), ..ok(key_set(&[&key])).unwrap() };
        answer(&mut sets, Ok(fetched), at(0));
        assert_eq!(due(&sets), refreshed_after, "max-age {max_age}");
    }
}

#[test]
fn not_modified_confirms_what_is_held() {
    let key = TestKey::ed25519("a");
    let mut sets = machine(direct());
    let tagged = |etag: &str| Fetched { etag: Some(etag.into()), ..ok(key_set(&[&key])).unwrap() };
    answer(&mut sets, Ok(tagged("\"v1\"")), at(0));
    let before = sets.keyring().clone();
    sets.handle_timeout(at(HOUR));
    let fetch = only_fetch(&mut sets);
    assert_eq!(fetch.etag.as_deref(), Some("\"v1\""));
    sets.handle_fetched(fetch.request, status(304), at(HOUR));
    assert!(Arc::ptr_eq(&before, sets.keyring()));
    assert_eq!((view(&sets).last_success, view(&sets).last_error), (Some(at(HOUR).unix), None));
    assert_eq!(due(&sets), HOUR + HOUR * 9 / 10);

    // The same keys with a new tag are no new keyring either; a tag that would break a header is forgotten.
    sets.handle_timeout(at(2 * HOUR));
    answer(&mut sets, Ok(tagged("\"v2\"\r\nx: y")), at(2 * HOUR));
    assert!(Arc::ptr_eq(&before, sets.keyring()));
    sets.handle_timeout(at(3 * HOUR));
    let fetch = only_fetch(&mut sets);
    assert_eq!(fetch.etag, None);
    // And who was not asked "if none match" cannot answer "not modified".
    sets.handle_fetched(fetch.request, status(304), at(3 * HOUR));
    assert!(view(&sets).last_error.unwrap().contains("status 304"));
    assert_eq!(view(&sets).keys, 1);
}

#[test]
fn rotation_takes_new_keys_and_drops_old_ones_at_once() {
    let (old, new) = (TestKey::ed25519("old"), TestKey::rsa("new"));
    let mut sets = machine(direct());
    answer(&mut sets, ok(key_set(&[&old])), at(0));
    assert_eq!((verdict(&sets, &old, 0), verdict(&sets, &new, 0)), ("proven", "needs key"));
    let held_by_a_login = sets.keyring().clone();

    sets.handle_timeout(at(HOUR));
    answer(&mut sets, ok(key_set(&[&old, &new])), at(HOUR));
    assert_eq!((verdict(&sets, &old, HOUR), verdict(&sets, &new, HOUR)), ("proven", "proven"));
    sets.handle_timeout(at(2 * HOUR));
    answer(&mut sets, ok(key_set(&[&new])), at(2 * HOUR));
    assert_eq!((verdict(&sets, &old, 2 * HOUR), verdict(&sets, &new, 2 * HOUR)), ("needs key", "proven"));
    assert!(!Arc::ptr_eq(&held_by_a_login, sets.keyring()));
    // A key replaced under its own id counts as another key.
    sets.handle_timeout(at(3 * HOUR));
    answer(&mut sets, ok(key_set(&[&TestKey::other_rsa("new")])), at(3 * HOUR));
    assert_eq!(verdict(&sets, &new, 3 * HOUR), "refused");
}

#[test]
fn garbage_never_replaces_good_keys() {
    let key = TestKey::ed25519("a");
    let mut sets = machine(direct());
    answer(&mut sets, ok(key_set(&[&key])), at(0));
    let before = sets.keyring().clone();
    sets.handle_timeout(at(HOUR));
    let many = vec![key.jwk(); MAX_KEYS + 1];
    for bad in [
        ok(Vec::new()),
        ok(key_set(&[])),
        ok(b"<html>maintenance</html>".to_vec()),
        ok(json!({"keys": [{"kty": "oct", "k": "AAAA"}]}).to_string().into_bytes()),
        ok(json!({ "keys": many }).to_string().into_bytes()),
        ok(vec![b' '; MAX_DOCUMENT_BYTES + 1]),
        status(500),
        status(204),
        status(304),
        Err("timeout".into()),
    ] {
        let now = at(due(&sets) - 1);
        answer(&mut sets, bad, now);
        assert!(view(&sets).last_error.is_some());
        sets.handle_timeout(at(due(&sets)));
    }
    assert!(Arc::ptr_eq(&before, sets.keyring()));
    answer(&mut sets, ok(key_set(&[&key])), at(3 * HOUR));
    assert_eq!(view(&sets).last_error, None);
}

#[test]
fn failures_are_retried_with_growing_pauses() {
    let mut sets = machine(direct());
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        answer(&mut sets, Err("no route to host".into()), at(now));
        pauses.push(due(&sets) - now);
        now = due(&sets);
        sets.handle_timeout(at(now));
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    answer(&mut sets, ok(key_set(&[&TestKey::ed25519("a")])), at(now));
    sets.handle_timeout(at(now + HOUR));
    answer(&mut sets, Err("again".into()), at(now + HOUR));
    assert_eq!(due(&sets), now + HOUR + 5);
}

#[test]
fn an_outage_keeps_known_keys_for_a_day_and_not_longer() {
    let key = TestKey::ed25519("a");
    let mut sets = machine(direct());
    let tagged = Fetched { etag: Some("\"v1\"".into()), ..ok(key_set(&[&key])).unwrap() };
    answer(&mut sets, Ok(tagged), at(0));
    let end = HOUR * 9 / 10 + 24 * HOUR;
    while due(&sets) < end {
        let now = due(&sets);
        sets.handle_timeout(at(now));
        if let Some(fetch) = sets.poll_output() {
            sets.handle_fetched(fetch.request, Err("down".into()), at(now));
        }
        assert_eq!(verdict(&sets, &key, now), "proven");
    }
    assert_eq!(due(&sets), end);
    assert!(sets.is_ready());
    sets.handle_timeout(at(end));
    assert_eq!(verdict(&sets, &key, end), "needs key");
    assert!(!sets.is_ready());
    // A "not modified" cannot bring back what was forgotten: the next request does not ask for it.
    sets.handle_timeout(at(due(&sets)));
    let fetch = only_fetch(&mut sets);
    assert_eq!(fetch.etag, None);
    sets.handle_fetched(fetch.request, ok(key_set(&[&key])), at(end + HOUR));
    assert_eq!(verdict(&sets, &key, end + HOUR), "proven");
}

#[test]
fn keys_dropped_while_a_fetch_is_under_way_come_back_with_it() {
    let key = TestKey::ed25519("a");
    let limits = KeySetLimits { outage: Duration::from_secs(1), ..KeySetLimits::default() };
    let mut sets = KeySets::new(vec![direct()], limits, at(0)).unwrap();
    let tagged = Fetched { etag: Some("\"v1\"".into()), ..ok(key_set(&[&key])).unwrap() };
    answer(&mut sets, Ok(tagged), at(0));
    sets.handle_timeout(at(3240));
    let fetch = only_fetch(&mut sets);
    assert_eq!(fetch.etag.as_deref(), Some("\"v1\""));
    assert_eq!(due(&sets), 3241);
    sets.handle_timeout(at(3241));
    assert_eq!(view(&sets).keys, 0);
    sets.handle_fetched(fetch.request, status(304), at(3242));
    assert!(view(&sets).last_error.unwrap().contains("304"));
    sets.handle_timeout(at(due(&sets)));
    answer(&mut sets, ok(key_set(&[&key])), at(3300));
    assert_eq!(verdict(&sets, &key, 3300), "proven");
}

#[test]
fn an_unknown_key_causes_one_fetch_per_cool_down() {
    let (old, new) = (TestKey::ed25519("old"), TestKey::ed25519("new"));
    let mut sets = machine(direct());
    answer(&mut sets, ok(key_set(&[&old])), at(0));
    let Unknown::Fetching(first) = sets.handle_unknown_key(IssuerId(0), at(100)) else { panic!("a fetch") };
    let fetch = only_fetch(&mut sets);
    // Everybody else who comes now waits for the same fetch, and those with a known key do not wait at all.
    for secs in 100..105 {
        assert_eq!(sets.handle_unknown_key(IssuerId(0), at(secs)), Unknown::Fetching(first));
        assert_eq!(sets.poll_output(), None);
        assert_eq!(verdict(&sets, &old, secs), "proven");
    }
    assert!(!sets.has_ended(first));
    sets.handle_fetched(fetch.request, ok(key_set(&[&old, &new])), at(105));
    assert!(sets.has_ended(first));
    assert_eq!(verdict(&sets, &new, 105), "proven");

    for secs in 105..130 {
        assert_eq!(sets.handle_unknown_key(IssuerId(0), at(secs)), Unknown::CoolingDown);
    }
    assert_eq!(sets.poll_output(), None);
    let Unknown::Fetching(second) = sets.handle_unknown_key(IssuerId(0), at(130)) else { panic!("a fetch") };
    assert!(sets.has_ended(first) && !sets.has_ended(second));
    answer(&mut sets, Err("down".into()), at(131));
    assert!(sets.has_ended(second), "a failed round ends too");
    assert_eq!(sets.handle_unknown_key(IssuerId(0), at(159)), Unknown::CoolingDown);
    assert!(matches!(sets.handle_unknown_key(IssuerId(0), at(160)), Unknown::Fetching(_)));
}

#[test]
fn an_unknown_key_during_the_first_fetch_waits_for_it_through_both_steps() {
    let key = TestKey::ed25519("a");
    let mut sets = machine(discovered());
    let Unknown::Fetching(waiting) = sets.handle_unknown_key(IssuerId(0), at(0)) else { panic!("a fetch") };
    answer(&mut sets, discovery(ISSUER, KEYS_URL), at(1));
    assert!(!sets.has_ended(waiting));
    answer(&mut sets, ok(key_set(&[&key])), at(2));
    assert!(sets.has_ended(waiting));
    assert_eq!(verdict(&sets, &key, 2), "proven");
}

#[test]
fn a_request_that_nobody_answers_ends_by_itself_and_its_late_answer_is_ignored() {
    let key = TestKey::ed25519("a");
    let mut sets = machine(direct());
    let Unknown::Fetching(waiting) = sets.handle_unknown_key(IssuerId(0), at(0)) else { panic!("a fetch") };
    let lost = only_fetch(&mut sets);
    assert_eq!(due(&sets), 30);
    sets.handle_timeout(at(29));
    assert!(!sets.has_ended(waiting));
    sets.handle_timeout(at(30));
    assert!(sets.has_ended(waiting));
    assert!(view(&sets).last_error.unwrap().contains("no answer"));
    sets.handle_fetched(lost.request, ok(key_set(&[&key])), at(31));
    assert_eq!(view(&sets).keys, 0);
    sets.handle_timeout(at(35));
    let fetch = only_fetch(&mut sets);
    sets.handle_fetched(fetch.request, ok(key_set(&[&key])), at(36));
    // Repeated and invented answers change nothing.
    sets.handle_fetched(fetch.request, ok(key_set(&[&TestKey::rsa("b")])), at(37));
    sets.handle_fetched(FetchId(999), ok(key_set(&[&TestKey::rsa("b")])), at(37));
    assert_eq!((verdict(&sets, &key, 37), view(&sets).keys), ("proven", 1));
}

#[test]
fn a_request_that_nobody_took_is_replaced() {
    let mut sets = machine(direct());
    sets.handle_timeout(at(30));
    sets.handle_timeout(at(35));
    let fetch = only_fetch(&mut sets);
    sets.handle_fetched(fetch.request, ok(key_set(&[&TestKey::ed25519("a")])), at(36));
    assert!(sets.is_ready());
}

#[test]
fn early_and_repeated_timeouts_are_harmless() {
    let mut sets = machine(direct());
    let _ = only_fetch(&mut sets);
    for _ in 0..3 {
        sets.handle_timeout(at(0));
    }
    assert_eq!(sets.poll_output(), None);
    let mut sets = machine(direct());
    answer(&mut sets, ok(key_set(&[&TestKey::ed25519("a")])), at(0));
    let due_at = due(&sets);
    for secs in [0, 1, due_at - 1] {
        sets.handle_timeout(at(secs));
        assert_eq!((sets.poll_output(), due(&sets)), (None, due_at));
    }
    sets.handle_timeout(at(due_at));
    sets.handle_timeout(at(due_at));
    let _ = only_fetch(&mut sets);
}

#[test]
fn issuers_do_not_disturb_each_other() {
    let (one, two) = (TestKey::ed25519("k"), TestKey::rsa("k"));
    let other = IssuerSettings { issuer: "https://b.example".into(), ..direct() };
    let mut sets = KeySets::new(vec![direct(), other], KeySetLimits::default(), at(0)).unwrap();
    assert_eq!(sets.issuers().collect::<Vec<_>>(), [IssuerId(0), IssuerId(1)]);
    let (first, second) = (sets.poll_output().unwrap(), sets.poll_output().unwrap());
    assert_eq!((first.issuer, second.issuer), (IssuerId(0), IssuerId(1)));
    sets.handle_fetched(second.request, ok(key_set(&[&two])), at(1));
    assert!(!sets.is_ready());
    assert_eq!(sets.keyring().issuer_keys(), [0, 1]);
    sets.handle_fetched(first.request, ok(key_set(&[&one])), at(1));
    assert_eq!(sets.keyring().issuer_keys(), [1, 1]);
    // The cool-down of one is not the other's.
    assert!(matches!(sets.handle_unknown_key(IssuerId(0), at(2)), Unknown::Fetching(_)));
    answer(&mut sets, ok(key_set(&[&one])), at(3));
    assert_eq!(sets.handle_unknown_key(IssuerId(0), at(4)), Unknown::CoolingDown);
    assert!(matches!(sets.handle_unknown_key(IssuerId(1), at(4)), Unknown::Fetching(_)));
    assert_eq!(sets.handle_unknown_key(IssuerId(2), at(4)), Unknown::CoolingDown);
    assert_eq!(sets.status(IssuerId(2)), None);
}

#[test]
fn wrong_settings_never_start() {
    let none: [&str; 0] = [];
    let bad = IssuerSettings::new("http://idp.example", none);
    let error = KeySets::new(vec![bad], KeySetLimits::default(), at(0)).err().unwrap();
    assert_eq!(error.problems.len(), 2);
}

#[test]
fn without_issuers_there_is_nothing_to_do() {
    let mut sets = KeySets::new(Vec::new(), KeySetLimits::default(), at(0)).unwrap();
    assert_eq!((sets.poll_output(), sets.poll_timeout()), (None, None));
    let token = TestKey::ed25519("a").token(&claims(ISSUER, "gprxy", "ann", 0));
    assert!(token.len() < MAX_TOKEN_BYTES);
    assert!(matches!(sets.keyring().verify(&token, at(0)), Verdict::Refused(_)));
}

/// Any order of answers, silences, timeouts and unknown keys keeps the promises: at most one request per issuer under way,
/// a deadline always, one unknown-key round per cool-down, keys only from a good answer.
#[test]
fn random_schedules_keep_the_promises() {
    let good = key_set(&[&TestKey::ed25519("a")]);
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sets = machine(if rng.bool() { direct() } else { discovered() });
        let (mut secs, mut pending, mut last_good, mut last_asked) = (0, None, None, None);
        for _ in 0..200 {
            secs += rng.u64(0..200);
            let was_fetching = view(&sets).fetching;
            match rng.u8(0..4) {
                0 => sets.handle_timeout(at(secs)),
                1 => match sets.handle_unknown_key(IssuerId(0), at(secs)) {
                    Unknown::Fetching(awaited) => {
                        assert!(view(&sets).fetching && !sets.has_ended(awaited), "seed {seed}");
                        if !was_fetching {
                            assert!(last_asked.is_none_or(|asked| secs - asked >= 30), "seed {seed}");
                            last_asked = Some(secs);
                        }
                    }
                    Unknown::CoolingDown => assert!(secs - last_asked.unwrap() < 30, "seed {seed}"),
                },
                _ => {
                    if let Some(fetch) = pending.take() {
                        let Fetch { request, url, .. } = fetch;
                        let body = if url == KEYS_URL { ok(good.clone()) } else { discovery(ISSUER, KEYS_URL) };
                        let before = view(&sets).last_success;
                        sets.handle_fetched(request, if rng.bool() { body } else { status(500) }, at(secs));
                        if view(&sets).last_success != before {
                            last_good = Some(secs);
                        }
                    }
                }
            }
            if let Some(fetch) = sets.poll_output() {
                pending = Some(fetch);
            }
            assert_eq!(sets.poll_output(), None, "seed {seed}");
            assert!(sets.poll_timeout().is_some());
            assert!(view(&sets).keys == 0 || last_good.is_some(), "seed {seed}");
        }
    }
}

//! The rig: real PostgreSQL servers, a real OIDC provider, the real `gprxy`, and clients for them.

pub(crate) mod audit;
pub(crate) mod bad_idp;
pub(crate) mod bouncer;
pub(crate) mod chromium;
pub(crate) mod deps;
pub(crate) mod desk;
pub(crate) mod fault;
pub(crate) mod fixtures;
pub(crate) mod gprxy;
pub(crate) mod https;
pub(crate) mod limits;
pub(crate) mod postgres;
pub(crate) mod promise;
pub(crate) mod provider;
pub(crate) mod psql;
pub(crate) mod reaper;
pub(crate) mod sign_in;
pub(crate) mod target;
pub(crate) mod terminal;
pub(crate) mod tls;
pub(crate) mod tunnel;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// How long anything that must happen may take before a test gives up. Generous: two cores are shared by every test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; panics with `what` when there is none in time.
///
/// The only way a test here waits for another process. It never proves that something does *not* happen.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < end, "gave up after {} s waiting for: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same for something that may as well not happen: nothing depends on it but the order of things.
pub(crate) fn eventually_within<T>(patience: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        let answer = probe();
        if answer.is_some() || Instant::now() >= end {
            return answer;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

//! Both clocks, for runtimes whose timers go by [`Instant`].
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "here is where `Now` comes from")]

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::{Now, Tick, UnixMicros};

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// The instant that ticks count from: one second before the first look, so that no tick is the zero of a default.
fn origin() -> Instant {
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
    })
}

/// The time now.
#[must_use]
pub fn now() -> Now {
    let tick = u64::try_from(origin().elapsed().as_nanos()).unwrap_or(u64::MAX);
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { tick: Tick::from_nanos(tick), unix: UnixMicros(i64::try_from(unix.as_micros()).unwrap_or(i64::MAX)) }
}

/// The instant of a tick.
#[must_use]
pub fn instant(tick: Tick) -> Instant {
    let span = Duration::from_nanos(tick.as_nanos());
    // A deadline beyond what the clock can say never comes: 30 years are as good.
    origin().checked_add(span).unwrap_or_else(|| origin() + Duration::from_secs(30 * 365 * 86_400))
}

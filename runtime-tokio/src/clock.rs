//! Both clocks.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gprxy_proto::time::{Now, Tick, UnixMicros};

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// The instant that ticks count from: one second before the first look, so that no tick is the zero of a default.
pub(crate) fn origin() -> Instant {
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(std::time::Duration::from_secs(1)).unwrap_or(now)
    })
}

pub(crate) fn now() -> Now {
    let tick = u64::try_from(origin().elapsed().as_nanos()).unwrap_or(u64::MAX);
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { tick: Tick::from_nanos(tick), unix: UnixMicros(i64::try_from(unix.as_micros()).unwrap_or(i64::MAX)) }
}

/// The instant of a tick.
pub(crate) fn instant(tick: Tick) -> Instant {
    let span = std::time::Duration::from_nanos(tick.as_nanos());
    // A deadline beyond what the clock can say never comes: 30 years are as good.
    origin().checked_add(span).unwrap_or_else(|| origin() + std::time::Duration::from_secs(30 * 365 * 86_400))
}

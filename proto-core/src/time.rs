//! Time as a value: it is read once per wake-up by the driver and handed in as the last argument.

use std::time::Duration;

/// A point on a monotonic clock, in nanoseconds since an origin that only the caller knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tick(u64);

impl Tick {
    /// The tick that many nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This tick moved into the future; it stops at the end of the clock instead of wrapping.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnixMicros(pub i64);

impl UnixMicros {
    /// Whole seconds since 1970, rounded towards the past (the unit of JWT's `exp`, RFC 7519 section 2).
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// That many whole seconds after 1970.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For durations and deadlines.
    pub tick: Tick,
    /// For token expiry and audit records.
    pub unix: UnixMicros,
}

/// When a machine wants to be woken, and why.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline {
    /// The tick at which `handle_timeout` has work to do.
    pub at: Tick,
    /// What ran out, for logs and tests.
    pub why: Timer,
}

/// The reasons for which a machine asks to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Timer {
    /// The client has not finished its startup and login.
    ClientLogin,
    /// The server has not finished the proxy's login.
    ServerLogin,
    /// The server has not answered the reset of a returned connection.
    ServerReset,
    /// The server has not told what it keeps of a user's password.
    UserLookup,
    /// The server has not closed a cancel connection.
    ServerCancel,
    /// The client has waited long enough for a server connection to be told so.
    QueueNotice,
    /// The client has waited too long for a server connection.
    QueueWait,
    /// An idle server connection has reached its idle timeout or its lifetime.
    ServerRetire,
    /// A failing server may be tried again.
    ServerRetry,
    /// A query takes too long.
    Query,
    /// A transaction takes too long.
    Transaction,
    /// The client of an open transaction says nothing.
    IdleTransaction,
    /// The client says nothing.
    ClientIdle,
    /// A key set is due for its refresh.
    KeyRefresh,
    /// The client has not taken its last bytes.
    Closing,
    /// The drain has reached its limit.
    Drain,
}

/// The earlier of two optional deadlines.
#[must_use]
pub fn earliest(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

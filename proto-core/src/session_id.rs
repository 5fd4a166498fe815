//! The name of a session in logs, audit records, pools and the cancel registry.

use std::fmt;

/// One client session. A value is never used for a second session of the same process.
///
/// It is printed as 16 lower-case hexadecimal digits: a fixed width that lines up in logs, that a search finds
/// whole, and that leaves the upper bits to tell replicas and restarts apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The number for people: its lower half.
    #[must_use]
    pub const fn short(self) -> u64 {
        self.0 & 0xffff_ffff
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_printed_with_a_fixed_width() {
        assert_eq!(SessionId(0).to_string(), "0000000000000000");
        assert_eq!(format!("{:?}", SessionId(0xc0ff_ee00_0000_0001)), "c0ffee0000000001");
    }
}

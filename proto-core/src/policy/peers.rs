//! Other processes behind the same address, to which cancel requests are passed on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Endpoint, SslMode, TlsTerms};

/// The number of a process among its peers: 1 to [`PeerId::MAX`]. It is a part of every cancel key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(u16);

impl PeerId {
    /// What 14 bits hold.
    pub const MAX: u16 = 0x3fff;

    /// `None`: it is zero or too large.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if 0 < number && number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// As it stands in the configuration.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The way to another process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSettings {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Whether a cancel request travels there under TLS.
    pub sslmode: SslMode,
    /// The authorities that its certificate is verified with; `None`: those of the system.
    pub sslrootcert: Option<Arc<str>>,
    /// Cancel requests that may be on their way there at one time.
    pub pool_size: u32,
}

impl PeerSettings {
    /// How many it is where nothing else is said. Cancel requests come in bursts: when a server has become slow.
    pub const POOL_SIZE: u32 = 100;

    /// How TLS to it is verified.
    #[must_use]
    pub fn tls_terms(&self) -> TlsTerms {
        TlsTerms { sslmode: self.sslmode, sslrootcert: self.sslrootcert.clone() }
    }
}

/// The peers of a process, by their numbers. Its own may be among them, and does not count.
pub type Peers = BTreeMap<PeerId, Arc<PeerSettings>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_into_14_bits_and_are_never_zero() {
        for (number, fits) in [(0, false), (1, true), (16_383, true), (16_384, false), (u16::MAX, false)] {
            assert_eq!(PeerId::new(number).map(PeerId::number), fits.then_some(number));
        }
    }
}

//! Keys that clients are told, and what is in them.
//!
//! Without peers both parts are random. With a [`PeerId`] they say whose they are, so that any of the peers can pass a
//! request on to the process that made them:
//!
//! ```text
//! process id   0 | peer, 14 bits | random, 17 bits          never zero and never negative, because no peer is 0
//! key          random, 30 bits (protocol 3.0) or 254 bits (3.2) | hops, 2 bits
//! ```
//!
//! The hops are the peers that a request may still be passed on to: with addresses that lead in a circle it ends.

use crate::entropy::Entropy;
use crate::policy::PeerId;
use crate::secret::{Secret, equal_in_constant_time};

/// The key of protocol 3.0 (manual, "Message Formats", BackendKeyData).
const NARROW_KEY: usize = 4;
/// The key of protocol 3.2: what PostgreSQL 18 itself issues; the protocol allows up to 256 bytes.
const WIDE_KEY: usize = 32;
/// What is left of a process id behind the peer.
const NUMBER_BITS: u32 = 17;
/// Process ids that a process with peers has.
pub(super) const NUMBERS: usize = 1 << NUMBER_BITS;
/// The hops, in the last byte of a key. All of them are set when it is made.
const HOPS: u8 = 0b11;

/// What BackendKeyData tells a client.
pub struct CancelKey {
    pub(super) pid: u32,
    pub(super) key: KeyBytes,
}

impl CancelKey {
    /// The process id: 1 to `i32::MAX`, because drivers read it as a signed number.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// 4 bytes for protocol 3.0, 32 for 3.2. For the wire only.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.expose()
    }
}

/// A key in one of its two widths.
pub(super) struct KeyBytes {
    bytes: Secret<[u8; WIDE_KEY]>,
    wide: bool,
    /// Whether its last bits are hops, and no secret.
    has_hops: bool,
}

impl KeyBytes {
    pub(super) fn draw(wide: bool, has_hops: bool, entropy: &mut dyn Entropy) -> Self {
        let mut key = Self { bytes: Secret::new([0; WIDE_KEY]), wide, has_hops };
        let length = key.length();
        let bytes = &mut key.bytes.expose_mut()[..length];
        entropy.fill(bytes);
        if has_hops {
            bytes[length - 1] |= HOPS;
        }
        key
    }

    const fn length(&self) -> usize {
        if self.wide { WIDE_KEY } else { NARROW_KEY }
    }

    pub(super) fn expose(&self) -> &[u8] {
        &self.bytes.expose()[..self.length()]
    }

    pub(super) fn copy(&self) -> Self {
        Self { bytes: Secret::new(*self.bytes.expose()), ..*self }
    }

    /// Whether somebody knows it. However many hops are left, it is the same key.
    pub(super) fn is(&self, guess: &[u8]) -> bool {
        if !self.has_hops || guess.len() != self.length() {
            return equal_in_constant_time(self.expose(), guess);
        }
        let mut issued = Secret::new([0; WIDE_KEY]);
        let issued = &mut issued.expose_mut()[..guess.len()];
        issued.copy_from_slice(guess);
        issued[guess.len() - 1] |= HOPS;
        equal_in_constant_time(self.expose(), issued)
    }
}

/// Brings any number into the process ids of a process: 1 to `i32::MAX`, or those of this peer.
pub(super) fn valid_pid(number: u32, own: Option<PeerId>) -> u32 {
    match own {
        None => (number & 0x7fff_ffff).max(1),
        Some(own) => (u32::from(own.number()) << NUMBER_BITS) | (number & ((1 << NUMBER_BITS) - 1)),
    }
}

/// The process that made it, when it is one with peers.
pub(super) fn maker(pid: u32) -> Option<PeerId> {
    u16::try_from(pid >> NUMBER_BITS).ok().and_then(PeerId::new)
}

/// The same key for the next peer, with a hop less. `None`: it has been passed on as often as it may be, or none of us
/// made it.
pub(super) fn passed_on(key: &[u8]) -> Option<Secret<Vec<u8>>> {
    let last = key.last().filter(|last| [NARROW_KEY, WIDE_KEY].contains(&key.len()) && **last & HOPS != 0)?;
    // The hops are the lowest bits, and not all of them are zero.
    let last = last - 1;
    let mut next = Secret::new(key.to_vec());
    next.expose_mut()[key.len() - 1] = last;
    Some(next)
}

//! How an input becomes settings and turns, and how the bytes of a turn are cut.

/// The front of an input that has not been used yet. At its end every number is zero and every string empty.
#[derive(Clone, Copy)]
pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(super) const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, the higher one first.
    pub(super) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next `n` bytes, or what is left.
    pub(super) fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// A string behind its length in two bytes.
    pub(super) fn string(&mut self) -> &'a [u8] {
        let length = usize::from(self.word());
        self.take(length)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// How bytes are cut into reads.
#[derive(Clone, Copy)]
pub(super) enum Cut {
    /// Each turn arrives in one piece.
    Whole,
    /// Byte by byte.
    Single,
    /// In pieces of other sizes, the same for the same state.
    Random(u64),
}

impl Cut {
    /// From a byte of the input.
    pub(super) fn seeded(seed: u8) -> Self {
        Self::Random(u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The length of the next piece of `left` bytes.
    pub(super) fn next(&mut self, left: usize) -> usize {
        match self {
            Self::Whole => left,
            Self::Single => left.min(1),
            Self::Random(state) => {
                // xorshift64 (Marsaglia 2003): never zero when it was not.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                // Mostly a few bytes, now and then many: headers are cut, and bodies pass in one piece.
                let limit = if *state & 3 == 0 { 512 } else { 8 };
                left.min(1 + (*state >> 32) as usize % limit)
            }
        }
    }

    /// All pieces, in order.
    pub(super) fn pieces(self, bytes: &[u8]) -> Pieces<'_> {
        Pieces { cut: self, bytes }
    }
}

/// See [`Cut::pieces`].
pub(super) struct Pieces<'a> {
    cut: Cut,
    bytes: &'a [u8],
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.bytes.is_empty() {
            return None;
        }
        let (head, tail) = self.bytes.split_at(self.cut.next(self.bytes.len()));
        self.bytes = tail;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_ends_in_zeros() {
        let mut script = Script::new(&[7, 0, 2, b'a', b'b', b'c', 0]);
        assert_eq!((script.byte(), script.string(), script.is_over()), (7, &b"ab"[..], false));
        assert_eq!((script.word(), script.word(), script.string()), (0x6300, 0, &b""[..]));
        assert!(script.is_over() && script.rest().is_empty());
    }

    #[test]
    fn every_cut_gives_all_bytes_in_order() {
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for cut in [Cut::Whole, Cut::Single].into_iter().chain((0..=255).map(Cut::seeded)) {
            let pieces: Vec<&[u8]> = cut.pieces(&bytes).collect();
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
            assert_eq!(pieces.concat(), bytes);
        }
    }
}

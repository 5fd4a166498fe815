//! Mutations from a fixed seed: bits, bytes, numbers of interest, pieces taken out, doubled or spliced in from others.

/// Lengths and counts at which readers go wrong.
const NUMBERS: [u32; 10] = [0, 1, 3, 4, 0x7f, 0xffff, 0x3fff_fffe, 0x3fff_ffff, 0x7fff_ffff, 0xffff_ffff];
/// Longer inputs only take longer.
const MAX_LENGTH: usize = 8192;

/// Makes new inputs of known ones.
pub struct Mutator {
    rng: fastrand::Rng,
    inputs: Vec<Vec<u8>>,
}

impl Mutator {
    /// The same for the same target and inputs.
    #[must_use]
    pub fn new(target: &str, mut inputs: Vec<Vec<u8>>) -> Self {
        let seed = target.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        inputs.push(Vec::new());
        Self { rng: fastrand::Rng::with_seed(seed), inputs }
    }

    /// The next input.
    pub fn mutate(&mut self) -> Vec<u8> {
        let mut data = self.inputs[self.rng.usize(..self.inputs.len())].clone();
        for _ in 0..self.rng.usize(1..=6) {
            self.change(&mut data);
        }
        data.truncate(MAX_LENGTH);
        data
    }

    fn change(&mut self, data: &mut Vec<u8>) {
        let at = self.rng.usize(..=data.len());
        let end = self.rng.usize(at..=data.len().min(at + 64));
        match self.rng.u8(..8) {
            0 if at < data.len() => data[at] ^= 1 << self.rng.u8(..8),
            1 if at < data.len() => data[at] = self.rng.u8(..),
            2 => {
                let number = NUMBERS[self.rng.usize(..NUMBERS.len())].to_be_bytes();
                let width = [1, 2, 4][self.rng.usize(..3)];
                for (byte, new) in data[at..].iter_mut().zip(&number[4 - width..]) {
                    *byte = *new;
                }
            }
            3 => drop(data.drain(at..end)),
            4 => {
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
            5 => {
                let piece: Vec<u8> = (0..self.rng.usize(..32)).map(|_| self.rng.u8(..)).collect();
                data.splice(at..at, piece);
            }
            6 => {
                let other = &self.inputs[self.rng.usize(..self.inputs.len())];
                let from = self.rng.usize(..=other.len());
                let to = self.rng.usize(from..=other.len());
                data.splice(at..end, other[from..to].iter().copied());
            }
            _ => data.insert(at, self.rng.u8(..)),
        }
    }
}

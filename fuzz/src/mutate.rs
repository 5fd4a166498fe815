//! Mutations from a fixed seed: bits, bytes, numbers of interest, pieces taken out, doubled or spliced in from others.

use gprxy_proto::testing::dice::Dice;

/// Lengths and counts at which readers go wrong.
const NUMBERS: [u32; 10] = [0, 1, 3, 4, 0x7f, 0xffff, 0x3fff_fffe, 0x3fff_ffff, 0x7fff_ffff, 0xffff_ffff];
/// Longer inputs only take longer.
const MAX_LENGTH: usize = 8192;

/// Makes new inputs of known ones.
pub struct Mutator {
    dice: Dice,
    inputs: Vec<Vec<u8>>,
}

impl Mutator {
    /// The same for the same target and inputs.
    #[must_use]
    pub fn new(target: &str, mut inputs: Vec<Vec<u8>>) -> Self {
        let seed = target.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        inputs.push(Vec::new());
        Self { dice: Dice::new(seed), inputs }
    }

    /// The next input.
    pub fn mutate(&mut self) -> Vec<u8> {
        let mut data = self.dice.pick(&self.inputs).clone();
        for _ in 0..self.dice.length(6) {
            self.change(&mut data);
        }
        data.truncate(MAX_LENGTH);
        data
    }

    /// A number up to and including `most`.
    fn up_to(&mut self, most: usize) -> usize {
        self.dice.length(most + 1) - 1
    }

    fn byte(&mut self) -> u8 {
        self.dice.next().to_be_bytes()[0]
    }

    fn change(&mut self, data: &mut Vec<u8>) {
        let at = self.up_to(data.len());
        let end = at + self.up_to((data.len() - at).min(64));
        match self.dice.below(8) {
            0 if at < data.len() => data[at] ^= 1 << self.dice.below(8),
            1 if at < data.len() => data[at] = self.byte(),
            2 => {
                let number = self.dice.pick(&NUMBERS).to_be_bytes();
                let width = *self.dice.pick(&[1, 2, 4]);
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
                let piece: Vec<u8> = (0..self.up_to(31)).map(|_| self.byte()).collect();
                data.splice(at..at, piece);
            }
            6 => {
                let other = self.dice.pick(&self.inputs).clone();
                let from = self.up_to(other.len());
                let to = from + self.up_to(other.len() - from);
                data.splice(at..end, other[from..to].iter().copied());
            }
            _ => data.insert(at, self.byte()),
        }
    }
}

//! The answer to AuthenticationMD5Password (PostgreSQL manual, section 54.2.1).
//!
//! MD5 is broken as a hash and PostgreSQL has deprecated these passwords; servers that still hold them are a reason to
//! speak it, not to recommend it.

use md5::{Digest, Md5};
use zeroize::Zeroize;

use crate::secret::Secret;

/// `"md5"` and 32 hexadecimal digits.
const ANSWER_LEN: usize = 35;

/// What a PasswordMessage must say: `"md5" + hex(md5(hex(md5(password + user)) + salt))`.
#[must_use]
pub fn answer(user: &[u8], password: &[u8], salt: [u8; 4]) -> Secret<Vec<u8>> {
    // The inner digest is what the server stores: whoever has it needs no password.
    let stored = hex_digest(&[password, user]);
    let outer = hex_digest(&[stored.expose(), &salt]);
    let mut answer = Vec::with_capacity(ANSWER_LEN);
    answer.extend_from_slice(b"md5");
    answer.extend_from_slice(outer.expose());
    Secret::new(answer)
}

fn hex_digest(parts: &[&[u8]]) -> Secret<[u8; 32]> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    let mut digest: [u8; 16] = md5.finalize().into();
    let mut hex = Secret::new([0; 32]);
    for (pair, byte) in hex.expose_mut().chunks_exact_mut(2).zip(digest) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    digest.zeroize();
    hex
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::md5_hash;

    use super::*;

    #[test]
    fn agrees_with_another_implementation() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let user: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
            let password: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
            let salt = random.u32(..).to_be_bytes();
            assert_eq!(answer(&user, &password, salt).expose(), md5_hash(&user, &password, salt).as_bytes());
        }
    }

    #[test]
    fn the_salt_matters() {
        assert_ne!(answer(b"u", b"p", [0; 4]).expose(), answer(b"u", b"p", [0, 0, 0, 1]).expose());
    }
}

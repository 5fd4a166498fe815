//! AuthenticationMD5Password and its answer (PostgreSQL manual, section 54.2.1), from either side.
//!
//! MD5 is broken as a hash and PostgreSQL has deprecated these passwords; servers and clients that still have nothing
//! else are a reason to speak it, not to recommend it.

use md5::{Digest, Md5};
use zeroize::Zeroize;

use crate::secret::{Secret, equal_in_constant_time};

/// `"md5"` and 32 hexadecimal digits.
const ANSWER_LEN: usize = 35;

/// The hexadecimal digits of a stored password: `md5` stands before them in `pg_authid.rolpassword`.
pub type StoredDigest = Secret<[u8; 32]>;

/// What a PasswordMessage must say: `"md5" + hex(md5(hex(md5(password + user)) + salt))`.
#[must_use]
pub fn answer(user: &[u8], password: &[u8], salt: [u8; 4]) -> Secret<Vec<u8>> {
    answer_with(&stored(user, password), salt)
}

/// What a server keeps of a password. Whoever has it needs no password.
#[must_use]
pub fn stored(user: &[u8], password: &[u8]) -> StoredDigest {
    hex_digest(&[password, user])
}

/// Reads a stored password: `md5` and 32 hexadecimal digits.
#[must_use]
pub fn parse_stored(text: &[u8]) -> Option<StoredDigest> {
    let digits: [u8; 32] = text.strip_prefix(b"md5")?.try_into().ok()?;
    digits.iter().all(u8::is_ascii_hexdigit).then(|| Secret::new(digits.map(|digit| digit.to_ascii_lowercase())))
}

/// The answer of somebody who has what the server keeps.
#[must_use]
pub fn answer_with(stored: &StoredDigest, salt: [u8; 4]) -> Secret<Vec<u8>> {
    let outer = hex_digest(&[stored.expose(), &salt]);
    let mut answer = Vec::with_capacity(ANSWER_LEN);
    answer.extend_from_slice(b"md5");
    answer.extend_from_slice(outer.expose());
    Secret::new(answer)
}

/// Whether this is the answer of somebody who knows the password, or what is kept of it.
#[must_use]
pub fn is_answer(given: &[u8], stored: &StoredDigest, salt: [u8; 4]) -> bool {
    equal_in_constant_time(given, answer_with(stored, salt).expose())
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
    fn what_is_kept_answers_as_the_password_does() {
        let stored = stored(b"ann", b"pencil");
        let text = [b"md5", &stored.expose()[..]].concat();
        let read = parse_stored(&[b"md5", &stored.expose().to_ascii_uppercase()[..]].concat()).unwrap();
        assert_eq!(answer_with(&read, [1; 4]).expose(), answer(b"ann", b"pencil", [1; 4]).expose());
        assert!(is_answer(answer(b"ann", b"pencil", [1; 4]).expose(), &stored, [1; 4]));
        for wrong in
            [&answer(b"ann", b"pencils", [1; 4]), &answer(b"bob", b"pencil", [1; 4]), &Secret::new(text.clone())]
        {
            assert!(!is_answer(wrong.expose(), &stored, [1; 4]));
        }
        assert!(!is_answer(b"", &stored, [1; 4]));
        for text in [&b"md5"[..], b"md5zz345678901234567890123456789012", &text[..34], &[&text[..], b"0"].concat()] {
            assert!(parse_stored(text).is_none(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_salt_matters() {
        assert_ne!(answer(b"u", b"p", [0; 4]).expose(), answer(b"u", b"p", [0, 0, 0, 1]).expose());
    }
}

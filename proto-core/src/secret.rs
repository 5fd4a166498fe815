//! Values that must not be seen: no `Debug`, no `Display`, no `Clone`, wiped when dropped.

use zeroize::Zeroize;

/// A value that is wiped on drop and cannot be printed or copied by accident.
///
/// The only way to its content is [`Secret::expose`], a name that is easy to look for in review.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value. The caller's own copies, if any, stay the caller's concern.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The content.
    #[must_use]
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// The content, to be filled or changed in place.
    pub const fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<&str> for Secret<String> {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Compares two byte strings in a time that depends only on their lengths.
#[must_use]
pub fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_content_and_length() {
        assert!(equal_in_constant_time(b"", b""));
        assert!(equal_in_constant_time(b"abc", b"abc"));
        assert!(!equal_in_constant_time(b"abc", b"abd"));
        assert!(!equal_in_constant_time(b"abc", b"ab"));
    }
}

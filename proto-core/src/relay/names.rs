//! Names of prepared statements and portals.

/// The length behind which PostgreSQL ignores a name (`NAMEDATALEN - 1`): its tables of prepared statements and
/// portals have keys of that size, so two names that begin alike are one to the server, and must be one here.
const MAX_NAME: usize = 63;

/// A name as the server tells them apart, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    bytes: [u8; MAX_NAME],
    length: u8,
}

impl Name {
    pub(super) fn new(name: &[u8]) -> Self {
        let length = name.len().min(MAX_NAME);
        let mut bytes = [0; MAX_NAME];
        bytes[..length].copy_from_slice(&name[..length]);
        Self { bytes, length: u8::try_from(length).unwrap_or(0) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Whether it is that of the unnamed statement or portal.
    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_long_as_the_server_reads_them() {
        let long = [b'n'; 64];
        assert!(Name::new(&long) == Name::new(&long[..63]));
        assert!(Name::new(&long[..62]) != Name::new(&long[..63]));
        assert_eq!(Name::new(&long).bytes(), &long[..63]);
        assert!(Name::new(b"").is_empty());
    }
}

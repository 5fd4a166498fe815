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

/// The name in `DEALLOCATE [PREPARE] name`, when the text is nothing but that.
pub(super) fn deallocated(text: &[u8]) -> Option<Name> {
    let rest = word(text.trim_ascii(), b"deallocate")?;
    let rest = word(rest, b"prepare").unwrap_or(rest);
    let name = rest.strip_suffix(b";").unwrap_or(rest).trim_ascii();
    if let Some(quoted) = name.strip_prefix(b"\"") {
        let quoted = quoted.strip_suffix(b"\"")?;
        return (!quoted.is_empty() && !quoted.contains(&b'"')).then(|| Name::new(quoted));
    }
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$');
    // Identifiers without quotes are folded to lower case (manual, section 4.1.1).
    (!name.is_empty() && name.iter().all(plain)).then(|| Name::new(&name.to_ascii_lowercase()))
}

/// What follows a keyword and the space behind it.
fn word<'a>(text: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (head, tail) = text.split_at_checked(keyword.len())?;
    let spaced = tail.first().is_some_and(u8::is_ascii_whitespace);
    (head.eq_ignore_ascii_case(keyword) && spaced).then(|| tail.trim_ascii_start())
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

    #[test]
    fn only_a_lone_deallocate_names_its_statement() {
        let name =
            |text: &str| deallocated(text.as_bytes()).map(|name| String::from_utf8_lossy(name.bytes()).into_owned());
        assert_eq!(name(" deallocate S1 ; "), Some("s1".into()));
        assert_eq!(name("DEALLOCATE PREPARE \"S1\""), Some("S1".into()));
        assert_eq!(name("DEALLOCATE _pg3_0"), Some("_pg3_0".into()));
        assert_eq!(name("deallocate prepare"), Some("prepare".into()));
        for other in [
            "",
            "deallocate",
            "deallocates1",
            "deallocate \"a\"\"b\"",
            "deallocate a; select 1",
            "select 1",
            "deallocate \"\"",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}

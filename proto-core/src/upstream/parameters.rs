//! What a server reports of a session (ParameterStatus; PostgreSQL manual, section 54.2.7), and how the values of one
//! session are brought to another connection.

use std::sync::Arc;

use super::{Parameters, remember};
use crate::codec::backend::emit_parameter_status;
use crate::codec::frontend::emit_query;

/// Reported values: those of a login, which many sessions share, and what has changed since.
#[derive(Clone, Default, Debug)]
pub struct Reported {
    base: Arc<Parameters>,
    /// Shared by those who have it from each other.
    changed: Arc<Parameters>,
}

impl From<Parameters> for Reported {
    fn from(parameters: Parameters) -> Self {
        Self { base: Arc::new(parameters), changed: Arc::default() }
    }
}

impl From<Arc<Parameters>> for Reported {
    fn from(base: Arc<Parameters>) -> Self {
        Self { base, changed: Arc::default() }
    }
}

/// What [`Reported::bring_to`] found to be different.
#[derive(Default)]
pub struct Differences {
    /// A simple query that gives the connection the session's values; empty when it has them.
    pub set: Vec<u8>,
    /// ParameterStatus messages for the client, of values that nobody can set.
    pub tell: Vec<u8>,
}

impl Reported {
    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let find = |all: &Parameters| all.iter().position(|(known, _)| **known == *name);
        match find(&self.changed) {
            Some(at) => Some(&self.changed[at].1),
            None => find(&self.base).map(|at| &*self.base[at].1),
        }
    }

    /// The value at login.
    #[must_use]
    pub fn base(&self, name: &[u8]) -> Option<&[u8]> {
        self.base.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    /// The values at login alone.
    #[must_use]
    pub fn at_login(&self) -> Self {
        self.base.clone().into()
    }

    /// The same, as they are shared.
    #[must_use]
    pub const fn base_values(&self) -> &Arc<Parameters> {
        &self.base
    }

    /// Enters a value.
    ///
    /// Gives back `false`, and changes nothing, when there are more different names than anybody needs.
    #[must_use]
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> bool {
        if self.base(name) == Some(value) {
            if self.changed.iter().any(|(known, _)| **known == *name) {
                Arc::make_mut(&mut self.changed).retain(|(known, _)| **known != *name);
            }
            return true;
        }
        if self.get(name) == Some(value) {
            return true;
        }
        remember(Arc::make_mut(&mut self.changed), name, value)
    }

    /// Enters many; what there is no room for is left out.
    pub fn set_all(&mut self, parameters: &Parameters) {
        for (name, value) in parameters {
            let _ = self.set(name, value);
        }
    }

    /// All names and values, in the order in which they were first reported.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let of_login = self.base.iter().map(|(name, value)| (&**name, self.get(name).unwrap_or(value)));
        let new = self.changed.iter().filter(|(name, _)| self.base(name).is_none());
        of_login.chain(new.map(|(name, value)| (&**name, &**value)))
    }

    /// Whether a connection with these values needs nothing to serve a session with those. Cheap where both began with
    /// the same login.
    #[must_use]
    pub fn fits(&self, connection: &Self) -> bool {
        Arc::ptr_eq(&self.base, &connection.base)
            && (Arc::ptr_eq(&self.changed, &connection.changed) || self.changed == connection.changed)
    }

    /// What it takes to give a connection, which now has other values, those of this session. Values that cannot be set
    /// are the connection's from here on.
    pub fn bring_to(&mut self, connection: &Self, differences: &mut Differences) {
        let mut text = Vec::new();
        let mut foreign = Parameters::new();
        for (name, theirs) in connection.iter() {
            match self.get(name) {
                Some(ours) if ours == theirs => {}
                Some(ours) if is_settable(name) && ours.is_ascii() => emit_set(&mut text, name, ours),
                _ => foreign.push((name.into(), theirs.into())),
            }
        }
        for (name, value) in foreign {
            emit_parameter_status(&mut differences.tell, &name, &value);
            let _ = self.set(&name, &value);
        }
        if !text.is_empty() {
            emit_query(&mut differences.set, &text);
        }
    }
}

/// What PostgreSQL reports and nobody can set (manual, section 54.2.7): the server's own, and what follows the role.
fn is_settable(name: &[u8]) -> bool {
    const FIXED: [&[u8]; 6] = [
        b"server_version",
        b"server_encoding",
        b"integer_datetimes",
        b"in_hot_standby",
        b"is_superuser",
        b"session_authorization",
    ];
    // A name is written as it is: anything but the names of settings stays where it is.
    !FIXED.contains(&name) && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

/// `SET name TO E'value';`
fn emit_set(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // As a string, a list of quoted names would become a single name.
    let (before, between, after): (&[u8], &[u8], &[u8]) = if name == b"search_path" {
        (b"SELECT pg_catalog.set_config('", b"',E'", b"',false);")
    } else {
        (b"SET ", b" TO E'", b"';")
    };
    text.extend_from_slice(before);
    text.extend_from_slice(name);
    text.extend_from_slice(between);
    // Backslashes are doubled, which an E'' string wants whatever `standard_conforming_strings` is; all bytes are ASCII,
    // and so the same in every client encoding.
    for &byte in value {
        if matches!(byte, b'\'' | b'\\') {
            text.push(byte);
        }
        text.push(byte);
    }
    text.extend_from_slice(after);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(pairs: &[(&str, &str)]) -> Reported {
        let pairs = pairs.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
        Reported::from(pairs.collect::<Parameters>())
    }

    fn differences(session: &mut Reported, connection: &Reported) -> Differences {
        let mut differences = Differences::default();
        session.bring_to(connection, &mut differences);
        differences
    }

    #[test]
    fn a_value_that_returns_to_that_of_the_login_is_no_change() {
        let mut session = reported(&[("TimeZone", "UTC"), ("DateStyle", "ISO, MDY")]);
        let connection = session.clone();
        assert!(session.fits(&connection));
        assert!(session.set(b"TimeZone", b"Asia/Tokyo"));
        assert!(!session.fits(&connection));
        assert_eq!(session.get(b"TimeZone"), Some(&b"Asia/Tokyo"[..]));
        assert!(session.set(b"TimeZone", b"UTC"));
        assert!(session.fits(&connection));
    }

    #[test]
    fn only_what_differs_is_set() {
        let mut session = reported(&[("TimeZone", "UTC"), ("application_name", ""), ("DateStyle", "ISO, MDY")]);
        let mut connection = session.clone();
        assert!(session.set(b"application_name", b"it's \\ mine"));
        assert!(connection.set(b"TimeZone", b"GMT"));
        let found = differences(&mut session, &connection);
        let mut expected = Vec::new();
        emit_query(&mut expected, b"SET TimeZone TO E'UTC';SET application_name TO E'it''s \\\\ mine';");
        assert_eq!(found.set, expected);
        assert!(found.tell.is_empty());
    }

    #[test]
    fn a_search_path_stays_a_list_and_a_value() {
        let mut session = reported(&[("search_path", "\"$user\", public")]);
        let connection = session.clone();
        assert!(session.set(b"search_path", b"a, b'; drop table t"));
        let mut expected = Vec::new();
        emit_query(&mut expected, b"SELECT pg_catalog.set_config('search_path',E'a, b''; drop table t',false);");
        assert_eq!(differences(&mut session, &connection).set, expected);
    }

    #[test]
    fn what_nobody_can_set_is_told() {
        let mut session = reported(&[("in_hot_standby", "off"), ("search_path", "caf\u{e9}"), ("weird;name", "a")]);
        let connection =
            reported(&[("in_hot_standby", "on"), ("search_path", "public"), ("weird;name", "b"), ("new", "1")]);
        let found = differences(&mut session, &connection);
        assert!(found.set.is_empty());
        let mut expected = Vec::new();
        for (name, value) in [("in_hot_standby", "on"), ("search_path", "public"), ("weird;name", "b"), ("new", "1")] {
            emit_parameter_status(&mut expected, name.as_bytes(), value.as_bytes());
        }
        assert_eq!(found.tell, expected);
        assert!(differences(&mut session, &connection).tell.is_empty(), "once");
        assert_eq!(session.get(b"new"), Some(&b"1"[..]));
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let mut session = Reported::default();
        assert!((0..256).all(|n| session.set(format!("p{n}").as_bytes(), b"x")));
        assert!(!session.set(b"one more", b"x"));
    }
}

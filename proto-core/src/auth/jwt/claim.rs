//! Where in a token's claims something is found, and how it is read without trusting its type.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// Longer names are a mistake in the configuration.
const MAX_PATH_BYTES: usize = 512;

/// A claim's name, or the way to it through nested objects.
///
/// `realm_access.roles` means the claim of that very name if there is one, otherwise `roles` inside `realm_access`.
/// Names that contain dots themselves (`https://corp.example/roles`) are found as they stand, and as a part of a path
/// (`resource_access.my.client.roles`) too: the longest name that exists is entered first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimPath(Box<str>);

/// Why a text is not a claim path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadClaimPath(&'static str);

impl fmt::Display for BadClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadClaimPath {}

impl FromStr for ClaimPath {
    type Err = BadClaimPath;

    fn from_str(text: &str) -> Result<Self, BadClaimPath> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadClaimPath("a claim name is empty"));
        }
        if text.len() > MAX_PATH_BYTES || text.contains(char::is_control) {
            return Err(BadClaimPath("a claim name is longer than 512 bytes or holds a control character"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Lookup<'a> {
    Found(&'a Value),
    Absent,
    /// A name on the way exists and is no object.
    NotAnObject,
}

impl ClaimPath {
    /// A path known to be valid when gprxy was written.
    pub(crate) fn fixed(name: &'static str) -> Self {
        Self(name.into())
    }

    /// The path as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn lookup<'a>(&self, claims: &'a Map<String, Value>) -> Lookup<'a> {
        lookup(claims, &self.0)
    }
}

fn lookup<'a>(object: &'a Map<String, Value>, path: &str) -> Lookup<'a> {
    if let Some(value) = object.get(path) {
        return Lookup::Found(value);
    }
    let mut blocked = false;
    // Depth and number of tries are bounded by the dots in the configured path.
    for (dot, _) in path.rmatch_indices('.') {
        match object.get(&path[..dot]) {
            Some(Value::Object(inner)) => match lookup(inner, &path[dot + 1..]) {
                Lookup::Absent => {}
                Lookup::NotAnObject => blocked = true,
                found @ Lookup::Found(_) => return found,
            },
            Some(_) => blocked = true,
            None => {}
        }
    }
    if blocked { Lookup::NotAnObject } else { Lookup::Absent }
}

/// Seconds since 1970 of the last moment of the year 9999: no honest clock claim lies behind it, and every sum with a
/// leeway stays far from the ends of `i64` microseconds.
const LAST_SECOND: i64 = 253_402_300_799;

/// A NumericDate (RFC 7519 section 2: seconds since 1970, a fraction allowed) in microseconds. `None` when the value is
/// no number or no date between 1970 and 9999.
pub(crate) fn numeric_date(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    if let Some(secs) = number.as_i64() {
        return (0..=LAST_SECOND).contains(&secs).then(|| secs * 1_000_000);
    }
    let secs = number.as_f64().filter(|secs| (0.0..=LAST_SECOND as f64).contains(secs))?;
    // In range, so the cast neither saturates nor meets a NaN.
    Some((secs * 1e6).floor() as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(claims: Value, path: &str) -> Option<String> {
        match path.parse::<ClaimPath>().unwrap().lookup(claims.as_object().unwrap()) {
            Lookup::Found(value) => Some(value.to_string()),
            Lookup::Absent => None,
            Lookup::NotAnObject => Some("blocked".into()),
        }
    }

    #[test]
    fn the_literal_name_wins_over_nesting() {
        assert_eq!(found(json!({"a.b": 1, "a": {"b": 2}}), "a.b").as_deref(), Some("1"));
        assert_eq!(found(json!({"a": {"b": 2}}), "a.b").as_deref(), Some("2"));
        assert_eq!(found(json!({"https://corp.example/roles": 3}), "https://corp.example/roles").as_deref(), Some("3"));
    }

    #[test]
    fn names_with_dots_are_entered_inside_a_path() {
        let claims = json!({"resource_access": {"my.client": {"roles": 1}, "my": {"client": "x"}}});
        assert_eq!(found(claims, "resource_access.my.client.roles").as_deref(), Some("1"));
        let claims = json!({"https://corp.example/claims": {"roles": 1}, "https://corp": {"x": 1}});
        assert_eq!(found(claims, "https://corp.example/claims.roles").as_deref(), Some("1"));
    }

    #[test]
    fn absent_and_blocked_differ() {
        assert_eq!(found(json!({"a": {}}), "a.b"), None);
        assert_eq!(found(json!({}), "a.b"), None);
        assert_eq!(found(json!({"a": "x"}), "a.b").as_deref(), Some("blocked"));
        assert_eq!(found(json!({"a": {"b": null}}), "a.b.c").as_deref(), Some("blocked"));
        assert_eq!(found(json!({"a": {"": 1}}), "..."), None);
    }

    #[test]
    fn paths_are_checked_when_they_are_made() {
        assert!("".parse::<ClaimPath>().is_err());
        assert!("  ".parse::<ClaimPath>().is_err());
        assert!("a\nb".parse::<ClaimPath>().is_err());
        assert!("x".repeat(513).parse::<ClaimPath>().is_err());
        assert_eq!(" email ".parse::<ClaimPath>().unwrap().as_str(), "email");
    }

    #[test]
    fn numeric_dates() {
        assert_eq!(numeric_date(&json!(1_700_000_000)), Some(1_700_000_000_000_000));
        assert_eq!(numeric_date(&json!(1.5)), Some(1_500_000));
        assert_eq!(numeric_date(&json!(0)), Some(0));
        assert_eq!(numeric_date(&json!(LAST_SECOND)), Some(LAST_SECOND * 1_000_000));
        for bad in [
            json!("1700000000"),
            json!(null),
            json!(true),
            json!([1]),
            json!(-1),
            json!(-0.5),
            json!(1e300),
            json!(LAST_SECOND + 1),
            json!(u64::MAX),
        ] {
            assert_eq!(numeric_date(&bad), None, "{bad}");
        }
    }
}

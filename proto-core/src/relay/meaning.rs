//! What a statement is prepared as: its text, and the settings under which the server read it.
//!
//! PostgreSQL gives a text its meaning at Parse: `'01/02/2020'::date` is a day in January or February by `DateStyle`, a
//! literal of type `timestamptz` is read in `TimeZone`, a backslash by `standard_conforming_strings`, names by `search_path`.
//! So equal texts are one statement only where they were read under equal settings. Whatever the server reports counts,
//! but for a few settings of which it is known that they decide nothing at Parse.
//!
//! Settings are reported before ReadyForQuery. Behind something that runs they are not known until then: what is prepared
//! there is one with nothing else.

use std::sync::Arc;

use crate::upstream::Reported;

/// The settings that count, name and value each with a zero byte behind.
pub(super) type Settings = Arc<[u8]>;

/// What the server reports and never looks at to understand a text.
const IRRELEVANT: [&[u8]; 4] =
    [b"application_name", b"default_transaction_read_only", b"in_hot_standby", b"scram_iterations"];

/// Whether a setting decides what a text means.
pub(super) fn decides(name: &[u8]) -> bool {
    !IRRELEVANT.contains(&name)
}

/// The settings that count among these. Each connection reports in its own order: here they stand by name.
pub(super) fn settings(reported: &Reported) -> Settings {
    let mut pairs: Vec<_> = reported.iter().filter(|(name, _)| decides(name)).collect();
    pairs.sort_unstable();
    pairs.iter().flat_map(|(name, value)| [name, &b"\0"[..], value, b"\0"]).flatten().copied().collect()
}

/// A statement as the server has understood it.
pub(super) struct Meaning {
    /// What a Parse says behind the name: the text with its zero byte, and the types of parameters.
    pub(super) text: Arc<[u8]>,
    /// Where it is not known, the statement is the same as itself alone.
    settings: Option<Settings>,
}

/// A statement that may be known in several places.
pub(super) type Definition = Arc<Meaning>;

impl Meaning {
    pub(super) fn new(text: impl Into<Arc<[u8]>>, settings: Option<Settings>) -> Definition {
        Arc::new(Self { text: text.into(), settings })
    }

    /// Whether it is what this text means under these settings.
    pub(super) fn is(&self, text: &[u8], settings: Option<&Settings>) -> bool {
        *self.text == *text && self.is_under(settings)
    }

    fn is_under(&self, settings: Option<&Settings>) -> bool {
        let both = self.settings.as_ref().zip(settings);
        both.is_some_and(|(mine, other)| Arc::ptr_eq(mine, other) || mine == other)
    }
}

/// Whether these two are one.
pub(super) fn are_one(one: &Definition, other: &Definition) -> bool {
    Arc::ptr_eq(one, other) || one.is(&other.text, other.settings.as_ref())
}

/// The same text as it is understood when it is prepared now.
pub(super) fn anew(definition: &Definition, settings: Option<Settings>) -> Definition {
    if definition.is_under(settings.as_ref()) {
        return definition.clone();
    }
    Meaning::new(definition.text.clone(), settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(pairs: &[(&str, &str)]) -> Reported {
        let mut reported = Reported::default();
        assert!(pairs.iter().all(|(name, value)| reported.set(name.as_bytes(), value.as_bytes())));
        reported
    }

    #[test]
    fn settings_are_compared_by_value_and_only_where_they_count() {
        let one = settings(&reported(&[("DateStyle", "ISO, DMY"), ("TimeZone", "UTC"), ("application_name", "a")]));
        let same = settings(&reported(&[("application_name", "b"), ("TimeZone", "UTC"), ("DateStyle", "ISO, DMY")]));
        let other = settings(&reported(&[("DateStyle", "ISO, MDY"), ("TimeZone", "UTC"), ("application_name", "a")]));
        assert!(one == same && one != other);
        let statement = Meaning::new(&b"t"[..], Some(one.clone()));
        assert!(
            statement.is(b"t", Some(&same)) && !statement.is(b"t", Some(&other)) && !statement.is(b"u", Some(&one))
        );
    }

    #[test]
    fn what_was_understood_in_an_unknown_way_is_like_nothing_else() {
        let unknown = Meaning::new(&b"t"[..], None);
        assert!(are_one(&unknown, &unknown.clone()) && !are_one(&unknown, &Meaning::new(&b"t"[..], None)));
        assert!(!unknown.is(b"t", None) && !Arc::ptr_eq(&unknown, &anew(&unknown, None)));
    }
}

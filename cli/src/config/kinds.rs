//! The kinds of value a setting may have: what they accept, how they are told in a message, how they are written back.

use std::time::Duration;

use super::document::Value;
use super::draft::toml_string;
use super::problem::nearest;
use super::units::{parse_duration, parse_size, show_duration, show_size};

/// A kind of value.
pub(crate) trait Kind {
    /// What it is read into.
    type Out;

    /// Reads a value; `None` when it is not one of this kind.
    fn parse(&self, value: &Value) -> Option<Self::Out>;

    /// What is accepted, for a message: "a port number from 0 to 65535".
    fn expected(&self) -> String;

    /// The value in TOML's spelling.
    fn show(&self, out: &Self::Out) -> String;

    /// The value as the admin console shows it: PgBouncer's spelling, durations in seconds, sizes in bytes, 1 and 0.
    fn plain(&self, out: &Self::Out) -> String {
        let shown = self.show(out);
        match shown.parse::<toml::Value>() {
            Ok(toml::Value::String(text)) => text,
            _ => shown,
        }
    }

    /// What was probably meant by a value that is not accepted.
    fn meant(&self, _value: &Value) -> Option<String> {
        None
    }
}

/// Text of at least one character, without control characters (no name, path or URL needs them).
pub(crate) struct Words(pub(crate) &'static str);

impl Kind for Words {
    type Out = String;

    fn parse(&self, value: &Value) -> Option<String> {
        let text = value.as_text()?;
        (!text.trim().is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
    }

    fn expected(&self) -> String {
        self.0.into()
    }

    fn show(&self, out: &String) -> String {
        toml_string(out)
    }
}

/// One line of text for people, or nothing.
pub(crate) struct Line;

impl Kind for Line {
    type Out = String;

    fn parse(&self, value: &Value) -> Option<String> {
        let text = value.as_text()?.trim();
        (text.len() <= 1024 && !text.contains(char::is_control)).then(|| text.to_owned())
    }

    fn expected(&self) -> String {
        "one line of at most 1024 bytes, or \"\" for none".into()
    }

    fn show(&self, out: &String) -> String {
        toml_string(out)
    }
}

/// SQL, or nothing.
pub(crate) struct Query;

impl Kind for Query {
    type Out = String;

    fn parse(&self, value: &Value) -> Option<String> {
        let text = value.as_text()?.trim();
        (text.len() <= 8192 && !text.contains('\0')).then(|| text.to_owned())
    }

    fn expected(&self) -> String {
        "SQL of at most 8192 bytes, or \"\" for none".into()
    }

    fn show(&self, out: &String) -> String {
        toml_string(out)
    }
}

/// A list of such texts, or one text with commas.
pub(crate) struct List(pub(crate) &'static str);

impl Kind for List {
    type Out = Vec<String>;

    fn parse(&self, value: &Value) -> Option<Vec<String>> {
        let items: Vec<&str> = match value {
            Value::Text(text) => text.expose().split(',').map(str::trim).collect(),
            Value::List(items) => items.iter().map(Value::as_text).collect::<Option<_>>()?,
            _ => return None,
        };
        let sound =
            !items.is_empty() && items.iter().all(|item| !item.trim().is_empty() && !item.contains(char::is_control));
        sound.then(|| items.into_iter().map(str::to_owned).collect())
    }

    fn expected(&self) -> String {
        self.0.into()
    }

    fn show(&self, out: &Vec<String>) -> String {
        let items: Vec<_> = out.iter().map(|item| toml_string(item)).collect();
        format!("[{}]", items.join(", "))
    }

    fn plain(&self, out: &Vec<String>) -> String {
        out.join(",")
    }
}

/// `true` or `false`.
pub(crate) struct Flag;

impl Kind for Flag {
    type Out = bool;

    fn parse(&self, value: &Value) -> Option<bool> {
        match value {
            Value::Boolean(flag) => Some(*flag),
            // PgBouncer's words.
            Value::Integer(number @ (0 | 1)) => Some(*number == 1),
            Value::Text(text) => match text.expose().trim() {
                "1" => Some(true),
                "0" => Some(false),
                text => text.parse().ok(),
            },
            _ => None,
        }
    }

    fn expected(&self) -> String {
        "true or false".into()
    }

    fn show(&self, out: &bool) -> String {
        out.to_string()
    }

    fn plain(&self, out: &bool) -> String {
        u8::from(*out).to_string()
    }
}

/// A whole number within bounds; text that reads as one will do (the environment knows only text).
pub(crate) struct Whole {
    /// What it counts, for the message: "a port number".
    pub(crate) what: &'static str,
    /// The smallest that is accepted.
    pub(crate) min: u32,
    /// The largest that is accepted.
    pub(crate) max: u32,
}

impl Kind for Whole {
    type Out = u32;

    fn parse(&self, value: &Value) -> Option<u32> {
        let number = match value {
            Value::Integer(number) => u32::try_from(*number).ok()?,
            Value::Text(text) => text.expose().trim().parse().ok()?,
            _ => return None,
        };
        (self.min..=self.max).contains(&number).then_some(number)
    }

    fn expected(&self) -> String {
        format!("{} from {} to {}", self.what, self.min, self.max)
    }

    fn show(&self, out: &u32) -> String {
        out.to_string()
    }
}

/// Any whole number of 32 bits: the priority of a role.
pub(crate) struct Rank;

impl Kind for Rank {
    type Out = i32;

    fn parse(&self, value: &Value) -> Option<i32> {
        match value {
            Value::Integer(number) => i32::try_from(*number).ok(),
            Value::Text(text) => text.expose().trim().parse().ok(),
            _ => None,
        }
    }

    fn expected(&self) -> String {
        "a whole number; the highest counts first".into()
    }

    fn show(&self, out: &i32) -> String {
        out.to_string()
    }
}

/// A duration within bounds.
pub(crate) struct Span {
    /// The shortest that is accepted.
    pub(crate) min: Duration,
    /// The longest that is accepted.
    pub(crate) max: Duration,
}

impl Span {
    /// Longer than nothing, up to ten years.
    pub(crate) const SOME: Self = Self { min: Duration::from_millis(1), max: Self::TEN_YEARS };
    /// Nothing, up to ten years.
    pub(crate) const ANY: Self = Self { min: Duration::ZERO, max: Self::TEN_YEARS };

    const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);
}

impl Kind for Span {
    type Out = Duration;

    fn parse(&self, value: &Value) -> Option<Duration> {
        let span = match value {
            Value::Integer(seconds) => Duration::from_secs(u64::try_from(*seconds).ok()?),
            Value::Text(text) => parse_duration(text.expose())?,
            _ => return None,
        };
        (self.min..=self.max).contains(&span).then_some(span)
    }

    fn expected(&self) -> String {
        let bounds = (show_duration(self.min), show_duration(self.max));
        format!(
            "a duration from {} to {} such as \"30s\" or \"1h 30m\" (a plain number is seconds)",
            bounds.0, bounds.1
        )
    }

    fn show(&self, out: &Duration) -> String {
        toml_string(&show_duration(*out))
    }

    fn plain(&self, out: &Duration) -> String {
        out.as_secs_f64().to_string()
    }
}

/// A size in bytes within bounds.
pub(crate) struct Size {
    /// The smallest that is accepted.
    pub(crate) min: u32,
    /// The largest that is accepted.
    pub(crate) max: u32,
}

impl Kind for Size {
    type Out = usize;

    fn parse(&self, value: &Value) -> Option<usize> {
        let bytes = match value {
            Value::Integer(bytes) => u64::try_from(*bytes).ok()?,
            Value::Text(text) => parse_size(text.expose())?,
            _ => return None,
        };
        let inside = (u64::from(self.min)..=u64::from(self.max)).contains(&bytes);
        inside.then(|| usize::try_from(bytes).ok()).flatten()
    }

    fn expected(&self) -> String {
        let bounds = (show_size(self.min.into()), show_size(self.max.into()));
        format!("a size from {} to {} such as \"64KiB\" (a plain number is bytes)", bounds.0, bounds.1)
    }

    fn show(&self, out: &usize) -> String {
        toml_string(&show_size(*out as u64))
    }

    fn plain(&self, out: &usize) -> String {
        out.to_string()
    }
}

/// One of a few words.
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Out = T;

    fn parse(&self, value: &Value) -> Option<T> {
        let text = value.as_text()?.trim();
        self.0.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice)
    }

    fn expected(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| *word).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }

    fn show(&self, out: &T) -> String {
        toml_string(self.0.iter().find(|(_, choice)| choice == out).map_or("", |(word, _)| word))
    }

    fn meant(&self, value: &Value) -> Option<String> {
        let words = self.0.iter().map(|(word, _)| *word);
        nearest(value.as_text()?.trim(), words).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Value {
        Value::List(items.iter().map(|item| Value::text(*item)).collect())
    }

    #[test]
    fn numbers_may_be_text_and_keep_their_bounds() {
        let port = Whole { what: "a port number", min: 0, max: 65_535 };
        assert_eq!(port.parse(&Value::Integer(7777)), Some(7777));
        assert_eq!(port.parse(&Value::text(" 7777 ")), Some(7777));
        for bad in [Value::Integer(-1), Value::Integer(65_536), Value::text("0x10"), Value::Boolean(true)] {
            assert_eq!(port.parse(&bad), None);
        }
        assert_eq!(port.expected(), "a port number from 0 to 65535");
    }

    #[test]
    fn lists_may_be_text_with_commas_and_hold_no_empty_item() {
        let kind = List("names");
        assert_eq!(kind.parse(&Value::text("a, b")), Some(vec!["a".into(), "b".into()]));
        assert_eq!(kind.parse(&list(&["a,b"])), Some(vec!["a,b".into()]), "a claim's name may hold a comma");
        for bad in [Value::text(""), Value::text("a,,b"), list(&[]), list(&["a", " "]), Value::Integer(1)] {
            assert_eq!(kind.parse(&bad), None);
        }
        assert_eq!(kind.show(&vec!["a\"".into()]), r#"["a\""]"#);
    }

    #[test]
    fn durations_and_sizes_keep_their_bounds() {
        assert_eq!(Span::SOME.parse(&Value::Integer(30)), Some(Duration::from_secs(30)));
        assert_eq!(Span::SOME.parse(&Value::text("0")), None);
        assert_eq!(Span::ANY.parse(&Value::text("0")), Some(Duration::ZERO));
        assert_eq!(Span::ANY.parse(&Value::text("3651d")), None);
        assert_eq!(Span::ANY.parse(&Value::Integer(-5)), None);
        let size = Size { min: 1024, max: 1 << 20 };
        assert_eq!(size.parse(&Value::text("64KiB")), Some(65_536));
        assert_eq!(size.parse(&Value::text("2MiB")), None);
        assert_eq!(size.expected(), "a size from 1KiB to 1MiB such as \"64KiB\" (a plain number is bytes)");
    }

    #[test]
    fn choices_name_each_other_and_the_one_that_was_meant() {
        let kind = Choice(&[("never", 1), ("loopback", 2), ("always", 3)]);
        assert_eq!(kind.parse(&Value::text("loopback")), Some(2));
        assert_eq!(kind.parse(&Value::text("Loopback")), None);
        assert_eq!(kind.expected(), "never, loopback or always");
        assert_eq!(kind.meant(&Value::text("loopbck")).as_deref(), Some("loopback"));
        assert_eq!(kind.show(&3), "\"always\"");
    }
}

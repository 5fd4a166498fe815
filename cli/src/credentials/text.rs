//! How single fields stand in the file.

use gprxy_proto::secret::Secret;
use serde::{Deserialize, Deserializer};

/// `null`, which the first gprxy wrote for an empty list, is the same as nothing.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

pub(super) fn no_secret() -> Secret<String> {
    Secret::new(String::new())
}

/// A secret is a plain string in the file: `jq -r .access_token` must work.
pub(super) mod secret {
    use super::Secret;
    use serde::{Deserializer, Serializer};

    pub(in crate::credentials) fn serialize<S: Serializer>(secret: &Secret<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(in crate::credentials) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret<String>, D::Error> {
        super::or_default(from).map(Secret::new)
    }
}

/// RFC 3339.
pub(super) mod time {
    use jiff::Timestamp;
    use serde::de::{Error, Unexpected};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::credentials) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub(in crate::credentials) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        // The text itself is left out of the message: whoever edits this file may have put anything there.
        text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Other("text"), &"a time as in RFC 3339"))
    }
}

//! Durations as text (`10s`, `1m 30s`) in files and on the command line, for `#[serde(with)]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Writes a duration as humantime text, for example `1m 30s`.
///
/// # Errors
/// Only those of the serializer.
pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_duration(*value))
}

/// Reads a duration written as humantime text.
///
/// # Errors
/// Text that is no duration, with what was found and an example of what is expected.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// Reads humantime text; the error says what was found and what is expected.
///
/// # Errors
/// Text that is no duration, or one that does not fit, in words that say what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| {
        format!("`{text}` is not a duration ({e}); nothing was read: write text like `200ms` or `1h 30m`")
    })
}

/// For people: humantime text, whole seconds from a minute on and milliseconds below.
pub fn rounded(value: Duration) -> humantime::FormattedDuration {
    let exact = if value >= Duration::from_secs(60) {
        Duration::from_secs(value.as_secs())
    } else {
        value.saturating_sub(Duration::from_nanos(u64::from(value.subsec_nanos() % 1_000_000)))
    };
    humantime::format_duration(exact)
}

/// The same for a duration that may be absent.
pub mod option {
    use super::{Deserialize, Deserializer, Duration, Error, Serializer, parse};

    /// Writes humantime text, or nothing.
    ///
    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_some(&humantime::format_duration(*value).to_string()),
            None => to.serialize_none(),
        }
    }

    /// Reads humantime text, or nothing.
    ///
    /// # Errors
    /// Text that is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(|text| parse(&text).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn people_are_not_shown_nanoseconds() {
        let shown = |nanos| rounded(Duration::from_nanos(nanos)).to_string();
        assert_eq!(shown(5_913_377_598), "5s 913ms");
        assert_eq!(shown(90_000_000_001), "1m 30s");
        assert_eq!(shown(999), "0s");
    }

    #[test]
    fn text_that_is_no_duration_says_what_is_expected() {
        let error = parse("soon").unwrap_err();
        assert!(error.contains("`soon`") && error.contains("200ms"), "{error}");
    }
}

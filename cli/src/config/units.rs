//! Humane durations and sizes: read, and written back the same way.

use std::time::Duration;

/// The units of a duration, largest first, with every spelling that is accepted; the first one is written.
const SPANS: &[(u64, &[&str])] = &[
    (86_400_000_000, &["d", "day", "days"]),
    (3_600_000_000, &["h", "hour", "hours"]),
    (60_000_000, &["m", "min", "minute", "minutes"]),
    (1_000_000, &["s", "sec", "second", "seconds"]),
    (1_000, &["ms"]),
    (1, &["us"]),
];

/// Binary units only: `kB` is 1000 to some and 1024 to PostgreSQL.
const SIZES: &[(u64, &[&str])] = &[(1 << 30, &["GiB"]), (1 << 20, &["MiB"]), (1 << 10, &["KiB"]), (1, &["B"])];

/// Reads `30s`, `1h 30m`, `500ms`; a plain number is seconds, as in PgBouncer.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    sum_of_parts(text, SPANS).map(Duration::from_micros)
}

/// Writes a duration in the form that [`parse_duration`] reads.
pub(crate) fn show_duration(span: Duration) -> String {
    let mut left = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for &(unit, names) in SPANS {
        if left >= unit {
            parts.push(format!("{}{}", left / unit, names[0]));
            left %= unit;
        }
    }
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

/// Reads `64KiB`, `1 MiB`; a plain number is bytes.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    if let Ok(bytes) = text.trim().parse::<u64>() {
        return Some(bytes);
    }
    sum_of_parts(text, SIZES)
}

/// Writes a size in the largest unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    let whole = SIZES.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match whole {
        Some((unit, names)) => format!("{}{}", bytes / unit, names[0]),
        None => "0B".into(),
    }
}

/// Adds up `<number><unit>` parts, each unit smaller than the one before; `None` for anything else and on overflow.
fn sum_of_parts(text: &str, units: &[(u64, &[&str])]) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0u64;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let tail = rest[digits..].trim_start();
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, _) = units.iter().find(|(_, names)| names.contains(&&tail[..letters]))?;
        if *unit >= last {
            return None;
        }
        last = *unit;
        total = total.checked_add(number.checked_mul(*unit)?)?;
        rest = tail[letters..].trim_start();
    }
    (last != u64::MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("30", 30_000),
            ("30s", 30_000),
            (" 30 s ", 30_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("1 hour 30 minutes", 5_400_000),
            ("2d", 172_800_000),
            ("500ms", 500),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", " ", "s", "30x", "-1s", "1.5h", "30m 1h", "1s 1s", "1h 30", "18446744073709551615d", "1h,30m", "३s"]
        {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_binary_or_refused() {
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("1 MiB"), Some(1 << 20));
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("10B"), Some(10));
        for text in ["64kB", "64KB", "1M", "KiB", "-1", "99999999999GiB", "1KiB 1MiB"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for micros in [0, 1, 999, 1_500_000, 5_400_000_000, 90_061_001_000] {
            let span = Duration::from_micros(micros);
            assert_eq!(parse_duration(&show_duration(span)), Some(span));
        }
        for bytes in [0, 1, 1023, 1024, 65_536, (1 << 20) + 1, 3 << 30] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(5400)), "1h 30m");
        assert_eq!(show_size(8192), "8KiB");
    }
}

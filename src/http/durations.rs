//! Durations as Go writes and reads them (`1m30s`, `200ms`), which Consul's clients expect.

use std::{fmt::Write as _, time::Duration};

/// The longest duration that Go knows: 2^63 - 1 nanoseconds, 292 years.
pub const MAX: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

const MICRO: u128 = 1_000;
const MILLI: u128 = 1_000_000;
const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;

/// Why a text is no duration. Nothing was read; write it as [`print()`] does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// It is not written as Go writes durations.
    #[error("`{0}` is not a duration; nothing was read: write text like `200ms` or `1h30m`")]
    Syntax(String),
    /// A number stands without its unit.
    #[error("`{0}` lacks a unit; nothing was read: write one of ns, us, ms, s, m, h behind it")]
    NoUnit(String),
    /// It is below zero.
    #[error("`{0}` is negative; nothing was read: write zero or more")]
    Negative(String),
    /// It is longer than [`MAX`].
    #[error("`{0}` is longer than 292 years; nothing was read: write a shorter one")]
    TooLong(String),
}

/// Writes a duration as Go does: `0s`, `1.5µs`, `200ms`, `1m30s`, `24h0m0s`. Longer than [`MAX`]
/// is written as that.
///
/// ```
/// use raft_autopilot::http::durations;
/// use std::time::Duration;
///
/// assert_eq!(durations::print(Duration::from_secs(90)), "1m30s");
/// ```
pub fn print(duration: Duration) -> String {
    let nanos = duration.min(MAX).as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..MICRO => format!("{nanos}ns"),
        MICRO..MILLI => decimal(nanos, MICRO) + "µs",
        MILLI..SECOND => decimal(nanos, MILLI) + "ms",
        _ => {
            let (hours, minutes) = (nanos / HOUR, nanos % HOUR / MINUTE);
            let mut text = String::new();
            if hours > 0 {
                let _ = write!(text, "{hours}h");
            }
            if nanos >= MINUTE {
                let _ = write!(text, "{minutes}m");
            }
            text + &decimal(nanos % MINUTE, SECOND) + "s"
        }
    }
}

/// `nanos` in units of `unit`, without trailing zeros.
fn decimal(nanos: u128, unit: u128) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let rest = format!("{rest:0digits$}");
    format!("{whole}.{}", rest.trim_end_matches('0'))
}

/// Reads a duration as Go does: decimal numbers, each with a unit (`ns`, `us`, `µs`, `ms`, `s`,
/// `m`, `h`), one after another; a lone `0` needs none. What is finer than a nanosecond is cut.
///
/// # Errors
/// The text is no duration of Go's, or one that does not fit: [`DurationError`] says which.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let syntax = || DurationError::Syntax(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(syntax());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let unit = match unit {
            "" if number != "." => return Err(DurationError::NoUnit(text.to_owned())),
            "ns" => 1,
            // Two characters look alike: micro sign and Greek mu.
            "us" | "\u{b5}s" | "\u{3bc}s" => MICRO,
            "ms" => MILLI,
            "s" => SECOND,
            "m" => MINUTE,
            "h" => HOUR,
            _ => return Err(syntax()),
        };
        let part = amount(number, unit).ok_or_else(syntax)?;
        nanos = nanos.saturating_add(part);
        rest = after;
    }
    if nanos > MAX.as_nanos() {
        return Err(DurationError::TooLong(text.to_owned()));
    }
    if negative && nanos > 0 {
        return Err(DurationError::Negative(text.to_owned()));
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| syntax())
}

/// A decimal number of units in nanoseconds, saturating; `None`: it is none.
fn amount(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => 0,
        // More digits than 2^64 has do not fit, whatever the unit.
        long if long.len() > 20 => u128::MAX,
        short => short.parse().ok()?,
    };
    // An hour has 13 digits of nanoseconds: what stands behind the 19th is far below one.
    let fraction = &fraction[..fraction.len().min(19)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(whole.saturating_mul(unit).saturating_add(fraction * unit / scale))
}

//! Values as people read them: us, ms or s, k or M, KiB or MiB.

use crate::run::Unit;

/// What values are divided by before they are shown, and what is written behind them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Factor {
    pub(super) per: f64,
    pub(super) name: &'static str,
}

const TIMES: &[Factor] =
    &[Factor { per: 1e-6, name: "us" }, Factor { per: 1e-3, name: "ms" }, Factor { per: 1.0, name: "s" }];
const COUNTS: &[Factor] = &[
    Factor { per: 1.0, name: "" },
    Factor { per: 1e3, name: "k" },
    Factor { per: 1e6, name: "M" },
    Factor { per: 1e9, name: "G" },
];
const RATES: &[Factor] = &[
    Factor { per: 1.0, name: "/s" },
    Factor { per: 1e3, name: "k/s" },
    Factor { per: 1e6, name: "M/s" },
    Factor { per: 1e9, name: "G/s" },
];
const SIZES: &[Factor] = &[
    Factor { per: 1.0, name: "B" },
    Factor { per: 1_024.0, name: "KiB" },
    Factor { per: 1_048_576.0, name: "MiB" },
    Factor { per: 1_073_741_824.0, name: "GiB" },
    Factor { per: 1_099_511_627_776.0, name: "TiB" },
];
const NONE: &[Factor] = &[Factor { per: 1.0, name: "" }];

/// The factor that suits a value.
pub(super) fn factor(unit: Unit, value: f64) -> Factor {
    let factors = match unit {
        Unit::Seconds => TIMES,
        Unit::Count | Unit::Positions => COUNTS,
        Unit::PerSecond => RATES,
        Unit::Bytes => SIZES,
        Unit::Ratio => NONE,
    };
    let suits = |factor: &&Factor| factor.per <= value.abs() * (1.0 + 1e-9);
    factors.iter().rev().find(suits).copied().unwrap_or(factors[0])
}

/// A value with three digits, for pictures: `1.23 ms`, `240 k/s`.
pub(super) fn short(value: f64, unit: Unit) -> String {
    with_digits(value, unit, 3)
}

/// A value for tables: what is counted in full, what is measured with four digits.
pub(crate) fn full(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count | Unit::Positions if is_countable(value) => grouped(value),
        Unit::PerSecond if value.abs() >= 1_000.0 && is_countable(value) => format!("{}/s", grouped(value)),
        _ => with_digits(value, unit, 4),
    }
}

/// Whether a whole number says enough of a value.
fn is_countable(value: f64) -> bool {
    (value.fract() == 0.0 || value.abs() >= 1_000.0) && value.abs() < 1e15
}

fn with_digits(value: f64, unit: Unit, digits: i32) -> String {
    // Rounding comes first: 999.96 us are 1 ms.
    let value = rounded(value, digits);
    let Factor { per, name } = if value.abs() < 1e15 { factor(unit, value) } else { factor(unit, 1.0) };
    let number = decimal(value / per, digits);
    // `/s` clings to a bare number: `12/s`, and `12 k/s`.
    if name.is_empty() || name.starts_with('/') { format!("{number}{name}") } else { format!("{number} {name}") }
}

fn rounded(value: f64, digits: i32) -> f64 {
    format!("{value:.*e}", usize::try_from(digits - 1).unwrap_or(0)).parse().unwrap_or(value)
}

/// So many digits that count, without zeros behind the point that say nothing.
fn decimal(value: f64, digits: i32) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let magnitude = value.abs().log10().floor();
    if !(-5.0..15.0).contains(&magnitude) {
        return format!("{value:.*e}", usize::try_from(digits - 1).unwrap_or(0));
    }
    let places = usize::try_from(digits - 1 - magnitude as i32).unwrap_or(0);
    trimmed(format!("{value:.places$}"))
}

/// Without zeros at the end behind the point.
fn trimmed(number: String) -> String {
    if !number.contains('.') {
        return number;
    }
    number.trim_end_matches('0').trim_end_matches('.').into()
}

/// A whole number with a comma between thousands.
pub(super) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { String::from("-") } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A moment of Unix time in milliseconds as `2026-11-23 12:00:00 UTC`.
pub(super) fn moment(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = date(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of the day number `days` after 1970-01-01. Counted in spans of 400 years that begin with March, so
/// that a leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_unit_that_suits_it() {
        let cases = [
            (0.000_000_25, Unit::Seconds, "0.25 us"),
            (0.000_123_4, Unit::Seconds, "123 us"),
            (0.000_999_6, Unit::Seconds, "1 ms"),
            (0.001_5, Unit::Seconds, "1.5 ms"),
            (75.0, Unit::Seconds, "75 s"),
            (12.0, Unit::PerSecond, "12/s"),
            (240_123.0, Unit::PerSecond, "240 k/s"),
            (2_160_000.0, Unit::PerSecond, "2.16 M/s"),
            (1_536.0, Unit::Bytes, "1.5 KiB"),
            (1_000_000.0, Unit::Count, "1 M"),
            (0.0, Unit::Seconds, "0 us"),
            (-1_500.0, Unit::Positions, "-1.5 k"),
            (0.000_000_12, Unit::Ratio, "1.20e-7"),
            (1e300, Unit::Ratio, "1.00e300"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(short(value, unit), text);
        }
    }

    #[test]
    fn tables_count_in_full() {
        assert_eq!(full(1_234_567.0, Unit::Count), "1,234,567");
        assert_eq!(full(1_234_567.4, Unit::Count), "1,234,567");
        assert_eq!(full(-123.0, Unit::Positions), "-123");
        assert_eq!(full(241_312.4, Unit::PerSecond), "241,312/s");
        assert_eq!(full(12.345_6, Unit::PerSecond), "12.35/s");
        assert_eq!(full(0.001_234_56, Unit::Seconds), "1.235 ms");
        assert_eq!(full(0.5, Unit::Count), "0.5");
    }

    #[test]
    fn moments_are_dates_of_the_calendar() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_399_000), "2000-02-28 23:59:59 UTC");
        assert_eq!(moment(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(moment(1_795_435_200_123), "2026-11-23 12:00:00 UTC");
        assert!(moment(u64::MAX).ends_with("UTC"));
    }
}

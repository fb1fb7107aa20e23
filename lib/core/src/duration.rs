//! Durations and instants as people write them
//!
//! Inside, a duration is whole milliseconds and an instant is milliseconds since 1970 in UTC.

use crate::json::quoted;
use crate::resources::Milli;

/// A text that is no duration, or no instant
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{token}: {why}")]
pub struct BadDuration {
    /// Quoted, escaped and shortened, fit for a terminal.
    token: String,
    why: String,
}

impl BadDuration {
    fn new(token: &str, why: impl Into<String>) -> BadDuration {
        BadDuration {
            token: quoted(token),
            why: why.into(),
        }
    }
}

/// The longest duration: ten years of 365 days
pub const DURATION_MS_MAX: u64 = 10 * 365 * DAY_MS;
/// Bytes of a duration's text at most
const TEXT_BYTES_MAX: usize = 100;

const SECOND_MS: u64 = 1000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// From the largest, in which order a duration is written.
const UNITS: [(&str, u64); 6] = [
    ("w", 7 * DAY_MS),
    ("d", DAY_MS),
    ("h", HOUR_MS),
    ("m", MINUTE_MS),
    ("s", SECOND_MS),
    ("ms", 1),
];

/// Reads `500ms`, `30s`, `5m`, `1h30m`, `7d`, `1.5h`, or a plain number of seconds; gives milliseconds.
///
/// Units come from the largest to the smallest, each at most once, spaces between them are allowed,
/// and a number has at most 3 decimals. Refused beyond ten years and below a millisecond.
pub fn parse_duration(text: &str) -> Result<u64, BadDuration> {
    let refuse = |why: &str| BadDuration::new(text, why);
    if text.len() > TEXT_BYTES_MAX || text.trim().is_empty() {
        return Err(refuse("not a duration; write such as 30s or 1h30m"));
    }
    if text.starts_with('-') {
        return Err(refuse("a duration is never negative"));
    }
    let mut total_ms = 0u64;
    let mut smallest_ms = u64::MAX;
    let mut rest = text.trim();
    let plain = rest.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    while !rest.is_empty() {
        let unit_at = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(unit_at);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = if plain { "s" } else { unit };
        let (_, unit_ms) = *UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| refuse(&unit_hint(number, unit)))?;
        if unit_ms >= smallest_ms {
            return Err(refuse(
                "units go from the largest to the smallest, each once, such as 1h30m",
            ));
        }
        if number.is_empty() {
            return Err(refuse("a number is missing before the unit"));
        }
        smallest_ms = unit_ms;
        let amount = Milli::parse(number)
            .map_err(|_| refuse("not a number of 3 decimals at most; write such as 1.5h"))?;
        let part_ms = exact_ms(amount, unit_ms)
            .ok_or_else(|| refuse("finer than a millisecond, or longer than ten years"))?;
        total_ms = total_ms
            .checked_add(part_ms)
            .filter(|ms| *ms <= DURATION_MS_MAX)
            .ok_or_else(|| refuse("longer than ten years"))?;
        rest = after.trim_start_matches(' ');
    }
    Ok(total_ms)
}

fn exact_ms(amount: Milli, unit_ms: u64) -> Option<u64> {
    let thousandths_ms = u64::try_from(amount.as_milli())
        .ok()?
        .checked_mul(unit_ms)?;
    thousandths_ms
        .is_multiple_of(1000)
        .then_some(thousandths_ms / 1000)
}

fn unit_hint(number: &str, unit: &str) -> String {
    let meant = match unit.to_ascii_lowercase().as_str() {
        "msec" | "msecs" | "millis" | "ms" => "ms",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "w" | "week" | "weeks" => "w",
        "" => return "a unit is missing: ms, s, m, h, d or w".to_owned(),
        _ => {
            return "the unit is not one of ms, s, m, h, d, w; write such as 30s or 1h30m"
                .to_owned();
        }
    };
    format!("write {number}{meant}")
}

/// The shortest form that [`parse_duration`] reads back: `1h30m`, `1.5s`, `500ms`, `0s`.
pub fn show_duration(ms: u64) -> String {
    if ms < SECOND_MS {
        return if ms == 0 {
            "0s".to_owned()
        } else {
            format!("{ms}ms")
        };
    }
    let (days, hours, minutes) = (ms / DAY_MS, ms % DAY_MS / HOUR_MS, ms % HOUR_MS / MINUTE_MS);
    let mut shown = String::new();
    for (count, unit) in [(days, "d"), (hours, "h"), (minutes, "m")] {
        if count > 0 {
            shown.push_str(&format!("{count}{unit}"));
        }
    }
    let (seconds, thousandths) = (ms % MINUTE_MS / SECOND_MS, ms % SECOND_MS);
    if thousandths > 0 {
        shown.push_str(format!("{seconds}.{thousandths:03}").trim_end_matches('0'));
        shown.push('s');
    } else if seconds > 0 {
        shown.push_str(&format!("{seconds}s"));
    }
    shown
}

/// The last instant with a year of four digits
const INSTANT_MS_MAX: u64 = 253_402_300_799_999;

/// An instant in RFC 3339, UTC, whole seconds rounded down: `2026-11-22T06:16:01Z`.
///
/// Without fractions, because `fromdate` of jq 1.6 fails on them. Instants after the year 9999 are
/// shown as its end.
pub fn rfc3339(unix_ms: u64) -> String {
    let seconds = unix_ms.min(INSTANT_MS_MAX) / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_of_days(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// Reads an instant of RFC 3339 from 1970 on, fractions and offsets included; gives milliseconds since 1970.
///
/// Digits after the millisecond are dropped.
pub fn parse_rfc3339(text: &str) -> Result<u64, BadDuration> {
    read_rfc3339(text.as_bytes()).ok_or_else(|| {
        BadDuration::new(
            text,
            "not an instant since 1970; write such as 2026-11-22T06:16:01Z",
        )
    })
}

fn read_rfc3339(text: &[u8]) -> Option<u64> {
    let (date_time, mut zone) = text.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| date_time[at] != byte)
        || !matches!(date_time[10], b'T' | b't' | b' ')
    {
        return None;
    }
    let field = |from: usize, to: usize| digits(&date_time[from..to]);
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    if year < 1970
        || !(1..=12).contains(&month)
        || day < 1
        || day > days_of_month(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let mut fraction_ms = 0;
    if let Some(fraction) = zone.strip_prefix(b".") {
        let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&len) {
            return None;
        }
        for place in 0..3 {
            fraction_ms = fraction_ms * 10
                + fraction[..len]
                    .get(place)
                    .map_or(0, |b| u64::from(b - b'0'));
        }
        zone = &fraction[len..];
    }
    let seconds = days_of_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let utc = match zone {
        b"Z" | b"z" => seconds,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3600 + minutes * 60;
            if *sign == b'+' {
                seconds.checked_sub(offset)?
            } else {
                seconds + offset
            }
        }
        _ => return None,
    };
    Some(utc * 1000 + fraction_ms).filter(|ms| *ms <= INSTANT_MS_MAX)
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |sum, b| {
        b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0'))
    })
}

/// Days of the Gregorian calendar repeat every 400 years
const DAYS_PER_ERA: u64 = 146_097;
/// From the first of March of the year 0 to the first of January 1970
const DAYS_BEFORE_1970: u64 = 719_468;

/// Year, month and day of the day so many days after 1970 began.
///
/// Years are taken to begin in March here: the leap day is then a year's last day, and the days
/// before a month follow from its number alone.
fn civil_of_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524
        - day_of_era / (DAYS_PER_ERA - 1))
        / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - days_before_month(month_from_march) + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_of_days`], from 1970 on.
fn days_of_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = days_before_month(month_from_march) + day - 1;
    era * DAYS_PER_ERA + 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year
        - DAYS_BEFORE_1970
}

fn days_before_month(month_from_march: u64) -> u64 {
    (153 * month_from_march + 2) / 5
}

fn days_of_month(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Durations are read in every form the contract names.
    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("0", 0),
            ("30", 30_000),
            ("0.5", 500),
            ("500ms", 500),
            ("30s", 30_000),
            ("1.5s", 1500),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("1d1h1m1s1ms", 90_061_001),
            ("3650d", DURATION_MS_MAX),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
    }

    /// Everything else is refused with its reason, shortly.
    #[test]
    fn other_durations_are_refused() {
        let endless = "9".repeat(100_000);
        for (text, why) in [
            ("", "not a duration"),
            (" ", "not a duration"),
            ("-5s", "negative"),
            ("+5s", "not one of"),
            ("5 s", "a unit is missing"),
            ("s", "a number is missing"),
            ("5S", "write 5s"),
            ("5min", "write 5m"),
            ("2hours", "write 2h"),
            ("5M", "write 5m"),
            ("5y", "not one of"),
            ("5\u{3bc}s", "not one of"),
            ("1e3", "not one of"),
            ("NaN", "not one of"),
            ("1:30:00", "not one of"),
            ("30m1h", "largest to the smallest"),
            ("1h1h", "largest to the smallest"),
            ("1h30", "a unit is missing"),
            ("0.0001s", "3 decimals"),
            ("0.5ms", "finer than a millisecond"),
            ("1.2.3s", "3 decimals"),
            ("3651d", "ten years"),
            ("999999999999d", "ten years"),
            ("9999999999999s", "3 decimals"),
            ("3650d1ms", "longer than ten years"),
            (endless.as_str(), "not a duration"),
        ] {
            let refusal = parse_duration(text).expect_err(text).to_string();
            assert!(refusal.contains(why) && refusal.len() < 200, "{refusal}");
        }
    }

    /// Durations are shown as people write them.
    #[test]
    fn durations_are_shown() {
        for (ms, shown) in [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (60_000, "1m"),
            (5_400_000, "1h30m"),
            (3_600_500, "1h0.5s"),
            (604_800_000, "7d"),
            (90_061_000, "1d1h1m1s"),
        ] {
            assert_eq!(show_duration(ms), shown);
        }
    }

    /// Instants, among them leap days and the ends of years and centuries, are shown in RFC 3339.
    #[test]
    fn instants_are_shown_and_read() {
        for (ms, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_000, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00Z"),
            (1_795_328_161_000, "2026-11-22T06:16:01Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(ms), shown);
            assert_eq!(parse_rfc3339(shown), Ok(ms));
        }
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(1_795_328_161_999), "2026-11-22T06:16:01Z");
        assert_eq!(
            parse_rfc3339("2026-11-22t06:16:01.25z"),
            Ok(1_795_328_161_250)
        );
        assert_eq!(
            parse_rfc3339("2026-11-22 07:16:01.0019+01:00"),
            Ok(1_795_328_161_001)
        );
        assert_eq!(
            parse_rfc3339("2026-11-21T18:46:01-11:30"),
            Ok(1_795_328_161_000)
        );
    }

    /// What is not an instant since 1970 is refused.
    #[test]
    fn other_instants_are_refused() {
        for bad in [
            "",
            "2026-11-22",
            "2026-11-22T06:16:01",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00:00ZZ",
            "2026-01-01T00:00:00+0100",
            "20\u{fc}6-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
        ] {
            assert!(parse_rfc3339(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Showing and reading a duration are inverse.
        #[test]
        fn shown_durations_read_back(ms in prop_oneof![0..100_000u64, 0..=DURATION_MS_MAX]) {
            prop_assert_eq!(parse_duration(&show_duration(ms)), Ok(ms));
        }

        /// Showing and reading an instant are inverse to the second, and order is kept.
        #[test]
        fn shown_instants_read_back(a in 0..=INSTANT_MS_MAX, b in 0..=INSTANT_MS_MAX) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(a)), Ok(a / 1000 * 1000));
            prop_assert_eq!((a / 1000).cmp(&(b / 1000)), rfc3339(a).cmp(&rfc3339(b)));
        }

        /// No text makes a reader panic.
        #[test]
        fn any_text_is_read_or_refused(text in prop_oneof![any::<String>(), "[0-9.smhdwTZ:+ -]{0,30}"]) {
            let _ = (parse_duration(&text), parse_rfc3339(&text));
        }
    }
}

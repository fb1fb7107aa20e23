//! Amounts: fixed point with three decimals, so that 0.1 ten times is 1 exactly

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BadResources;

/// An amount of something, counted in thousandths: 0 to 10^12 whole units
///
/// The bound keeps every amount exact as a JSON number (15 digits survive a double), and is why
/// sums are checked: an amount beyond it does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Milli(i64);

/// Thousandths in one unit
const PER_UNIT: i64 = 1000;
/// Whole units of an amount at most
const UNITS_MAX: i64 = 1_000_000_000_000;
const DECIMALS_MAX: usize = 3;

impl Milli {
    pub const ZERO: Milli = Milli(0);
    pub const MAX: Milli = Milli(UNITS_MAX * PER_UNIT);

    /// That many whole units; beyond [`Milli::MAX`] it is `MAX`.
    pub const fn units(units: u64) -> Milli {
        if units >= UNITS_MAX as u64 {
            Milli::MAX
        } else {
            Milli(units as i64 * PER_UNIT)
        }
    }

    /// That many thousandths; none if negative or beyond [`Milli::MAX`].
    pub const fn from_milli(thousandths: i64) -> Option<Milli> {
        if thousandths < 0 || thousandths > Milli::MAX.0 {
            None
        } else {
            Some(Milli(thousandths))
        }
    }

    /// Reads a decimal such as `2`, `0.5` or `.25`, exactly and without a detour over floats.
    ///
    /// Refused: a sign, an exponent, NaN and infinities, more than 3 decimals, more than 10^12.
    pub fn parse(text: &str) -> Result<Milli, BadResources> {
        let refuse = |why: &str| Err(BadResources::new(text, why));
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if text.is_empty() {
            return refuse("an amount is missing");
        }
        if text.starts_with('-') {
            return refuse("an amount is never negative");
        }
        if !digits(whole) || !digits(decimals) || text.ends_with('.') {
            return refuse(why_not_decimal(text));
        }
        if decimals.len() > DECIMALS_MAX {
            return refuse("more than 3 decimals");
        }
        let thousandths = format!("{decimals:0<DECIMALS_MAX$}")
            .bytes()
            .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        let amount = whole
            .bytes()
            .try_fold(0i64, |sum, digit| {
                sum.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
            })
            .and_then(|units| units.checked_mul(PER_UNIT)?.checked_add(thousandths))
            .and_then(Milli::from_milli);
        match amount {
            Some(amount) => Ok(amount),
            None => refuse("more than 1000000000000, the largest amount"),
        }
    }

    /// The amount in thousandths.
    pub const fn as_milli(self) -> i64 {
        self.0
    }

    /// The nearest double; for shares and for showing, never for accounting.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / PER_UNIT as f64
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether there are no decimals.
    pub const fn is_whole(self) -> bool {
        self.0 % PER_UNIT == 0
    }

    /// Whole units, decimals dropped.
    pub const fn whole_units(self) -> u64 {
        (self.0 / PER_UNIT) as u64
    }

    /// None beyond [`Milli::MAX`].
    pub fn checked_add(self, other: Milli) -> Option<Milli> {
        self.0.checked_add(other.0).and_then(Milli::from_milli)
    }

    /// None if it would be negative.
    pub fn checked_sub(self, other: Milli) -> Option<Milli> {
        self.0.checked_sub(other.0).and_then(Milli::from_milli)
    }

    /// None beyond [`Milli::MAX`].
    pub fn checked_mul(self, times: u64) -> Option<Milli> {
        self.0
            .checked_mul(i64::try_from(times).ok()?)
            .and_then(Milli::from_milli)
    }

    /// What is missing in `self` up to `other`; zero if nothing is.
    pub fn saturating_sub(self, other: Milli) -> Milli {
        self.checked_sub(other).unwrap_or(Milli::ZERO)
    }

    /// How many whole times `part` goes into it; none if `part` is zero.
    pub fn checked_div(self, part: Milli) -> Option<u64> {
        self.0.checked_div(part.0).map(|times| times as u64)
    }
}

fn why_not_decimal(text: &str) -> &'static str {
    let lower = text.trim_start_matches('+').to_ascii_lowercase();
    if ["nan", "inf", "infinity"].contains(&lower.as_str()) {
        "an amount is finite; write a number such as 2 or 0.5"
    } else if has_exponent(&lower) {
        "an amount is written out, without an exponent"
    } else {
        "not an amount; write a number such as 2 or 0.5"
    }
}

fn has_exponent(lower: &str) -> bool {
    let numeric = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-'))
    };
    lower
        .split_once('e')
        .is_some_and(|(mantissa, exponent)| numeric(mantissa) && numeric(exponent))
}

impl FromStr for Milli {
    type Err = BadResources;

    fn from_str(text: &str) -> Result<Milli, BadResources> {
        Milli::parse(text)
    }
}

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, thousandths) = (self.0 / PER_UNIT, self.0 % PER_UNIT);
        if thousandths == 0 {
            return f.pad(&units.to_string());
        }
        f.pad(format!("{units}.{thousandths:03}").trim_end_matches('0'))
    }
}

impl Serialize for Milli {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_whole() {
            serializer.serialize_u64(self.whole_units())
        } else {
            serializer.serialize_f64(self.as_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Milli {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Milli, D::Error> {
        deserializer.deserialize_any(MilliVisitor)
    }
}

struct MilliVisitor;

impl Visitor<'_> for MilliVisitor {
    type Value = Milli;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount from 0 to 10^12 with at most 3 decimals")
    }

    fn visit_u64<E: Error>(self, units: u64) -> Result<Milli, E> {
        if units > UNITS_MAX as u64 {
            Err(E::custom(format_args!(
                "the amount {units} is more than 10^12"
            )))
        } else {
            Ok(Milli::units(units))
        }
    }

    fn visit_i64<E: Error>(self, units: i64) -> Result<Milli, E> {
        match u64::try_from(units) {
            Ok(units) => self.visit_u64(units),
            Err(_) => Err(E::custom(format_args!("the amount {units} is negative"))),
        }
    }

    fn visit_f64<E: Error>(self, units: f64) -> Result<Milli, E> {
        if !units.is_finite() || units.is_sign_negative() || units > UNITS_MAX as f64 {
            return Err(E::custom(format_args!(
                "the amount {units} is not between 0 and 10^12"
            )));
        }
        // Below 10^15 thousandths a double tells every decimal of three places apart, and division
        // rounds to the nearest: the way back gives the same double just when no digit was lost.
        let thousandths = (units * PER_UNIT as f64).round();
        if thousandths / PER_UNIT as f64 != units {
            return Err(E::custom(format_args!(
                "the amount {units} has more than 3 decimals"
            )));
        }
        Milli::from_milli(thousandths as i64)
            .ok_or_else(|| E::custom("the amount is more than 10^12"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Milli, E> {
        Milli::parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn amounts() -> impl Strategy<Value = Milli> {
        prop_oneof![0..10_000i64, 0..=Milli::MAX.0].prop_map(Milli)
    }

    /// Decimals are read exactly and shown without superfluous zeros.
    #[test]
    fn decimals_are_read_and_shown() {
        for (text, thousandths, shown) in [
            ("0", 0, "0"),
            ("7", 7000, "7"),
            ("7.5", 7500, "7.5"),
            ("0.5", 500, "0.5"),
            (".25", 250, "0.25"),
            ("0.001", 1, "0.001"),
            ("1.010", 1010, "1.01"),
            ("007", 7000, "7"),
            ("1000000000000", 1_000_000_000_000_000, "1000000000000"),
            ("999999999999.999", 999_999_999_999_999, "999999999999.999"),
        ] {
            let amount = Milli::parse(text).expect(text);
            assert_eq!(
                (amount.as_milli(), amount.to_string().as_str()),
                (thousandths, shown),
                "{text}"
            );
        }
    }

    /// Everything that is not a bounded decimal of three places is refused with its own reason.
    #[test]
    fn other_texts_are_refused() {
        let endless = "9".repeat(10_000);
        for (text, why) in [
            ("", "missing"),
            ("-1", "negative"),
            ("-0", "negative"),
            ("+1", "not an amount"),
            ("NaN", "finite"),
            ("inf", "finite"),
            ("Infinity", "finite"),
            ("1e3", "exponent"),
            ("1e308", "exponent"),
            ("0.1234", "3 decimals"),
            ("0.1230", "3 decimals"),
            ("1000000000000.001", "largest"),
            ("1000000000001", "largest"),
            (endless.as_str(), "largest"),
            ("1.", "not an amount"),
            (".", "not an amount"),
            ("1.2.3", "not an amount"),
            ("1,5", "not an amount"),
            ("1_000", "not an amount"),
            ("0x10", "not an amount"),
            (" 1", "not an amount"),
            ("\u{661}", "not an amount"),
        ] {
            let refusal = Milli::parse(text).expect_err(text).to_string();
            assert!(refusal.contains(why) && refusal.len() < 200, "{refusal}");
        }
    }

    /// A tenth, added ten times, is one, and taken away ten times is nothing.
    #[test]
    fn tenths_leave_no_residue() {
        let tenth = Milli::parse("0.1").expect("a decimal");
        let one = (0..10).try_fold(Milli::ZERO, |sum, _| sum.checked_add(tenth));
        assert_eq!(one, Some(Milli::units(1)));
        let none = (0..10).try_fold(Milli::units(1), |rest, _| rest.checked_sub(tenth));
        assert_eq!(none, Some(Milli::ZERO));
        assert_eq!(Milli::ZERO.checked_sub(tenth), None);
        assert_eq!(Milli::MAX.checked_add(tenth), None);
    }

    /// JSON numbers and strings are read; what an amount cannot be is refused.
    #[test]
    fn json_is_checked() {
        for (json, thousandths) in [
            ("7", 7000),
            ("7.5", 7500),
            ("0.1", 100),
            ("\"0.125\"", 125),
            ("1e2", 100_000),
            ("1000000000000", 1_000_000_000_000_000),
        ] {
            assert_eq!(
                serde_json::from_str::<Milli>(json).expect(json).as_milli(),
                thousandths,
                "{json}"
            );
        }
        for bad in [
            "-1",
            "-0.5",
            "-0.0",
            "0.0001",
            "7.0005",
            "1e308",
            "1e13",
            "1000000000001",
            "\"-1\"",
            "\"x\"",
            "null",
            "true",
            "[1]",
            "{}",
            "18446744073709551615",
            "-9223372036854775808",
        ] {
            assert!(serde_json::from_str::<Milli>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Showing and reading are inverse, as text and as JSON.
        #[test]
        fn shown_amounts_read_back(amount in amounts()) {
            prop_assert_eq!(Milli::parse(&amount.to_string()), Ok(amount));
            let json = serde_json::to_string(&amount).expect("a number");
            prop_assert_eq!(&json, &amount.to_string());
            prop_assert_eq!(serde_json::from_str::<Milli>(&json).expect("own output"), amount);
        }

        /// Adding and taking away are inverse wherever both exist.
        #[test]
        fn sums_come_apart_again(a in amounts(), b in amounts()) {
            if let Some(sum) = a.checked_add(b) {
                prop_assert_eq!(sum.checked_sub(b), Some(a));
            }
            prop_assert_eq!(a.checked_sub(b).is_some(), a >= b);
        }

        /// No text makes the reader panic.
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = Milli::parse(&text);
        }
    }
}

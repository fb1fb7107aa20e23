//! Attributes: what an operator says about an agent, such as `rack=r1`

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::is_id;
use crate::json::quoted;
use crate::resources::Milli;

/// Attributes of one agent at most
pub const ATTRS_MAX: usize = 64;
/// Characters of an attribute's text at most
pub const ATTR_CHARS_MAX: usize = 256;
/// Bytes of a list of attributes at most
const LIST_BYTES_MAX: usize = 16 * 1024;

/// The value of an attribute; in JSON a plain string, number or boolean
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attr {
    Text(String),
    Number(Milli),
    Flag(bool),
}

/// A text that is no list of attributes
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{token}: {why}")]
pub struct BadAttrs {
    /// Quoted, escaped and shortened, fit for a terminal.
    token: String,
    why: &'static str,
}

/// Reads `rack=r1,ssd=true,gen=3`, and Mesos's `rack:r1;gen:3`.
///
/// `true` and `false` are flags. What an amount would be shown as is a number: `3` and `0.5` are,
/// `007` and `1.50` stay text, so that a serial number keeps its zeros. The empty text is no attributes.
pub fn parse_attrs(text: &str) -> Result<BTreeMap<String, Attr>, BadAttrs> {
    let refuse = |token: &str, why| {
        Err(BadAttrs {
            token: quoted(token),
            why,
        })
    };
    if text.len() > LIST_BYTES_MAX {
        return refuse(text, "longer than 16384 bytes");
    }
    let mut attrs = BTreeMap::new();
    if text.trim().is_empty() {
        return Ok(attrs);
    }
    for item in text.split([',', ';']) {
        let item = item.trim();
        let Some((name, value)) = item.split_once(['=', ':']) else {
            return refuse(item, "neither = nor : in it; write such as rack=r1");
        };
        let (name, value) = (name.trim_end(), value.trim_start());
        if !is_id(name) {
            return refuse(
                item,
                "a name is 1 to 64 letters, digits, _ and -; write such as rack=r1",
            );
        }
        if value.is_empty() {
            return refuse(item, "the value is missing; write such as rack=r1");
        }
        if let Some(why) = why_not_text(value) {
            return refuse(item, why);
        }
        if attrs.insert(name.to_owned(), Attr::of(value)).is_some() {
            return refuse(item, "this name stands twice; write it once");
        }
        if attrs.len() > ATTRS_MAX {
            return refuse(item, "more than 64 attributes");
        }
    }
    Ok(attrs)
}

/// For `deserialize_with`: attributes of an agent that are few enough and have proper names.
pub fn deserialize_attrs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Attr>, D::Error> {
    let attrs = BTreeMap::<String, Attr>::deserialize(deserializer)?;
    if attrs.len() > ATTRS_MAX {
        return Err(D::Error::custom("more than 64 attributes"));
    }
    match attrs.keys().find(|name| !is_id(name)) {
        Some(name) => Err(D::Error::custom(format_args!(
            "{} cannot name an attribute",
            quoted(name)
        ))),
        None => Ok(attrs),
    }
}

impl Attr {
    /// The value that a text means on the command line.
    fn of(text: &str) -> Attr {
        match (text, Milli::parse(text)) {
            ("true", _) => Attr::Flag(true),
            ("false", _) => Attr::Flag(false),
            (_, Ok(number)) if number.to_string() == text => Attr::Number(number),
            _ => Attr::Text(text.to_owned()),
        }
    }
}

fn why_not_text(text: &str) -> Option<&'static str> {
    if text.chars().count() > ATTR_CHARS_MAX {
        Some("an attribute's text has at most 256 characters")
    } else if text.chars().any(char::is_control) {
        Some("an attribute's text has no control characters")
    } else {
        None
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Text(text) => f.pad(text),
            Attr::Number(number) => number.fmt(f),
            Attr::Flag(flag) => flag.fmt(f),
        }
    }
}

impl Serialize for Attr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Attr::Text(text) => serializer.serialize_str(text),
            Attr::Number(number) => number.serialize(serializer),
            Attr::Flag(flag) => serializer.serialize_bool(*flag),
        }
    }
}

impl<'de> Deserialize<'de> for Attr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Attr, D::Error> {
        deserializer.deserialize_any(AttrVisitor)
    }
}

struct AttrVisitor;

impl Visitor<'_> for AttrVisitor {
    type Value = Attr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Attr, E> {
        Ok(Attr::Flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Attr, E> {
        Milli::deserialize(number.into_deserializer()).map(Attr::Number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Attr, E> {
        Milli::deserialize(number.into_deserializer()).map(Attr::Number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Attr, E> {
        Milli::deserialize(number.into_deserializer()).map(Attr::Number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Attr, E> {
        match why_not_text(text) {
            Some(why) => Err(E::custom(why)),
            None => Ok(Attr::Text(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Attr {
        Attr::Text(text.to_owned())
    }

    /// Values are flags, numbers or text, and text that only looks like a number stays text.
    #[test]
    fn lists_are_read() {
        let attrs = parse_attrs(
            "rack=r1,ssd=true,gen=3, load = 0.5 ;serial:007,ver=1.50,url=http://a:80/?x=y",
        )
        .expect("a list");
        let wanted = [
            ("gen", Attr::Number(Milli::units(3))),
            (
                "load",
                Attr::Number(Milli::from_milli(500).expect("a half")),
            ),
            ("rack", text("r1")),
            ("serial", text("007")),
            ("ssd", Attr::Flag(true)),
            ("url", text("http://a:80/?x=y")),
            ("ver", text("1.50")),
        ];
        assert_eq!(
            attrs,
            wanted.map(|(name, value)| (name.to_owned(), value)).into()
        );
        assert_eq!(parse_attrs(""), Ok(BTreeMap::new()));
    }

    /// What is not a list of attributes is refused, naming the item.
    #[test]
    fn other_lists_are_refused() {
        let long = format!("a={}", "x".repeat(257));
        let huge = "x".repeat(20_000);
        let many = (0..65)
            .map(|n| format!("a{n}=1"))
            .collect::<Vec<_>>()
            .join(",");
        for (list, why) in [
            ("rack", "neither"),
            ("rack=", "missing"),
            ("=r1", "a name is"),
            ("a.b=1", "a name is"),
            ("a=1,a=2", "twice"),
            ("a=1,", "neither"),
            (",", "neither"),
            ("a=\u{1b}[2J", "control"),
            (long.as_str(), "256"),
            (huge.as_str(), "16384"),
            (many.as_str(), "64 attributes"),
        ] {
            let refusal = parse_attrs(list).expect_err(list).to_string();
            assert!(refusal.contains(why) && refusal.len() < 200, "{refusal}");
        }
    }

    /// In JSON a value is a plain scalar, and nothing else is one.
    #[test]
    fn json_form() {
        for (json, attr) in [
            ("\"r1\"", text("r1")),
            ("3", Attr::Number(Milli::units(3))),
            ("true", Attr::Flag(true)),
            ("\"3\"", text("3")),
        ] {
            assert_eq!(serde_json::from_str::<Attr>(json).expect(json), attr);
            assert_eq!(serde_json::to_string(&attr).expect("a scalar"), json);
        }
        for bad in ["null", "[]", "{}", "-1", "0.0001", "1e300", "\"\\u001b\""] {
            assert!(serde_json::from_str::<Attr>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// What a command line value means is shown as it was written.
        #[test]
        fn values_are_shown_as_written(value in "[a-z0-9.]{1,12}") {
            let attrs = parse_attrs(&format!("a={value}")).expect("a list");
            prop_assert_eq!(attrs["a"].to_string(), value);
        }
    }
}

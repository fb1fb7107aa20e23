//! Lines from outside: read strictly, shown harmlessly
//!
//! serde_json alone takes the last of two equal keys, nests 128 deep and has no bounds. What comes
//! over a pipe or the bus passes here first: one object, no key twice, bounded in every direction.

mod escape;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

use escape::push_shortened;
pub use escape::{ECHO_CHARS_MAX, escape_for_terminal, quoted};

/// How much one line may hold
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub bytes: usize,
    /// Objects and lists inside each other, the outermost counted.
    pub depth: usize,
    /// Values of any kind, the outermost counted.
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes: 512 * 1024,
            depth: 32,
            elements: 10_000,
        }
    }
}

/// A line that is not the JSON that is wanted; says where and what, in one line fit for a terminal
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{what}")]
pub struct BadJson {
    place: Place,
    what: String,
}

/// Reads one line as an object of any shape.
pub fn read_object(line: &[u8], limits: Limits) -> Result<Map<String, Value>, BadJson> {
    read_within(line, limits)
}

/// Reads one line as the type wanted, which must be an object, within the default limits.
pub fn read<T: DeserializeOwned>(line: &[u8]) -> Result<T, BadJson> {
    read_within(line, Limits::default())
}

/// Reads one line as the type wanted, which must be an object.
///
/// The line is walked twice, first for its form and then for its content: so it needs no tree in
/// between, and errors of content still have their column.
pub fn read_within<T: DeserializeOwned>(line: &[u8], limits: Limits) -> Result<T, BadJson> {
    let text = check(line, limits)?;
    serde_json::from_str(text).map_err(|error| BadJson::of(&error))
}

fn check(line: &[u8], limits: Limits) -> Result<&str, BadJson> {
    if line.len() > limits.bytes {
        return Err(BadJson::plain(format!(
            "{} bytes, and a line has at most {}",
            line.len(),
            limits.bytes
        )));
    }
    if line.starts_with(b"\xef\xbb\xbf") {
        return Err(BadJson::plain(
            "begins with a byte order mark; write UTF-8 without one",
        ));
    }
    let text = std::str::from_utf8(line).map_err(|error| BadJson {
        place: Place {
            line: 0,
            column: error.valid_up_to() + 1,
        },
        what: "not UTF-8".to_owned(),
    })?;
    match text
        .trim_start_matches([' ', '\t', '\r', '\n'])
        .chars()
        .next()
    {
        Some('{') => {}
        None => {
            return Err(BadJson::plain(
                "empty, and an object such as {\"meso\":..} is wanted",
            ));
        }
        Some(_) => {
            return Err(BadJson::plain(format!(
                "not an object, which begins with {{, but {}",
                quoted(text.trim())
            )));
        }
    }
    let elements = Cell::new(0);
    let outermost = Form {
        elements: &elements,
        depth: 0,
        limits,
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    outermost
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| BadJson::of(&error))?;
    Ok(text)
}

/// Walks over a value of any shape, counts, and keeps nothing of it
#[derive(Clone, Copy)]
struct Form<'c> {
    elements: &'c Cell<usize>,
    /// Objects and lists around the value.
    depth: usize,
    limits: Limits,
}

impl Form<'_> {
    fn inside<E: Error>(self) -> Result<Self, E> {
        if self.depth == self.limits.depth {
            return Err(E::custom(format_args!(
                "nested more than {} deep",
                self.limits.depth
            )));
        }
        Ok(Form {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Form<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.elements.get() == self.limits.elements {
            return Err(D::Error::custom(format_args!(
                "more than {} elements",
                self.limits.elements
            )));
        }
        self.elements.set(self.elements.get() + 1);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Form<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while list.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut keys = BTreeSet::new();
        while let Some(Key(key)) = object.next_key_seed(KeySeed)? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!(
                    "the key {} stands twice",
                    quoted(&key)
                )));
            }
            keys.insert(key);
            object.next_value_seed(inside)?;
        }
        Ok(())
    }
}

/// A key, borrowed from the line unless it has escapes
struct Key<'de>(Cow<'de, str>);

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}

/// Where in the text, counted from 1; 0 is not known
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (_, 0) => Ok(()),
            (0 | 1, column) => write!(f, "column {column}: "),
            (line, column) => write!(f, "line {line} column {column}: "),
        }
    }
}

/// Characters of an error of serde's that are passed on, its echo being shortened apart
const MESSAGE_CHARS_MAX: usize = 240;

impl BadJson {
    fn plain(what: impl Into<String>) -> BadJson {
        BadJson {
            place: Place { line: 0, column: 0 },
            what: what.into(),
        }
    }

    fn of(error: &serde_json::Error) -> BadJson {
        let place = Place {
            line: error.line(),
            column: error.column(),
        };
        if error.is_eof() {
            return BadJson {
                place,
                what: "ends in the middle of a value".to_owned(),
            };
        }
        let message = error.to_string();
        let suffix = format!(" at line {} column {}", place.line, place.column);
        let message = message.strip_suffix(&suffix).unwrap_or(&message);
        BadJson {
            place,
            what: in_plain_words(message),
        }
    }
}

/// serde's message with a short harmless echo and without the names of Rust types.
fn in_plain_words(message: &str) -> String {
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("missing key {}", escape_for_terminal(key));
    }
    // What was found stands before, what was wanted after; only the former is foreign text.
    let Some((found, wanted)) = message.rsplit_once(", expected ") else {
        let mut shown = String::new();
        if message.chars().count() > MESSAGE_CHARS_MAX {
            push_shortened(&mut shown, message);
        } else {
            shown.push_str(&escape_for_terminal(message));
        }
        return shown;
    };
    let mut shown = String::new();
    match found.find(['"', '`']) {
        Some(opening) if found.len() > opening + 1 => {
            let (before, echo) = found.split_at(opening);
            let (mark, echo) = echo.split_at(1);
            shown.push_str(before);
            shown.push_str(mark);
            push_shortened(&mut shown, echo.strip_suffix(mark).unwrap_or(echo));
            shown.push_str(mark);
        }
        _ => push_shortened(&mut shown, found),
    }
    let wanted = match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => "a whole number in range",
        "f32" | "f64" => "a number",
        wanted
            if [
                "struct ",
                "internally tagged enum ",
                "adjacently tagged enum ",
            ]
            .iter()
            .any(|kind| wanted.starts_with(kind)) =>
        {
            "an object"
        }
        wanted
            if wanted.starts_with("struct")
                || wanted.starts_with("enum ")
                || wanted.starts_with("variant ") =>
        {
            "one of the known words"
        }
        wanted => wanted,
    };
    format!("{shown}, expected {}", escape_for_terminal(wanted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::id::TaskId;
    use crate::resources::Resources;

    fn refusal(line: &[u8]) -> String {
        read_object(line, Limits::default())
            .expect_err("a refusal")
            .to_string()
    }

    /// An object is read, whatever stands in it, a line end after it included.
    #[test]
    fn objects_are_read() {
        let object = read_object(
            b" {\"a\":{\"b\":[1,-2,0.5,true,null,\"\\u00fc\\n\"]},\"c\":{\"b\":1}}\r\n",
            Limits::default(),
        );
        assert_eq!(object.expect("an object").len(), 2);
    }

    /// What is not exactly one object of sound JSON is refused, with the place where there is one.
    #[test]
    fn other_lines_are_refused() {
        for (line, why) in [
            (&b""[..], "empty"),
            (b" \n", "empty"),
            (b"[1]", "not an object, which begins with {, but \"[1]\""),
            (b"null", "not an object"),
            (b"7", "not an object"),
            (b"\"{}\"", "not an object"),
            (b"\xef\xbb\xbf{}", "byte order mark"),
            (b"{\"a\":\"\xff\"}", "column 7: not UTF-8"),
            (b"{\"a\":\"\xed\xa0\x80\"}", "not UTF-8"),
            (b"{} {}", "column 4: trailing"),
            (b"{\"a\":1", "ends in the middle"),
            (b"{\"a\":", "ends in the middle"),
            (b"{\"a\" 1}", "column 6: "),
            (b"{a:1}", "column 2: "),
            (b"{'a':1}", "column 2: "),
            (b"{\"a\":1,}", "column 8: trailing comma"),
            (b"{\"a\":NaN}", "column 6: "),
            (b"{\"a\":Infinity}", "column 6: "),
            (b"{\"a\":1e400}", "out of range"),
            (b"{\"a\":01}", "column 7: invalid number"),
            (b"{\"a\":\"\x1b\"}", "control character"),
            (b"{\"a\":\"\\ud800\"}", "hex escape"),
            (b"{\"a\":1,\n\"b\":x}", "line 2 column 5: "),
        ] {
            let refusal = refusal(line);
            assert!(refusal.contains(why) && refusal.len() < 200, "{refusal}");
        }
    }

    /// A key may stand once in each object, also when it is written with escapes the second time.
    #[test]
    fn keys_stand_once() {
        for line in [
            "{\"a\":1,\"b\":2,\"a\":1}",
            "{\"x\":[{\"y\":{\"a\":1,\"\\u0061\":2}}]}",
        ] {
            let refusal = refusal(line.as_bytes());
            assert!(refusal.contains("the key \"a\" stands twice"), "{refusal}");
        }
    }

    /// Each limit is exact: what just fits is read, one more is refused.
    #[test]
    fn limits_are_exact() {
        let nested = |depth: usize| {
            format!(
                "{{\"a\":{}{}}}",
                "[".repeat(depth - 1),
                "]".repeat(depth - 1)
            )
        };
        let elements = |count: usize| format!("{{\"a\":[{}]}}", vec!["0"; count - 2].join(","));
        let bytes = |count: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(count - 8));
        for (line, too_much, why) in [
            (nested(32), nested(33), "nested more than 32 deep"),
            (
                elements(10_000),
                elements(10_001),
                "more than 10000 elements",
            ),
            (
                bytes(512 * 1024),
                bytes(512 * 1024 + 1),
                "524289 bytes, and a line has at most 524288",
            ),
        ] {
            assert!(
                read_object(line.as_bytes(), Limits::default()).is_ok(),
                "{why}"
            );
            assert!(refusal(too_much.as_bytes()).contains(why), "{why}");
        }
        let bomb = "{\"a\":".repeat(100_000);
        assert!(refusal(bomb.as_bytes()).contains("nested more than 32"));
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Call {
        Kill {
            task: TaskId,
            grace_ms: u64,
            spare: Option<Resources>,
        },
    }

    /// What does not fit the type wanted is named in plain words, with its place, and shortly.
    #[test]
    fn wrong_content_is_refused() {
        let long = "x".repeat(100_000);
        for (line, why) in [
            (
                "{\"kind\":\"kill\",\"task\":\"t1\"}",
                "missing key `grace_ms`",
            ),
            (
                "{\"kind\":\"kill\",\"task\":\"a.b\",\"grace_ms\":1}",
                "\"a.b\" is not a task id",
            ),
            (
                "{\"kind\":\"kill\",\"task\":\"t1\",\"grace_ms\":-1}",
                "expected a whole number in range",
            ),
            (
                "{\"kind\":\"kill\",\"task\":\"t1\",\"grace_ms\":\"soon\"}",
                "string \"soon\", expected a whole number",
            ),
            (
                "{\"kind\":\"kill\",\"task\":\"t1\",\"grace_ms\":1,\"spare\":7}",
                "expected an object",
            ),
            (
                "{\"kind\":\"dance\"}",
                "unknown variant `dance`, expected `kill`",
            ),
            (&format!("{{\"kind\":\"{long}\"}}"), "unknown variant `xxx"),
            (
                &format!("{{\"kind\":\"kill\",\"task\":\"{long}\"}}"),
                "...\" is not a task id",
            ),
            (
                &format!("{{\"kind\":\"kill\",\"task\":\"t\",\"grace_ms\":\"{long}\"}}"),
                "xxx...\", expected a whole",
            ),
            (
                "{\"kind\":\"kill\",\"task\":\"t1\",\"grace_ms\":\"\\u001b[2J\\u202e\"}",
                "expected a whole",
            ),
        ] {
            let refusal = read::<Call>(line.as_bytes())
                .expect_err("a refusal")
                .to_string();
            assert!(refusal.contains(why), "{refusal}");
            assert!(
                refusal.len() < 220 && !refusal.contains(['\u{1b}', '\u{202e}']),
                "{refusal}"
            );
        }
        let Call::Kill {
            task,
            grace_ms,
            spare,
        } = read(b"{\"kind\":\"kill\",\"task\":\"t1\",\"grace_ms\":5,\"new\":[]}").expect("a call");
        assert_eq!((task.as_str(), grace_ms, spare), ("t1", 5, None));
    }

    proptest! {
        /// No line makes the reader panic, and what it refuses it refuses in one short harmless line.
        #[test]
        fn any_line_is_read_or_refused(line in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "\\{[\"a{}\\[\\]:,0-9.eE+\\\\u-]{0,60}".prop_map(String::into_bytes),
        ]) {
            for refusal in [read_object(&line, Limits::default()).map(|_| ()), read::<Resources>(&line).map(|_| ())] {
                if let Err(refusal) = refusal {
                    let shown = refusal.to_string();
                    prop_assert!(shown.chars().count() < 300 && !shown.chars().any(char::is_control), "{}", shown);
                }
            }
        }
    }
}

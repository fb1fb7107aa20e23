//! Ids and names: newtypes made at the edge, never parsed for meaning
//!
//! Every one of them is a bus token, a cgroup name and a piece of a path at once, so all keep one
//! rule: `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`. Who holds one of these types holds a checked text.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::quoted;

/// Characters of an id or name at most
pub const ID_CHARS_MAX: usize = 64;

/// A text that cannot be an id, name or nonce
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not {what}: {rule}")]
pub struct BadId {
    /// Quoted, escaped and shortened, fit for a terminal.
    text: String,
    what: &'static str,
    rule: &'static str,
}

impl BadId {
    fn new(text: &str, what: &'static str, rule: &'static str) -> BadId {
        BadId {
            text: quoted(text),
            what,
            rule,
        }
    }
}

const ID_RULE: &str = "1 to 64 letters, digits, _ and -, of which the first is a letter or digit";
const NONCE_RULE: &str = "32 lower-case hexadecimal digits";

/// Whether the text keeps the one rule of ids and names
pub fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= ID_CHARS_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// One checked text type: `text!(Type, "what it is called in errors", "its rule", check, docs)`
macro_rules! text {
    ($type:ident, $what:literal, $rule:expr, $check:path, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Checks a text from outside.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                Self::try_from(text.to_owned())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                if $check(&text) {
                    Ok(Self(text))
                } else {
                    Err(BadId::new(&text, $what, $rule))
                }
            }
        }

        impl FromStr for $type {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Through `pad`, so that a table can write `{id:<20}`.
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::try_from(String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    };
}

/// A checked text that meso also generates: kind, `_`, ten base32 characters
macro_rules! id {
    ($type:ident, $kind:literal, $what:literal, $doc:literal) => {
        text!($type, $what, ID_RULE, is_id, $doc);

        impl $type {
            /// What generated ids of this type begin with, without the `_`.
            pub const KIND: &'static str = $kind;

            /// Makes an id of the low 50 bits of `entropy`; the rest is ignored.
            pub fn fresh(entropy: u64) -> Self {
                Self(generated(Self::KIND, entropy))
            }
        }
    };
}

id!(
    AgentId,
    "agent",
    "an agent id",
    "One registration of an agent; kept over its restarts."
);
id!(
    FrameworkId,
    "fw",
    "a framework id",
    "A framework; kept over failover when it has a name."
);
id!(
    TaskId,
    "task",
    "a task id",
    "A task, generated or given with `--id`."
);
id!(
    OfferId,
    "offer",
    "an offer id",
    "An offer; never used again once it is gone."
);
id!(
    SessionId,
    "s",
    "a session id",
    "One connection of a framework; a pipeline is one session."
);
id!(
    MasterId,
    "master",
    "a master id",
    "One run of a master process."
);
id!(
    ContainerId,
    "ct",
    "a container id",
    "A container on an agent; names its cgroup and sandbox."
);
text!(
    Principal,
    "a principal",
    ID_RULE,
    is_id,
    "Who speaks: the bus lets it use its own subjects only."
);
text!(
    Name,
    "a name",
    ID_RULE,
    is_id,
    "A name that people give: of a task, a framework, a role, a cluster."
);
text!(
    Nonce,
    "a nonce",
    NONCE_RULE,
    is_nonce,
    "128 random bits that tell one incarnation from another."
);

impl Nonce {
    /// Makes a nonce of 128 bits of entropy.
    pub fn fresh(hi: u64, lo: u64) -> Nonce {
        Nonce(format!("{hi:016x}{lo:016x}"))
    }
}

fn is_nonce(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Crockford's digits: no i, l, o, u, so that an id read aloud or copied by hand stays itself.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const GENERATED_DIGITS: u32 = 10;

fn generated(kind: &str, entropy: u64) -> String {
    let mut id = String::with_capacity(kind.len() + 1 + GENERATED_DIGITS as usize);
    id.push_str(kind);
    id.push('_');
    for digit in (0..GENERATED_DIGITS).rev() {
        let value = (entropy >> (5 * digit)) & 31;
        id.push(char::from(BASE32[value as usize]));
    }
    id
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the rule allows is read as it is; what it forbids is refused, naming text and rule.
    #[test]
    fn the_rule_of_ids() {
        let long = "x".repeat(64);
        for good in ["a", "7", "task_7k3q9x2mfa", "web-1", "A_b-C", long.as_str()] {
            assert_eq!(
                TaskId::parse(good).map(|id| id.to_string()),
                Ok(good.to_owned())
            );
        }
        let too_long = "x".repeat(65);
        for bad in [
            "",
            "-a",
            "_a",
            "a.b",
            "a b",
            "a/b",
            "..",
            "a*",
            ">",
            "a\n",
            "\u{fc}",
            "a\0",
            too_long.as_str(),
        ] {
            let refusal = TaskId::parse(bad).expect_err(bad).to_string();
            assert!(
                refusal.contains("is not a task id: 1 to 64 letters"),
                "{refusal}"
            );
        }
    }

    /// A refusal is one short harmless line, whatever it refuses.
    #[test]
    fn refusals_are_fit_for_a_terminal() {
        let refusal = Name::parse(&"\u{1b}[31m".repeat(10_000))
            .expect_err("has ESC")
            .to_string();
        assert!(
            refusal.len() < 200 && !refusal.contains('\u{1b}'),
            "{refusal}"
        );
        assert!(refusal.starts_with("\"\\u{1b}[31m"), "{refusal}");
    }

    /// Generated ids carry their kind, and the low fifty bits of the entropy and nothing else.
    #[test]
    fn generated_ids() {
        assert_eq!(TaskId::fresh(0).as_str(), "task_0000000000");
        assert_eq!(AgentId::fresh(u64::MAX).as_str(), "agent_zzzzzzzzzz");
        assert_eq!(FrameworkId::fresh((1 << 50) + 33).as_str(), "fw_0000000011");
        assert_eq!(OfferId::KIND, "offer");
        assert_eq!(
            Nonce::fresh(1, u64::MAX).as_str(),
            "0000000000000001ffffffffffffffff"
        );
    }

    /// A nonce is thirty-two lower-case hexadecimal digits and nothing else.
    #[test]
    fn the_rule_of_nonces() {
        for bad in [
            "",
            "0123",
            "0123456789ABCDEF0123456789abcdef",
            "g123456789abcdef0123456789abcdef",
        ] {
            assert!(Nonce::parse(bad).is_err(), "{bad}");
        }
    }

    /// Reading an id out of JSON applies the same rule as parsing it.
    #[test]
    fn json_is_checked() {
        let id: AgentId = serde_json::from_str("\"agent_1\"").expect("a good id");
        assert_eq!(serde_json::to_string(&id).expect("a string"), "\"agent_1\"");
        for bad in ["\"a.b\"", "\"\"", "7", "null", "[\"a\"]"] {
            assert!(serde_json::from_str::<AgentId>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever the entropy, a generated id and nonce keep their own rule.
        #[test]
        fn fresh_ids_parse(hi: u64, lo: u64) {
            let id = SessionId::fresh(hi);
            prop_assert_eq!(SessionId::parse(id.as_str()), Ok(id));
            let nonce = Nonce::fresh(hi, lo);
            prop_assert_eq!(Nonce::parse(nonce.as_str()), Ok(nonce));
        }

        /// No text is accepted that would be more than one token to the bus or a path.
        #[test]
        fn accepted_ids_are_single_tokens(text in any::<String>()) {
            if let Ok(id) = Name::parse(&text) {
                prop_assert!(!id.as_str().contains(['.', '*', '>', '/', ' ', '\0', '\n']));
                prop_assert!(!id.as_str().is_empty() && id.as_str().len() <= ID_CHARS_MAX);
            }
        }
    }
}

//! Conditions on agents: `cpus >= 4 && attr.rack in r1,r2`, the language of `--where`
//!
//! The master evaluates the conditions of others for every agent, so the language is total and
//! cheap: no loops, no regular expressions, every part bounded, one pass over each text.

mod attr;
mod grammar;
mod pattern;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::Name;
use crate::json::quoted;
use crate::resources::{Milli, Resources};

pub use attr::{ATTR_CHARS_MAX, ATTRS_MAX, Attr, BadAttrs, deserialize_attrs, parse_attrs};
pub use pattern::{PATTERN_CHARS_MAX, Pattern};

/// Clauses that must all hold; without any it always holds
///
/// In JSON it is its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition(Vec<Clause>);

/// One `KEY OP VALUE`; shown in the form in which it is read
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    key: Key,
    test: Test,
}

/// What is known of an agent when a condition is evaluated
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// The resources in question, usually those that would be offered.
    pub resources: &'f Resources,
    pub host: &'f str,
    pub agent: &'f str,
    pub role: &'f str,
    pub revocable: bool,
    pub attrs: &'f BTreeMap<String, Attr>,
}

/// A text that is no condition
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{token}: {why}")]
pub struct BadCondition {
    /// Quoted, escaped and shortened, fit for a terminal.
    token: String,
    why: String,
}

impl BadCondition {
    fn new(token: &str, why: impl Into<String>) -> BadCondition {
        BadCondition {
            token: quoted(token),
            why: why.into(),
        }
    }
}

impl Condition {
    /// Reads clauses joined by `&&`; the empty text is the condition that always holds.
    ///
    /// A clause is `KEY OP VALUE`, `KEY in VALUE,VALUE` or `KEY exists`. Keys are `cpus`, `mem`,
    /// `disk`, `gpus`, `ports` (amounts; `mem >= 4G` works), `host`, `agent`, `role` (texts),
    /// `revocable` (`true` or `false`) and `attr.NAME`. Operators are `== != < <= > >=`, and `=~ !~`
    /// with a [`Pattern`]. A value with spaces or special characters stands in quotes.
    pub fn parse(text: &str) -> Result<Condition, BadCondition> {
        grammar::read(text).map(Condition)
    }

    /// Whether every clause holds.
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        self.failing(facts).is_none()
    }

    /// The first clause that does not hold.
    pub fn failing(&self, facts: &Facts<'_>) -> Option<&Clause> {
        self.0.iter().find(|clause| !clause.holds(facts))
    }

    pub fn clauses(&self) -> &[Clause] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Clause {
    /// Whether this clause holds.
    ///
    /// Of an attribute that the agent does not have, only `!=` and `!~` hold. An order holds between
    /// amounts only. A built-in amount `exists` if there is any of it.
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        let value = self.key.value(facts);
        match &self.test {
            Test::Equal(literal) => value.equals(literal),
            Test::Differs(literal) => !value.equals(literal),
            Test::Ordered(order, bound) => {
                matches!(value, Value::Number(number) if order.holds(number, bound.number()))
            }
            Test::Matches(pattern) => value.matches(pattern),
            Test::Avoids(pattern) => !value.matches(pattern),
            Test::In(literals) => literals.iter().any(|literal| value.equals(literal)),
            Test::Exists => match (&self.key, value) {
                (_, Value::Missing) => false,
                (Key::Attr(_), _) => true,
                (_, Value::Number(number)) => !number.is_zero(),
                (_, Value::Text(text)) => !text.is_empty(),
                (_, Value::Flag(_)) => true,
            },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Cpus,
    Mem,
    Disk,
    Gpus,
    Ports,
    Host,
    Agent,
    Role,
    Revocable,
    Attr(Name),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Equal(Literal),
    Differs(Literal),
    /// The literal has a number.
    Ordered(Order, Literal),
    Matches(Pattern),
    Avoids(Pattern),
    In(Vec<Literal>),
    Exists,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    AtMost,
    More,
    AtLeast,
}

/// A value as it was written, and the amount it is where it is one
#[derive(Clone, Debug, PartialEq, Eq)]
struct Literal {
    text: String,
    number: Option<Milli>,
}

/// What an agent has for a key
#[derive(Clone, Copy)]
enum Value<'f> {
    Number(Milli),
    Text(&'f str),
    Flag(bool),
    Missing,
}

impl Key {
    fn value<'f>(&self, facts: &Facts<'f>) -> Value<'f> {
        let resources = facts.resources;
        match self {
            Key::Cpus => Value::Number(resources.cpus),
            Key::Mem => Value::Number(resources.mem),
            Key::Disk => Value::Number(resources.disk),
            Key::Gpus => Value::Number(resources.gpus),
            Key::Ports => Value::Number(Milli::units(resources.ports.len().into())),
            Key::Host => Value::Text(facts.host),
            Key::Agent => Value::Text(facts.agent),
            Key::Role => Value::Text(facts.role),
            Key::Revocable => Value::Flag(facts.revocable),
            Key::Attr(name) => match facts.attrs.get(name.as_str()) {
                Some(Attr::Text(text)) => Value::Text(text),
                Some(Attr::Number(number)) => Value::Number(*number),
                Some(Attr::Flag(flag)) => Value::Flag(*flag),
                None => Value::Missing,
            },
        }
    }
}

impl Value<'_> {
    fn equals(self, literal: &Literal) -> bool {
        match self {
            Value::Number(number) => literal.number == Some(number),
            Value::Text(text) => literal.text == text,
            Value::Flag(flag) => literal.text == flag_text(flag),
            Value::Missing => false,
        }
    }

    fn matches(self, pattern: &Pattern) -> bool {
        match self {
            Value::Number(number) => pattern.matches(&number.to_string()),
            Value::Text(text) => pattern.matches(text),
            Value::Flag(flag) => pattern.matches(flag_text(flag)),
            Value::Missing => false,
        }
    }
}

fn flag_text(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}

impl Literal {
    /// The amount of a literal that is compared by order.
    fn number(&self) -> Milli {
        self.number
            .expect("the grammar orders only by literals with a number")
    }
}

impl Order {
    fn holds(self, number: Milli, bound: Milli) -> bool {
        match self {
            Order::Less => number < bound,
            Order::AtMost => number <= bound,
            Order::More => number > bound,
            Order::AtLeast => number >= bound,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, clause) in self.0.iter().enumerate() {
            let joint = if index == 0 { "" } else { " && " };
            write!(f, "{joint}{clause}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.test {
            Test::Equal(literal) => write!(f, "{key} == {}", grammar::shown(&literal.text)),
            Test::Differs(literal) => write!(f, "{key} != {}", grammar::shown(&literal.text)),
            Test::Ordered(order, literal) => write!(
                f,
                "{key} {} {}",
                order.symbol(),
                grammar::shown(&literal.text)
            ),
            Test::Matches(pattern) => write!(f, "{key} =~ {}", grammar::shown(pattern.as_str())),
            Test::Avoids(pattern) => write!(f, "{key} !~ {}", grammar::shown(pattern.as_str())),
            Test::In(literals) => {
                let shown: Vec<_> = literals
                    .iter()
                    .map(|literal| grammar::shown(&literal.text))
                    .collect();
                write!(f, "{key} in {}", shown.join(","))
            }
            Test::Exists => write!(f, "{key} exists"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Key::Cpus => "cpus",
            Key::Mem => "mem",
            Key::Disk => "disk",
            Key::Gpus => "gpus",
            Key::Ports => "ports",
            Key::Host => "host",
            Key::Agent => "agent",
            Key::Role => "role",
            Key::Revocable => "revocable",
            Key::Attr(name) => return write!(f, "attr.{name}"),
        })
    }
}

impl Order {
    fn symbol(self) -> &'static str {
        match self {
            Order::Less => "<",
            Order::AtMost => "<=",
            Order::More => ">",
            Order::AtLeast => ">=",
        }
    }
}

impl FromStr for Condition {
    type Err = BadCondition;

    fn from_str(text: &str) -> Result<Condition, BadCondition> {
        Condition::parse(text)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
        Condition::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::parse_total;

    fn on_an_agent<R>(judge: impl FnOnce(&Facts<'_>) -> R) -> R {
        let resources = parse_total("cpus=7.5,mem=15G,ports=[31000-31009]").expect("resources");
        let attrs = parse_attrs("rack=r1,ssd=true,gen=3,zone=eu west").expect("attributes");
        judge(&Facts {
            resources: &resources,
            host: "node-3.example.org",
            agent: "agent_1",
            role: "batch",
            revocable: false,
            attrs: &attrs,
        })
    }

    /// Each kind of clause holds and fails as it reads.
    #[test]
    fn clauses_hold_as_they_read() {
        for (text, holds) in [
            ("", true),
            ("cpus >= 4", true),
            ("cpus>=7.5&&cpus<=7.5", true),
            ("cpus < 7.5", false),
            ("cpus > 7.499", true),
            ("cpus == 7.50", true),
            ("cpus != 7.5", false),
            ("cpus in 7,7.5", true),
            ("mem >= 15G && mem < 16G", true),
            ("mem > 15360", false),
            ("ports >= 10", true),
            ("ports > 10", false),
            ("gpus exists", false),
            ("cpus exists", true),
            ("host == node-3.example.org", true),
            ("host =~ node-*", true),
            ("host =~ node", false),
            ("host !~ *.example.org", false),
            ("agent in agent_0, agent_1", true),
            ("role != batch", false),
            ("role exists", true),
            ("revocable == false", true),
            ("revocable != false", false),
            ("attr.rack == r1", true),
            ("attr.rack in (r2, r3)", false),
            ("attr.rack in [r1,r2]", true),
            ("attr.zone == \"eu west\"", true),
            ("attr.zone =~ 'eu *'", true),
            ("attr.ssd == true", true),
            ("attr.ssd != true", false),
            ("attr.ssd =~ t*", true),
            ("attr.gen >= 3", true),
            ("attr.gen == 3.000", true),
            ("attr.gen =~ ?", true),
            ("attr.gen exists", true),
            // An order between a text and an amount holds neither way.
            ("attr.rack > 0", false),
            ("attr.rack <= 0", false),
            // Of what is missing, only the negations hold.
            ("attr.none exists", false),
            ("attr.none == x", false),
            ("attr.none in x,y", false),
            ("attr.none =~ *", false),
            ("attr.none < 5", false),
            ("attr.none != x", true),
            ("attr.none !~ *", true),
        ] {
            let condition = Condition::parse(text).expect(text);
            assert_eq!(on_an_agent(|facts| condition.holds(facts)), holds, "{text}");
        }
    }

    /// The first clause that fails is named, in the form in which it could be typed.
    #[test]
    fn the_failing_clause_is_named() {
        let condition =
            Condition::parse("cpus>=4&&attr.zone=='us east'&&gpus>=1").expect("a condition");
        let failing = on_an_agent(|facts| condition.failing(facts).map(Clause::to_string));
        assert_eq!(failing.as_deref(), Some("attr.zone == \"us east\""));
        assert_eq!(condition.clauses().len(), 3);
    }

    /// In JSON a condition is its text, and a wrong text is refused.
    #[test]
    fn json_form() {
        let condition: Condition =
            serde_json::from_str("\"cpus>=4&&attr.ssd==true\"").expect("a condition");
        assert_eq!(
            serde_json::to_string(&condition).expect("a string"),
            "\"cpus >= 4 && attr.ssd == true\""
        );
        assert_eq!(
            serde_json::from_str::<Condition>("\"\"").expect("always"),
            Condition::default()
        );
        for bad in ["\"cpus\"", "7", "null", "{}"] {
            assert!(serde_json::from_str::<Condition>(bad).is_err(), "{bad}");
        }
    }
}

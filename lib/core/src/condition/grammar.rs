//! The grammar of conditions: text to clauses

use super::{BadCondition, Clause, Key, Literal, Order, PATTERN_CHARS_MAX, Pattern, Test};
use crate::id::Name;
use crate::resources::{Milli, parse_size};

/// Bytes of a condition's text at most
const TEXT_BYTES_MAX: usize = 4096;
const CLAUSES_MAX: usize = 32;
/// Values after one `in` at most
const VALUES_MAX: usize = 64;

/// Reads clauses joined by `&&`; none in an empty text.
pub fn read(text: &str) -> Result<Vec<Clause>, BadCondition> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(BadCondition::new(
            text,
            format!("a condition has at most {TEXT_BYTES_MAX} bytes"),
        ));
    }
    if let Some(control) = text.find(|c: char| c.is_control() && c != '\t' && c != '\n') {
        return Err(BadCondition::new(
            &text[control..],
            "a condition has no control characters",
        ));
    }
    let mut reader = Reader { rest: text };
    let mut clauses = Vec::new();
    reader.skip_spaces();
    if reader.rest.is_empty() {
        return Ok(clauses);
    }
    loop {
        if clauses.len() == CLAUSES_MAX {
            return Err(reader.refuse(format!("a condition has at most {CLAUSES_MAX} clauses")));
        }
        clauses.push(reader.clause()?);
        reader.skip_spaces();
        if reader.rest.is_empty() {
            return Ok(clauses);
        }
        if !reader.eat("&&") {
            return Err(reader.refuse(
                "clauses are joined by && and by nothing else; put a value with spaces in quotes",
            ));
        }
    }
}

/// A value as [`read`] reads it back: bare where that is possible, else in the quotes it does not have.
pub fn shown(value: &str) -> String {
    let starts_well = value.starts_with(|c: char| !is_operator(c));
    if starts_well && value.chars().all(is_bare) {
        return value.to_owned();
    }
    let quote = if value.contains('"') { '\'' } else { '"' };
    format!("{quote}{value}{quote}")
}

fn is_bare(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !"&|\"'(),[]".contains(c)
}

/// What a value cannot begin with, so that `cpus =< 4` is not a comparison with `< 4`
fn is_operator(c: char) -> bool {
    "=<>~!".contains(c)
}

struct Reader<'t> {
    rest: &'t str,
}

#[derive(Clone, Copy)]
enum Operator {
    Equal,
    Differs,
    Ordered(Order),
    Matches,
    Avoids,
    In,
    Exists,
}

/// Longer before shorter, so that `<=` is not read as `<`.
const SYMBOLS: [(&str, Operator); 8] = [
    ("==", Operator::Equal),
    ("!=", Operator::Differs),
    ("<=", Operator::Ordered(Order::AtMost)),
    (">=", Operator::Ordered(Order::AtLeast)),
    ("=~", Operator::Matches),
    ("!~", Operator::Avoids),
    ("<", Operator::Ordered(Order::Less)),
    (">", Operator::Ordered(Order::More)),
];

impl<'t> Reader<'t> {
    fn clause(&mut self) -> Result<Clause, BadCondition> {
        self.skip_spaces();
        let key = self.key()?;
        self.skip_spaces();
        let operator = self.operator()?;
        self.skip_spaces();
        let test = match (&key, operator) {
            (Key::Revocable, Operator::Equal | Operator::Differs) => {
                self.equality(&key, operator)?
            }
            (Key::Revocable, _) => {
                return Err(self.refuse("write revocable == true or revocable == false"));
            }
            (_, Operator::Exists) => Test::Exists,
            (_, Operator::Equal | Operator::Differs) => self.equality(&key, operator)?,
            (_, Operator::In) => Test::In(self.values(&key)?),
            (Key::Host | Key::Agent | Key::Role, Operator::Ordered(_)) => {
                return Err(self.refuse(format!(
                    "{key} is a text and has no order; use == != =~ !~ or in"
                )));
            }
            (_, Operator::Ordered(order)) => {
                let value = self.value()?;
                let literal = literal(&key, value)?;
                if literal.number.is_none() {
                    return Err(BadCondition::new(value, "< <= > >= compare with a number"));
                }
                Test::Ordered(order, literal)
            }
            (
                Key::Cpus | Key::Mem | Key::Disk | Key::Gpus | Key::Ports,
                Operator::Matches | Operator::Avoids,
            ) => {
                return Err(self.refuse(format!("{key} is an amount; use == != < <= > >= or in")));
            }
            (_, Operator::Matches) => Test::Matches(self.pattern()?),
            (_, Operator::Avoids) => Test::Avoids(self.pattern()?),
        };
        Ok(Clause { key, test })
    }

    fn equality(&mut self, key: &Key, operator: Operator) -> Result<Test, BadCondition> {
        let literal = literal(key, self.value()?)?;
        Ok(if matches!(operator, Operator::Equal) {
            Test::Equal(literal)
        } else {
            Test::Differs(literal)
        })
    }

    fn key(&mut self) -> Result<Key, BadCondition> {
        const KEYS: &str =
            "the keys are cpus, mem, disk, gpus, ports, host, agent, role, revocable and attr.NAME";
        let text = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        Ok(match text {
            "cpus" => Key::Cpus,
            "mem" => Key::Mem,
            "disk" => Key::Disk,
            "gpus" => Key::Gpus,
            "ports" => Key::Ports,
            "host" => Key::Host,
            "agent" => Key::Agent,
            "role" => Key::Role,
            "revocable" => Key::Revocable,
            "" => return Err(self.refuse(format!("a key is missing here; {KEYS}"))),
            _ => match text.strip_prefix("attr.") {
                Some(name) => Key::Attr(Name::parse(name).map_err(|_| {
                    BadCondition::new(
                        text,
                        "an attribute's name is 1 to 64 letters, digits, _ and -",
                    )
                })?),
                None => return Err(BadCondition::new(text, format!("not a key; {KEYS}"))),
            },
        })
    }

    fn operator(&mut self) -> Result<Operator, BadCondition> {
        const OPERATORS: &str = "== != < <= > >= =~ !~ in exists";
        if let Some((_, operator)) = SYMBOLS.iter().find(|(symbol, _)| self.eat(symbol)) {
            return Ok(*operator);
        }
        if self.rest.starts_with('=') {
            return Err(self.refuse("write == to compare"));
        }
        let at = self.rest;
        match self.take_while(|c| c.is_ascii_alphabetic()) {
            "in" => Ok(Operator::In),
            "exists" => Ok(Operator::Exists),
            _ => Err(BadCondition::new(
                at,
                format!("an operator is missing here: one of {OPERATORS}"),
            )),
        }
    }

    /// One value, bare or in quotes.
    fn value(&mut self) -> Result<&'t str, BadCondition> {
        for quote in ['"', '\''] {
            if let Some(inner) = self.rest.strip_prefix(quote) {
                let (value, after) = inner
                    .split_once(quote)
                    .ok_or_else(|| self.refuse("this quote is not closed"))?;
                self.rest = after;
                return Ok(value);
            }
        }
        if self.rest.starts_with(is_operator) {
            return Err(self.refuse(
                "a value is missing here; put it in quotes if it begins like an operator",
            ));
        }
        let value = self.take_while(is_bare);
        if value.is_empty() {
            return Err(self.refuse("a value is missing here"));
        }
        Ok(value)
    }

    /// Values with commas between them, in brackets or without.
    fn values(&mut self, key: &Key) -> Result<Vec<Literal>, BadCondition> {
        let close = [("(", ")"), ("[", "]")]
            .into_iter()
            .find(|(open, _)| self.eat(open))
            .map(|(_, close)| close);
        let mut values = Vec::new();
        loop {
            self.skip_spaces();
            if values.len() == VALUES_MAX {
                return Err(self.refuse(format!("in takes at most {VALUES_MAX} values")));
            }
            values.push(literal(key, self.value()?)?);
            self.skip_spaces();
            if self.eat(",") {
                continue;
            }
            return match close {
                Some(close) if !self.eat(close) => {
                    Err(self.refuse(format!("{close} is missing here")))
                }
                _ => Ok(values),
            };
        }
    }

    fn pattern(&mut self) -> Result<Pattern, BadCondition> {
        let value = self.value()?;
        Pattern::parse(value).ok_or_else(|| {
            BadCondition::new(
                value,
                format!("a pattern has at most {PATTERN_CHARS_MAX} characters"),
            )
        })
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// A refusal of what stands here.
    fn refuse(&self, why: impl Into<String>) -> BadCondition {
        BadCondition::new(
            if self.rest.is_empty() {
                "end of the condition"
            } else {
                self.rest
            },
            why,
        )
    }
}

/// The value as what it is for this key.
fn literal(key: &Key, value: &str) -> Result<Literal, BadCondition> {
    let number = match key {
        Key::Cpus | Key::Gpus | Key::Ports => Some(Milli::parse(value)),
        Key::Mem | Key::Disk => Some(parse_size(value)),
        Key::Host | Key::Agent | Key::Role => None,
        Key::Revocable if value == "true" || value == "false" => None,
        Key::Revocable => return Err(BadCondition::new(value, "revocable is true or false")),
        // An attribute may be a text or a number: the agent's value decides which is compared.
        Key::Attr(_) => {
            return Ok(Literal {
                text: value.to_owned(),
                number: Milli::parse(value).ok(),
            });
        }
    };
    let number = number
        .transpose()
        .map_err(|bad| BadCondition::new(value, bad.why()))?;
    Ok(Literal {
        text: value.to_owned(),
        number,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::condition::Condition;

    /// Whatever is not a condition is refused with the place and the reason.
    #[test]
    fn other_texts_are_refused() {
        let long = format!("host == {}", "x".repeat(5000));
        let wide = vec!["cpus > 1"; 33].join("&&");
        let many = format!("host in {}", vec!["x"; 65].join(","));
        let pattern = format!("host =~ {}", "x".repeat(101));
        for (text, why) in [
            ("cpus", "operator is missing"),
            ("cpus 4", "operator is missing"),
            ("cpus = 4", "\"= 4\": write =="),
            ("cpus >=", "\"end of the condition\": a value is missing"),
            ("cpus >== 4", "a value is missing"),
            ("cpus => 4", "write =="),
            ("cpus =< 4", "write =="),
            ("cpus >= x", "\"x\": not an amount"),
            ("cpus >= -1", "never negative"),
            ("cpus >= 1e308", "exponent"),
            ("cpus >= 0.0001", "3 decimals"),
            ("cpus =~ 4*", "cpus is an amount"),
            ("mem >= 4g", "\"4g\": write 4G for GiB"),
            ("host < a", "has no order"),
            ("attr.gen < new", "compare with a number"),
            ("revocable", "operator is missing"),
            ("revocable == yes", "true or false"),
            ("revocable exists", "revocable == true"),
            ("revocable < true", "revocable == true"),
            ("rack == r1", "\"rack\": not a key"),
            ("CPUS > 1", "not a key"),
            ("attr. == r1", "attribute's name"),
            ("attr.a.b == r1", "attribute's name"),
            ("&& cpus > 1", "a key is missing"),
            ("cpus > 1 &&", "a key is missing"),
            ("cpus > 1 && && mem > 1", "a key is missing"),
            ("cpus > 1 || mem > 1", "joined by &&"),
            ("cpus > 1 & mem > 1", "joined by &&"),
            ("cpus > 1 and mem > 1", "joined by &&"),
            ("cpus > 1 mem > 1", "joined by &&"),
            ("(cpus > 1)", "a key is missing"),
            ("!cpus > 1", "a key is missing"),
            ("attr.zone == eu west", "value with spaces in quotes"),
            ("attr.zone == \"eu", "not closed"),
            ("host in", "a value is missing"),
            ("host in a,", "a value is missing"),
            ("host in (a", ") is missing"),
            ("host in [a)", "] is missing"),
            ("host == a,b", "joined by &&"),
            ("host == \u{1b}[2J", "control characters"),
            ("host == \"a\0b\"", "control characters"),
            (long.as_str(), "4096 bytes"),
            (wide.as_str(), "32 clauses"),
            (many.as_str(), "64 values"),
            (pattern.as_str(), "100 characters"),
        ] {
            let refusal = Condition::parse(text).expect_err(text).to_string();
            assert!(
                refusal.contains(why) && refusal.len() < 240,
                "{text}: {refusal}"
            );
        }
    }

    prop_compose! {
        fn some_clause()(
            key in "cpus|mem|disk|gpus|ports|host|agent|role|attr\\.[a-z]{1,3}",
            operator in "==|!=|<|<=|>|>=|=~|!~|in|exists",
            value in "[0-9]{1,3}(G|M)?|[a-z*?.-]{1,6}|\"[ a-z,&'=]{0,6}\"|'[ \"a-z()]{0,6}'|[0-9],[0-9]",
        ) -> String {
            if operator == "exists" { format!("{key} exists") } else { format!("{key} {operator} {value}") }
        }
    }

    proptest! {
        /// What was read is shown so that it reads back as the same condition.
        #[test]
        fn shown_conditions_read_back(clauses in proptest::collection::vec(some_clause(), 0..4)) {
            if let Ok(condition) = Condition::parse(&clauses.join("&&")) {
                prop_assert_eq!(Condition::parse(&condition.to_string()), Ok(condition));
            }
        }

        /// No text makes the reader panic, and what it refuses it refuses in one short harmless line.
        #[test]
        fn any_text_is_read_or_refused(text in prop_oneof![any::<String>(), "[a-z0-9=<>!~&|()\\[\\], .\"'*?-]{0,40}"]) {
            if let Err(refusal) = Condition::parse(&text) {
                let line = refusal.to_string();
                prop_assert!(line.chars().count() < 240 && !line.chars().any(char::is_control), "{}", line);
            }
        }
    }
}

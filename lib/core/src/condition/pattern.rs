//! Patterns with `*` and `?`, matched in one pass

use std::fmt;

/// Characters of a pattern at most; its states then fit into the bits of a `u128`
pub const PATTERN_CHARS_MAX: usize = 100;

/// A text in which `*` stands for any characters, also none, and `?` for any one
///
/// It always speaks of the whole text: to look for a part, write `*part*`. All other characters
/// stand for themselves. Matching looks at each character of the text once, whatever the pattern:
/// the master evaluates the patterns of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    // Bit i of a set of states says: the first i elements (letters and `?`) have been matched.
    /// States from which any character leads on: the next element is `?`.
    any: u128,
    /// States in which any character may pass: a `*` stands before the next element.
    stars: u128,
    /// For each letter, by letter, the states from which it leads on.
    letters: Vec<(char, u128)>,
    /// The one state in which everything has been matched.
    accept: u128,
}

impl Pattern {
    /// None if there are more than [`PATTERN_CHARS_MAX`] characters.
    pub fn parse(text: &str) -> Option<Pattern> {
        if text.chars().count() > PATTERN_CHARS_MAX {
            return None;
        }
        let mut pattern = Pattern {
            text: text.to_owned(),
            any: 0,
            stars: 0,
            letters: Vec::new(),
            accept: 0,
        };
        let mut state = 1u128;
        for c in text.chars() {
            match c {
                '*' => pattern.stars |= state,
                '?' => {
                    pattern.any |= state;
                    state <<= 1;
                }
                letter => {
                    match pattern
                        .letters
                        .binary_search_by_key(&letter, |(known, _)| *known)
                    {
                        Ok(at) => pattern.letters[at].1 |= state,
                        Err(at) => pattern.letters.insert(at, (letter, state)),
                    }
                    state <<= 1;
                }
            }
        }
        pattern.accept = state;
        Some(pattern)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole text is of this form.
    pub fn matches(&self, text: &str) -> bool {
        let mut states = 1u128;
        for c in text.chars() {
            let known = self.letters.binary_search_by_key(&c, |(letter, _)| *letter);
            let leads_on = self.any | known.map_or(0, |at| self.letters[at].1);
            states = (states & leads_on) << 1 | states & self.stars;
            if states == 0 {
                return false;
            }
        }
        states & self.accept != 0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious definition, exponential in the worst case.
    fn plainly_matches(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            (['*', rest @ ..], _) => {
                (0..=text.len()).any(|skip| plainly_matches(rest, &text[skip..]))
            }
            (['?', rest @ ..], [_, after @ ..]) => plainly_matches(rest, after),
            ([letter, rest @ ..], [c, after @ ..]) => letter == c && plainly_matches(rest, after),
            (_, []) => false,
        }
    }

    /// Stars and question marks do what they do in a shell.
    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, yes, no) in [
            ("", "", "a"),
            ("**x", "x", "xy"),
            ("?", "\u{fc}", ""),
            ("r1", "r1", "r10"),
            ("node-*", "node-", "node"),
            ("*.example.org", "a.example.org", "a.example.org."),
            ("r?", "r1", "r10"),
            ("*a*b*", "xxaxxbxx", "ba"),
            ("a**b", "ab", "a"),
            ("[ab]", "[ab]", "a"),
        ] {
            let pattern = Pattern::parse(pattern).expect("short");
            assert!(pattern.matches(yes), "{pattern} {yes}");
            assert!(!pattern.matches(no), "{pattern} {no}");
        }
    }

    /// The pattern that makes a backtracking matcher hang is one pass here, at the full length.
    #[test]
    fn hostile_patterns_are_cheap() {
        let hostile = Pattern::parse(&format!("{}b", "a*".repeat(49))).expect("99 characters");
        assert!(!hostile.matches(&"a".repeat(1_000_000)));
        let longest = "?".repeat(PATTERN_CHARS_MAX);
        assert!(
            Pattern::parse(&longest)
                .expect("just short enough")
                .matches(&longest)
        );
        assert_eq!(Pattern::parse(&"*".repeat(PATTERN_CHARS_MAX + 1)), None);
    }

    proptest! {
        /// One pass over bits finds just what the definition says.
        #[test]
        fn matching_is_by_definition(pattern in "[ab*?]{0,8}", text in "[abc]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            let plain = plainly_matches(&chars(&pattern), &chars(&text));
            prop_assert_eq!(Pattern::parse(&pattern).expect("short").matches(&text), plain);
        }
    }
}

//! Text of others, made harmless before a person's terminal sees it

use std::borrow::Cow;

/// Characters of foreign text that an error message echoes at most
pub const ECHO_CHARS_MAX: usize = 60;

/// Shows what could steer a terminal or reorder a line as `\u{..}`
///
/// That is C0, DEL and C1 controls (newline and tab too: one value is one line), the
/// bidirectional marks, embeddings, overrides and isolates, and the line and paragraph
/// separators. Text without any of them is handed back as it is.
pub fn escape_for_terminal(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_harmful) else {
        return Cow::Borrowed(text);
    };
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push_str(&text[..first]);
    for c in text[first..].chars() {
        push_shown(&mut shown, c);
    }
    Cow::Owned(shown)
}

/// The text in double quotes, escaped, cut after [`ECHO_CHARS_MAX`] characters
///
/// For error messages: what comes out is one short line whatever went in.
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    push_shortened(&mut shown, text);
    shown.push('"');
    shown
}

/// Escaped and cut after [`ECHO_CHARS_MAX`] characters, `...` marking the cut
pub(crate) fn push_shortened(shown: &mut String, text: &str) {
    let mut room = ECHO_CHARS_MAX;
    let mut rest = text.chars();
    // Whole characters only: half of an escape would mislead, so the cut comes before it.
    for c in rest.by_ref() {
        let width = if is_harmful(c) {
            c.escape_unicode().len()
        } else {
            1
        };
        if width > room {
            shown.push_str("...");
            return;
        }
        room -= width;
        push_shown(shown, c);
    }
}

fn push_shown(shown: &mut String, c: char) {
    if is_harmful(c) {
        shown.extend(c.escape_unicode());
    } else {
        shown.push(c);
    }
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each class of harmful character comes out as its escape, and only those.
    #[test]
    fn harmful_characters_are_escaped() {
        for (text, shown) in [
            (
                "plain, with \"quotes\" and \\",
                "plain, with \"quotes\" and \\",
            ),
            ("a\nb\tc\rd", "a\\u{a}b\\u{9}c\\u{d}d"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\0\u{7f}\u{9b}31m", "\\u{0}\\u{7f}\\u{9b}31m"),
            (
                "a\u{202e}b\u{2066}c\u{200f}",
                "a\\u{202e}b\\u{2066}c\\u{200f}",
            ),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
            ("gr\u{fc}n \u{65e5}\u{672c}", "gr\u{fc}n \u{65e5}\u{672c}"),
        ] {
            assert_eq!(escape_for_terminal(text), shown);
        }
    }

    /// Harmless text is not copied.
    #[test]
    fn harmless_text_is_borrowed() {
        assert!(matches!(
            escape_for_terminal("rack-1"),
            Cow::Borrowed("rack-1")
        ));
    }

    /// A quotation has at most sixty characters between its quotes, plus the mark of the cut.
    #[test]
    fn quotations_are_short() {
        assert_eq!(quoted("abc"), "\"abc\"");
        let sixty = "x".repeat(60);
        assert_eq!(quoted(&sixty), format!("\"{sixty}\""));
        assert_eq!(quoted(&"x".repeat(61)), format!("\"{sixty}...\""));
        let bells = quoted(&"\u{7}".repeat(1000));
        assert_eq!(bells, format!("\"{}...\"", "\\u{7}".repeat(12)));
    }
}

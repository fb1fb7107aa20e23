//! The placeholders of GNU parallel, put into a command without a shell's help
//!
//! | placeholder | for item `dir/song.tar.gz`, the 3rd |
//! |---|---|
//! | `{}` | `dir/song.tar.gz` |
//! | `{.}` | `dir/song.tar` |
//! | `{/}` | `song.tar.gz` |
//! | `{//}` | `dir` |
//! | `{/.}` | `song.tar` |
//! | `{#}` | `3` |
//!
//! Anything else in braces stays as it is.
use std::{error::Error, fmt};

/// Longest first: `{/}` stands in none of the others, but the reader should not have to check.
const PLACEHOLDERS: [(&str, Placeholder); 6] = [
    ("{//}", Placeholder::Folder),
    ("{/.}", Placeholder::Stem),
    ("{}", Placeholder::Whole),
    ("{.}", Placeholder::WithoutEnding),
    ("{/}", Placeholder::Base),
    ("{#}", Placeholder::Number),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Whole,
    WithoutEnding,
    Base,
    Folder,
    Stem,
    Number,
}

/// One item of `--each`: text that can be an argument of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    text: String,
    number: u64,
}

/// An item that cannot be an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadItem {
    /// The wire carries text; arguments that are not UTF-8 cannot go there.
    NotUtf8,
    /// No argument of a program can hold a NUL.
    Nul,
}

impl fmt::Display for BadItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "not UTF-8, so it cannot be an argument",
            Self::Nul => "it has a NUL, so it cannot be an argument; --each0 splits at NUL",
        })
    }
}

impl Error for BadItem {}

impl Item {
    /// An item and its number, from 1.
    ///
    /// # Errors
    /// Bytes that cannot be an argument.
    pub fn new(bytes: Vec<u8>, number: u64) -> Result<Self, BadItem> {
        let text = String::from_utf8(bytes).map_err(|_| BadItem::NotUtf8)?;
        if text.contains('\0') {
            return Err(BadItem::Nul);
        }
        Ok(Self { text, number })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    fn value(&self, placeholder: Placeholder) -> String {
        match placeholder {
            Placeholder::Whole => self.text.clone(),
            Placeholder::WithoutEnding => without_ending(&self.text).to_owned(),
            Placeholder::Base => base(&self.text).to_owned(),
            Placeholder::Folder => folder(&self.text).to_owned(),
            Placeholder::Stem => without_ending(base(&self.text)).to_owned(),
            Placeholder::Number => self.number.to_string(),
        }
    }
}

/// Whether a command says where items go.
pub fn has_placeholder(command: &[String]) -> bool {
    command.iter().any(|word| PLACEHOLDERS.iter().any(|(text, _)| word.contains(text)))
}

/// The command for an item, word by word: an item never becomes two words, whatever is in it.
///
/// A command without any placeholder gets the item as its last word.
pub fn in_argv(command: &[String], item: &Item) -> Vec<String> {
    let mut words = command.iter().map(|word| put_in(word, |placeholder| item.value(placeholder))).collect::<Vec<_>>();
    if !has_placeholder(command) {
        words.push(item.text.clone());
    }
    words
}

/// The shell string for an item, which is quoted so that the shell takes it for one word.
///
/// A string without any placeholder gets the item as its last word.
pub fn in_shell(string: &str, item: &Item) -> String {
    let quoted = |placeholder| shell_word(&item.value(placeholder));
    if has_placeholder(std::slice::from_ref(&string.to_owned())) {
        put_in(string, quoted)
    } else {
        format!("{string} {}", quoted(Placeholder::Whole))
    }
}

/// Replaces from left to right, once: what an item brings in is not looked at again.
fn put_in(text: &str, value: impl Fn(Placeholder) -> String) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(brace) = rest.find('{') {
        done.push_str(&rest[..brace]);
        rest = &rest[brace..];
        match PLACEHOLDERS.iter().find(|(text, _)| rest.starts_with(text)) {
            Some((text, placeholder)) => {
                done.push_str(&value(*placeholder));
                rest = &rest[text.len()..];
            }
            None => {
                done.push('{');
                rest = &rest[1..];
            }
        }
    }
    done.push_str(rest);
    done
}

/// One word for a POSIX shell.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,+@%=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Without the last dot and what follows it in the last part of the path.
fn without_ending(text: &str) -> &str {
    match text.rfind('.') {
        Some(dot) if !text[dot..].contains('/') => &text[..dot],
        _ => text,
    }
}

fn base(text: &str) -> &str {
    text.rfind('/').map_or(text, |slash| &text[slash + 1..])
}

/// As dirname(1): slashes at the end do not count, and a name alone is in `.`.
fn folder(text: &str) -> &str {
    let trimmed = text.trim_end_matches('/');
    if trimmed.is_empty() {
        return if text.is_empty() { "." } else { "/" };
    }
    match trimmed.rfind('/') {
        None => ".",
        Some(slash) => {
            let folder = trimmed[..slash].trim_end_matches('/');
            if folder.is_empty() { "/" } else { folder }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn item(text: &str) -> Item {
        Item::new(text.as_bytes().to_vec(), 3).expect("it can be an argument")
    }

    fn words(command: &[&str]) -> Vec<String> {
        command.iter().map(|word| (*word).to_owned()).collect()
    }

    const HOSTILE: [&str; 9] = ["a b", "two\nlines", "it's", "\"q\"", "-rf", "$(touch /tmp/x) `id` $HOME", "", "*", "日本 ;&|<>\\"];

    /// Shows each placeholder for names with folders, several dots, none, and slashes at the end.
    #[test]
    fn each_placeholder() {
        let table = [
            ("dir/song.tar.gz", ["dir/song.tar.gz", "dir/song.tar", "song.tar.gz", "dir", "song.tar", "3"]),
            ("a.b/c", ["a.b/c", "a.b/c", "c", "a.b", "c", "3"]),
            ("plain", ["plain", "plain", "plain", ".", "plain", "3"]),
            ("/etc", ["/etc", "/etc", "etc", "/", "etc", "3"]),
            ("a/b/", ["a/b/", "a/b/", "", "a", "", "3"]),
            ("", ["", "", "", ".", "", "3"]),
        ];
        for (text, expected) in table {
            assert_eq!(in_argv(&words(&["{}", "{.}", "{/}", "{//}", "{/.}", "{#}"]), &item(text)), expected, "{text:?}");
        }
    }

    /// Shows that an item is one word of argv, whatever is in it, and is not looked at for placeholders again.
    #[test]
    fn items_stay_one_word() {
        for text in HOSTILE.into_iter().chain(["{#} {}"]) {
            assert_eq!(in_argv(&words(&["cmd", "x={}", "{{}}", "{nothing}"]), &item(text)), ["cmd", &format!("x={text}"), &format!("{{{text}}}"), "{nothing}"]);
        }
    }

    /// Shows that without any placeholder the item comes last, and that a number alone counts as one.
    #[test]
    fn items_come_last_by_default() {
        assert_eq!(in_argv(&words(&["wc", "-l"]), &item("a b")), ["wc", "-l", "a b"]);
        assert_eq!(in_argv(&words(&["echo", "{#}"]), &item("a b")), ["echo", "3"]);
        assert_eq!(in_shell("wc -l", &item("a b")), "wc -l 'a b'");
        assert_eq!(in_shell("echo {#}", &item("a b")), "echo 3");
    }

    /// Shows with a real shell that a quoted item arrives as it was.
    #[test]
    fn the_shell_sees_one_word() {
        for text in HOSTILE {
            let string = in_shell("printf '%s.' {} x{}", &item(text));
            let output = Command::new("/bin/sh").args(["-c", &string]).output().expect("there is a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{text}.x{text}."), "{string}");
        }
    }

    /// Shows what cannot be an argument.
    #[test]
    fn what_is_no_argument() {
        assert_eq!(Item::new(b"\xff".to_vec(), 1), Err(BadItem::NotUtf8));
        assert_eq!(Item::new(b"a\0b".to_vec(), 1), Err(BadItem::Nul));
    }
}

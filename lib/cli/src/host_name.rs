//! The host name under which others see a daemon
use crate::exit::{Failure, io_text};
use std::fs;

/// Longer ones are not names of hosts (RFC 1035).
const CHARS_MAX: usize = 253;
const KERNEL: &str = "/proc/sys/kernel/hostname";

/// The name that was given with `--host`, or this machine's own.
///
/// It stands in tables, in `--on` and in other people's terminals, so it is what names of hosts are made of.
///
/// # Errors
/// A given name that is none: usage. A machine whose own name is none: configuration.
pub fn host_name(given: Option<&str>) -> Result<String, Failure> {
    match given {
        Some(name) if is_host_name(name) => Ok(name.to_owned()),
        Some(_) => Err(Failure::usage(format!("--host: that is no host name: 1 to {CHARS_MAX} letters, digits, dots, - and _")).hint("--host web-1")),
        None => {
            let own = fs::read_to_string(KERNEL).map_err(|error| Failure::config(format!("cannot find the host name: {}", io_text(&error))).hint("--host NAME"))?;
            let own = own.trim();
            if is_host_name(own) { Ok(own.to_owned()) } else { Err(Failure::config("this machine's host name is none").hint("--host NAME")) }
        }
    }
}

fn is_host_name(text: &str) -> bool {
    (1..=CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) && !text.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows what is taken for a host name and what is not.
    #[test]
    fn names() {
        for name in ["a", "web-1", "node3.rack_2.example.org", "10.0.0.1"] {
            assert_eq!(host_name(Some(name)).expect("it is one"), name);
        }
        let long = "x".repeat(CHARS_MAX + 1);
        for name in ["", " ", "a b", "a\tb", "-x", "\u{1b}[2J", "h\u{f6}st", "a/b", "a:1", &long] {
            assert_eq!(host_name(Some(name)).expect_err("it is none").kind(), crate::FailureKind::Usage, "{name:?}");
        }
        assert!(host_name(None).is_ok());
    }
}

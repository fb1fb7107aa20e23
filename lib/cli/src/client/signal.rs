//! Signals by name, as on the agents: Linux, with the numbers of its common machines
use meso_core::json::quoted;
use std::fmt;
use std::str::FromStr;

/// The highest number of a signal.
const NUMBER_MAX: i32 = 64;

const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A signal to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    pub fn number(self) -> i32 {
        self.0
    }
}

/// A text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSignal {
    text: String,
}

impl FromStr for Signal {
    type Err = BadSignal;

    /// Reads `TERM`, `SIGTERM`, `term` or `15`.
    fn from_str(text: &str) -> Result<Self, BadSignal> {
        let bad = || BadSignal { text: quoted(text) };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number)).map(Signal).ok_or_else(bad);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        NAMES.iter().find(|(own, _)| *own == name).map(|(_, number)| Signal(*number)).ok_or_else(bad)
    }
}

impl fmt::Display for BadSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no signal; a name such as TERM or USR1, or a number from 1 to {NUMBER_MAX}", self.text)
    }
}

impl std::error::Error for BadSignal {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows each way to write a signal, and what is none.
    #[test]
    fn names_and_numbers() {
        for (text, number) in [("TERM", 15), ("SIGTERM", 15), ("term", 15), ("sigusr1", 10), ("9", 9), ("64", 64)] {
            assert_eq!(text.parse(), Ok(Signal(number)), "{text}");
        }
        for bad in ["", "0", "65", "-1", "TERMX", "SIG", "99999999999", "\u{1b}[2J", "1 "] {
            let error = bad.parse::<Signal>().expect_err(bad).to_string();
            assert!(error.contains("is no signal") && !error.contains('\u{1b}'), "{error}");
        }
    }
}

//! What a tool says to people: whole lines on stderr, with foreign text made harmless
use crate::{exit::Failure, progress};
use meso_core::json::escape_for_terminal;
use std::{
    io::{self, Write},
    sync::OnceLock,
};

/// Name used before, or without, `meso_cli::main`.
const NAMELESS: &str = "meso";

static TOOL_NAME: OnceLock<&'static str> = OnceLock::new();

/// Says one thing on stderr, as `tool: text`, and goes on.
pub fn complain(text: &str) {
    to_stderr(&line(text, None));
}

/// Says a failure and its next step on stderr, and goes on.
pub fn report(failure: &Failure) {
    to_stderr(&line(failure.what(), failure.next_step()));
}

/// Says a failure without moving a progress bar aside: the panic may have happened while one was.
pub(crate) fn report_in_panic(failure: &Failure) {
    // With stderr gone there is nobody left to tell.
    let _ = io::stderr().write_all(line(failure.what(), failure.next_step()).as_bytes());
}

/// The name of the running tool, as it stands before its messages.
pub fn tool_name() -> &'static str {
    TOOL_NAME.get().copied().unwrap_or(NAMELESS)
}

pub(crate) fn set_tool_name(name: &'static str) {
    // The first name stays: a process is one tool.
    let _ = TOOL_NAME.set(name);
}

/// Writes text to stderr in one write, so that two tools in a pipeline do not mix within a line.
fn to_stderr(text: &str) {
    // With stderr gone there is nobody left to tell.
    progress::aside(|| drop(io::stderr().write_all(text.as_bytes())));
}

fn line(what: &str, next_step: Option<&str>) -> String {
    let mut text = format!("{}: {}\n", tool_name(), escape_for_terminal(what));
    if let Some(next_step) = next_step {
        text.push_str(&format!("  try: {}\n", escape_for_terminal(next_step)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that text of others can neither start a line of its own nor reach the terminal as a control sequence.
    #[test]
    fn foreign_text_is_escaped() {
        let text = line("no task named a\u{1b}[2J\nmeso: all is well", Some("x\ry"));
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("meso: no task named a") && text.contains("\n  try: x"), "{text:?}");
    }
}

//! What a check found, and the report that all of them make.

use std::time::Duration;

use meso_cli::{Exit, Failure, LineOut};
use meso_core::json::escape_for_terminal;
use serde::Serialize;

/// No check takes longer than this.
pub const CHECK_MS: u64 = 5_000;
/// See [`CHECK_MS`].
pub const CHECK: Duration = Duration::from_millis(CHECK_MS);
/// A finding names this many at most; how many there are it says in any case.
pub const IDS_MAX: usize = 100;
/// In a sentence for people fewer are enough.
const SHOWN_MAX: usize = 5;
/// Names of checks are padded to this, so that what was seen stands in one column.
const CHECK_COLUMNS: usize = 13;

/// How it stands with what was looked at, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It could not be looked at, for a reason that another finding gives.
    Skip,
    /// It works, and is not as it should be.
    Warn,
    /// It does not work.
    Fail,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    meso: &'static str,
    pub check: &'static str,
    pub state: State,
    /// What was seen, a fragment on one line.
    pub saw: String,
    /// The next step; there is one for whatever is not well.
    #[serde(rename = "try")]
    pub next_step: Option<String>,
    /// Agents, masters, offers or containers that it is about, [`IDS_MAX`] at most.
    pub ids: Vec<String>,
}

impl Finding {
    pub fn ok(check: &'static str, saw: impl Into<String>) -> Finding {
        Finding { meso: "finding/1", check, state: State::Ok, saw: saw.into(), next_step: None, ids: Vec::new() }
    }

    pub fn skip(check: &'static str, why: impl Into<String>) -> Finding {
        Finding { state: State::Skip, ..Finding::ok(check, why) }
    }

    pub fn warn(check: &'static str, saw: impl Into<String>, next_step: impl Into<String>) -> Finding {
        Finding { state: State::Warn, next_step: Some(next_step.into()), ..Finding::ok(check, saw) }
    }

    pub fn fail(check: &'static str, saw: impl Into<String>, next_step: impl Into<String>) -> Finding {
        Finding { state: State::Fail, ..Finding::warn(check, saw, next_step) }
    }

    /// A failure that a tool would end with, as what a check found.
    pub fn of_failure(check: &'static str, failure: &Failure) -> Finding {
        Finding::fail(check, failure.what(), failure.next_step().unwrap_or("the same again"))
    }

    /// The same finding with the ids that it is about.
    pub fn about(mut self, ids: impl IntoIterator<Item = String>) -> Finding {
        self.ids = ids.into_iter().take(IDS_MAX).collect();
        self
    }

    fn text(&self) -> String {
        let word = match self.state {
            State::Ok => "ok",
            State::Skip => "skip",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        let next_step = self.next_step.as_ref().map_or_else(String::new, |next_step| format!("\n  try: {}", escape_for_terminal(next_step)));
        format!("{word:<4}  {:<CHECK_COLUMNS$} {}{next_step}", self.check, escape_for_terminal(&self.saw))
    }
}

/// All findings, told as they come.
pub struct Report {
    out: LineOut,
    is_json: bool,
    worst: State,
}

impl Report {
    /// # Errors
    /// `Failed`: stdout cannot be used.
    pub fn new(is_json: bool) -> Result<Report, Failure> {
        Ok(Report { out: LineOut::stdout()?, is_json, worst: State::Ok })
    }

    /// # Errors
    /// A failed write, but not that the reader has gone: the exit code is worth the rest.
    pub fn tell(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<(), Failure> {
        for finding in findings {
            self.worst = self.worst.max(finding.state);
            // A reader who has seen enough is no failure.
            let _ = if self.is_json { self.out.object(&finding)? } else { self.out.bytes(finding.text().as_bytes())? };
        }
        Ok(())
    }

    pub fn exit(&self) -> Exit {
        match self.worst {
            State::Ok | State::Skip => Exit::DONE,
            State::Warn => Exit::WARNS,
            State::Fail => Exit::FAILS,
        }
    }
}

/// `1 agent`, `3 agents`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The first few of many, for people: `a, b, c and 9 more`.
pub fn few(all: &[String]) -> String {
    let shown = all.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows both forms of a finding, and that what others wrote can neither begin a line of its own nor reach the terminal.
    #[test]
    fn both_forms() {
        let finding = Finding::warn("agents", "there is none\u{1b}[2J\nok", "meso-agent").about(["agent_1".to_owned()]);
        assert_eq!(finding.text().lines().count(), 2);
        assert!(finding.text().starts_with("warn  agents        there is none") && finding.text().ends_with("\n  try: meso-agent") && !finding.text().contains('\u{1b}'), "{}", finding.text());
        let json = meso_cli::json_text(&Finding::fail("bus", "gone", "meso-up")).expect("it has a form");
        assert_eq!(json, r#"{"meso":"finding/1","check":"bus","state":"fail","saw":"gone","try":"meso-up","ids":[]}"#);
        assert!(meso_cli::json_text(&Finding::ok("bus", "there")).expect("it has a form").contains(r#""state":"ok","saw":"there","try":null"#));
    }

    /// Shows that many are cut to a few in words, and to a bound in ids.
    #[test]
    fn many_are_cut() {
        let ids: Vec<String> = (0..1000).map(|number| format!("agent_{number}")).collect();
        assert_eq!(few(&ids), "agent_0, agent_1, agent_2, agent_3, agent_4 and 995 more");
        assert_eq!(Finding::ok("agents", "").about(ids).ids.len(), IDS_MAX);
    }
}

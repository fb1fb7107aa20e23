//! A bar or a spinner on stderr, only where a person looks
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How often a spinner turns.
const TURN_MS: u64 = 120;

/// The bar on the screen, if there is one: whoever writes to the terminal moves it aside first.
static ON_SCREEN: Mutex<Option<ProgressBar>> = Mutex::new(None);
/// Whether `ON_SCREEN` holds a bar; read on every line written, so it must cost nothing.
static IS_ON_SCREEN: AtomicBool = AtomicBool::new(false);

/// A bar or a spinner, or nothing at all; cleared when dropped.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows nothing, ever.
    pub fn none() -> Self {
        Self { bar: None }
    }

    /// A bar of `total` steps; nothing if `quiet` or if nobody looks.
    pub fn bar(total: u64, quiet: bool) -> Self {
        if !somebody_looks(quiet) {
            return Self::none();
        }
        let bar = ProgressBar::new(total);
        bar.set_style(style("{bar:32} {pos}/{len} {elapsed} {wide_msg}"));
        Self::on_screen(bar)
    }

    /// A spinner before a text and the time it has taken; nothing if `quiet` or if nobody looks.
    pub fn spinner(text: &str, quiet: bool) -> Self {
        if !somebody_looks(quiet) {
            return Self::none();
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(style("{spinner} {wide_msg} {elapsed}"));
        let progress = Self::on_screen(bar);
        progress.say(text);
        progress
    }

    /// Whether a person sees this.
    pub fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Moves a bar on by so many steps.
    pub fn advance(&self, steps: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(steps);
        }
    }

    /// Sets how many steps there are, once that is known.
    pub fn set_total(&self, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// Sets the text beside it; foreign text is escaped.
    pub fn say(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(meso_core::json::escape_for_terminal(text).into_owned());
        }
    }

    /// Prints a whole line on stderr above the bar; without a bar, prints it all the same.
    pub fn println(&self, line: &str) {
        // With stderr gone there is nobody left to tell.
        aside(|| drop(io::stderr().write_all(format!("{line}\n").as_bytes())));
    }

    fn on_screen(bar: ProgressBar) -> Self {
        bar.enable_steady_tick(Duration::from_millis(TURN_MS));
        *ON_SCREEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        IS_ON_SCREEN.store(true, Ordering::Release);
        Self { bar: Some(bar) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            IS_ON_SCREEN.store(false, Ordering::Release);
            *ON_SCREEN.lock().unwrap_or_else(PoisonError::into_inner) = None;
            bar.finish_and_clear();
        }
    }
}

/// Does something that writes to the terminal while no bar is on it.
///
/// Must not be nested: the inner call would wait for the outer one.
pub fn aside<T>(write: impl FnOnce() -> T) -> T {
    if !IS_ON_SCREEN.load(Ordering::Acquire) {
        return write();
    }
    // The clone ends the lock before the write, which may block for long.
    let bar = ON_SCREEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A style from a template of ours; plain if indicatif should ever refuse it.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn somebody_looks(quiet: bool) -> bool {
    is_wanted(io::stderr().is_terminal(), env::var_os("TERM"), env::var_os("CI"), quiet)
}

/// indicatif asks only whether stderr is a terminal; a dumb one, or one that a CI system records, shows each turn as a new line.
fn is_wanted(is_terminal: bool, term: Option<OsString>, ci: Option<OsString>, quiet: bool) -> bool {
    let can_move = term.is_some_and(|term| !term.is_empty() && term != "dumb");
    let in_ci = ci.is_some_and(|ci| !ci.is_empty() && ci != "false" && ci != "0");
    is_terminal && can_move && !in_ci && !quiet
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows who gets a bar: only a person at a terminal that can move its cursor.
    #[test]
    fn only_people_get_a_bar() {
        let xterm = || Some(OsString::from("xterm"));
        assert!(is_wanted(true, xterm(), None, false));
        assert!(is_wanted(true, xterm(), Some("false".into()), false));
        assert!(!is_wanted(false, xterm(), None, false), "a file");
        assert!(!is_wanted(true, Some("dumb".into()), None, false), "a dumb terminal");
        assert!(!is_wanted(true, None, None, false), "cron has no TERM");
        assert!(!is_wanted(true, xterm(), Some("true".into()), false), "a CI log");
        assert!(!is_wanted(true, xterm(), None, true), "-q");
    }

    /// Shows that with nothing on the screen everything still works and writes pass through.
    #[test]
    fn nothing_shown_is_harmless() {
        let progress = Progress::none();
        progress.advance(3);
        progress.say("x");
        assert!(!progress.is_shown());
        assert_eq!(aside(|| 7), 7);
    }
}

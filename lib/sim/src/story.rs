//! The last events of a run, for a person who replays a seed.

use std::collections::VecDeque;

/// How many events a story tells, unless asked for more.
pub const STORY_LINES_MAX: usize = 50;

/// The end of a run; empty unless asked for, because telling costs more than simulating.
#[derive(Clone, Debug)]
pub struct Story {
    lines_max: usize,
    lines: VecDeque<String>,
}

impl Story {
    /// A story of at most so many lines; of none it is not told.
    pub fn new(lines_max: usize) -> Self {
        Story { lines_max, lines: VecDeque::new() }
    }

    /// Tells one event.
    pub fn tell(&mut self, now_ms: u64, line: impl FnOnce() -> String) {
        if self.lines_max > 0 {
            if self.lines.len() == self.lines_max {
                self.lines.pop_front();
            }
            let line: String = line().chars().take(1200).collect();
            self.lines.push_back(format!("{:>9.3}  {line}", now_ms as f64 / 1000.0));
        }
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

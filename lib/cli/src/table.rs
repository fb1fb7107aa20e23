//! Tables for people: aligned by the width of characters on screen, cut only where a person looks
use console::Term;
use meso_core::json::escape_for_terminal;
use std::{
    env,
    io::{self, IsTerminal},
    time::{SystemTime, UNIX_EPOCH},
};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: &str = "  ";
/// Marks where text was cut.
const CUT: char = '…';
/// A column is not cut below this.
const COLUMN_WIDTH_MIN: usize = 8;
/// What stands where there is nothing to say.
pub(crate) const NOTHING: &str = "-";

/// How output may look, by where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns of the screen; `None` where nothing may be cut.
    pub width: Option<usize>,
    /// Whether the heading may be bold.
    pub bold: bool,
    /// The time now, milliseconds since 1970, which ages are counted from.
    pub now_ms: u64,
}

impl Look {
    /// As stdout is: cut and bold only on a terminal, bold not under `NO_COLOR`.
    pub fn of_stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let columns = env::var("COLUMNS").ok().and_then(|text| text.parse::<usize>().ok()).filter(|columns| *columns > 0);
        let width = columns.or_else(|| Term::stdout().size_checked().map(|(_, columns)| usize::from(columns)));
        let can_style = env::var_os("TERM").is_some_and(|term| term != "dumb");
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Self { width: width.filter(|_| is_terminal), bold: is_terminal && can_style && !is_set("NO_COLOR"), now_ms }
    }
}

/// One column of a laid-out table.
pub(crate) struct Head {
    pub title: &'static str,
    /// Numbers stand on the right.
    pub right: bool,
    /// An id is never cut: half of it is of no use.
    pub whole: bool,
}

/// Lays out a heading and rows of escaped text; every line ends in a newline and has no trailing blanks.
pub(crate) fn lay_out(heads: &[Head], rows: &[Vec<String>], look: Look) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.title.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    if let Some(screen) = look.width {
        narrow(&mut widths, heads, screen);
    }
    let titles = heads.iter().map(|head| head.title.to_owned()).collect::<Vec<_>>();
    let mut text = String::new();
    let heading = line(&titles, heads, &widths, look.width);
    if look.bold {
        text.push_str(&format!("\u{1b}[1m{heading}\u{1b}[0m\n"));
    } else {
        text.push_str(&format!("{heading}\n"));
    }
    for row in rows {
        text.push_str(&line(row, heads, &widths, look.width));
        text.push('\n');
    }
    text
}

/// Takes from the widest columns first until the table fits, or nothing can be taken.
fn narrow(widths: &mut [usize], heads: &[Head], screen: usize) {
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
    while total(widths) > screen {
        let widest = widths.iter_mut().zip(heads).filter(|(width, head)| !head.whole && **width > COLUMN_WIDTH_MIN).map(|(width, _)| width).max();
        match widest {
            Some(width) => *width -= 1,
            None => return,
        }
    }
}

fn line(cells: &[String], heads: &[Head], widths: &[usize], screen: Option<usize>) -> String {
    let mut line = String::new();
    for (index, ((cell, head), width)) in cells.iter().zip(heads).zip(widths).enumerate() {
        if index > 0 {
            line.push_str(GAP);
        }
        let cell = fit(cell, *width);
        let pad = " ".repeat(width.saturating_sub(cell.width()));
        if head.right {
            line.push_str(&pad);
            line.push_str(&cell);
        } else {
            line.push_str(&cell);
            line.push_str(&pad);
        }
    }
    let line = line.trim_end();
    screen.map_or_else(|| line.to_owned(), |screen| fit(line, screen))
}

/// Text cut to a width on screen, with a mark; whole characters only.
fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut room = width.saturating_sub(1);
    for c in text.chars() {
        let needed = c.width().unwrap_or(0);
        if needed > room {
            break;
        }
        room -= needed;
        cut.push(c);
    }
    if width > 0 {
        cut.push(CUT);
    }
    cut
}

/// A cell's text: one line, harmless, and never empty.
pub(crate) fn cell_text(text: &str) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { escape_for_terminal(text).into_owned() }
}

/// How long ago, in the largest unit that fits: `12s`, `3m`, `5h`, `9d`; a time to come is `0s`.
pub fn age_text(now_ms: u64, then_ms: u64) -> String {
    let age_s = now_ms.saturating_sub(then_ms) / 1000;
    match age_s {
        0..60 => format!("{age_s}s"),
        60..3600 => format!("{}m", age_s / 60),
        3600..86_400 => format!("{}h", age_s / 3600),
        _ => format!("{}d", age_s / 86_400),
    }
}

/// An amount of memory or disk in MiB as one would type it: `512K`, `256M`, `1.5G`, `2T`; at most one decimal, rounded.
pub fn mib_text(mib: f64) -> String {
    let (amount, unit) = match mib {
        mib if mib >= 1024.0 * 1024.0 => (mib / (1024.0 * 1024.0), "T"),
        mib if mib >= 1024.0 => (mib / 1024.0, "G"),
        mib if mib >= 1.0 || mib <= 0.0 => (mib, "M"),
        mib => (mib * 1024.0, "K"),
    };
    let text = format!("{amount:.1}");
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: [Head; 3] =
        [Head { title: "ID", right: false, whole: true }, Head { title: "NAME", right: false, whole: false }, Head { title: "CPUS", right: true, whole: false }];
    const PIPE: Look = Look { width: None, bold: false, now_ms: 0 };

    fn rows(cells: &[[&str; 3]]) -> Vec<Vec<String>> {
        cells.iter().map(|row| row.iter().map(|cell| cell_text(cell)).collect()).collect()
    }

    /// Shows alignment by width on screen: a Chinese character takes two columns, an accent put on later none.
    #[test]
    fn columns_align_by_width() {
        let table = lay_out(&HEADS, &rows(&[["task_1", "日本語", "1"], ["t2", "e\u{301}t", "0.5"], ["t3", "", "12"]]), PIPE);
        assert_eq!(table, "ID      NAME    CPUS\ntask_1  日本語     1\nt2      e\u{301}t       0.5\nt3      -         12\n");
        assert!(table.lines().all(|line| line.width() == 20), "{table}");
    }

    /// Shows that a pipe gets every character and no control sequence, however wide the table.
    #[test]
    fn a_pipe_gets_everything() {
        let long = "n".repeat(500);
        let table = lay_out(&HEADS, &rows(&[["a", &long, "1"]]), PIPE);
        assert!(table.contains(&long) && !table.contains('\u{1b}'));
    }

    /// Shows that on a screen the widest column gives way, ids stay whole, and no line is wider than the screen.
    #[test]
    fn a_screen_cuts_the_widest() {
        let look = Look { width: Some(40), bold: true, now_ms: 0 };
        let table = lay_out(&HEADS, &rows(&[["task_7k3q9x2mfa", "日本語日本語日本語日本語日本語", "1"]]), look);
        let mut lines = table.lines();
        assert!(lines.next().is_some_and(|heading| heading.starts_with("\u{1b}[1mID") && heading.ends_with("\u{1b}[0m")));
        let row = lines.next().expect("there is a row");
        assert!(row.contains("task_7k3q9x2mfa") && row.contains('…') && row.ends_with('1') && row.width() <= 40, "{row}");
        let tiny = lay_out(&HEADS, &rows(&[["task_7k3q9x2mfa", "a name of some length", "1"]]), Look { width: Some(10), ..look });
        assert!(tiny.lines().skip(1).all(|line| line.width() <= 10), "{tiny}");
    }

    /// Shows that cells are one harmless line.
    #[test]
    fn cells_are_harmless() {
        let cell = cell_text("a\u{1b}]0;title\u{7}\nb\tc\u{202e}");
        assert!(!cell.chars().any(|c| c.is_control() || c == '\u{202e}'), "{cell:?}");
    }

    /// Shows ages and sizes as people read them.
    #[test]
    fn ages_and_sizes() {
        let ages = [(0, "0s"), (59_999, "59s"), (60_000, "1m"), (3_599_000, "59m"), (3_600_000, "1h"), (86_400_000, "1d"), (864_000_000, "10d")];
        for (ms, text) in ages {
            assert_eq!(age_text(ms, 0), text);
        }
        assert_eq!(age_text(0, 5000), "0s");
        let sizes = [(0.0, "0M"), (0.5, "512K"), (256.0, "256M"), (1024.0, "1G"), (1536.0, "1.5G"), (15_500.0, "15.1G"), (2_097_152.0, "2T")];
        for (mib, text) in sizes {
            assert_eq!(mib_text(mib), text);
        }
    }
}

//! Ending processes one by one, where no cgroup does it for us
use crate::spec::container_variable;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::Duration,
};

/// How often we look again for processes that were forked while we stopped the others
const STOP_PASSES: u32 = 50;
/// How often we look again for processes that carry our mark, and for how long that can take
const MARK_PASSES: u32 = 50;
const MARK_PAUSE_MS: u64 = 20;

/// Kills every descendant of this process
///
/// All are stopped before one is killed, so that a process which forks without end cannot outrun us. As this
/// process is a subreaper, an orphan is our child and cannot hide. Returns how many were found.
pub(crate) fn kill_all() -> usize {
    let me = std::process::id() as i32;
    let mut found: Vec<i32> = Vec::new();
    for _ in 0..STOP_PASSES {
        let now = below(me, &table());
        let fresh: Vec<i32> = now.into_iter().filter(|pid| !found.contains(pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pid in &fresh {
            signal(*pid, Signal::SIGSTOP);
        }
        found.extend(fresh);
    }
    for pid in &found {
        signal(*pid, Signal::SIGKILL);
    }
    found.len()
}

/// Kills every process whose environment carries the container's mark; the last resort when its supervisor is gone
///
/// Returns whether none was left in the end.
pub(crate) fn kill_marked(container_dir: &Path) -> bool {
    let mark = [container_variable().as_bytes(), b"=", container_dir.as_os_str().as_bytes()].concat();
    let me = std::process::id() as i32;
    for _ in 0..MARK_PASSES {
        let marked: Vec<i32> = table().into_iter().map(|p| p.0).filter(|pid| *pid != me && carries(*pid, &mark)).collect();
        if marked.is_empty() {
            return true;
        }
        for pid in &marked {
            signal(*pid, Signal::SIGSTOP);
        }
        for pid in &marked {
            signal(*pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(MARK_PAUSE_MS));
    }
    false
}

/// The processes below `root`, parents before children
fn below(root: i32, table: &[(i32, i32)]) -> Vec<i32> {
    let mut tree = vec![root];
    let mut at = 0;
    while at < tree.len() {
        let parent = tree[at];
        tree.extend(table.iter().filter(|(pid, above)| *above == parent && *pid != root).map(|p| p.0));
        at += 1;
    }
    tree.remove(0);
    tree
}

/// Every process and its parent
fn table() -> Vec<(i32, i32)> {
    let Ok(dir) = fs::read_dir("/proc") else { return Vec::new() };
    let parent = |pid: i32| {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything: what follows the last bracket is ours.
        let after = &stat[stat.iter().rposition(|b| *b == b')')? + 2..];
        let mut fields = std::str::from_utf8(after).ok()?.split(' ');
        let is_dead = matches!(fields.next()?, "Z" | "X");
        (!is_dead).then_some(fields.next()?.parse().ok()?)
    };
    dir.filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Some((pid, parent(pid)?))
    })
    .collect()
}

fn carries(pid: i32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == mark))
}

fn signal(pid: i32, signal: Signal) {
    // Gone already is what we want; not allowed cannot be helped.
    let _ = kill(Pid::from_raw(pid), signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only those below the root are found, however deep, and a loop in a torn table does not hang us
    #[test]
    fn tree_is_walked() {
        let table = [(2, 1), (10, 2), (11, 10), (12, 11), (20, 1), (21, 20), (30, 10)];
        let mut tree = below(10, &table);
        tree.sort_unstable();
        assert_eq!(tree, [11, 12, 30]);
        assert_eq!(below(99, &table), [] as [i32; 0]);
    }
}

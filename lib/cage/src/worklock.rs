//! One agent per work directory
use crate::error::CageError;
use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    thread,
    time::Duration,
};

/// How often and how long we look again for a lock whose holder is dead: two seconds in all
const BIRTH_LOOKS_MAX: u32 = 200;
const BIRTH_LOOK: Duration = Duration::from_millis(10);
/// Digits of the largest process number, and a newline
const PID_BYTES_MAX: usize = 12;

/// Holds a file until dropped, or until this process ends in whatever way
#[derive(Debug)]
pub struct WorkLock {
    _file: File,
}

impl WorkLock {
    /// Takes the lock, making the file if it is missing; the file then holds this process's number
    ///
    /// A holder that is dead may have left a copy of its descriptor in a child that was being born: that one closes it in a moment.
    ///
    /// # Errors
    /// [`CageError::Held`] names the process that has it.
    pub fn take(path: &Path) -> Result<WorkLock, CageError> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path);
        let file = options.map_err(|e| CageError::file("open", path, e))?;
        let mut tried = file.try_lock();
        for _ in 0..BIRTH_LOOKS_MAX {
            if !matches!(tried, Err(TryLockError::WouldBlock)) || is_alive(holder(&file)) {
                break;
            }
            thread::sleep(BIRTH_LOOK);
            tried = file.try_lock();
        }
        match tried {
            Ok(()) => {
                // Always as long, so that it needs no room on a full disk. Without it the lock is as good: it is for people.
                let _ = file.write_all_at(format!("{:<width$}\n", std::process::id(), width = PID_BYTES_MAX - 1).as_bytes(), 0);
                Ok(WorkLock { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(CageError::Held { path: path.to_owned(), pid: holder(&file) }),
            Err(TryLockError::Error(e)) => Err(CageError::file("lock", path, e)),
        }
    }
}

/// The process that says it holds the lock; 0 if it is just about to
fn holder(file: &File) -> i32 {
    let mut text = [0; PID_BYTES_MAX];
    let count = file.read_at(&mut text, 0).unwrap_or(0);
    std::str::from_utf8(&text[..count]).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn is_alive(pid: i32) -> bool {
    pid > 0 && Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second holder is told who the first is; the lock is free again after it
    #[test]
    fn second_is_told_of_first() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lock");
        let lock = WorkLock::take(&path).expect("it is free");
        match WorkLock::take(&path) {
            Err(CageError::Held { pid, .. }) => assert_eq!(pid, std::process::id() as i32),
            other => panic!("{other:?}"),
        }
        drop(lock);
        WorkLock::take(&path).expect("it is free again");
    }

    /// A lock that outlives its holder, in a child of it that is only being born, is waited for
    #[test]
    fn dead_holder_is_outwaited() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lock");
        let copy = WorkLock::take(&path).expect("it is free");
        let mut dead = std::process::Command::new("true").spawn().expect("true is everywhere");
        dead.wait().expect("it is our child");
        std::fs::write(&path, format!("{}\n", dead.id())).expect("it is ours");
        let child = thread::spawn(move || {
            thread::sleep(BIRTH_LOOK * 3);
            drop(copy);
        });
        WorkLock::take(&path).expect("the holder is dead");
        child.join().expect("it does not panic");
    }
}

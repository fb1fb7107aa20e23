//! One agent per work directory
use crate::error::CageError;
use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    thread,
    time::Duration,
};

/// How often and how long we look again for a lock that is held: two seconds in all
const LOOKS_MAX: u32 = 200;
const LOOK: Duration = Duration::from_millis(10);
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
    /// A holder that was killed a moment ago may still be on its way out, or have left a copy of its descriptor in a child that was
    /// being born, which closes it: whoever starts an agent again at once is not refused for that.
    ///
    /// # Errors
    /// [`CageError::Held`] names the process that has it.
    pub fn take(path: &Path) -> Result<WorkLock, CageError> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path);
        let file = options.map_err(|e| CageError::file("open", path, e))?;
        let mut tried = file.try_lock();
        for _ in 0..LOOKS_MAX {
            if !matches!(tried, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(LOOK);
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

    /// A lock that is given up a moment later is waited for, whoever is said to hold it
    #[test]
    fn ending_holder_is_outwaited() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lock");
        let held = WorkLock::take(&path).expect("it is free");
        let ending = thread::spawn(move || {
            thread::sleep(LOOK * 3);
            drop(held);
        });
        WorkLock::take(&path).expect("its holder ends");
        ending.join().expect("it does not panic");
    }
}

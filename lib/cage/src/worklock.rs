//! One agent per work directory
use crate::error::CageError;
use std::{
    fs::{OpenOptions, TryLockError, File},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Holds a file until dropped, or until this process ends in whatever way
#[derive(Debug)]
pub struct WorkLock {
    _file: File,
}

impl WorkLock {
    /// Takes the lock, making the file if it is missing; the file then holds this process's number
    ///
    /// # Errors
    /// [`CageError::Held`] names the process that has it.
    pub fn take(path: &Path) -> Result<WorkLock, CageError> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path);
        let file = options.map_err(|e| CageError::file("open", path, e))?;
        match file.try_lock() {
            Ok(()) => {
                let say = |mut file: &File| {
                    file.set_len(0)?;
                    writeln!(file, "{}", std::process::id())
                };
                say(&file).map_err(|e| CageError::file("write", path, e))?;
                Ok(WorkLock { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Whatever is in it: the holder may be just about to write.
                let _ = (&file).read_to_string(&mut text);
                Err(CageError::Held { path: path.to_owned(), pid: text.trim().parse().unwrap_or(0) })
            }
            Err(TryLockError::Error(e)) => Err(CageError::file("lock", path, e)),
        }
    }
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
}

//! Removing a directory that a task has had to itself
//!
//! It may be deeper than paths can be long, forbid us to look, and hold FIFOs, links to anywhere, or a million files.
//! Nothing in it is opened but directories, and none by a link; at most three are open at once, for what lies deeper is
//! moved up to the top first, each directory once.
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// How many names are read before they are acted on: a directory may have more than memory should hold
const NAMES_MAX: usize = 1024;
/// How many names are tried for a directory that is moved up; the task may have used some
const MOVE_TRIES: u32 = 100;

/// Removes a directory and all that is in it, whatever a task has made of it; none there is as good
///
/// # Errors
/// What could not be removed is still there, with the reason of one piece of it.
pub fn clear(dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let Some(name) = dir.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let parent = match open(parent, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        parent => parent?,
    };
    if unlink(&inside(&parent, name))? {
        return Ok(());
    }
    let top = enter(&parent, name)?;
    let mut moved = 0;
    loop {
        let (mut has_removed, mut left) = (false, None);
        for name in names(&top)? {
            match remove(&top, &name, &mut moved) {
                Ok(()) => has_removed = true,
                Err(error) => left = Some(error),
            }
        }
        match left {
            Some(error) if !has_removed => return Err(error),
            None if !has_removed => return fs::remove_dir(inside(&parent, name)),
            _ => {}
        }
    }
}

/// Removes one entry of the top; what a directory holds is moved beside it
fn remove(top: &File, name: &OsStr, moved: &mut u32) -> io::Result<()> {
    if unlink(&inside(top, name))? {
        return Ok(());
    }
    let dir = enter(top, name)?;
    loop {
        let names = names(&dir)?;
        if names.is_empty() {
            return fs::remove_dir(inside(top, name));
        }
        for name in names {
            if !unlink(&inside(&dir, &name))? {
                // To be moved it has to be writable, unless we may do everything.
                drop(enter(&dir, &name));
                move_up(&dir, &name, top, moved)?;
            }
        }
    }
}

fn move_up(dir: &File, name: &OsStr, top: &File, moved: &mut u32) -> io::Result<()> {
    let mut outcome = Ok(());
    for _ in 0..MOVE_TRIES {
        *moved += 1;
        outcome = fs::rename(inside(dir, name), inside(top, OsStr::new(&format!(".cleared{moved}"))));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Removes what is no directory; false if it is one
fn unlink(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a directory in another, having allowed ourselves to
fn enter(dir: &File, name: &OsStr) -> io::Result<File> {
    let path = inside(dir, name);
    let held = open(&path, libc::O_PATH | libc::O_NOFOLLOW)?;
    // Not ours, or a file system that does not take it: then what follows says so.
    let _ = fs::set_permissions(handle(&held), Permissions::from_mode(0o700));
    open(&path, libc::O_NOFOLLOW)
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | flags).open(path)
}

/// The next names in a directory, in no order
fn names(dir: &File) -> io::Result<Vec<OsString>> {
    fs::read_dir(handle(dir))?.take(NAMES_MAX).map(|entry| entry.map(|entry| entry.file_name())).collect()
}

/// A path to an open directory that is no longer than this, however deep that is
fn handle(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

fn inside(dir: &File, name: &OsStr) -> PathBuf {
    handle(dir).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{sys::stat::Mode, unistd::mkfifo};

    /// How deep a task may go without a path being too long for anybody who follows it
    const DEEP: usize = 10_000;

    /// Whatever a task has left is removed, without a look behind links, and nobody waits for a FIFO
    #[test]
    fn hostile_directory_goes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).and_then(|()| fs::write(outside.join("file"), "kept")).expect("it is ours");
        let sandbox = dir.path().join("sandbox");
        fs::create_dir(&sandbox).expect("it is ours");
        std::os::unix::fs::symlink(&outside, sandbox.join("link")).expect("it is ours");
        mkfifo(&sandbox.join("fifo"), Mode::from_bits_truncate(0o600)).expect("it is ours");
        fs::write(sandbox.join(OsStr::new("a\n-rf *")), "").expect("any name will do");
        // A name that the removal itself would use.
        fs::create_dir_all(sandbox.join(".cleared1/full/er")).expect("it is ours");
        let closed = sandbox.join("closed");
        fs::create_dir_all(closed.join("in/side")).and_then(|()| fs::set_permissions(closed.join("in"), Permissions::from_mode(0))).expect("it is ours");
        fs::set_permissions(&closed, Permissions::from_mode(0)).expect("it is ours");
        let mut at = open(&sandbox, 0).expect("it is ours");
        for _ in 0..DEEP {
            fs::create_dir(inside(&at, OsStr::new("d"))).and_then(|()| fs::write(inside(&at, OsStr::new("f")), "")).expect("it is ours");
            at = open(&inside(&at, OsStr::new("d")), 0).expect("it is ours");
        }
        for number in 0..3 * NAMES_MAX {
            fs::write(sandbox.join(format!("many{number}")), "").expect("it is ours");
        }
        clear(&sandbox).expect("it is ours");
        assert!(!sandbox.exists());
        assert_eq!(fs::read(outside.join("file")).expect("it is ours"), b"kept");
        clear(&sandbox).expect("none there is as good");
    }

    /// A link in place of the directory is removed, and what it leads to stays
    #[test]
    fn link_is_not_followed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (outside, link) = (dir.path().join("outside"), dir.path().join("link"));
        fs::create_dir(&outside).and_then(|()| std::os::unix::fs::symlink(&outside, &link)).expect("it is ours");
        clear(&link).expect("it is ours");
        assert!(outside.exists() && fs::symlink_metadata(&link).is_err());
    }
}

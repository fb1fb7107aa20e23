//! The work directory: found, made, and refused where others could have written what it says.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use meso_cage::machine;
use meso_cli::{Failure, io_text};

/// Others may go through it to their sandboxes, and no more.
const MODE: u32 = 0o711;
/// Write permission of others.
const OTHERS_WRITE: u32 = 0o002;
/// What is ours in it, by name, and whether it is a directory.
const OURS: [(&str, bool); 4] = [("journal", false), ("lock", false), ("sandboxes", true), ("containers", true)];

/// `--work-dir`, or a place where such things are kept; made if it is missing.
///
/// # Errors
/// 78, naming what in it is not as an agent leaves it: it decides what runs here, and as whom.
pub fn open(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let dir = match given {
        Some(dir) => dir,
        None if machine::privileged() => PathBuf::from("/var/lib/meso/agent"),
        None => match std::env::var_os("HOME") {
            Some(home) => PathBuf::from(home).join(".local/state/meso/agent"),
            None => return Err(Failure::usage("there is no HOME to keep a work directory in").hint("--work-dir DIR")),
        },
    };
    let cannot = |what: &str, error: io::Error| {
        Failure::config(format!("cannot {what} the work directory {}: {}", dir.display(), io_text(&error))).hint("--work-dir DIR that you may write")
    };
    DirBuilder::new().recursive(true).mode(MODE).create(&dir).map_err(|error| cannot("make", error))?;
    let link = fs::symlink_metadata(&dir).map_err(|error| cannot("open", error))?;
    if link.is_symlink() {
        // One may keep it on another disk; only whoever could put anything here may say where.
        check_owner(&dir, &link, "the link")?;
    }
    let dir = dir.canonicalize().map_err(|error| cannot("open", error))?;
    check(&dir)?;
    let sandboxes = dir.join("sandboxes");
    DirBuilder::new().recursive(true).mode(MODE).create(&sandboxes).map_err(|error| cannot("write in", error))?;
    let mode = fs::metadata(&dir).map_err(|error| cannot("open", error))?.mode();
    if mode & 0o7777 != MODE {
        fs::set_permissions(&dir, Permissions::from_mode(MODE)).map_err(|error| cannot("write in", error))?;
    }
    Ok(dir)
}

fn check(dir: &Path) -> Result<(), Failure> {
    let cannot = |path: &Path, error: io::Error| Failure::config(format!("cannot look at {}: {}", path.display(), io_text(&error)));
    let found = fs::metadata(dir).map_err(|error| cannot(dir, error))?;
    check_owner(dir, &found, "the work directory")?;
    if found.mode() & OTHERS_WRITE != 0 {
        let what = format!("the work directory {} may be written by everybody (mode {:04o}): what it says cannot be trusted", dir.display(), found.mode() & 0o7777);
        return Err(Failure::config(what).hint("a new --work-dir, or chmod o-w on this one if nobody else has written in it"));
    }
    for (name, is_dir) in OURS {
        let path = dir.join(name);
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(|error| cannot(&path, error))?,
        };
        if found.is_symlink() || found.is_dir() != is_dir {
            let kind = if found.is_symlink() { "a link" } else { "of another kind" };
            return Err(Failure::config(format!("{} is {kind}: no agent has made it", path.display())).hint("see what it is, and remove it or give another --work-dir"));
        }
        check_owner(&path, &found, "what is kept in the work directory")?;
    }
    Ok(())
}

/// Root's word counts too: it may do everything anyway.
fn check_owner(path: &Path, found: &Metadata, what: &str) -> Result<(), Failure> {
    let user = machine::user();
    if found.uid() == user || (found.uid() == 0 && found.is_symlink()) {
        return Ok(());
    }
    Err(Failure::config(format!("{what} {} belongs to user {}, the agent runs as user {user}", path.display(), found.uid())).hint("start the agent as that user, or give another --work-dir"))
}

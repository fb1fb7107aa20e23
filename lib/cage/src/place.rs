//! Where containers' control files live
//!
//! A container's few small files are made and removed with it, perhaps a thousand times a second. A disk file
//! system is bad at that: ext4 will not use a removed file's number again for minutes and searches past all of
//! them, a millisecond per file in the end. So they live in memory if there is such a file system, and only
//! output goes to the run directory. A link in the run directory leads there.
use crate::error::CageError;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, symlink},
    path::{Path, PathBuf},
};

/// File systems in memory that outlive us. Not those of a login session: they are cleared when the user leaves
const BASES: [&str; 2] = ["/run", "/dev/shm"];
/// In the run directory: leads to the control directory. No container has such a name
const LINK: &str = ".control";
/// In the control directory: leads back
const BACK_LINK: &str = ".run";

/// Where an agent's containers keep their files
#[derive(Debug)]
pub(crate) struct Place {
    /// Holds a directory per container
    pub control: PathBuf,
    /// Holds a directory per container that has printed something; the same as `control` if there is no better
    pub output: PathBuf,
    /// The control directory there was is gone: the machine was started anew
    pub is_new_boot: bool,
}

impl Place {
    pub(crate) fn open(run_dir: &Path) -> Result<Place, CageError> {
        DirBuilder::new().recursive(true).mode(0o700).create(run_dir).map_err(|e| CageError::file("make", run_dir, e))?;
        let output = run_dir.canonicalize().map_err(|e| CageError::file("find", run_dir, e))?;
        let link = output.join(LINK);
        let before = fs::read_link(&link).ok();
        if let Some(control) = before.as_ref().filter(|control| is_ours(control)) {
            return Ok(Place { control: control.clone(), output, is_new_boot: false });
        }
        let base = BASES.iter().map(Path::new).find(|base| nix::unistd::geteuid().is_root() && is_memory(base));
        let Some(base) = base.filter(|_| !is_memory(&output)).and_then(own_dir) else {
            return Ok(Place { control: output.clone(), output, is_new_boot: before.is_some() });
        };
        sweep(&base);
        let name = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|e| CageError::file("read", "/proc/sys/kernel/random/uuid", e))?;
        let control = base.join(name.trim());
        let make = || {
            DirBuilder::new().mode(0o700).create(&control)?;
            symlink(&output, control.join(BACK_LINK))?;
            let _ = fs::remove_file(&link);
            symlink(&control, &link)
        };
        make().map_err(|e| CageError::file("make", &control, e))?;
        Ok(Place { control, output, is_new_boot: before.is_some() })
    }

    /// Where a container's output goes, if not into its control directory
    pub(crate) fn output_dir(&self, id: &str) -> Option<PathBuf> {
        (self.control != self.output).then(|| self.output.join(id))
    }

    /// Removes the control directory if no container is left in it
    pub(crate) fn release(&self) {
        if self.control != self.output && is_empty(&self.control) {
            remove_control(&self.control);
            let _ = fs::remove_file(self.output.join(LINK));
        }
    }
}

fn is_memory(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|s| s.filesystem_type() == TMPFS_MAGIC)
}

/// `BASE/meso`, if nobody else has put something there
fn own_dir(base: &Path) -> Option<PathBuf> {
    let dir = base.join("meso");
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => None,
        _ => is_ours(&dir).then_some(dir),
    }
}

fn is_ours(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == nix::unistd::geteuid().as_raw() && m.mode() & 0o077 == 0)
}

/// Removes control directories whose run directory is gone
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let control = entry.path();
        let run_dir = fs::read_link(control.join(BACK_LINK)).ok();
        if run_dir.is_some_and(|dir| !dir.exists()) && !is_alive(&control) {
            remove_control(&control);
        }
    }
}

/// Whether a supervisor holds one of the containers
fn is_alive(control: &Path) -> bool {
    let specs = fs::read_dir(control).into_iter().flatten().flatten().filter_map(|e| fs::File::open(e.path().join("spec")).ok());
    specs.into_iter().any(|spec| spec.try_lock().is_err())
}

fn is_empty(control: &Path) -> bool {
    fs::read_dir(control).is_ok_and(|mut dir| dir.all(|e| e.is_ok_and(|e| e.file_name() == BACK_LINK)))
}

fn remove_control(control: &Path) {
    // What is left is found by the next sweep.
    let _ = fs::remove_dir_all(control);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same run directory leads to the same place each time, and a place that is gone means another boot
    #[test]
    fn place_is_found_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = Place::open(dir.path()).expect("it opens");
        let second = Place::open(dir.path()).expect("it opens");
        assert_eq!((&first.control, first.is_new_boot, second.is_new_boot), (&second.control, false, false));
        if first.control == first.output {
            return;
        }
        fs::remove_dir_all(&first.control).expect("it is ours");
        let third = Place::open(dir.path()).expect("it opens");
        assert!(third.is_new_boot && third.control != first.control);
        third.release();
        assert!(!third.control.exists() && is_empty(dir.path()));
    }
}

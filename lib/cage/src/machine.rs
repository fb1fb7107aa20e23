//! Facts of this machine, as the kernel tells them
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sched::{CpuSet, sched_getaffinity},
    sys::{
        statvfs::{FsFlags, statvfs},
        sysinfo::sysinfo,
    },
    unistd::{self, Pid},
};
use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// Says to the opening of a file that it is not to be found by a link
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;

/// Processors this process may run on; 1 if the kernel does not say
pub fn cpus() -> usize {
    let count = |set: CpuSet| (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count();
    sched_getaffinity(Pid::from_raw(0)).map_or(1, count).max(1)
}

/// All memory of the machine
pub fn mem_mib() -> io::Result<u64> {
    Ok(sysinfo()?.ram_total() >> 20)
}

/// All memory of the machine, and what of it a new program could have, in bytes
pub fn mem_bytes() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        rest.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map(|kib| kib << 10).ok_or(io::ErrorKind::InvalidData)
    };
    Ok((kib("MemTotal")?, kib("MemAvailable")?))
}

/// All space of the file system a path is on
pub fn disk_mib(path: &Path) -> io::Result<u64> {
    let fs = statvfs(path)?;
    Ok(((u128::from(fs.blocks()) * u128::from(fs.fragment_size())) >> 20) as u64)
}

/// What a file system has left for us
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// All of it, in bytes
    pub all_bytes: u64,
    pub free_bytes: u64,
    /// How many files may still be made, where that is limited
    pub free_files: Option<u64>,
    pub is_read_only: bool,
}

/// The room of the file system a path is on
pub fn room(path: &Path) -> io::Result<Room> {
    let fs = statvfs(path)?;
    // A part is kept for those who may do everything.
    let blocks = if privileged() { fs.blocks_free() } else { fs.blocks_available() };
    let files = if privileged() { fs.files_free() } else { fs.files_available() };
    Ok(Room {
        all_bytes: fs.blocks().saturating_mul(fs.fragment_size()),
        free_bytes: blocks.saturating_mul(fs.fragment_size()),
        free_files: (fs.files() > 0).then_some(files),
        is_read_only: fs.flags().contains(FsFlags::ST_RDONLY),
    })
}

/// Has the file system keep room for a file from an offset on, without changing its length
///
/// One that cannot promise room is taken at its word that it has some.
pub fn keep_room(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    let too_far = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let (from, bytes) = (i64::try_from(from).map_err(too_far)?, i64::try_from(bytes).map_err(too_far)?);
    loop {
        return match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, bytes) {
            Err(Errno::EINTR) => continue,
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
}

/// The machine's name
pub fn hostname() -> io::Result<String> {
    Ok(unistd::gethostname()?.to_string_lossy().into_owned())
}

/// A text that is another each time the machine is started
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When a process was started, in clock ticks since boot: with its number a name for it that is never used again
pub fn starttime(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything, also brackets: the last one closes it. What follows begins with field 3.
    let after = stat.rsplit_once(") ").map(|(_, after)| after);
    after.and_then(|fields| fields.split(' ').nth(19)?.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Has the allocator keep what is freed, up to 64 MiB, instead of giving it back to the kernel and asking again
///
/// An agent that serves output fills and frees buffers all the time. Each page that was given back costs a fault
/// when it is used again, which was most of what serving output cost.
#[allow(unsafe_code)] // the allocator is set by a call that only the C library has
pub fn keep_freed_memory() {
    const KEPT_BYTES: libc::c_int = 64 << 20;
    const AT_ONCE_BYTES: libc::c_int = 1 << 20;
    const LARGE_BYTES: libc::c_int = 4 << 20;
    for (parameter, bytes) in [(libc::M_TRIM_THRESHOLD, KEPT_BYTES), (libc::M_TOP_PAD, AT_ONCE_BYTES), (libc::M_MMAP_THRESHOLD, LARGE_BYTES)] {
        // SAFETY: mallopt only sets a number inside the allocator. It is called before other threads are started.
        // Where it refuses the number, everything works as before, only slower.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// The user we act as
pub fn user() -> u32 {
    unistd::geteuid().as_raw()
}

/// Whether we may do everything
pub fn privileged() -> bool {
    unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each fact can be had and is not nonsense
    #[test]
    fn facts_are_there() {
        assert!(cpus() >= 1);
        assert!(mem_mib().expect("memory") > 16);
        assert!(mem_bytes().is_ok_and(|(total, available)| total >= available && available > 16 << 20));
        assert!(disk_mib(Path::new("/")).expect("disk") > 0);
        assert!(room(Path::new("/")).is_ok_and(|room| room.all_bytes >= room.free_bytes && room.all_bytes > 0));
        assert!(!hostname().expect("name").is_empty());
        assert_eq!(boot_id().expect("boot id").len(), 36);
        let me = std::process::id() as i32;
        assert_eq!(starttime(me).expect("a start"), starttime(me).expect("a start"));
        assert!(starttime(-1).is_err());
    }

    /// Room that is kept for a file leaves its length and its bytes as they are
    #[test]
    fn room_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        fs::write(&path, "text").expect("it is ours");
        let file = File::options().write(true).open(&path).expect("it is ours");
        keep_room(&file, 4, 1 << 20).expect("there is room for it");
        assert_eq!(fs::read(&path).expect("it is ours"), b"text");
        assert!(keep_room(&file, 4, 1 << 62).is_err());
    }
}

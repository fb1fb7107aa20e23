//! Facts of this machine, as the kernel tells them
use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::{statvfs::statvfs, sysinfo::sysinfo},
    unistd::{self, Pid},
};
use std::{fs, io, path::Path};

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
        assert!(!hostname().expect("name").is_empty());
        assert_eq!(boot_id().expect("boot id").len(), 36);
        let me = std::process::id() as i32;
        assert_eq!(starttime(me).expect("a start"), starttime(me).expect("a start"));
        assert!(starttime(-1).is_err());
    }
}

//! This machine: what an agent, a master, a bus or meso-up would find on it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use meso_bus::testserver::version_of;
use meso_cli::service::{nats_server, own_folder};
use meso_cli::{Failure, Surroundings, io_text, mib_text};
use rustix::fs::{Access, access, statvfs};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::cgroups;
use crate::finding::{CHECK, CHECK_MS, Finding, Report, few};

/// An agent needs a few for each task and each reader of output, a master few, a bus two for each connection.
const FILES_MIN: u64 = 4_096;
/// What one wants of a service.
const FILES_WANTED: u64 = 65_536;
const MIB: u64 = 1 << 20;
/// With less than this, or less than [`DISK_PERCENT_WARN`], a disk is soon full.
const DISK_BYTES_WARN: u64 = 1_024 * MIB;
const DISK_PERCENT_WARN: u64 = 10;
/// With less than this an agent launches nothing more, and a bus stores nothing.
const DISK_BYTES_FAIL: u64 = 100 * MIB;
const SHM: &str = "/dev/shm";
/// The programs that are of no use without each other.
const PROGRAMS: [&str; 4] = ["meso-master", "meso-agent", "meso-supervisor", "meso-up"];

/// Looks at this machine.
///
/// # Errors
/// A failed write of the report.
pub async fn look(state: Option<PathBuf>, report: &mut Report) -> Result<(), Failure> {
    report.tell(bounded("kernel", || vec![of_kernel(&kernel(), pidfd_open(getpid(), PidfdFlags::empty()).map(drop).map_err(io::Error::from))]).await)?;
    report.tell(bounded("files", || vec![of_files(&fs::read_to_string("/proc/self/limits").unwrap_or_default())]).await)?;
    report.tell(bounded("cgroups", cgroups::look).await)?;
    report.tell(bounded("disk", move || disks(state)).await)?;
    report.tell(bounded("shm", || vec![of_shm(access(SHM, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from))]).await)?;
    report.tell(bounded("programs", || vec![of_programs(own_folder())]).await)?;
    report.tell(bounded("nats-server", || vec![of_nats_server(nats_server(None, &Surroundings::here()))]).await)
}

/// A file system that is away can hold up whoever asks for it, for ever.
async fn bounded(check: &'static str, look: impl FnOnce() -> Vec<Finding> + Send + 'static) -> Vec<Finding> {
    match timeout(CHECK, spawn_blocking(look)).await {
        Ok(Ok(findings)) => findings,
        _ => vec![Finding::fail(check, format!("the kernel does not answer within {CHECK_MS} ms"), "dmesg, and the file systems of other machines that are mounted here")],
    }
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Handles of processes are what tasks are watched and ended by; it is tried, for a sandbox may refuse what its kernel has.
fn of_kernel(release: &str, handle: io::Result<()>) -> Finding {
    match handle {
        Ok(()) => Finding::ok("kernel", format!("{release}, with handles of processes")),
        Err(error) => Finding::fail("kernel", format!("{release}: no handles of processes: {}", io_text(&error)), "Linux 5.4 or newer, and a sandbox that allows pidfd_open"),
    }
}

/// The limits in the form of /proc/self/limits.
fn of_files(limits: &str) -> Finding {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut fields = line.unwrap_or_default().split_whitespace();
    let mut limit = || fields.next().and_then(|field| if field == "unlimited" { Some(u64::MAX) } else { field.parse().ok() });
    let (Some(soft), Some(hard)) = (limit(), limit()) else { return Finding::skip("files", "/proc does not tell how many files may be open") };
    let saw = format!("{soft} may be open at once");
    match soft >= FILES_MIN {
        true => Finding::ok("files", saw),
        false if hard >= FILES_MIN => Finding::warn("files", saw, format!("ulimit -n {}, or LimitNOFILE={FILES_WANTED} in a service", hard.min(FILES_WANTED))),
        false => Finding::warn("files", format!("{saw}, and not more than {hard}"), format!("LimitNOFILE={FILES_WANTED} in a service, or nofile in /etc/security/limits.conf")),
    }
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    free: u64,
    total: u64,
}

fn disks(state: Option<PathBuf>) -> Vec<Finding> {
    let wanted = match state {
        Some(path) => vec![path],
        None => usual_places(&Surroundings::here(), rustix::process::geteuid().is_root()),
    };
    // Each file system once, by the place that is named first.
    let mut seen: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut findings = Vec::new();
    for path in wanted {
        // What is not there yet will be made, in the nearest that is.
        let Some(there) = path.ancestors().find(|path| path.exists()) else { continue };
        let room = fs::metadata(there).and_then(|facts| Ok((facts.dev(), room(there)?)));
        match room {
            Ok((device, _)) if seen.contains_key(&device) => {}
            Ok((device, room)) => {
                findings.push(of_room(&path, room));
                seen.insert(device, path);
            }
            Err(error) => findings.push(Finding::fail("disk", format!("{}: {}", there.display(), io_text(&error)), "--state DIR with a directory of yours")),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::skip("disk", "there is no HOME to keep state in"));
    }
    findings
}

/// Where agents and meso-up keep their state if nothing else is said.
fn usual_places(surroundings: &Surroundings, is_root: bool) -> Vec<PathBuf> {
    let state_home = surroundings.path("XDG_STATE_HOME").filter(|path| path.is_absolute()).or_else(|| Some(surroundings.home()?.join(".local/state")));
    let of_root = is_root.then(|| PathBuf::from("/var/lib/meso/agent"));
    of_root.into_iter().chain(state_home.map(|home| home.join("meso"))).collect()
}

fn room(path: &Path) -> io::Result<Room> {
    let facts = statvfs(path)?;
    Ok(Room { free: facts.f_bavail.saturating_mul(facts.f_frsize), total: facts.f_blocks.saturating_mul(facts.f_frsize) })
}

fn of_room(path: &Path, room: Room) -> Finding {
    let size = |bytes: u64| mib_text((bytes / MIB) as f64);
    let saw = format!("{} of {} free for {}", size(room.free), size(room.total), path.display());
    let mend = format!("du -xh {} | sort -h | tail, and away with what is not needed", path.display());
    let is_low = u128::from(room.free) * 100 < u128::from(room.total) * u128::from(DISK_PERCENT_WARN);
    match room.free {
        free if free < DISK_BYTES_FAIL => Finding::fail("disk", saw, mend),
        free if free < DISK_BYTES_WARN || is_low => Finding::warn("disk", saw, mend),
        _ => Finding::ok("disk", saw),
    }
}

fn of_shm(usable: io::Result<()>) -> Finding {
    match usable {
        Ok(()) => Finding::ok("shm", format!("{SHM} can be used")),
        Err(error) => Finding::warn("shm", format!("tasks whose processes share memory will fail: {SHM}: {}", io_text(&error)), format!("mount -t tmpfs -o mode=1777 tmpfs {SHM}")),
    }
}

fn of_programs(folder: Result<PathBuf, Failure>) -> Finding {
    let folder = match folder {
        Ok(folder) => folder,
        Err(failure) => return Finding::of_failure("programs", &failure),
    };
    let missing: Vec<String> = PROGRAMS.iter().filter(|program| !folder.join(program).is_file()).map(ToString::to_string).collect();
    match missing.is_empty() {
        true => Finding::ok("programs", format!("all in {}", folder.display())),
        false => Finding::warn("programs", format!("not in {}: {}", folder.display(), few(&missing)), "all of meso in one folder: an agent runs tasks by the meso-supervisor beside it"),
    }
}

/// A machine without a server is well: only meso-up and the bus itself want one.
fn of_nats_server(found: Result<PathBuf, Failure>) -> Finding {
    match found {
        Ok(path) => match version_of(&path) {
            Ok((major, minor, patch)) => Finding::ok("nats-server", format!("{major}.{minor}.{patch} at {}", path.display())),
            Err(error) => Finding::warn("nats-server", format!("{}: {}", path.display(), io_text(&error)), "a nats-server that runs here; meso-up wants one"),
        },
        Err(failure) if failure.kind() == meso_cli::FailureKind::Unreachable => Finding::ok("nats-server", "none here; meso-up wants one, nothing else does"),
        Err(failure) => Finding::warn("nats-server", failure.what(), failure.next_step().unwrap_or("the path of a nats-server")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            SOFT                 HARD                 files     \n";

    /// Shows what limits of open files are told, with what raises them, and that an unreadable table is no verdict.
    #[test]
    fn files() {
        let limits = |soft: &str, hard: &str| of_files(&LIMITS.replace("SOFT", soft).replace("HARD", hard));
        assert_eq!(limits("4096", "4096").state, State::Ok);
        assert_eq!(limits("unlimited", "unlimited").state, State::Ok);
        let low = limits("1024", "1048576");
        assert!(low.state == State::Warn && low.next_step.as_deref().is_some_and(|next| next.starts_with("ulimit -n 65536")), "{low:?}");
        let hard = limits("256", "1024");
        assert!(hard.state == State::Warn && hard.next_step.as_deref().is_some_and(|next| next.starts_with("LimitNOFILE")), "{hard:?}");
        assert_eq!([of_files("").state, limits("x", "y").state], [State::Skip, State::Skip]);
    }

    /// Shows the three bounds of room on a disk, each from both sides.
    #[test]
    fn disk_room() {
        let state = |free, total| of_room(Path::new("/s"), Room { free, total }).state;
        assert_eq!(state(DISK_BYTES_WARN, 10 * DISK_BYTES_WARN), State::Ok);
        assert_eq!(state(DISK_BYTES_WARN, 10 * DISK_BYTES_WARN + 10), State::Warn);
        assert_eq!(state(DISK_BYTES_WARN - 1, DISK_BYTES_WARN), State::Warn);
        assert_eq!(state(DISK_BYTES_FAIL, DISK_BYTES_FAIL), State::Warn);
        assert_eq!(state(DISK_BYTES_FAIL - 1, DISK_BYTES_FAIL), State::Fail);
        assert_eq!([state(0, 0), state(u64::MAX, u64::MAX)], [State::Fail, State::Ok]);
    }

    /// Shows that a directory that is not made yet counts as where it will be, and that one file system is told once.
    #[test]
    fn disk_places() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let told = disks(Some(folder.path().join("not/yet")));
        assert!(told.len() == 1 && told[0].saw.ends_with("/not/yet"), "{told:?}");
        let home = Surroundings::of([("HOME", "/h")], "/x");
        assert_eq!(usual_places(&home, true), [PathBuf::from("/var/lib/meso/agent"), "/h/.local/state/meso".into()]);
        assert_eq!(usual_places(&Surroundings::of([("HOME", "/h"), ("XDG_STATE_HOME", "/x")], "/x"), false), [PathBuf::from("/x/meso")]);
        assert_eq!(usual_places(&Surroundings::of([], "/x"), false), Vec::<PathBuf>::new());
    }

    /// Shows what is missing on a machine, each with its next step, and that no server is no fault.
    #[test]
    fn what_is_missing() {
        let refused = || io::Error::from_raw_os_error(38);
        assert_eq!([of_kernel("4.4.0", Err(refused())).state, of_kernel("6.1", Ok(())).state], [State::Fail, State::Ok]);
        assert_eq!([of_shm(Err(refused())).state, of_shm(Ok(())).state], [State::Warn, State::Ok]);
        let folder = tempfile::tempdir().expect("a folder can be made");
        fs::write(folder.path().join("meso-agent"), "").expect("it is ours");
        let programs = of_programs(Ok(folder.path().to_owned()));
        assert!(programs.state == State::Warn && programs.saw.ends_with(": meso-master, meso-supervisor, meso-up"), "{programs:?}");
        assert_eq!(of_nats_server(Err(Failure::unreachable("none"))).state, State::Ok);
        assert_eq!(of_nats_server(Err(Failure::config("no program"))).state, State::Warn);
    }
}
